"""The thresholds and timers of one path that say when a packet is lost and when to probe.

Nothing is declared lost here: `SentPackets.detect_lost` (sent_packets.py) applies these thresholds to the packets in
flight, and `LossRecovery` acts on the result.

A packet is lost once a packet sent `packet_threshold` later is acknowledged, or once it is older than a multiple of
the RTT (`loss_delay_ns`) and a later packet is acknowledged. Both thresholds begin at the values of RFC 9002. A
spurious loss shows how far the path reorders, so the thresholds grow to cover that distance (RFC 9002 section 6.1.1
permits this; RFC 8985 section 6.2 does the same for TCP). They shrink again step by step while no more losses are
spurious.

A probe timeout declares nothing lost. It makes the sender send packets that elicit an acknowledgement, and the
acknowledgement shows what was lost. Each timeout in a row doubles the next (RFC 9002 section 6.2.1), up to a cap, so
that a path that returns after seconds is used again soon. One small packet every 400 ms is no load for any path; where
the timeout itself is long, the cap is four times that timeout.

Read: RFC 9002 sections 6.1 (loss detection), 6.2 (probe timeout) and 7.6 (persistent congestion).
"""

from typing import Final

from toolkit.rudp.rtt import GRANULARITY_NS, RttEstimator

PACKET_THRESHOLD: Final = 3  # kPacketThreshold, RFC 9002 section 6.1.1
MAX_PACKET_THRESHOLD: Final = 4096
TIME_THRESHOLD_EIGHTHS: Final = 9  # kTimeThreshold is 9/8, section 6.1.2
MAX_TIME_THRESHOLD_EIGHTHS: Final = 16
MAX_PTO_NS: Final = 400_000_000
MAX_PTO_FACTOR: Final = 4
"""The back-off ends at this many timeouts or MAX_PTO_NS, whichever is longer."""
PERSISTENT_CONGESTION_PTOS: Final = 3  # kPersistentCongestionThreshold, section 7.6.1
_DECAY_PACKETS: Final = 1 << 15
"""The thresholds shrink after this many packets without a spurious loss."""


class LossThresholds:
    """The thresholds and timers of loss detection on one path.

    packet_threshold: reordering threshold in packets
    loss_time_ns:     when the next packet is old enough to be declared lost; None for never
    pto_count:        probe timeouts in a row, with nothing acknowledged in between
    """

    def __init__(self, rtt: RttEstimator) -> None:
        self.packet_threshold = PACKET_THRESHOLD
        self.loss_time_ns: int | None = None
        self.pto_count = 0
        self._rtt = rtt
        self._time_threshold_eighths = TIME_THRESHOLD_EIGHTHS
        self._adapted_at = 0  # largest acknowledged packet number when the thresholds last changed

    @property
    def loss_delay_ns(self) -> int:
        """The age from which a packet is lost, if a later one was acknowledged."""
        rtt_ns = max(self._rtt.smoothed_rtt_ns, self._rtt.latest_rtt_ns)
        return max(rtt_ns * self._time_threshold_eighths // 8, GRANULARITY_NS)

    @property
    def pto_ns(self) -> int:
        """The probe timeout, including its back-off."""
        return self.backed_off_pto_ns(self.pto_count)

    def backed_off_pto_ns(self, count: int) -> int:
        """The probe timeout after `count` others in a row."""
        pto_ns = self._rtt.pto_ns(self._rtt.max_ack_delay_ns)
        if count == 0:
            return pto_ns
        return min(pto_ns << min(count, 16), max(MAX_PTO_NS, MAX_PTO_FACTOR * pto_ns))

    @property
    def persistent_congestion_ns(self) -> int:
        """Losses over a longer time, with nothing acknowledged in between, are persistent congestion (section 7.6)."""
        return self._rtt.pto_ns(self._rtt.max_ack_delay_ns) * PERSISTENT_CONGESTION_PTOS

    def on_spurious_loss(self, largest_acked: int, oldest_spurious: int) -> None:
        """Packets that were declared lost have arrived, overtaken by packets up to `largest_acked`."""
        distance = largest_acked - oldest_spurious + 1
        if distance > self.packet_threshold:
            self.packet_threshold = min(distance, MAX_PACKET_THRESHOLD)
        elif self._time_threshold_eighths < MAX_TIME_THRESHOLD_EIGHTHS:
            self._time_threshold_eighths += 1
        self._adapted_at = largest_acked

    def on_acked(self, largest_acked: int) -> None:
        """Packets were acknowledged, none of them declared lost before: shrink the thresholds from time to time."""
        if largest_acked - self._adapted_at > _DECAY_PACKETS:
            self._adapted_at = largest_acked
            self.packet_threshold = max(PACKET_THRESHOLD, self.packet_threshold // 2)
            self._time_threshold_eighths = max(TIME_THRESHOLD_EIGHTHS, self._time_threshold_eighths - 1)
