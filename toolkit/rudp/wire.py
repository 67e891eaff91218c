"""The packets, each written once as a field table that gives the struct, the numpy dtype and docs/protocol.md.

Every packet begins with the same ten bytes, type, flags and connection id, whatever its version; every packet after
the handshake goes on with its packet number. All integers are in network byte order.

    handshake   INITIAL, RETRY, ACCEPT, VERSION     version and a security field that is empty today
    protected   DATA, MESSAGE                       payload at a 64-bit position of its own byte space
                ACK                                 SACK ranges, windows, counters
                PING, PROBE                         elicit an ACK; PROBE is padded (path MTU discovery, RFC 8899)
                PATH_CHALLENGE, PATH_RESPONSE       path validation (RFC 9000 section 8.2)
                CLOSE

A DATA header is 26 bytes: of a 1,500-byte IPv4 packet 1,446 are payload, and 1,430 (95.3%) once a 16-byte
authentication tag ends each packet. The connection id of the receiving side authenticates nothing against who can
read the path; it keeps everybody else out (64 unguessable bits).

Hostile bytes: each `*_untrusted` decoder raises ProtocolError and nothing else.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from toolkit.errors import ProtocolError

VERSION: Final = 0x4E54_0001  # "NT" and the number of the version
MIN_DATAGRAM_BYTES: Final = 1200  # what every path must carry (RFC 9000 section 14)
MAX_DATAGRAM_BYTES: Final = 65_507
TAG_BYTES: Final = 16  # room for an AEAD tag, kept free at the end of each protected packet by the security layer
MAX_TOKEN_BYTES: Final = 256
MAX_SECURITY_BYTES: Final = 512
MAX_REASON_BYTES: Final = 512


class PacketType(IntEnum):
    """The first byte of every datagram."""

    INITIAL = 0x01
    RETRY = 0x02
    ACCEPT = 0x03
    VERSION = 0x04
    DATA = 0x10
    MESSAGE = 0x11
    ACK = 0x12
    PING = 0x13
    PROBE = 0x14
    PATH_CHALLENGE = 0x15
    PATH_RESPONSE = 0x16
    CLOSE = 0x17


class Flags(IntEnum):
    """The second byte; unknown bits are ignored."""

    ACK_NOW = 0x01  # the sender has nothing more to send for now: do not delay the acknowledgement


class Field(NamedTuple):
    """One field: its name, its struct code, and what it means (docs/protocol.md is made from these)."""

    name: str
    code: str
    meaning: str


_NUMPY_CODES: Final = {"B": "u1", "H": ">u2", "I": ">u4", "Q": ">u8"}


class Layout:
    """A run of fixed fields: a compiled struct, and the dtype of the same bytes."""

    def __init__(self, *fields: Field) -> None:
        self.fields = fields
        self._struct = struct.Struct(">" + "".join(f.code for f in fields))
        self.size = self._struct.size
        self.pack = self._struct.pack
        self.pack_into = self._struct.pack_into
        self.dtype = np.dtype([(f.name, _NUMPY_CODES[f.code]) for f in fields])

    def unpack_untrusted(self, data: bytes | memoryview, offset: int = 0) -> tuple[int, ...]:
        """The fields' values; ProtocolError where `data` is too short."""
        if len(data) - offset < self.size:
            raise ProtocolError(f"a packet of {len(data)} bytes is too short for its type")
        return self._struct.unpack_from(data, offset)


_TYPE = Field("type", "B", "packet type")
_FLAGS = Field("flags", "B", "bit 0: acknowledge without delay")
_CONNECTION_ID = Field("connection_id", "Q", "the receiving side's id for the connection")
_PACKET_NUMBER = Field("packet_number", "Q", "counts up from 0 in each direction, never used twice")
_VERSION = Field("version", "I", "protocol version, 0x4E54 and a number")

PREFIX: Final = Layout(_TYPE, _FLAGS, _CONNECTION_ID)
COMMON: Final = Layout(_TYPE, _FLAGS, _CONNECTION_ID, _PACKET_NUMBER)
DATA: Final = Layout(
    *COMMON.fields,
    Field("offset", "Q", "where the payload belongs in the byte space of data or of messages"),
)
INITIAL: Final = Layout(
    _TYPE,
    _FLAGS,
    Field("connection_id", "Q", "the client's id, chosen at random"),
    _VERSION,
    Field("datagram_bytes", "H", "largest datagram that the sender can take"),
    Field("token_bytes", "H", "length of the address-validation token that follows"),
    Field("security_bytes", "H", "length of the security field behind it; the rest is padding"),
)
RETRY: Final = Layout(*PREFIX.fields, _VERSION, Field("token_bytes", "H", "length of the token to come back with"))
ACCEPT: Final = Layout(
    *PREFIX.fields,
    _VERSION,
    Field("server_connection_id", "Q", "the server's id, chosen at random"),
    Field("datagram_bytes", "H", "largest datagram that the sender can take"),
    Field("data_window", "Q", "first position of the data space that may not be sent yet"),
    Field("security_bytes", "H", "length of the security field that follows"),
)
VERSION_LIST: Final = Layout(*PREFIX.fields, Field("version", "I", "a version that the server speaks"))
ACK: Final = Layout(
    *COMMON.fields,
    Field("largest", "Q", "largest packet number received"),
    Field("delay_us", "I", "time from the arrival of that packet to this acknowledgement, us; 2^32 - 1: not known"),
    Field("data_window", "Q", "first position of the data space that may not be sent yet"),
    Field("message_window", "Q", "the same for the message space"),
    Field("ect_count", "I", "packets received with ECT(0) or ECT(1), modulo 2^32"),
    Field("ce_count", "I", "packets received with Congestion Experienced, modulo 2^32"),
    Field("drop_count", "I", "datagrams that the receiving host dropped at its socket, modulo 2^32"),
    Field("range_count", "H", "ranges that follow"),
)
ACK_RANGE: Final = Layout(
    Field("gap", "I", "packets not received between the range before and this one (0 for the first)"),
    Field("length", "I", "packets received in a row, counting down"),
)
PING_BODY: Final = Layout(
    Field("least_unacked", "Q", "packets below are settled: they need no more acknowledging"),
    Field("ack_every_bytes", "I", "how many bytes may arrive before an acknowledgement"),
    Field("max_ack_delay_us", "I", "how long an acknowledgement may wait, microseconds"),
)
PING: Final = Layout(*COMMON.fields, *PING_BODY.fields)
PATH: Final = Layout(*COMMON.fields, Field("challenge", "Q", "an unguessable value, echoed by the response"))
CLOSE: Final = Layout(
    *COMMON.fields,
    Field("code", "H", "0: all is well; otherwise the exit code of the side that closes"),
    Field("reason_bytes", "H", "length of a reason in UTF-8 that follows"),
)

LAYOUTS: Final = {
    PacketType.INITIAL: INITIAL,
    PacketType.RETRY: RETRY,
    PacketType.ACCEPT: ACCEPT,
    PacketType.VERSION: VERSION_LIST,
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
    """(type, connection id) of any datagram of any version."""
    kind, _, connection_id = PREFIX.unpack_untrusted(datagram)
    return kind, connection_id


@dataclass(frozen=True, slots=True)
class InitialPacket:
    """A client's first packet, padded to MIN_DATAGRAM_BYTES so that the answer amplifies nothing."""

    client_id: int
    datagram_bytes: int
    token: bytes = b""
    security: bytes = b""
    version: int = VERSION

    def encode(self) -> bytes:
        head = INITIAL.pack(
            PacketType.INITIAL,
            0,
            self.client_id,
            self.version,
            self.datagram_bytes,
            len(self.token),
            len(self.security),
        )
        return (head + self.token + self.security).ljust(MIN_DATAGRAM_BYTES, b"\0")


def decode_initial_untrusted(datagram: bytes | memoryview) -> InitialPacket:
    """Reads the version before it trusts any other length: another version's INITIAL only has the same beginning."""
    _, _, client_id, version, datagram_bytes, token_bytes, security_bytes = INITIAL.unpack_untrusted(datagram)
    if len(datagram) < MIN_DATAGRAM_BYTES:
        raise ProtocolError("an INITIAL packet is not padded to 1,200 bytes")
    if version != VERSION:
        return InitialPacket(client_id, MIN_DATAGRAM_BYTES, version=version)
    end = INITIAL.size + token_bytes + security_bytes
    if token_bytes > MAX_TOKEN_BYTES or security_bytes > MAX_SECURITY_BYTES or end > len(datagram):
        raise ProtocolError("an INITIAL packet's lengths make no sense")
    if not MIN_DATAGRAM_BYTES <= datagram_bytes <= MAX_DATAGRAM_BYTES:
        raise ProtocolError("an INITIAL packet's datagram size makes no sense")
    token = bytes(datagram[INITIAL.size : INITIAL.size + token_bytes])
    return InitialPacket(client_id, datagram_bytes, token, bytes(datagram[INITIAL.size + token_bytes : end]))


def encode_retry(client_id: int, token: bytes) -> bytes:
    """The stateless answer to an INITIAL from an address that is not validated."""
    return RETRY.pack(PacketType.RETRY, 0, client_id, VERSION, len(token)) + token


def decode_retry_untrusted(datagram: bytes | memoryview) -> bytes:
    """The token."""
    *_, token_bytes = RETRY.unpack_untrusted(datagram)
    token = bytes(datagram[RETRY.size : RETRY.size + token_bytes])
    if not 0 < token_bytes <= MAX_TOKEN_BYTES or len(token) != token_bytes:
        raise ProtocolError("a RETRY packet's token is not whole")
    return token


@dataclass(frozen=True, slots=True)
class AcceptPacket:
    """The server's answer: the connection is made."""

    client_id: int
    server_id: int
    datagram_bytes: int
    data_window: int
    security: bytes = b""

    def encode(self) -> bytes:
        head = ACCEPT.pack(
            PacketType.ACCEPT,
            0,
            self.client_id,
            VERSION,
            self.server_id,
            self.datagram_bytes,
            self.data_window,
            len(self.security),
        )
        return head + self.security


def decode_accept_untrusted(datagram: bytes | memoryview) -> AcceptPacket:
    _, _, client_id, version, server_id, datagram_bytes, window, security_bytes = ACCEPT.unpack_untrusted(datagram)
    security = bytes(datagram[ACCEPT.size : ACCEPT.size + security_bytes])
    if version != VERSION or security_bytes > MAX_SECURITY_BYTES or len(security) != security_bytes:
        raise ProtocolError("an ACCEPT packet makes no sense")
    if not MIN_DATAGRAM_BYTES <= datagram_bytes <= MAX_DATAGRAM_BYTES or window > MAX_OFFSET:
        raise ProtocolError("an ACCEPT packet's sizes make no sense")
    return AcceptPacket(client_id, server_id, datagram_bytes, window, security)


def encode_version_list(client_id: int) -> bytes:
    """The answer to an INITIAL of a version that is not spoken here."""
    return VERSION_LIST.pack(PacketType.VERSION, 0, client_id, VERSION)


def decode_version_list_untrusted(datagram: bytes | memoryview) -> int:
    """The version that the server speaks."""
    return VERSION_LIST.unpack_untrusted(datagram)[3]


MAX_OFFSET: Final = (1 << 63) - 1
"""Positions and packet numbers stay below this, so that they fit a signed 64-bit integer with room to add."""


UNKNOWN_DELAY_US: Final = 0xFFFF_FFFF
"""In place of an acknowledgement's delay: it gives no RTT sample. Longer ones are sent as this, too."""


@dataclass(frozen=True, slots=True)
class AckPacket:
    """`ranges` are half-open intervals of packet numbers, newest first, disjoint and not adjacent."""

    ranges: list[tuple[int, int]]
    delay_us: int
    data_window: int
    message_window: int
    ect_count: int
    ce_count: int
    drop_count: int


_MAX_RUN: Final = 0xFFFF_FFFF
"""What the fields of a range hold."""


def max_ack_ranges(datagram_bytes: int) -> int:
    """How many ranges fit one datagram, with the room for a tag left free."""
    return (datagram_bytes - TAG_BYTES - ACK.size) // ACK_RANGE.size


def encode_ack(connection_id: int, packet_number: int, ack: AckPacket) -> bytes:
    """Ranges behind a gap or a run that its field cannot tell are left out: a peer that skips numbers gets less."""
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


def decode_ack_untrusted(datagram: bytes | memoryview) -> AckPacket:
    """Ranges are checked to count down and to stay at or above 0; whether they were ever sent, the engine checks."""
    (_, _, _, _, largest, delay_us, data_window, message_window, ect, ce, drops, count) = ACK.unpack_untrusted(datagram)
    if count == 0 or len(datagram) < ACK.size + count * ACK_RANGE.size:
        raise ProtocolError("an ACK packet's ranges are not whole")
    if largest >= MAX_OFFSET or data_window > MAX_OFFSET or message_window > MAX_OFFSET:
        raise ProtocolError("an ACK packet's numbers make no sense")
    numbers = struct.unpack_from(f">{2 * count}I", datagram, ACK.size)
    ranges = []
    end = largest + 1
    for i in range(0, 2 * count, 2):
        gap, length = numbers[i], numbers[i + 1]
        end -= gap
        start = end - length
        if length == 0 or start < 0 or (gap == 0) != (i == 0):
            raise ProtocolError("an ACK packet's ranges make no sense")
        ranges.append((start, end))
        end = start
    return AckPacket(ranges, delay_us, data_window, message_window, ect, ce, drops)


def encode_close(connection_id: int, packet_number: int, code: int, reason: str) -> bytes:
    text = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES]
    return CLOSE.pack(PacketType.CLOSE, 0, connection_id, packet_number, code, len(text)) + text


def decode_close_untrusted(datagram: bytes | memoryview) -> tuple[int, str]:
    """(code, reason); the reason is a peer's text and goes through `printable` before it is shown."""
    *_, code, reason_bytes = CLOSE.unpack_untrusted(datagram)
    text = bytes(datagram[CLOSE.size : CLOSE.size + reason_bytes])
    if reason_bytes > MAX_REASON_BYTES or len(text) != reason_bytes:
        raise ProtocolError("a CLOSE packet's reason is not whole")
    return code, text.decode("utf-8", "replace")
