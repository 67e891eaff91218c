"""The listening end over real sockets: who gets in, what half-open handshakes cost, and how it ends."""

import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.content import BytesSink
from tests.support.udp_channels import connected, receive_all, send_all
from toolkit.channel import Address, TransportOptions
from toolkit.errors import PeerClosedError, UnreachableError
from toolkit.rudp import wire
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.listener import MAX_UNCONFIRMED, MAX_UNCONFIRMED_PER_HOST, UdpListener

OPTIONS = TransportOptions(idle_timeout_s=10.0)
FORGED = 17


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener() -> Iterator[UdpListener]:
    with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as made:
        yield made


class Client:
    """A bare socket that speaks the first packets by hand."""

    def __init__(self, cleanup: ExitStack, listener: UdpListener, host: str = "127.0.0.1") -> None:
        self.sock = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sock.bind((host, 0))
        self.address = listener.address
        self.client_id = secrets.randbits(64)

    def send(self, datagram: bytes) -> None:
        self.sock.sendto(datagram, self.address)

    def initial(self, token: bytes = b"") -> None:
        self.send(wire.InitialPacket(self.client_id, 1472, token).encode())

    @property
    def unknown_version(self) -> bytes:
        return wire.InitialPacket(self.client_id, 1472, version=wire.VERSION + 1).encode()

    def answer(self, kind: wire.PacketType, timeout_s: float = PATIENCE_S) -> bytes:
        """The next datagram of this type."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left)[0]:
                datagram = self.sock.recv(65_536)
                if datagram[0] == kind:
                    return datagram
        raise AssertionError(f"no {kind.name} has come")

    def gets_in(self, listener: UdpListener, witness: "Client") -> bool:
        """Whether something is kept for its INITIAL, with a token where that is asked for."""
        before = len(listener._unconfirmed)
        self.initial()
        first = self.sock.recv(65_536)
        if first[0] == wire.PacketType.RETRY:
            self.initial(wire.decode_retry_untrusted(first))
        witness.send(witness.unknown_version)
        while not select.select([witness.sock], [], [], 0.1)[0]:
            witness.send(witness.unknown_version)  # the other has got to a socket that was about to be connected
        return len(listener._unconfirmed) > before  # what came before the witness is dealt with

    def everything(self, duration_s: float) -> list[bytes]:
        """What comes in this time."""
        deadline = time.monotonic() + duration_s
        datagrams = []
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left)[0]:
                datagrams.append(self.sock.recv(65_536))
        return datagrams


class TestHandshake:
    def test_a_client_is_handed_out_when_it_has_used_the_id_that_it_was_given(
        self, listener: UdpListener, cleanup: ExitStack
    ) -> None:
        client = Client(cleanup, listener)
        client.initial()
        accept = wire.decode_accept_untrusted(client.answer(wire.PacketType.ACCEPT))
        assert accept.client_id == client.client_id
        assert listener.accept(timeout_s=0.1) is None
        client.send(wire.PING.pack(wire.PacketType.PING, 0, accept.server_id ^ 1, 0, 0, 5000, 1000))
        assert listener.accept(timeout_s=0.1) is None
        client.send(wire.PING.pack(wire.PacketType.PING, 0, accept.server_id, 0, 0, 5000, 1000))
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        channel.abort()

    def test_an_initial_that_comes_twice_makes_one_connection_and_the_same_answer(
        self, listener: UdpListener, cleanup: ExitStack
    ) -> None:
        client = Client(cleanup, listener)
        client.initial()
        first = client.answer(wire.PacketType.ACCEPT)
        client.initial()
        assert client.answer(wire.PacketType.ACCEPT) == first
        assert len(listener._unconfirmed) == 1

    def test_answers_amplify_nothing(self, listener: UdpListener, cleanup: ExitStack) -> None:
        """RFC 9000 section 8.1, over the first second: the engine's tests look at all of the time."""
        client = Client(cleanup, listener)
        client.initial()
        received = client.everything(1.0)
        assert received
        assert sum(map(len, received)) <= 3 * wire.MIN_DATAGRAM_BYTES

    def test_another_version_is_answered_with_this_one(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client = Client(cleanup, listener)
        client.send(client.unknown_version)
        answer = client.answer(wire.PacketType.VERSION)
        assert wire.decode_version_list_untrusted(answer) == wire.VERSION
        assert wire.connection_id_untrusted(answer)[1] == client.client_id

    def test_garbage_is_not_answered(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client = Client(cleanup, listener)
        for datagram in (b"", b"\x01", bytes(1200), os.urandom(1400), wire.InitialPacket(1, 1472).encode()[:1199]):
            client.send(datagram)
        for kind in wire.PacketType:
            if kind != wire.PacketType.INITIAL:
                client.send(wire.COMMON.pack(kind, 0, secrets.randbits(64), 0).ljust(1200, b"\0"))
        assert client.everything(0.2) == []
        near, far = connected(listener, OPTIONS)
        near.abort()
        far.abort()


class TestHalfOpen:
    def test_many_of_them_make_every_address_prove_itself_and_cost_nothing_more(
        self, listener: UdpListener, cleanup: ExitStack
    ) -> None:
        forged = [Client(cleanup, listener) for _ in range(FORGED)]
        for client in forged[:-1]:
            client.initial()
            client.answer(wire.PacketType.ACCEPT)
        descriptors = len(os.listdir("/proc/self/fd"))
        forged[-1].initial()
        retry = forged[-1].answer(wire.PacketType.RETRY)
        assert len(retry) < wire.MIN_DATAGRAM_BYTES
        for _ in range(50):
            forged[-1].client_id = secrets.randbits(64)
            forged[-1].initial(token=os.urandom(24))
            forged[-1].answer(wire.PacketType.RETRY)
        assert len(os.listdir("/proc/self/fd")) == descriptors

    def test_an_honest_client_gets_in_all_the_same(self, listener: UdpListener, cleanup: ExitStack) -> None:
        for _ in range(FORGED):
            client = Client(cleanup, listener)
            client.initial()
            with suppress(AssertionError):
                client.answer(wire.PacketType.ACCEPT, timeout_s=0.2)
        begun = time.monotonic()
        near, far = connected(listener, OPTIONS)
        assert time.monotonic() - begun < 2
        with closing(near), closing(far):
            near.send_message(b"through")
            assert far.receive(BytesSink(), timeout_s=PATIENCE_S) == b"through"

    def test_of_one_host_that_can_prove_its_address_leave_room_for_others(
        self, listener: UdpListener, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("toolkit.transports.udp.listener._UNCONFIRMED_LIFETIME_NS", int(PATIENCE_S * 1e9))
        greedy = [Client(cleanup, listener).gets_in(listener, Client(cleanup, listener)) for _ in range(40)]
        assert greedy == [True] * MAX_UNCONFIRMED_PER_HOST + [False] * (40 - MAX_UNCONFIRMED_PER_HOST)
        others = [
            Client(cleanup, listener, f"127.0.1.{n}").gets_in(listener, Client(cleanup, listener)) for n in range(40)
        ]
        room = MAX_UNCONFIRMED - MAX_UNCONFIRMED_PER_HOST
        assert others == [True] * room + [False] * (40 - room)

    def test_a_token_is_good_for_its_address_only(self, listener: UdpListener, cleanup: ExitStack) -> None:
        for _ in range(FORGED - 1):
            client = Client(cleanup, listener)
            client.initial()
            client.answer(wire.PacketType.ACCEPT)
        honest, thief = Client(cleanup, listener), Client(cleanup, listener)
        honest.initial()
        token = wire.decode_retry_untrusted(honest.answer(wire.PacketType.RETRY))
        thief.client_id = honest.client_id
        thief.initial(token)
        thief.answer(wire.PacketType.RETRY)
        honest.initial(token)
        honest.answer(wire.PacketType.ACCEPT)

    def test_they_are_given_up(self, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("toolkit.transports.udp.listener._UNCONFIRMED_LIFETIME_NS", 200_000_000)
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            client = Client(cleanup, listener)
            client.initial()
            client.answer(wire.PacketType.ACCEPT)
        client.answer(wire.PacketType.CLOSE)
        deadline = time.monotonic() + PATIENCE_S
        while len(os.listdir("/proc/self/fd")) > descriptors + 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_an_ipv4_client_of_an_ipv6_socket_is_shown_as_what_it_is() -> None:
    with closing(UdpTransport().listen(Address("", 0), OPTIONS)) as listener:
        near, far = connected(listener, OPTIONS, Address("127.0.0.1", listener.address.port))
        with closing(near), closing(far):
            assert far.peer == Address(*near._socket.sock.getsockname())


class TestPort:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
    def test_is_for_one_listener(self, host: str) -> None:
        with closing(UdpTransport().listen(Address(host, 0), OPTIONS)) as first:
            port = first.address.port
            near, far = connected(first, OPTIONS, Address(host or "127.0.0.1", port))
            for other in {host, "", "127.0.0.1" if ":" not in host else "::1"}:
                with pytest.raises(UnreachableError, match=f"{port} is in use"):
                    UdpTransport().listen(Address(other, port), OPTIONS)
            near.abort()
            far.abort()

    def test_is_free_again_when_all_is_closed(self) -> None:
        with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as first:
            port = first.address.port
            near, far = connected(first, OPTIONS)
            near.close()
            far.close()
        with closing(UdpTransport().listen(Address("127.0.0.1", port), OPTIONS)) as second:
            assert second.address == Address("127.0.0.1", port)

    def test_of_an_address_that_is_not_this_machines_is_refused(self) -> None:
        with pytest.raises(UnreachableError, match="is not an address of this machine"):
            UdpTransport().listen(Address("192.0.2.1", 0), OPTIONS)


class TestClosing:
    @pytest.mark.parametrize("waiting", [1, 3])
    def test_from_another_thread_wakes_who_waits(self, listener: UdpListener, waiting: int) -> None:
        accepting = [Background(lambda: listener.accept(timeout_s=PATIENCE_S)) for _ in range(waiting)]
        time.sleep(0.05)
        begun = time.monotonic()
        listener.close()
        for call in accepting:
            with pytest.raises(PeerClosedError, match="stopped listening"):
                call.outcome()
        assert time.monotonic() - begun < 2
        with pytest.raises(PeerClosedError):
            listener.accept()
        listener.close()

    def test_is_no_error_where_its_thread_has_noticed_by_itself(
        self, listener: UdpListener, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A datagram, or a time that has come, may wake it before it is woken."""
        flag = listener._is_closing

        def set_and_wait() -> None:
            threading.Event.set(flag)
            Client(cleanup, listener).send(b"x")
            listener._thread.join(PATIENCE_S)

        monkeypatch.setattr(flag, "set", set_and_wait)
        listener.close()
        assert not listener._thread.is_alive()

    def test_leaves_the_channels_that_were_accepted(self, listener: UdpListener) -> None:
        near, far = connected(listener, OPTIONS)
        listener.close()
        with closing(near), closing(far):
            near.send_message(b"still here")
            assert far.receive(BytesSink(), timeout_s=PATIENCE_S) == b"still here"
            far.send_message(b"me too")
            assert near.receive(BytesSink(), timeout_s=PATIENCE_S) == b"me too"

    def test_tells_those_that_were_never_accepted(self, listener: UdpListener) -> None:
        near = UdpTransport().connect(listener.address, OPTIONS)
        with closing(near):
            near.send_message(b"hello?")
            listener.close()
            with pytest.raises(PeerClosedError):
                near.receive(BytesSink(), timeout_s=PATIENCE_S)

    def test_frees_everything(self) -> None:
        before = set(os.listdir("/proc/self/fd"))
        listener = UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)
        with ExitStack() as clients:
            for _ in range(3):
                Client(clients, listener).initial()
            near = UdpTransport().connect(listener.address, OPTIONS)
            listener.close()
            near.abort()
        assert set(os.listdir("/proc/self/fd")) == before

    def test_a_look_does_not_wait(self, listener: UdpListener) -> None:
        begun = time.monotonic()
        assert listener.accept(timeout_s=0) is None
        assert time.monotonic() - begun < 0.5


FLOOD = """
import socket, sys
from toolkit.rudp import wire

socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(100)]
for sock in socks:
    sock.connect(("127.0.0.1", int(sys.argv[1])))
initials = [wire.InitialPacket(n, 1472).encode() for n in range(100)]
print("flooding", flush=True)
while True:
    for sock, initial in zip(socks, initials):
        try:
            sock.send(initial)
        except OSError:
            pass
"""


def test_a_flood_of_first_packets_disturbs_no_session_and_ends_with_the_listener(listener: UdpListener) -> None:
    """From another process, faster than they can be answered."""
    near, far = connected(listener, OPTIONS)
    command = [sys.executable, "-c", FLOOD, str(listener.address.port)]
    with closing(near), closing(far), subprocess.Popen(command, stdout=subprocess.PIPE) as flood:
        try:
            assert flood.stdout is not None
            flood.stdout.readline()
            time.sleep(0.2)
            content = os.urandom(1_000_000)
            sending = Background(lambda: send_all(near, [content], [b"end"]))
            sink, messages = receive_all(far, len(content), 1)
            assert (sink.content(0), messages) == (content, [b"end"])
            while sending.is_alive():
                far.receive(sink, timeout_s=0.01)
            sending.outcome()
            begun = time.monotonic()
            listener.close()
            assert time.monotonic() - begun < 2
        finally:
            flood.kill()
