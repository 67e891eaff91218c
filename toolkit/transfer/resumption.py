"""Which chunks of a file the receiver holds, at the sender: which ones to ask about, and which ones to send.

The sender goes through a file in order. Chunks that the receiver holds are hashed and not sent; what lies between them
is sent, and so are the chunks that differ, soon after the receiver has said so.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from toolkit.errors import ProtocolError
from toolkit.transfer.chunks import CHUNK_BYTES, MAX_MESSAGE_CHUNKS, ChunkRange, Kept, whole_chunks


class ByteRange(NamedTuple):
    """A range of a file, in bytes."""

    offset: int
    length: int


class Resumption:
    """How one file goes on.

    kept_bytes: how much the receiver has and keeps, as far as it has answered
    differing:  what it has asked for again
    """

    def __init__(self, held: Sequence[ChunkRange], size_bytes: int) -> None:
        self._held = held
        self._size_bytes = size_bytes
        self._asked: deque[ChunkRange] = deque()  # and not answered, in order
        self.kept_bytes = 0
        self.differing: deque[ByteRange] = deque()

    @property
    def unanswered(self) -> int:
        """How many messages the receiver has not answered."""
        return len(self._asked)

    def next_held(self, offset: int, end: int) -> ChunkRange | None:
        """The first chunks that lie whole in a range of bytes and that the receiver holds, for one message."""
        within = whole_chunks(offset, end - offset, self._size_bytes)
        for one in self._held:
            first, last = max(one.first, within.first), min(one.end, within.end)
            if first < last:
                return ChunkRange(first, min(last - first, MAX_MESSAGE_CHUNKS))
        return None

    def ask(self, chunks: ChunkRange) -> None:
        """The receiver is asked about these chunks."""
        self._asked.append(chunks)

    def on_kept(self, message: Kept) -> None:
        """Take the answer about the chunks that were asked about first. Raises ProtocolError."""
        if not self._asked or self._asked.popleft() != (message.first, len(message.are_same)):
            raise ProtocolError("the receiver sent a KEPT that answers no CHUNKS")
        for number, is_same in enumerate(message.are_same, message.first):
            offset, length = self.bytes_of(ChunkRange(number, 1))
            if is_same:
                self.kept_bytes += length
            else:
                self.differing.append(ByteRange(offset, length))

    def bytes_of(self, chunks: ChunkRange) -> ByteRange:
        """The bytes of these chunks."""
        offset = chunks.first * CHUNK_BYTES
        return ByteRange(offset, min(chunks.end * CHUNK_BYTES, self._size_bytes) - offset)
