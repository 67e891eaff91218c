"""An echo server: what is sent to it comes back, over TCP, over UDP, and over the reliable protocol on UDP.

The first two are the echo protocol (RFC 862) without anything around it. Everything is bounded: connections, what is
kept for a slow reader, and the time without data. A datagram is answered with one of the same size, so nobody gains by
forging an address; none from a well-known port is answered, since another echo server there would answer the answer.
"""

import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from toolkit.channel import Address, Channel
from toolkit.errors import PeerClosedError
from toolkit.transports.addresses import address_of, bind_first
from toolkit.transports.udp.mmsg import make_exchange
from toolkit.transports.udp.socket_options import report_local_address

MAX_CONNECTIONS: Final = 64
MAX_CONNECTIONS_PER_HOST: Final = 16
MAX_DATAGRAM_BYTES: Final = 2047
"""A longer datagram gets no answer: it may have been cut off on arrival."""
IDLE_TIMEOUT_S: Final = 60.0
_KEPT_BYTES: Final = 1 << 16
_WELL_KNOWN_PORTS: Final = 1024
_CHECK_S: Final = 0.25
_BACKLOG: Final = 64


class _EchoConnection:
    """A TCP connection, and what is on its way back."""

    def __init__(self, sock: socket.socket, peer: Address) -> None:
        self.socket, self.peer = sock, peer
        self.kept = bytearray()
        self.has_ended = False  # the peer sends nothing more
        self.heard_s = time.monotonic()

    @property
    def events(self) -> int:
        """What to wait for: data if there is room for them, and room at the peer if something is kept."""
        reads = selectors.EVENT_READ if len(self.kept) < _KEPT_BYTES and not self.has_ended else 0
        return reads | (selectors.EVENT_WRITE if self.kept else 0)

    def advance(self, events: int) -> bool:
        """Receive and send without waiting; return False at the end. Raises OSError."""
        with suppress(BlockingIOError):
            if events & selectors.EVENT_READ:
                data = self.socket.recv(_KEPT_BYTES - len(self.kept))
                self.has_ended = not data
                self.kept += data
                self.heard_s = time.monotonic()
            if self.kept:
                del self.kept[: self.socket.send(self.kept)]
                self.heard_s = time.monotonic()
        return bool(self.kept) or not self.has_ended


class EchoServer:
    """RFC 862 over TCP and UDP on one port. Call `run` from one thread, and `close` after it has returned."""

    def __init__(self, address: Address) -> None:
        """Bind the port for both. Raises UnreachableError."""
        self._listener = bind_first(address, socket.SOCK_STREAM, _reuse, lambda sock: sock.listen(_BACKLOG))
        self.address = address_of(self._listener.getsockname())
        try:
            self._datagrams = bind_first(Address(address.host, self.address.port), socket.SOCK_DGRAM)
        except BaseException:
            self._listener.close()
            raise
        report_local_address(self._datagrams)
        for sock in (self._listener, self._datagrams):
            sock.setblocking(False)
        self._exchange = make_exchange()
        self._connections: dict[socket.socket, _EchoConnection] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._datagrams, selectors.EVENT_READ)

    def run(self, is_cancelled: Callable[[], bool]) -> None:
        """Echo until it is cancelled; asked several times a second."""
        while not is_cancelled():
            for key, events in self._selector.select(_CHECK_S):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._datagrams:
                    self._answer()
                else:
                    self._advance(key.data, events)
            idle_since_s = time.monotonic() - IDLE_TIMEOUT_S
            for connection in [c for c in self._connections.values() if c.heard_s < idle_since_s]:
                self._end(connection)

    def _accept(self) -> None:
        with suppress(OSError):  # the client has gone already, or no descriptors are left
            sock, name = self._listener.accept()
            peer = address_of(name)
            of_host = sum(other.peer.network == peer.network for other in self._connections.values())
            if len(self._connections) >= MAX_CONNECTIONS or of_host >= MAX_CONNECTIONS_PER_HOST:
                sock.close()
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[sock] = _EchoConnection(sock, peer)
            self._selector.register(sock, selectors.EVENT_READ, self._connections[sock])

    def _answer(self) -> None:
        arrivals = self._exchange.receive(self._datagrams)
        answers = [
            (bytes(arrival.data), arrival)
            for arrival in arrivals
            if len(arrival.data) <= MAX_DATAGRAM_BYTES and arrival.port >= _WELL_KNOWN_PORTS
        ]
        self._exchange.send(self._datagrams, answers)

    def _advance(self, connection: _EchoConnection, events: int) -> None:
        try:
            if connection.advance(events):
                self._selector.modify(connection.socket, connection.events, connection)
                return
        except OSError:
            pass  # reset
        self._end(connection)

    def _end(self, connection: _EchoConnection) -> None:
        self._selector.unregister(connection.socket)
        del self._connections[connection.socket]
        connection.socket.close()

    def close(self) -> None:
        """End every connection and free the port. Idempotent."""
        for connection in list(self._connections.values()):
            self._end(connection)
        self._selector.close()
        self._listener.close()
        self._datagrams.close()


def echo_messages(channel: Channel, is_cancelled: Callable[[], bool]) -> None:
    """Send each message of a channel back until the peer closes it, or this side is cancelled."""
    with suppress(PeerClosedError):
        while not is_cancelled():
            message = channel.receive(None, _CHECK_S)
            if message is not None:
                channel.send_message(message)


def _reuse(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
