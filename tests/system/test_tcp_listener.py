"""The TCP listener and clients that are slow, silent, many, of another version, or not nettool at all."""

import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.support.background import PATIENCE_S
from toolkit.channel import Address, Channel, TransportOptions
from toolkit.errors import PeerClosedError, ProtocolError, UnreachableError
from toolkit.transports.tcp import wire
from toolkit.transports.tcp.connect import TcpTransport
from toolkit.transports.tcp.listener import MAX_HANDSHAKES, TcpListener

LOOPBACK = Address("127.0.0.1", 0)
NO_TIMEOUT = TransportOptions(connect_timeout_s=4 * PATIENCE_S)
"""Handshakes that no timeout ends while a test waits: what happens then has another cause."""
SHORT_TIMEOUT = TransportOptions(connect_timeout_s=2.0)
HELLO = wire.encode_hello(wire.Hello(wire.NO_TOKEN, 1, 0, b""))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Served:
    """A listener with a thread in `accept`, and the channels that it has accepted."""

    def __init__(self, options: TransportOptions) -> None:
        self.listener = TcpTransport().listen(LOOPBACK, options)
        self.channels: list[Channel] = []
        self.arrived = threading.Condition()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(PeerClosedError):
            while True:
                channel = self.listener.accept()
                assert channel is not None
                with self.arrived:
                    self.channels.append(channel)
                    self.arrived.notify_all()

    def connect(self, **options: Any) -> Channel:
        options = {"connect_timeout_s": PATIENCE_S} | options
        return TcpTransport().connect(self.listener.address, TransportOptions(**options))

    def client(self) -> socket.socket:
        sock = socket.create_connection(self.listener.address)
        sock.settimeout(PATIENCE_S)
        return sock

    def await_channels(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.channels) >= count, PATIENCE_S)

    def check(self) -> None:
        """Check that the listener still accepts sessions."""
        count = len(self.channels)
        channel = self.connect()
        self.await_channels(count + 1)
        channel.send_message(b"still there?")
        assert self.channels[count].receive(timeout_s=PATIENCE_S) == b"still there?"
        channel.close()

    def close(self) -> None:
        self.listener.close()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        for channel in self.channels:
            channel.abort()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served(NO_TIMEOUT)
    yield made
    made.close()


@pytest.fixture
def served_briefly() -> Iterator[Served]:
    """A listener that drops a handshake after two seconds."""
    made = Served(SHORT_TIMEOUT)
    yield made
    made.close()


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(1000),
    b"\x8eNETTOOL\x00\x01\x02\x00\x00\x00",
    b"\x8eNETTOOL\x00\x01\x01\x00\xff\xff",
    HELLO[: wire.PREFACE_BYTES - 1] + b"\x00",
    b"\x8eNETTOOL\x00\x01\x01\x00\x00\x05hello",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_dropped_at_once(served: Served, garbage: bytes) -> None:
    with served.client() as client:
        client.sendall(garbage)
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
    served.check()
    assert len(served.channels) == 1


def test_silent_and_slow_clients_delay_nobody(served: Served) -> None:
    with ExitStack() as clients:
        for _ in range(20):
            clients.enter_context(served.client())
            clients.enter_context(served.client()).send(HELLO[:5])
        served.check()
    assert len(served.channels) == 1


def test_silent_and_slow_clients_are_dropped(served_briefly: Served) -> None:
    with served_briefly.client() as silent, served_briefly.client() as slow:
        slow.send(HELLO[:5])
        for client in (silent, slow):
            with suppress(ConnectionResetError):
                assert client.recv(100) == b""
    assert not served_briefly.channels


def test_a_hello_may_arrive_byte_by_byte(served: Served) -> None:
    with served.client() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(HELLO)):
            client.send(HELLO[number : number + 1])
            if number == len(HELLO) // 2:
                served.check()
        answer = client.recv(100)
        assert wire.decode_preface_untrusted(answer) == (wire.VERSION, wire.PrefaceType.WELCOME, 18)
        token = wire.decode_welcome_untrusted(answer[wire.PREFACE_BYTES :]).token
        assert token != wire.NO_TOKEN
        served.await_channels(2)


def test_the_oldest_handshake_makes_room_for_a_new_one(served: Served) -> None:
    extra = 12
    with ExitStack() as stack:
        silent = [stack.enter_context(served.client()) for _ in range(MAX_HANDSHAKES + extra)]
        served.check()
        for client in silent[:extra]:
            assert client.recv(100) == b""


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_another_version_is_refused_with_this_version(served: Served, version: int) -> None:
    with served.client() as client:
        client.sendall(b"\x8eNETTOOL" + version.to_bytes(2, "big") + b"\x01\x00\x00\x07unknown")
        data = client.recv(100)
        assert wire.decode_preface_untrusted(data) == (wire.VERSION, wire.PrefaceType.REFUSED_VERSION, 0)
        assert client.recv(100) == b""
    served.check()


@pytest.mark.parametrize(
    ("hello", "refusal"),
    [
        (wire.Hello(wire.NO_TOKEN, 0, 0, b""), wire.PrefaceType.REFUSED_STREAMS),
        (wire.Hello(wire.NO_TOKEN, TransportOptions().max_streams + 1, 0, b""), wire.PrefaceType.REFUSED_STREAMS),
        (wire.Hello(wire.NO_TOKEN, 2, 1, b""), wire.PrefaceType.REFUSED_STREAMS),
        (wire.Hello(b"a guessed token!", 2, 1, b""), wire.PrefaceType.REFUSED_SESSION),
        (wire.Hello(wire.NO_TOKEN, 1, 0, b"key"), wire.PrefaceType.REFUSED_SECURITY),
    ],
)
def test_an_impossible_hello_is_refused(served: Served, hello: wire.Hello, refusal: wire.PrefaceType) -> None:
    with served.client() as client:
        client.sendall(wire.encode_hello(hello))
        assert wire.decode_preface_untrusted(client.recv(100)) == (wire.VERSION, refusal, 0)
        assert client.recv(100) == b""
    served.check()


def begin_session(client: socket.socket, streams: int) -> bytes:
    client.sendall(wire.encode_hello(wire.Hello(wire.NO_TOKEN, streams, 0, b"")))
    return wire.decode_welcome_untrusted(client.recv(100)[wire.PREFACE_BYTES :]).token


def test_a_session_waits_for_its_connections_until_the_timeout(served_briefly: Served) -> None:
    with served_briefly.client() as first, served_briefly.client() as second:
        token = begin_session(first, 3)
        second.sendall(wire.encode_hello(wire.Hello(token, 3, 2, b"")))
        assert wire.decode_preface_untrusted(second.recv(100)) == (wire.VERSION, wire.PrefaceType.WELCOME, 18)
        served_briefly.check()
        assert first.recv(100) == b""
        assert second.recv(100) == b""
    assert len(served_briefly.channels) == 1


@pytest.mark.parametrize(("streams", "stream"), [(2, 1), (3, 0), (3, 1)])
def test_each_stream_of_a_session_is_accepted_once(served: Served, streams: int, stream: int) -> None:
    with served.client() as first, served.client() as second, served.client() as third:
        token = begin_session(first, 3)
        second.sendall(wire.encode_hello(wire.Hello(token, 3, 1, b"")))
        assert wire.decode_preface_untrusted(second.recv(100)) == (wire.VERSION, wire.PrefaceType.WELCOME, 18)
        third.sendall(wire.encode_hello(wire.Hello(token, streams, stream, b"")))
        assert wire.decode_preface_untrusted(third.recv(100)) == (wire.VERSION, wire.PrefaceType.REFUSED_SESSION, 0)


def test_sessions_of_several_connections_do_not_mix(served: Served) -> None:
    channels = [served.connect(streams=3) for _ in range(4)]
    served.await_channels(4)
    for number, channel in enumerate(channels):
        channel.send_message(b"%d" % number)
    heard = {served.channels[number].receive(timeout_s=PATIENCE_S) for number in range(4)}
    assert heard == {b"0", b"1", b"2", b"3"}
    for channel in channels:
        assert channel.statistics()["streams"] == 3
        channel.abort()


def test_garbage_in_a_session_ends_that_session_only(served: Served) -> None:
    with served.client() as client:
        client.sendall(HELLO)
        assert client.recv(100)
        served.await_channels(1)
        client.sendall(b"\xff" * 100)
        for _ in range(2):
            with pytest.raises(ProtocolError, match="unknown frame type 0xff"):
                served.channels[0].receive(timeout_s=PATIENCE_S)
        served.channels[0].close()
    served.check()


def test_clients_leave_no_descriptors(served: Served) -> None:
    served.check()
    served.channels.pop().abort()
    before = descriptors()
    for number in range(200):
        channel = served.connect(streams=1 + number % 3)
        served.await_channels(1)
        accepted = served.channels.pop()
        if number % 2:
            channel.send_message(b"end")
            channel.close()
            accepted.close()
        else:
            accepted.abort()
            channel.abort()
    for garbage in GARBAGE * 10:
        with served.client() as client:
            client.sendall(garbage)
            with suppress(ConnectionResetError):
                client.recv(100)
    assert not served.channels
    assert descriptors() == before


def test_dropped_handshakes_leave_no_descriptors(served_briefly: Served) -> None:
    before = descriptors()
    with served_briefly.client() as silent, served_briefly.client() as incomplete:
        begin_session(incomplete, 2)
        assert silent.recv(100) == incomplete.recv(100) == b""
    assert not served_briefly.channels
    assert descriptors() == before


def test_a_listener_leaves_no_descriptors() -> None:
    before = descriptors()
    for _ in range(20):
        listener = TcpTransport().listen(LOOPBACK, NO_TIMEOUT)
        clients = [socket.create_connection(listener.address) for _ in range(3)]
        clients[0].sendall(HELLO)
        clients[1].sendall(wire.encode_hello(wire.Hello(wire.NO_TOKEN, 2, 0, b"")))
        channel = listener.accept(PATIENCE_S)
        assert channel is not None
        assert listener.accept(0) is None
        listener.close()
        listener.close()
        channel.abort()
        for client in clients:
            client.close()
    assert descriptors() == before


def test_a_shortage_of_descriptors_neither_spins_nor_ends_the_listener() -> None:
    listener = TcpTransport().listen(LOOPBACK, NO_TIMEOUT)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(listener.address) as client:
        client.sendall(HELLO)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
        try:
            fillers = []
            with suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            busy_s = time.process_time()
            assert listener.accept(1.0) is None
            assert time.process_time() - busy_s < 0.5  # CPU time: a loop that spins takes all of the second
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        channel = listener.accept(PATIENCE_S)
        assert channel is not None
        channel.abort()
    listener.close()


def test_a_client_that_resets_before_accept_is_no_error(served: Served) -> None:
    for _ in range(20):
        client = served.client()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(HELLO)
        client.close()
    served.check()


def test_the_port_is_free_as_soon_as_it_is_closed() -> None:
    first = TcpTransport().listen(LOOPBACK, TransportOptions())
    with pytest.raises(UnreachableError, match=rf"TCP port {first.address.port} is in use by another program"):
        TcpTransport().listen(first.address, TransportOptions())
    first.close()
    second = TcpTransport().listen(first.address, TransportOptions())
    second.close()
    with pytest.raises(PeerClosedError):
        second.accept(0)


def test_a_foreign_address_is_one_line() -> None:
    with pytest.raises(
        UnreachableError, match=r"192\.0\.2\.1 is not an address of this machine; choose one with --bind"
    ):
        TcpTransport().listen(Address("192.0.2.1", 0), TransportOptions())


def test_a_port_that_needs_root_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprivileged(socket.socket):
        def bind(self, _: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", Unprivileged)
    with pytest.raises(UnreachableError, match="TCP port 80 needs root privileges; choose one above 1023"):
        TcpTransport().listen(Address("127.0.0.1", 80), TransportOptions())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_empty_host_accepts_both_families(host: str) -> None:
    listener: TcpListener = TcpTransport().listen(Address("", 0), TransportOptions())
    peers: list[Address] = []

    def accept() -> None:
        channel = listener.accept(PATIENCE_S)
        assert channel is not None
        peers.append(channel.peer)
        channel.close()

    thread = threading.Thread(target=accept)
    thread.start()
    channel = TcpTransport().connect(Address(host, listener.address.port), TransportOptions())
    channel.close()
    thread.join(PATIENCE_S)
    listener.close()
    assert [peer.host for peer in peers] == [host]
