"""The server of several sessions, over the transport without a network."""

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.memory_transport import MemoryChannel, MemoryListener, MemoryTransport
from toolkit.channel import Address, Channel, TransportOptions
from toolkit.errors import PeerClosedError, UnreachableError
from toolkit.transfer.messages import Alive, ErrorMessage, ErrorReason, decode_untrusted
from toolkit.transfer.session_server import ConcurrencyLimits, SessionServer, listen_on_one_port

ANY_PORT = Address("", 0)
OPTIONS = TransportOptions()


@dataclass
class RunningServer:
    """A server, its `run` in a thread, and a way to connect to it."""

    server: SessionServer
    run: Background[None]
    connect: Callable[[], Channel]


@contextmanager
def serving(
    session: Callable[[str, Channel], float | None],
    sessions: int = 8,
    limit: int | None = None,
    transport: MemoryTransport | None = None,
) -> Iterator[RunningServer]:
    """A server that takes two sessions of a host, and is closed at the end of the block."""
    transport = transport or MemoryTransport()
    listener = transport.listen(ANY_PORT, OPTIONS)
    server = SessionServer({"memory": listener}, session, ConcurrencyLimits(sessions, 2), limit)
    try:
        yield RunningServer(server, Background(server.run), lambda: transport.connect(listener.address, OPTIONS))
    finally:
        server.close(PATIENCE_S)


def echo(_name: str, channel: Channel) -> None:
    """A session that sends its first message back."""
    message = channel.receive(timeout_s=PATIENCE_S)
    if message:
        channel.send_message(message)
    channel.close()


def refusal(channel: Channel) -> str:
    """The reason with which the server refuses a channel."""
    data = channel.receive(timeout_s=PATIENCE_S)
    assert data is not None
    message = decode_untrusted(data)
    assert isinstance(message, ErrorMessage)
    assert message.reason is ErrorReason.REFUSED
    return message.text


def test_sessions_run_concurrently() -> None:
    both_running = threading.Barrier(2, timeout=PATIENCE_S)

    def session(name: str, channel: Channel) -> None:
        both_running.wait()
        echo(name, channel)

    with serving(session) as running:
        channels = [running.connect(), running.connect()]
        for channel in channels:
            channel.send_message(b"hello")
        assert [channel.receive(timeout_s=PATIENCE_S) for channel in channels] == [b"hello", b"hello"]


def test_the_server_ends_after_its_limit_and_refuses_further_sessions() -> None:
    with serving(echo, limit=1) as running:
        first, second = running.connect(), running.connect()
        assert "the receiver accepts no more sessions; start it again" in refusal(second)
        first.send_message(b"x")
        assert first.receive(timeout_s=PATIENCE_S) == b"x"
        running.run.outcome()


class TestSendersThatComeBack:
    """A server with a limit waits for the sender of a lost session."""

    @staticmethod
    def session(retry_s: float) -> Callable[[str, Channel], float | None]:
        """Send the first message back; if the connection is lost before, the sender is expected to come back."""

        def run(name: str, channel: Channel) -> float | None:
            try:
                echo(name, channel)
            except PeerClosedError:
                return retry_s
            return None

        return run

    def test_one_more_session_is_let_in_and_is_the_last(self) -> None:
        with serving(self.session(PATIENCE_S), limit=1) as running:
            for _ in range(2):
                wait_until(lambda: not is_refused(running.connect()))
            wait_until(lambda: "no more sessions" not in first_answer(running.connect()))
            running.run.outcome()

    @pytest.mark.parametrize(
        "ends",
        [[PATIENCE_S, 0.0], [0.0, None], [None, 0.0], [1e-9, None], [60, None]],
        ids=["lost again", "continued", "continued, and ended before", "lost, and back", "a whole number of seconds"],
    )
    def test_it_goes_on_while_a_sender_is_expected(self, ends: list[float | None]) -> None:
        """A receiver may notice the loss of a session after the end of the one that continued it."""
        threads: list[threading.Thread] = []

        def session(_name: str, channel: Channel) -> float | None:
            threads.append(threading.current_thread())
            number = len(threads) - 1
            if number < len(ends):
                channel.abort()
                return ends[number]
            echo(_name, channel)
            return None

        transport, cancel = MemoryTransport(), threading.Event()
        listener = transport.listen(ANY_PORT, OPTIONS)
        server = SessionServer({"memory": listener}, session, ConcurrencyLimits(), limit=2, cancel=cancel)
        try:
            server.start()
            for number in range(len(ends)):
                transport.connect(listener.address, OPTIONS)
                wait_until(lambda number=number: len(threads) > number)  # type: ignore[misc]
                threads[number].join(PATIENCE_S)
            cancel.set()
            server.run()  # ends at once; a server that has given up lets nobody in
            channel = transport.connect(listener.address, OPTIONS)
            channel.send_message(b"x")
            assert channel.receive(timeout_s=PATIENCE_S) == b"x"
        finally:
            server.close(PATIENCE_S)

    def test_if_it_does_not_come_back_the_server_ends(self) -> None:
        with serving(self.session(0.05), limit=1) as running:
            running.connect().abort()
            running.run.outcome()
            assert "no more sessions" in refusal(running.connect())

    def test_every_caller_of_run_sees_that_it_does_not_come_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wait_s, waiting, has_begun = SessionServer._wait_s, threading.Semaphore(0), threading.Event()

        def announced(server: SessionServer) -> float | None:
            try:
                return wait_s(server)
            finally:
                waiting.release()

        def session(_name: str, channel: Channel) -> float:
            has_begun.set()
            for _ in range(2):
                assert waiting.acquire(timeout=PATIENCE_S)
            channel.abort()
            return 0.05

        transport = MemoryTransport()
        listener = transport.listen(ANY_PORT, OPTIONS)
        server = SessionServer({"memory": listener}, session, limit=1)
        try:
            server.start()
            transport.connect(listener.address, OPTIONS)
            assert has_begun.wait(PATIENCE_S)
            monkeypatch.setattr(SessionServer, "_wait_s", announced)
            for call in [Background(server.run) for _ in range(2)]:
                call.outcome()
        finally:
            server.close(PATIENCE_S)


def is_refused(channel: Channel) -> bool:
    """Lose a channel; return whether it was refused before."""
    try:
        return channel.receive(timeout_s=0.02) is not None
    finally:
        channel.abort()


def test_sessions_beyond_the_maximum_are_refused_as_busy() -> None:
    with serving(echo, sessions=2) as running:
        channels = [running.connect(), running.connect()]
        assert "busy with 2" in refusal(running.connect())
        for channel in channels:
            channel.send_message(b"x")
            assert channel.receive(timeout_s=PATIENCE_S) == b"x"
            with pytest.raises(PeerClosedError):
                channel.receive(timeout_s=PATIENCE_S)


def test_one_host_may_not_take_every_session() -> None:
    with serving(echo, sessions=3) as running:
        channels = [running.connect(), running.connect()]
        assert "busy with 2 sessions of this host" in refusal(running.connect())
        channels[0].send_message(b"x")
        assert channels[0].receive(timeout_s=PATIENCE_S) == b"x"
        channels[0].close()
        wait_until(lambda: "busy" not in first_answer(running.connect()))
        channels[1].close()  # the server waits for its session


def first_answer(channel: Channel) -> str:
    """The refusal of a channel, or its echo."""
    with suppress(PeerClosedError):
        channel.send_message(Alive().encode())
    try:
        data = channel.receive(timeout_s=PATIENCE_S)
    finally:
        channel.abort()
    message = decode_untrusted(data or b"")
    return message.text if isinstance(message, ErrorMessage) else ""


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.001)


@pytest.mark.parametrize("failing", [1, 2], ids=["session", "session and refusal"])
def test_a_thread_that_cannot_be_started_refuses_that_session_and_no_other(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    start = threading.Thread.start
    with serving(echo) as running:
        left = failing

        def fail(thread: threading.Thread) -> None:
            nonlocal left
            if left:
                left -= 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", fail)
        unlucky = running.connect()
        if failing == 1:
            assert "no thread left" in refusal(unlucky)
        else:
            with pytest.raises(PeerClosedError):
                unlucky.receive(timeout_s=PATIENCE_S)
        channel = running.connect()
        channel.send_message(b"x")
        assert channel.receive(timeout_s=PATIENCE_S) == b"x"
        assert running.run.error is None


def test_a_listener_without_descriptors_is_asked_again() -> None:
    shortages = iter([OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENFILE, "")])

    class ShortOfDescriptors(MemoryTransport):
        def listen(self, address: Address, options: TransportOptions) -> MemoryListener:
            listener = super().listen(address, options)
            accept = listener.accept

            def fail_at_first(timeout_s: float | None = None) -> MemoryChannel | None:
                for shortage in shortages:
                    raise shortage
                return accept(timeout_s)

            listener.accept = fail_at_first  # type: ignore[method-assign]
            return listener

    with serving(echo, transport=ShortOfDescriptors()) as running:
        channel = running.connect()
        channel.send_message(b"x")
        assert channel.receive(timeout_s=PATIENCE_S) == b"x"


def test_close_cancels_the_sessions_and_waits_for_them() -> None:
    started = threading.Event()
    cancelled: list[bool] = []

    def session(_name: str, channel: Channel) -> None:
        started.set()
        cancelled.append(running.server.closing.wait(PATIENCE_S))
        channel.abort()

    with serving(session) as running:
        channel = running.connect()
        assert started.wait(PATIENCE_S)
        running.server.close(PATIENCE_S)
        assert cancelled == [True]
        assert running.run.error is None
        with pytest.raises(PeerClosedError):
            channel.receive(timeout_s=PATIENCE_S)


def test_an_exception_of_a_session_ends_the_server() -> None:
    def session(_name: str, channel: Channel) -> None:
        channel.abort()
        raise ZeroDivisionError

    with serving(session) as running:
        running.connect()
        with pytest.raises(ZeroDivisionError):
            running.run.outcome()


class CrowdedTransport(MemoryTransport):
    """A transport that finds the first ports taken."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.taken = taken

    def listen(self, address: Address, options: TransportOptions) -> MemoryListener:
        if self.taken:
            self.taken -= 1
            raise UnreachableError("taken")
        return super().listen(address, options)


def test_a_port_that_is_taken_for_one_transport_is_tried_again() -> None:
    listeners = listen_on_one_port({"a": MemoryTransport(), "b": CrowdedTransport(taken=5)}, ANY_PORT, OPTIONS)
    assert listeners["a"].address.port == listeners["b"].address.port
    for listener in listeners.values():
        listener.close()


@pytest.mark.parametrize("address", [ANY_PORT, Address("", 7)])
def test_no_listener_is_left_if_no_port_is_free_for_all_transports(address: Address) -> None:
    free = MemoryTransport()
    with pytest.raises(UnreachableError):
        listen_on_one_port({"a": free, "b": CrowdedTransport(taken=1000)}, address, OPTIONS)
    with pytest.raises(UnreachableError):
        free.connect(Address("", 7), OPTIONS)
    free.listen(Address("", 1), OPTIONS).close()
