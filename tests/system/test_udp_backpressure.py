"""A peer that sends more than this side receives: memory stays bounded, and everything arrives in the end."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.support.background import PATIENCE_S, Background, wait_until
from tests.support.content import BytesSink, BytesSource, receive_until
from tests.support.udp_channels import connected, serve_until_done
from toolkit.channel import Address, Extent, TransportOptions
from toolkit.errors import PeerClosedError, ProtocolError
from toolkit.transports.udp.channel import BACKLOG_BYTES, UdpChannel
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.extents import STASH_BYTES
from toolkit.transports.udp.message_queue import MAX_QUEUED_BYTES

OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S)
SLACK_BYTES = 1 << 20
OVERRUN_S = 0.3
"""How long a full buffer is watched: a sender that does not stop needs less to exceed it."""


@pytest.fixture
def pair() -> Iterator[tuple[UdpChannel, UdpChannel]]:
    with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as listener:
        near, far = connected(listener, OPTIONS)
        with closing(near), closing(far):
            yield near, far


def send_until(channel: UdpChannel, condition: Callable[[], bool]) -> None:
    """Send messages without receiving, like a session that is busy sending."""

    def step() -> bool:
        channel.send_message(b"busy")
        return condition()

    wait_until(step, "the peer's data")


def send_for(channel: UdpChannel, duration_s: float) -> None:
    end_s = time.monotonic() + duration_s
    send_until(channel, lambda: time.monotonic() >= end_s)


def test_content_without_a_sink_is_stashed_up_to_a_limit(pair: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = pair
    content = random.Random(1).randbytes(1 << 20)
    count = 3 * STASH_BYTES >> 20
    source = BytesSource(content)

    def flood() -> None:
        for file_id in range(count):
            near.send_extent(Extent(file_id, 0, len(content)), source)
        near.flush()

    flooding = Background(flood)
    send_until(far, lambda: far.buffered_bytes >= STASH_BYTES)
    send_for(far, OVERRUN_S)
    assert far.buffered_bytes <= STASH_BYTES + SLACK_BYTES
    sink = BytesSink()
    receive_until(far, sink, count * len(content), 0)
    serve_until_done(far, sink, flooding)
    flooding.outcome()
    assert sink.written_bytes == count * len(content)
    assert all(sink.content(file_id) == content for file_id in range(count))
    assert far.buffered_bytes == 0


def test_messages_are_queued_up_to_a_limit(pair: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = pair
    message = random.Random(2).randbytes(1 << 17)
    count = (MAX_QUEUED_BYTES + (8 << 20)) // len(message)

    def flood() -> None:
        for number in range(count):
            near.send_message(message[: len(message) - number])
        near.flush()

    flooding = Background(flood)
    send_until(far, lambda: far.buffered_bytes >= MAX_QUEUED_BYTES)
    send_for(far, OVERRUN_S)
    assert far.buffered_bytes <= MAX_QUEUED_BYTES + SLACK_BYTES
    assert flooding.is_alive()
    received = receive_until(far, BytesSink(), 0, count)
    serve_until_done(far, BytesSink(), flooding)
    flooding.outcome()
    assert [len(m) for m in received] == [len(message) - number for number in range(count)]
    assert far.buffered_bytes == 0


def test_a_sender_waits_while_too_much_is_unacknowledged(pair: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = pair
    message = random.Random(3).randbytes(1 << 17)
    count = (16 << 20) // len(message)
    sent = 0

    def flood() -> None:
        nonlocal sent
        for _ in range(count):
            near.send_message(message)
            sent += 1
        near.flush()

    flooding = Background(flood)
    wait_until(lambda: (sent + 1) * len(message) >= BACKLOG_BYTES, "a full backlog")
    time.sleep(OVERRUN_S)  # nothing drives the peer, so nothing is acknowledged
    assert flooding.is_alive()
    assert sent * len(message) <= BACKLOG_BYTES + SLACK_BYTES
    assert receive_until(far, BytesSink(), 0, count) == [message] * count
    serve_until_done(far, BytesSink(), flooding)
    flooding.outcome()


def test_empty_messages_count_with_their_overhead(pair: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = pair
    count = 1000

    def flood() -> None:
        for _ in range(count):
            near.send_message(b"")
        near.flush()

    flooding = Background(flood)
    send_until(far, lambda: not flooding.is_alive())
    assert far.buffered_bytes >= 64 * count
    assert receive_until(far, BytesSink(), 0, count) == [b""] * count
    flooding.outcome()


def test_messages_from_before_the_end_are_received_after_it(pair: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = pair
    for number in range(50):
        near.send_message(b"%d" % number)
    closing_near = Background(near.close)
    received = [far.receive(BytesSink(), timeout_s=PATIENCE_S) for _ in range(50)]
    with pytest.raises(PeerClosedError):
        far.receive(BytesSink(), timeout_s=PATIENCE_S)
    closing_near.outcome()
    assert received == [b"%d" % number for number in range(50)]


def test_content_without_a_sink_is_a_protocol_error(pair: tuple[UdpChannel, UdpChannel]) -> None:
    near, far = pair
    near.send_extent(Extent(0, 0, 1000), BytesSource(bytes(1000)))
    sending = Background(near.flush)
    with pytest.raises(ProtocolError, match="none is expected"):
        far.receive(None, timeout_s=PATIENCE_S)
    sending.outcome()
