"""BBR's parts: the filters of the path, the judgement of losses, the bounds, the times of probes."""

import dataclasses
import random

import pytest

from toolkit.rudp.congestion.base import AckSample, LossSample
from toolkit.rudp.congestion.bbr import Bbr
from toolkit.rudp.congestion.bbr_bounds import CongestionBounds
from toolkit.rudp.congestion.bbr_loss import MAX_PATH_LOSS, PathLoss
from toolkit.rudp.congestion.bbr_phases import CWND_GAIN, PACING_GAIN, SUCCESSORS, Phase, ProbeClock
from toolkit.rudp.congestion.path_model import ExtraAcked, FullBandwidth, MaxBandwidth, MinRtt, QueueDelay, Rounds

MS = 1_000_000
SECOND = 1_000_000_000
MSS = 1200

ACK = AckSample(
    now_ns=50 * MS,
    newly_acked_bytes=10 * MSS,
    newly_lost_bytes=0,
    bytes_in_flight=0,
    prior_in_flight_bytes=10 * MSS,
    delivered_bytes=10 * MSS,
    prior_delivered_bytes=0,
    lost_bytes=0,
    lost_since_sent_bytes=0,
    in_flight_at_send_bytes=10 * MSS,
    largest_acked_sent_time_ns=10 * MS,
    rtt_ns=40 * MS,
    smoothed_rtt_ns=40 * MS,
    min_rtt_ns=40 * MS,
    delivery_rate_bps=2.4e6,
    is_app_limited=False,
    is_window_limited=True,
)


def test_the_bandwidth_filter_remembers_this_cycle_and_the_one_before() -> None:
    bandwidth = MaxBandwidth()
    bandwidth.update(10e6)
    bandwidth.advance()
    bandwidth.update(4e6)
    assert bandwidth.bps == 10e6
    bandwidth.advance()
    assert bandwidth.bps == 4e6
    bandwidth.advance()  # a cycle without samples
    assert bandwidth.bps == 4e6


def test_full_bandwidth_is_rounds_without_a_quarter_more() -> None:
    full = FullBandwidth()
    assert full.end_round(10e6)
    assert full.end_round(12.6e6)
    assert not full.end_round(13e6)
    assert not full.end_round(15e6)
    assert full.has_plateau(2)
    assert not full.has_plateau(3)
    assert full.end_round(16e6)
    assert not full.has_plateau(1)


def test_probe_rtt_is_due_only_where_the_minimum_was_not_nearly_seen_for_five_seconds() -> None:
    min_rtt = MinRtt()
    for second in range(20):
        min_rtt.update(second * SECOND, 43 * MS if second else 40 * MS)
        assert not min_rtt.is_probe_due
    for second in range(20, 26):
        min_rtt.update(second * SECOND, 50 * MS)
    assert min_rtt.is_probe_due
    assert min_rtt.ns == 40 * MS


def test_a_path_that_has_become_longer_is_believed_after_a_probe_and_ten_seconds() -> None:
    min_rtt = MinRtt()
    min_rtt.update(0, 40 * MS)
    for now_ns, expected_ns in ((6 * SECOND, 40 * MS), (12 * SECOND, 60 * MS)):
        min_rtt.start_probe(65 * MS)
        min_rtt.update(now_ns, 60 * MS)
        min_rtt.end_probe(now_ns)
        assert min_rtt.ns == expected_ns


def test_extra_acked_is_what_came_ahead_of_the_bandwidth_and_is_forgotten() -> None:
    extra = ExtraAcked()
    now_ns = 0
    for _ in range(20):  # 1 MB/s, and a quarter of 40 ms of it at once
        now_ns += 10 * MS
        sample = dataclasses.replace(ACK, now_ns=now_ns, newly_acked_bytes=10_000)
        extra.update(sample, 8e6, 1_000_000, is_round_start=now_ns % (40 * MS) == 0)
    assert extra.bytes == pytest.approx(10_000, rel=0.01)
    for _ in range(15):
        now_ns += 40 * MS
        extra.update(dataclasses.replace(ACK, now_ns=now_ns, newly_acked_bytes=10), 8e6, 1_000_000, is_round_start=True)
    assert extra.bytes == pytest.approx(10, abs=1)


def test_a_round_ends_with_what_was_sent_after_it_began() -> None:
    rounds = Rounds()
    rounds.update(dataclasses.replace(ACK, delivered_bytes=100, prior_delivered_bytes=0))
    assert rounds.is_start
    rounds.update(dataclasses.replace(ACK, delivered_bytes=200, prior_delivered_bytes=50))
    assert not rounds.is_start
    rounds.update(dataclasses.replace(ACK, delivered_bytes=300, prior_delivered_bytes=100))
    assert rounds.is_start
    rounds.restart()
    rounds.update(dataclasses.replace(ACK, delivered_bytes=400, prior_delivered_bytes=299))
    assert not rounds.is_start


def queue_round(queue: QueueDelay, rtts_ms: list[int]) -> None:
    for rtt_ms in rtts_ms:
        queue.update(rtt_ms * MS, 40 * MS)
    queue.end_round(40 * MS)


def test_a_queue_is_seen_when_the_latest_samples_agree() -> None:
    queue = QueueDelay()
    queue_round(queue, [60, 60])
    assert not queue.is_seen
    queue_round(queue, [60])
    assert queue.is_seen
    queue_round(queue, [41])
    assert not queue.is_seen


def test_a_deep_queue_is_one_that_grows() -> None:
    queue = QueueDelay()
    queue_round(queue, [66, 67, 68])
    assert queue.is_deep
    queue_round(queue, [68])
    assert not queue.is_deep


def test_an_rtt_that_goes_up_and_down_shows_no_queue() -> None:
    """Jitter, by a generator with seed 1: an exponential delay of 10 ms on each way."""
    rng = random.Random(1)
    queue = QueueDelay()
    seen = deep = 0
    for number in range(2000):
        queue.update(int((40 + rng.expovariate(0.1) + rng.expovariate(0.1)) * MS), 40 * MS)
        if number >= 16:  # so many it takes to know
            seen += queue.is_seen
            deep += queue.is_deep
    assert seen < 0.05 * 2000
    assert deep < 0.005 * 2000


def test_a_queue_is_seen_through_jitter_once_it_is_larger() -> None:
    rng = random.Random(2)
    queue = QueueDelay()
    for _ in range(50):
        queue.update(int((40 + rng.expovariate(0.5)) * MS), 40 * MS)
    assert not queue.is_seen
    for _ in range(3):
        queue.update(int((80 + rng.expovariate(0.5)) * MS), 40 * MS)
    assert queue.is_seen


def test_a_standing_queue_is_what_a_round_never_falls_below() -> None:
    queue = QueueDelay()
    queue_round(queue, [55, 60, 70])
    assert queue.standing_ns == 15 * MS
    assert queue.is_standing(40 * MS)
    queue_round(queue, [60, 50, 41])
    assert queue.standing_ns == 1 * MS
    assert not queue.is_standing(40 * MS)


def test_losses_are_clear_of_a_queue_only_after_two_rounds_without() -> None:
    queue = QueueDelay()
    queue_round(queue, [55, 60, 70])
    queue_round(queue, [40, 41, 40])
    assert not queue.was_absent
    queue_round(queue, [40, 41, 40])
    assert queue.was_absent


def lose_at_random(loss: PathLoss, share: float, rounds: int, rng: random.Random, packets: int = 350) -> None:
    for number in range(rounds):
        lost = sum(rng.random() < share for _ in range(packets))
        loss.on_lost(lost * MSS)
        loss.on_acked((packets - lost) * MSS)
        loss.end_round(is_of_the_path=True, is_below_capacity=number % 20 == 0)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.05, 0.1, 0.2])
def test_the_share_that_a_path_loses_is_measured(share: float) -> None:
    loss = PathLoss(MSS)
    lose_at_random(loss, share, 100, random.Random(1))
    assert loss.share == pytest.approx(share, rel=0.15, abs=0.002)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
def test_chance_is_not_excessive_and_a_full_queue_is(share: float) -> None:
    rng = random.Random(2)
    loss = PathLoss(MSS)
    lose_at_random(loss, share, 60, rng)
    for _ in range(200):
        lost = sum(rng.random() < share for _ in range(350))
        loss.on_lost(lost * MSS)
        loss.on_acked((350 - lost) * MSS)
        assert not loss.is_excessive(350 * MSS)
        loss.forget_round()
    loss.on_lost(int((share + 0.15) * 350) * MSS)
    assert loss.is_excessive(350 * MSS)


def test_the_first_packet_of_a_round_is_no_sample_of_it() -> None:
    loss = PathLoss(MSS)
    loss.on_lost(3 * MSS)
    assert not loss.is_excessive(350 * MSS)


def test_bursts_are_learnt_and_then_are_not_excessive() -> None:
    loss = PathLoss(MSS)
    for number in range(60):
        lost = 30 if number % 4 == 0 else 0
        loss.on_lost(lost * MSS)
        loss.on_acked((350 - lost) * MSS)
        loss.end_round(is_of_the_path=True, is_below_capacity=False)
    loss.on_lost(30 * MSS)
    loss.on_acked(320 * MSS)
    assert not loss.is_excessive(350 * MSS)


def test_a_policer_is_not_taken_for_a_lossy_path() -> None:
    """It drops a fifth of what is sent, but nothing of what DOWN sends."""
    loss = PathLoss(MSS)
    for number in range(200):
        is_below = number % 20 == 0
        lost = 0 if is_below else 70
        loss.on_lost(lost * MSS)
        loss.on_acked((350 - lost) * MSS)
        loss.end_round(is_of_the_path=True, is_below_capacity=is_below)
    assert loss.share < 0.01


def test_rounds_with_a_queue_do_not_count() -> None:
    loss = PathLoss(MSS)
    for _ in range(50):
        loss.on_lost(100 * MSS)
        loss.on_acked(250 * MSS)
        loss.end_round(is_of_the_path=False, is_below_capacity=False)
    assert loss.share == 0.0


def test_no_more_than_the_most_is_made_up_for() -> None:
    loss = PathLoss(MSS)
    lose_at_random(loss, 0.8, 100, random.Random(3))
    assert loss.share <= MAX_PATH_LOSS


def test_what_proves_spurious_was_not_lost() -> None:
    loss = PathLoss(MSS)
    loss.on_lost(200 * MSS)
    loss.on_spurious(200 * MSS)
    assert not loss.is_excessive(350 * MSS)


def test_bounds_follow_what_is_delivered_by_no_more_than_beta() -> None:
    bounds = CongestionBounds()
    bounds.lower(0, 100e6, 500_000, 20e6, 100_000)
    assert bounds.now.bw_shortterm == pytest.approx(70e6)
    assert bounds.now.inflight_shortterm == pytest.approx(350_000)
    bounds.lower(0, 100e6, 500_000, 60e6, 300_000)
    assert bounds.now.bw_shortterm == pytest.approx(60e6)
    bounds.drop_short_term()
    assert bounds.now.bw_shortterm == float("inf")


def test_bounds_are_undone_and_only_once() -> None:
    bounds = CongestionBounds()
    bounds.set_longterm_by_probe(100 * MS, 600_000, 500_000)
    bounds.lower(200 * MS, 100e6, 500_000, 20e6, 100_000)
    bounds.undo(150 * MS)
    assert bounds.now.bw_shortterm == float("inf")
    assert bounds.now.inflight_longterm == 600_000
    bounds.undo(50 * MS)
    assert bounds.now.inflight_longterm == 600_000


def test_a_spurious_loss_takes_back_nothing_that_was_found_before_it() -> None:
    bounds = CongestionBounds()
    bounds.set_longterm(100 * MS, 600_000)
    bounds.undo(101 * MS)
    assert bounds.now.inflight_longterm == 600_000


def test_nothing_takes_back_what_was_found_by_a_mark() -> None:
    bounds = CongestionBounds()
    bounds.set_longterm(100 * MS, 600_000)
    bounds.confirm()
    bounds.undo(50 * MS)
    assert bounds.now.inflight_longterm == 600_000


def test_up_raises_the_long_term_bound_faster_each_round() -> None:
    bounds = CongestionBounds()
    bounds.set_longterm(0, 320_000)
    bounds.start_up(MSS)
    bounds.raise_longterm(1.0)
    assert bounds.now.inflight_longterm == 340_000
    bounds.end_up_round()
    bounds.raise_longterm(0.5)
    assert bounds.now.inflight_longterm == 360_000


def test_probes_come_after_16_to_24_round_trips_and_flows_differ() -> None:
    lengths = set()
    for seed in range(40):
        clock = ProbeClock(seed)
        clock.start_cycle(0, is_first=False)
        while not clock.is_due(100 * MS):
            clock.rounds += 1
        lengths.add(clock.rounds)
    assert lengths <= set(range(16, 25))
    assert len(lengths) > 4


def test_probes_come_after_three_seconds_however_long_the_path_is() -> None:
    clock = ProbeClock(1)
    clock.start_cycle(0, is_first=False)
    assert not clock.is_due(SECOND)
    assert clock.is_due(3 * SECOND)


def test_the_tables_know_every_phase_and_every_phase_is_reached() -> None:
    assert set(SUCCESSORS) == set(PACING_GAIN) == set(CWND_GAIN) == set(Phase)
    assert set.union(*SUCCESSORS.values()) == set(Phase) - {Phase.STARTUP}


def test_startup_paces_the_window_and_never_less_than_the_bandwidth() -> None:
    control = Bbr(MSS, None, 1)
    control.on_ack(ACK)
    assert control.phase is Phase.STARTUP
    assert control.pacing_rate_bps >= 2.77 * 2.4e6
    assert control.congestion_window_bytes > 20 * MSS


def test_a_silence_shrinks_the_window_and_a_good_round_restores_it() -> None:
    control = Bbr(MSS, None, 1)
    control.on_ack(ACK)
    before = control.congestion_window_bytes
    control.on_loss(LossSample(3 * SECOND, 20 * MSS, 0, 60 * MS, 20 * MSS, is_persistent=True))
    assert control.congestion_window_bytes == 4 * MSS
    later = dataclasses.replace(
        ACK,
        now_ns=3 * SECOND + 40 * MS,
        newly_acked_bytes=MSS,
        delivered_bytes=11 * MSS,
        prior_delivered_bytes=10 * MSS,
    )
    control.on_ack(later)
    assert control.congestion_window_bytes >= before


def test_the_rate_that_the_user_bounds_is_kept() -> None:
    control = Bbr(MSS, 3e6, 1)
    control.on_ack(ACK)
    assert control.pacing_rate_bps == 3e6
