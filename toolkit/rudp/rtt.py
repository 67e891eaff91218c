"""Round-trip time: smoothed, its variation, its minimum, and the probe timeout made of them.

Theory. An RTT sample is the time from sending the newest acknowledged packet to its acknowledgement. The peer
says how long it held that acknowledgement back; this is taken off, except where the result would lie below
the minimum ever seen (then the peer's word is not to be trusted). `smoothed_rtt` and `rttvar` are exponential
averages with weights 1/8 and 1/4 (RFC 6298 section 2); the variation is the distance from the *smoothed* RTT,
not from the minimum, else a standing queue would count as variation and blow up the timeout.

Read: RFC 9002 sections 5 (estimation) and 6.2.1 (probe timeout), RFC 6298 section 2.
"""

GRANULARITY_NS = 1_000_000
"""kGranularity, RFC 9002 section 6.1.2: no timeout is shorter; the clocks and timers of a host are no finer."""

INITIAL_RTT_NS = 100_000_000
"""Before the first sample. RFC 9002 section 6.2.2 recommends 333 ms, which makes the first probe timeout 1 s;
on a lossy path that second is lost with each lost first packet. 100 ms gives 300 ms, more than the RTT of
nearly every terrestrial path; where the RTT is longer (a satellite), one small handshake packet is sent twice."""

MAX_ACK_DELAY_NS = 25_000_000
"""The longest that a peer may hold back an acknowledgement unless told otherwise (RFC 9000 section 18.2)."""


class RttEstimator:
    """The RTT of one path. `update` once per acknowledgement that gives a sample, then read the attributes.

    latest_rtt_ns:   the newest sample as measured, with the peer's delay in it
    min_rtt_ns:      the smallest sample, delay included (RFC 9002 section 5.2)
    smoothed_rtt_ns, rttvar_ns: RFC 9002 section 5.3; before the first sample the initial RTT and half of it
    has_sample:      whether anything was measured yet
    """

    def __init__(self, initial_rtt_ns: int = INITIAL_RTT_NS, max_ack_delay_ns: int = MAX_ACK_DELAY_NS) -> None:
        self.max_ack_delay_ns = max_ack_delay_ns
        self.latest_rtt_ns = initial_rtt_ns
        self.min_rtt_ns = initial_rtt_ns
        self.smoothed_rtt_ns = initial_rtt_ns
        self.rttvar_ns = initial_rtt_ns // 2
        self.has_sample = False
        self._min_rtt_is_stale = False

    def update(self, latest_rtt_ns: int, ack_delay_ns: int) -> None:
        """Take one sample; `ack_delay_ns` is what the peer says that it waited (RFC 9002 section 5.3).

        More than `max_ack_delay_ns` of it is not believed.
        """
        # A clock that stood still between sending and receipt (virtual time) must not make an RTT of nothing.
        latest_rtt_ns = max(latest_rtt_ns, 1)
        self.latest_rtt_ns = latest_rtt_ns
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
        """The probe timeout, before any back-off: smoothed_rtt + max(4 * rttvar, granularity) +
        max_ack_delay.

        `max_ack_delay_ns` is 0 for packets that the peer acknowledges at once, the handshake's (RFC 9002
        section 6.2.1).
        """
        return self.smoothed_rtt_ns + max(4 * self.rttvar_ns, GRANULARITY_NS) + max_ack_delay_ns

    def on_persistent_congestion(self) -> None:
        """The next sample becomes the minimum: the path may have become another one (RFC 9002 section 5.2)."""
        self._min_rtt_is_stale = True
