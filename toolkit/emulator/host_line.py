"""The line from a sender to the bottleneck: super-packets leave a host packet by packet, not at once."""

from toolkit.netmodel.spec import LAN, LinkSpec, PathSpec

LINE_RATE_BPS, LINE_FACTOR = 1e9, 10
LINE_QUEUE_PACKETS = 10_240  # as fq_codel, the queue of most hosts, holds by default: tc-fq_codel(8)


class HostLine:
    """The line from a sender to the bottleneck: a super-packet reaches the queue packet by packet, and not at once.

    Its rate is LINE_RATE_BPS, or LINE_FACTOR times that of a fast bottleneck. A sender that is faster fills the queue
    of the line, which holds LINE_QUEUE_PACKETS of full size; what finds it full is lost in the sender's own host. There
    is no line where the bottleneck is the port of the sending host itself, as on a LAN, or where nothing limits the
    path.
    """

    def __init__(self, link: LinkSpec, path: PathSpec) -> None:
        self._rate_bps = 0.0
        if link.kind != LAN and path.mean_rate_bps is not None:
            self._rate_bps = max(LINE_RATE_BPS, LINE_FACTOR * path.mean_rate_bps)
        self._queue_ns = LINE_QUEUE_PACKETS * link.mtu_bytes * 8e9 / self._rate_bps if self._rate_bps else 0.0
        self._free_ns = 0.0

    def has_room(self, now_ns: int, size_bytes: int) -> bool:
        """Whether the queue of the line has room for a super-packet of `size_bytes`."""
        if not self._rate_bps:
            return True
        return max(0.0, self._free_ns - now_ns) + size_bytes * 8e9 / self._rate_bps <= self._queue_ns

    def send(self, now_ns: int, packet_bytes: int, size_bytes: int) -> tuple[float, float]:
        """When the first packet of a super-packet of `size_bytes` reaches the queue, and the interval to the next."""
        if not self._rate_bps:
            return now_ns, 0.0
        start_ns = max(float(now_ns), self._free_ns)
        self._free_ns = start_ns + size_bytes * 8e9 / self._rate_bps
        return start_ns, packet_bytes * 8e9 / self._rate_bps
