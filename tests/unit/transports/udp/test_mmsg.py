"""Many datagrams in one system call, over loopback: what arrives, from whom, and from where the answers leave."""

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.background import PATIENCE_S
from toolkit.transports.udp.mmsg import MAX_DATAGRAMS, Arrival, BatchExchange, DatagramExchange, SingleExchange
from toolkit.transports.udp.socket import DatagramSocket
from toolkit.transports.udp.socket_options import report_local_address

BOUND = [(socket.AF_INET, "0.0.0.0", "127.0.0.1"), (socket.AF_INET6, "::", "127.0.0.1"), (socket.AF_INET6, "::", "::1")]


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def make_server(cleanup: ExitStack, family: int, host: str) -> socket.socket:
    server = cleanup.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind((host, 0))
    report_local_address(server)
    return server


def make_client(cleanup: ExitStack, server: socket.socket, host: str) -> socket.socket:
    client = cleanup.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM))
    client.connect((host, server.getsockname()[1]))
    client.settimeout(PATIENCE_S)
    return client


def receive(exchange: DatagramExchange, server: socket.socket, count: int) -> list[Arrival]:
    """Return `count` arrivals, whose data stays valid."""
    arrivals: list[Arrival] = []
    while len(arrivals) < count:
        assert select.select([server], [], [], PATIENCE_S)[0], "nothing more arrives"
        arrivals += [a._replace(data=memoryview(bytes(a.data))) for a in exchange.receive(server)]
    return arrivals


def test_a_listeners_arrivals_from_one_peer_have_equal_control_messages(cleanup: ExitStack) -> None:
    """Each different one is parsed, which takes most of the time that a flood costs."""
    server = DatagramSocket(make_server(cleanup, socket.AF_INET, "127.0.0.1"), "off").sock
    report_local_address(server)
    client = make_client(cleanup, server, "127.0.0.1")
    for _ in range(3):
        client.send(b"question")
        time.sleep(0.001)
    assert len({arrival.control for arrival in receive(BatchExchange(), server, 3)}) == 1


@pytest.mark.parametrize(("family", "bound", "host"), BOUND)
def test_an_arrival_names_both_ends(cleanup: ExitStack, family: int, bound: str, host: str) -> None:
    server = make_server(cleanup, family, bound)
    client = make_client(cleanup, server, host)
    client.send(b"question")
    (arrival,) = receive(BatchExchange(), server, 1)
    assert arrival.data == b"question"
    assert arrival.host == socket.inet_pton(client.family, host)
    assert arrival.peer[1] == client.getsockname()[1]
    assert arrival.peer[0].removeprefix("::ffff:") == host
    assert arrival.local_host is not None
    assert arrival.local_host.removeprefix("::ffff:") == host
    server.connect(arrival.peer)  # it is an address of this socket's family


@pytest.mark.parametrize(("family", "bound", "host"), [*BOUND, (socket.AF_INET, "0.0.0.0", "127.0.0.2")])
def test_an_answer_leaves_from_the_address_that_was_addressed(
    cleanup: ExitStack, family: int, bound: str, host: str
) -> None:
    server, exchange = make_server(cleanup, family, bound), BatchExchange()
    client = make_client(cleanup, server, host)
    client.send(b"question")
    (arrival,) = receive(exchange, server, 1)
    exchange.send(server, [(b"answer", arrival), (b"", arrival), (b"another", arrival)])
    assert [client.recv(100) for _ in range(3)] == [b"answer", b"", b"another"]


@pytest.mark.parametrize("make_exchange", [BatchExchange, SingleExchange])
def test_nothing_is_no_error(cleanup: ExitStack, make_exchange: Callable[[], DatagramExchange]) -> None:
    server, exchange = make_server(cleanup, socket.AF_INET, "127.0.0.1"), make_exchange()
    assert exchange.receive(server) == []
    exchange.send(server, [])


@pytest.mark.parametrize("make_exchange", [BatchExchange, SingleExchange])
def test_more_than_fit_one_call_arrive_in_order(
    cleanup: ExitStack, make_exchange: Callable[[], DatagramExchange]
) -> None:
    server, exchange = make_server(cleanup, socket.AF_INET, "127.0.0.1"), make_exchange()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    clients = [make_client(cleanup, server, "127.0.0.1") for _ in range(3)]
    count = MAX_DATAGRAMS + 15
    for number in range(count):
        clients[number % 3].send(b"%d" % number * 50)
    arrivals = receive(exchange, server, count)
    assert [bytes(a.data) for a in arrivals] == [b"%d" % number * 50 for number in range(count)]
    exchange.send(server, [(bytes(a.data)[:9], a) for a in arrivals])
    for number in range(count):
        assert clients[number % 3].recv(100) == (b"%d" % number * 50)[:9]


def test_one_answer_that_cannot_be_sent_does_not_stop_the_others(cleanup: ExitStack) -> None:
    server, exchange = make_server(cleanup, socket.AF_INET, "127.0.0.1"), BatchExchange()
    client = make_client(cleanup, server, "127.0.0.1")
    client.send(b"question")
    (arrival,) = receive(exchange, server, 1)
    nowhere = arrival._replace(name=arrival.name[:2] + bytes(14))  # port 0
    exchange.send(server, [(b"first", arrival), (b"lost", nowhere), (b"second", arrival)])
    assert [client.recv(100) for _ in range(2)] == [b"first", b"second"]


@pytest.mark.parametrize(("family", "bound", "host"), BOUND)
def test_single_datagrams_name_their_peer_and_are_answered(
    cleanup: ExitStack, family: int, bound: str, host: str
) -> None:
    server, exchange = make_server(cleanup, family, bound), SingleExchange()
    client = make_client(cleanup, server, host)
    client.send(b"question")
    (arrival,) = receive(exchange, server, 1)
    assert arrival.host == socket.inet_pton(client.family, host)
    exchange.send(server, [(b"answer", arrival)])
    assert client.recv(100) == b"answer"


def test_what_is_too_long_is_cut_off(cleanup: ExitStack) -> None:
    server, exchange = make_server(cleanup, socket.AF_INET, "127.0.0.1"), BatchExchange()
    make_client(cleanup, server, "127.0.0.1").send(bytes(10_000))
    (arrival,) = receive(exchange, server, 1)
    assert 1472 <= len(arrival.data) < 10_000
