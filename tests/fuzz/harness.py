"""What a fuzzer of one decoder is, and inputs that consist of several steps.

A harness feeds one input to code that takes bytes from a peer. It returns whether the code took any of it, and fails if
the code raises anything but what it promises, or if what it took does not encode to the same bytes again.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import shake_128
from typing import TypeVar

from toolkit.errors import ProtocolError, RefusedError

T = TypeVar("T")

_STEP = struct.Struct("!BH")
_MAX_STEPS = 64


@dataclass(frozen=True)
class Harness:
    """check: takes one input, returns whether anything was decoded; seeds: inputs of correct peers"""

    name: str
    check: Callable[[bytes], bool]
    seeds: Callable[[], list[bytes]]


def decoded(decode: Callable[..., T], *arguments: object) -> T | None:
    """Return what `decode` returns; None if it raises ProtocolError or RefusedError, as decoders may."""
    with suppress(ProtocolError, RefusedError):
        return decode(*arguments)
    return None


def steps(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split an input into steps: a kind and the bytes that belong to it. The last one may be cut short."""
    at = 0
    for _ in range(_MAX_STEPS):
        if len(data) - at < _STEP.size:
            return
        kind, length = _STEP.unpack_from(data, at)
        at += _STEP.size
        yield kind, data[at : at + length]
        at += length


def join_steps(parts: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the input that `steps` splits into `parts`."""
    return b"".join(_STEP.pack(kind, len(body)) + body for kind, body in parts)


def fixed_random(name: bytes) -> Callable[[int], bytes]:
    """Return a source of "random" bytes that are always the same, so that every input can be repeated."""
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return shake_128(name + drawn.to_bytes(8, "big")).digest(count)

    return draw
