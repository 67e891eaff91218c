"""The bytes of a TCP connection: a preface each way, then frames. This file alone defines their layout.

    connecting side:  preface HELLO    token, connections, connection number, security
    listening side:   preface WELCOME  token, security                          or a preface that refuses
    then each way:    frames: a fixed header and the message or content that it announces

The first connection of a session says HELLO with a token of zeros and gets a random token in the WELCOME; the other
connections of the session join with it. `security` is reserved for authentication and key exchange, and is empty in
this version. The layout and meaning of the preface's fixed part are the same in every version, so that peers of
different versions can report the mismatch. Integers are big-endian.
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from toolkit.channel import MAX_MESSAGE_BYTES, Extent
from toolkit.errors import ProtocolError

VERSION: Final = 1
MAX_STREAMS: Final = 64
TOKEN_BYTES: Final = 16
NO_TOKEN: Final = bytes(TOKEN_BYTES)

_MAGIC: Final = b"\x8eNETTOOL"  # text protocols do not begin with a byte outside ASCII
_PREFACE: Final = struct.Struct("!8sHBxH")  # magic, version, type, length of the body
_HELLO: Final = struct.Struct(f"!{TOKEN_BYTES}sHHH")  # token, connections, connection number, length of security
_WELCOME: Final = struct.Struct(f"!{TOKEN_BYTES}sH")  # token, length of security
_FRAME: Final = struct.Struct("!B3xIQQ")  # type, file id, offset, length

PREFACE_BYTES: Final = _PREFACE.size
FRAME_BYTES: Final = _FRAME.size
"""The size of a frame's header."""
MAX_BODY_BYTES: Final = 1 << 10
_END_OF_OFFSETS: Final = 1 << 63


class PrefaceType(IntEnum):
    """The types of a preface."""

    HELLO = 1
    WELCOME = 2
    REFUSED_VERSION = 3
    REFUSED_SESSION = 4  # no session with this token waits for this connection
    REFUSED_STREAMS = 5
    REFUSED_SECURITY = 6


class Preface(NamedTuple):
    """The fixed part of a preface. `preface_type` is an int because another version may have more types."""

    version: int
    preface_type: int
    body_bytes: int


class Hello(NamedTuple):
    """The request of a connecting side: to be connection number `stream` of `streams` in the session `token`."""

    token: bytes
    streams: int
    stream: int
    security: bytes


class Welcome(NamedTuple):
    """The answer of a listening side that accepts."""

    token: bytes
    security: bytes


class MessageHeader(NamedTuple):
    """The header of a message of `length` bytes, which follows."""

    length: int


def encode_hello(hello: Hello) -> bytes:
    """Encode the connecting side's preface."""
    fixed = _HELLO.pack(hello.token, hello.streams, hello.stream, len(hello.security))
    return _encode_preface(PrefaceType.HELLO, fixed + hello.security)


def encode_welcome(welcome: Welcome) -> bytes:
    """Encode the listening side's preface."""
    return _encode_preface(PrefaceType.WELCOME, _WELCOME.pack(welcome.token, len(welcome.security)) + welcome.security)


def encode_refusal(preface_type: PrefaceType) -> bytes:
    """Encode the listening side's preface if it refuses the session."""
    return _encode_preface(preface_type, b"")


def _encode_preface(preface_type: PrefaceType, body: bytes) -> bytes:
    return _PREFACE.pack(_MAGIC, VERSION, preface_type, len(body)) + body


def decode_preface_untrusted(data: bytes) -> Preface | None:
    """Decode the preface at the start of `data`; None while `data` is too short. Raises ProtocolError."""
    if not data.startswith(_MAGIC[: len(data)]):
        raise ProtocolError("the peer does not speak nettool's TCP protocol")
    if len(data) < PREFACE_BYTES:
        return None
    _, version, preface_type, body_bytes = _PREFACE.unpack_from(data)
    if body_bytes > MAX_BODY_BYTES:
        raise ProtocolError(f"the peer's preface announces {body_bytes} bytes, more than {MAX_BODY_BYTES}")
    return Preface(version, preface_type, body_bytes)


def decode_hello_untrusted(body: bytes) -> Hello:
    """Decode the body of a HELLO of this version. Raises ProtocolError."""
    if len(body) < _HELLO.size:
        raise ProtocolError(f"the peer's HELLO has {len(body)} bytes, less than {_HELLO.size}")
    token, streams, stream, security_bytes = _HELLO.unpack_from(body)
    if len(body) != _HELLO.size + security_bytes:
        raise ProtocolError(f"the peer's HELLO has {len(body)} bytes, not the length that it states")
    if stream >= max(streams, 1):
        raise ProtocolError(f"the peer's HELLO is for connection {stream} of {streams}")
    return Hello(token, streams, stream, body[_HELLO.size :])


def decode_welcome_untrusted(body: bytes) -> Welcome:
    """Decode the body of a WELCOME of this version. Raises ProtocolError."""
    if len(body) < _WELCOME.size:
        raise ProtocolError(f"the peer's WELCOME has {len(body)} bytes, less than {_WELCOME.size}")
    token, security_bytes = _WELCOME.unpack_from(body)
    if len(body) != _WELCOME.size + security_bytes:
        raise ProtocolError(f"the peer's WELCOME has {len(body)} bytes, not the length that it states")
    return Welcome(token, body[_WELCOME.size :])


_MESSAGE: Final = 1
_EXTENT: Final = 2


def encode_message_header(length: int) -> bytes:
    """Encode the frame header that precedes a message."""
    return _FRAME.pack(_MESSAGE, 0, 0, length)


def encode_extent_header(extent: Extent) -> bytes:
    """Encode the frame header that precedes the bytes of an extent."""
    return _FRAME.pack(_EXTENT, extent.file_id, extent.offset, extent.length)


def decode_frame_untrusted(header: bytes | bytearray | memoryview) -> MessageHeader | Extent:
    """Decode a frame header of FRAME_BYTES. Raises ProtocolError."""
    frame_type, file_id, offset, length = _FRAME.unpack(header)
    if frame_type == _EXTENT:
        if offset + length >= _END_OF_OFFSETS:
            raise ProtocolError(f"the peer announces content up to offset {offset + length}, beyond any file")
        return Extent(file_id, offset, length)
    if frame_type != _MESSAGE:
        raise ProtocolError(f"the peer sent an unknown frame type {frame_type:#04x}")
    if file_id or offset:
        raise ProtocolError("the peer sent a message header with a file id or an offset")
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"the peer announces a message of {length} bytes, more than {MAX_MESSAGE_BYTES}")
    return MessageHeader(length)
