"""Thresholds and timers of loss detection: RFC 9002 section 6, and their adaptation."""

import pytest

from toolkit.rudp.loss_thresholds import (
    MAX_PACKET_THRESHOLD,
    MAX_PTO_FACTOR,
    MAX_PTO_NS,
    MAX_TIME_THRESHOLD_EIGHTHS,
    PACKET_THRESHOLD,
    TIME_THRESHOLD_EIGHTHS,
    LossThresholds,
)
from toolkit.rudp.rtt import GRANULARITY_NS, RttEstimator

MS = 1_000_000
CALM_PACKETS = 1 << 15


def thresholds(rtt_ns: int = 80 * MS, max_ack_delay_ns: int = 25 * MS) -> LossThresholds:
    rtt = RttEstimator(max_ack_delay_ns=max_ack_delay_ns)
    rtt.update(rtt_ns, 0)
    return LossThresholds(rtt)


class TestThresholds:
    def test_begin_at_the_values_of_rfc_9002(self) -> None:
        loss = thresholds(80 * MS)
        assert loss.packet_threshold == PACKET_THRESHOLD == 3
        assert loss.loss_delay_ns == 90 * MS

    def test_the_time_threshold_uses_the_larger_of_smoothed_and_latest_rtt(self) -> None:
        rtt = RttEstimator()
        rtt.update(80 * MS, 0)
        rtt.update(160 * MS, 0)
        assert LossThresholds(rtt).loss_delay_ns == 180 * MS
        rtt.update(8 * MS, 0)
        assert LossThresholds(rtt).loss_delay_ns == rtt.smoothed_rtt_ns * 9 // 8

    def test_the_time_threshold_is_at_least_the_timer_granularity(self) -> None:
        assert thresholds(1000).loss_delay_ns == GRANULARITY_NS


class TestSpuriousLoss:
    def test_raises_the_packet_threshold_to_cover_the_reordering(self) -> None:
        loss = thresholds()
        loss.on_spurious_loss(largest_acked=109, oldest_spurious=100)
        assert loss.packet_threshold == 10  # 100 is lost only if 110 is acknowledged

    def test_raises_it_up_to_a_limit(self) -> None:
        loss = thresholds()
        loss.on_spurious_loss(1_000_000, 0)
        assert loss.packet_threshold == MAX_PACKET_THRESHOLD

    def test_by_time_raises_the_time_threshold_up_to_a_limit(self) -> None:
        loss = thresholds(80 * MS)
        for n in range(2 * MAX_TIME_THRESHOLD_EIGHTHS):
            loss.on_spurious_loss(n, n)
        assert loss.packet_threshold == PACKET_THRESHOLD
        assert loss.loss_delay_ns == 80 * MS * MAX_TIME_THRESHOLD_EIGHTHS // 8

    def test_thresholds_shrink_step_by_step_without_further_spurious_losses(self) -> None:
        loss = thresholds(80 * MS)
        loss.on_spurious_loss(100, 0)
        loss.on_spurious_loss(101, 101)
        loss.on_acked(101 + CALM_PACKETS)
        assert loss.packet_threshold == 101
        seen = []
        largest = 101
        for _ in range(8):
            largest += CALM_PACKETS + 1
            loss.on_acked(largest)
            seen.append(loss.packet_threshold)
        assert seen == [50, 25, 12, 6, 3, 3, 3, 3]
        assert loss.loss_delay_ns == 80 * MS * TIME_THRESHOLD_EIGHTHS // 8


class TestProbeTimeout:
    def test_is_smoothed_rtt_plus_four_variations_plus_ack_delay(self) -> None:
        """RFC 9002 section 6.2.1."""
        loss = thresholds(80 * MS)
        assert loss.pto_ns == 80 * MS + 4 * 40 * MS + 25 * MS

    def test_doubles_each_time_up_to_the_maximum(self) -> None:
        loss = thresholds(10 * MS, max_ack_delay_ns=0)  # 30 ms initially
        timeouts = []
        for loss.pto_count in range(8):
            timeouts.append(loss.pto_ns)
        assert timeouts[:4] == [30 * MS, 60 * MS, 120 * MS, 240 * MS]
        assert timeouts[4:] == [MAX_PTO_NS] * 4

    @pytest.mark.parametrize("count", [0, 1, 5, 16, 17, 1000])
    def test_doubles_on_a_long_path_up_to_four_timeouts(self, count: int) -> None:
        loss = thresholds(600 * MS, max_ack_delay_ns=0)
        loss.pto_count = count
        assert loss.pto_ns == 1800 * MS * min(1 << count, MAX_PTO_FACTOR) > MAX_PTO_NS

    def test_persistent_congestion_lasts_three_timeouts_without_back_off(self) -> None:
        """RFC 9002 section 7.6.1."""
        loss = thresholds(80 * MS)
        loss.pto_count = 5
        assert loss.persistent_congestion_ns == 3 * (80 + 160 + 25) * MS
