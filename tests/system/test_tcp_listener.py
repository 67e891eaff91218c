"""The TCP listener and clients that are slow, silent, many, of another version, or not nettool at all."""

import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, NoReturn

import pytest

from tests.support.background import PATIENCE_S, Background, together, wait_until
from tests.support.tcp_peers import begin, hello, hello_with, join, receive_preface, refusal_reason, shake_hands
from toolkit.channel import Address, Channel, TransportOptions
from toolkit.errors import PeerClosedError, ProtocolError, RefusedError, UnreachableError
from toolkit.security.handshake import Responder
from toolkit.security.opened_handshake import OpenedHandshake
from toolkit.transports.tcp import wire
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.connect import TcpTransport
from toolkit.transports.tcp.listener import MAX_HANDSHAKES, TcpListener

LOOPBACK = Address("127.0.0.1", 0)
NO_TIMEOUT = TransportOptions(connect_timeout_s=4 * PATIENCE_S, plaintext=True)
"""Handshakes that no timeout ends while a test waits: what happens then has another cause."""
SHORT_TIMEOUT = TransportOptions(connect_timeout_s=2.0, plaintext=True)
HELLO = hello()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def reset(sock: socket.socket) -> None:
    """Close a connection by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


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

    def client(self, host: str = "") -> socket.socket:
        """A socket that is connected to the listener, from this address of the loopback network."""
        sock = socket.create_connection(self.listener.address, source_address=(host, 0) if host else None)
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
    b"\x8eNETTOOL\x00\x02\x02\x00\x00\x00",
    b"\x8eNETTOOL\x00\x02\x01\x00\xff\xff",
    HELLO[: wire.PREFACE_BYTES - 2] + b"\x00\x00",
    b"\x8eNETTOOL\x00\x02\x01\x00\x00\x05hello",
    wire.encode_security(wire.PrefaceType.FINISH, b"too early"),
    wire.encode_joined(),
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
        assert receive_preface(client)[0].preface_type == wire.PrefaceType.WELCOME


def test_a_finish_may_arrive_byte_by_byte_with_frames_behind_it(served: Served) -> None:
    with served.client() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        finish = begin(client)[1] + wire.encode_message_header(2) + b"hi"
        for number in range(0, len(finish), 7):
            client.send(finish[number : number + 7])
        served.await_channels(1)
        assert served.channels[0].receive(timeout_s=PATIENCE_S) == b"hi"


def test_a_finish_that_does_not_open_begins_no_session(served: Served) -> None:
    with served.client() as client:
        finish = bytearray(begin(client)[1])
        finish[-1] ^= 1
        client.sendall(finish)
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
    served.check()
    assert len(served.channels) == 1


def test_the_oldest_handshake_makes_room_for_a_new_one(served: Served) -> None:
    extra = 12
    with ExitStack() as stack:
        silent = [stack.enter_context(served.client()) for _ in range(MAX_HANDSHAKES + extra)]
        served.check()
        for client in silent[:extra]:
            assert client.recv(100) == b""


def test_one_host_with_many_handshakes_ends_no_handshake_of_another(served: Served) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(served.client("127.0.0.9"))
        first.sendall(HELLO[:5])
        silent = [stack.enter_context(served.client()) for _ in range(MAX_HANDSHAKES + 12)]
        served.check()
        assert silent[0].recv(100) == b""
        first.sendall(HELLO[5:])
        assert receive_preface(first)[0].preface_type == wire.PrefaceType.WELCOME


@pytest.mark.parametrize("version", [0, 1, 3, 65535])
@pytest.mark.parametrize("body_bytes", [7, 1 << 12])
def test_another_version_is_refused_with_this_version(served: Served, version: int, body_bytes: int) -> None:
    """Its body may be longer than any of this version."""
    with served.client() as client:
        client.sendall(b"\x8eNETTOOL" + version.to_bytes(2, "big") + b"\x01\x00" + body_bytes.to_bytes(2, "big"))
        client.sendall(b"x" * body_bytes)
        assert receive_preface(client)[0] == (wire.VERSION, wire.PrefaceType.REFUSED_VERSION, 0)
        assert client.recv(100) == b""
    served.check()


def test_a_hello_of_this_version_without_a_common_version_is_refused(served: Served) -> None:
    with served.client() as client:
        clear = wire.hello_parameters(1, (27, b""))
        clear[wire.PrefaceParameter.VERSIONS] = bytes(3) + b"\x07"
        client.sendall(hello_with(clear))
        assert receive_preface(client)[0].preface_type == wire.PrefaceType.REFUSED_VERSION


@pytest.mark.parametrize("streams", [0, TransportOptions().max_streams + 1])
def test_an_impossible_number_of_connections_is_refused(served: Served, streams: int) -> None:
    with served.client() as client:
        client.sendall(hello_with(wire.hello_parameters(streams, (27, b""))))
        assert refusal_reason(client) == wire.PrefaceRefusal.STREAMS
        assert client.recv(100) == b""
    served.check()


def test_what_was_said_in_the_clear_cannot_be_altered_on_the_way(served: Served) -> None:
    with served.client() as client:
        client.sendall(hello_with(wire.hello_parameters(5, (27, b"another GREASE"))))
        assert refusal_reason(client) == wire.PrefaceRefusal.SECURITY
    served.check()


def test_one_host_begins_no_more_key_exchanges_than_the_limit(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.security.host_rates.KEY_EXCHANGE_BURST", 3)
    monkeypatch.setattr("toolkit.security.host_rates.KEY_EXCHANGES_PER_SECOND", 0)
    for _ in range(3):
        with served.client("127.0.0.9") as client:
            begin(client)
    with served.client("127.0.0.9") as client:
        client.sendall(HELLO)
        assert refusal_reason(client) == wire.PrefaceRefusal.BUSY
    served.check()


def test_a_third_hello_is_not_answered(served: Served) -> None:
    with served.client() as client:
        begin(client)
        client.sendall(HELLO)
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
    served.check()


STREAMS = TransportOptions(streams=3, plaintext=True)


def test_a_session_waits_for_its_connections_until_the_timeout(served_briefly: Served) -> None:
    with served_briefly.client() as first, served_briefly.client() as second:
        session = shake_hands(first, STREAMS)
        assert join(second, session, 2) == wire.PrefaceType.JOINED
        served_briefly.check()
        assert first.recv(100) == b""
        assert second.recv(100) == b""
    assert len(served_briefly.channels) == 1


@pytest.mark.parametrize("number", [0, 1, 3])
def test_each_stream_of_a_session_is_accepted_once(served: Served, number: int) -> None:
    with served.client() as first, served.client() as second, served.client() as third:
        session = shake_hands(first, STREAMS)
        assert join(second, session, 1) == wire.PrefaceType.JOINED
        third.sendall(wire.encode_join(session.join(number)))
        assert refusal_reason(third) == wire.PrefaceRefusal.SESSION


def test_a_token_alone_takes_no_slot_and_ends_no_session(served: Served) -> None:
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(served.client()) for _ in range(3))
        session = shake_hands(first, STREAMS)
        genuine = session.join(1)
        forgeries = [
            genuine._replace(mac=bytes(wire.MAC_BYTES)),
            genuine._replace(number=2),
            genuine._replace(token=b"a guessed token!"),
        ]
        for forged in forgeries:
            with served.client() as thief:
                thief.sendall(wire.encode_join(forged))
                assert refusal_reason(thief) == wire.PrefaceRefusal.SESSION
        assert join(second, session, 1) == wire.PrefaceType.JOINED
        assert join(third, session, 2) == wire.PrefaceType.JOINED
        served.await_channels(1)


@pytest.mark.parametrize("is_forged", [False, True])
def test_a_join_that_overtakes_the_finish_waits_for_it(served: Served, is_forged: bool) -> None:
    with served.client() as first, served.client() as second:
        session, finish = begin(first, TransportOptions(streams=2, plaintext=True))
        request = session.join(1)
        second.sendall(wire.encode_join(request._replace(mac=bytes(32)) if is_forged else request))
        served.check()
        first.sendall(finish)
        if is_forged:
            assert refusal_reason(second) == wire.PrefaceRefusal.SESSION
        else:
            assert receive_preface(second)[0].preface_type == wire.PrefaceType.JOINED
            served.await_channels(2)


def test_a_join_that_is_reset_while_it_waits_takes_no_slot_and_ends_nothing_else(served: Served) -> None:
    with served.client() as first, served.client() as third:
        session, finish = begin(first, TransportOptions(streams=2, plaintext=True))
        second = served.client()
        second.sendall(wire.encode_join(session.join(1)))
        served.check()  # until the listener has read it
        reset(second)
        first.sendall(finish)
        served.check()
        assert join(third, session, 1) == wire.PrefaceType.JOINED
        served.await_channels(3)


def test_a_join_that_waits_for_a_lost_session_is_dropped(served: Served) -> None:
    with served.client() as second:
        with served.client() as first:
            session, _ = begin(first, TransportOptions(streams=2, plaintext=True))
            second.sendall(wire.encode_join(session.join(1)))
            served.check()
        assert second.recv(100) == b""
    served.check()


def test_sessions_that_never_complete_make_room_for_those_of_other_hosts(served: Served) -> None:
    with ExitStack() as stack:
        first, second = stack.enter_context(served.client("127.0.0.9")), stack.enter_context(served.client("127.0.0.9"))
        session = shake_hands(first, TransportOptions(streams=2, plaintext=True))
        for _ in range(40):
            shake_hands(stack.enter_context(served.client()), STREAMS)
        assert join(second, session, 1) == wire.PrefaceType.JOINED
        served.await_channels(1)


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
        shake_hands(client)
        served.await_channels(1)
        client.sendall(b"\xff" * 100)
        for _ in range(2):
            with pytest.raises(ProtocolError, match="unknown frame type 0xff"):
                served.channels[0].receive(timeout_s=PATIENCE_S)
        served.channels[0].close()
    served.check()


@pytest.mark.parametrize(
    "place", [(Responder, "open_untrusted"), (OpenedHandshake, "finish_untrusted"), (TcpChannel, "__init__")]
)
@pytest.mark.parametrize("streams", [1, 2])
def test_a_bug_costs_one_handshake_and_no_session(
    place: tuple[type, str],
    streams: int,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("surprise")

    channel = served.connect()
    served.await_channels(1)
    before = descriptors()
    with monkeypatch.context() as failing:
        failing.setattr(*place, fail)
        for _ in range(2):
            with suppress(UnreachableError, RefusedError, RuntimeError):
                served.connect(streams=streams).abort()
        wait_until(lambda: descriptors() == before, "the end of the handshakes")
    channel.send_message(b"still there?")
    assert served.channels[0].receive(timeout_s=PATIENCE_S) == b"still there?"
    channel.abort()
    served.check()
    assert len({record.getMessage() for record in caplog.records}) == len(caplog.records) == 1


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
            together(channel.close, accepted.close)  # one alone would wait until it knows that the peer is quiet
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
        shake_hands(incomplete, STREAMS)
        assert silent.recv(100) == incomplete.recv(100) == b""
    assert not served_briefly.channels
    assert descriptors() == before


def test_a_listener_leaves_no_descriptors() -> None:
    before = descriptors()
    for _ in range(20):
        listener = TcpTransport().listen(LOOPBACK, NO_TIMEOUT)
        clients = [socket.create_connection(listener.address) for _ in range(3)]
        shaking = [
            Background(partial(shake_hands, clients[0])),
            Background(partial(shake_hands, clients[1], STREAMS)),
        ]
        channel = listener.accept(PATIENCE_S)
        assert channel is not None
        while any(call.is_alive() for call in shaking):
            assert listener.accept(0.01) is None
        listener.close()
        listener.close()
        channel.abort()
        for client in clients:
            client.close()
    assert descriptors() == before


def test_a_shortage_of_descriptors_refuses_that_connection_and_no_other() -> None:
    listener = TcpTransport().listen(LOOPBACK, NO_TIMEOUT)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(listener.address) as earlier, socket.socket() as later:
        assert listener.accept(0) is None
        later.settimeout(PATIENCE_S)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        try:
            fillers = []
            with suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            later.connect(listener.address)
            busy_s = time.process_time()
            assert listener.accept(1.0) is None
            assert time.process_time() - busy_s < 0.5  # CPU time: a loop that spins takes all of the second
            assert refusal_reason(later) == wire.PrefaceRefusal.BUSY
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        shaking = Background(lambda: shake_hands(earlier))
        channel = listener.accept(PATIENCE_S)
        shaking.outcome()
        assert channel is not None
        channel.abort()
    listener.close()


def test_a_client_that_resets_before_accept_is_no_error(served: Served) -> None:
    for _ in range(20):
        client = served.client()
        client.sendall(HELLO)
        reset(client)
    served.check()


def test_the_port_is_free_as_soon_as_it_is_closed() -> None:
    first = TcpTransport().listen(LOOPBACK, TransportOptions())
    with pytest.raises(
        UnreachableError, match=rf"TCP port {first.address.port} is in use by .* .process {os.getpid()}.; choose"
    ):
        TcpTransport().listen(first.address, TransportOptions())
    first.close()
    second = TcpTransport().listen(first.address, TransportOptions())
    second.close()
    with pytest.raises(PeerClosedError):
        second.accept(0)


def test_a_foreign_address_is_one_line() -> None:
    with pytest.raises(
        UnreachableError, match=r"192\.0\.2\.1 is not an address of this machine; choose one with `bind`"
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
