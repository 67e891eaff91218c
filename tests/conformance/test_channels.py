"""What every channel, listener and transport does (toolkit/channel.py)."""

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.support.conformance_network import PATIENCE_S, BytesSink, BytesSource, Case, Network, receive_until, together
from toolkit.channel import (
    COMMON_STATISTICS,
    MAX_IDLE_TIMEOUT_S,
    MAX_MESSAGE_BYTES,
    Address,
    Channel,
    Extent,
    TransportOptions,
)
from toolkit.errors import PeerClosedError, ProtocolError, TransferError, UnreachableError, UsageError


@pytest.fixture
def source_of() -> Iterator[Callable[[bytes], BytesSource]]:
    """Makes sources with a file behind them."""
    files = []

    def make(content: bytes) -> BytesSource:
        files.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed below
        return BytesSource(content, files[-1])

    yield make
    for file in files:
        file.close()


def drain(channel: Channel) -> list[bytes]:
    """Every message until the peer has closed, whatever content comes."""
    messages = []
    until = time.monotonic() + PATIENCE_S
    with suppress(PeerClosedError):
        while time.monotonic() < until:
            message = channel.receive(BytesSink(), PATIENCE_S)
            if message is not None:
                messages.append(message)
    return messages


def test_messages_keep_their_bytes_and_their_order(network: Network) -> None:
    sender, receiver = network.pair()
    messages = [b"", b"\0", bytes(MAX_MESSAGE_BYTES), *(str(n).encode() * n for n in range(300))]

    def send() -> None:
        for message in messages:
            sender.send_message(message)
        sender.flush()

    _, received = together(send, lambda: receive_until(receiver, BytesSink(), 0, len(messages)))
    assert received == messages


def test_both_ends_may_send_before_either_receives(network: Network) -> None:
    ends = network.pair()
    message = random.Random(1).randbytes(MAX_MESSAGE_BYTES)
    count = 40  # more than kernel buffers hold

    def talk(channel: Channel) -> list[bytes]:
        for _ in range(count):
            channel.send_message(message)
        received = receive_until(channel, BytesSink(), 0, count)
        channel.flush()
        return received

    for received in together(*(lambda end=end: talk(end) for end in ends)):
        assert received == [message] * count


@pytest.mark.parametrize("seed", range(3))
def test_extents_land_whole_once_and_at_their_offset(
    network: Network, source_of: Callable[[bytes], BytesSource], seed: int
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


def test_offsets_and_ids_may_be_huge(network: Network) -> None:
    file_id, offset, content = 2**32 - 1, (1 << 43) + 1, b"far out"

    class FarSource(BytesSource):
        """Content that lies behind a hole of 8 TiB."""

        def __init__(self) -> None:
            super().__init__(content)
            self._file = file

        def read_into(self, at: int, buffer: memoryview) -> None:
            super().read_into(at - offset, buffer)

        def moved(self, at: int, length: int) -> None:
            super().moved(at - offset, length)

    sender, receiver = network.pair()
    sink = BytesSink()
    with tempfile.TemporaryFile() as file:
        file.seek(offset)
        file.write(content)
        file.flush()
        source = FarSource()
        together(
            lambda: (sender.send_extent(Extent(file_id, offset, len(content)), source), sender.flush()),
            lambda: receive_until(receiver, sink, len(content), 0),
        )
    assert sink.content(file_id) == content
    assert min(sink.landed[file_id]) == offset


def test_a_look_does_not_wait_and_a_wait_ends_in_time(network: Network) -> None:
    _, receiver = network.pair()
    begun = time.monotonic()
    assert receiver.receive(BytesSink(), 0) is None
    assert time.monotonic() - begun < 1
    begun = time.monotonic()
    assert receiver.receive(BytesSink(), 0.1) is None
    assert 0.09 < time.monotonic() - begun < 2


def test_what_was_sent_before_a_close_arrives_before_its_error(
    network: Network, source_of: Callable[[bytes], BytesSource]
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
        for _ in range(3):  # a channel of several streams may still say that the last content has landed
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


def test_the_peer_of_an_abort_sees_that_it_was_closed(network: Network) -> None:
    sender, receiver = network.pair()
    sender.send_message(b"hello")
    assert receiver.receive(BytesSink(), PATIENCE_S) == b"hello"
    sender.abort()
    sender.abort()
    sender.close()
    with pytest.raises(PeerClosedError):
        receiver.receive(BytesSink(), PATIENCE_S)

    def send_on() -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            receiver.send_message(b"anybody?")

    with pytest.raises(PeerClosedError):  # at once, or as soon as the network has told
        send_on()
    receiver.close()
    receiver.abort()


def test_the_last_message_reaches_a_peer_that_is_sending(
    network: Network, source_of: Callable[[bytes], BytesSource]
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


def test_a_silent_peer_is_lost_after_the_idle_timeout(case: Case) -> None:
    network = Network(case._replace(options=replace(case.options, idle_timeout_s=0.5)))
    try:
        sender, _ = network.pair()
        begun = time.monotonic()

        def wait_in_parts() -> None:
            while time.monotonic() - begun < 10:
                sender.receive(timeout_s=0.05)

        with pytest.raises(PeerClosedError):
            wait_in_parts()
        assert 0.3 < time.monotonic() - begun < 5
        sender.abort()

        _, receiver = network.pair()
        begun = time.monotonic()
        with pytest.raises(PeerClosedError):
            receiver.receive(BytesSink())
        assert 0.3 < time.monotonic() - begun < 5
    finally:
        network.close()


def test_the_longest_idle_timeout_can_be_waited_for(network: Network) -> None:
    sender, receiver = network.pair(idle_timeout_s=MAX_IDLE_TIMEOUT_S)
    messages, _ = together(receiver.receive, lambda: sender.send_message(b"in time"))
    assert messages == b"in time"


@pytest.mark.parametrize("idle_timeout_s", [0.0, -1.0, MAX_IDLE_TIMEOUT_S + 1, float("inf"), float("nan")])
def test_an_idle_timeout_that_no_system_keeps_is_refused(idle_timeout_s: float) -> None:
    with pytest.raises(UsageError, match="idle timeout"):
        TransportOptions(idle_timeout_s=idle_timeout_s)


def test_a_wait_ends_as_soon_as_something_else_is_readable(network: Network) -> None:
    sender, receiver = network.pair()
    reading, writing = os.pipe()
    begun = time.monotonic()
    answers = together(lambda: sender.receive(timeout_s=PATIENCE_S, wake=reading), lambda: os.write(writing, b"x"))
    assert answers[0] is None
    assert time.monotonic() - begun < PATIENCE_S / 2
    receiver.send_message(b"what comes is taken all the same")
    while (message := sender.receive(timeout_s=PATIENCE_S, wake=reading)) is None:
        assert time.monotonic() - begun < PATIENCE_S
    assert message == b"what comes is taken all the same"
    os.close(writing)
    os.close(reading)


def test_what_wakes_a_wait_is_no_sign_of_the_peer(case: Case) -> None:
    network = Network(case._replace(options=replace(case.options, idle_timeout_s=0.5)))
    reading, writing = os.pipe()
    is_lost = threading.Event()
    try:
        sender, _ = network.pair()
        begun = time.monotonic()

        def be_woken() -> None:
            try:
                while time.monotonic() - begun < 10:
                    sender.receive(wake=reading)
                    os.read(reading, 1)
            finally:
                is_lost.set()

        def wake() -> None:
            while not is_lost.wait(0.05):
                os.write(writing, b"x")

        with pytest.raises(PeerClosedError):
            together(be_woken, wake)
        assert 0.3 < time.monotonic() - begun < 5
    finally:
        is_lost.set()
        network.close()
        os.close(writing)
        os.close(reading)


def test_content_without_a_sink_is_an_error(network: Network, source_of: Callable[[bytes], BytesSource]) -> None:
    sender, receiver = network.pair()
    sender.send_extent(Extent(0, 0, 5), source_of(b"hello"))
    sender.send_message(b"after")

    def receive() -> None:
        for _ in range(3):
            receiver.receive(timeout_s=PATIENCE_S)

    with pytest.raises(ProtocolError):
        receive()


def test_an_error_of_the_sink_comes_out_and_messages_still_go(
    network: Network, source_of: Callable[[bytes], BytesSource]
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


def test_an_error_of_the_source_comes_out_and_messages_still_go(network: Network) -> None:
    class ShrunkSource(BytesSource):
        """A file that ends in the middle of what was promised."""

        def read_into(self, offset: int, buffer: memoryview) -> None:
            if offset + len(buffer) > 70_000:
                raise TransferError("it shrank")
            buffer[:] = bytes(len(buffer))

    sender, receiver = network.pair()
    with tempfile.TemporaryFile() as file:
        source = ShrunkSource(bytes(70_000), file)

        def hand_over() -> None:
            sender.send_extent(Extent(0, 0, 1 << 20), source)
            sender.flush()  # where it has not been read before

        def send() -> None:
            with pytest.raises(TransferError):
                hand_over()
            sender.send_message(b"it shrank")
            sender.close()

        _, messages = together(send, lambda: drain(receiver))
        assert messages == [b"it shrank"]


def test_a_flush_has_everything_released(network: Network, source_of: Callable[[bytes], BytesSource]) -> None:
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


def test_statistics_have_the_common_names(network: Network, source_of: Callable[[bytes], BytesSource]) -> None:
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


def test_addresses_are_those_of_the_ends(network: Network) -> None:
    sender, receiver = network.pair()
    assert network.listener.address.port > 0
    assert sender.peer.port == network.listener.address.port
    assert receiver.peer.host
    assert receiver.peer.port > 0


def test_sessions_do_not_mix(network: Network) -> None:
    pairs = [network.pair() for _ in range(4)]
    for number, (sender, receiver) in enumerate(pairs):
        sender.send_message(b"to %d" % number)
        receiver.send_message(b"from %d" % number)
    for number, (sender, receiver) in reversed(list(enumerate(pairs))):
        assert receiver.receive(timeout_s=PATIENCE_S) == b"to %d" % number
        assert sender.receive(timeout_s=PATIENCE_S) == b"from %d" % number


def test_nobody_there_is_an_error_in_time(case: Case) -> None:
    transport = case.make()
    listener = transport.listen(Address(case.host, 0), case.options)
    address = listener.address
    listener.close()
    with suppress(PeerClosedError):
        listener.accept(0)
    begun = time.monotonic()
    with pytest.raises(UnreachableError):
        transport.connect(address, case.options)
    assert time.monotonic() - begun < 6


def test_a_port_is_taken_once(network: Network) -> None:
    with pytest.raises(UnreachableError):
        network.transport.listen(network.listener.address, network.options)


def test_a_listener_waits_as_long_as_it_is_told(network: Network) -> None:
    begun = time.monotonic()
    assert network.listener.accept(0.1) is None
    assert 0.09 < time.monotonic() - begun < 2


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
