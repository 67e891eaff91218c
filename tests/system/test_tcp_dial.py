"""Happy Eyeballs over real sockets: addresses that answer, refuse, or say nothing."""

import os
import socket
import time
from collections.abc import Iterator

import pytest

from toolkit.channel import Address, TransportOptions
from toolkit.errors import RefusedError, UnreachableError, UsageError
from toolkit.transports.addresses import SocketAddress
from toolkit.transports.tcp import transport
from toolkit.transports.tcp.connect import CONNECTION_ATTEMPT_DELAY_S, dial
from toolkit.transports.tcp.transport import TcpTransport
from toolkit.transports.tcp.wire import Kind, encode_refusal

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
    """Where no connection comes about: the queue is full, so that the kernel drops what asks for one."""
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


def nothing(_: socket.socket) -> None:
    """Configures nothing."""


def timed_dial(*candidates: SocketAddress, patience_s: float = 5.0) -> tuple[tuple[str, int], float]:
    begun = time.monotonic()
    with dial(candidates, nothing, begun + patience_s) as sock:
        return sock.getpeername(), time.monotonic() - begun


def test_the_first_that_answers_is_taken(server: socket.socket) -> None:
    before = descriptors()
    peer, seconds = timed_dial(name_of(server))
    assert peer == server.getsockname()
    assert seconds < CONNECTION_ATTEMPT_DELAY_S
    assert descriptors() == before


def test_a_refusal_is_followed_at_once(server: socket.socket, closed_port: SocketAddress) -> None:
    peer, seconds = timed_dial(closed_port, closed_port, name_of(server))
    assert peer == server.getsockname()
    assert seconds < CONNECTION_ATTEMPT_DELAY_S


def test_a_silent_address_holds_up_the_next_by_the_delay_only(server: socket.socket, silent: SocketAddress) -> None:
    before = descriptors()
    peer, seconds = timed_dial(silent, name_of(server))
    assert peer == server.getsockname()
    assert CONNECTION_ATTEMPT_DELAY_S <= seconds < 4 * CONNECTION_ATTEMPT_DELAY_S
    assert descriptors() == before


def test_nobody_answers_in_time(silent: SocketAddress) -> None:
    before = descriptors()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        timed_dial(silent, silent, patience_s=0.5)
    assert 0.5 <= time.monotonic() - begun < 2
    assert descriptors() == before


def test_a_refusal_tells_more_than_another_failure(closed_port: SocketAddress) -> None:
    unroutable = (socket.AF_INET, ("255.255.255.255", 9))
    with pytest.raises(ConnectionRefusedError):
        timed_dial(unroutable, closed_port, unroutable)


def test_what_raises_in_between_leaves_no_descriptors(silent: SocketAddress) -> None:
    before = descriptors()
    calls = 0

    def refuse_second(_: socket.socket) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise UsageError("not like this")

    with pytest.raises(UsageError):
        dial([silent, silent], refuse_second, time.monotonic() + 5)
    assert descriptors() == before


def connect_to(*candidates: SocketAddress, options: TransportOptions = OPTIONS) -> None:
    port = candidates[0][1][1]
    TcpTransport(lambda *_: list(candidates)).connect(Address("host.example", port), options)


def test_a_refused_port_is_one_line_that_says_what_to_do(closed_port: SocketAddress) -> None:
    with pytest.raises(UnreachableError, match=r"^nothing listens at host\.example:\d+; start `nettool recv` there$"):
        connect_to(closed_port)


def test_silence_is_one_line(silent: SocketAddress) -> None:
    with pytest.raises(UnreachableError, match=r"^host\.example:\d+ does not answer; check the address"):
        connect_to(silent)


def test_an_address_without_a_route_is_one_line() -> None:
    with pytest.raises(UnreachableError, match=r"^host\.example:9 cannot be reached \(.*\); check the address"):
        connect_to((socket.AF_INET, ("255.255.255.255", 9)))


def test_who_takes_connections_and_says_nothing_is_one_line(server: socket.socket) -> None:
    begun = time.monotonic()
    with pytest.raises(UnreachableError, match=r"took the connection and does not answer; is it `nettool recv`"):
        connect_to(name_of(server))
    assert 1 <= time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("answer", "error", "line"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", RefusedError, "what listens at host.example:.* is not nettool; check the port"),
        (b"", UnreachableError, "closed the connection without an answer"),
        (b"\x8eNET", UnreachableError, "closed the connection without an answer"),
        (
            b"\x8eNETTOOL\x00\x63\x03\x00\x00\x00",
            RefusedError,
            "speaks version 99 of nettool's TCP protocol, and this is version 1; install the same nettool",
        ),
        (
            b"\x8eNETTOOL\x00\x63\x02\x00\x03\xffnot to be read, version 99 may have more",
            RefusedError,
            "speaks version 99",
        ),
        (encode_refusal(Kind.REFUSED_STREAMS), RefusedError, "does not take so many streams"),
        (encode_refusal(Kind.REFUSED_SECURITY), RefusedError, "offers no authentication"),
        (b"\x8eNETTOOL\x00\x01\x77\x00\x00\x00", RefusedError, "is not nettool"),
        (b"\x8eNETTOOL\x00\x01\x02\x00\x00\x03abc", RefusedError, "is not nettool"),
    ],
)
def test_a_strange_answer_is_one_line(
    server: socket.socket, answer: bytes, error: type[Exception], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer waits in the client's buffer before it greets: the server needs no thread."""

    greet = transport._greet

    def greet_and_answer(*arguments: object) -> None:
        greet(*arguments)  # type: ignore[arg-type]
        accepted, _ = server.accept()
        with accepted:
            accepted.recv(1000)
            accepted.sendall(answer)

    monkeypatch.setattr(transport, "_greet", greet_and_answer)
    before = descriptors()
    with pytest.raises(error, match=line) as caught:
        connect_to(name_of(server))
    assert str(caught.value).isprintable()
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
        (TransportOptions(streams=0), "0 streams are not possible: choose from 1 to"),
        (TransportOptions(streams=1000), "1000 streams are not possible"),
        (TransportOptions(rate_bps=1), "a rate of 1 bit/s is too low"),
    ],
)
def test_options_that_make_no_sense_are_a_usage_error(
    server: socket.socket, options: TransportOptions, line: str
) -> None:
    before = descriptors()
    with pytest.raises(UsageError, match=line):
        connect_to(name_of(server), options=options)
    with pytest.raises(UsageError, match=line):
        TcpTransport().listen(Address("127.0.0.1", 0), options)
    assert descriptors() == before
