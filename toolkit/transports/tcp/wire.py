"""The bytes of a TCP connection: prefaces, then frames. This file alone defines their layout; `records` seals frames.

    client:  HELLO    versions, connections of the session, a message of the security handshake
    server:  RETRY    a message of the security handshake, to be answered with another HELLO (a code is used)
             WELCOME  a message of the security handshake
             REFUSED  a reason; REFUSED_VERSION
    client:  FINISH   the last message of the security handshake; frames may follow at once
    then each way:    frames: a fixed header and the message or content that it announces

    further connections of the session, client:  JOIN    token, number of the connection, MAC
                                        server:  JOINED  or REFUSED

The body of a preface is a list of parameters (`toolkit.parameters`); a reader ignores those that it does not know. The
token of the session travels inside the security handshake, and `handshake` makes the MAC of a JOIN. The layout and
meaning of the preface's fixed part are the same in every version, so that peers of different versions can report the
mismatch. Integers are big-endian.
"""

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from toolkit.channel import MAX_MESSAGE_BYTES, Extent
from toolkit.errors import ProtocolError
from toolkit.parameters import (
    decode_parameters_untrusted,
    decode_uint_untrusted,
    decode_uints_untrusted,
    encode_parameters,
    encode_uints,
)

VERSION: Final = 2
VERSIONS: Final = (VERSION,)
"""The versions that this side speaks."""
MAX_STREAMS: Final = 64
TOKEN_BYTES: Final = 16
MAC_BYTES: Final = 32

_MAGIC: Final = b"\x8eNETTOOL"  # text protocols do not begin with a byte outside ASCII
_PREFACE: Final = struct.Struct("!8sHBxH")  # magic, version, type, length of the body
_FRAME: Final = struct.Struct("!B3xIQQ")  # type, file id, offset, length

PREFACE_BYTES: Final = _PREFACE.size
FRAME_BYTES: Final = _FRAME.size
"""The size of a frame's header."""
MAX_HELLO_BYTES: Final = 1 << 10
"""The most in the body of a HELLO. A server of version 1 reads no more, and then reports its version."""
MAX_BODY_BYTES: Final = 1 << 12
"""The most in the body of another preface of this version."""
MAX_EXTENT_BYTES: Final = 1 << 20
"""The most content that one frame holds: small enough to fill with zeros, large enough to cost nothing."""
MAX_REASON_BYTES: Final = 512
"""The most in the reason of a CLOSE, as over UDP."""
_END_OF_OFFSETS: Final = 1 << 63


class PrefaceType(IntEnum):
    """The types of a preface. HELLO and REFUSED_VERSION are the same in every version."""

    HELLO = 1
    WELCOME = 2
    REFUSED_VERSION = 3
    REFUSED = 4
    RETRY = 5
    FINISH = 6
    JOIN = 7
    JOINED = 8


class PrefaceRefusal(IntEnum):
    """Why a server refuses."""

    SECURITY = 1  # the security message says why
    SESSION = 2  # no session with this token and MAC waits for this connection
    STREAMS = 3  # too many connections per session
    BUSY = 4  # no descriptors left, or this host begins too many key exchanges


class PrefaceParameter(IntEnum):
    """The parameters of prefaces."""

    VERSIONS = 1  # u32 each
    STREAMS = 2  # u16
    SECURITY = 3  # a message of `toolkit.security.handshake`
    REASON = 4  # u8: a PrefaceRefusal
    TOKEN = 5
    NUMBER = 6  # u16
    MAC = 7


class SealedParameter(IntEnum):
    """The parameters that each side sends inside the security handshake."""

    VERSIONS = 1  # of the server, u32 each
    CAPABILITIES = 2  # u64: a bit for each optional feature; none is defined yet
    TOKEN = 3  # of the session, chosen by the server


class Preface(NamedTuple):
    """The fixed part of a preface. `preface_type` is an int because another version may have more types."""

    version: int
    preface_type: int
    body_bytes: int


class Hello(NamedTuple):
    """The request of a connecting side for a session of `streams` connections, of which this is the first.

    clear: everything but `security`, as it enters the key exchange
    """

    versions: tuple[int, ...]
    streams: int
    security: bytes
    clear: bytes


class Join(NamedTuple):
    """The request of a connecting side to be connection `number` of the session `token`."""

    token: bytes
    number: int
    mac: bytes


class Refused(NamedTuple):
    """The answer of a listening side that refuses. `reason` is an int because later versions may have more reasons."""

    reason: int
    security: bytes


def hello_parameters(streams: int, extra: tuple[int, bytes]) -> dict[int, bytes]:
    """Return the clear parameters of a HELLO. extra: one that the server ignores (`toolkit.parameters.grease`)"""
    return {
        PrefaceParameter.VERSIONS: encode_uints(VERSIONS, 4),
        PrefaceParameter.STREAMS: streams.to_bytes(2, "big"),
        extra[0]: extra[1],
    }


def prologue(clear: bytes) -> bytes:
    """Return what the security handshake binds to its keys: everything in a HELLO that is not secret.

    clear: the encoded clear parameters, `Hello.clear`
    """
    return b"tcp" + VERSION.to_bytes(2, "big") + clear


def encode_hello(clear: Mapping[int, bytes], security: bytes) -> bytes:
    """Encode the connecting side's preface. Raises ValueError if it is longer than MAX_HELLO_BYTES."""
    data = _encode_preface(PrefaceType.HELLO, {**clear, PrefaceParameter.SECURITY: security})
    if len(data) > PREFACE_BYTES + MAX_HELLO_BYTES:
        raise ValueError(f"a HELLO of {len(data)} bytes is longer than {MAX_HELLO_BYTES}")
    return data


def encode_security(preface_type: PrefaceType, security: bytes, *extras: tuple[int, bytes]) -> bytes:
    """Encode a RETRY, WELCOME or FINISH. extras: parameters that the peer ignores"""
    return _encode_preface(preface_type, {PrefaceParameter.SECURITY: security, **dict(extras)})


def encode_join(join: Join) -> bytes:
    """Encode the preface of a further connection."""
    parameters: dict[int, bytes] = {
        PrefaceParameter.TOKEN: join.token,
        PrefaceParameter.NUMBER: join.number.to_bytes(2, "big"),
        PrefaceParameter.MAC: join.mac,
    }
    return _encode_preface(PrefaceType.JOIN, parameters)


def encode_joined() -> bytes:
    """Encode the listening side's answer to a JOIN that it accepts."""
    return _encode_preface(PrefaceType.JOINED, {})


def encode_refusal(reason: PrefaceRefusal, security: bytes = b"") -> bytes:
    """Encode the listening side's preface if it refuses. security: the message that says why, for SECURITY"""
    parameters: dict[int, bytes] = {PrefaceParameter.REASON: bytes([reason])}
    if security:
        parameters[PrefaceParameter.SECURITY] = security
    return _encode_preface(PrefaceType.REFUSED, parameters)


def encode_version_refusal() -> bytes:
    """Encode the answer to a client of another version; its body is empty in every version."""
    return _encode_preface(PrefaceType.REFUSED_VERSION, {})


def _encode_preface(preface_type: PrefaceType, parameters: Mapping[int, bytes]) -> bytes:
    body = encode_parameters(parameters)
    return _PREFACE.pack(_MAGIC, VERSION, preface_type, len(body)) + body


def decode_preface_untrusted(data: bytes) -> Preface | None:
    """Decode the preface at the start of `data`; None while `data` is too short. Raises ProtocolError."""
    if not data.startswith(_MAGIC[: len(data)]):
        raise ProtocolError("the peer does not speak nettool's TCP protocol")
    if len(data) < PREFACE_BYTES:
        return None
    _, version, preface_type, body_bytes = _PREFACE.unpack_from(data)
    limit = MAX_HELLO_BYTES if preface_type == PrefaceType.HELLO else MAX_BODY_BYTES
    if version == VERSION and body_bytes > limit:
        raise ProtocolError(f"the peer's preface announces {body_bytes} bytes, more than {limit}")
    return Preface(version, preface_type, body_bytes)


def decode_hello_untrusted(body: bytes) -> Hello:
    """Decode the body of a HELLO. Raises ProtocolError."""
    parameters = decode_parameters_untrusted(body)
    versions = decode_uints_untrusted(_required(parameters, PrefaceParameter.VERSIONS), 4)
    streams = decode_uint_untrusted(_required(parameters, PrefaceParameter.STREAMS), 2)
    security = _required(parameters, PrefaceParameter.SECURITY)
    del parameters[PrefaceParameter.SECURITY]
    return Hello(versions, streams, security, encode_parameters(parameters))


def decode_security_untrusted(body: bytes) -> bytes:
    """Decode the body of a RETRY, WELCOME or FINISH. Raises ProtocolError."""
    return _required(decode_parameters_untrusted(body), PrefaceParameter.SECURITY)


def decode_join_untrusted(body: bytes) -> Join:
    """Decode the body of a JOIN. Raises ProtocolError."""
    parameters = decode_parameters_untrusted(body)
    token = _sized(parameters, PrefaceParameter.TOKEN, TOKEN_BYTES)
    mac = _sized(parameters, PrefaceParameter.MAC, MAC_BYTES)
    return Join(token, decode_uint_untrusted(_required(parameters, PrefaceParameter.NUMBER), 2), mac)


def decode_refused_untrusted(body: bytes) -> Refused:
    """Decode the body of a REFUSED. Raises ProtocolError."""
    parameters = decode_parameters_untrusted(body)
    reason = decode_uint_untrusted(_required(parameters, PrefaceParameter.REASON), 1)
    return Refused(reason, parameters.get(PrefaceParameter.SECURITY, b""))


def encode_client_parameters(extra: tuple[int, bytes]) -> bytes:
    """Encode what the client sends inside the security handshake. extra: a parameter that the server ignores"""
    return encode_parameters({SealedParameter.CAPABILITIES: bytes(8), extra[0]: extra[1]})


def encode_server_parameters(token: bytes, extra: tuple[int, bytes]) -> bytes:
    """Encode what the server sends inside the security handshake. extra: a parameter that the client ignores"""
    return encode_parameters(
        {
            SealedParameter.VERSIONS: encode_uints(VERSIONS, 4),
            SealedParameter.CAPABILITIES: bytes(8),
            SealedParameter.TOKEN: token,
            extra[0]: extra[1],
        }
    )


def decode_client_parameters_untrusted(data: bytes) -> int:
    """Return the capabilities of a client. Raises ProtocolError."""
    return decode_uint_untrusted(_required(decode_parameters_untrusted(data), SealedParameter.CAPABILITIES), 8)


def decode_server_parameters_untrusted(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """Return the versions that a server speaks, and the token of the session. Raises ProtocolError."""
    parameters = decode_parameters_untrusted(data)
    versions = decode_uints_untrusted(_required(parameters, SealedParameter.VERSIONS), 4)
    return versions, _sized(parameters, SealedParameter.TOKEN, TOKEN_BYTES)


def best_version(ours: tuple[int, ...], theirs: tuple[int, ...]) -> int | None:
    """Return the highest version that both sides speak, None if there is none."""
    return max(set(ours) & set(theirs), default=None)


def _required(parameters: Mapping[int, bytes], parameter: IntEnum) -> bytes:
    try:
        return parameters[parameter]
    except KeyError:
        raise ProtocolError(f"the peer's preface lacks the parameter {parameter.name}") from None


def _sized(parameters: Mapping[int, bytes], parameter: IntEnum, size_bytes: int) -> bytes:
    value = _required(parameters, parameter)
    if len(value) != size_bytes:
        raise ProtocolError(f"the peer's parameter {parameter.name} has {len(value)} bytes instead of {size_bytes}")
    return value


class MessageHeader(NamedTuple):
    """The header of a message of `length` bytes, which follows."""

    length: int


class CloseHeader(NamedTuple):
    """The header of a CLOSE: the peer ends the session. A reason of `length` bytes in UTF-8 follows, and nothing else.

    code: an ExitCode, as in the CLOSE of UDP
    """

    code: int
    length: int


_MESSAGE: Final = 1
_EXTENT: Final = 2
_CLOSE: Final = 3


def encode_message_header(length: int) -> bytes:
    """Encode the frame header that precedes a message."""
    return _FRAME.pack(_MESSAGE, 0, 0, length)


def encode_extent_header(extent: Extent) -> bytes:
    """Encode the frame header that precedes the bytes of an extent."""
    return _FRAME.pack(_EXTENT, extent.file_id, extent.offset, extent.length)


def encode_close(code: int, reason: str) -> bytes:
    """Encode the last frame of a connection, with an ExitCode; a long reason is cut."""
    text = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES]
    return _FRAME.pack(_CLOSE, code, 0, len(text)) + text


def decode_frame_untrusted(header: bytes | bytearray | memoryview) -> MessageHeader | CloseHeader | Extent:
    """Decode a frame header of FRAME_BYTES. Raises ProtocolError."""
    frame_type, file_id, offset, length = _FRAME.unpack(header)
    if frame_type == _EXTENT:
        if offset + length >= _END_OF_OFFSETS:
            raise ProtocolError(f"the peer announces content up to offset {offset + length}, beyond any file")
        if length > MAX_EXTENT_BYTES:
            raise ProtocolError(f"the peer announces {length} bytes of content, more than {MAX_EXTENT_BYTES}")
        return Extent(file_id, offset, length)
    if frame_type == _CLOSE and not offset and length <= MAX_REASON_BYTES:
        return CloseHeader(file_id, length)
    if frame_type == _CLOSE:
        raise ProtocolError(f"the peer sent a CLOSE with an offset, or with a reason of {length} bytes")
    if frame_type != _MESSAGE:
        raise ProtocolError(f"the peer sent an unknown frame type {frame_type:#04x}")
    if file_id or offset:
        raise ProtocolError("the peer sent a message header with a file id or an offset")
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"the peer announces a message of {length} bytes, more than {MAX_MESSAGE_BYTES}")
    return MessageHeader(length)
