"""Round-trip time: its smoothed value, variation and minimum, and the probe timeout.

An RTT sample is the time from sending the newest acknowledged packet to its acknowledgement. The peer states how
long it delayed that acknowledgement. The delay is subtracted, unless the result would be below the minimum RTT, in
which case the stated delay cannot be right. `smoothed_rtt` and `rttvar` are exponential averages with weights 1/8 and
1/4. The variation is measured from the smoothed RTT, not from the minimum; otherwise a standing queue would count as
variation and inflate the timeout.

Read: RFC 9002 sections 5 (estimation) and 6.2.1 (probe timeout), RFC 6298 section 2.
"""

GRANULARITY_NS = 1_000_000
"""kGranularity, RFC 9002 section 6.1.2. No timeout is shorter, as timers of a host are no more precise."""

INITIAL_RTT_NS = 100_000_000
"""RTT before the first sample. RFC 9002 section 6.2.2 recommends 333 ms, for a first probe timeout of 1 s. On a lossy
path, each loss of a first packet would cost that second. 100 ms makes the timeout 300 ms, which exceeds the RTT of
nearly every terrestrial path. On a longer path (a satellite), one small packet is sent twice."""

MAX_ACK_DELAY_NS = 25_000_000
"""How long a peer may delay an acknowledgement by default (RFC 9000 section 18.2)."""


class RttEstimator:
    """The RTT of one path. Call `update` for each sample, then read the attributes.

    latest_rtt_ns:   the latest sample, including the peer's delay
    undelayed_rtt_ns: the same without the delay that the peer states, however long that is
    min_rtt_ns:      the smallest sample, including the delay (RFC 9002 section 5.2)
    smoothed_rtt_ns, rttvar_ns: RFC 9002 section 5.3; before the first sample, the initial RTT and half of it
    max_ack_delay_ns: how long the peer may delay an acknowledgement
    has_sample:      whether there was a sample
    """

    def __init__(self, initial_rtt_ns: int = INITIAL_RTT_NS, max_ack_delay_ns: int = MAX_ACK_DELAY_NS) -> None:
        self.max_ack_delay_ns = max_ack_delay_ns
        self.latest_rtt_ns = self.undelayed_rtt_ns = initial_rtt_ns
        self.min_rtt_ns = initial_rtt_ns
        self.smoothed_rtt_ns = initial_rtt_ns
        self.rttvar_ns = initial_rtt_ns // 2
        self.has_sample = False
        self._min_rtt_is_stale = False

    def update(self, latest_rtt_ns: int, ack_delay_ns: int) -> None:
        """Take one sample (RFC 9002 section 5.3).

        `ack_delay_ns` is the delay that the peer states; at most `max_ack_delay_ns` of it is subtracted.
        """
        # A virtual clock may stand still between sending and receipt; the RTT must not become 0.
        latest_rtt_ns = max(latest_rtt_ns, 1)
        self.latest_rtt_ns = latest_rtt_ns
        self.undelayed_rtt_ns = max(latest_rtt_ns - ack_delay_ns, 1)
        if not self.has_sample:
            self.has_sample = True
            self.min_rtt_ns = self.smoothed_rtt_ns = latest_rtt_ns
            self.rttvar_ns = latest_rtt_ns // 2
            return
        if self._min_rtt_is_stale:
            self._min_rtt_is_stale = False
            self.min_rtt_ns = latest_rtt_ns
        self.min_rtt_ns = min(self.min_rtt_ns, latest_rtt_ns)
        ack_delay_ns = min(ack_delay_ns, self.max_ack_delay_ns)
        adjusted_rtt_ns = latest_rtt_ns
        if latest_rtt_ns >= self.min_rtt_ns + ack_delay_ns:
            adjusted_rtt_ns -= ack_delay_ns
        self.rttvar_ns = (3 * self.rttvar_ns + abs(self.smoothed_rtt_ns - adjusted_rtt_ns)) // 4
        self.smoothed_rtt_ns = (7 * self.smoothed_rtt_ns + adjusted_rtt_ns) // 8

    def pto_ns(self, max_ack_delay_ns: int) -> int:
        """The probe timeout without back-off: smoothed_rtt + max(4 * rttvar, granularity) + max_ack_delay.

        `max_ack_delay_ns` is 0 for packets that the peer acknowledges at once (RFC 9002 section 6.2.1).
        """
        return self.smoothed_rtt_ns + max(4 * self.rttvar_ns, GRANULARITY_NS) + max_ack_delay_ns

    def on_persistent_congestion(self) -> None:
        """Restart the minimum at the next sample: the path may have changed (RFC 9002 section 5.2)."""
        self._min_rtt_is_stale = True
