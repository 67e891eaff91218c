"""What goes over a TCP connection: a preface each way, then frames. The layouts are written here and nowhere else.

    connecting side:  preface HELLO    token, streams, which of them, security
    listening side:   preface WELCOME  token, security          or a preface with the reason of a refusal
    then each way:    frames, a fixed header with what it announces

The first connection of a session says HELLO with a token of zeros and gets a random one in the WELCOME; the session's
other connections join by it. `security` has the place of authentication and key exchange, and is empty in this
version. Layout and meaning of the preface's first fields are the same in every version, so that ends of different
versions can tell each other. Integers are big-endian.
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

_MAGIC: Final = b"\x8eNETTOOL"  # no text protocol begins with a byte outside ASCII
_PREFACE: Final = struct.Struct("!8sHBxH")  # magic, version, kind, length of the body
_HELLO: Final = struct.Struct(f"!{TOKEN_BYTES}sHHH")  # token, streams, stream, length of security
_WELCOME: Final = struct.Struct(f"!{TOKEN_BYTES}sH")  # token, length of security
_FRAME: Final = struct.Struct("!B3xIQQ")  # kind, file id, offset, length

PREFACE_BYTES: Final = _PREFACE.size
FRAME_BYTES: Final = _FRAME.size
MAX_BODY_BYTES: Final = 1 << 10
_END_OF_OFFSETS: Final = 1 << 63


class Kind(IntEnum):
    """What a preface says."""

    HELLO = 1
    WELCOME = 2
    REFUSED_VERSION = 3
    REFUSED_SESSION = 4  # no session with this token waits for this stream
    REFUSED_STREAMS = 5
    REFUSED_SECURITY = 6


class Preface(NamedTuple):
    """The first bytes of either side; `kind` is a number, since another version may have more of them."""

    version: int
    kind: int
    body_bytes: int


class Hello(NamedTuple):
    """What the connecting side asks for: number `stream` of `streams` connections, of the session `token`."""

    token: bytes
    streams: int
    stream: int
    security: bytes


class Welcome(NamedTuple):
    """What the listening side grants."""

    token: bytes
    security: bytes


class MessageHeader(NamedTuple):
    """A message of `length` bytes follows."""

    length: int


def encode_hello(hello: Hello) -> bytes:
    """The connecting side's preface."""
    fixed = _HELLO.pack(hello.token, hello.streams, hello.stream, len(hello.security))
    return _encode_preface(Kind.HELLO, fixed + hello.security)


def encode_welcome(welcome: Welcome) -> bytes:
    """The listening side's preface."""
    return _encode_preface(Kind.WELCOME, _WELCOME.pack(welcome.token, len(welcome.security)) + welcome.security)


def encode_refusal(kind: Kind) -> bytes:
    """The listening side's preface when there will be no session."""
    return _encode_preface(kind, b"")


def _encode_preface(kind: Kind, body: bytes) -> bytes:
    return _PREFACE.pack(_MAGIC, VERSION, kind, len(body)) + body


def decode_preface_untrusted(data: bytes) -> Preface | None:
    """The preface that `data` begins with; None while it may still become one."""
    if not data.startswith(_MAGIC[: len(data)]):
        raise ProtocolError("the peer does not speak nettool's protocol")
    if len(data) < PREFACE_BYTES:
        return None
    _, version, kind, body_bytes = _PREFACE.unpack_from(data)
    if body_bytes > MAX_BODY_BYTES:
        raise ProtocolError("the preface of the peer is too long")
    return Preface(version, kind, body_bytes)


def decode_hello_untrusted(body: bytes) -> Hello:
    """The body of a HELLO of our version."""
    if len(body) < _HELLO.size:
        raise ProtocolError("the greeting of the peer is too short")
    token, streams, stream, security_bytes = _HELLO.unpack_from(body)
    if len(body) != _HELLO.size + security_bytes or stream >= max(streams, 1):
        raise ProtocolError("the greeting of the peer contradicts itself")
    return Hello(token, streams, stream, body[_HELLO.size :])


def decode_welcome_untrusted(body: bytes) -> Welcome:
    """The body of a WELCOME of our version."""
    if len(body) < _WELCOME.size:
        raise ProtocolError("the greeting of the peer is too short")
    token, security_bytes = _WELCOME.unpack_from(body)
    if len(body) != _WELCOME.size + security_bytes:
        raise ProtocolError("the greeting of the peer contradicts itself")
    return Welcome(token, body[_WELCOME.size :])


_MESSAGE: Final = 1
_EXTENT: Final = 2


def encode_message_header(length: int) -> bytes:
    """The frame header before a message."""
    return _FRAME.pack(_MESSAGE, 0, 0, length)


def encode_extent_header(extent: Extent) -> bytes:
    """The frame header before the bytes of an extent."""
    return _FRAME.pack(_EXTENT, extent.file_id, extent.offset, extent.length)


def decode_frame_untrusted(header: bytes | bytearray | memoryview) -> MessageHeader | Extent:
    """What a frame header of FRAME_BYTES announces."""
    kind, file_id, offset, length = _FRAME.unpack(header)
    if kind == _EXTENT:
        if offset + length >= _END_OF_OFFSETS:
            raise ProtocolError("the peer announces content beyond the end of any file")
        return Extent(file_id, offset, length)
    if kind != _MESSAGE or file_id or offset:
        raise ProtocolError("the peer sends frames of an unknown kind")
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"the peer announces a message of {length} bytes, more than any may have")
    return MessageHeader(length)
