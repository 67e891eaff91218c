"""A client that changes its address: the address or the interface that it started with goes away in mid-transfer."""

import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from random import Random

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.content import BytesSink, BytesSource, receive_until
from tests.support.hosts import make_hosts
from tests.support.udp_channels import serve_until_done
from toolkit.channel import Address, Extent, TransportOptions
from toolkit.emulator.namespaces import CLONE_NEWNET, join
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.socket import DatagramSocket

pytestmark = pytest.mark.root

OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S)
PREFIXES = {4: ("10.9.{}.{}", "24"), 6: ("fd09:{}::{}", "64")}
FLAGS = {4: "", 6: " nodad"}  # a tentative address cannot be bound yet


class Roaming:
    """near has two routes to a router, from 10.9.1.1 (preferred) and 10.9.3.1; far is behind it at 10.9.2.1.

    With IPv6, the addresses are fd09:1::1, fd09:3::1 and fd09:2::1.
    """

    def __init__(self, cleanup: ExitStack, version: int) -> None:
        self.near, self.router, self.far = make_hosts(cleanup)
        self._version = version
        if version == 6:
            self.router.run("sysctl -q -w net.ipv6.conf.all.forwarding=1")
        for net, host, device in ((1, self.near, "wifi"), (3, self.near, "cable"), (2, self.far, "wire")):
            host.run(f"ip link add {device} type veth peer name down{net} netns {self.router.thread_id}")
            for number, (side, name) in enumerate(((host, device), (self.router, f"down{net}")), 1):
                side.run(f"ip link set {name} up")
                side.run(
                    f"ip address add {self.address(net, number)}/{PREFIXES[version][1]} dev {name}{FLAGS[version]}"
                )
            host.run(f"ip -{version} route add default via {self.address(net, 2)} metric {net}")

    def address(self, net: int, host: int) -> str:
        return PREFIXES[self._version][0].format(net, host)


class MidwaySource(BytesSource):
    """Calls `act` once when half of the content is read, in the thread, and so on the host, that sends."""

    def __init__(self, content: bytes, act: Callable[[], object]) -> None:
        super().__init__(content)
        self._act = act
        self.has_acted = threading.Event()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if not self.has_acted.is_set() and offset >= len(self.content) // 2:
            self._act()
            self.has_acted.set()
        super().read_into(offset, buffer)


@pytest.mark.parametrize(
    ("version", "command"),
    [
        (4, "ip address del 10.9.1.1/24 dev wifi"),  # every send fails from then on
        (4, "ip link set wifi down"),  # the address stays, but no answer arrives
        (4, "ip link del wifi"),
        (6, "ip address del fd09:1::1/64 dev wifi"),  # datagrams still leave from the removed address
        (6, "ip link del wifi"),
    ],
)
def test_the_route_in_use_goes_away_in_mid_transfer(cleanup: ExitStack, version: int, command: str) -> None:
    hosts = Roaming(cleanup, version)
    check(cleanup, hosts, lambda: subprocess.run(command.split(), check=True))


def test_the_other_route_appears_later(cleanup: ExitStack) -> None:
    """The cable is plugged in when the Wi-Fi is gone."""
    hosts = Roaming(cleanup, 4)
    hosts.near.run("ip link set cable down")

    def lose_wifi() -> None:
        subprocess.run(["ip", "link", "del", "wifi"], check=True)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock, pytest.raises(OSError, match="unreach"):
            sock.connect((hosts.address(2, 1), 9))

    def plug_in() -> None:
        with open(f"/proc/self/task/{hosts.near.thread_id}/ns/net") as namespace:
            join(namespace.fileno(), CLONE_NEWNET)
        for command in ("ip link set cable up", f"ip route add default via {hosts.address(3, 2)}"):
            subprocess.run(command.split(), check=True)

    check(cleanup, hosts, lose_wifi, plug_in)


def check(cleanup: ExitStack, hosts: Roaming, act: Callable[[], object], then: Callable[[], object] = bool) -> None:
    """Run `act` on near in mid-transfer and `then` in another thread: everything arrives, in the end from 10.9.3.1."""
    far_address = Address(hosts.address(2, 1), 0)
    listener = cleanup.enter_context(closing(hosts.far.call(lambda: UdpTransport().listen(far_address, OPTIONS))))
    accepting = Background(lambda: listener.accept(timeout_s=PATIENCE_S))
    client = hosts.near.call(lambda: UdpTransport().connect(listener.address, OPTIONS))
    cleanup.callback(client.abort)
    server = accepting.outcome()
    assert server is not None
    cleanup.callback(server.abort)
    source = MidwaySource(Random(1).randbytes(8_000_000), act)
    sending = Background(lambda: hosts.near.call(lambda: send(client, source)))
    waiting = Background(lambda: source.has_acted.wait(PATIENCE_S) and then())
    sink = BytesSink()
    assert receive_until(server, sink, len(source.content), 1) == [b"end"]
    serve_until_done(server, sink, sending)
    sending.outcome()
    waiting.outcome()
    assert (sink.content(0), sink.written_bytes) == (source.content, len(source.content))
    assert client.socket.getsockname()[0] == hosts.address(3, 1)
    assert server.socket.getpeername()[:2] == client.socket.getsockname()[:2]


def send(channel: UdpChannel, source: BytesSource) -> None:
    for offset in range(0, len(source.content), 1 << 18):
        channel.send_extent(Extent(0, offset, min(1 << 18, len(source.content) - offset)), source)
    channel.send_message(b"end")
    channel.flush()


def test_a_thread_in_another_namespace_sees_the_routes_of_another_host(cleanup: ExitStack) -> None:
    """The thread of the test has a route to every peer, from an address that a socket of near does not have."""
    near, _, _ = make_hosts(cleanup)
    sock = cleanup.enter_context(closing(DatagramSocket(near.call(from_another_address))))
    before = sock.sock
    assert not sock.follow_route()
    assert sock.sock is before
    assert near.call(sock.follow_route)
    assert sock.sock.getsockname()[0] == "127.0.0.1"


def from_another_address() -> socket.socket:
    """A socket that is connected to loopback from an address that the system would not choose."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.2", 0))
    sock.connect(("127.0.0.1", 9))
    return sock
