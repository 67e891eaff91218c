"""The UDP listener over real sockets: which connections it accepts, what unconfirmed ones cost, and its end."""

import errno
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.support.background import PATIENCE_S, Background, running, wait_until
from tests.support.content import BytesSink
from tests.support.udp_channels import connected, transfer
from toolkit.channel import Address, TransportOptions
from toolkit.errors import PeerClosedError, UnreachableError
from toolkit.rudp import wire
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.listener import MAX_UNCONFIRMED, MAX_UNCONFIRMED_PER_HOST, UdpListener
from toolkit.transports.udp.socket import DatagramSocket

OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S)
MAX_WITHOUT_TOKEN = 16
"""From this number of unconfirmed connections on, every client has to validate its address."""


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener() -> Iterator[UdpListener]:
    with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as made:
        yield made


@pytest.fixture
def long_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unconfirmed connections outlive the test, however slow the machine."""
    monkeypatch.setattr("toolkit.transports.udp.listener.UNCONFIRMED_LIFETIME_NS", int(10 * PATIENCE_S * 1e9))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Client:
    """A bare socket that sends the first packets of a connection."""

    def __init__(self, cleanup: ExitStack, listener: UdpListener, host: str = "127.0.0.1") -> None:
        self.sock = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sock.bind((host, 0))
        self.sock.settimeout(PATIENCE_S)
        self.address = listener.address
        self.client_id = secrets.randbits(64)

    def send(self, datagram: bytes) -> None:
        self.sock.sendto(datagram, self.address)

    def send_initial(self, token: bytes = b"") -> None:
        self.send(wire.InitialPacket(self.client_id, 1472, token).encode())

    @property
    def unknown_version(self) -> bytes:
        return wire.InitialPacket(self.client_id, 1472, version=wire.VERSION + 1).encode()

    def answer(self, packet_type: wire.PacketType) -> bytes:
        """Return the next datagram of this type."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            datagram = self.sock.recv(65_536)
            if datagram[0] == packet_type:
                return datagram
        raise AssertionError(f"no {packet_type.name} has arrived")

    def gets_in(self, witness: "Client") -> bool:
        """Return whether the listener makes a connection (and sockets) for its INITIAL, with a token if required."""
        before = descriptors()
        self.send_initial()
        first = self.sock.recv(65_536)
        if first[0] == wire.PacketType.RETRY:
            self.send_initial(wire.decode_retry_untrusted(first))
        # Once the witness has its answer, the listener has handled everything that came before.
        witness.send(witness.unknown_version)
        while not select.select([witness.sock], [], [], 0.1)[0]:
            witness.send(witness.unknown_version)  # the first went to a socket that was about to be connected
        return descriptors() > before

    def receive_for(self, duration_s: float) -> list[bytes]:
        """Return what arrives in this time."""
        deadline_s = time.monotonic() + duration_s
        datagrams = []
        while (left_s := deadline_s - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left_s)[0]:
                datagrams.append(self.sock.recv(65_536))
        return datagrams


class TestHandshake:
    def test_a_connection_is_accepted_once_the_client_uses_its_id(
        self, listener: UdpListener, cleanup: ExitStack
    ) -> None:
        client = Client(cleanup, listener)
        client.send_initial()
        accept = wire.decode_accept_untrusted(client.answer(wire.PacketType.ACCEPT))
        assert accept.client_id == client.client_id
        assert listener.accept(timeout_s=0.1) is None
        client.send(wire.PING.pack(wire.PacketType.PING, 0, accept.server_id ^ 1, 0, 0, 5000, 1000))
        assert listener.accept(timeout_s=0.1) is None
        client.send(wire.PING.pack(wire.PacketType.PING, 0, accept.server_id, 0, 0, 5000, 1000))
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        channel.abort()

    @pytest.mark.usefixtures("long_lifetime")
    def test_a_repeated_initial_gets_the_same_answer_and_no_second_connection(
        self, listener: UdpListener, cleanup: ExitStack
    ) -> None:
        client = Client(cleanup, listener)
        client.send_initial()
        first = client.answer(wire.PacketType.ACCEPT)
        before = descriptors()
        client.send_initial()
        assert client.answer(wire.PacketType.ACCEPT) == first
        assert descriptors() == before

    def test_answers_amplify_nothing(self, listener: UdpListener, cleanup: ExitStack) -> None:
        """RFC 9000 section 8.1, over the first second; the engine's tests cover the rest of the time."""
        client = Client(cleanup, listener)
        client.send_initial()
        received = [client.answer(wire.PacketType.ACCEPT), *client.receive_for(1.0)]
        assert sum(map(len, received)) <= 3 * wire.MIN_DATAGRAM_BYTES

    def test_another_version_is_answered_with_this_one(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client = Client(cleanup, listener)
        client.send(client.unknown_version)
        answer = client.answer(wire.PacketType.VERSION)
        assert wire.decode_version_untrusted(answer) == wire.VERSION
        assert wire.connection_id_untrusted(answer)[1] == client.client_id

    def test_garbage_is_not_answered(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client = Client(cleanup, listener)
        for datagram in (b"", b"\x01", bytes(1200), os.urandom(1400), wire.InitialPacket(1, 1472).encode()[:1199]):
            client.send(datagram)
        for packet_type in wire.PacketType:
            if packet_type != wire.PacketType.INITIAL:
                client.send(wire.COMMON.pack(packet_type, 0, secrets.randbits(64), 0).ljust(1200, b"\0"))
        assert client.receive_for(0.2) == []
        near, far = connected(listener, OPTIONS)
        near.abort()
        far.abort()


class TestUnconfirmed:
    @pytest.fixture
    def crowd(self, listener: UdpListener, cleanup: ExitStack, long_lifetime: None) -> None:  # noqa: ARG002
        """As many unconfirmed connections as are allowed without validation."""
        for _ in range(MAX_WITHOUT_TOKEN):
            client = Client(cleanup, listener)
            client.send_initial()
            client.answer(wire.PacketType.ACCEPT)

    @pytest.mark.usefixtures("crowd")
    def test_many_make_every_client_validate_its_address_and_cost_nothing_more(
        self, listener: UdpListener, cleanup: ExitStack
    ) -> None:
        client = Client(cleanup, listener)
        before = descriptors()
        client.send_initial()
        assert len(client.answer(wire.PacketType.RETRY)) < wire.MIN_DATAGRAM_BYTES
        for _ in range(50):
            client.client_id = secrets.randbits(64)
            client.send_initial(token=os.urandom(24))
            client.answer(wire.PacketType.RETRY)
        assert descriptors() == before

    @pytest.mark.usefixtures("crowd")
    def test_a_real_client_still_gets_in(self, listener: UdpListener) -> None:
        near, far = connected(listener, OPTIONS)
        with closing(near), closing(far):
            near.send_message(b"through")
            assert far.receive(BytesSink(), timeout_s=PATIENCE_S) == b"through"

    @pytest.mark.usefixtures("long_lifetime")
    def test_one_host_leaves_room_for_others(self, listener: UdpListener, cleanup: ExitStack) -> None:
        """Even if it validates its address."""
        greedy = [Client(cleanup, listener).gets_in(Client(cleanup, listener)) for _ in range(40)]
        assert greedy == [True] * MAX_UNCONFIRMED_PER_HOST + [False] * (40 - MAX_UNCONFIRMED_PER_HOST)
        others = [Client(cleanup, listener, f"127.0.1.{n}").gets_in(Client(cleanup, listener)) for n in range(40)]
        room = MAX_UNCONFIRMED - MAX_UNCONFIRMED_PER_HOST
        assert others == [True] * room + [False] * (40 - room)

    @pytest.mark.usefixtures("crowd")
    def test_a_token_is_valid_for_its_address_only(self, listener: UdpListener, cleanup: ExitStack) -> None:
        honest, thief = Client(cleanup, listener), Client(cleanup, listener)
        honest.send_initial()
        token = wire.decode_retry_untrusted(honest.answer(wire.PacketType.RETRY))
        thief.client_id = honest.client_id
        thief.send_initial(token)
        thief.answer(wire.PacketType.RETRY)
        honest.send_initial(token)
        honest.answer(wire.PacketType.ACCEPT)

    def test_they_are_given_up(self, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("toolkit.transports.udp.listener.UNCONFIRMED_LIFETIME_NS", 200_000_000)
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        clients = [Client(cleanup, listener) for _ in range(5)]
        before = descriptors()
        for client in clients:
            client.send_initial()
            client.answer(wire.PacketType.ACCEPT)
        clients[-1].answer(wire.PacketType.CLOSE)
        wait_until(lambda: descriptors() <= before, "the end of the connections")


def test_an_ipv4_client_of_an_ipv6_socket_has_an_ipv4_address() -> None:
    with closing(UdpTransport().listen(Address("", 0), OPTIONS)) as listener:
        near, far = connected(listener, OPTIONS, Address("127.0.0.1", listener.address.port))
        with closing(near), closing(far):
            assert far.peer == Address(*near.socket.getsockname())


class TestPort:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
    def test_has_one_listener(self, host: str) -> None:
        with closing(UdpTransport().listen(Address(host, 0), OPTIONS)) as first:
            port = first.address.port
            near, far = connected(first, OPTIONS, Address(host or "127.0.0.1", port))
            for other in {host, "", "127.0.0.1" if ":" not in host else "::1"}:
                with pytest.raises(UnreachableError, match=f"{port} is in use"):
                    UdpTransport().listen(Address(other, port), OPTIONS)
            near.abort()
            far.abort()

    def test_is_free_after_everything_is_closed(self) -> None:
        with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as first:
            port = first.address.port
            near, far = connected(first, OPTIONS)
            near.close()
            far.close()
        with closing(UdpTransport().listen(Address("127.0.0.1", port), OPTIONS)) as second:
            assert second.address == Address("127.0.0.1", port)

    def test_of_a_foreign_address_is_refused(self) -> None:
        with pytest.raises(UnreachableError, match="is not an address of this machine"):
            UdpTransport().listen(Address("192.0.2.1", 0), OPTIONS)


class TestClosing:
    @pytest.mark.parametrize("waiting", [1, 3])
    def test_from_another_thread_wakes_accept(self, listener: UdpListener, waiting: int) -> None:
        accepting = [Background(lambda: listener.accept(timeout_s=4 * PATIENCE_S)) for _ in range(waiting)]
        time.sleep(0.05)  # most threads are in `accept` by then; one that is late gets the same error
        listener.close()
        for call in accepting:
            with pytest.raises(PeerClosedError, match="stopped listening"):
                call.outcome()
        with pytest.raises(PeerClosedError):
            listener.accept()
        listener.close()

    def test_is_no_error_if_the_thread_wakes_up_meanwhile(self) -> None:
        """A datagram may wake the listener's thread, which frees its sockets, before `close` wakes it."""
        for _ in range(50):
            listener = UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)
            with ExitStack() as stack:
                client = Client(stack, listener)
                is_over = threading.Event()

                def disturb(client: Client = client, is_over: threading.Event = is_over) -> None:
                    while not is_over.is_set():
                        client.send(b"x")

                disturbing = Background(disturb)
                listener.close()
                is_over.set()
                disturbing.outcome()

    def test_leaves_accepted_channels_open(self, listener: UdpListener) -> None:
        near, far = connected(listener, OPTIONS)
        listener.close()
        with closing(near), closing(far):
            near.send_message(b"still here")
            assert far.receive(BytesSink(), timeout_s=PATIENCE_S) == b"still here"
            far.send_message(b"me too")
            assert near.receive(BytesSink(), timeout_s=PATIENCE_S) == b"me too"

    def test_closes_channels_that_were_not_accepted(self, listener: UdpListener) -> None:
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
                Client(clients, listener).send_initial()
            near = UdpTransport().connect(listener.address, OPTIONS)
            listener.close()
            near.abort()
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_shortage_of_descriptors_leaks_no_socket(
    listener: UdpListener, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[DatagramSocket] = []

    def make(sock: socket.socket, offload: str) -> DatagramSocket:
        made.append(DatagramSocket(sock, offload))
        return made[-1]

    def fail() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("toolkit.transports.udp.listener.DatagramSocket", make)
    with monkeypatch.context() as shortage:
        shortage.setattr(socket, "socketpair", fail)
        client = Client(cleanup, listener)
        client.send_initial()
        wait_until(lambda: bool(made) and made[0].fileno() == -1, "the end of the socket")
    client.send_initial()
    client.answer(wire.PacketType.ACCEPT)


def test_accept_without_a_timeout_does_not_wait(listener: UdpListener) -> None:
    assert listener.accept(timeout_s=0) is None


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


def test_a_flood_of_first_packets_disturbs_neither_a_session_nor_close(listener: UdpListener) -> None:
    """Another process sends them faster than they can be answered."""
    near, far = connected(listener, OPTIONS)
    command = [sys.executable, "-c", FLOOD, str(listener.address.port)]
    with closing(near), closing(far), running(command, stdout=subprocess.PIPE) as flood:
        assert flood.stdout is not None
        flood.stdout.readline()
        transfer(near, far, [os.urandom(1_000_000)], [b"end"])
        Background(listener.close).outcome()
