"""The listening side against clients that are slow, silent, many, of another version, or no nettool at all."""

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

from toolkit.channel import Address, Channel, TransportOptions
from toolkit.errors import PeerClosedError, ProtocolError, RefusedError, UnreachableError
from toolkit.transports.tcp import listener as listener_module
from toolkit.transports.tcp import transport, wire
from toolkit.transports.tcp.listener import TcpListener
from toolkit.transports.tcp.transport import TcpTransport

LOOPBACK = Address("127.0.0.1", 0)
PATIENCE_S = 20.0
HELLO = wire.encode_hello(wire.Hello(wire.NO_TOKEN, 1, 0, b""))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Served:
    """A listener with a thread in `accept`, and the channels that came out of it."""

    def __init__(self, **options: Any) -> None:
        self.listener = TcpTransport().listen(LOOPBACK, TransportOptions(**options))
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
        return TcpTransport().connect(self.listener.address, TransportOptions(**options))

    def client(self) -> socket.socket:
        sock = socket.create_connection(self.listener.address)
        sock.settimeout(PATIENCE_S)
        return sock

    def await_channels(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.channels) >= count, PATIENCE_S)

    def check(self) -> None:
        """Sessions come about, and quickly."""
        count = len(self.channels)
        begun = time.monotonic()
        channel = self.connect()
        self.await_channels(count + 1)
        assert time.monotonic() - begun < 2
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
    made = Served(connect_timeout_s=1.0)
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
        begun = time.monotonic()
        client.sendall(garbage)
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
        assert time.monotonic() - begun < 0.9, "before the handshake's time was up"
    served.check()
    assert len(served.channels) == 1


def test_silent_and_slow_clients_hold_up_nobody(served: Served) -> None:
    with ExitStack() as clients:
        silent = [clients.enter_context(served.client()) for _ in range(20)]
        slow = [clients.enter_context(served.client()) for _ in range(20)]
        for client in slow:
            client.send(HELLO[:5])
        served.check()
        begun = time.monotonic()
        for client in silent + slow:
            with suppress(ConnectionResetError):
                assert client.recv(100) == b""
        assert time.monotonic() - begun < 5
    assert len(served.channels) == 1


def test_a_greeting_may_come_byte_by_byte(served: Served) -> None:
    with served.client() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(len(HELLO)):
            client.send(HELLO[number : number + 1])
            if number == len(HELLO) // 2:
                served.check()
        answer = client.recv(100)
        assert wire.decode_preface_untrusted(answer) == (wire.VERSION, wire.Kind.WELCOME, 18)
        token = wire.decode_welcome_untrusted(answer[wire.PREFACE_BYTES :]).token
        assert token != wire.NO_TOKEN
        served.await_channels(2)


def test_too_many_handshakes_make_room_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "_MAX_HANDSHAKES", 8)
    served = Served(connect_timeout_s=PATIENCE_S)
    try:
        with ExitStack() as clients:
            silent = [clients.enter_context(served.client()) for _ in range(20)]
            served.check()
            for client in silent[:12]:
                assert client.recv(100) == b"", "the oldest are given up"
    finally:
        served.close()


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_another_version_is_told_ours(served: Served, version: int) -> None:
    with served.client() as client:
        client.sendall(b"\x8eNETTOOL" + version.to_bytes(2, "big") + b"\x01\x00\x00\x07unknown")
        data = client.recv(100)
        assert wire.decode_preface_untrusted(data) == (wire.VERSION, wire.Kind.REFUSED_VERSION, 0)
        assert client.recv(100) == b""
    served.check()


def test_a_client_of_another_version_is_refused_in_one_line(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = wire.encode_hello

    def of_the_future(hello: wire.Hello) -> bytes:
        data = bytearray(encode(hello))
        data[8:10] = (2).to_bytes(2, "big")
        return bytes(data)

    monkeypatch.setattr(transport, "encode_hello", of_the_future)
    with pytest.raises(RefusedError, match="speaks version 1 of nettool's TCP protocol"):
        served.connect()


@pytest.mark.parametrize(
    ("hello", "kind"),
    [
        (wire.Hello(wire.NO_TOKEN, 0, 0, b""), wire.Kind.REFUSED_STREAMS),
        (wire.Hello(wire.NO_TOKEN, wire.MAX_STREAMS + 1, 0, b""), wire.Kind.REFUSED_STREAMS),
        (wire.Hello(wire.NO_TOKEN, 2, 1, b""), wire.Kind.REFUSED_STREAMS),
        (wire.Hello(b"a guessed token!", 2, 1, b""), wire.Kind.REFUSED_SESSION),
        (wire.Hello(wire.NO_TOKEN, 1, 0, b"key"), wire.Kind.REFUSED_SECURITY),
    ],
)
def test_what_cannot_be_granted_is_refused(served: Served, hello: wire.Hello, kind: wire.Kind) -> None:
    with served.client() as client:
        client.sendall(wire.encode_hello(hello))
        assert wire.decode_preface_untrusted(client.recv(100)) == (wire.VERSION, kind, 0)
        assert client.recv(100) == b""
    served.check()


def begin_gathering(client: socket.socket, streams: int) -> bytes:
    client.sendall(wire.encode_hello(wire.Hello(wire.NO_TOKEN, streams, 0, b"")))
    return wire.decode_welcome_untrusted(client.recv(100)[wire.PREFACE_BYTES :]).token


def test_a_session_waits_for_all_its_connections_but_not_for_ever(served: Served) -> None:
    with served.client() as first, served.client() as second:
        token = begin_gathering(first, 3)
        second.sendall(wire.encode_hello(wire.Hello(token, 3, 2, b"")))
        assert wire.decode_preface_untrusted(second.recv(100)) == (wire.VERSION, wire.Kind.WELCOME, 18)
        served.check()
        assert first.recv(100) == b""
        assert second.recv(100) == b""
    assert len(served.channels) == 1


@pytest.mark.parametrize(("streams", "stream"), [(2, 1), (3, 0), (3, 1)])
def test_a_place_in_a_session_is_taken_once(served: Served, streams: int, stream: int) -> None:
    with served.client() as first, served.client() as second, served.client() as third:
        token = begin_gathering(first, 3)
        second.sendall(wire.encode_hello(wire.Hello(token, 3, 1, b"")))
        assert wire.decode_preface_untrusted(second.recv(100)) == (wire.VERSION, wire.Kind.WELCOME, 18)
        third.sendall(wire.encode_hello(wire.Hello(token, streams, stream, b"")))
        assert wire.decode_preface_untrusted(third.recv(100)) == (wire.VERSION, wire.Kind.REFUSED_SESSION, 0)


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
            with pytest.raises(ProtocolError, match="unknown kind"):
                served.channels[0].receive(timeout_s=PATIENCE_S)
        served.channels[0].close()
    served.check()


def test_no_descriptors_are_left_of_any_client() -> None:
    served = Served(connect_timeout_s=0.2)
    try:
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
        with served.client() as silent, served.client() as alone:
            begin_gathering(alone, 2)
            assert silent.recv(100) == alone.recv(100) == b""
        assert not served.channels
        assert descriptors() == before
    finally:
        served.close()


def test_no_descriptors_are_left_of_a_listener() -> None:
    before = descriptors()
    for _ in range(20):
        listener = TcpTransport().listen(LOOPBACK, TransportOptions())
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


def test_without_descriptors_it_neither_spins_nor_dies() -> None:
    listener = TcpTransport().listen(LOOPBACK, TransportOptions())
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
            assert listener.accept(0.5) is None
            assert time.process_time() - busy_s < 0.2
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        channel = listener.accept(PATIENCE_S)
        assert channel is not None
        channel.abort()
    listener.close()


def test_a_client_that_is_gone_before_accept_is_no_error(served: Served) -> None:
    for _ in range(20):
        client = served.client()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(HELLO)
        client.close()
    served.check()


def test_the_port_is_free_as_soon_as_it_is_closed() -> None:
    first = TcpTransport().listen(LOOPBACK, TransportOptions())
    with pytest.raises(UnreachableError, match=rf"TCP port {first.address.port} is taken by another program"):
        TcpTransport().listen(first.address, TransportOptions())
    first.close()
    second = TcpTransport().listen(first.address, TransportOptions())
    second.close()
    with pytest.raises(PeerClosedError):
        second.accept(0)


def test_addresses_that_cannot_be_listened_on_are_one_line() -> None:
    with pytest.raises(UnreachableError, match=r"192\.0\.2\.1 is no address of this machine; choose one with --bind"):
        TcpTransport().listen(Address("192.0.2.1", 0), TransportOptions())


def test_a_port_that_needs_root_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprivileged(socket.socket):
        def bind(self, _: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", Unprivileged)
    with pytest.raises(UnreachableError, match="TCP port 80 needs the rights of root; choose one above 1023"):
        TcpTransport().listen(Address("127.0.0.1", 80), TransportOptions())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_empty_host_is_reached_by_both_families(host: str) -> None:
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
