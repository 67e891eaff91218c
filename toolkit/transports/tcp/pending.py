"""What a listener holds that is not complete yet, and which of it makes room when there is too much."""

import socket
from collections import Counter
from collections.abc import Iterable
from typing import Protocol, TypeVar

from toolkit.channel import Address
from toolkit.transports.tcp.handshake import Session, TcpServerHandshake
from toolkit.transports.tcp.wire import PREFACE_BYTES, Join


class _FromHost(Protocol):
    """Something that a host takes room for."""

    @property
    def network(self) -> bytes: ...


_T = TypeVar("_T", bound=_FromHost)


def first_of_busiest(oldest_first: Iterable[_T]) -> _T:
    """Return the oldest item of the host that has most. One host then cannot take the room of another."""
    items = list(oldest_first)
    [(busiest, _)] = Counter(item.network for item in items).most_common(1)
    return next(item for item in items if item.network == busiest)


class PendingHandshake:
    """A connection whose handshake is incomplete, or whose refusal is being delivered.

    join: its request to join a session that is not established yet
    """

    def __init__(self, sock: socket.socket, peer: Address, server: TcpServerHandshake, deadline_s: float) -> None:
        self.socket = sock
        self.peer = peer
        self.network = peer.network
        self.deadline_s = deadline_s
        self.received = b""
        self.expected_bytes = PREFACE_BYTES
        self.is_refused = False
        self.server = server
        self.join: Join | None = None


class PendingSession:
    """A session of several connections that are not all there yet.

    session: None until the handshake of the first connection is complete
    waiting: connections that asked to join before that
    """

    def __init__(self, first: PendingHandshake, streams: int) -> None:
        self.peer = first.peer
        self.network = first.network
        self.deadline_s = first.deadline_s
        self.session: Session | None = None
        self.sockets: list[socket.socket | None] = [None] * streams
        self.waiting: list[PendingHandshake] = []

    def close(self) -> None:
        for sock in self.sockets:
            if sock is not None:
                sock.close()
