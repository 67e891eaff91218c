"""The earlier version of a file, which an update replaces: where the receiver finds chunks that have not changed.

A file that is sent again with `--update`, and may replace the receiver's (`--overwrite`), is built beside it, from the
chunks that both have and from what arrives. The earlier version is only read, and remains until the new one is verified
and takes its name. Another process may change it meanwhile: what is used of it is a copy that was compared with the
sender's digest.

Chunks are compared in their places. What is inserted at the front of a file therefore changes every chunk behind it.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from toolkit.transfer.chunks import MAX_HELD_RANGES, ChunkRange, whole_chunks
from toolkit.transfer.destination import RefusedEntryError
from toolkit.transfer.manifest import Entry
from toolkit.transfer.tree import Tree

MIN_BYTES = 1 << 20
"""A smaller file is sent as a whole: to compare it takes a round trip."""


class EarlierVersion:
    """The file of `tree` that has the name of `entry`, of known size, and had `status` when it was offered.

    chunks: those that both may have
    """

    def __init__(self, tree: Tree, entry: Entry, status: os.stat_result) -> None:
        self._tree = tree
        self._components = tuple(entry.path.split(b"/"))
        size_bytes = entry.size_bytes or 0
        self.chunks = whole_chunks(0, min(status.st_size, size_bytes), size_bytes)

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """A descriptor to read it with, for a block; None if that is impossible, or if it is no file any more."""
        descriptor, is_file = None, False
        with suppress(OSError, RefusedEntryError):
            descriptor = self._tree.open_file(self._components)
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        try:
            yield descriptor if is_file else None
        finally:
            if descriptor is not None:
                with suppress(OSError):  # it was only read
                    os.close(descriptor)


def is_worthwhile(entry: Entry, status: os.stat_result) -> bool:
    """Whether to look for chunks of an offered file in one that is there."""
    return min(entry.size_bytes or 0, status.st_size) >= MIN_BYTES


def with_chunks(held: Sequence[ChunkRange], chunks: ChunkRange) -> tuple[ChunkRange, ...]:
    """What is held of an unfinished file, and the chunks from 0 on of an earlier version; at most MAX_HELD_RANGES."""
    behind = (ChunkRange(first, one.end - first) for one in held if one.end > (first := max(one.first, chunks.end)))
    return (chunks, *behind)[:MAX_HELD_RANGES]
