"""Datagrams of an accepted connection that have arrived at the listening socket, and not at the channel's own.

The listener's thread adds them; the channel's thread gives them to the connection.
"""

import secrets
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from toolkit.rudp.batch import Batch, PeerAddress
from toolkit.rudp.connection import Connection

_MAX_DATAGRAMS: Final = 256


class PostedDatagrams:
    """A queue between two threads. It keeps the latest 256 datagrams; the others count as lost."""

    def __init__(self) -> None:
        self._queue: deque[tuple[bytes, int, PeerAddress, int]] = deque(maxlen=_MAX_DATAGRAMS)

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, datagram: bytes, ecn: int, peer_address: PeerAddress) -> None:
        """Add a datagram of the connection. Any thread may call this."""
        self._queue.append((datagram, ecn, peer_address, time.monotonic_ns()))

    def handle(self, connection: Connection, now_ns: int) -> Iterator[None]:
        """Give each datagram to the connection, and yield: the caller takes what has become available."""
        while self._queue:
            datagram, ecn, peer_address, added_ns = self._queue.popleft()
            batch = Batch(memoryview(datagram), len(datagram), ecn, max(0, now_ns - added_ns))
            if peer_address == connection.peer_address:
                connection.handle_batch(batch, now_ns)
            else:
                connection.handle_off_path_batch(batch, peer_address, secrets.randbits(64), now_ns)
            yield
