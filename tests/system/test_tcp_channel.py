"""What only TCP has: frames from hostile peers, lost connections, pacing, several connections, splice."""

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
from typing import Any

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.content import BytesSink, BytesSource, FileSource, receive_until
from tests.support.tcp_controls import selectable_controls
from tests.support.tcp_peers import shake_hands
from toolkit.channel import MAX_IDLE_TIMEOUT_S, MAX_MESSAGE_BYTES, Address, Extent, TransportOptions
from toolkit.errors import PeerClosedError, ProtocolError, TransferError
from toolkit.security.keys import AeadName
from toolkit.transports.keep_alive import KEEP_ALIVES
from toolkit.transports.tcp import records, splice, wire
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.connect import TcpTransport
from toolkit.transports.tcp.handshake import Session
from toolkit.transports.tcp.records import RecordOpener, RecordSealer
from toolkit.transports.tcp.stream import SLICE_BYTES
from toolkit.transports.tcp.tcp_info import tcp_info

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class MeetingSink(BytesSink):
    """A sink whose first writes wait until the given number of threads is writing."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.threads: set[int] = set()
        self._expected = threads
        self._condition = threading.Condition()

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        with self._condition:
            self.threads.add(threading.get_ident())
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: len(self.threads) >= self._expected, PATIENCE_S)
        super().write(file_id, offset, data)


class SplicingSink(BytesSink):
    """A DescriptorSink of one file. Close it.

    target: the descriptor that it offers; its own file's if None
    offered: the extents that it has offered a descriptor for
    """

    def __init__(self, target: int | None = None) -> None:
        super().__init__()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._target = target
        self.spliced_bytes = 0
        self.offered: list[Extent] = []

    @property
    def received_bytes(self) -> int:
        return self.written_bytes + self.spliced_bytes

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        super().write(file_id, offset, data)
        os.pwrite(self._file.fileno(), data, offset)

    def descriptor(self, file_id: int, offset: int, length: int) -> int | None:
        self.offered.append(Extent(file_id, offset, length))
        return self._file.fileno() if self._target is None else self._target

    def on_spliced(self, file_id: int, offset: int, length: int) -> None:
        assert file_id == 0
        assert offset >= 0
        self.spliced_bytes += length

    def file_content(self) -> bytes:
        self._file.seek(0)
        return self._file.read()

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


class Pairs:
    """Makes pairs of channels, and of a raw socket and a channel."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def channels(self, **options: Any) -> tuple[TcpChannel, TcpChannel]:
        """The connecting and the accepted channel."""
        chosen = TransportOptions(**{"connect_timeout_s": PATIENCE_S} | options)
        listener = TcpTransport().listen(Address("127.0.0.1", 0), chosen)
        accepting = Background(lambda: listener.accept(PATIENCE_S))
        sender = TcpTransport().connect(listener.address, chosen)
        receiver = accepting.outcome()
        listener.close()
        assert receiver is not None
        self._stack.callback(receiver.abort)
        self._stack.callback(sender.abort)
        return sender, receiver

    def raw(self, **options: Any) -> tuple[socket.socket, TcpChannel]:
        """A client's socket after the handshake of a plaintext session, and the accepted channel."""
        client, _, channel = self.raw_session(plaintext=True, **options)
        return client, channel

    def raw_session(self, **options: Any) -> tuple[socket.socket, Session, TcpChannel]:
        """As `raw`, with what the handshake has agreed on, encryption included."""
        chosen = TransportOptions(**{"connect_timeout_s": PATIENCE_S} | options)
        listener = TcpTransport().listen(Address("127.0.0.1", 0), chosen)
        client = self._stack.enter_context(socket.create_connection(listener.address))
        client.settimeout(PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        shaking = Background(lambda: shake_hands(client, chosen))
        channel = listener.accept(PATIENCE_S)
        listener.close()
        assert channel is not None
        self._stack.callback(channel.abort)
        return client, shaking.outcome(), channel


@pytest.fixture
def pairs(stack: ExitStack) -> Pairs:
    return Pairs(stack)


@pytest.fixture
def source_of(stack: ExitStack) -> Callable[[bytes], FileSource]:
    """Makes sources of files."""

    def make(content: bytes) -> FileSource:
        source = FileSource(content)
        stack.callback(source.close)
        return source

    return make


@pytest.fixture
def sink() -> BytesSink:
    return BytesSink()


# Frames


def test_frames_may_arrive_byte_by_byte(pairs: Pairs, sink: BytesSink) -> None:
    client, channel = pairs.raw()
    data = (
        wire.encode_message_header(5) + b"hello" + wire.encode_extent_header(Extent(0, 3, 4)) + b"data"
    ) + wire.encode_message_header(0)
    received = []
    for number in range(len(data)):
        client.send(data[number : number + 1])
        while not select.select(channel.sockets, [], [], PATIENCE_S)[0]:
            pass
        if (message := channel.receive(sink, 0)) is not None:
            received.append((number, message))
    assert received == [(28, b"hello"), (len(data) - 1, b"")]
    assert sink.pieces == {0: {3: b"data"}}


def test_many_frames_may_arrive_at_once(pairs: Pairs, sink: BytesSink) -> None:
    client, channel = pairs.raw()
    frames = [wire.encode_message_header(3) + b"%03d" % n for n in range(100)]
    frames += [wire.encode_extent_header(Extent(0, n, 1)) + b"x" for n in range(100)]
    client.sendall(b"".join(frames))
    messages = []
    while sink.written_bytes < 100:
        if (message := channel.receive(sink, PATIENCE_S)) is not None:
            messages.append(message)
    assert messages == [b"%03d" % n for n in range(100)]
    assert sink.content(0) == b"x" * 100


@pytest.mark.parametrize(
    "header",
    [
        wire.encode_message_header(MAX_MESSAGE_BYTES + 1),
        wire.encode_extent_header(Extent(0, 2**63, 2**63)),
        b"\xff" * wire.FRAME_BYTES,
    ],
)
def test_a_hostile_frame_is_an_error_and_nothing_after_it_is_read(pairs: Pairs, sink: BytesSink, header: bytes) -> None:
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
def test_a_connection_that_ends_inside_a_frame_is_lost(pairs: Pairs, cut: int) -> None:
    client, channel = pairs.raw()
    client.sendall((wire.encode_message_header(100) + bytes(100))[:cut])
    client.close()
    for _ in range(2):
        with pytest.raises(PeerClosedError, match=r"127\.0\.0\.1:\d+ closed the connection before the end"):
            channel.receive(timeout_s=PATIENCE_S)


def test_a_reset_is_a_lost_peer_when_sending_and_receiving(
    pairs: Pairs, source_of: Callable[[bytes], FileSource]
) -> None:
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


def test_the_peers_last_message_is_received_after_a_send_has_failed(
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


def test_a_peer_that_reads_nothing_is_given_up(pairs: Pairs, source_of: Callable[[bytes], FileSource]) -> None:
    _, channel = pairs.raw(idle_timeout_s=0.5)
    source = source_of(bytes(1 << 26))
    begin_s = time.monotonic()
    with pytest.raises(PeerClosedError):
        channel.send_extent(Extent(0, 0, 1 << 26), source)
    assert time.monotonic() - begin_s > 0.4
    assert source.released


def test_a_message_ends_the_silence(pairs: Pairs) -> None:
    """Without it, the waits would add up to more than the idle timeout."""
    client, channel = pairs.raw(idle_timeout_s=1.0)
    for _ in range(4):
        assert channel.receive(timeout_s=0.4) is None
        client.sendall(wire.encode_message_header(0))
        assert channel.receive(timeout_s=PATIENCE_S) == b""


# Sending


def test_content_is_sent_with_sendfile_and_small_content_is_read(
    pairs: Pairs, sink: BytesSink, source_of: Callable[[bytes], FileSource]
) -> None:
    sender, receiver = pairs.channels(plaintext=True)
    content = random.Random(1).randbytes(3 * SLICE_BYTES + 100_000)
    source = source_of(content)
    receiving = Background(lambda: receive_until(receiver, sink, len(content), 0))
    sender.send_extent(Extent(0, 0, 100), source)
    sender.send_extent(Extent(0, 100, len(content) - 100), source)
    sender.flush()
    receiving.outcome()
    assert source.reads == [(0, 100)]
    assert source.moves == [(100 + n * SLICE_BYTES, SLICE_BYTES) for n in range(3)] + [
        (100 + 3 * SLICE_BYTES, len(content) - 100 - 3 * SLICE_BYTES)
    ]
    assert sink.content(0) == content


@pytest.mark.parametrize("plaintext", [False, True])
@pytest.mark.parametrize("size_now", [0, 50, 70_000, SLICE_BYTES, SLICE_BYTES + 500_000])
def test_messages_still_arrive_after_a_file_has_shrunk(
    pairs: Pairs, sink: BytesSink, source_of: Callable[[bytes], FileSource], size_now: int, plaintext: bool
) -> None:
    sender, receiver = pairs.channels(plaintext=plaintext)
    source = source_of(b"x" * (2 * SLICE_BYTES))
    source.truncate(size_now)
    receiving = Background(lambda: receive_until_closed(receiver, sink))
    with pytest.raises(TransferError, match="the file shrank"):
        sender.send_extent(Extent(0, 0, 2 * SLICE_BYTES), source)
    assert source.released == [Extent(0, 0, 2 * SLICE_BYTES)]
    sender.send_message(b"it shrank")
    sender.close()
    assert receiving.outcome() == [b"it shrank"]
    assert sink.written_bytes <= (size_now // SLICE_BYTES + 1) * SLICE_BYTES
    content = sink.content(0)
    read_bytes = size_now if plaintext else min(size_now, len(content.rstrip(b"\0")))
    assert content == b"x" * read_bytes + bytes(len(content) - read_bytes)


def test_a_source_that_sendfile_cannot_read_is_read_by_itself(pairs: Pairs, sink: BytesSink, stack: ExitStack) -> None:
    sender, receiver = pairs.channels()
    content = random.Random(2).randbytes(300_000)
    pipe = os.pipe()
    for descriptor in pipe:
        stack.callback(os.close, descriptor)

    class PipeSource(BytesSource):
        def fileno(self) -> int | None:
            return pipe[0]

    sender.send_extent(Extent(0, 0, len(content)), PipeSource(content))
    receive_until(receiver, sink, len(content), 0)
    assert sink.content(0) == content


def test_two_peers_that_send_more_than_fits_do_not_block_each_other(pairs: Pairs) -> None:
    messages = [bytes([number]) * MAX_MESSAGE_BYTES for number in range(60)]

    def send_then_receive(channel: TcpChannel) -> list[bytes]:
        for message in messages:
            channel.send_message(message)
        return receive_until(channel, BytesSink(), 0, len(messages))

    calls = [Background(partial(send_then_receive, channel)) for channel in pairs.channels()]
    assert [call.outcome() for call in calls] == [messages, messages]


# Several connections


def test_content_is_spread_over_all_connections(pairs: Pairs, source_of: Callable[[bytes], FileSource]) -> None:
    sender, receiver = pairs.channels(streams=4)
    content = random.Random(3).randbytes(32 * SLICE_BYTES + 12_345)  # more than three connections can buffer
    source = source_of(content)
    sink = MeetingSink(threads=4)
    extents = [Extent(0, at, min(7_000_000, len(content) - at)) for at in range(0, len(content), 7_000_000)]
    receiving = Background(lambda: receive_until(receiver, sink, len(content), 0))
    for extent in extents:
        sender.send_extent(extent, source)
    sender.flush()
    assert sorted(source.released) == extents
    receiving.outcome()
    assert sink.content(0) == content
    assert len(sink.threads) == 4
    assert all(tcp_info(sock)["bytes_received"] > SLICE_BYTES for sock in receiver.sockets)
    assert sender.statistics()["streams"] == 4
    sender.close()
    receiver.close()
    assert sender.statistics()["streams"] == 4


def test_a_message_on_a_content_connection_is_an_error(pairs: Pairs, sink: BytesSink) -> None:
    sender, receiver = pairs.channels(streams=2, plaintext=True)
    sender.sockets[1].sendall(wire.encode_message_header(9) + b"wrong way")

    def receive() -> None:
        for _ in range(3):
            receiver.receive(sink, PATIENCE_S)

    with pytest.raises(ProtocolError, match="a connection that carries content only"):
        receive()


def test_the_loss_of_one_connection_ends_the_session(
    pairs: Pairs, sink: BytesSink, source_of: Callable[[bytes], FileSource]
) -> None:
    KEEP_ALIVES.start()  # which does not end
    before = threading.active_count()
    sender, receiver = pairs.channels(streams=3)
    lost = sender.sockets[2]
    lost.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    lost.shutdown(socket.SHUT_RDWR)
    sender.send_message(b"before")
    source = source_of(bytes(8 * SLICE_BYTES))

    def send() -> None:
        for _ in range(8):
            sender.send_extent(Extent(0, 0, 8 * SLICE_BYTES), source)

    receiving = Background(lambda: receive_until_closed(receiver, sink))
    with pytest.raises(PeerClosedError):
        send()
    sender.abort()
    receiving.outcome()
    assert len(source.released) >= 1
    assert threading.active_count() <= before  # a thread of an earlier test may have ended meanwhile


def receive_until_closed(channel: TcpChannel, sink: BytesSink) -> list[bytes]:
    """Receive until the peer has closed, and close; returns the messages."""
    messages = []
    with suppress(PeerClosedError):
        while True:
            if (message := channel.receive(sink, PATIENCE_S)) is not None:
                messages.append(message)
    channel.close()
    return messages


@pytest.mark.parametrize("end", ["close", "abort"])
def test_no_thread_outlives_its_channel(
    pairs: Pairs, sink: BytesSink, source_of: Callable[[bytes], FileSource], end: str
) -> None:
    KEEP_ALIVES.start()  # which does not end
    before = threading.active_count()
    sender, receiver = pairs.channels(streams=4)
    source = source_of(bytes(1 << 20))
    sender.send_extent(Extent(0, 0, 1 << 20), source)
    receive_until(receiver, sink, 1 << 20, 0)
    assert threading.active_count() > before
    getattr(sender, end)()
    getattr(receiver, end)()
    assert threading.active_count() <= before  # a thread of an earlier test may have ended meanwhile
    assert source.released == [Extent(0, 0, 1 << 20)]


def test_an_abort_releases_what_was_not_sent(pairs: Pairs, source_of: Callable[[bytes], FileSource]) -> None:
    sender, _ = pairs.channels(streams=2, idle_timeout_s=0.5)
    source = source_of(bytes(1 << 24))
    extents = []

    def send() -> None:
        for extent in [Extent(0, 0, 1 << 24)] * 4:
            extents.append(extent)
            sender.send_extent(extent, source)

    with pytest.raises(PeerClosedError):
        send()
    sender.abort()
    assert source.released == extents


def test_a_system_without_threads_ends_that_session_in_one_line(
    pairs: Pairs, source_of: Callable[[bytes], FileSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = pairs.channels(streams=3)
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    source = source_of(bytes(SLICE_BYTES))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_one)
        with pytest.raises(TransferError, match="allows no more threads; choose fewer with `streams`"):
            sender.send_extent(Extent(0, 0, SLICE_BYTES), source)
        with pytest.raises(TransferError, match="allows no more threads"):
            receiver.receive(BytesSink(), 0)
    assert source.released == [Extent(0, 0, SLICE_BYTES)]
    sender.abort()
    receiver.abort()
    assert not started[0].is_alive()


# Encrypted sessions


class Sealing:
    """Seals the frames of a client on a plain socket."""

    def __init__(self, client: socket.socket, session: Session) -> None:
        self.client = client
        keys = session.record_keys(0, is_client=True)
        assert keys is not None
        self._sealer = RecordSealer(keys.outgoing)
        self.opener = RecordOpener(client.recv_into, keys.incoming)

    def record(self, plaintext: bytes) -> bytes:
        self._sealer.plaintext[: len(plaintext)] = plaintext
        return self._sealer.seal(len(plaintext)).tobytes()

    def keep_alive(self) -> bytes:
        return self._sealer.keep_alive()


@pytest.fixture
def sealing(pairs: Pairs) -> tuple[Sealing, TcpChannel]:
    """A client that decides about every byte, and the accepted channel of its encrypted session."""
    client, session, channel = pairs.raw_session()
    return Sealing(client, session), channel


CONTENT = wire.encode_extent_header(Extent(0, 0, 4)) + b"data"


def test_records_may_arrive_byte_by_byte_and_frames_may_span_them(
    sealing: tuple[Sealing, TcpChannel], sink: BytesSink
) -> None:
    peer, channel = sealing
    frames = wire.encode_message_header(5) + b"hello" + CONTENT + wire.encode_message_header(0)
    data = b"".join(peer.record(frames[at : at + 7]) for at in range(0, len(frames), 7))
    received = []
    for number in range(len(data)):
        peer.client.send(data[number : number + 1])
        while not select.select(channel.sockets, [], [], PATIENCE_S)[0]:
            pass
        if (message := channel.receive(sink, 0)) is not None:
            received.append(message)
    assert received == [b"hello", b""]
    assert sink.content(0) == b"data"


def test_a_keep_alive_ends_the_silence_and_the_kernel_drops_nothing_before_the_channel_closes(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, the waits would add up to more than the idle timeout."""
    client, session, channel = pairs.raw_session(idle_timeout_s=1.0)
    peer, user_timeouts_ms = Sealing(client, session), []

    def note_user_timeout(sock: socket.socket, *_: object) -> None:
        user_timeouts_ms.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

    for _ in range(5):
        assert channel.receive(timeout_s=0.3) is None
        client.sendall(peer.keep_alive())
        assert select.select(channel.sockets, [], [], PATIENCE_S)[0]
    client.sendall(peer.record(wire.encode_message_header(0)))
    while channel.receive(timeout_s=0.3) is None:
        pass
    note_user_timeout(channel.sockets[0])
    monkeypatch.setattr("toolkit.transports.tcp.channel.linger", note_user_timeout)
    channel.close()
    assert user_timeouts_ms == [MAX_IDLE_TIMEOUT_S * 1e3, 1_000]


def test_a_record_of_many_frames_is_read_to_its_end_before_waiting(
    sealing: tuple[Sealing, TcpChannel], sink: BytesSink
) -> None:
    peer, channel = sealing
    extents = [wire.encode_extent_header(Extent(0, n, 1)) + b"x" for n in range(100)]
    peer.client.sendall(peer.record(b"".join(extents) + wire.encode_message_header(3) + b"end"))
    while (message := channel.receive(sink, PATIENCE_S)) is None:
        pass
    assert message == b"end"
    assert sink.content(0) == b"x" * 100


@pytest.mark.parametrize("damage", ["flipped", "repeated", "left out", "plain", "too long"])
def test_a_damaged_record_ends_the_session_and_nothing_of_it_is_used(
    sealing: tuple[Sealing, TcpChannel], sink: BytesSink, damage: str
) -> None:
    peer, channel = sealing
    first = peer.record(wire.encode_message_header(2) + b"ok")
    second = bytearray(peer.record(CONTENT))
    after = peer.record(CONTENT)
    second[-1] ^= damage == "flipped"
    damaged = {
        "flipped": bytes(second),
        "repeated": first,
        "left out": after,
        "plain": CONTENT,
        "too long": b"\xff" * 100,
    }
    peer.client.sendall(first + damaged[damage] + after)
    assert channel.receive(sink, PATIENCE_S) == b"ok"
    for _ in range(2):
        with pytest.raises(ProtocolError):
            channel.receive(sink, PATIENCE_S)
    assert not sink.pieces
    channel.send_message(b"that was wrong")
    assert peer.opener.take_untrusted(100)[wire.FRAME_BYTES :] == b"that was wrong"


@pytest.mark.parametrize("cut", [0, 1, 4, 20, -1])
def test_a_connection_that_ends_inside_a_record_is_lost(
    sealing: tuple[Sealing, TcpChannel], sink: BytesSink, cut: int
) -> None:
    peer, channel = sealing
    peer.client.sendall(peer.record(CONTENT)[:cut])
    peer.client.close()
    for _ in range(2):
        with pytest.raises(PeerClosedError, match="closed the connection before the end"):
            channel.receive(sink, PATIENCE_S)
    assert not sink.pieces


def test_what_the_server_sends_cannot_be_sent_back_to_it(sealing: tuple[Sealing, TcpChannel], sink: BytesSink) -> None:
    peer, channel = sealing
    channel.send_message(b"hello")
    peer.client.sendall(peer.client.recv(1000))
    with pytest.raises(ProtocolError, match="was changed on the way"):
        channel.receive(sink, PATIENCE_S)


@pytest.mark.parametrize("streams", [1, 4])
def test_an_encrypted_session_updates_its_keys_on_the_way(
    pairs: Pairs,
    source_of: Callable[[bytes], FileSource],
    sink: BytesSink,
    monkeypatch: pytest.MonkeyPatch,
    streams: int,
) -> None:
    monkeypatch.setattr(records, "RECORDS_PER_KEY", 3)
    sender, receiver = pairs.channels(streams=streams)
    content = random.Random(6).randbytes(9 * SLICE_BYTES + 1)
    source = source_of(content)

    def send() -> None:
        sender.send_extent(Extent(0, 0, len(content)), source)
        sender.flush()

    sending = Background(send)
    receive_until(receiver, sink, len(content), 0)
    sending.outcome()
    assert sink.content(0) == content
    assert not source.moves


@pytest.mark.parametrize(("plaintext", "encryption"), [(True, {"none"}), (False, set(AeadName))])
def test_the_statistics_name_the_protection(pairs: Pairs, plaintext: bool, encryption: set[str]) -> None:
    for channel in pairs.channels(plaintext=plaintext):
        assert channel.statistics()["encryption"] in encryption
        assert channel.statistics()["authentication"] == "none"


# What a user may choose


def test_both_peers_use_the_chosen_congestion_control(pairs: Pairs) -> None:
    for name in selectable_controls():
        for channel in pairs.channels(congestion_control=name):
            assert channel.statistics()["congestion_control"] == name


@pytest.mark.parametrize("streams", [1, 2])
def test_the_rate_is_limited(
    pairs: Pairs, sink: BytesSink, source_of: Callable[[bytes], FileSource], streams: int
) -> None:
    sender, receiver = pairs.channels(rate_bps=80e6, streams=streams)
    source = source_of(bytes(1 << 23))

    def send() -> None:
        sender.send_extent(Extent(0, 0, 1 << 23), source)
        sender.flush()

    begin_s = time.monotonic()
    sending = Background(send)
    receive_until(receiver, sink, 1 << 23, 0)
    # 0.84 s at the rate; the kernel sends the first packets without pacing.
    assert time.monotonic() - begin_s > 0.5
    sending.outcome()


def test_no_connection_delays_small_segments(pairs: Pairs) -> None:
    for channel in pairs.channels(streams=2):
        for sock in channel.sockets:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_lost_segment_is_sent_again_at_least_every_two_seconds(pairs: Pairs) -> None:
    """After an outage, a timeout that has doubled would meet the next one."""
    for channel in pairs.channels(streams=2):
        for sock in channel.sockets:
            try:
                limit_ms = sock.getsockopt(socket.IPPROTO_TCP, 44)  # TCP_RTO_MAX_MS
            except OSError:
                pytest.skip("this kernel has no TCP_RTO_MAX_MS")
            assert limit_ms == 2_000


@pytest.mark.skipif(not splice.is_available, reason="this system has no splice")
class TestSplice:
    @pytest.fixture
    def sink(self, stack: ExitStack) -> SplicingSink:
        made = SplicingSink()
        stack.callback(made.close)
        return made

    def receive(self, channel: TcpChannel, sink: SplicingSink, count: int) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while sink.received_bytes < count:
            assert time.monotonic() < deadline_s
            channel.receive(sink, PATIENCE_S)

    def test_large_content_is_spliced_and_small_content_written(
        self, pairs: Pairs, source_of: Callable[[bytes], FileSource], sink: SplicingSink
    ) -> None:
        sender, receiver = pairs.channels(plaintext=True)
        content = random.Random(4).randbytes(3 * SLICE_BYTES + 5)
        source = source_of(content)

        def send() -> None:
            sender.send_extent(Extent(0, 3 * SLICE_BYTES, 5), source)
            sender.send_extent(Extent(0, 0, 3 * SLICE_BYTES), source)

        sending = Background(send)
        self.receive(receiver, sink, len(content))
        sending.outcome()
        assert sink.file_content() == content
        assert sink.spliced_bytes >= SLICE_BYTES
        assert sink.written_bytes >= 5
        assert all(extent.offset + extent.length <= 3 * SLICE_BYTES for extent in sink.offered)

    def test_content_that_a_file_refuses_to_splice_is_written(
        self, pairs: Pairs, source_of: Callable[[bytes], FileSource], stack: ExitStack
    ) -> None:
        sender, receiver = pairs.channels(plaintext=True)
        content = random.Random(5).randbytes(3 * SLICE_BYTES)
        read_only = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, read_only)
        sink = SplicingSink(read_only)
        stack.callback(sink.close)
        source = source_of(content)
        sending = Background(lambda: sender.send_extent(Extent(0, 0, len(content)), source))
        self.receive(receiver, sink, len(content))
        sending.outcome()
        assert sink.content(0) == content
        assert sink.spliced_bytes == 0
        assert len(sink.offered) == 1

    def test_an_error_of_the_sink_is_raised_and_messages_still_arrive(
        self, pairs: Pairs, source_of: Callable[[bytes], FileSource], stack: ExitStack
    ) -> None:
        class FailingSink(SplicingSink):
            def on_spliced(self, *_: object) -> None:
                raise TransferError("no space left")

        sender, receiver = pairs.channels(plaintext=True)
        source = source_of(bytes(SLICE_BYTES))
        failing = FailingSink()
        stack.callback(failing.close)

        def send() -> None:
            sender.send_extent(Extent(0, 0, SLICE_BYTES), source)
            sender.send_message(b"after")

        sending = Background(send)
        with pytest.raises(TransferError, match="no space left"):
            receiver.receive(failing, PATIENCE_S)
        assert receive_until(receiver, BytesSink(), 0, 1) == [b"after"]
        sending.outcome()

    def test_no_descriptors_are_left(
        self, pairs: Pairs, source_of: Callable[[bytes], FileSource], sink: SplicingSink
    ) -> None:
        source = source_of(bytes(SLICE_BYTES))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            sink.written_bytes = sink.spliced_bytes = 0
            sender, receiver = pairs.channels(plaintext=True)
            sending = Background(partial(sender.send_extent, Extent(0, 0, SLICE_BYTES), source))
            self.receive(receiver, sink, SLICE_BYTES)
            sending.outcome()
            sender.abort()
            receiver.abort()
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("is_plain", [False, True], ids=["sealed", "plain"])
def test_small_extents_share_records_and_system_calls(pairs: Pairs, is_plain: bool) -> None:
    sender, receiver = pairs.channels(plaintext=is_plain)
    before = int(sender.statistics()["data_packets_sent"])
    for number in range(100):
        sender.send_extent(Extent(number, 0, 500), BytesSource(b"%03d" % number + bytes(497)))
    assert int(sender.statistics()["data_packets_sent"]) == before
    sender.send_message(b"end")
    sink = BytesSink()
    assert receive_until(receiver, sink, 50_000, 1) == [b"end"]
    assert [sink.content(number)[:3] for number in range(100)] == [b"%03d" % number for number in range(100)]
    # A segment on loopback holds 64 KiB, so the kernel may cut them into a few.
    assert int(sender.statistics()["data_packets_sent"]) - before <= 10


@pytest.mark.parametrize("is_plain", [False, True], ids=["sealed", "plain"])
@pytest.mark.parametrize("ending", ["receive", "flush", "close"])
def test_a_small_extent_waits_for_no_other_once_the_sender_pauses(pairs: Pairs, ending: str, is_plain: bool) -> None:
    sender, receiver = pairs.channels(plaintext=is_plain)
    sender.send_extent(Extent(0, 0, 5), BytesSource(b"hello"))
    if ending == "receive":
        sender.receive(timeout_s=0.001)
    else:
        getattr(sender, ending)()
    sink = BytesSink()
    receive_until(receiver, sink, 5, 0)
    assert sink.content(0) == b"hello"
    assert sender.acknowledged_bytes <= 5
