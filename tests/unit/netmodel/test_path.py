"""The path model against its mathematics; parametrised seeds are part of the test names."""

import math
import random
import statistics
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.support.repetitions import first_then_long
from toolkit.netmodel.path import AQM, BLACKOUT, BURST, LOSS, QUEUE, Fate, PathModel
from toolkit.netmodel.spec import BurstLoss, LinkChange, PathSpec, QueueSpec

MS = 1_000_000
SECOND = 1_000_000_000
SEEDS = first_then_long((1, 2))


def send(
    spec: PathSpec, packets: int, gap_ns: float, *, seed: int = 1, size: int = 1500, rtt_ns: int = 0
) -> list[Fate]:
    """Send `packets` packets of `size` bytes, one every `gap_ns`; return all fates in the order of polling."""
    path = PathModel(spec, rtt_ns, seed)
    fates = []
    for index in range(packets):
        path.handle_packets(index * gap_ns, size)
        fates += path.poll_fates(index * gap_ns)
    return fates + path.poll_fates(packets * gap_ns + 1000 * SECOND)


def arrivals(fates: list[Fate]) -> dict[int, int]:
    """Packet number -> first arrival."""
    return {index: at for fate in fates if not fate.is_duplicate for index, at in fate.deliveries()}


def dropped(fates: list[Fate], reason: str) -> set[int]:
    return {index for fate in fates if fate.drop == reason for index in range(fate.first, fate.first + fate.packets)}


def assert_binomial(hits: int, trials: int, probability: float) -> None:
    """Within the two-sided 99.9% interval (normal approximation: every test has enough hits for it)."""
    spread = 3.29 * math.sqrt(trials * probability * (1 - probability))
    assert abs(hits - trials * probability) <= spread, f"{hits} of {trials} at {probability}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("probability", first_then_long([0.05, 0.002, 0.5]))
def test_loss_is_binomial(seed: int, probability: float) -> None:
    lost = dropped(send(PathSpec(loss=probability), 50_000, MS, seed=seed), LOSS)
    assert_binomial(len(lost), 50_000, probability)


@pytest.mark.parametrize("seed", SEEDS)
def test_losses_are_independent_of_each_other(seed: int) -> None:
    lost = dropped(send(PathSpec(loss=0.2), 50_000, MS, seed=seed), LOSS)
    pairs = sum(index + 1 in lost for index in lost)
    assert_binomial(pairs, len(lost), 0.2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "queue",
    [QueueSpec(limit_bytes=30_000), QueueSpec(limit_ns=2 * MS), QueueSpec(codel=True), QueueSpec(ecn_threshold_ns=MS)],
)
@pytest.mark.parametrize("changes", [(), (LinkChange(150 * MS, rate_bps=50e6), LinkChange(300 * MS, rate_bps=100e6))])
def test_a_train_is_the_same_as_its_packets_one_by_one(
    seed: int, queue: QueueSpec, changes: tuple[LinkChange, ...]
) -> None:
    spec = PathSpec(rate_bps=100e6, delay_ns=MS, loss=0.02, queue=queue, changes=changes)
    generator = random.Random(seed)
    together, alone = PathModel(spec, 40 * MS, seed), PathModel(spec, 40 * MS, seed)
    now_ns, fates = 0.0, {together: [], alone: []}  # type: ignore[var-annotated]
    for _ in range(100):
        count, last_bytes = generator.randint(1, 45), generator.choice([0, 700])
        together.handle_packets(now_ns, 1500, count, last_bytes, True, gap_ns=12_000)
        for number in range(count):
            is_last = number == count - 1
            alone.handle_packets(now_ns + number * 12_000, last_bytes if is_last and last_bytes else 1500, is_ecn=True)
        now_ns += count * 12_000 + generator.expovariate(1 / (3.5 * MS))
        for path, found in fates.items():
            found += path.poll_fates(now_ns)
    for path, found in fates.items():
        found += path.poll_fates(now_ns + SECOND)
    assert arrivals(fates[together]) == arrivals(fates[alone])
    for reason in (QUEUE, AQM, LOSS):
        assert dropped(fates[together], reason) == dropped(fates[alone], reason)
    marked = [{n for f in found if f.is_marked for n, _ in f.deliveries()} for found in fates.values()]
    assert marked[0] == marked[1]


def test_a_shallow_queue_drains_while_a_super_packet_arrives() -> None:
    def drops(gap_ns: float) -> int:
        path = PathModel(PathSpec(rate_bps=100e6, queue=QueueSpec(limit_bytes=30_000)), 0, 1)
        path.handle_packets(0, 1500, 45, gap_ns=gap_ns)
        return len(dropped(path.poll_fates(SECOND), QUEUE))

    assert drops(0) == 25  # the queue holds 20 packets
    assert drops(12_000) == 21  # at ten times the rate of the bottleneck, it sends 4 meanwhile
    assert drops(120_000) == 0


def test_a_second_impairment_does_not_change_the_draws_of_the_first() -> None:
    plain = PathSpec(loss=0.02)
    busy = replace(plain, duplicate=0.1, corrupt=0.1, reorder=0.1, jitter_ns=3 * MS, jitter_reorders=True)
    assert dropped(send(plain, 5000, MS), LOSS) == dropped(send(busy, 5000, MS), LOSS)


def test_a_higher_probability_loses_the_same_packets_and_more() -> None:
    few, many = (dropped(send(PathSpec(loss=p), 20_000, MS), LOSS) for p in (0.01, 0.03))
    assert few < many


def test_the_two_directions_have_independent_draws() -> None:
    there, back = PathModel(PathSpec(loss=0.1), 0, 7, 0), PathModel(PathSpec(loss=0.1), 0, 7, 1)
    for path in (there, back):
        path.handle_packets(0, 100, 1000)
    assert there.poll_fates(0) != back.poll_fates(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_bursts_have_their_mean_length_and_share(seed: int) -> None:
    burst = BurstLoss.from_share(0.05, 20 * MS)
    path = PathModel(PathSpec(rate_bps=1.6e6, burst=burst, queue=QueueSpec(limit_bytes=10**9)), 0, seed)
    lost: list[int] = []
    for _ in range(600):  # trains of packets that leave every half millisecond
        path.handle_packets(0, 100, 1000)
        lost += dropped(path.poll_fates(0), BURST)
    lost.sort()
    runs = 1 + sum(b - a > 1 for a, b in pairwise(lost))
    # Runs closer than a packet look like one, and one shorter than a packet may be missed; both are about 1%.
    # The standard error of a mean of n exponential stays is mean / sqrt(n).
    assert len(lost) / 2 / runs == pytest.approx(20, rel=0.03 + 3.29 / math.sqrt(runs))
    assert len(lost) / 600_000 == pytest.approx(0.05, rel=3.29 * math.sqrt(2 / runs))
    assert burst.mean_loss == pytest.approx(0.05)


def test_bursts_depend_on_time_and_not_on_packets() -> None:
    spec = PathSpec(burst=BurstLoss.from_share(0.1, 20 * MS))
    dense = dropped(send(spec, 40_000, MS), BURST)
    sparse = dropped(send(spec, 4_000, 10 * MS, size=40), BURST)
    assert sparse
    assert sparse == {index // 10 for index in dense if index % 10 == 0}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_burst_may_lose_only_a_share(seed: int) -> None:
    burst = BurstLoss(mean_good_ns=1, mean_bad_ns=10**15, loss_good=0.0, loss_bad=0.3)
    lost = dropped(send(PathSpec(burst=burst), 20_000, MS, seed=seed), BURST)
    assert_binomial(len(lost), 20_000, 0.3)


@pytest.mark.parametrize("rate_bps", [1e6, 1e8, 1e9])
def test_the_rate_is_kept(rate_bps: float) -> None:
    gap_ns = 1500 * 8e9 / rate_bps
    spec = PathSpec(rate_bps=rate_bps, delay_ns=10 * MS, queue=QueueSpec(limit_bytes=150_000))
    came = sorted(arrivals(send(spec, 20_000, gap_ns / 1.5)).values())
    measured = (len(came) - 1) * 1500 * 8e9 / (came[-1] - came[0])
    assert measured == pytest.approx(rate_bps, rel=1e-4)


def test_an_idle_path_adds_transmission_and_propagation_only() -> None:
    came = arrivals(send(PathSpec(rate_bps=1e8, delay_ns=20 * MS), 5, SECOND))
    assert came == {index: index * SECOND + 20 * MS + 120_000 for index in range(5)}


def test_a_full_queue_refuses_the_last_packets() -> None:
    path = PathModel(PathSpec(rate_bps=1e6, queue=QueueSpec(limit_bytes=15_000)), 0, 1)
    path.handle_packets(0, 1500, 20)
    assert dropped(path.poll_fates(0), QUEUE) == set(range(10, 20))
    path.handle_packets(12 * MS, 1500, 2)  # one packet has been sent since
    assert dropped(path.poll_fates(12 * MS), QUEUE) == {21}
    path.handle_packets(12 * MS, 100)
    assert dropped(path.poll_fates(12 * MS), QUEUE) == {22}


def test_a_queue_in_time_holds_what_the_rate_carries_in_that_time() -> None:
    path = PathModel(PathSpec(rate_bps=12e6, queue=QueueSpec(limit_ns=50 * MS)), 0, 1)
    path.handle_packets(0, 1500, 100)
    assert dropped(path.poll_fates(0), QUEUE) == set(range(50, 100))


def test_a_queue_in_time_follows_the_rate_at_the_arrival_of_a_packet() -> None:
    """Not the rate at the previous packet, nor the rate at which the packet will depart."""
    spec = PathSpec(rate_bps=12e6, changes=(LinkChange(SECOND, rate_bps=1.2e6),), queue=QueueSpec(limit_ns=50 * MS))
    path = PathModel(spec, 0, 1)
    path.handle_packets(980 * MS, 1500, 100)  # 20 of them at 12 Mbit/s, 30 at a tenth of it
    path.handle_packets(981 * MS, 1500, 2)  # one packet has left, and the limit of 75 kB still applies
    path.handle_packets(1001 * MS, 1500)  # the limit is 7.5 kB
    path.handle_packets(3 * SECOND, 1500, 100)
    assert dropped(path.poll_fates(3 * SECOND), QUEUE) == {*range(50, 100), 101, 102, *range(108, 203)}


def test_the_limit_of_codel_follows_the_rate_too() -> None:
    queue = QueueSpec(codel=True, limit_ns=50 * MS)
    path = PathModel(PathSpec(rate_bps=12e6, changes=(LinkChange(SECOND, rate_bps=1.2e6),), queue=queue), 0, 1)
    path.handle_packets(2 * SECOND, 1500, 10)  # one is being sent, five wait
    assert dropped(path.poll_fates(2 * SECOND), QUEUE) == {6, 7, 8, 9}


def test_an_empty_queue_accepts_any_packet() -> None:
    path = PathModel(PathSpec(rate_bps=1e5, queue=QueueSpec(limit_ns=MS)), 0, 1)
    path.handle_packets(0, 1500, 2)
    assert dropped(path.poll_fates(0), QUEUE) == {1}


def test_a_queue_without_a_size_holds_one_bandwidth_delay_product() -> None:
    path = PathModel(PathSpec(rate_bps=1e8), 40 * MS, 1)
    path.handle_packets(0, 1500, 1000)
    assert dropped(path.poll_fates(0), QUEUE) == set(range(500_000 // 1500, 1000))


def test_a_short_last_packet_takes_less_time() -> None:
    path = PathModel(PathSpec(rate_bps=8e6), 0, 1)
    path.handle_packets(0, 1000, 3, last_bytes=500)
    assert arrivals(path.poll_fates(0)) == {0: MS, 1: 2 * MS, 2: 2 * MS + MS // 2}


def test_drop_tail_marks_packets_that_would_wait_too_long() -> None:
    path = PathModel(PathSpec(rate_bps=12e6, queue=QueueSpec(ecn_threshold_ns=5 * MS)), 0, 1)
    path.handle_packets(0, 1500, 10, is_ecn=True)
    marked = {i for f in path.poll_fates(0) if f.is_marked for i, _ in f.deliveries()}
    assert marked == {5, 6, 7, 8, 9}
    path.handle_packets(SECOND, 1500, 10)
    assert not any(fate.is_marked for fate in path.poll_fates(SECOND))


@pytest.mark.parametrize("seed", SEEDS)
def test_jitter_is_exponential(seed: int) -> None:
    came = arrivals(send(PathSpec(delay_ns=10 * MS, jitter_ns=2 * MS), 20_000, 100 * MS, seed=seed))
    extra_ms = [(at - index * 100 * MS - 10 * MS) / MS for index, at in came.items()]
    assert min(extra_ms) >= 0
    assert statistics.mean(extra_ms) == pytest.approx(2, rel=3.29 / math.sqrt(20_000))
    assert statistics.stdev(extra_ms) == pytest.approx(2, rel=0.05)
    assert_binomial(sum(e > 2 * math.log(10) for e in extra_ms), 20_000, 0.1)


def test_jitter_keeps_the_order_unless_it_may_reorder() -> None:
    in_order = list(arrivals(send(PathSpec(jitter_ns=5 * MS), 5000, MS)).values())
    assert in_order == sorted(in_order)
    free = list(arrivals(send(PathSpec(jitter_ns=5 * MS, jitter_reorders=True), 5000, MS)).values())
    assert free != sorted(free)


@pytest.mark.parametrize("seed", SEEDS)
def test_reordering_holds_back_the_requested_share(seed: int) -> None:
    spec = PathSpec(delay_ns=10 * MS, reorder=0.02, reorder_delay_ns=3 * MS)
    came = arrivals(send(spec, 20_000, MS, seed=seed))
    extra = [at - index * MS - 10 * MS for index, at in came.items()]
    assert set(extra) == {0, 3 * MS}
    assert_binomial(extra.count(3 * MS), 20_000, 0.02)


@pytest.mark.parametrize("seed", SEEDS)
def test_duplicates_and_corruption_have_the_requested_shares(seed: int) -> None:
    fates = send(PathSpec(duplicate=0.03, corrupt=0.05), 20_000, MS, seed=seed)
    assert len(arrivals(fates)) == 20_000
    assert_binomial(sum(fate.is_duplicate for fate in fates), 20_000, 0.03)
    damaged = [fate for fate in fates if fate.corrupt_at is not None and not fate.is_duplicate]
    assert_binomial(len(damaged), 20_000, 0.05)
    places = [fate.corrupt_at for fate in damaged if fate.corrupt_at is not None]
    assert statistics.mean(places) == pytest.approx(0.5, abs=3.29 * math.sqrt(1 / 12 / len(places)))


@pytest.mark.parametrize("reorders", [False, True])
@pytest.mark.parametrize("jitter_ns", [0, 20 * MS])
def test_a_packet_held_back_arrives_later_than_without(jitter_ns: int, reorders: bool) -> None:
    """By 5 ms, whatever its delay is: jitter, or the order after the path has become shorter."""
    spec = PathSpec(
        delay_ns=30 * MS, jitter_ns=jitter_ns, jitter_reorders=reorders, changes=(LinkChange(SECOND, delay_ns=5 * MS),)
    )
    plain, held = arrivals(send(spec, 2000, MS)), arrivals(send(replace(spec, reorder=0.05), 2000, MS))
    late = [at - plain[index] for index, at in held.items() if at != plain[index]]
    assert set(late) == {5 * MS}
    assert_binomial(len(late), 2000, 0.05)


def test_the_rate_changes_on_schedule() -> None:
    spec = PathSpec(rate_bps=12e6, changes=(LinkChange(SECOND, rate_bps=1.2e6),), queue=QueueSpec(limit_bytes=10**8))
    came = sorted(arrivals(send(spec, 3000, MS / 2)).values())
    assert sum(at <= SECOND for at in came) == 1000
    assert sum(SECOND < at <= 2 * SECOND for at in came) == 100


def test_delay_and_loss_change_on_schedule() -> None:
    spec = PathSpec(delay_ns=MS, changes=(LinkChange(SECOND, delay_ns=5 * MS), LinkChange(2 * SECOND, loss=1.0)))
    came = arrivals(send(spec, 300, 10 * MS))
    assert [came[i] - i * 10 * MS for i in (0, 99, 100, 199)] == [MS, MS, 5 * MS, 5 * MS]
    assert max(came) == 199


def test_a_shorter_delay_does_not_overtake() -> None:
    spec = PathSpec(delay_ns=50 * MS, changes=(LinkChange(SECOND, delay_ns=MS),))
    came = list(arrivals(send(spec, 200, 10 * MS)).values())
    assert came == sorted(came)
    assert came[-1] == 1990 * MS + MS


def test_a_blackout_takes_what_is_sent_in_it() -> None:
    spec = PathSpec(delay_ns=MS, changes=(LinkChange(SECOND, blackout_ns=200 * MS),))
    assert dropped(send(spec, 300, 10 * MS), BLACKOUT) == set(range(100, 120))


def codel_drops(**queue: object) -> tuple[PathModel, list[tuple[float, int]], list[Fate]]:
    """An unresponsive sender at 1.25 times the rate for 2 s: the path, (time, packet) of the drops, all fates."""
    spec = PathSpec(rate_bps=12e6, queue=QueueSpec(codel=True, limit_bytes=10**9, **queue))  # type: ignore[arg-type]
    path = PathModel(spec, 0, 1)
    drops, fates = [], []
    for step in range(20_000):  # every 0.1 ms
        now_ns = step * MS / 10
        if step % 8 == 0:
            path.handle_packets(now_ns, 1500, is_ecn=bool(queue.get("ecn")))
        for fate in path.poll_fates(now_ns):
            fates.append(fate)
            if fate.drop == AQM:
                drops.append((now_ns, fate.first))
    return path, drops, fates


def test_codel_drops_by_its_control_law() -> None:
    _, drops, _ = codel_drops()
    times_ms = [at / MS for at, _ in drops]
    # The delay grows by 0.25 ms per ms: it reaches 5 ms at 20 ms, and the first drop follows one interval later.
    assert times_ms[0] == pytest.approx(5 / 0.25 + 5 + 100, abs=3)
    for n, (a, b) in enumerate(pairwise(times_ms[:15]), 1):
        assert b - a == pytest.approx(100 / math.sqrt(n), abs=1.2), n


def test_codel_marks_instead_of_dropping() -> None:
    _, drops, fates = codel_drops(ecn=True)
    assert not drops
    marked = [fate for fate in fates if fate.is_marked]
    assert len(marked) > 30
    assert len(arrivals(fates)) == sum(fate.packets for fate in fates)


def test_codel_does_not_drop_from_a_short_queue() -> None:
    spec = PathSpec(rate_bps=12e6, queue=QueueSpec(codel=True))
    fates = send(spec, 5000, 1.01 * MS)
    assert len(arrivals(fates)) == 5000


def test_codel_controls_a_responsive_sender() -> None:
    """A window that halves at a drop and grows by one per round trip keeps the standing queue near the target."""
    path = PathModel(PathSpec(rate_bps=12e6, delay_ns=20 * MS, queue=QueueSpec(codel=True, limit_bytes=10**9)), 0, 1)
    window, in_flight, now_ns, next_cut_ns = 200.0, 0, 0.0, 0.0
    sent_at: dict[int, float] = {}
    due: list[tuple[int, int]] = []
    waits_ms: list[float] = []
    while now_ns < 20 * SECOND:
        while in_flight < window:
            sent_at[path.handle_packets(now_ns, 1500)] = now_ns
            in_flight += 1
        for fate in path.poll_fates(now_ns):
            if fate.drop:
                in_flight -= fate.packets
                if now_ns >= next_cut_ns:
                    window, next_cut_ns = max(2.0, window / 2), now_ns + 50 * MS
            else:
                due.extend((at, index) for index, at in fate.deliveries())
        for at, index in [entry for entry in due if entry[0] <= now_ns]:
            due.remove((at, index))
            in_flight -= 1
            window += 1 / window
            if now_ns > 5 * SECOND:
                waits_ms.append((at - sent_at[index]) / MS - 21)
        now_ns += MS
    assert statistics.median(waits_ms) < 8
    assert len(waits_ms) > 0.8 * 15_000


def test_the_seed_determines_the_fates() -> None:
    spec = PathSpec(
        rate_bps=5e6,
        jitter_ns=MS,
        loss=0.01,
        burst=BurstLoss.from_share(0.02, 30 * MS),
        duplicate=0.01,
        corrupt=0.01,
        reorder=0.01,
    )
    once, twice, other = (send(spec, 5000, 2 * MS, seed=seed) for seed in (7, 7, 8))
    assert once == twice
    assert once != other
