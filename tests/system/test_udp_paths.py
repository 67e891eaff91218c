"""Paths that change or are narrower than they look: a NAT that forgets, a client that moves, a router's smaller MTU."""

import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.hosts import Host, make_hosts
from tests.support.udp_channels import connected, receive_all, send_all, wait_for_close
from toolkit.channel import Address, TransportOptions
from toolkit.rudp.wire import PacketType
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.socket import wait_readable

OPTIONS = TransportOptions(idle_timeout_s=10.0)


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Nat:
    """Passes datagrams between one client and a server; `rebind` gives the client another port at the server.

    `lost` says which datagrams do not come through.
    """

    def __init__(
        self, cleanup: ExitStack, server: Address, lost: Callable[[bytes], bool] = lambda _datagram: False
    ) -> None:
        self._server = server
        self._lost = lost
        self._socks = ExitStack()
        self.inside = self._new_socket()
        self._outside = self._new_socket()
        self._client: tuple[str, int] | None = None
        self._is_over = threading.Event()
        self._relaying = Background(self._relay)
        cleanup.callback(self._stop)

    @property
    def address(self) -> Address:
        return Address(*self.inside.getsockname())

    def _new_socket(self) -> socket.socket:
        sock = self._socks.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind(("127.0.0.1", 0))
        return sock

    def rebind(self) -> None:
        self._outside = self._new_socket()

    def _relay(self) -> None:
        while not self._is_over.is_set():
            outside = self._outside
            for sock in select.select([self.inside, outside], [], [], 0.01)[0]:
                datagram, origin = sock.recvfrom(65_536)
                if self._lost(datagram):
                    continue
                if sock is self.inside:
                    self._client = origin
                    outside.sendto(datagram, self._server)
                elif self._client is not None:
                    self.inside.sendto(datagram, self._client)

    def _stop(self) -> None:
        self._is_over.set()
        with self._socks:
            self._relaying.outcome()


def transfer(near: UdpChannel, far: UdpChannel, content: bytes, meanwhile: Callable[[], None] = lambda: None) -> None:
    sending = Background(lambda: send_all(near, [content], [b"end"]))
    meanwhile()
    sink, messages = receive_all(far, len(content), 1)
    while sending.is_alive():
        far.receive(sink, timeout_s=0.01)
    sending.outcome()
    assert (sink.content(0), messages, sink.written_bytes) == (content, [b"end"], len(content))


class TestRebinding:
    @pytest.mark.parametrize("times", [1, 3])
    def test_a_transfer_survives_a_nat_that_forgets(self, cleanup: ExitStack, times: int) -> None:
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        nat = Nat(cleanup, listener.address)
        near, far = connected(listener, TransportOptions(idle_timeout_s=10.0, offload="off"), nat.address)
        with closing(near), closing(far):
            for n in range(times):
                transfer(near, far, random.Random(n).randbytes(500_000))
                nat.rebind()
            transfer(near, far, random.Random(times).randbytes(1_000_000))

    def test_a_wake_up_that_is_late_wakes_once(self, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        """The listener's thread posts a datagram and then wakes the channel, which may have found it by then."""
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        near, far = connected(listener, OPTIONS)
        waits = 0

        def counting(descriptors: Sequence[int], timeout_ns: int | None) -> list[int]:
            nonlocal waits
            waits += 1
            return wait_readable(descriptors, timeout_ns)

        monkeypatch.setattr("toolkit.transports.udp.channel.wait_readable", counting)
        with closing(near), closing(far):
            assert far._wake is not None
            for _ in range(100):
                far._wake[0].send(b"\0")
            far.receive(None, timeout_s=0.2)
            assert waits < 100

    def test_a_stranger_who_knows_no_id_moves_nobody(self, cleanup: ExitStack) -> None:
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        near, far = connected(listener, OPTIONS)
        stranger = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with closing(near), closing(far):

            def interfere() -> None:
                for n in range(200):
                    stranger.sendto(b"\x13\0" + os.urandom(8) + bytes([n]) * 24, listener.address)

            transfer(near, far, random.Random(9).randbytes(1_000_000), interfere)
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):
                stranger.recv(2000)


class TestLostClose:
    @pytest.mark.parametrize("losses", [1, 3])
    def test_of_a_server_is_said_again_to_a_client_that_goes_on(self, cleanup: ExitStack, losses: int) -> None:
        """The connection and its socket are gone by then: the listener has kept the last word."""
        left = losses

        def is_lost(datagram: bytes) -> bool:
            nonlocal left
            left -= datagram[0] == PacketType.CLOSE
            return datagram[0] == PacketType.CLOSE and left >= 0

        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        nat = Nat(cleanup, listener.address, is_lost)
        near, far = connected(listener, TransportOptions(idle_timeout_s=10.0, offload="off"), nat.address)
        with closing(near):
            far.abort()
            del far
            begun = time.monotonic()
            near.send_message(b"is anybody there?")
            assert "gave up" in wait_for_close(near)
            assert time.monotonic() - begun < 5
            assert left < 0


@pytest.fixture
def three_hosts(cleanup: ExitStack) -> tuple[Host, Host, Host]:
    """near (10.9.1.1) - a router - far (10.9.2.1), by links of 1,500 bytes."""
    near, router, far = hosts = make_hosts(cleanup)
    for n, end in ((1, near), (2, far)):
        end.run(f"ip link add wire type veth peer name down{n} netns {router.thread_id}")
        end.run(f"ip address add 10.9.{n}.1/24 dev wire")
        end.run("ip link set wire up")
        router.run(f"ip address add 10.9.{n}.2/24 dev down{n}")
        router.run(f"ip link set down{n} up")
        end.run(f"ip route add default via 10.9.{n}.2")
    return hosts


@pytest.mark.root
def test_ends_that_are_link_local_know_each_other_with_the_interface(three_hosts: tuple[Host, Host, Host]) -> None:
    """fe80:: is on every interface: without its scope the answer has no way back (RFC 4007 section 6)."""
    near, router, _ = three_hosts
    scopes = {}
    for number, host, device in ((1, near, "wire"), (2, router, "down1")):
        host.run(f"ip -6 address add fe80::{number}/64 dev {device}")
        scopes[host] = host.call(lambda device=device: socket.if_nametoindex(device))
    with closing(router.call(lambda: UdpTransport().listen(Address("::", 0), OPTIONS))) as listener:
        accepting = Background(lambda: listener.accept(timeout_s=PATIENCE_S))
        address = Address(f"fe80::2%{scopes[near]}", listener.address.port)
        client = near.call(lambda: UdpTransport().connect(address, OPTIONS))
        server = accepting.outcome()
        assert server is not None
        with closing(client), closing(server):
            assert client.peer == address
            assert server.peer.host == f"fe80::1%{scopes[router]}"


@pytest.mark.root
class TestNarrowPath:
    def test_a_routers_word_about_its_mtu_is_neither_an_error_nor_needed(
        self, three_hosts: tuple[Host, Host, Host]
    ) -> None:
        """The probe of 1,472 bytes is answered by ICMP "fragmentation needed", which the next call is told of."""
        near, router, far = three_hosts
        router.run("ip link set down2 mtu 1300")
        self.check(near, far, 1300)

    def test_a_router_that_says_nothing_is_found_out(self, three_hosts: tuple[Host, Host, Host]) -> None:
        """What is too long for the interface that it arrives at is dropped there without a word."""
        near, router, far = three_hosts
        router.run("ip link set down1 mtu 1300")
        self.check(near, far, 1304)  # such an interface takes 4 bytes more, for a VLAN's tag

    def test_a_path_that_becomes_narrower_in_the_middle_is_gone_on_with(
        self, three_hosts: tuple[Host, Host, Host]
    ) -> None:
        near, router, far = three_hosts
        self.check(near, far, 1500, lambda: router.run("ip link set down2 mtu 1300"))

    def check(self, near: Host, far: Host, mtu: int, midway: Callable[[], None] | None = None) -> None:
        listener = far.call(lambda: UdpTransport().listen(Address("10.9.2.1", 0), OPTIONS))
        with closing(listener):
            accepting = Background(lambda: listener.accept(timeout_s=PATIENCE_S))
            client = near.call(lambda: UdpTransport().connect(listener.address, OPTIONS))
            server = accepting.outcome()
            assert server is not None
            with closing(client), closing(server):
                transfer(client, server, random.Random(1).randbytes(2_000_000))
                transfer_until(client, server, mtu - 28 - 16, mtu - 28)
                if midway is not None:
                    midway()
                    transfer(client, server, random.Random(2).randbytes(2_000_000))
                    transfer_until(client, server, 0, 1300 - 28)


def transfer_until(client: UdpChannel, server: UdpChannel, least_bytes: int, most_bytes: int) -> None:
    """Transfer content until the client's datagrams are of a size within these bounds.

    The MTU search needs round trips, and a fast machine may transfer everything before the search has ended.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    seed = 3
    while not least_bytes <= (size := int(client.statistics()["datagram_bytes"])) <= most_bytes:
        assert time.monotonic() < deadline_s, f"datagrams of {size} bytes, not {least_bytes} to {most_bytes}"
        transfer(client, server, random.Random(seed).randbytes(100_000))
        seed += 1
