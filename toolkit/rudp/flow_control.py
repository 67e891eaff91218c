"""Receive-side flow control: how far ahead of the received data the peer may send.

The window fits the socket, not the memory: data is handed to the application at once, so what can overflow is the
queue of the socket. The window begins at what that queue can hold. It doubles while the peer uses all of it and the
driver drains the queue every time. Every drop at the socket halves it. This follows dynamic right-sizing of TCP: the
window should never limit a path, and never exceed what the host can take.

Read: RFC 9000 section 4 (flow control).
"""

from typing import Final

from toolkit.rudp.batch import MAX_BATCH_BYTES

MAX_RECEIVE_WINDOW_BYTES: Final = 1 << 30


class ReceiveWindow:
    """The receive window of the data stream.

    window_bytes: how far beyond the highest received byte the peer may send
    limit:        the stream offset that was advertised to the peer; it never decreases
    """

    def __init__(self, window_bytes: int) -> None:
        self.window_bytes = window_bytes
        self.limit = window_bytes
        self._min_window_bytes = window_bytes // 2
        self._received_bytes_at_change = 0
        self._dropped_datagrams = 0

    def advertise(self, received_end: int) -> int:
        """Raises `limit` to a window beyond `received_end`, the end of the highest received byte, and returns it."""
        self.limit = max(self.limit, received_end + self.window_bytes)
        return self.limit

    def is_used_up(self, received_end: int) -> bool:
        """Whether the peer has sent nearly up to the limit: a larger window would let it send more."""
        return received_end > 0 and received_end + MAX_BATCH_BYTES > self.limit

    def adapt(self, received_bytes: int, received_end: int, dropped_datagrams: int, is_drained: bool) -> None:
        """Grows or shrinks the window by what has happened since the last call.

        `received_bytes` counts all datagrams received, `dropped_datagrams` those that the host dropped at the socket.
        `is_drained` says that the driver has emptied the queue of the socket.
        """
        if dropped_datagrams != self._dropped_datagrams:
            self._dropped_datagrams = dropped_datagrams
            self.window_bytes = max(self._min_window_bytes, self.window_bytes // 2)
        elif is_drained:
            has_received_window = received_bytes - self._received_bytes_at_change > self.window_bytes
            if not has_received_window or not self.is_used_up(received_end):
                return
            self.window_bytes = min(2 * self.window_bytes, MAX_RECEIVE_WINDOW_BYTES)
        self._received_bytes_at_change = received_bytes
