"""How much a receiving end lets its peer send ahead: what this host keeps up with.

The window begins at what the socket can queue. It doubles while the peer is held by it and this side empties the
socket every time; a drop at the socket halves it (in the spirit of dynamic right-sizing: the window should never be
what limits a path, and never more than the host can take).
"""

from typing import Final

from toolkit.rudp.connection import Connection
from toolkit.transports.udp.socket import DatagramSocket

_MAX_WINDOW_BYTES: Final = 1 << 30


class ReceiveWindow:
    """The window of one connection; call `fit` after each arrival."""

    def __init__(self, first_bytes: int) -> None:
        self._window_bytes = first_bytes
        self._least_bytes = first_bytes // 2
        self._received_at_growth = 0
        self._drops_at_growth = 0

    def fit(self, connection: Connection, sock: DatagramSocket) -> None:
        """Grow or shrink by what has happened since the last time."""
        drops = sock.drop_count
        received = connection.receiver.received_bytes
        if drops != self._drops_at_growth:
            connection.set_drop_count(drops)
            self._drops_at_growth = drops
            self._window_bytes = max(self._least_bytes, self._window_bytes // 2)
            self._received_at_growth = received
        elif not sock.is_drained:
            self._received_at_growth = received
        elif received - self._received_at_growth > self._window_bytes and connection.receiver.is_peer_at_window:
            self._window_bytes = min(2 * self._window_bytes, _MAX_WINDOW_BYTES)
            self._received_at_growth = received
        else:
            return
        connection.set_receive_window(self._window_bytes)
