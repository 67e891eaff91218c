"""Typed, length-prefixed parameters (TLVs), by which the formats of both transports and of the session can grow.

    id u16, length u16, value        in network byte order, one parameter after another

A reader ignores ids that it does not know, so a later version can add parameters. To keep that true in practice,
writers add a parameter whose id is reserved to be unknown (GREASE, RFC 8701; ids of the form 31 * N + 27 as in RFC
9000, section 18.1). Each user of parameters has an IntEnum of its own ids.
"""

import struct
from collections.abc import Callable, Mapping

from toolkit.errors import ProtocolError

MAX_PARAMETERS = 64
MAX_VALUE_BYTES = 0xFFFF
MAX_GREASE_BYTES = 16

_HEADER = struct.Struct("!HH")
_GREASE_STEP, _GREASE_FIRST = 31, 27
_GREASE_IDS = (0xFFFF - _GREASE_FIRST) // _GREASE_STEP + 1


def encode_parameters(parameters: Mapping[int, bytes]) -> bytes:
    """Return the encoding of `parameters` (id to value), in ascending order of ids: equal mappings, equal bytes.

    Raises ValueError if there are more than MAX_PARAMETERS, or if an id or a length does not fit into 16 bits.
    """
    if len(parameters) > MAX_PARAMETERS:
        raise ValueError(f"{len(parameters)} parameters: the limit is {MAX_PARAMETERS}")
    parts: list[bytes] = []
    for identifier, value in sorted(parameters.items()):
        if not 0 <= identifier <= 0xFFFF or len(value) > MAX_VALUE_BYTES:
            raise ValueError(f"parameter {identifier} of {len(value)} bytes does not fit its header")
        parts += (_HEADER.pack(identifier, len(value)), value)
    return b"".join(parts)


def decode_parameters_untrusted(data: bytes | bytearray | memoryview) -> dict[int, bytes]:
    """Return id to value, in the order of `data`, which must hold nothing but parameters.

    Raises ProtocolError if a parameter is cut short or repeated, or if there are more than MAX_PARAMETERS.
    """
    parameters: dict[int, bytes] = {}
    view = memoryview(data)
    position = 0
    while position < len(view):
        if len(view) - position < _HEADER.size:
            raise ProtocolError("a parameter ends within its header")
        identifier, length = _HEADER.unpack_from(view, position)
        position += _HEADER.size
        if length > len(view) - position:
            raise ProtocolError(f"parameter {identifier} of {length} bytes is cut short")
        if identifier in parameters:
            raise ProtocolError(f"parameter {identifier} is repeated")
        if len(parameters) == MAX_PARAMETERS:
            raise ProtocolError(f"more than {MAX_PARAMETERS} parameters")
        parameters[identifier] = bytes(view[position : position + length])
        position += length
    return parameters


def decode_uint_untrusted(value: bytes, size_bytes: int) -> int:
    """Return the unsigned integer that is the whole of a parameter's value. Raises ProtocolError on another length."""
    if len(value) != size_bytes:
        raise ProtocolError(f"a parameter has {len(value)} bytes instead of {size_bytes}")
    return int.from_bytes(value)


def decode_uints_untrusted(value: bytes, size_bytes: int) -> tuple[int, ...]:
    """Return the unsigned integers of `size_bytes` each in a parameter's value. Raises ProtocolError on a remainder."""
    if len(value) % size_bytes:
        raise ProtocolError(f"a parameter of {len(value)} bytes is not a list of {size_bytes}-byte integers")
    return tuple(int.from_bytes(value[at : at + size_bytes]) for at in range(0, len(value), size_bytes))


def encode_uints(values: tuple[int, ...], size_bytes: int) -> bytes:
    """Return `values` as unsigned integers of `size_bytes` each. Raises OverflowError if one does not fit."""
    return b"".join(value.to_bytes(size_bytes) for value in values)


def grease(random_bytes: Callable[[int], bytes]) -> tuple[int, bytes]:
    """Return a parameter that every reader must ignore: a reserved id and 0 to MAX_GREASE_BYTES random bytes.

    `random_bytes(n)` returns n random bytes; the randomness is an argument because the engine has none of its own.
    """
    draw = random_bytes(3 + MAX_GREASE_BYTES)
    identifier = _GREASE_FIRST + _GREASE_STEP * (int.from_bytes(draw[:2]) % _GREASE_IDS)
    return identifier, draw[3 : 3 + draw[2] % (MAX_GREASE_BYTES + 1)]


def is_grease(identifier: int) -> bool:
    """Return whether `identifier` is reserved for GREASE, so that no real parameter may have it."""
    return identifier % _GREASE_STEP == _GREASE_FIRST
