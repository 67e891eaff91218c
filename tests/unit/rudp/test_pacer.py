"""The pacer in virtual time: its rate is exact in the long run despite late timers, and its bursts are limited."""

import itertools
import random

import pytest

from toolkit.rudp.pacer import Pacer

SECOND = 1_000_000_000
MS = 1_000_000
DATAGRAM = 1472
KIB = 1024


def send_for(
    pacer: Pacer, rate_bps: float, duration_ns: int, overshoot_ns: int, seed: int = 1
) -> list[tuple[int, int]]:
    """Simulate a sender that always has data and whose timers are late by up to twice `overshoot_ns`.

    Returns (time, bytes) of each send.
    """
    rng = random.Random(seed)
    now_ns = 0
    sends = []
    while now_ns < duration_ns:
        budget = pacer.budget_bytes(now_ns, rate_bps, DATAGRAM)
        if budget:
            pacer.on_sent(now_ns, budget, rate_bps)
            sends.append((now_ns, budget))
        else:
            now_ns = pacer.next_send_time_ns() + rng.randrange(2 * overshoot_ns + 1)
    return sends


@pytest.mark.parametrize("overshoot_ns", [0, 80_000, 400_000])
@pytest.mark.parametrize("rate_bps", [1e6, 100e6, 1e9, 10e9, 40e9])
def test_the_long_term_rate_is_exact(rate_bps: float, overshoot_ns: int) -> None:
    duration_ns = 20 * SECOND if rate_bps < 1e9 else SECOND // 2
    sent = sum(size for _, size in send_for(Pacer(), rate_bps, duration_ns, overshoot_ns))
    assert sent * 8e9 / duration_ns == pytest.approx(rate_bps, rel=0.005)


@pytest.mark.parametrize(
    ("rate_bps", "quantum"),
    [
        (1e6, 2 * DATAGRAM),  # 1 ms at this rate is 125 bytes
        (100e6, 8 * DATAGRAM),  # 12,500 bytes
        (1e9, 44 * DATAGRAM),  # 64 KiB
        (2e9, 44 * DATAGRAM),
        (10e9, 212 * DATAGRAM),  # 250 us at this rate, the resolution of timers
        (100e9, 356 * DATAGRAM),  # 512 KiB
    ],
)
def test_the_quantum_is_limited_by_two_datagrams_and_64_kib_or_by_timers(rate_bps: float, quantum: int) -> None:
    assert Pacer.quantum_bytes(rate_bps, DATAGRAM) == quantum
    assert Pacer().budget_bytes(0, rate_bps, DATAGRAM) == quantum


def test_a_quantum_is_released_only_after_the_one_before() -> None:
    pacer = Pacer()
    quantum = pacer.budget_bytes(0, 100e6, DATAGRAM)
    pacer.on_sent(0, quantum, 100e6)
    due_ns = pacer.next_send_time_ns()
    assert due_ns == pytest.approx(quantum * 8e9 / 100e6, abs=1)
    assert pacer.budget_bytes(due_ns - 1, 100e6, DATAGRAM) == 0
    assert pacer.budget_bytes(due_ns, 100e6, DATAGRAM) == quantum


def test_a_late_timer_at_a_high_rate_releases_several_quanta_up_to_512_kib() -> None:
    pacer = Pacer()
    pacer.on_sent(0, pacer.budget_bytes(0, 2e9, DATAGRAM), 2e9)
    assert pacer.budget_bytes(1000, 2e9, DATAGRAM) == 0
    late_ns = pacer.next_send_time_ns() + 600_000
    assert pacer.budget_bytes(late_ns, 2e9, DATAGRAM) == 3 * 44 * DATAGRAM
    pacer.budget_bytes(1000, 2e9, DATAGRAM)
    assert pacer.budget_bytes(late_ns + 3 * MS, 2e9, DATAGRAM) == 4 * 44 * DATAGRAM  # 1 ms and the quantum itself
    fast = Pacer()
    fast.on_sent(0, fast.budget_bytes(0, 10e9, DATAGRAM), 10e9)
    assert fast.budget_bytes(1000, 10e9, DATAGRAM) == 0
    assert 256 * KIB < fast.budget_bytes(fast.next_send_time_ns() + 3 * MS, 10e9, DATAGRAM) <= 512 * KIB


def test_what_a_late_sender_cannot_send_at_once_is_not_lost() -> None:
    """Where this host's queue is short, a round is as well."""
    pacer, rate_bps, round_bytes = Pacer(), 2.5e9, 44 * DATAGRAM
    pacer.on_sent(0, pacer.budget_bytes(0, rate_bps, DATAGRAM), rate_bps)
    assert pacer.budget_bytes(1000, rate_bps, DATAGRAM, round_bytes) == 0
    now_ns, sent_bytes = pacer.next_send_time_ns() + MS, 0
    while budget := pacer.budget_bytes(now_ns, rate_bps, DATAGRAM, round_bytes):
        assert budget <= round_bytes
        pacer.on_sent(now_ns, budget, rate_bps)
        sent_bytes += budget
    assert rate_bps / 8000 < sent_bytes <= rate_bps / 8000 + Pacer.quantum_bytes(rate_bps, DATAGRAM)


def test_full_queues_of_this_host_make_pauses_that_grow_and_are_not_made_up_for() -> None:
    pacer = Pacer()
    quantum = pacer.budget_bytes(0, 1e9, DATAGRAM)
    now_ns = 0
    for pause_ns in (MS // 4, MS // 2, MS):
        pacer.on_sent(now_ns, 0, 1e9)
        pacer.on_local_drop(now_ns)
        assert pacer.budget_bytes(now_ns + pause_ns - 1, 1e9, DATAGRAM) == 0
        now_ns += pause_ns
        assert pacer.next_send_time_ns() == now_ns
        assert pacer.budget_bytes(now_ns, 1e9, DATAGRAM) == quantum
    pacer.on_sent(now_ns, 0, 1e9)
    pacer.on_sent(now_ns, 0, 1e9)  # the one before was not dropped
    pacer.on_local_drop(now_ns)
    assert pacer.next_send_time_ns() == now_ns + MS // 4


@pytest.mark.parametrize("pause_ns", [10 * MS, SECOND, 3600 * SECOND])
def test_a_sender_limited_by_something_else_gets_one_quantum_after_a_pause(pause_ns: int) -> None:
    """A sender whose window opens again, or that has data again, earns nothing for the pause."""
    pacer = Pacer()
    pacer.on_sent(0, pacer.budget_bytes(0, 100e6, DATAGRAM), 100e6)
    pacer.on_limited()
    quantum = pacer.budget_bytes(pause_ns, 100e6, DATAGRAM)
    assert quantum == Pacer.quantum_bytes(100e6, DATAGRAM)
    pacer.on_sent(pause_ns, quantum, 100e6)
    assert pacer.budget_bytes(pause_ns, 100e6, DATAGRAM) == 0


def test_a_sender_whose_rounds_take_longer_than_a_quantum_lasts_sends_larger_ones() -> None:
    """A round takes 150 us and 1.4 ns for each byte: with 125 kB, what 250 us carry, the rate would not be reached."""
    pacer, now_ns, sent_bytes = Pacer(), 0, 0
    while now_ns < SECOND:
        budget = pacer.budget_bytes(now_ns, 4e9, DATAGRAM)
        if budget:
            pacer.on_sent(now_ns, budget, 4e9)
            sent_bytes += budget
            now_ns += round(150_000 + 1.4 * budget)
        else:
            now_ns = pacer.next_send_time_ns()
    assert sent_bytes * 8 == pytest.approx(4e9, rel=0.02)


def test_a_busy_sender_makes_up_for_no_more_than_a_millisecond() -> None:
    pacer = Pacer()
    quantum = pacer.budget_bytes(0, 1e9, DATAGRAM)
    pacer.on_sent(0, quantum, 1e9)
    assert pacer.budget_bytes(SECOND, 1e9, DATAGRAM) == 2 * quantum  # what 1 ms carries, and its own


def test_lateness_is_made_up_for_only_up_to_a_limit() -> None:
    pacer = Pacer()
    pacer.on_sent(0, pacer.budget_bytes(0, 100e6, DATAGRAM), 100e6)
    assert pacer.budget_bytes(1, 100e6, DATAGRAM) == 0
    now_ns = SECOND
    burst = 0
    while budget := pacer.budget_bytes(now_ns, 100e6, DATAGRAM):
        pacer.on_sent(now_ns, budget, 100e6)
        burst += budget
    assert burst <= 100e6 / 8 * 0.002 + 2 * Pacer.quantum_bytes(100e6, DATAGRAM)


@pytest.mark.parametrize(("late_ns", "is_too_late"), [(MS // 2, False), (5 * MS, True)])
def test_a_sender_that_cannot_make_up_for_all_of_its_lateness_is_too_late(late_ns: int, is_too_late: bool) -> None:
    pacer = Pacer()
    pacer.on_sent(0, pacer.budget_bytes(0, 100e6, DATAGRAM), 100e6)
    assert pacer.budget_bytes(1, 100e6, DATAGRAM) == 0
    assert not pacer.is_too_late
    now_ns = pacer.next_send_time_ns() + late_ns
    pacer.on_sent(now_ns, pacer.budget_bytes(now_ns, 100e6, DATAGRAM), 100e6)
    assert pacer.is_too_late == is_too_late
    pacer.budget_bytes(now_ns + MS, 100e6, DATAGRAM)  # it has not waited for the pacer since
    assert not pacer.is_too_late


def test_bytes_sent_beyond_the_budget_delay_the_next_quantum() -> None:
    pacer = Pacer()
    pacer.on_sent(0, 1_000_000, 100e6)
    assert pacer.next_send_time_ns() == 80 * MS


class TestCatchUp:
    """A sender at 100 Mbit/s that wakes up after a time slice of a scheduler, again and again."""

    SLICE_NS = 30 * MS
    RATE_BPS = 100e6

    def burst(self, pacer: Pacer, now_ns: int) -> int:
        """What is sent at once by a sender that has waited for its pacer, in bytes."""
        assert pacer.budget_bytes(pacer.next_send_time_ns() - 1, self.RATE_BPS, DATAGRAM) == 0
        total = 0
        while sent := pacer.budget_bytes(now_ns, self.RATE_BPS, DATAGRAM):
            pacer.on_sent(now_ns, sent, self.RATE_BPS)
            total += sent
        return total

    def bursts(self, pacer: Pacer, count: int, capacity_bytes: float = float("inf"), min_rtt_ns: int = MS) -> list[int]:
        """As many bursts, each after a slice, through a queue of this capacity that is empty before each."""
        now_ns, sizes = SECOND, []
        pacer.on_sent(0, DATAGRAM, self.RATE_BPS)
        for _ in range(count):
            sizes.append(self.burst(pacer, now_ns))
            if sizes[-1] > capacity_bytes:
                pacer.catch_up.on_lost(now_ns)
            now_ns += self.SLICE_NS
            pacer.catch_up.on_acked(now_ns - 1, min_rtt_ns)
        return sizes

    def test_it_makes_up_for_whole_slices_once_the_path_has_taken_shorter_bursts(self) -> None:
        sizes = self.bursts(Pacer(), 10)
        slice_bytes = self.RATE_BPS / 8 * self.SLICE_NS / SECOND
        assert sizes[0] <= 0.1 * slice_bytes
        assert all(after <= 2 * before + 2 * DATAGRAM for before, after in itertools.pairwise(sizes[1:]))
        assert sizes[-1] == pytest.approx(slice_bytes, rel=0.05)

    def test_on_a_long_path_only_the_usual_lateness_is_made_up_for(self) -> None:
        pacer = Pacer()
        sizes = self.bursts(pacer, 10, min_rtt_ns=40 * MS)
        assert max(sizes) <= 3 * Pacer.quantum_bytes(self.RATE_BPS, DATAGRAM)

    def test_a_shallow_queue_overflows_once(self) -> None:
        capacity = 60_000
        sizes = self.bursts(Pacer(), 30, capacity)
        assert sum(size > capacity for size in sizes) == 1
        assert sizes[-1] >= capacity / 4

    def test_a_burst_below_the_limit_that_overflows_a_queue_lowers_it(self) -> None:
        pacer = Pacer()
        self.bursts(pacer, 10)
        late_ns = pacer.catch_up.limit_ns // 2
        pacer.catch_up.on_burst(2 * SECOND, late_ns)
        pacer.catch_up.on_lost(2 * SECOND)
        assert pacer.catch_up.limit_ns == late_ns // 2

    def test_a_full_queue_of_this_host_counts_as_a_loss(self) -> None:
        pacer = Pacer()
        self.bursts(pacer, 5)
        limit_ns = pacer.catch_up.limit_ns
        pacer.catch_up.on_burst(SECOND, limit_ns)
        pacer.on_local_drop(SECOND)
        assert pacer.catch_up.limit_ns == limit_ns // 2

    def test_losses_of_what_was_sent_before_a_burst_say_nothing_about_it(self) -> None:
        pacer = Pacer()
        limit_ns = pacer.catch_up.limit_ns
        pacer.catch_up.on_burst(SECOND, limit_ns)
        pacer.catch_up.on_lost(SECOND - 1)
        pacer.catch_up.on_acked(SECOND, MS)
        assert pacer.catch_up.limit_ns == limit_ns
        pacer.catch_up.on_acked(SECOND + 1, MS)
        assert pacer.catch_up.limit_ns == 2 * limit_ns

    def test_a_burst_of_several_calls_has_arrived_once_its_last_part_has(self) -> None:
        """At 1 Gbit/s, 8 ms are two rounds of 512 KiB. Queues drop what comes last."""
        pacer, rate_bps, now_ns = Pacer(), 1e9, SECOND
        pacer.catch_up.limit_ns = 8 * MS
        pacer.on_sent(0, DATAGRAM, rate_bps)
        assert pacer.budget_bytes(pacer.next_send_time_ns() - 1, rate_bps, DATAGRAM) == 0
        sent_ns = []
        while sent := pacer.budget_bytes(now_ns, rate_bps, DATAGRAM):
            pacer.on_sent(now_ns, sent, rate_bps)
            sent_ns.append(now_ns)
            now_ns += MS // 10
        assert len(sent_ns) > 1
        for time_ns in sent_ns[1:]:
            pacer.catch_up.on_acked(time_ns, MS)
        assert pacer.catch_up.limit_ns == 8 * MS
        pacer.catch_up.on_lost(sent_ns[-1])
        assert pacer.catch_up.limit_ns == 4 * MS


class TestBurstRoom:
    """The quantum on a path whose queue is deep."""

    RTT_NS = 40 * MS

    def pacer_after(self, delays_ns: list[int], rtt_ns: int = RTT_NS, samples_per_rtt: int = 4) -> Pacer:
        """A pacer that was told these queueing delays, evenly over round trips of `rtt_ns`."""
        pacer = Pacer()
        for number, delay_ns in enumerate(delays_ns):
            now_ns = SECOND + number * rtt_ns // samples_per_rtt
            pacer.burst_room.on_rtt(now_ns, rtt_ns + delay_ns, rtt_ns)
        return pacer

    @pytest.mark.parametrize(
        ("rate_bps", "quantum_bytes"),
        [(1e6, 2 * DATAGRAM), (100e6, 25_000), (1e9, 250_000), (40e9, 512 * KIB)],
    )
    def test_a_deep_queue_lets_a_quantum_be_two_milliseconds(self, rate_bps: float, quantum_bytes: int) -> None:
        pacer = self.pacer_after([20 * MS] * 10)
        budget_bytes = pacer.budget_bytes(2 * SECOND, rate_bps, DATAGRAM)
        assert quantum_bytes - DATAGRAM < budget_bytes <= quantum_bytes

    @pytest.mark.parametrize("rate_bps", [1e8, 1e9])
    def test_a_quantum_takes_at_most_a_quarter_of_the_queue_or_what_it_takes_anyway(self, rate_bps: float) -> None:
        for queue_ns in (MS, 4 * MS, 6 * MS):
            budget_bytes = self.pacer_after([queue_ns] * 10).budget_bytes(2 * SECOND, rate_bps, DATAGRAM)
            quarter_bytes = rate_bps / 8 * queue_ns / 4 / SECOND
            assert budget_bytes <= max(quarter_bytes, Pacer.quantum_bytes(rate_bps, DATAGRAM))
            assert budget_bytes > quarter_bytes - DATAGRAM

    def test_a_queue_that_drains_within_a_round_trip_shows_nothing(self) -> None:
        pacer = self.pacer_after([20 * MS, 20 * MS, 20 * MS, 0] * 10)
        assert pacer.burst_room.limit_ns == 0

    @pytest.mark.parametrize(("rtt_ns", "delays_ns"), [(MS, [30 * MS]), (20 * MS, [30 * MS] * 3 + [0])])
    def test_processes_that_wait_for_a_processor_are_no_queue(self, rtt_ns: int, delays_ns: list[int]) -> None:
        pacer = self.pacer_after(delays_ns * 100, rtt_ns)
        assert pacer.burst_room.limit_ns == 0

    def test_a_queue_that_was_long_once_is_long(self) -> None:
        pacer = self.pacer_after([20 * MS] * 10 + [0] * 100)
        assert pacer.burst_room.limit_ns == 2 * MS
