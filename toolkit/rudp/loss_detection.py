"""Which packets are lost, and when to probe: RFC 9002 section 6, with a reordering threshold that learns.

A packet is lost when one that was sent `packet_threshold` later is acknowledged, or when it is older than
`time_threshold` round trips and a later one is acknowledged. Both begin at the RFC's values. A loss that proves
spurious shows how far the path reorders, and the thresholds grow to cover it (RFC 9002 section 6.1.1 allows this;
RFC 8985 section 6.2 does the same for TCP); they shrink again step by step while nothing more is spurious.

A probe timeout declares nothing lost: it sends something that will be acknowledged, and the acknowledgement tells.
Its back-off is capped, so that a path that comes back after seconds is noticed soon: one small packet in 400 ms harms
nobody.
"""

from typing import Final

from toolkit.rudp.rtt import GRANULARITY_NS, RttEstimator

PACKET_THRESHOLD: Final = 3  # kPacketThreshold, RFC 9002 section 6.1.1
MAX_PACKET_THRESHOLD: Final = 4096
TIME_THRESHOLD_EIGHTHS: Final = 9  # kTimeThreshold is 9/8, section 6.1.2
MAX_TIME_THRESHOLD_EIGHTHS: Final = 16
MAX_PTO_NS: Final = 400_000_000
PERSISTENT_CONGESTION_PTOS: Final = 3  # kPersistentCongestionThreshold, section 7.6.1
_CALM_PACKETS: Final = 1 << 15


class LossDetector:
    """The thresholds and timers; `SentPackets` holds the packets themselves."""

    def __init__(self, rtt: RttEstimator) -> None:
        self._rtt = rtt
        self.packet_threshold = PACKET_THRESHOLD
        self._time_threshold_eighths = TIME_THRESHOLD_EIGHTHS
        self._spurious_at = 0  # packet number up to which thresholds have been adapted
        self.loss_time_ns: int | None = None
        self.pto_count = 0

    @property
    def loss_delay_ns(self) -> int:
        """How old a packet may get before a later acknowledgement makes it lost."""
        rtt = max(self._rtt.smoothed_rtt_ns, self._rtt.latest_rtt_ns)
        return max(rtt * self._time_threshold_eighths // 8, GRANULARITY_NS)

    @property
    def pto_ns(self) -> int:
        """The probe timeout with its back-off."""
        pto = self._rtt.pto_ns(self._rtt.max_ack_delay_ns)
        return max(pto, min(pto << min(self.pto_count, 16), MAX_PTO_NS))

    @property
    def persistent_congestion_ns(self) -> int:
        """Losses that span this much time with nothing acknowledged between them (section 7.6.1)."""
        return self._rtt.pto_ns(self._rtt.max_ack_delay_ns) * PERSISTENT_CONGESTION_PTOS

    def on_spurious(self, largest_acked: int, oldest_spurious: int) -> None:
        """A packet that was declared lost has arrived, overtaken by those up to `largest_acked`."""
        distance = largest_acked - oldest_spurious + 1
        if distance > self.packet_threshold:
            self.packet_threshold = min(distance, MAX_PACKET_THRESHOLD)
        elif self._time_threshold_eighths < MAX_TIME_THRESHOLD_EIGHTHS:
            self._time_threshold_eighths += 1
        self._spurious_at = largest_acked

    def on_acked(self, largest_acked: int) -> None:
        """Forget half of the adaptation after every `_CALM_PACKETS` without a spurious loss."""
        if largest_acked - self._spurious_at > _CALM_PACKETS:
            self._spurious_at = largest_acked
            self.packet_threshold = max(PACKET_THRESHOLD, self.packet_threshold // 2)
            self._time_threshold_eighths = max(TIME_THRESHOLD_EIGHTHS, self._time_threshold_eighths - 1)
