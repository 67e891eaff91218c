"""Receive-side flow control: how far ahead of the received bytes the peer may send, for each of the two streams.

The window of the data stream should never limit a path, and never exceed what the host can take. Data is handed to the
application at once, so it needs no memory; what can overflow is the queue of the socket. The window therefore begins at
a part of that queue. Once content leaves the socket promptly, it follows the path instead: at every moment it is at
least 16 times what arrived in the latest round trip, so that a peer whose rate grows by four in a round trip, as BBR's
Startup does, is not held back. (A limit is a round trip old when the peer uses it; two such round trips make 16.) This
is the dynamic right-sizing of TCP (Fisk and Feng, 2001; `tcp_rcv_space_adjust` in Linux).

A drop at the socket shrinks the window to what arrived in a round trip, or to half if that is less. From there it grows
by an eighth in each round trip until it is as large as before; then it follows the path again.

The round trip is the smallest of the last seconds: the time that packets wait in a socket must not enlarge the window
that fills this socket. The first sample is that of the handshake. A receiver that sends nothing but acknowledgements
has no other, so it adds a PING to one of them (RFC 9000 section 13.2.4) when a window of data has arrived since the
last sample, but not more than once a second: a peer that the window holds back sends as much in each round trip, and
one that sends less is not held back. Without any sample, a quarter of a window suffices.

The window of the message stream is fixed, and counts from what the application has taken.

Read: RFC 9000 section 4 (flow control).
"""

from typing import Final

INITIAL_DATA_WINDOW_BYTES: Final = 1 << 16
"""Send limit of the data stream before the peer has advertised one."""
MAX_RECEIVE_WINDOW_BYTES: Final = 1 << 30
MESSAGE_WINDOW_BYTES: Final = 1 << 20
WANTED_SOCKET_BUFFER_BYTES: Final = 32 << 20
"""The receive buffer of a socket whose host sets no lower limit, as the system reports it: with its own overhead."""
RTT_SAMPLE_INTERVAL_NS: Final = 1_000_000_000
"""Time between samples of the round-trip time, at least."""
_MIN_RTT_WINDOW_NS: Final = 5_000_000_000
"""The smallest sample is that of the current interval of this length and of the one before."""
GROWTH: Final = 16
"""The window is so many times what arrived in the latest round trip."""
_UNMEASURED_SHARE: Final = 4
_SOCKET_BUFFER_SHARE: Final = 4
_RECOVERY_SHARE: Final = 8


def initial_window_bytes(socket_buffer_bytes: int) -> int:
    """Return the receive window that fits a socket's receive buffer of this size, whatever the peer sends."""
    return max(INITIAL_DATA_WINDOW_BYTES, socket_buffer_bytes // _SOCKET_BUFFER_SHARE)


class ReceiveWindow:
    """The receive window of the data stream.

    window_bytes:      how far beyond the highest received byte the peer may send
    limit:             stream offset that was advertised to the peer; it never decreases
    dropped_datagrams: datagrams that the host has dropped at the socket so far
    is_socket_limited: drops at the socket hold the window below what it was
    """

    def __init__(self, window_bytes: int) -> None:
        self.window_bytes = window_bytes
        self.limit = window_bytes
        self.dropped_datagrams = 0
        self._min_window_bytes = window_bytes // 2
        self._recover_to_bytes = 0
        self._rtt = _MinRtt()
        self._round_start_ns = 0
        self._round_start_end = 0  # end of the received data when the round began
        self._round_bytes = 0  # what arrived in the last complete round
        self._received_end = 0  # at the last `adapt`
        self._measured_end = 0  # end of the received data when the RTT was last sampled, or a sample asked for
        self._measure_ns = 0  # not to be asked for before

    @property
    def is_socket_limited(self) -> bool:
        return self.window_bytes < self._recover_to_bytes

    def advertise(self, received_end: int) -> int:
        """Raise `limit` to a window beyond `received_end`, the end of the highest received byte, and return it."""
        self.limit = max(self.limit, received_end + self.window_bytes)
        return self.limit

    def on_rtt(self, rtt_ns: int, sampled_ns: int | None) -> None:
        """Take the latest sample of the round-trip time, again and again, and when it was taken; None for no sample."""
        if sampled_ns is not None and self._rtt.update(rtt_ns, sampled_ns):
            self._measured_end, self._measure_ns = self._received_end, sampled_ns + RTT_SAMPLE_INTERVAL_NS

    def wants_rtt(self, received_end: int, now_ns: int) -> bool:
        """Whether to measure the round-trip time now: enough data has arrived since the last sample or attempt.

        True only once for each attempt.
        """
        enough = self.window_bytes // (_UNMEASURED_SHARE if self._rtt.min_ns is None else 1)
        if received_end - self._measured_end <= enough or now_ns < self._measure_ns:
            return False
        self._measured_end, self._measure_ns = received_end, now_ns + RTT_SAMPLE_INTERVAL_NS
        return True

    def adapt(self, received_end: int, dropped_datagrams: int, is_drained: bool, now_ns: int) -> None:
        """Grow or shrink the window by what has happened since the last call; call it after each arrival.

        `dropped_datagrams` is a total; `is_drained` says that the driver has emptied the queue of the socket. While it
        cannot, this host is what limits the peer, and a larger window would only lengthen the queue.
        """
        has_dropped = dropped_datagrams != self.dropped_datagrams
        self.dropped_datagrams = dropped_datagrams
        self._received_end = received_end
        if self._rtt.min_ns is not None:
            self._follow(self._rtt.min_ns, received_end, has_dropped, is_drained, now_ns)
        elif has_dropped:
            self._shrink()

    def _follow(self, rtt_ns: int, received_end: int, has_dropped: bool, is_drained: bool, now_ns: int) -> None:
        elapsed_ns = now_ns - self._round_start_ns
        arrived = received_end - self._round_start_end
        is_round_over = elapsed_ns >= rtt_ns
        if is_round_over:
            # A round may be noticed late; an idle peer must not make the last busy round longer, either.
            self._round_bytes = arrived * rtt_ns // elapsed_ns
            self._round_start_ns, self._round_start_end = now_ns, received_end
        if has_dropped:
            self._shrink()
        elif is_drained:
            self._grow(max(self._round_bytes, 0 if is_round_over else arrived), is_round_over)

    def _grow(self, round_bytes: int, is_round_over: bool) -> None:
        wanted = min(GROWTH * round_bytes, MAX_RECEIVE_WINDOW_BYTES)
        if self.is_socket_limited:
            step = self.window_bytes // _RECOVERY_SHARE if is_round_over else 0
            wanted = min(wanted, self.window_bytes + step)
        self.window_bytes = max(self.window_bytes, wanted)

    def _shrink(self) -> None:
        self._recover_to_bytes = max(self.window_bytes, self._recover_to_bytes if self.is_socket_limited else 0)
        reduced = self.window_bytes // 2
        if self._round_bytes:
            reduced = min(reduced, self._round_bytes)
        self.window_bytes = max(self._min_window_bytes, reduced)


class _MinRtt:
    """The smallest round-trip time of the last 5 to 10 seconds.

    min_ns: None before the first sample
    """

    def __init__(self) -> None:
        self.min_ns: int | None = None
        self._sampled_ns = -1
        self._interval_start_ns = 0
        self._interval_min_ns = 0

    def update(self, rtt_ns: int, sampled_ns: int) -> bool:
        """Take a sample, and when it was taken. Return whether it is new."""
        if sampled_ns <= self._sampled_ns:
            return False
        self._sampled_ns = sampled_ns
        if self.min_ns is None:
            self.min_ns = self._interval_min_ns = rtt_ns
            self._interval_start_ns = sampled_ns
        elif sampled_ns - self._interval_start_ns >= _MIN_RTT_WINDOW_NS:
            self.min_ns = min(self._interval_min_ns, rtt_ns)
            self._interval_start_ns, self._interval_min_ns = sampled_ns, rtt_ns
        else:
            self._interval_min_ns = min(self._interval_min_ns, rtt_ns)
            self.min_ns = min(self.min_ns, rtt_ns)
        return True


class MessageWindow:
    """The receive window of the message stream, `MESSAGE_WINDOW_BYTES` beyond what the application has taken."""

    def __init__(self) -> None:
        self.limit = MESSAGE_WINDOW_BYTES  # stream offset up to which messages are accepted
        self._advertised = self.limit

    def on_consumed(self, offset: int) -> None:
        """The application has taken all messages that end at or before `offset`."""
        self.limit = offset + MESSAGE_WINDOW_BYTES

    @property
    def wants_update(self) -> bool:
        """Whether the application has taken half of the advertised window, so that the peer should learn of more."""
        return self.limit - self._advertised > MESSAGE_WINDOW_BYTES // 2

    def advertise(self) -> int:
        """Return the limit, which is advertised to the peer now."""
        self._advertised = self.limit
        return self._advertised
