"""The packets of the UDP handshake: a few fixed fields in the clear, and parameters (`toolkit.parameters`) after them.

    INITIAL   client -> server   what the client offers, a token, and the first message of the key exchange
    RETRY     server -> client   what the client puts into its next INITIAL: a token, or an answer to its code
    ACCEPT    server -> client   a piece of the parameters that answer the key exchange; they fill two datagrams
    VERSION   server -> client   the versions of the server, if it does not know that of an INITIAL
    REFUSE    server -> client   why this client is refused
    FINISH    client -> server   the last message of the key exchange

INITIAL is padded to 1,200 bytes, and the answers to one take at most three times that (RFC 9000 section 8.1). VERSION
begins as in version 1 of the protocol, so that clients of every version understand it.

Each `*_untrusted` decoder raises ProtocolError for invalid bytes, and nothing else. Unknown parameters are ignored.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from toolkit.errors import ProtocolError
from toolkit.parameters import (
    decode_parameters_untrusted,
    decode_uint_untrusted,
    decode_uints_untrusted,
    encode_parameters,
    encode_uints,
)
from toolkit.rudp.wire import MAX_DATAGRAM_BYTES, MAX_OFFSET, MIN_DATAGRAM_BYTES, PREFIX, Field, Layout, PacketType

VERSION: Final = 0x4E54_0002  # "NT" and a version number
SUPPORTED_VERSIONS: Final = (VERSION,)
"""The versions that this side speaks, best first."""
MAX_TOKEN_BYTES: Final = 256
MAX_FIRST_MESSAGE_BYTES: Final = 768
"""Maximum size of the security message in an INITIAL. With the token and the other parameters, it fits 1,200 bytes."""
MAX_ACCEPT_BYTES: Final = 2 * MIN_DATAGRAM_BYTES
"""Maximum size of the parameters that an ACCEPT carries in pieces: the answer stays below three times the INITIAL."""
_MAX_VERSIONS: Final = 16
MAX_VERSIONS_BYTES: Final = 4 * _MAX_VERSIONS
"""Maximum length of a VERSIONS parameter."""
_PARAMETER: Final = struct.Struct(">HH")  # id and length


class InitialFlags(IntEnum):
    """Bits of the second byte of an INITIAL. The others are its number, from 1 on, which the answers repeat."""

    HAS_TOKEN = 0x01


_NUMBER_SHIFT: Final = 1
MAX_INITIAL_NUMBER: Final = 127


class Parameter(IntEnum):
    """The parameters of the handshake. No other number is assigned; 31 N + 27 never will be (grease)."""

    VERSIONS = 0x01
    TOKEN = 0x02
    SECURITY = 0x03
    DATAGRAM_BYTES = 0x04
    CAPABILITIES = 0x05
    SERVER_ID = 0x06
    DATA_WINDOW = 0x07


PARAMETER_MEANINGS: Final = {
    Parameter.VERSIONS: ("4 bytes for each version that the side supports, best first", "INITIAL, VERSION, M2"),
    Parameter.TOKEN: ("what the server has given to the client", "RETRY, INITIAL, M2 (for the next connection)"),
    Parameter.SECURITY: ("a message of the key exchange", "INITIAL, RETRY, ACCEPT, REFUSE, FINISH"),
    Parameter.DATAGRAM_BYTES: ("2 bytes: largest datagram that the side accepts", "M1, M2"),
    Parameter.CAPABILITIES: ("8 bytes: a bit for each optional feature, unknown ones are ignored", "M1, M2"),
    Parameter.SERVER_ID: ("8 bytes: the server's connection id, chosen at random", "M2"),
    Parameter.DATA_WINDOW: ("8 bytes: first offset of the data stream that may not be sent yet", "M2"),
}
"""For docs/protocol.md: the value of each parameter, and where it occurs."""

_FLAGS: Final = Field(
    "flags", "B", "bit 0 of INITIAL: a token is among the parameters; bits 1 to 7: number of the INITIAL"
)
_CLIENT_ID: Final = Field("connection_id", "Q", "the client's connection id, chosen at random")
_SERVER_ID: Final = Field("connection_id", "Q", "the server's connection id, which ACCEPT has named")
_VERSION: Final = Field("version", "I", "protocol version: 0x4E54 and a number")
_PARAMETERS: Final = Field("parameters_bytes", "H", "length of the parameters that follow")
_TYPE: Final = PREFIX.fields[0]

PARAMETERS: Final = Layout(_TYPE, _FLAGS, _CLIENT_ID, _VERSION, _PARAMETERS)
FINISH: Final = Layout(_TYPE, _FLAGS, _SERVER_ID, _VERSION, _PARAMETERS)
ACCEPT: Final = Layout(
    _TYPE,
    _FLAGS,
    _CLIENT_ID,
    _VERSION,
    Field("piece_offset", "H", "where this piece begins in the parameters"),
    Field("total_bytes", "H", "length of all pieces together"),
)
VERSION_ANSWER: Final = Layout(
    _TYPE, _FLAGS, _CLIENT_ID, Field("version", "I", "the best version that the server supports")
)
HANDSHAKE_LAYOUTS: Final = {
    PacketType.INITIAL: PARAMETERS,
    PacketType.RETRY: PARAMETERS,
    PacketType.ACCEPT: ACCEPT,
    PacketType.VERSION: VERSION_ANSWER,
    PacketType.REFUSE: PARAMETERS,
    PacketType.FINISH: FINISH,
}


def choose_version_untrusted(offered: Sequence[int]) -> int:
    """Return the best version that both sides support. Raises ProtocolError if there is none."""
    for version in SUPPORTED_VERSIONS:
        if version in offered:
            return version
    raise ProtocolError("the peer supports no version of the protocol that this side supports")


def encode_versions() -> bytes:
    """Return the value of the VERSIONS parameter: 4 bytes for each version of this side."""
    return encode_uints(SUPPORTED_VERSIONS, 4)


def decode_versions_untrusted(parameters: Mapping[int, bytes]) -> tuple[int, ...]:
    """Return the versions of the peer from its VERSIONS parameter."""
    versions = decode_uints_untrusted(parameters.get(Parameter.VERSIONS, b""), 4)
    if len(versions) > _MAX_VERSIONS:
        raise ProtocolError(f"handshake packet with {len(versions)} versions")
    return versions


# INITIAL


def initial_number_untrusted(datagram: bytes | memoryview) -> int:
    """Return the number of an INITIAL, or that of the INITIAL that another packet follows; 0 for no number.

    It is not protected, so it must have no effect but on a sample of the round-trip time.
    """
    return datagram[1] >> _NUMBER_SHIFT


def with_initial_number(datagram: bytes, number: int) -> bytes:
    """Return a packet of the handshake with the number of an INITIAL."""
    flags = datagram[1] & (1 << _NUMBER_SHIFT) - 1 | number << _NUMBER_SHIFT
    return b"%c%c%b" % (datagram[0], flags, datagram[2:])


@dataclass(frozen=True, slots=True)
class InitialPacket:
    """A client's first packet.

    offer:    the other parameters; they are part of the prologue of the key exchange, so a change is detected
    security: a message of the key exchange
    token:    what the server has given to this client, if anything
    """

    client_id: int
    offer: Mapping[int, bytes]
    security: bytes
    token: bytes = b""
    version: int = VERSION

    def encode(self) -> bytes:
        """Return the padded packet."""
        parameters = {**self.offer, Parameter.SECURITY: self.security}
        if self.token:
            parameters[Parameter.TOKEN] = self.token
        body = encode_parameters(parameters)
        flags = InitialFlags.HAS_TOKEN if self.token else 0
        head = PARAMETERS.pack(PacketType.INITIAL, flags, self.client_id, self.version, len(body))
        return (head + body).ljust(MIN_DATAGRAM_BYTES, b"\0")

    def prologue(self) -> bytes:
        """Return what the key exchange confirms of this packet: everything but the token and the security message."""
        return prologue_of(self.client_id, self.offer, self.version)


def prologue_of(client_id: int, offer: Mapping[int, bytes], version: int = VERSION) -> bytes:
    """Return the prologue of the key exchange: what the INITIAL negotiates in the clear."""
    return b"udp" + version.to_bytes(4, "big") + client_id.to_bytes(8, "big") + encode_parameters(offer)


def make_offer(grease: tuple[int, bytes] | None = None) -> dict[int, bytes]:
    """Return the parameters of an INITIAL in the clear. `grease` is a parameter that every server has to ignore."""
    offer = {int(Parameter.VERSIONS): encode_versions()}
    if grease is not None:
        offer[grease[0]] = grease[1]
    return offer


def initial_version_untrusted(datagram: bytes | memoryview) -> int:
    """Return the version of an INITIAL, whose first 14 bytes are alike in every version."""
    if len(datagram) < MIN_DATAGRAM_BYTES or datagram[0] != PacketType.INITIAL:
        raise ProtocolError("not an INITIAL packet of 1,200 bytes")
    return VERSION_ANSWER.unpack_untrusted(datagram)[3]


def has_token_untrusted(datagram: bytes | memoryview) -> bool:
    """Whether an INITIAL of `VERSION` says that it contains a token. Without this bit, the token does not count."""
    return bool(datagram[1] & InitialFlags.HAS_TOKEN)


def decode_initial_untrusted(datagram: bytes | memoryview) -> InitialPacket:
    """Decode an INITIAL of `VERSION`."""
    if initial_version_untrusted(datagram) != VERSION:
        raise ProtocolError("INITIAL packet of another version")
    parameters = _parameters_untrusted(datagram, PARAMETERS)
    token = parameters.pop(Parameter.TOKEN, b"")
    security = parameters.pop(Parameter.SECURITY, b"")
    if len(token) > MAX_TOKEN_BYTES or not 0 < len(security) <= MAX_FIRST_MESSAGE_BYTES:
        raise ProtocolError("INITIAL packet with an invalid token or security message")
    if choose_version_untrusted(decode_versions_untrusted(parameters)) != VERSION:
        raise ProtocolError("INITIAL packet of a version that is not the best common one")
    client_id = PREFIX.unpack_untrusted(datagram)[2]
    return InitialPacket(client_id, parameters, security, token if has_token_untrusted(datagram) else b"")


# The answers to an INITIAL


def encode_retry(client_id: int, parameter: Parameter, value: bytes) -> bytes:
    """Encode a RETRY with one parameter: TOKEN or SECURITY."""
    size = _PARAMETER.size + len(value)
    head = PARAMETERS.pack(PacketType.RETRY, 0, client_id, VERSION, size)
    return head + _PARAMETER.pack(parameter, len(value)) + value  # as `encode_parameters`, in half the time


def decode_retry_untrusted(datagram: bytes | memoryview) -> tuple[bytes, bytes]:
    """Decode a RETRY; return (token, security message). One of them may be empty."""
    parameters = _parameters_untrusted(datagram, PARAMETERS)
    token, security = parameters.get(Parameter.TOKEN, b""), parameters.get(Parameter.SECURITY, b"")
    if len(token) > MAX_TOKEN_BYTES or not token + security:
        raise ProtocolError("RETRY packet with nothing to send again")
    return token, security


def encode_refuse(client_id: int, security: bytes) -> bytes:
    """Encode a REFUSE: the security message that says why."""
    body = encode_parameters({Parameter.SECURITY: security})
    return PARAMETERS.pack(PacketType.REFUSE, 0, client_id, VERSION, len(body)) + body


def decode_refuse_untrusted(datagram: bytes | memoryview) -> bytes:
    """Decode a REFUSE; return its security message."""
    return _security_untrusted(datagram, PARAMETERS)


def encode_version(client_id: int) -> bytes:
    """Encode the answer to an INITIAL of an unsupported version: the best one of this side, and then all of them."""
    head = VERSION_ANSWER.pack(PacketType.VERSION, 0, client_id, VERSION)
    return head + encode_parameters({Parameter.VERSIONS: encode_versions()})


def decode_version_untrusted(datagram: bytes | memoryview) -> tuple[int, ...]:
    """Decode a VERSION packet; return the versions that the server supports, best first. Version 1 names only one."""
    best = VERSION_ANSWER.unpack_untrusted(datagram)[3]
    if len(datagram) == VERSION_ANSWER.size:
        return (best,)
    return decode_versions_untrusted(decode_parameters_untrusted(bytes(datagram[VERSION_ANSWER.size :])))


def encode_accept(client_id: int, security: bytes) -> list[bytes]:
    """Encode an ACCEPT for a security message: the pieces, each at most MIN_DATAGRAM_BYTES long."""
    body = encode_parameters({Parameter.SECURITY: security})
    if len(body) > MAX_ACCEPT_BYTES:
        raise ValueError(f"an ACCEPT of {len(body)} bytes is too long")
    room = MIN_DATAGRAM_BYTES - ACCEPT.size
    return [
        ACCEPT.pack(PacketType.ACCEPT, 0, client_id, VERSION, start, len(body)) + body[start : start + room]
        for start in range(0, len(body), room)
    ]


# FINISH


def encode_finish(server_id: int, security: bytes) -> bytes:
    """Encode a FINISH."""
    body = encode_parameters({Parameter.SECURITY: security})
    datagram = FINISH.pack(PacketType.FINISH, 0, server_id, VERSION, len(body)) + body
    if len(datagram) > MIN_DATAGRAM_BYTES:
        raise ValueError(f"a FINISH of {len(datagram)} bytes is too long")
    return datagram


def decode_finish_untrusted(datagram: bytes | memoryview) -> bytes:
    """Decode a FINISH; return its security message."""
    return _security_untrusted(datagram, FINISH)


# The sealed parameters


@dataclass(frozen=True, slots=True)
class ClientParameters:
    """What a client says in the first message of the key exchange, unreadable for others."""

    datagram_bytes: int
    """Largest datagram that this side accepts."""
    capabilities: int = 0
    """A bit for each optional feature; unknown bits are ignored."""

    def encode(self) -> bytes:
        """Return the parameters."""
        return encode_parameters(_limits(self.datagram_bytes, self.capabilities))


def decode_client_parameters_untrusted(data: bytes) -> ClientParameters:
    """Decode what `ClientParameters.encode` returns."""
    parameters = decode_parameters_untrusted(data)
    return ClientParameters(
        _datagram_bytes_untrusted(parameters), _number_untrusted(parameters, Parameter.CAPABILITIES, 8)
    )


@dataclass(frozen=True, slots=True)
class ServerParameters:
    """What a server says in its answer to the key exchange.

    server_id:    the server's connection id
    data_window:  first offset of the data stream that may not be sent yet
    return_token: for the client's next connection to this server; empty for none
    """

    server_id: int
    datagram_bytes: int
    data_window: int
    return_token: bytes = b""
    capabilities: int = 0

    def encode(self) -> bytes:
        """Return the parameters, together with the versions of this side."""
        parameters = _limits(self.datagram_bytes, self.capabilities)
        parameters[Parameter.VERSIONS] = encode_versions()
        parameters[Parameter.SERVER_ID] = self.server_id.to_bytes(8, "big")
        parameters[Parameter.DATA_WINDOW] = self.data_window.to_bytes(8, "big")
        if self.return_token:
            parameters[Parameter.TOKEN] = self.return_token
        return encode_parameters(parameters)


def decode_server_parameters_untrusted(data: bytes) -> ServerParameters:
    """Decode what `ServerParameters.encode` returns.

    The versions of the server are authentic here: if a better one than `VERSION` were common, somebody on the path has
    removed it from what was sent in the clear.
    """
    parameters = decode_parameters_untrusted(data)
    if choose_version_untrusted(decode_versions_untrusted(parameters)) != VERSION:
        raise ProtocolError("the handshake has not chosen the best common version")
    data_window = _number_untrusted(parameters, Parameter.DATA_WINDOW, 8)
    token = parameters.get(Parameter.TOKEN, b"")
    if data_window > MAX_OFFSET or len(token) > MAX_TOKEN_BYTES:
        raise ProtocolError("ACCEPT packet with an invalid window or token")
    return ServerParameters(
        _number_untrusted(parameters, Parameter.SERVER_ID, 8),
        _datagram_bytes_untrusted(parameters),
        data_window,
        token,
        _number_untrusted(parameters, Parameter.CAPABILITIES, 8),
    )


def _limits(datagram_bytes: int, capabilities: int) -> dict[int, bytes]:
    return {
        Parameter.DATAGRAM_BYTES: datagram_bytes.to_bytes(2, "big"),
        Parameter.CAPABILITIES: capabilities.to_bytes(8, "big"),
    }


def _parameters_untrusted(datagram: bytes | memoryview, layout: Layout) -> dict[int, bytes]:
    *_, version, size = layout.unpack_untrusted(datagram)
    body = bytes(datagram[layout.size : layout.size + size])
    if version != VERSION or len(body) != size:
        raise ProtocolError("handshake packet of another version, or with incomplete parameters")
    return decode_parameters_untrusted(body)


def _security_untrusted(datagram: bytes | memoryview, layout: Layout) -> bytes:
    security = _parameters_untrusted(datagram, layout).get(Parameter.SECURITY, b"")
    if not security:
        raise ProtocolError("handshake packet without a security message")
    return security


def _number_untrusted(parameters: Mapping[int, bytes], parameter: Parameter, size: int) -> int:
    return decode_uint_untrusted(parameters.get(parameter, b""), size)


def _datagram_bytes_untrusted(parameters: Mapping[int, bytes]) -> int:
    value = _number_untrusted(parameters, Parameter.DATAGRAM_BYTES, 2)
    if not MIN_DATAGRAM_BYTES <= value <= MAX_DATAGRAM_BYTES:
        raise ProtocolError("handshake packet with an invalid datagram size")
    return value
