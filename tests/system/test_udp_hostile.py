"""A peer that sends what nobody takes: memory stays bounded, and what was held back comes when it is asked for."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.content import BytesSink, BytesSource
from tests.support.udp_channels import connected, receive_all
from toolkit.channel import Address, Extent, ExtentSink, TransportOptions
from toolkit.errors import PeerClosedError, ProtocolError
from toolkit.transports.udp.channel import BACKLOG_BYTES, MAX_WAITING_BYTES, UdpChannel
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.extents import MAX_EXTENTS, STASH_BYTES, IncomingExtents

OPTIONS = TransportOptions(idle_timeout_s=10.0)
SLACK_BYTES = 1 << 20


@pytest.fixture
def ends() -> Iterator[tuple[UdpChannel, UdpChannel]]:
    with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as listener:
        near, far = connected(listener, OPTIONS)
        with closing(near), closing(far):
            yield near, far


def talk_until(channel: UdpChannel, is_over: Callable[[], bool]) -> None:
    """Send messages and take nothing, as one does who is in the middle of sending."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_over() and time.monotonic() < deadline:
        channel.send_message(b"on and on")
        time.sleep(0.001)


class Stillness:
    """True when a figure has not grown for a while."""

    def __init__(self, figure: Callable[[], int]) -> None:
        self._figure = figure
        self._last = -1
        self._since = time.monotonic()

    def __call__(self) -> bool:
        now = self._figure()
        if now != self._last:
            self._last, self._since = now, time.monotonic()
        return now > 0 and time.monotonic() - self._since > 0.3


def test_content_without_a_sink(ends: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = ends
    content = random.Random(1).randbytes(1 << 20)
    count = 3 * STASH_BYTES >> 20
    source = BytesSource(content)

    def flood() -> None:
        for n in range(count):
            near.send_extent(Extent(n, 0, len(content)), source)
        near.flush()

    flooding = Background(flood)
    talk_until(far, Stillness(lambda: far._incoming.stash_bytes))
    assert STASH_BYTES <= far._incoming.stash_bytes <= STASH_BYTES + SLACK_BYTES
    sink = BytesSink()
    while flooding.is_alive() or sink.written_bytes < count * len(content):
        far.receive(sink, timeout_s=0.05)
    flooding.outcome()
    assert sink.written_bytes == count * len(content)
    assert all(sink.content(n) == content for n in range(count))
    assert far._incoming.stash_bytes == 0


def test_messages_that_are_not_taken(ends: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = ends
    message = random.Random(2).randbytes(1 << 17)
    count = (MAX_WAITING_BYTES + (8 << 20)) // len(message)

    def flood() -> None:
        for n in range(count):
            near.send_message(message[: len(message) - n])
        near.flush()

    flooding = Background(flood)
    talk_until(far, Stillness(lambda: far._waiting_bytes))
    assert MAX_WAITING_BYTES - SLACK_BYTES <= far._waiting_bytes <= MAX_WAITING_BYTES + SLACK_BYTES
    assert flooding.is_alive()
    _, received = receive_all(far, 0, count)
    while flooding.is_alive():
        far.receive(BytesSink(), timeout_s=0.01)
    flooding.outcome()
    assert [len(m) for m in received] == [len(message) - n for n in range(count)]
    assert far._waiting_bytes == 0


def test_messages_that_are_not_even_acknowledged(ends: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = ends
    message = random.Random(3).randbytes(1 << 17)
    count = (16 << 20) // len(message)
    queued = Stillness(lambda: near._connection.unacked_message_bytes)

    def flood() -> None:
        for _ in range(count):
            near.send_message(message)
        near.flush()

    flooding = Background(flood)
    while not queued():
        time.sleep(0.001)
    assert flooding.is_alive()
    assert near._connection.unacked_message_bytes <= BACKLOG_BYTES + SLACK_BYTES
    assert receive_all(far, 0, count)[1] == [message] * count
    flooding.outcome()


def test_empty_messages_that_are_not_taken(ends: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = ends
    stop = threading.Event()

    def flood() -> None:
        with suppress(PeerClosedError):
            while not stop.is_set():
                for _ in range(1000):
                    near._connection.send_message(b"\0")  # thousands at a time: the channel would send each at once
                near.receive(BytesSink(), timeout_s=0)

    flooding = Background(flood)
    talk_until(far, lambda: far._waiting_bytes >= MAX_WAITING_BYTES // 4)
    stop.set()
    flooding.outcome()
    assert len(far._messages) <= MAX_WAITING_BYTES // 64


def test_messages_that_came_before_the_end_are_there_after_it(ends: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = ends
    for n in range(50):
        near.send_message(b"%d" % n)
    closing_down = Background(near.close)
    received = [far.receive(BytesSink(), timeout_s=PATIENCE_S) for _ in range(50)]
    with pytest.raises(PeerClosedError):
        far.receive(BytesSink(), timeout_s=PATIENCE_S)
    closing_down.outcome()
    assert received == [b"%d" % n for n in range(50)]


def test_content_that_was_never_asked_for(ends: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = ends
    near.send_extent(Extent(0, 0, 1000), BytesSource(bytes(1000)))
    sending = Background(near.flush)
    with pytest.raises(ProtocolError, match="nobody asked for"):
        far.receive(None, timeout_s=PATIENCE_S)
    sending.outcome()


class TestIncomingExtents:
    def test_small_pieces_count_for_what_they_take(self) -> None:
        incoming = IncomingExtents()
        pieces = 0
        while incoming.accept_limit(has_sink=False):
            incoming.stash(2 * pieces, memoryview(b"x"))
            pieces += 1
        assert pieces < 1 << 18

    def test_a_full_stash_still_takes_what_has_a_place(self) -> None:
        incoming = IncomingExtents()
        incoming.announce([Extent(0, 0, 5000)])
        assert incoming.accept_limit(has_sink=True) == 5000 + STASH_BYTES
        incoming.stash(5000, memoryview(bytes(STASH_BYTES)))
        assert incoming.accept_limit(has_sink=True) == 5000
        assert incoming.accept_limit(has_sink=False) == 0
        incoming.announce([Extent(1, 0, STASH_BYTES)])
        assert incoming.land_stash(BytesSink())
        assert incoming.accept_limit(has_sink=False) == 5000 + 2 * STASH_BYTES

    def test_a_stash_is_looked_at_only_where_something_can_be_placed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        incoming = IncomingExtents()
        for position in range(20_000, 0, -2):
            incoming.stash(position, memoryview(b"x"))
        landings: list[int] = []
        land = incoming.land

        def counting(position: int, data: memoryview, sink: ExtentSink) -> bool:
            landings.append(position)
            return land(position, data, sink)

        monkeypatch.setattr(incoming, "land", counting)
        for _ in range(3):
            assert not incoming.land_stash(BytesSink())
        assert landings == []
        incoming.announce([Extent(0, 0, 5)])
        assert incoming.land_stash(BytesSink())
        assert landings == [2, 4]
        assert not incoming.land_stash(BytesSink())
        incoming.stash(1, memoryview(b"yz"))  # came without a sink, and its place is known
        sink = BytesSink()
        assert incoming.land_stash(sink)
        assert sink.pieces == {0: {1: b"yz"}}

    def test_a_piece_that_reaches_beyond_what_is_announced_lands_in_parts(self) -> None:
        incoming = IncomingExtents()
        sink = BytesSink()
        incoming.stash(0, memoryview(b"abcdef"))
        for n in range(2):
            incoming.announce([Extent(n, 0, 4)])
            assert incoming.land_stash(sink)
            assert not incoming.land_stash(sink)
        assert (sink.content(0), sink.content(1)) == (b"abcd", b"ef")
        assert incoming.stash_bytes == 0

    def test_announcements_are_taken_up_to_a_number(self) -> None:
        incoming = IncomingExtents()
        assert incoming.has_room
        incoming.announce([Extent(n, 0, 1) for n in range(MAX_EXTENTS)])
        assert not incoming.has_room
        incoming.forget(MAX_EXTENTS // 2)
        assert incoming.has_room

    def test_empty_extents_need_no_room_for_long(self) -> None:
        incoming = IncomingExtents()
        for _ in range(MAX_EXTENTS // 1024 + 2):
            incoming.announce([Extent(n, 0, 0) for n in range(1024)])
            incoming.forget(0)
        assert incoming.has_room
