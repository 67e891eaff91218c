"""What only TCP has: frames against hostile peers, lost connections, pacing, several connections, splice."""

import os
import random
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from toolkit.channel import MAX_MESSAGE_BYTES, Address, Extent, TransportOptions
from toolkit.errors import PeerClosedError, ProtocolError, TransferError
from toolkit.transports.tcp import splice, wire
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.stream import SLICE_BYTES
from toolkit.transports.tcp.transport import TcpTransport

PATIENCE_S = 20.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FileSource:
    """An ExtentSource of a file, which keeps account."""

    def __init__(self, content: bytes) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._file.write(content)
        self._file.flush()
        self.reads: list[tuple[int, int]] = []
        self.moves: list[tuple[int, int]] = []
        self.released: list[Extent] = []

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def fileno(self) -> int:
        return self._file.fileno()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, len(buffer)))
        if os.preadv(self._file.fileno(), [buffer], offset) != len(buffer):
            raise TransferError("the file shrank")

    def moved(self, offset: int, length: int) -> None:
        self.moves.append((offset, length))

    def release(self, extent: Extent) -> None:
        self.released.append(extent)

    def close(self) -> None:
        self._file.close()


class WritingSink:
    """An ExtentSink into a file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._condition = threading.Condition()
        self.written_bytes = 0
        self.threads: set[int] = set()
        self.waits_for_threads = 1

    @property
    def landed_bytes(self) -> int:
        return self.written_bytes

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        assert file_id == 0
        with self._condition:
            self.threads.add(threading.get_ident())
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: len(self.threads) >= self.waits_for_threads, PATIENCE_S)
        os.pwrite(self._file.fileno(), data, offset)
        with self._condition:
            self.written_bytes += len(data)

    def content(self) -> bytes:
        self._file.seek(0)
        return self._file.read()

    def close(self) -> None:
        self._file.close()


class SplicingSink(WritingSink):
    """A DescriptorSink; `target` is what it offers, its own file where None."""

    def __init__(self, target: int | None = None) -> None:
        super().__init__()
        self._target = target
        self.spliced_bytes = 0
        self.asked: list[Extent] = []

    @property
    def landed_bytes(self) -> int:
        return self.written_bytes + self.spliced_bytes

    def descriptor(self, file_id: int, offset: int, length: int) -> int | None:
        self.asked.append(Extent(file_id, offset, length))
        return self._file.fileno() if self._target is None else self._target

    def landed(self, file_id: int, offset: int, length: int) -> None:
        assert file_id == 0
        assert offset >= 0
        self.spliced_bytes += length


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


class Pairs:
    """Makes pairs of channels, and of a raw socket and a channel."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def channels(self, **options: Any) -> tuple[TcpChannel, TcpChannel]:
        listener = TcpTransport().listen(Address("127.0.0.1", 0), TransportOptions(**options))
        accepted: list[TcpChannel | None] = []
        thread = threading.Thread(target=lambda: accepted.append(listener.accept(PATIENCE_S)))
        thread.start()
        sender = TcpTransport().connect(listener.address, TransportOptions(**options))
        thread.join()
        listener.close()
        receiver = accepted[0]
        assert receiver is not None
        self._stack.callback(receiver.abort)
        self._stack.callback(sender.abort)
        return sender, receiver

    def raw(self, **options: Any) -> tuple[socket.socket, TcpChannel]:
        """A client after its handshake, and our end."""
        listener = TcpTransport().listen(Address("127.0.0.1", 0), TransportOptions(**options))
        client = self._stack.enter_context(socket.create_connection(listener.address))
        client.settimeout(PATIENCE_S)
        client.sendall(wire.encode_hello(wire.Hello(wire.NO_TOKEN, 1, 0, b"")))
        channel = listener.accept(PATIENCE_S)
        listener.close()
        assert channel is not None
        self._stack.callback(channel.abort)
        assert client.recv(wire.PREFACE_BYTES + 18, socket.MSG_WAITALL)
        return client, channel


@pytest.fixture
def pairs(stack: ExitStack) -> Pairs:
    return Pairs(stack)


@pytest.fixture
def source_of(stack: ExitStack) -> Callable[[bytes], FileSource]:
    def make(content: bytes) -> FileSource:
        source = FileSource(content)
        stack.callback(source.close)
        return source

    return make


@pytest.fixture
def sink(stack: ExitStack) -> WritingSink:
    made = WritingSink()
    stack.callback(made.close)
    return made


def in_thread(stack: ExitStack, body: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=body)
    thread.start()
    stack.callback(lambda: thread.join(PATIENCE_S))
    return thread


# Frames


def test_frames_may_come_byte_by_byte(pairs: Pairs, sink: WritingSink) -> None:
    client, channel = pairs.raw()
    data = (
        wire.encode_message_header(5) + b"hello" + wire.encode_extent_header(Extent(0, 3, 4)) + b"data"
    ) + wire.encode_message_header(0)
    received = []
    for number in range(len(data)):
        client.send(data[number : number + 1])
        while not select.select([channel._first.socket], [], [], PATIENCE_S)[0]:
            pass
        if (message := channel.receive(sink, 0)) is not None:
            received.append((number, message))
    assert received == [(28, b"hello"), (len(data) - 1, b"")]
    assert sink.content() == b"\0\0\0data"


def test_many_frames_may_come_at_once(pairs: Pairs, sink: WritingSink) -> None:
    client, channel = pairs.raw()
    frames = [wire.encode_message_header(3) + b"%03d" % n for n in range(100)]
    frames += [wire.encode_extent_header(Extent(0, n, 1)) + b"x" for n in range(100)]
    client.sendall(b"".join(frames))
    messages = []
    while sink.landed_bytes < 100:
        if (message := channel.receive(sink, PATIENCE_S)) is not None:
            messages.append(message)
    assert messages == [b"%03d" % n for n in range(100)]
    assert sink.content() == b"x" * 100


@pytest.mark.parametrize(
    "header",
    [
        wire.encode_message_header(MAX_MESSAGE_BYTES + 1),
        wire.encode_extent_header(Extent(0, 2**63, 2**63)),
        b"\xff" * wire.FRAME_BYTES,
    ],
)
def test_a_hostile_frame_is_an_error_and_nothing_behind_it_is_read(
    pairs: Pairs, sink: WritingSink, header: bytes
) -> None:
    client, channel = pairs.raw()
    client.sendall(wire.encode_message_header(2) + b"ok" + header + wire.encode_message_header(4) + b"more")
    assert channel.receive(sink, PATIENCE_S) == b"ok"
    for _ in range(2):
        with pytest.raises(ProtocolError):
            channel.receive(sink, PATIENCE_S)
    channel.send_message(b"that was wrong")
    channel.close()
    assert client.recv(1000, socket.MSG_WAITALL) == wire.encode_message_header(14) + b"that was wrong"


@pytest.mark.parametrize("cut", [0, 10, 30])
def test_an_end_in_the_middle_is_a_lost_peer(pairs: Pairs, cut: int) -> None:
    client, channel = pairs.raw()
    client.sendall((wire.encode_message_header(100) + bytes(100))[:cut])
    client.close()
    for _ in range(2):
        with pytest.raises(PeerClosedError, match=r"127\.0\.0\.1:\d+ closed the connection before the end"):
            channel.receive(timeout_s=PATIENCE_S)


def test_a_reset_is_a_lost_peer_either_way(pairs: Pairs, source_of: Callable[[bytes], FileSource]) -> None:
    client, channel = pairs.raw()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.close()
    source = source_of(bytes(SLICE_BYTES))
    with pytest.raises(PeerClosedError, match=r"was lost: (connection reset|broken pipe)"):
        channel.send_extent(Extent(0, 0, SLICE_BYTES), source)
    assert source.released == [Extent(0, 0, SLICE_BYTES)]
    with pytest.raises(PeerClosedError):
        channel.send_message(b"anybody?")
    with pytest.raises(PeerClosedError):
        channel.receive(timeout_s=PATIENCE_S)


def test_what_the_peer_said_last_is_read_after_a_send_has_failed(
    pairs: Pairs, source_of: Callable[[bytes], FileSource]
) -> None:
    client, channel = pairs.raw()
    client.sendall(wire.encode_message_header(6) + b"no way")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.close()
    source = source_of(bytes(10 * SLICE_BYTES))
    with pytest.raises(PeerClosedError):
        channel.send_extent(Extent(0, 0, 10 * SLICE_BYTES), source)
    assert channel.receive(timeout_s=PATIENCE_S) == b"no way"
    with pytest.raises(PeerClosedError):
        channel.receive(timeout_s=PATIENCE_S)


def test_a_peer_that_takes_nothing_is_given_up(pairs: Pairs, source_of: Callable[[bytes], FileSource]) -> None:
    _, channel = pairs.raw(idle_timeout_s=0.5)
    source = source_of(bytes(1 << 26))
    begun = time.monotonic()
    with pytest.raises(PeerClosedError):
        channel.send_extent(Extent(0, 0, 1 << 26), source)
    assert 0.4 < time.monotonic() - begun < 5
    assert source.released


def test_a_peer_that_speaks_now_and_then_is_not_given_up(pairs: Pairs) -> None:
    client, channel = pairs.raw(idle_timeout_s=0.6)
    for _ in range(4):
        assert channel.receive(timeout_s=0.4) is None
        client.sendall(wire.encode_message_header(0))
        assert channel.receive(timeout_s=PATIENCE_S) == b""


# Sending


def test_content_goes_by_sendfile_and_small_content_by_one_send(
    pairs: Pairs, sink: WritingSink, source_of: Callable[[bytes], FileSource], stack: ExitStack
) -> None:
    sender, receiver = pairs.channels()
    content = random.Random(1).randbytes(3 * SLICE_BYTES + 100_000)
    source = source_of(content)

    def receive() -> None:
        while sink.landed_bytes < len(content):
            receiver.receive(sink, PATIENCE_S)

    thread = in_thread(stack, receive)
    sender.send_extent(Extent(0, 0, 100), source)
    sender.send_extent(Extent(0, 100, len(content) - 100), source)
    sender.flush()
    thread.join(PATIENCE_S)
    assert source.reads == [(0, 100)]
    assert source.moves == [(100 + n * SLICE_BYTES, SLICE_BYTES) for n in range(3)] + [
        (100 + 3 * SLICE_BYTES, len(content) - 100 - 3 * SLICE_BYTES)
    ]
    assert sink.content() == content


@pytest.mark.parametrize("size_now", [0, 50, 70_000, SLICE_BYTES, SLICE_BYTES + 500_000])
def test_after_a_file_has_shrunk_the_peer_can_still_be_told(
    pairs: Pairs, sink: WritingSink, source_of: Callable[[bytes], FileSource], stack: ExitStack, size_now: int
) -> None:
    sender, receiver = pairs.channels()
    source = source_of(b"x" * (2 * SLICE_BYTES))
    source.truncate(size_now)
    messages: list[bytes] = []

    def receive() -> None:
        with suppress(PeerClosedError):
            while True:
                message = receiver.receive(sink, PATIENCE_S)
                if message is not None:
                    messages.append(message)

    thread = in_thread(stack, receive)
    with pytest.raises(TransferError, match="the file shrank"):
        sender.send_extent(Extent(0, 0, 2 * SLICE_BYTES), source)
    assert source.released == [Extent(0, 0, 2 * SLICE_BYTES)]
    sender.send_message(b"it shrank")
    sender.close()
    thread.join(PATIENCE_S)
    assert messages == [b"it shrank"]
    assert sink.landed_bytes <= (size_now // SLICE_BYTES + 1) * SLICE_BYTES
    assert sink.content() == b"x" * size_now + bytes(sink.landed_bytes - size_now)


def test_a_source_that_sendfile_cannot_read_is_read_by_itself(
    pairs: Pairs, sink: WritingSink, stack: ExitStack
) -> None:
    sender, receiver = pairs.channels()
    content = random.Random(2).randbytes(300_000)
    pipe = os.pipe()
    for end in pipe:
        stack.callback(os.close, end)

    class OfPipe(FileSource):
        def fileno(self) -> int:
            return pipe[0]

        def read_into(self, offset: int, buffer: memoryview) -> None:
            buffer[:] = content[offset : offset + len(buffer)]

    source = OfPipe(b"")
    stack.callback(source.close)
    sender.send_extent(Extent(0, 0, len(content)), source)
    while sink.landed_bytes < len(content):
        receiver.receive(sink, PATIENCE_S)
    assert sink.content() == content
    assert source.moves == []


def test_two_ends_that_send_more_than_fits_do_not_block_each_other(pairs: Pairs, stack: ExitStack) -> None:
    messages = [bytes([number]) * MAX_MESSAGE_BYTES for number in range(60)]
    heard: list[list[bytes | None]] = []

    def send_then_receive(channel: TcpChannel) -> None:
        for message in messages:
            channel.send_message(message)
        heard.append([channel.receive(timeout_s=PATIENCE_S) for _ in messages])

    threads = [in_thread(stack, partial(send_then_receive, channel)) for channel in pairs.channels()]
    for thread in threads:
        thread.join(PATIENCE_S)
    assert heard == [messages, messages]


# Several connections


def test_content_is_spread_over_all_connections(
    pairs: Pairs, sink: WritingSink, source_of: Callable[[bytes], FileSource], stack: ExitStack
) -> None:
    sender, receiver = pairs.channels(streams=4)
    content = random.Random(3).randbytes(32 * SLICE_BYTES + 12_345)  # more than three connections hold
    source = source_of(content)
    sink.waits_for_threads = 4
    extents = [Extent(0, at, min(7_000_000, len(content) - at)) for at in range(0, len(content), 7_000_000)]
    carried: list[int] = []

    def receive() -> None:
        while sink.landed_bytes < len(content):
            receiver.receive(sink, PATIENCE_S)
        carried.extend(stream.landed_slices for stream in receiver._streams)

    thread = in_thread(stack, receive)
    for extent in extents:
        sender.send_extent(extent, source)
    sender.flush()
    assert sorted(source.released) == extents
    thread.join(PATIENCE_S)
    assert sink.content() == content
    assert len(sink.threads) == 4
    assert all(carried)
    assert sender.statistics()["streams"] == 4
    sender.close()
    receiver.close()
    assert sender.statistics()["streams"] == 4


def test_a_message_where_only_content_may_come_is_an_error(pairs: Pairs, sink: WritingSink) -> None:
    sender, receiver = pairs.channels(streams=2)
    sender._streams[1].send_message(b"wrong way")

    def receive() -> None:
        for _ in range(3):
            receiver.receive(sink, PATIENCE_S)

    with pytest.raises(ProtocolError, match="a connection that is for content"):
        receive()


def test_the_loss_of_one_connection_ends_the_session(
    pairs: Pairs, sink: WritingSink, source_of: Callable[[bytes], FileSource]
) -> None:
    sender, receiver = pairs.channels(streams=3)
    lost = sender._streams[2].socket
    lost.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    lost.shutdown(socket.SHUT_RDWR)
    sender.send_message(b"before")
    source = source_of(bytes(8 * SLICE_BYTES))

    def send() -> None:
        for _ in range(8):
            sender.send_extent(Extent(0, 0, 8 * SLICE_BYTES), source)

    reader = threading.Thread(target=lambda: drain(receiver, sink))
    reader.start()
    with pytest.raises(PeerClosedError):
        send()
    sender.abort()
    reader.join(PATIENCE_S)
    assert not reader.is_alive()
    assert len(source.released) >= 1
    assert len(threading.enumerate()) == 1


def drain(channel: TcpChannel, sink: WritingSink) -> None:
    with suppress(PeerClosedError):
        while True:
            channel.receive(sink, PATIENCE_S)
    channel.close()


@pytest.mark.parametrize("end", ["close", "abort"])
def test_no_thread_outlives_its_channel(
    pairs: Pairs, sink: WritingSink, source_of: Callable[[bytes], FileSource], end: str
) -> None:
    sender, receiver = pairs.channels(streams=4)
    source = source_of(bytes(1 << 20))
    sender.send_extent(Extent(0, 0, 1 << 20), source)
    while sink.landed_bytes < 1 << 20:
        receiver.receive(sink, PATIENCE_S)
    assert len(threading.enumerate()) > 1
    getattr(sender, end)()
    getattr(receiver, end)()
    assert len(threading.enumerate()) == 1
    assert source.released == [Extent(0, 0, 1 << 20)]


def test_what_was_not_sent_is_released_at_an_abort(pairs: Pairs, source_of: Callable[[bytes], FileSource]) -> None:
    sender, _ = pairs.channels(streams=2, idle_timeout_s=0.5)
    source = source_of(bytes(1 << 24))
    handed_over = []

    def send() -> None:
        for extent in [Extent(0, 0, 1 << 24)] * 4:
            handed_over.append(extent)
            sender.send_extent(extent, source)

    with pytest.raises(PeerClosedError):
        send()
    sender.abort()
    assert source.released == handed_over


# What a user may set


def test_the_congestion_control_is_that_of_both_ends(pairs: Pairs) -> None:
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    for name in available:
        for channel in pairs.channels(congestion_control=name):
            assert channel.statistics()["congestion_control"] == name


@pytest.mark.parametrize("streams", [1, 2])
def test_the_rate_is_bounded(
    pairs: Pairs, sink: WritingSink, source_of: Callable[[bytes], FileSource], stack: ExitStack, streams: int
) -> None:
    sender, receiver = pairs.channels(rate_bps=80e6, streams=streams)
    source = source_of(bytes(1 << 23))

    def send() -> None:
        sender.send_extent(Extent(0, 0, 1 << 23), source)
        sender.flush()

    begun = time.monotonic()
    in_thread(stack, send)
    while sink.landed_bytes < 1 << 23:
        receiver.receive(sink, PATIENCE_S)
    # 0.84 s at the rate; what may be sent in one go at the start is free.
    assert 0.5 < time.monotonic() - begun < 5


def test_both_ends_are_protected_from_small_segments_waiting(pairs: Pairs) -> None:
    for channel in pairs.channels(streams=2):
        for stream in channel._streams:
            assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Splice


@pytest.mark.skipif(not splice.is_available, reason="this system has no splice")
def test_large_content_is_spliced_and_small_content_written(
    pairs: Pairs, source_of: Callable[[bytes], FileSource], stack: ExitStack
) -> None:
    sender, receiver = pairs.channels()
    content = random.Random(4).randbytes(3 * SLICE_BYTES + 5)
    source = source_of(content)
    sink = SplicingSink()
    stack.callback(sink.close)

    def send() -> None:
        sender.send_extent(Extent(0, 3 * SLICE_BYTES, 5), source)
        sender.send_extent(Extent(0, 0, 3 * SLICE_BYTES), source)

    in_thread(stack, send)
    while sink.landed_bytes < len(content):
        receiver.receive(sink, PATIENCE_S)
    assert sink.content() == content
    assert sink.spliced_bytes >= SLICE_BYTES
    assert sink.written_bytes >= 5
    assert all(extent.offset + extent.length <= 3 * SLICE_BYTES for extent in sink.asked)


@pytest.mark.skipif(not splice.is_available, reason="this system has no splice")
def test_what_a_file_refuses_to_have_spliced_is_written(
    pairs: Pairs, source_of: Callable[[bytes], FileSource], stack: ExitStack
) -> None:
    sender, receiver = pairs.channels()
    content = random.Random(5).randbytes(3 * SLICE_BYTES)
    read_only = os.open(os.devnull, os.O_RDONLY)
    stack.callback(os.close, read_only)
    sink = SplicingSink(read_only)
    stack.callback(sink.close)
    source = source_of(content)
    in_thread(stack, lambda: sender.send_extent(Extent(0, 0, len(content)), source))
    while sink.landed_bytes < len(content):
        receiver.receive(sink, PATIENCE_S)
    assert sink.content() == content
    assert sink.spliced_bytes == 0
    assert len(sink.asked) == 1


@pytest.mark.skipif(not splice.is_available, reason="this system has no splice")
def test_an_error_of_a_splicing_sink_comes_out_and_messages_still_come(
    pairs: Pairs, source_of: Callable[[bytes], FileSource], stack: ExitStack
) -> None:
    class Failing(SplicingSink):
        def landed(self, *_: object) -> None:
            raise TransferError("no space left")

    sender, receiver = pairs.channels()
    source = source_of(bytes(SLICE_BYTES))
    failing, patient = Failing(), WritingSink()
    stack.callback(failing.close)
    stack.callback(patient.close)

    def send() -> None:
        sender.send_extent(Extent(0, 0, SLICE_BYTES), source)
        sender.send_message(b"after")

    in_thread(stack, send)
    with pytest.raises(TransferError, match="no space left"):
        receiver.receive(failing, PATIENCE_S)
    message = None
    while message is None:
        message = receiver.receive(patient, PATIENCE_S)
    assert message == b"after"


@pytest.mark.skipif(not splice.is_available, reason="this system has no splice")
def test_no_descriptors_are_left_of_splicing(
    pairs: Pairs, source_of: Callable[[bytes], FileSource], stack: ExitStack
) -> None:
    source, sink = source_of(bytes(SLICE_BYTES)), SplicingSink()
    stack.callback(sink.close)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        sink.written_bytes = sink.spliced_bytes = 0
        sender, receiver = pairs.channels()
        thread = in_thread(stack, partial(sender.send_extent, Extent(0, 0, SLICE_BYTES), source))
        while sink.landed_bytes < SLICE_BYTES:
            receiver.receive(sink, PATIENCE_S)
        thread.join(PATIENCE_S)
        sender.abort()
        receiver.abort()
    assert len(os.listdir("/proc/self/fd")) == before
