"""The measurements of a path: bandwidth, minimum RTT, ACK aggregation, round trips and queueing delay."""

import random

import pytest

from tests.support.congestion_samples import MS, SECOND, ack_sample
from toolkit.rudp.congestion.path_model import ExtraAcked, FullBandwidth, MaxBandwidth, MinRtt, QueueDelay, Rounds


def test_max_bandwidth_covers_the_current_and_the_previous_cycle() -> None:
    bandwidth = MaxBandwidth()
    bandwidth.update(10e6)
    bandwidth.advance()
    bandwidth.update(4e6)
    assert bandwidth.bps == 10e6
    bandwidth.advance()
    assert bandwidth.bps == 4e6
    bandwidth.advance()  # a cycle without samples
    assert bandwidth.bps == 4e6


def test_a_plateau_is_rounds_without_25_percent_growth() -> None:
    full = FullBandwidth()
    assert full.end_round(10e6)
    assert full.end_round(12.6e6)
    assert not full.end_round(13e6)
    assert not full.end_round(15e6)
    assert full.has_plateau(2)
    assert not full.has_plateau(3)
    assert full.end_round(16e6)
    assert not full.has_plateau(1)


def test_probe_rtt_is_due_after_five_seconds_without_a_sample_near_the_minimum() -> None:
    min_rtt = MinRtt()
    for second in range(20):
        min_rtt.update(second * SECOND, 43 * MS if second else 40 * MS)
        assert not min_rtt.is_probe_due
    for second in range(20, 26):
        min_rtt.update(second * SECOND, 50 * MS)
    assert min_rtt.is_probe_due
    assert min_rtt.ns == 40 * MS


def test_a_probe_replaces_the_minimum_rtt_once_it_is_too_old() -> None:
    min_rtt = MinRtt()
    min_rtt.update(0, 40 * MS)
    for now_ns, expected_ns in ((2 * SECOND, 40 * MS), (3 * SECOND, 60 * MS)):
        min_rtt.start_probe(65 * MS)
        min_rtt.update(now_ns, 60 * MS)
        min_rtt.end_probe(now_ns)
        assert min_rtt.ns == expected_ns


def test_extra_acked_is_the_largest_aggregate_of_the_last_rounds() -> None:
    extra = ExtraAcked()
    now_ns = 0
    for _ in range(20):  # 1 MB/s, acknowledged in aggregates of a quarter of 40 ms
        now_ns += 10 * MS
        sample = ack_sample(now_ns, newly_acked_bytes=10_000)
        extra.update(sample, 8e6, 1_000_000, is_round_start=now_ns % (40 * MS) == 0)
    assert extra.bytes == pytest.approx(10_000, rel=0.01)
    for _ in range(15):
        now_ns += 40 * MS
        extra.update(ack_sample(now_ns, newly_acked_bytes=10), 8e6, 1_000_000, is_round_start=True)
    assert extra.bytes == pytest.approx(10, abs=1)


def test_a_round_ends_with_a_packet_sent_after_it_began() -> None:
    rounds = Rounds()
    rounds.update(ack_sample(delivered_bytes=100, prior_delivered_bytes=0))
    assert rounds.is_start
    rounds.update(ack_sample(delivered_bytes=200, prior_delivered_bytes=50))
    assert not rounds.is_start
    rounds.update(ack_sample(delivered_bytes=300, prior_delivered_bytes=100))
    assert rounds.is_start
    rounds.restart()
    rounds.update(ack_sample(delivered_bytes=400, prior_delivered_bytes=299))
    assert not rounds.is_start


class SpacedQueueDelay(QueueDelay):
    """Gets a sample every 10 ms, a quarter of the minimum RTT."""

    now_ns = 0

    def add(self, rtt_ns: int) -> None:
        self.now_ns += 10 * MS
        self.update(self.now_ns, rtt_ns, 40 * MS)


def queue_round(queue: SpacedQueueDelay, rtts_ms: list[int]) -> None:
    for rtt_ms in rtts_ms:
        queue.add(rtt_ms * MS)
    queue.end_round(40 * MS)


def test_a_queue_is_seen_when_the_latest_samples_agree() -> None:
    queue = SpacedQueueDelay()
    queue_round(queue, [60, 60])
    assert not queue.is_seen
    queue_round(queue, [60])
    assert queue.is_seen
    queue_round(queue, [41])
    assert not queue.is_seen


def test_a_deep_queue_is_a_growing_one() -> None:
    queue = SpacedQueueDelay()
    queue_round(queue, [66, 67, 68])
    assert queue.is_deep
    queue_round(queue, [68])
    assert not queue.is_deep


def test_jitter_is_not_seen_as_a_queue() -> None:
    """Each way adds an exponential delay with a mean of 10 ms. The noise estimate needs 16 samples."""
    rng = random.Random(1)
    queue = SpacedQueueDelay()
    seen = deep = 0
    for number in range(2000):
        queue.add(int((40 + rng.expovariate(0.1) + rng.expovariate(0.1)) * MS))
        if number >= 16:
            seen += queue.is_seen
            deep += queue.is_deep
    assert seen < 0.05 * 2000
    assert deep < 0.005 * 2000


def test_a_queue_larger_than_the_jitter_is_seen() -> None:
    rng = random.Random(2)
    queue = SpacedQueueDelay()
    for _ in range(50):
        queue.add(int((40 + rng.expovariate(0.5)) * MS))
    assert not queue.is_seen
    for _ in range(3):
        queue.add(int((80 + rng.expovariate(0.5)) * MS))
    assert queue.is_seen


def test_the_standing_queue_is_the_minimum_of_a_round() -> None:
    queue = SpacedQueueDelay()
    queue_round(queue, [55, 60, 70])
    assert queue.standing_ns == 15 * MS
    assert queue.is_standing(40 * MS)
    queue_round(queue, [60, 50, 41])
    assert queue.standing_ns == 1 * MS
    assert not queue.is_standing(40 * MS)


def test_a_queue_was_absent_only_after_two_rounds_without_one() -> None:
    queue = SpacedQueueDelay()
    queue_round(queue, [55, 60, 70])
    queue_round(queue, [40, 41, 40])
    assert not queue.was_absent
    queue_round(queue, [40, 41, 40])
    assert queue.was_absent


def test_samples_of_one_burst_are_only_a_hint_of_a_queue() -> None:
    """Jitter that delays a burst delays all of it."""
    queue = QueueDelay()
    for index in range(3):
        queue.update(SECOND + index * MS, (66 + index) * MS, 40 * MS)
    assert queue.is_hinted
    assert not queue.is_seen
    assert not queue.is_deep
