"""Receive-side flow control: how far ahead of the received bytes the peer may send, for each of the two streams.

The window of the data stream fits the socket, not the memory: data is handed to the application at once, so what can
overflow is the queue of the socket. The window begins at a part of that queue. It doubles while the peer uses all of it
and the driver drains the queue every time. Every drop at the socket halves it, down to half the initial window. This
follows dynamic right-sizing of TCP: the window should never limit a path, and never exceed what the host can take.

The window of the message stream is fixed, and counts from what the application has taken.

Read: RFC 9000 section 4 (flow control).
"""

from typing import Final

from toolkit.rudp.batch import MAX_BATCH_BYTES

INITIAL_DATA_WINDOW_BYTES: Final = 1 << 16
"""Send limit of the data stream before the peer has advertised one."""
MAX_RECEIVE_WINDOW_BYTES: Final = 1 << 30
MESSAGE_WINDOW_BYTES: Final = 1 << 20


class ReceiveWindow:
    """The receive window of the data stream.

    window_bytes:      how far beyond the highest received byte the peer may send
    limit:             stream offset that was advertised to the peer; it never decreases
    dropped_datagrams: datagrams that the host has dropped at the socket so far
    """

    def __init__(self, window_bytes: int) -> None:
        self.window_bytes = window_bytes
        self.limit = window_bytes
        self.dropped_datagrams = 0
        self._min_window_bytes = window_bytes // 2
        self._received_bytes_at_change = 0

    def advertise(self, received_end: int) -> int:
        """Raise `limit` to a window beyond `received_end`, the end of the highest received byte, and return it."""
        self.limit = max(self.limit, received_end + self.window_bytes)
        return self.limit

    def is_used_up(self, received_end: int) -> bool:
        """Whether the peer has sent nearly up to the limit: a larger window would let it send more."""
        return received_end > 0 and received_end + MAX_BATCH_BYTES > self.limit

    def adapt(self, received_bytes: int, received_end: int, dropped_datagrams: int, is_drained: bool) -> None:
        """Grow or shrink the window by what has happened since the last call.

        `received_bytes` and `dropped_datagrams` are totals; `is_drained` says that the driver has emptied the queue of
        the socket.
        """
        if dropped_datagrams != self.dropped_datagrams:
            self.dropped_datagrams = dropped_datagrams
            self.window_bytes = max(self._min_window_bytes, self.window_bytes // 2)
        elif is_drained:
            has_received_window = received_bytes - self._received_bytes_at_change > self.window_bytes
            if not has_received_window or not self.is_used_up(received_end):
                return
            self.window_bytes = min(2 * self.window_bytes, MAX_RECEIVE_WINDOW_BYTES)
        self._received_bytes_at_change = received_bytes


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
