"""Packet layouts. Each is one table of fields, from which the struct, the numpy dtype and docs/protocol.md are made.

Every packet begins with the same ten bytes, whatever its version: type, flags, connection id. Every packet after the
handshake continues with its packet number. All integers are in network byte order.

    handshake   INITIAL, RETRY, ACCEPT, ...         version and parameters: see handshake_packets.py
    protected   DATA, MESSAGE                       payload at a 64-bit offset of its stream
                ACK                                 ranges of packet numbers, receive windows, counters
                PING, PROBE                         elicit an ACK; PROBE is padded (path MTU discovery, RFC 8899)
                PATH_CHALLENGE, PATH_RESPONSE       path validation (RFC 9000 section 8.2)
                CLOSE

The layouts and decoders are those of packets in the clear. `aead_protection.py` seals what follows the header, which is
DATA.size bytes in DATA and MESSAGE and COMMON.size in all others, and adds a tag of 16 bytes. A 1,500-byte IPv4 packet
therefore carries 1,430 bytes of payload (95.3%).

Each `*_untrusted` decoder raises ProtocolError for invalid bytes, and nothing else.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from toolkit.errors import ProtocolError

MIN_DATAGRAM_BYTES: Final = 1200  # every path must carry this size (RFC 9000 section 14)
MAX_DATAGRAM_BYTES: Final = 65_507
TAG_BYTES: Final = 16  # AEAD tag at the end of each protected packet
MAX_REASON_BYTES: Final = 512
_MAX_RUN: Final = 0xFFFF_FFFF
"""Maximum value of the fields of a range."""
_MAX_RANGE_COUNT: Final = 0xFFFF
UNKNOWN_DELAY_US: Final = 0xFFFF_FFFF
"""The delay of an acknowledgement that gives no RTT sample. Longer delays are encoded as this, too."""
MAX_OFFSET: Final = (1 << 63) - 1
"""Stream offsets do not exceed this, and packet numbers stay below, so that both fit a signed 64-bit integer."""


class PacketType(IntEnum):
    """The first byte of every datagram."""

    INITIAL = 0x01
    RETRY = 0x02
    ACCEPT = 0x03
    VERSION = 0x04
    REFUSE = 0x05
    FINISH = 0x06
    DATA = 0x10
    MESSAGE = 0x11
    ACK = 0x12
    PING = 0x13
    PROBE = 0x14
    PATH_CHALLENGE = 0x15
    PATH_RESPONSE = 0x16
    CLOSE = 0x17


ACK_ELICITING: Final = frozenset({PacketType.DATA, PacketType.MESSAGE, PacketType.PING, PacketType.PROBE})


class Flags(IntEnum):
    """The second byte; unknown bits are ignored."""

    ACK_NOW = 0x01  # do not delay the acknowledgement: the sender has nothing more to send for now
    KEY_PHASE = 0x02  # which of two successive generations of keys has sealed the packet
    HELD_UP = 0x04  # the sender waits for a file, and handles nothing that arrives meanwhile


class Field(NamedTuple):
    """One field: its name, struct code, and meaning as shown in docs/protocol.md."""

    name: str
    code: str
    meaning: str


_NUMPY_CODES: Final = {"B": "u1", "H": ">u2", "I": ">u4", "Q": ">u8"}


class Layout:
    """Consecutive fixed fields: a compiled struct, and the numpy dtype of the same bytes."""

    def __init__(self, *fields: Field) -> None:
        self.fields = fields
        self._struct = struct.Struct(">" + "".join(f.code for f in fields))
        self.size = self._struct.size
        self.pack = self._struct.pack
        self.pack_into = self._struct.pack_into
        self.dtype = np.dtype([(f.name, _NUMPY_CODES[f.code]) for f in fields])

    def unpack_untrusted(self, data: bytes | memoryview, offset: int = 0) -> tuple[int, ...]:
        """Return the values of the fields. Raises ProtocolError if `data` is too short."""
        if len(data) - offset < self.size:
            raise ProtocolError(f"packet of {len(data)} bytes is too short for its type")
        return self._struct.unpack_from(data, offset)


_TYPE = Field("type", "B", "packet type")
_FLAGS = Field("flags", "B", "bit 0: acknowledge without delay; bit 1: key phase; bit 2: held up")
_CONNECTION_ID = Field("connection_id", "Q", "connection id, chosen by the receiver of the packet")
_PACKET_NUMBER = Field("packet_number", "Q", "increases from 0 in each direction, never used twice")
_VERSION = Field("version", "I", "protocol version: 0x4E54 and a number")

PREFIX: Final = Layout(_TYPE, _FLAGS, _CONNECTION_ID)
COMMON: Final = Layout(_TYPE, _FLAGS, _CONNECTION_ID, _PACKET_NUMBER)
DATA: Final = Layout(
    *COMMON.fields,
    Field("offset", "Q", "stream offset of the payload, in the data or message stream"),
)
ACK: Final = Layout(
    *COMMON.fields,
    Field("largest", "Q", "largest packet number received"),
    Field("delay_us", "I", "how long the largest ack-eliciting packet has waited for it, in us; 2^32 - 1 if unknown"),
    Field("data_window", "Q", "first offset of the data stream that may not be sent yet"),
    Field("message_window", "Q", "first offset of the message stream that may not be sent yet"),
    Field("ect_count", "I", "packets received with ECT(0) or ECT(1), modulo 2^32"),
    Field("ce_count", "I", "packets received with Congestion Experienced, modulo 2^32"),
    Field("drop_count", "I", "datagrams that the host dropped at its socket, modulo 2^32"),
    Field("range_count", "H", "number of ranges that follow"),
)
ACK_RANGE: Final = Layout(
    Field("gap", "I", "missing packets between the range before and this one (0 for the first)"),
    Field("length", "I", "received packets in a row, in descending order"),
)
PING_BODY: Final = Layout(
    Field("least_unacked", "Q", "packets below this number need no more acknowledgement"),
    Field("ack_every_bytes", "I", "bytes that may arrive before an acknowledgement"),
    Field("max_ack_delay_us", "I", "maximum delay of an acknowledgement, in us"),
)
PING: Final = Layout(*COMMON.fields, *PING_BODY.fields)
PATH: Final = Layout(*COMMON.fields, Field("challenge", "Q", "random value, echoed by the response"))
CLOSE: Final = Layout(
    *COMMON.fields,
    Field("code", "H", "0 for success, otherwise the exit code of the closing side"),
    Field("reason_bytes", "H", "length of the reason that follows, in UTF-8"),
)

LAYOUTS: Final = {
    PacketType.DATA: DATA,
    PacketType.MESSAGE: DATA,
    PacketType.ACK: ACK,
    PacketType.PING: PING,
    PacketType.PROBE: COMMON,
    PacketType.PATH_CHALLENGE: PATH,
    PacketType.PATH_RESPONSE: PATH,
    PacketType.CLOSE: CLOSE,
}
HEADER_BYTES: Final = DATA.size


def connection_id_untrusted(datagram: bytes | memoryview) -> tuple[int, int]:
    """Return (type, connection id) of a datagram of any version."""
    packet_type, _, connection_id = PREFIX.unpack_untrusted(datagram)
    return packet_type, connection_id


@dataclass(frozen=True, slots=True)
class AckPacket:
    """An acknowledgement; see `ACK`. `ranges` are half-open, newest first, disjoint and not adjacent."""

    ranges: list[tuple[int, int]]
    delay_us: int
    data_window: int
    message_window: int
    ect_count: int
    ce_count: int
    drop_count: int


def max_ack_ranges(packet_bytes: int) -> int:
    """How many ranges fit an ACK of this size, which does not include an authentication tag."""
    return (packet_bytes - ACK.size) // ACK_RANGE.size


def encode_ack(connection_id: int, packet_number: int, ack: AckPacket) -> bytes:
    """Encode an ACK. Ranges after a gap or length that does not fit its field are left out."""
    ranges = []
    above = ack.ranges[0][1]
    for start, end in ack.ranges:
        if above - end > _MAX_RUN:
            break
        ranges.append(ACK_RANGE.pack(above - end, min(end - start, _MAX_RUN)))
        if end - start > _MAX_RUN:
            break
        above = start
    head = ACK.pack(
        PacketType.ACK,
        0,
        connection_id,
        packet_number,
        ack.ranges[0][1] - 1,
        min(ack.delay_us, UNKNOWN_DELAY_US),
        ack.data_window,
        ack.message_window,
        ack.ect_count & 0xFFFF_FFFF,
        ack.ce_count & 0xFFFF_FFFF,
        ack.drop_count & 0xFFFF_FFFF,
        len(ranges),
    )
    return head + b"".join(ranges)


def decode_ack_untrusted(datagram: bytes | memoryview, max_ranges: int = _MAX_RANGE_COUNT) -> AckPacket:
    """Decode an ACK with at most `max_ranges` ranges.

    Ranges are checked to descend and not to be negative; the engine checks whether they were sent.
    """
    (_, _, _, _, largest, delay_us, data_window, message_window, ect, ce, drops, count) = ACK.unpack_untrusted(datagram)
    if count == 0 or len(datagram) < ACK.size + count * ACK_RANGE.size:
        raise ProtocolError("ACK packet with incomplete ranges")
    if count > max_ranges:
        raise ProtocolError("ACK packet with more ranges than a datagram of this connection carries")
    if largest >= MAX_OFFSET or data_window > MAX_OFFSET or message_window > MAX_OFFSET:
        raise ProtocolError("ACK packet with a number out of range")
    numbers = struct.unpack_from(f">{2 * count}I", datagram, ACK.size)
    ranges = []
    end = largest + 1
    for i in range(0, 2 * count, 2):
        gap, length = numbers[i], numbers[i + 1]
        end -= gap
        start = end - length
        if length == 0 or start < 0 or (gap == 0) != (i == 0):
            raise ProtocolError("ACK packet with invalid ranges")
        ranges.append((start, end))
        end = start
    return AckPacket(ranges, delay_us, data_window, message_window, ect, ce, drops)


def encode_close(connection_id: int, packet_number: int, code: int, reason: str) -> bytes:
    """Encode a CLOSE; a long reason is cut."""
    text = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES]
    return CLOSE.pack(PacketType.CLOSE, 0, connection_id, packet_number, code, len(text)) + text


def decode_close_untrusted(datagram: bytes | memoryview) -> tuple[int, str]:
    """Decode a CLOSE; return (code, reason). The reason is the peer's text: pass it through `printable` to show it."""
    *_, code, reason_bytes = CLOSE.unpack_untrusted(datagram)
    text = bytes(datagram[CLOSE.size : CLOSE.size + reason_bytes])
    if reason_bytes > MAX_REASON_BYTES or len(text) != reason_bytes:
        raise ProtocolError("CLOSE packet with an incomplete reason")
    return code, text.decode("utf-8", "replace")
