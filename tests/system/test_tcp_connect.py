"""Connecting over real sockets: addresses that answer, refuse or stay silent (RFC 8305), and strange answers."""

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.support.background import PATIENCE_S, Background
from toolkit.channel import Address, TransportOptions
from toolkit.errors import RefusedError, UnreachableError, UsageError
from toolkit.parameters import encode_parameters
from toolkit.security.messages import Refusal, SecurityField
from toolkit.transports.addresses import CONNECTION_ATTEMPT_DELAY_S, SocketAddress, connect_first
from toolkit.transports.tcp import wire
from toolkit.transports.tcp.connect import TcpAttempt, TcpTransport
from toolkit.transports.tcp.wire import PREFACE_BYTES, PrefaceRefusal, PrefaceType

OPTIONS = TransportOptions(connect_timeout_s=1.0)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def name_of(sock: socket.socket) -> SocketAddress:
    return socket.AF_INET, sock.getsockname()[:2]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def closed_port() -> SocketAddress:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return name_of(sock)


@pytest.fixture
def silent() -> Iterator[SocketAddress]:
    """An address that never answers: its accept queue is full, so the kernel drops further SYNs."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield name_of(server)
        for filler in fillers:
            filler.close()


class Attempts:
    """Connects to candidates, and records the time of each attempt."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def begin(self, candidate: SocketAddress) -> TcpAttempt:
        self.times_s.append(time.monotonic())
        return TcpAttempt(candidate, OPTIONS)

    def peer_of_first(self, *candidates: SocketAddress, timeout_s: float = PATIENCE_S) -> tuple[str, int]:
        attempt = connect_first(candidates, self.begin, time.monotonic() + timeout_s)
        with attempt.socket as sock:
            peer: tuple[str, int] = sock.getpeername()
            return peer


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


class TestAttempts:
    def test_the_first_that_answers_wins(self, attempts: Attempts, server: socket.socket) -> None:
        before = descriptors()
        assert attempts.peer_of_first(name_of(server)) == server.getsockname()
        assert descriptors() == before

    def test_a_refusal_starts_the_next_attempt_at_once(
        self, attempts: Attempts, server: socket.socket, closed_port: SocketAddress
    ) -> None:
        """With many refusals, so that the delay between attempts would exceed the deadline."""
        count = int(PATIENCE_S / CONNECTION_ATTEMPT_DELAY_S)
        assert attempts.peer_of_first(*[closed_port] * count, name_of(server)) == server.getsockname()
        assert len(attempts.times_s) == count + 1

    def test_a_silent_address_delays_the_next_attempt(
        self, attempts: Attempts, server: socket.socket, silent: SocketAddress
    ) -> None:
        before = descriptors()
        assert attempts.peer_of_first(silent, name_of(server)) == server.getsockname()
        first_s, second_s = attempts.times_s
        assert second_s - first_s >= CONNECTION_ATTEMPT_DELAY_S
        assert descriptors() == before

    def test_silence_is_a_timeout_at_the_deadline(self, attempts: Attempts, silent: SocketAddress) -> None:
        before = descriptors()
        begin_s = time.monotonic()
        with pytest.raises(TimeoutError):
            attempts.peer_of_first(silent, silent, timeout_s=0.5)
        assert time.monotonic() - begin_s >= 0.5
        assert descriptors() == before

    def test_a_refusal_is_reported_before_other_failures(self, attempts: Attempts, closed_port: SocketAddress) -> None:
        unroutable = (socket.AF_INET, ("255.255.255.255", 9))
        with pytest.raises(ConnectionRefusedError):
            attempts.peer_of_first(unroutable, closed_port, unroutable)

    def test_an_exception_in_between_leaves_no_descriptors(self, silent: SocketAddress) -> None:
        before = descriptors()
        calls = 0

        def fail_second(candidate: SocketAddress) -> TcpAttempt:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise UsageError("not like this")
            return TcpAttempt(candidate, OPTIONS)

        with pytest.raises(UsageError):
            connect_first([silent, silent], fail_second, time.monotonic() + PATIENCE_S)
        assert descriptors() == before


def connect_to(*candidates: SocketAddress, options: TransportOptions = OPTIONS) -> None:
    """Connect to a host whose name resolves to these candidates."""
    port = candidates[0][1][1]
    TcpTransport(lambda *_: list(candidates)).connect(Address("host.example", port), options)


class TestErrors:
    def test_a_closed_port_is_one_line_that_says_what_to_do(self, closed_port: SocketAddress) -> None:
        line = (
            r"^nothing listens at host\.example:\d+ for TCP: .* does not run there, has another port, or listens for "
        )
        with pytest.raises(UnreachableError, match=line):
            connect_to(closed_port)

    def test_on_this_machine_there_is_one_reason_only(self, closed_port: SocketAddress) -> None:
        with pytest.raises(UnreachableError, match=r"for TCP; start `nettool recv` on this machine$"):
            TcpTransport().connect(Address("127.0.0.1", closed_port[1][1]), OPTIONS)

    def test_silence_is_one_line(self, silent: SocketAddress) -> None:
        with pytest.raises(UnreachableError, match=r"^host\.example:\d+ does not answer over TCP; check the address"):
            connect_to(silent)

    def test_an_address_without_a_route_is_one_line(self) -> None:
        line = r"^host\.example:9 cannot be reached over TCP \(.*\); check the address"
        with pytest.raises(UnreachableError, match=line):
            connect_to((socket.AF_INET, ("255.255.255.255", 9)))

    def test_a_server_that_accepts_and_stays_silent_is_one_line(self, server: socket.socket) -> None:
        begin_s = time.monotonic()
        line = r"accepted the connection but does not answer; is it `nettool recv`"
        with pytest.raises(UnreachableError, match=line):
            connect_to(name_of(server))
        assert time.monotonic() - begin_s >= 1


def answer_one(server: socket.socket, answer: bytes) -> Callable[[], None]:
    """Accept one connection, read its HELLO, and answer with these bytes."""

    def run() -> None:
        accepted, _ = server.accept()
        with accepted:
            assert len(accepted.recv(PREFACE_BYTES, socket.MSG_WAITALL)) == PREFACE_BYTES
            accepted.recv(1000)
            accepted.sendall(answer)
            with suppress(OSError):  # a client that does not read everything resets the connection
                accepted.shutdown(socket.SHUT_WR)
            select.select([accepted], [], [], PATIENCE_S)  # the client closes once it has read the answer

    return run


def refusal(code: int) -> bytes:
    return encode_parameters({SecurityField.REFUSAL: bytes([code])})


def noise(message: bytes) -> bytes:
    return encode_parameters({SecurityField.NOISE: message})


@pytest.mark.parametrize(
    ("answer", "error", "line"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", RefusedError, "listens at host.example:.* is not nettool; check the port"),
        (b"", UnreachableError, "closed the connection without an answer"),
        (b"\x8eNET", UnreachableError, "closed the connection without an answer"),
        (
            b"\x8eNETTOOL\x00\x63\x03\x00\x00\x00",
            RefusedError,
            "speaks version 99 of nettool's TCP protocol, and this is version 2; install the same nettool",
        ),
        (
            b"\x8eNETTOOL\x00\x63\x02\x00\x03\xffnot to be read, version 99 may have more",
            RefusedError,
            "speaks version 99",
        ),
        (b"\x8eNETTOOL\x00\x01\x03\x00\x00\x00", RefusedError, "speaks version 1 of nettool's TCP protocol"),
        (wire.encode_refusal(PrefaceRefusal.STREAMS), RefusedError, "does not accept this many connections"),
        (wire.encode_refusal(PrefaceRefusal.BUSY), RefusedError, "has no room for another connection; try again"),
        (
            wire.encode_refusal(PrefaceRefusal.STREAMS).replace(b"\x03", b"\x63"),
            RefusedError,
            "refuses the connection for reason 99; update nettool",
        ),
        (
            wire.encode_refusal(PrefaceRefusal.SECURITY, refusal(Refusal.PLAINTEXT)),
            RefusedError,
            "does not allow plaintext",
        ),
        (wire.encode_refusal(PrefaceRefusal.SECURITY, refusal(99)), RefusedError, "update nettool on this host"),
        (wire.encode_refusal(PrefaceRefusal.SECURITY), RefusedError, "is not nettool"),
        (wire.encode_security(PrefaceType.RETRY, b""), RefusedError, "an answer to a code, but no code was sent"),
        (
            wire.encode_security(PrefaceType.WELCOME, noise(bytes(1300))),
            RefusedError,
            r"the receiver's answer is invalid \(.*\); check what lies between the hosts$",
        ),
        (b"\x8eNETTOOL\x00\x02\x77\x00\x00\x00", RefusedError, "is not nettool"),
        (b"\x8eNETTOOL\x00\x02\x02\x00\x00\x03abc", RefusedError, "is not nettool"),
    ],
)
def test_a_strange_answer_is_one_line(server: socket.socket, answer: bytes, error: type[Exception], line: str) -> None:
    before = descriptors()
    answering = Background(answer_one(server, answer))
    with pytest.raises(error, match=line) as caught:
        connect_to(name_of(server), options=TransportOptions(connect_timeout_s=PATIENCE_S))
    assert str(caught.value).isprintable()
    answering.outcome()
    assert descriptors() == before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            TransportOptions(congestion_control="no-such"),
            "has no congestion control no-such: choose from .*(cubic|reno)",
        ),
        (TransportOptions(congestion_control=""), "has no congestion control"),
        (TransportOptions(congestion_control="x" * 40), "has no congestion control"),
        (TransportOptions(congestion_control="cubic\0"), "has no congestion control"),
        (TransportOptions(streams=0), "0 connections are not possible: choose from 1 to"),
        (TransportOptions(streams=1000), "1000 connections are not possible"),
        (TransportOptions(rate_bps=8, streams=2), "a rate of 8 bit/s is too low for 2 connections"),
    ],
)
def test_impossible_options_are_a_usage_error(server: socket.socket, options: TransportOptions, line: str) -> None:
    before = descriptors()
    with pytest.raises(UsageError, match=line):
        connect_to(name_of(server), options=options)
    with pytest.raises(UsageError, match=line):
        TcpTransport().listen(Address("127.0.0.1", 0), options)
    assert descriptors() == before
