"""BBR's model: random loss, congestion bounds, and the times of probes."""

import random

import pytest

from tests.support.congestion_samples import DATAGRAM_BYTES, MS, SECOND
from toolkit.rudp.congestion.bbr_model import CongestionBounds, ProbeTimer
from toolkit.rudp.congestion.random_loss import MAX_RANDOM_LOSS, RandomLoss

FLIGHT_PACKETS = 350
FLIGHT_BYTES = FLIGHT_PACKETS * DATAGRAM_BYTES


def count_round(loss: RandomLoss, lost: int) -> None:
    """Lose `lost` packets of one round trip's flight and acknowledge the others."""
    loss.on_lost(lost * DATAGRAM_BYTES)
    loss.on_acked((FLIGHT_PACKETS - lost) * DATAGRAM_BYTES)


def lose_at_random(loss: RandomLoss, ratio: float, rounds: int, rng: random.Random) -> None:
    for number in range(rounds):
        count_round(loss, sum(rng.random() < ratio for _ in range(FLIGHT_PACKETS)))
        loss.end_round(is_random=True, is_below_capacity=number % 20 == 0)


@pytest.mark.parametrize("ratio", [0.0, 0.001, 0.01, 0.05, 0.1, 0.2])
def test_the_ratio_of_random_loss_is_measured(ratio: float) -> None:
    loss = RandomLoss(DATAGRAM_BYTES)
    lose_at_random(loss, ratio, 100, random.Random(1))
    assert loss.ratio == pytest.approx(ratio, rel=0.15, abs=0.002)


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.1])
def test_random_loss_is_not_excessive_but_a_full_queue_is(ratio: float) -> None:
    rng = random.Random(2)
    loss = RandomLoss(DATAGRAM_BYTES)
    lose_at_random(loss, ratio, 60, rng)
    for _ in range(200):
        count_round(loss, sum(rng.random() < ratio for _ in range(FLIGHT_PACKETS)))
        assert not loss.is_excessive(FLIGHT_BYTES)
        loss.discard_round()
    loss.on_lost(int((ratio + 0.15) * FLIGHT_PACKETS) * DATAGRAM_BYTES)
    assert loss.is_excessive(FLIGHT_BYTES)


def test_the_first_losses_of_a_round_are_judged_against_a_whole_flight() -> None:
    loss = RandomLoss(DATAGRAM_BYTES)
    loss.on_lost(3 * DATAGRAM_BYTES)
    assert not loss.is_excessive(FLIGHT_BYTES)


def test_regular_bursts_of_loss_are_not_excessive() -> None:
    loss = RandomLoss(DATAGRAM_BYTES)
    for number in range(60):
        count_round(loss, 30 if number % 4 == 0 else 0)
        loss.end_round(is_random=True, is_below_capacity=False)
    count_round(loss, 30)
    assert not loss.is_excessive(FLIGHT_BYTES)


def test_the_drops_of_a_policer_are_not_random_loss() -> None:
    """The policer drops a fifth of the packets, but nothing of what ProbeBW_DOWN sends."""
    loss = RandomLoss(DATAGRAM_BYTES)
    for number in range(200):
        is_below_capacity = number % 20 == 0
        count_round(loss, 0 if is_below_capacity else 70)
        loss.end_round(is_random=True, is_below_capacity=is_below_capacity)
    assert loss.ratio < 0.01


def test_rounds_with_a_queue_do_not_count_as_random_loss() -> None:
    loss = RandomLoss(DATAGRAM_BYTES)
    for _ in range(50):
        count_round(loss, 100)
        loss.end_round(is_random=False, is_below_capacity=False)
    assert loss.ratio == 0.0


def test_the_ratio_of_random_loss_is_limited() -> None:
    loss = RandomLoss(DATAGRAM_BYTES)
    lose_at_random(loss, 0.8, 100, random.Random(3))
    assert loss.ratio <= MAX_RANDOM_LOSS


def test_spurious_losses_are_taken_back() -> None:
    loss = RandomLoss(DATAGRAM_BYTES)
    loss.on_lost(200 * DATAGRAM_BYTES)
    assert loss.is_excessive(FLIGHT_BYTES)
    loss.on_spurious(200 * DATAGRAM_BYTES)
    assert not loss.is_excessive(FLIGHT_BYTES)


def test_a_congested_round_lowers_the_short_term_bounds_by_at_most_beta() -> None:
    bounds = CongestionBounds()
    bounds.lower_shortterm(0, 100e6, 500_000, 20e6, 100_000)
    assert bounds.current.bw_shortterm == pytest.approx(70e6)
    assert bounds.current.inflight_shortterm == pytest.approx(350_000)
    bounds.lower_shortterm(0, 100e6, 500_000, 60e6, 300_000)
    assert bounds.current.bw_shortterm == pytest.approx(60e6)
    bounds.reset_shortterm()
    assert bounds.current.bw_shortterm == float("inf")


def test_only_the_last_change_of_the_bounds_can_be_undone() -> None:
    bounds = CongestionBounds()
    bounds.set_longterm_after_probe(100 * MS, 600_000, 500_000)
    bounds.lower_shortterm(200 * MS, 100e6, 500_000, 20e6, 100_000)
    bounds.undo(150 * MS)
    assert bounds.current.bw_shortterm == float("inf")
    assert bounds.current.inflight_longterm == 600_000
    bounds.undo(50 * MS)
    assert bounds.current.inflight_longterm == 600_000


def test_a_spurious_loss_of_a_later_packet_does_not_undo_a_change() -> None:
    bounds = CongestionBounds()
    bounds.set_longterm(100 * MS, 600_000)
    bounds.undo(101 * MS)
    assert bounds.current.inflight_longterm == 600_000


def test_a_change_caused_by_an_ecn_mark_cannot_be_undone() -> None:
    bounds = CongestionBounds()
    bounds.set_longterm(100 * MS, 600_000)
    bounds.confirm()
    bounds.undo(50 * MS)
    assert bounds.current.inflight_longterm == 600_000


def test_probe_bw_up_raises_the_long_term_bound_faster_each_round() -> None:
    bounds = CongestionBounds()
    bounds.set_longterm(0, 320_000)
    bounds.start_up(DATAGRAM_BYTES)
    bounds.raise_longterm(1.0)
    assert bounds.current.inflight_longterm == 340_000
    bounds.end_up_round()
    bounds.raise_longterm(0.5)
    assert bounds.current.inflight_longterm == 360_000


def test_probes_start_after_16_to_24_round_trips_and_flows_differ() -> None:
    lengths = set()
    for seed in range(40):
        timer = ProbeTimer(seed)
        timer.start_cycle(0, is_first=False)
        while not timer.is_due(500 * MS):
            timer.rounds += 1
        lengths.add(timer.rounds)
    assert lengths <= set(range(16, 25))
    assert len(lengths) > 4


def test_probes_start_after_three_seconds_at_the_latest() -> None:
    timer = ProbeTimer(1)
    timer.start_cycle(0, is_first=False)
    assert not timer.is_due(SECOND)
    assert timer.is_due(3 * SECOND)
