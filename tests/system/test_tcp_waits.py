"""Peers that read nothing and say that they are alive: a limit or the caller ends a wait for room all the same."""

import itertools
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.background import PATIENCE_S, Background, wait_until
from tests.support.conformance_network import CASES, Network
from tests.support.content import BytesSink, BytesSource, FileSource, StallingDisk, StallingSource, receive_until
from tests.support.repetitions import long
from tests.support.sessions import file_entry
from toolkit.channel import MAX_MESSAGE_BYTES, Channel, Extent
from toolkit.errors import NettoolError, PeerClosedError, RefusedError, TransferError
from toolkit.transfer import receive, send
from toolkit.transfer.limits import SessionLimits
from toolkit.transfer.messages import Accept, Alive, Begin, EntryOutcome, EntryStatus, Offer
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transports.tcp import wait_check
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.stream import SLICE_BYTES

BUFFER_BYTES = 1 << 16
TRICKLE_S = 0.05
TRICKLES = 300
"""A wait that nothing else ends fails its test when these have come, and the idle timeout after them."""

TCP_CASES = ["tcp", "tcp-three-streams", long("tcp-plaintext")]


class EnoughError(Exception):
    """What a check raises."""


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    case = CASES[request.param]
    made = Network(case._replace(options=replace(case.options, idle_timeout_s=2.0)))
    yield made
    made.close()


@pytest.fixture
def pair(network: Network, monkeypatch: pytest.MonkeyPatch) -> tuple[Channel, Channel]:
    """A channel that waits, with small buffers, and its peer's; a frame has little time to be finished."""
    monkeypatch.setattr(wait_check, "FINISH_S", 0.5)
    peer, waiting = network.pair(idle_timeout_s=PATIENCE_S)
    assert isinstance(waiting, TcpChannel)
    assert isinstance(peer, TcpChannel)
    for sock in waiting.sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    for sock in peer.sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return waiting, peer


@contextmanager
def trickling(peer: Channel) -> Iterator[None]:
    """The peer takes nothing, and says that it is alive."""
    has_ended = threading.Event()

    def trickle() -> None:
        with suppress(PeerClosedError):
            for _ in range(TRICKLES):
                if has_ended.wait(TRICKLE_S):
                    break
                peer.send_message(Alive().encode())

    background = Background(trickle)
    try:
        yield
    finally:
        has_ended.set()
        background.outcome()


def check_after(calls: int) -> Callable[[], None]:
    """A check that fails from its call of that number on."""
    numbers = itertools.count(1)

    def check() -> None:
        if next(numbers) >= calls:
            raise EnoughError

    return check


def consume(calls: Iterator[None]) -> None:
    """Make one call after the other."""
    for _ in calls:
        pass


def is_writable(channel: Channel) -> bool:
    assert isinstance(channel, TcpChannel)
    poll = select.poll()
    poll.register(channel.sockets[0], select.POLLOUT)
    return bool(poll.poll(0))


@pytest.mark.parametrize("network", TCP_CASES, indirect=True)
def test_a_check_ends_a_message_that_the_peer_does_not_take(pair: tuple[Channel, Channel]) -> None:
    waiting, peer = pair
    waiting.check_while_waiting(check_after(3))
    with trickling(peer), pytest.raises(EnoughError):
        consume(waiting.send_message(bytes(MAX_MESSAGE_BYTES)) for _ in itertools.count())


@pytest.mark.parametrize("network", TCP_CASES, indirect=True)
def test_a_check_ends_content_that_the_peer_does_not_take(pair: tuple[Channel, Channel]) -> None:
    waiting, peer = pair
    source = FileSource(os.urandom(SLICE_BYTES))
    waiting.check_while_waiting(check_after(3))
    with trickling(peer), pytest.raises(EnoughError):
        consume(waiting.send_extent(Extent(number, 0, SLICE_BYTES), source) for number in itertools.count())
    waiting.abort()
    source.close()


@pytest.mark.parametrize("network", ["tcp-three-streams"], indirect=True)
def test_a_check_ends_a_flush_while_another_connection_sends(pair: tuple[Channel, Channel]) -> None:
    waiting, peer = pair
    is_reading, may_read_on = threading.Event(), threading.Event()

    def stall() -> None:
        is_reading.set()
        assert may_read_on.wait(PATIENCE_S)

    waiting.check_while_waiting(check_after(3))
    waiting.send_extent(Extent(0, 0, 100_000), StallingSource(bytes(100_000), StallingDisk(stall, 0)))
    assert is_reading.wait(PATIENCE_S)
    with trickling(peer), pytest.raises(EnoughError):
        waiting.flush()
    may_read_on.set()


@pytest.mark.parametrize("network", ["tcp", "tcp-plaintext"], indirect=True)
def test_a_frame_that_the_peer_takes_in_time_is_finished_and_the_reason_follows(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_check, "FINISH_S", PATIENCE_S)
    waiting, peer = pair
    has_failed = threading.Event()
    failing = check_after(3)

    def check() -> None:
        try:
            failing()
        except EnoughError:
            has_failed.set()
            raise

    waiting.check_while_waiting(check)
    extents: list[Extent] = []

    def send_until_blocked() -> None:
        while not has_failed.is_set():
            extents.append(Extent(len(extents), 0, SLICE_BYTES))
            waiting.send_extent(extents[-1], BytesSource(bytes(SLICE_BYTES)))
        waiting.send_message(b"enough")

    sending = Background(send_until_blocked)
    assert has_failed.wait(PATIENCE_S)
    sink = BytesSink()
    assert receive_until(peer, sink, len(extents) * SLICE_BYTES, 1) == [b"enough"]
    sending.outcome()


# Sessions.


def ask_for_refusals(peer: Channel, waiting: Channel) -> None:
    """Offer names that are refused, and read no answer, until the receiver is blocked."""
    peer.send_message(Begin().encode())
    entries = tuple(file_entry(b"../%d" % number) for number in range(1000))
    for group in itertools.count():
        peer.send_message(Offer(group, entries).encode())
        if is_blocked(waiting):
            return


def is_blocked(channel: Channel) -> bool:
    """Whether a channel has had no room for a while."""
    return not any(is_writable(channel) or threading.Event().wait(0.01) for _ in range(10))


@pytest.mark.parametrize("network", TCP_CASES, indirect=True)
@pytest.mark.parametrize("end", ["limit", "cancel"])
def test_a_receiver_ends_a_session_whose_sender_takes_no_answers(
    pair: tuple[Channel, Channel], tmp_path: Path, end: str
) -> None:
    waiting, peer = pair
    cancel = threading.Event()
    limits = SessionLimits(stall_seconds=1.0 if end == "limit" else 3600.0)
    receiving = Background(lambda: receive(waiting, tmp_path, ReceiveOptions(limits=limits), cancel=cancel))
    ask_for_refusals(peer, waiting)
    with trickling(peer):
        if end == "cancel":
            cancel.set()
        with pytest.raises((RefusedError, TransferError), match="no progress" if end == "limit" else "cancelled"):
            receiving.outcome()


@pytest.mark.parametrize("network", TCP_CASES, indirect=True)
def test_a_sender_that_is_cancelled_ends_a_session_whose_receiver_takes_nothing(
    pair: tuple[Channel, Channel], tmp_path: Path
) -> None:
    waiting, peer = pair
    (tmp_path / "file").write_bytes(bytes(1 << 26))
    cancel = threading.Event()
    sending = Background(lambda: send(waiting, [tmp_path / "file"], cancel=cancel))
    assert peer.receive(None, PATIENCE_S)  # BEGIN
    assert peer.receive(None, PATIENCE_S)  # OFFER
    peer.send_message(Accept(0, (EntryOutcome(EntryStatus.OK),)).encode())
    with trickling(peer):
        wait_until(lambda: is_blocked(waiting), "the sender is blocked")
        cancel.set()
        with pytest.raises(TransferError, match="cancelled"):
            sending.outcome()


@pytest.mark.parametrize("network", ["tcp-three-streams"], indirect=True)
def test_a_sender_that_breaks_one_connection_does_not_hold_a_session_by_another(
    pair: tuple[Channel, Channel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.session.FINAL_MESSAGES_S", 0.5)
    waiting, peer = pair
    assert isinstance(peer, TcpChannel)
    receiving = Background(lambda: receive(waiting, tmp_path))
    peer.send_message(Begin().encode())
    with trickling(peer):
        peer.sockets[1].send(b"\0")  # the beginning of a record
        peer.sockets[1].close()
        with pytest.raises(NettoolError, match="closed the connection before the end"):
            receiving.outcome(TRICKLES * TRICKLE_S / 2)


@pytest.mark.parametrize("network", TCP_CASES, indirect=True)
def test_a_peer_that_takes_a_little_now_and_then_does_not_hold_a_close(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, _ = pair
    left_bytes = itertools.count(1 << 40, -1)
    monkeypatch.setattr("toolkit.transports.tcp.linger.unacknowledged_bytes", lambda _: next(left_bytes))
    monkeypatch.setattr("toolkit.transports.tcp.channel.MAX_LINGER_S", 1.0, raising=False)
    Background(lambda: waiting.close(linger_s=0.5)).outcome(PATIENCE_S / 4)
