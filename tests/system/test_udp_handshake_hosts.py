"""The UDP handshake between hosts: round trips with and without a token, and a server with two addresses."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.hosts import Host, make_hosts
from toolkit.channel import Address, TransportOptions
from toolkit.rudp.wire import PacketType
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.listener import UdpListener

pytestmark = pytest.mark.root
OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S)


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def hosts(cleanup: ExitStack) -> tuple[Host, Host]:
    """near (10.9.1.1) and far, which has two addresses on one link: 10.9.1.2, which it prefers, and 10.9.1.3."""
    near, far, _ = make_hosts(cleanup)
    near.run(f"ip link add wire type veth peer name wire netns {far.thread_id}")
    for host, addresses in ((near, (1,)), (far, (2, 3))):
        for number in addresses:
            host.run(f"ip address add 10.9.1.{number}/24 dev wire")
        host.run("ip link set wire up")
    return near, far


def connect(
    near: Host, listener: UdpListener, host: str, options: TransportOptions = OPTIONS
) -> tuple[UdpChannel, UdpChannel]:
    accepting = Background(lambda: listener.accept(timeout_s=PATIENCE_S))
    client = near.call(lambda: UdpTransport().connect(Address(host, listener.address.port), options))
    server = accepting.outcome()
    assert server is not None
    return client, server


class Tap:
    """Counts the RETRYs at a host's interface."""

    def __init__(self, cleanup: ExitStack, host: Host) -> None:
        self._sock = host.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
        cleanup.callback(self._sock.close)
        self._sock.setblocking(False)

    def retries(self) -> int:
        """Return how many have been seen since the last call."""
        found = 0
        while True:
            try:
                packet = self._sock.recv(65_536)
            except BlockingIOError:
                return found
            is_udp = len(packet) > 28 and packet[0] == 0x45 and packet[9] == socket.IPPROTO_UDP
            found += is_udp and packet[28] == PacketType.RETRY


def test_a_client_that_returns_saves_a_round_trip(
    cleanup: ExitStack, hosts: tuple[Host, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    near, far = hosts
    tap = Tap(cleanup, far)
    with closing(far.call(lambda: UdpTransport().listen(Address("10.9.1.2", 0), OPTIONS))) as listener:
        seen = []
        for _ in range(3):
            for channel in connect(near, listener, "10.9.1.2"):
                channel.abort()
            seen.append(tap.retries())
    assert seen[0] > 0
    assert seen[1:] == [0, 0]


def test_a_client_without_tokens_saves_no_round_trip(
    cleanup: ExitStack, hosts: tuple[Host, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    near, far = hosts
    tap = Tap(cleanup, far)
    with closing(far.call(lambda: UdpTransport().listen(Address("10.9.1.2", 0), OPTIONS))) as listener:
        for _ in range(2):
            for channel in connect(near, listener, "10.9.1.2", replace(OPTIONS, returns_tokens=False)):
                channel.abort()
            assert tap.retries() > 0
    assert not list(tmp_path.rglob("tokens/*"))


@pytest.mark.parametrize("host", ["10.9.1.2", "10.9.1.3"])
@pytest.mark.parametrize("bound", ["", "0.0.0.0"])
def test_a_server_with_two_addresses_answers_from_the_one_that_was_addressed(
    hosts: tuple[Host, Host], host: str, bound: str
) -> None:
    near, far = hosts
    with closing(far.call(lambda: UdpTransport().listen(Address(bound, 0), OPTIONS))) as listener:
        client, server = connect(near, listener, host)
        with closing(client), closing(server):
            client.send_message(b"through")
            assert server.receive(timeout_s=PATIENCE_S) == b"through"
