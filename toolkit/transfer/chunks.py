"""Chunks: what a receiver may hold of a file, unfinished or of an earlier version (docs/design.md, "Resuming").

A file is divided into chunks of CHUNK_BYTES; the last one may be shorter. In its ACCEPT, the receiver says which chunks
of a file it holds. The sender sends their digests (CHUNKS), and the receiver answers which are the same (KEPT). A
receiver gives nobody a digest of what it holds, and takes no digest of less than a chunk.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from toolkit.errors import ProtocolError
from toolkit.parameters import MAX_VALUE_BYTES
from toolkit.transfer.digest import Algorithm, content_digest
from toolkit.transfer.manifest import MAX_FILE_BYTES, MAX_GROUP_ENTRIES
from toolkit.transfer.message_types import MessageType
from toolkit.transfer.reader import MessageReader

RESUME_KEY_PARAMETER = 2
"""The id among the parameters of a BEGIN: RESUME_KEY_BYTES by which a receiver finds what this sender has sent."""
RESUME_KEY_BYTES = 16
HELD_PARAMETER = 5
"""The id among the parameters of an ACCEPT: which chunks of which files the receiver holds."""

CHUNK_BYTES = 1 << 16
MAX_CHUNKS = MAX_FILE_BYTES // CHUNK_BYTES
MAX_MESSAGE_CHUNKS = 256  # 16 MiB, which either end reads in a fraction of a second
MAX_HELD_RANGES = 256  # of one file
CHUNK_DIGEST_BYTES = 16  # a chunk wrongly taken for the same is found by the digest of the file

_HELD_FILE = struct.Struct("!HH")  # index in the group, number of ranges
_HELD_RANGE = struct.Struct("!II")  # first chunk, number of chunks


class ChunkRange(NamedTuple):
    """Chunks of a file that follow one another: the number of the first one, from 0, and how many they are."""

    first: int
    length: int

    @property
    def end(self) -> int:
        """The number after the last one."""
        return self.first + self.length


HeldChunks = Mapping[int, tuple[ChunkRange, ...]]
"""What a receiver holds of the files of a group, by index; the ranges ascend."""


def chunk_digest(algorithm: Algorithm, content: bytes | memoryview) -> bytes:
    """The digest of a chunk."""
    return content_digest(algorithm, content)[:CHUNK_DIGEST_BYTES]


def whole_chunks(offset: int, length: int, size_bytes: int) -> ChunkRange:
    """The chunks of a file of `size_bytes` that lie within a range of bytes. The range may be empty."""
    first = -(-offset // CHUNK_BYTES)
    end = offset + length
    last = -(-end // CHUNK_BYTES) if end >= size_bytes else end // CHUNK_BYTES
    return ChunkRange(first, max(0, last - first))


def encode_held(held: HeldChunks) -> bytes:
    """The value of the parameter. Files for which there is no room are left out; they are sent anew."""
    parts: list[bytes] = []
    room_bytes = MAX_VALUE_BYTES
    for index, ranges in sorted(held.items()):
        room_bytes -= _HELD_FILE.size + len(ranges) * _HELD_RANGE.size
        if room_bytes < 0:
            break
        parts += (_HELD_FILE.pack(index, len(ranges)), *(_HELD_RANGE.pack(*one) for one in ranges))
    return b"".join(parts)


def decode_held_untrusted(value: bytes) -> HeldChunks:
    """What the receiver holds. Raises ProtocolError."""
    reader = MessageReader(value)
    held: dict[int, tuple[ChunkRange, ...]] = {}
    while not reader.is_at_end:
        index, count = reader.fields(_HELD_FILE)
        ranges = tuple(ChunkRange(*reader.fields(_HELD_RANGE)) for _ in range(_checked(count, MAX_HELD_RANGES)))
        if index >= MAX_GROUP_ENTRIES or index <= max(held, default=-1) or not _ascend(ranges):
            raise ProtocolError("the receiver sent an invalid list of chunks that it holds")
        held[index] = ranges
    return held


@dataclass(frozen=True, slots=True)
class Chunks:
    """Digests of 1 to MAX_MESSAGE_CHUNKS chunks that the receiver holds. The chunks of a file come in order."""

    TYPE: ClassVar = MessageType.CHUNKS
    _LAYOUT: ClassVar = struct.Struct("!IIH")

    file_id: int
    first: int
    digests: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        head = bytes([self.TYPE]) + self._LAYOUT.pack(self.file_id, self.first, len(self.digests))
        return head + b"".join(self.digests)

    @classmethod
    def decode_untrusted(cls, reader: MessageReader) -> "Chunks":
        """The fields of a message. Raises ProtocolError."""
        file_id, first, count = reader.fields(cls._LAYOUT)
        _check_chunks(first, count)
        digests = tuple(reader.octets(CHUNK_DIGEST_BYTES) for _ in range(count))
        reader.finish()
        return cls(file_id, first, digests)


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer to one CHUNKS: whether each chunk is the same at the receiver, which then keeps it."""

    TYPE: ClassVar = MessageType.KEPT
    _LAYOUT: ClassVar = struct.Struct("!IIH")

    file_id: int
    first: int
    are_same: tuple[bool, ...]

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        head = bytes([self.TYPE]) + self._LAYOUT.pack(self.file_id, self.first, len(self.are_same))
        return head + bytes(self.are_same)

    @classmethod
    def decode_untrusted(cls, reader: MessageReader) -> "Kept":
        """The fields of a message. Raises ProtocolError."""
        file_id, first, count = reader.fields(cls._LAYOUT)
        _check_chunks(first, count)
        flags = reader.octets(count)
        reader.finish()
        if max(flags) > 1:
            raise ProtocolError("the peer sent an invalid comparison of chunks")
        return cls(file_id, first, tuple(flag == 1 for flag in flags))


def _checked(count: int, most: int) -> int:
    if not 1 <= count <= most:
        raise ProtocolError(f"the peer sent a list of {count} items (1 to {most} are allowed)")
    return count


def _check_chunks(first: int, count: int) -> None:
    if first + _checked(count, MAX_MESSAGE_CHUNKS) > MAX_CHUNKS:
        raise ProtocolError("the peer sent a chunk beyond the end of any file")


def _ascend(ranges: Iterable[ChunkRange]) -> bool:
    """Whether the ranges hold something each, do not overlap and come in order."""
    end = 0
    for one in ranges:
        if one.first < end or not one.length or one.end > MAX_CHUNKS:
            return False
        end = one.end
    return True
