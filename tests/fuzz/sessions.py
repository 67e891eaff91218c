"""Fuzzers of what follows the handshake: packets and records, from a peer that has the keys and from strangers."""

from collections.abc import Callable

from tests.fuzz.harness import Harness, decoded, join_steps, steps
from tests.support.content import BytesSink
from tests.support.engine_pair import FixedKeys, Source
from toolkit.channel import Extent
from toolkit.errors import PeerClosedError, ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.aead_protection import AeadProtection
from toolkit.rudp.batch import Batch
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.state import ConnectionState
from toolkit.rudp.wire import PacketType
from toolkit.security.keys import AeadName, TrafficKeys
from toolkit.transports.tcp.frame_reader import FrameReader
from toolkit.transports.tcp.records import (
    MAX_RECORD_BYTES,
    RecordOpener,
    RecordSealer,
    decode_record_length_untrusted,
)
from toolkit.transports.tcp.wire import encode_close, encode_extent_header, encode_message_header

LOCAL, PEER = 0x1111_2222_3333_4444, 0x5555_6666_7777_8888
START_NS = 7_000_000_000
NEAR, FAR = ("192.0.2.1", 4444), ("198.51.100.9", 5555)
_WINDOW_BYTES = 1 << 20
_RAW, _SEALED, _BATCH, _OFF_PATH, _LATER, _PHASE = range(6)
_MAX_TRANSMITS = 1000


class _Talk:
    """A server's connection with something to send, and the keys of its peer."""

    def __init__(self) -> None:
        there, back = FixedKeys(1000), FixedKeys(2000)
        self.peer = AeadProtection(there, back, update_after=1)
        self.now_ns = START_NS
        self.connection = Connection(
            Config(receive_window_bytes=_WINDOW_BYTES),
            Source(1, 20_000),
            LOCAL,
            PEER,
            1472,
            START_NS,
            AeadProtection(back, there),
            peer_address=NEAR,
        )
        self.connection.offer_data(20_000)
        self.connection.send_message(b"hello")
        self.accepted_bytes = 0

    def seal(self, packet: bytes) -> bytes:
        """Return what a peer with the keys makes of `packet`; as it is if that is no packet."""
        header_bytes = wire.HEADER_BYTES if packet[:1] in (b"\x10", b"\x11") else wire.COMMON.size
        return packet if len(packet) < header_bytes else self.peer.seal(packet + bytes(wire.TAG_BYTES))

    def give(self, data: bytes, segment_bytes: int, *, is_off_path: bool = False) -> None:
        """Let a batch arrive, take what is in it, and let the connection send."""
        connection, batch = self.connection, Batch(memoryview(data), segment_bytes)
        if is_off_path:
            connection.handle_off_path_batch(batch, FAR, 99, self.now_ns)
        else:
            connection.handle_batch(batch, self.now_ns)
        self.accepted_bytes += sum(len(view) for _, view in connection.received_data())
        while connection.poll_message(self.now_ns) is not None:
            pass
        self.transmit()

    def transmit(self) -> None:
        for _ in range(_MAX_TRANSMITS):
            transmit = self.connection.poll_transmit(self.now_ns)
            if transmit is None:
                return
            assert 0 < transmit.segment_bytes <= 1472
        raise AssertionError("the connection does not stop sending")

    def wait(self, duration_ns: int) -> None:
        self.now_ns += duration_ns
        timeout_ns = self.connection.poll_timeout()
        if timeout_ns is not None and timeout_ns <= self.now_ns:
            self.connection.handle_timeout(self.now_ns)
        self.transmit()


def check_connection(data: bytes) -> bool:
    """Each step is a packet or a batch, as it is or sealed with the keys of the peer; or time; or a key update."""
    talk = _Talk()
    update = 0
    for kind, body in steps(data):
        kind %= 6
        if kind == _LATER:
            talk.wait(int.from_bytes(body[:4], "big") * 1000)
        elif kind == _PHASE:
            update += 1
            talk.peer.update_keys(1 << 40 | update, 1 << 50)
        elif kind == _BATCH and len(body) > 2:
            size = min(max(int.from_bytes(body[:2], "big"), 1), 1400)
            pieces = [body[at : at + size] for at in range(2, len(body), size)]
            sealed = [talk.seal(piece) for piece in pieces]
            talk.give(b"".join(sealed), max(map(len, sealed)))
        elif kind == _RAW and body:
            before = talk.connection.stats().packets_received, talk.accepted_bytes
            talk.give(body, len(body))
            assert (talk.connection.stats().packets_received, talk.accepted_bytes) == before, "a forged packet counted"
        elif kind in (_SEALED, _OFF_PATH) and body:
            sealed_packet = talk.seal(body)
            talk.give(sealed_packet, len(sealed_packet), is_off_path=kind == _OFF_PATH)
        assert talk.accepted_bytes <= len(data)
    connection = talk.connection
    assert connection.state in ConnectionState
    return connection.stats().packets_received > 0 or connection.state is not ConnectionState.ESTABLISHED


def _packets() -> list[bytes]:
    data = wire.DATA.pack(PacketType.DATA, 0, LOCAL, 0, 0) + bytes(range(200))
    return [
        data,
        wire.DATA.pack(PacketType.DATA, 1, LOCAL, 1, 200) + bytes(200),
        wire.DATA.pack(PacketType.MESSAGE, 1, LOCAL, 2, 0) + b"\0\0\0\2hi\0\0\0\7bye bye",
        wire.encode_ack(LOCAL, 3, wire.AckPacket([(0, 3)], 100, 1 << 30, 1 << 20, 0, 0, 0)),
        wire.PING.pack(PacketType.PING, 0, LOCAL, 4, 0, 5000, 1000),
        wire.COMMON.pack(PacketType.PROBE, 0, LOCAL, 5) + bytes(1300),
        wire.PATH.pack(PacketType.PATH_CHALLENGE, 0, LOCAL, 6, 0xFACE).ljust(1184, b"\0"),
        wire.PATH.pack(PacketType.PATH_RESPONSE, 0, LOCAL, 7, 99),
        wire.encode_close(LOCAL, 8, 4, "over"),
    ]


def seeds_of_connection() -> list[bytes]:
    every = [(_SEALED, packet) for packet in _packets()]
    run = [wire.DATA.pack(PacketType.DATA, 0, LOCAL, i, 100 * i) + bytes(100) for i in range(6)]
    batch = b"\0\x7e" + b"".join(run)
    ack = wire.encode_ack(LOCAL, 9, wire.AckPacket([(1, 4), (0, 1)][:1], 1, 1 << 30, 1 << 20, 1, 1, 1))
    return [
        join_steps(every),
        *(join_steps([part]) for part in every),
        join_steps([(_BATCH, batch), (_LATER, b"\0\1\0\0"), (_BATCH, batch), (_SEALED, ack)]),
        join_steps([(_PHASE, b""), *every[4:6], (_PHASE, b""), (_SEALED, run[5])]),
        join_steps([(_OFF_PATH, run[3]), (_LATER, b"\0\0\xff\xff"), every[7], (_RAW, run[1])]),
        join_steps([(_LATER, b"\xff\xff\xff\xff"), every[4]]),
    ]


# TCP


class _Stream:
    """A socket from which the bytes of an input arrive, in pieces of `step` bytes."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = data
        self._step = step
        self._at = 0

    def recv_into(self, target: memoryview) -> int:
        piece = self._data[self._at : self._at + min(len(target), self._step)]
        target[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


_KEYS = TrafficKeys(AeadName.AES_256_GCM, bytes(32))
_FRAMES, _SEALED_FRAMES, _RECORDS, _TRUE_RECORDS = range(4)


def _records(plaintext: bytes, size: int) -> bytes:
    sealer = RecordSealer(_KEYS)
    records = b""
    for at in range(0, len(plaintext), size):
        piece = plaintext[at : at + size]
        sealer.plaintext[: len(piece)] = piece
        records += bytes(sealer.seal(len(piece)))
    return records


def _frames() -> bytes:
    parts = [
        encode_message_header(5) + b"hello",
        encode_extent_header(Extent(3, 4096, 20)) + bytes(20),
        encode_extent_header(Extent(4, 0, 0)),
        encode_message_header(0),
        encode_close(3, "why"),
    ]
    return b"".join(parts)


def _read_all(reader: FrameReader) -> bool:
    """Read until the stream ends or breaks the protocol; return whether a whole frame has come."""
    sink, extents = BytesSink(), 0
    try:
        while reader.read_frame():
            if reader.extent is not None:
                extents += 1
                assert reader.read_content(sink)
    except (ProtocolError, PeerClosedError):
        pass
    return bool(reader.messages) or reader.extents_read > 0


def check_tcp_stream(data: bytes) -> bool:
    """The first byte: frames in the clear, frames in records of the peer, or records of somebody without the keys."""
    if len(data) < 2:
        return False
    kind, step, body = data[0] % 4, data[1] % 64 + 1, data[2:]
    if kind == _RECORDS:
        return _check_forged_records(body, step)
    if kind == _TRUE_RECORDS:
        return _check_forged_records(_spliced(_records(_frames(), 30), body), step)
    opener = None
    if kind == _SEALED_FRAMES:
        opener = RecordOpener(_Stream(_records(body, 50), step).recv_into, _KEYS)
    reader = FrameReader(_Stream(body, step), lambda _: PeerClosedError("lost"), False, opener)  # type: ignore[arg-type]
    try:
        return _read_all(reader)
    finally:
        reader.close()


def _spliced(records: bytes, body: bytes) -> bytes:
    """Return true records with the input in the place of a part of them."""
    at = int.from_bytes(body[:2], "big") % len(records)
    return records[:at] + body[4:] + records[at + int.from_bytes(body[2:4], "big") :]


def _check_forged_records(data: bytes, step: int) -> bool:
    """What comes out must be the beginning of what the peer has sealed, and end at a failure for good."""
    opener = RecordOpener(_Stream(data, 64 * step).recv_into, _KEYS)
    opened = b""
    failures: list[Callable[[], memoryview]] = []
    try:
        while piece := opener.take_untrusted(MAX_RECORD_BYTES):
            opened += bytes(piece)
    except ProtocolError:
        failures.append(lambda: opener.take_untrusted(1))
    assert _frames().startswith(opened), "a forged record was opened"
    for again in failures:
        result = decoded(again)
        assert result is None or not len(result), "more was read after a forged record"
    decoded(decode_record_length_untrusted, data[:4].ljust(4, b"\0"))
    return bool(opened)


def seeds_of_tcp_stream() -> list[bytes]:
    frames = _frames()
    records = _records(frames, 30)
    return [
        bytes([_FRAMES, 63]) + frames,
        bytes([_FRAMES, 0]) + frames,
        bytes([_SEALED_FRAMES, 7]) + frames,
        bytes([_RECORDS, 9]) + records,
        bytes([_TRUE_RECORDS, 9]) + b"\0\x40\0\x05" + b"other",
    ]


HARNESSES = [
    Harness("connection", check_connection, seeds_of_connection),
    Harness("tcp-stream", check_tcp_stream, seeds_of_tcp_stream),
]
