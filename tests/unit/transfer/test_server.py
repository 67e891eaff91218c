"""The server of several sessions, over the transport without a network."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.memory_transport import MemoryListener, MemoryTransport
from toolkit.channel import Address, Channel, TransportOptions
from toolkit.errors import PeerClosedError, UnreachableError
from toolkit.transfer.messages import ErrorMessage, ErrorReason, decode_untrusted
from toolkit.transfer.server import SessionServer, listen_on_one_port

ANYWHERE = Address("", 0)
OPTIONS = TransportOptions()
LIMIT_S = 10.0


@contextmanager
def serving(
    session: Callable[[str, Channel], None], max_sessions: int = 8, limit: int | None = None
) -> Iterator[tuple[SessionServer, Callable[[], Channel], threading.Thread, list[BaseException]]]:
    """A server in a thread; how to connect to it; the thread, and what `run` has raised."""
    transport = MemoryTransport()
    listener = transport.listen(ANYWHERE, OPTIONS)
    server = SessionServer({"memory": listener}, session, max_sessions, limit)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server, lambda: transport.connect(listener.address, OPTIONS), thread, raised
    finally:
        server.close(LIMIT_S)


def echo(_name: str, channel: Channel) -> None:
    message = channel.receive(timeout_s=LIMIT_S)
    if message:
        channel.send_message(message)
    channel.close()


def refusal(channel: Channel) -> str:
    message = channel.receive(timeout_s=LIMIT_S)
    assert message is not None
    told = decode_untrusted(message)
    assert isinstance(told, ErrorMessage)
    assert told.reason is ErrorReason.REFUSED
    return told.text


def test_sessions_run_beside_each_other() -> None:
    both_there = threading.Barrier(2, timeout=LIMIT_S)

    def session(name: str, channel: Channel) -> None:
        both_there.wait()
        echo(name, channel)

    with serving(session) as (_, connect, _, _):
        channels = [connect(), connect()]
        for channel in channels:
            channel.send_message(b"hello")
        assert [channel.receive(timeout_s=LIMIT_S) for channel in channels] == [b"hello", b"hello"]


def test_it_ends_after_its_limit_and_refuses_who_comes_meanwhile() -> None:
    with serving(echo, limit=1) as (_, connect, thread, raised):
        first, second = connect(), connect()
        assert "--once" in refusal(second)
        first.send_message(b"x")
        assert first.receive(timeout_s=LIMIT_S) == b"x"
        thread.join(LIMIT_S)
        assert not thread.is_alive()
        assert raised == []


def test_more_than_it_may_hold_are_told_to_come_back() -> None:
    with serving(echo, max_sessions=2) as (_, connect, _, _):
        channels = [connect(), connect()]
        assert "busy with 2" in refusal(connect())
        for channel in channels:
            channel.send_message(b"x")
            assert channel.receive(timeout_s=LIMIT_S) == b"x"
            with pytest.raises(PeerClosedError):
                channel.receive(timeout_s=LIMIT_S)


def test_closing_interrupts_the_sessions_and_waits_for_them() -> None:
    begun = threading.Event()
    ended: list[bool] = []

    def session(_name: str, channel: Channel) -> None:
        begun.set()
        ended.append(server.closing.wait(LIMIT_S))
        channel.abort()

    with serving(session) as (server, connect, _, raised):
        channel = connect()
        assert begun.wait(LIMIT_S)
        server.close(LIMIT_S)
        assert ended == [True]
        assert raised == []
        with pytest.raises(PeerClosedError):
            channel.receive(timeout_s=LIMIT_S)


def test_what_a_session_raises_ends_the_server() -> None:
    def session(_name: str, channel: Channel) -> None:
        channel.abort()
        raise ZeroDivisionError

    with serving(session) as (_, connect, thread, raised):
        connect()
        thread.join(LIMIT_S)
        assert [type(error) for error in raised] == [ZeroDivisionError]


class Crowded(MemoryTransport):
    """Has the first few ports that it is asked for taken."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.taken = taken

    def listen(self, address: Address, options: TransportOptions) -> MemoryListener:
        if self.taken:
            self.taken -= 1
            raise UnreachableError("taken")
        return super().listen(address, options)


def test_one_port_for_all_is_found_also_when_some_are_taken() -> None:
    listeners = listen_on_one_port({"a": MemoryTransport(), "b": Crowded(taken=5)}, ANYWHERE, OPTIONS)
    assert listeners["a"].address.port == listeners["b"].address.port
    for listener in listeners.values():
        listener.close()


@pytest.mark.parametrize("address", [ANYWHERE, Address("", 7)])
def test_one_port_that_cannot_be_had_leaves_no_listener(address: Address) -> None:
    free = MemoryTransport()
    with pytest.raises(UnreachableError):
        listen_on_one_port({"a": free, "b": Crowded(taken=1000)}, address, OPTIONS)
    with pytest.raises(UnreachableError):
        free.connect(Address("", 7), OPTIONS)
    free.listen(Address("", 1), OPTIONS).close()
