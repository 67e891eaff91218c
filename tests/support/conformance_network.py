"""The transports of the conformance suite, and pairs of channels over them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from tests.support.background import PATIENCE_S, together
from tests.support.memory_transport import MemoryTransport
from toolkit.channel import Address, Channel, Listener, Transport, TransportOptions
from toolkit.errors import PeerClosedError
from toolkit.transports.tcp.connect import TcpTransport
from toolkit.transports.udp.connect import UdpTransport

OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S)


class Case(NamedTuple):
    """A transport to test: how to make it, the host that it listens on, and its options."""

    make: Callable[[], Transport]
    host: str = "127.0.0.1"
    options: TransportOptions = OPTIONS


CASES = {
    "memory": Case(MemoryTransport, "memory"),
    "memory-shuffled": Case(lambda: MemoryTransport(shuffle_seed=7), "memory"),
    "tcp": Case(TcpTransport),
    "tcp-ipv6": Case(TcpTransport, "::1"),
    "tcp-three-streams": Case(TcpTransport, options=replace(OPTIONS, streams=3)),
    "tcp-plaintext": Case(TcpTransport, options=replace(OPTIONS, plaintext=True)),
    "tcp-plaintext-three-streams": Case(TcpTransport, options=replace(OPTIONS, plaintext=True, streams=3)),
    "udp": Case(UdpTransport),
    "udp-ipv6": Case(UdpTransport, "::1"),
    "udp-without-offload": Case(UdpTransport, options=replace(OPTIONS, offload="off")),
}
QUICK = frozenset({"memory-shuffled", "tcp", "tcp-three-streams", "udp", "udp-ipv6"})
"""What `make test` takes; `make test-long` takes the others."""


class Network:
    """A transport with one listener, and pairs of channels over it; `close` frees all of them."""

    def __init__(self, case: Case) -> None:
        self.transport = case.make()
        self.options = case.options
        self.listener: Listener = self.transport.listen(Address(case.host, 0), case.options)
        self._channels: list[Channel] = []

    def pair(self, **options: Any) -> tuple[Channel, Channel]:
        """The connecting and the accepted channel of a new session; `options` replaces fields of the case's."""
        sender, receiver = together(
            lambda: self.transport.connect(self.listener.address, replace(self.options, **options)),
            lambda: self.listener.accept(PATIENCE_S),
        )
        assert receiver is not None
        self._channels += (sender, receiver)
        return sender, receiver

    def close(self) -> None:
        for channel in self._channels:
            channel.abort()
        self.listener.close()
        with suppress(PeerClosedError):
            self.listener.accept(0)
