"""What every channel, listener and transport does (toolkit/channel.py)."""

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.support.background import PATIENCE_S, together
from tests.support.conformance_network import CASES, Case, Network
from tests.support.content import (
    BytesSink,
    BytesSource,
    FileSource,
    StallingDisk,
    StallingSink,
    StallingSource,
    receive_until,
)
from tests.support.tcp_controls import default_control
from toolkit.channel import (
    COMMON_STATISTICS,
    MAX_IDLE_TIMEOUT_S,
    MAX_MESSAGE_BYTES,
    Address,
    Channel,
    Extent,
    TransportOptions,
)
from toolkit.comparison.reverse import SendingChannel
from toolkit.errors import PeerClosedError, ProtocolError, TransferError, UnreachableError, UsageError


@pytest.fixture
def source_of() -> Iterator[Callable[[bytes], FileSource]]:
    """Makes sources of files."""
    sources: list[FileSource] = []

    def make(content: bytes) -> FileSource:
        sources.append(FileSource(content))
        return sources[-1]

    yield make
    for source in sources:
        source.close()


@pytest.fixture
def impatient(case: Case) -> Iterator[Network]:
    """A network with an idle timeout of half a second."""
    made = Network(case._replace(options=replace(case.options, idle_timeout_s=0.5)))
    yield made
    made.close()


def drain(channel: Channel) -> list[bytes]:
    """Return every message until the peer closes; discards content."""
    messages = []
    deadline_s = time.monotonic() + PATIENCE_S
    with suppress(PeerClosedError):
        while time.monotonic() < deadline_s:
            message = channel.receive(BytesSink(), PATIENCE_S)
            if message is not None:
                messages.append(message)
    return messages


def test_messages_arrive_unchanged_and_in_order(network: Network) -> None:
    sender, receiver = network.pair()
    messages = [b"", b"\0", bytes(MAX_MESSAGE_BYTES), *(str(n).encode() * n for n in range(300))]

    def send() -> None:
        for message in messages:
            sender.send_message(message)
        sender.flush()

    _, received = together(send, lambda: receive_until(receiver, BytesSink(), 0, len(messages)))
    assert received == messages


def test_both_peers_may_send_before_either_receives(network: Network) -> None:
    pair = network.pair()
    message = random.Random(1).randbytes(MAX_MESSAGE_BYTES)
    count = 40  # more than kernel buffers hold

    def talk(channel: Channel) -> list[bytes]:
        for _ in range(count):
            channel.send_message(message)
        received = receive_until(channel, BytesSink(), 0, count)
        channel.flush()
        return received

    for received in together(*(lambda channel=channel: talk(channel) for channel in pair)):
        assert received == [message] * count


@pytest.mark.parametrize("seed", range(3))
def test_extents_are_written_once_at_their_offset(
    network: Network, source_of: Callable[[bytes], FileSource], seed: int
) -> None:
    dice = random.Random(seed)
    contents = [dice.randbytes(size) for size in (0, 1, 1399, 65536, 3_000_017)]
    sources = [source_of(content) for content in contents]
    extents = []
    for file_id, content in enumerate(contents):
        cuts = sorted({0, len(content), *(dice.randint(0, len(content)) for _ in range(4))})
        extents += [Extent(file_id, a, b - a) for a, b in pairwise(cuts)]
        extents.append(Extent(file_id, len(content), 0))
    dice.shuffle(extents)
    sender, receiver = network.pair()
    sink = BytesSink()

    def send() -> None:
        for number, extent in enumerate(extents):
            sender.send_message(b"before %d" % number)
            sender.send_extent(extent, sources[extent.file_id])
        sender.send_message(b"end")
        sender.flush()

    total = sum(map(len, contents))
    _, messages = together(send, lambda: receive_until(receiver, sink, total, len(extents) + 1))
    assert [sink.content(file_id) for file_id in range(len(contents))] == contents
    assert messages == [*(b"before %d" % number for number in range(len(extents))), b"end"]
    for file_id, source in enumerate(sources):
        assert sorted(source.released) == sorted(extent for extent in extents if extent.file_id == file_id)


def test_the_side_that_has_accepted_may_choose_how_it_sends_and_send(
    network: Network, source_of: Callable[[bytes], FileSource]
) -> None:
    receiver, sender = network.pair()
    if not isinstance(sender, SendingChannel):
        pytest.skip("this transport has nothing to choose")
    control = default_control()  # of TCP's, one that this user may choose
    sender.choose_sending(control, rate_bps=400e6, backlog_bytes=1 << 16)
    content, sink = random.Random(1).randbytes(1_000_003), BytesSink()
    extent = Extent(0, 0, len(content))

    def send() -> None:
        sender.send_extent(extent, source_of(content))
        sender.flush()

    together(send, lambda: receive_until(receiver, sink, len(content), 0))
    assert sink.content(0) == content
    assert sender.statistics()["congestion_control"] == control
    with pytest.raises(UsageError, match="nosuch"):
        sender.choose_sending("nosuch", None, None)
    with pytest.raises(UsageError, match="too low"):
        sender.choose_sending(None, 1e-300, None)


def test_offsets_and_ids_may_be_huge(network: Network) -> None:
    file_id, offset, content = 2**32 - 1, (1 << 43) + 1, b"far out"
    sender, receiver = network.pair()
    source, sink = FileSource(content, start=offset), BytesSink()
    together(
        lambda: (sender.send_extent(Extent(file_id, offset, len(content)), source), sender.flush()),
        lambda: receive_until(receiver, sink, len(content), 0),
    )
    source.close()
    assert sink.pieces == {file_id: {offset: content}}


def test_receive_with_a_timeout_returns_none(network: Network) -> None:
    _, receiver = network.pair()
    assert receiver.receive(BytesSink(), 0) is None
    begin_s = time.monotonic()
    assert receiver.receive(BytesSink(), 0.1) is None
    assert time.monotonic() - begin_s > 0.09


def test_everything_sent_before_a_close_arrives_before_the_error(
    network: Network, source_of: Callable[[bytes], FileSource]
) -> None:
    sender, receiver = network.pair()
    content = random.Random(2).randbytes(2_000_000)

    def send() -> None:
        sender.send_message(b"one")
        sender.send_extent(Extent(0, 0, len(content)), source_of(content))
        sender.send_message(b"two")
        sender.close()
        sender.close()

    def receive_on(sink: BytesSink) -> None:
        for _ in range(3):  # with several streams, one call may still report the last content
            receiver.receive(sink, PATIENCE_S)

    def receive() -> BytesSink:
        sink = BytesSink()
        assert receive_until(receiver, sink, len(content), 2) == [b"one", b"two"]
        with pytest.raises(PeerClosedError):
            receive_on(sink)
        receiver.close()
        return sink

    _, sink = together(send, receive)
    assert sink.content(0) == content


def test_an_abort_closes_the_peers_channel(network: Network) -> None:
    sender, receiver = network.pair()
    sender.send_message(b"hello")
    assert receiver.receive(BytesSink(), PATIENCE_S) == b"hello"
    sender.abort()
    sender.abort()
    sender.close()
    with pytest.raises(PeerClosedError):
        receiver.receive(BytesSink(), PATIENCE_S)

    def send_on() -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            receiver.send_message(b"anybody?")

    with pytest.raises(PeerClosedError):  # at once, or once the network has reported it
        send_on()
    receiver.close()
    receiver.abort()


def test_the_last_message_reaches_a_peer_that_is_sending(
    network: Network, source_of: Callable[[bytes], FileSource]
) -> None:
    sender, receiver = network.pair()
    source = source_of(bytes(1 << 24))

    def send() -> list[bytes]:
        with suppress(PeerClosedError):
            for _ in range(20):
                sender.send_extent(Extent(0, 0, len(source.content)), source)
                if (message := sender.receive(timeout_s=0)) is not None:
                    return [message]
        return drain(sender)

    def refuse() -> None:
        receiver.receive(BytesSink(), PATIENCE_S)
        receiver.send_message(b"enough")
        receiver.close()

    messages, _ = together(send, refuse)
    assert messages == [b"enough"]


def test_a_silent_peer_is_lost_after_the_idle_timeout(impatient: Network) -> None:
    """Silence adds up over short waits, and ends a wait without a timeout."""
    begin_s = time.monotonic()  # some transports count from the handshake
    sender, _ = impatient.pair()

    def wait_in_parts() -> None:
        while time.monotonic() < begin_s + PATIENCE_S:
            sender.receive(timeout_s=0.05)

    with pytest.raises(PeerClosedError, match="was silent for"):
        wait_in_parts()
    assert time.monotonic() - begin_s > 0.4
    sender.abort()

    begin_s = time.monotonic()
    _, receiver = impatient.pair()
    with pytest.raises(PeerClosedError):
        receiver.receive(BytesSink())
    assert time.monotonic() - begin_s > 0.4


@pytest.mark.long
@pytest.mark.parametrize("staller", ["sender", "receiver", "both"])
@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_a_disk_that_stalls_for_longer_than_the_idle_timeout_costs_no_connection(name: str, staller: str) -> None:
    case = CASES[name]
    network = Network(case._replace(options=replace(case.options, idle_timeout_s=3.0)))
    content = random.Random(1).randbytes(32 << 20)
    disks = [StallingDisk(lambda: time.sleep(8), after_bytes=after_bytes) for after_bytes in (3 << 20, 1 << 20)]
    source = BytesSource(content) if staller == "receiver" else StallingSource(content, disks[0])
    sink = BytesSink() if staller == "sender" else StallingSink(disks[1])
    sender, receiver = network.pair()

    def send() -> None:
        sender.send_extent(Extent(0, 0, len(content)), source)
        sender.send_message(b"end")
        sender.flush()

    try:
        together(send, lambda: receive_until(receiver, sink, len(content), 1))
    finally:
        network.close()
    assert sink.content(0) == content


def test_the_longest_idle_timeout_works(network: Network) -> None:
    sender, receiver = network.pair(idle_timeout_s=MAX_IDLE_TIMEOUT_S)
    messages, _ = together(receiver.receive, lambda: sender.send_message(b"in time"))
    assert messages == b"in time"


@pytest.mark.parametrize("idle_timeout_s", [0.0, -1.0, MAX_IDLE_TIMEOUT_S + 1, float("inf"), float("nan")])
def test_an_idle_timeout_out_of_range_is_a_usage_error(idle_timeout_s: float) -> None:
    with pytest.raises(UsageError, match="idle timeout"):
        TransportOptions(idle_timeout_s=idle_timeout_s)


def test_a_readable_wake_descriptor_ends_a_wait(network: Network) -> None:
    sender, receiver = network.pair()
    reading, writing = os.pipe()
    answers = together(lambda: sender.receive(timeout_s=2 * PATIENCE_S, wake=reading), lambda: os.write(writing, b"x"))
    assert answers[0] is None
    receiver.send_message(b"still received")
    deadline_s = time.monotonic() + PATIENCE_S
    while (message := sender.receive(timeout_s=PATIENCE_S, wake=reading)) is None:
        assert time.monotonic() < deadline_s
    assert message == b"still received"
    os.close(writing)
    os.close(reading)


def test_a_wake_up_does_not_count_as_a_sign_of_the_peer(impatient: Network) -> None:
    reading, writing = os.pipe()
    is_lost = threading.Event()
    sender, _ = impatient.pair()
    deadline_s = time.monotonic() + PATIENCE_S

    def be_woken() -> None:
        try:
            while time.monotonic() < deadline_s:
                sender.receive(wake=reading)
                os.read(reading, 1)
        finally:
            is_lost.set()

    def wake() -> None:
        while not is_lost.wait(0.05):
            os.write(writing, b"x")

    try:
        with pytest.raises(PeerClosedError):
            together(be_woken, wake)
    finally:
        is_lost.set()
        os.close(writing)
        os.close(reading)


def test_content_without_a_sink_is_a_protocol_error(network: Network, source_of: Callable[[bytes], FileSource]) -> None:
    sender, receiver = network.pair()
    sender.send_extent(Extent(0, 0, 5), source_of(b"hello"))
    sender.send_message(b"after")

    def receive() -> None:
        for _ in range(3):
            receiver.receive(timeout_s=PATIENCE_S)

    with pytest.raises(ProtocolError):
        receive()


def test_an_error_of_the_sink_is_raised_and_messages_still_arrive(
    network: Network, source_of: Callable[[bytes], FileSource]
) -> None:
    class FullSink(BytesSink):
        def write(self, *_: object) -> None:
            raise TransferError("no space left")

    sender, receiver = network.pair()
    content = bytes(1 << 20)

    def send() -> list[bytes]:
        with suppress(PeerClosedError):
            sender.send_extent(Extent(0, 0, len(content)), source_of(content))
        return drain(sender)

    def receive() -> None:
        with pytest.raises(TransferError, match="no space left"):
            receiver.receive(FullSink(), PATIENCE_S)
        receiver.send_message(b"no space left")
        receiver.close()

    messages, _ = together(send, receive)
    assert messages == [b"no space left"]


def test_an_error_of_the_source_is_raised_and_messages_still_arrive(
    network: Network, source_of: Callable[[bytes], FileSource]
) -> None:
    sender, receiver = network.pair()
    source = source_of(bytes(1 << 20))
    source.truncate(70_000)

    def send_and_flush() -> None:
        sender.send_extent(Extent(0, 0, 1 << 20), source)
        sender.flush()  # for transports that read the source later

    def send() -> None:
        with pytest.raises(TransferError):
            send_and_flush()
        sender.send_message(b"it shrank")
        sender.close()

    _, messages = together(send, lambda: drain(receiver))
    assert messages == [b"it shrank"]


def test_everything_is_released_after_a_flush(network: Network, source_of: Callable[[bytes], FileSource]) -> None:
    sender, receiver = network.pair()
    source = source_of(random.Random(3).randbytes(5_000_000))
    extents = [Extent(0, offset, 1_000_000) for offset in range(0, 5_000_000, 1_000_000)]
    sink = BytesSink()

    def send() -> None:
        for extent in extents:
            sender.send_extent(extent, source)
        sender.flush()
        assert sorted(source.released) == extents

    together(send, lambda: receive_until(receiver, sink, len(source.content), 0))
    assert sink.content(0) == source.content


def test_counts_what_the_peer_has_acknowledged(network: Network, source_of: Callable[[bytes], FileSource]) -> None:
    sender, receiver = network.pair()
    source, sink = source_of(bytes(3_000_000)), BytesSink()
    assert sender.acknowledged_bytes == 0

    def send() -> None:
        for offset in (0, 1_000_000, 2_000_000):
            sender.send_extent(Extent(0, offset, 1_000_000), source)
            assert 0 <= sender.acknowledged_bytes <= offset + 1_000_000
        sender.flush()
        deadline_s = time.monotonic() + PATIENCE_S
        while sender.acknowledged_bytes != 3_000_000:
            assert time.monotonic() < deadline_s, sender.acknowledged_bytes
            sender.receive(timeout_s=0.001)

    together(send, lambda: receive_until(receiver, sink, 3_000_000, 0))
    assert receiver.acknowledged_bytes == 0


def test_statistics_have_the_common_names(network: Network, source_of: Callable[[bytes], FileSource]) -> None:
    sender, receiver = network.pair()
    source = source_of(bytes(1_000_000))
    sink = BytesSink()
    together(
        lambda: (sender.send_extent(Extent(0, 0, 1_000_000), source), sender.flush()),
        lambda: receive_until(receiver, sink, 1_000_000, 0),
    )
    for channel in (sender, receiver):
        statistics = channel.statistics()
        assert set(COMMON_STATISTICS) <= set(statistics)
        assert all(isinstance(value, int | float | str) for value in statistics.values())
    sent = sender.statistics()["packets_sent"]
    assert isinstance(sent, int)
    assert sent > 0


def test_each_channel_knows_its_peers_address(network: Network) -> None:
    sender, receiver = network.pair()
    assert network.listener.address.port > 0
    assert sender.peer.port == network.listener.address.port
    assert receiver.peer.host
    assert receiver.peer.port > 0


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_channel_that_has_ended_holds_nothing_of_its_session(network: Network, end: str) -> None:
    """Each of them refers to the other: with its buffers, it would stay until the garbage collector finds it."""

    class Session:
        def check(self) -> None:
            pass

    sender, receiver = network.pair()
    session = Session()
    left = weakref.ref(session)
    sender.check_while_waiting(session.check)
    del session
    together(sender.close if end == "close" else sender.abort, lambda: drain(receiver))
    assert left() is None


def test_sessions_do_not_mix(network: Network) -> None:
    pairs = [network.pair() for _ in range(4)]
    for number, (sender, receiver) in enumerate(pairs):
        sender.send_message(b"to %d" % number)
        receiver.send_message(b"from %d" % number)
    for number, (sender, receiver) in reversed(list(enumerate(pairs))):
        assert receiver.receive(timeout_s=PATIENCE_S) == b"to %d" % number
        assert sender.receive(timeout_s=PATIENCE_S) == b"from %d" % number


def test_a_closed_port_is_reported_before_the_connect_timeout(case: Case) -> None:
    transport = case.make()
    options = replace(case.options, connect_timeout_s=2 * PATIENCE_S)
    listener = transport.listen(Address(case.host, 0), options)
    address = listener.address
    listener.close()
    with suppress(PeerClosedError):
        listener.accept(0)
    begin_s = time.monotonic()
    with pytest.raises(UnreachableError):
        transport.connect(address, options)
    assert time.monotonic() - begin_s < PATIENCE_S


def test_a_port_has_one_listener(network: Network) -> None:
    with pytest.raises(UnreachableError):
        network.transport.listen(network.listener.address, network.options)


def test_accept_with_a_timeout_returns_none(network: Network) -> None:
    begin_s = time.monotonic()
    assert network.listener.accept(0.1) is None
    assert time.monotonic() - begin_s > 0.09


def test_a_listener_may_be_closed_from_another_thread(network: Network) -> None:
    accepting = threading.Event()

    def accept() -> None:
        accepting.set()
        with pytest.raises(PeerClosedError):
            network.listener.accept(PATIENCE_S)

    def close() -> None:
        accepting.wait(PATIENCE_S)
        network.listener.close()
        network.listener.close()

    together(accept, close)


def test_channels_outlive_their_listener(network: Network) -> None:
    sender, receiver = network.pair()
    network.listener.close()
    with suppress(PeerClosedError):
        network.listener.accept(0)
    sender.send_message(b"still here")
    assert receiver.receive(timeout_s=PATIENCE_S) == b"still here"
