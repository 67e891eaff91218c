"""Paths that change or are narrower than they look: a NAT that rebinds, a router with a smaller MTU, a lost CLOSE."""

import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.hosts import Host
from tests.support.udp_channels import connected, transfer, wait_for_close
from toolkit.channel import Address, TransportOptions
from toolkit.errors import UnreachableError
from toolkit.rudp.wire import PacketType
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.connect import UdpTransport

OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S, idle_timeout_s=4 * PATIENCE_S)
WITHOUT_OFFLOAD = TransportOptions(connect_timeout_s=PATIENCE_S, idle_timeout_s=4 * PATIENCE_S, offload="off")


class Nat:
    """Passes datagrams between one client and a server; `rebind` gives the client another port at the server.

    drops: whether to drop a datagram
    """

    def __init__(
        self, cleanup: ExitStack, server: Address, drops: Callable[[bytes], bool] = lambda _datagram: False
    ) -> None:
        self._server = server
        self._drops = drops
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
                if self._drops(datagram):
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


def send_content(near: UdpChannel, far: UdpChannel, size: int, seed: int) -> None:
    transfer(near, far, [random.Random(seed).randbytes(size)], [b"end"])


class TestRebinding:
    @pytest.mark.parametrize("times", [1, 3])
    def test_a_transfer_survives_a_nat_that_rebinds(self, cleanup: ExitStack, times: int) -> None:
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        nat = Nat(cleanup, listener.address)
        near, far = connected(listener, WITHOUT_OFFLOAD, nat.address)
        with closing(near), closing(far):
            for seed in range(times):
                send_content(near, far, 500_000, seed)
                nat.rebind()
            send_content(near, far, 1_000_000, times)

    def test_late_wake_ups_end_one_wait(self, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        """The listener's thread posts a datagram and then wakes the channel, which may have handled it already."""
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        near, far = connected(listener, OPTIONS)
        waits = 0
        select_before = select.select

        def counting(*arguments: Any) -> Any:
            nonlocal waits
            waits += 1
            return select_before(*arguments)

        with closing(near), closing(far):
            for _ in range(100):
                far.post(b"no packet", 0, ("192.0.2.1", 9))
            monkeypatch.setattr(select, "select", counting)
            far.receive(None, timeout_s=0.2)
            monkeypatch.undo()
            assert waits < 100

    def test_a_stranger_who_does_not_know_the_id_moves_nothing(self, cleanup: ExitStack) -> None:
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        near, far = connected(listener, OPTIONS)
        stranger = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

        def interfere() -> None:
            for n in range(200):
                stranger.sendto(b"\x13\0" + os.urandom(8) + bytes([n]) * 24, listener.address)

        with closing(near), closing(far):
            interfering = Background(interfere)
            send_content(near, far, 1_000_000, seed=9)
            interfering.outcome()
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):
                stranger.recv(2000)


class TestLostClose:
    @pytest.mark.parametrize("losses", [1, 3])
    def test_is_repeated_to_a_client_that_still_sends(self, cleanup: ExitStack, losses: int) -> None:
        """The server's channel and its socket are gone by then: the listener has kept the CLOSE packet."""
        left = losses

        def drops(datagram: bytes) -> bool:
            nonlocal left
            left -= datagram[0] == PacketType.CLOSE
            return datagram[0] == PacketType.CLOSE and left >= 0

        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        nat = Nat(cleanup, listener.address, drops)
        near, far = connected(listener, WITHOUT_OFFLOAD, nat.address)
        with closing(near):
            far.abort()
            near.send_message(b"anybody there?")
            assert "aborted the session" in wait_for_close(near)
            assert left < 0


@pytest.mark.root
def test_link_local_peers_know_each_others_interface(three_hosts: tuple[Host, Host, Host]) -> None:
    """fe80:: is on every interface: without its scope, an answer has no route (RFC 4007 section 6)."""
    near, router, _ = three_hosts
    scopes = {}
    for number, host, device in ((1, near, "wire"), (2, router, "down1")):
        host.run(f"ip -6 address add fe80::{number}/64 dev {device} nodad")
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
    def test_an_icmp_report_is_neither_an_error_nor_needed(self, three_hosts: tuple[Host, Host, Host]) -> None:
        """The router answers the probe of 1,472 bytes with ICMP "fragmentation needed", an error of the next call."""
        near, router, far = three_hosts
        router.run("ip link set down2 mtu 1300")
        self.check(near, far, 1300)

    def test_a_silent_router_is_found_out(self, three_hosts: tuple[Host, Host, Host]) -> None:
        """An interface drops what is too long on arrival, and reports nothing."""
        near, router, far = three_hosts
        router.run("ip link set down1 mtu 1300")
        self.check(near, far, 1304)  # such an interface accepts 4 bytes more, for a VLAN tag

    def test_a_transfer_survives_a_path_that_becomes_narrower(self, three_hosts: tuple[Host, Host, Host]) -> None:
        near, router, far = three_hosts
        self.check(near, far, 1500, lambda: router.run("ip link set down2 mtu 1300"))

    @pytest.mark.parametrize("narrow", ["near: ip link set wire mtu 576", "router: ip link set down2 mtu 576"])
    def test_a_path_without_room_for_the_handshake_is_said_to_be_so(
        self, three_hosts: tuple[Host, Host, Host], narrow: str
    ) -> None:
        """The interface refuses the INITIAL, or a router reports that it is too long."""
        name, command = narrow.split(": ")
        near, router, _ = three_hosts
        {"near": near, "router": router}[name].run(command)
        with pytest.raises(UnreachableError, match=r"too narrow for UDP.*1,228.*tcp-send"):
            near.call(lambda: UdpTransport().connect(Address("10.9.2.1", 9), OPTIONS))

    def check(self, near: Host, far: Host, mtu: int, narrow: Callable[[], None] | None = None) -> None:
        """Transfer over a path of this MTU until the sender has found it, and then over one that `narrow` makes."""
        listener = far.call(lambda: UdpTransport().listen(Address("10.9.2.1", 0), OPTIONS))
        with closing(listener):
            accepting = Background(lambda: listener.accept(timeout_s=PATIENCE_S))
            client = near.call(lambda: UdpTransport().connect(listener.address, OPTIONS))
            server = accepting.outcome()
            assert server is not None
            with closing(client), closing(server):
                send_content(client, server, 2_000_000, seed=1)
                send_until(client, server, mtu - 28 - 16, mtu - 28)
                if narrow is not None:
                    narrow()
                    send_content(client, server, 2_000_000, seed=2)
                    send_until(client, server, 0, 1300 - 28)


def send_until(client: UdpChannel, server: UdpChannel, min_bytes: int, max_bytes: int) -> None:
    """Send content until the size of the client's datagrams is within these bounds.

    The MTU search takes round trips, and a fast machine may finish a transfer before it.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    seed = 3
    while not min_bytes <= (size := int(client.statistics()["datagram_bytes"])) <= max_bytes:
        assert time.monotonic() < deadline_s, f"datagrams of {size} bytes, not {min_bytes} to {max_bytes}"
        send_content(client, server, 100_000, seed)
        seed += 1
