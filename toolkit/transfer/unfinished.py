"""The unfinished files of earlier sessions: how a session finds, locks and keeps them (docs/design.md, "Resuming").

The content of an unfinished file may be anything: another process, or a crash of the machine, may have left it. It is
used chunk by chunk, and only after the sender's digest of the chunk was compared with it.
"""

import heapq
import os
import stat
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from toolkit.transfer.chunks import MAX_HELD_RANGES, ChunkRange, whole_chunks
from toolkit.transfer.destination import RefusedEntryError
from toolkit.transfer.file_system import open_to_lock, try_lock
from toolkit.transfer.manifest import Entry
from toolkit.transfer.names import resumable_partial_name
from toolkit.transfer.sources import segments_of
from toolkit.transfer.tree import FileKey, Tree, file_key

MIN_UNFINISHED_BYTES: Final = 1 << 20
"""Less is not kept: a sender sends as much before it has the receiver's answer (OPTIMISTIC_BYTES)."""
MAX_UNFINISHED_FILES: Final = 16
"""How many of the files that a session receives at a time a later one can go on with. Each keeps a descriptor open."""

_holders: dict[FileKey, Callable[[], None]] = {}
_holders_lock = threading.Lock()


class UnfinishedFile(NamedTuple):
    """What an earlier session has left of a file, locked by this one.

    held:            the chunks that have content, which nobody has compared
    allocated_bytes: the space that it takes
    """

    name: bytes
    descriptor: int
    identity: FileKey
    held: tuple[ChunkRange, ...]
    allocated_bytes: int


class UnfinishedFiles:
    """The files of one session that a later one can go on with. Thread-safe.

    key: the sender's resume key
    """

    def __init__(self, tree: Tree, key: bytes) -> None:
        self._tree = tree
        self._key = key
        self._lock = threading.Lock()
        self._free = MAX_UNFINISHED_FILES

    def claim(self, entry: Entry) -> UnfinishedFile | None:
        """What is left of a file; None if nothing is, or another session uses it. The caller calls `release` later."""
        name = self.take_name(entry)
        if name is None:
            return None
        try:
            return self._open(tuple(entry.path.split(b"/"))[:-1], name, entry.size_bytes or 0)
        except (OSError, RefusedEntryError):
            self.release()
            return None

    def take_name(self, entry: Entry) -> bytes | None:
        """The name by which a later session finds the file; None if it cannot go on. The caller calls `release`."""
        if (entry.size_bytes or 0) < MIN_UNFINISHED_BYTES:
            return None
        with self._lock:
            if not self._free:
                return None
            self._free -= 1
        return resumable_partial_name(self._key, entry.path)

    def release(self) -> None:
        """A file whose name was taken, or that was claimed, is closed or has another name."""
        with self._lock:
            self._free += 1

    def _open(self, directory: tuple[bytes, ...], name: bytes, size_bytes: int) -> UnfinishedFile:
        """Open and lock a file that another session may use, finish or remove meanwhile. Raises OSError.

        The other session is asked to give the file up without the lock of the tree, as it may wait for this session's.
        """
        with self._tree.directory(directory) as parent:
            descriptor = open_to_lock(name, parent)
        try:
            status = os.fstat(descriptor)
            identity = file_key(status)
            if not is_own(status) or not _take_over(identity, descriptor):
                raise FileExistsError
            with self._tree.directory(directory) as parent:
                if file_key(os.stat(name, dir_fd=parent, follow_symlinks=False)) != identity:
                    raise FileNotFoundError
            if os.fstat(descriptor).st_size > size_bytes:
                os.ftruncate(descriptor, size_bytes)
            os.utime(descriptor)  # as if it were new: it is not stale while it is used (leftovers.py)
            held = _held_chunks(descriptor, size_bytes)
            return UnfinishedFile(name, descriptor, identity, held, os.fstat(descriptor).st_blocks * 512)
        except BaseException:
            os.close(descriptor)
            raise


def is_own(status: os.stat_result) -> bool:
    """Whether it is a file of this user that has no other name, so that writing to it changes nothing else."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1


def needed_bytes(entry: Entry, claimed: UnfinishedFile | None) -> int:
    """The space that a file needs beyond what an earlier session has left of it."""
    return max(0, entry.content_bytes - (0 if claimed is None else claimed.allocated_bytes))


def _take_over(identity: FileKey, descriptor: int) -> bool:
    """Lock an unfinished file. A session of this process that has it gives it up."""
    if try_lock(descriptor):
        return True
    with _holders_lock:
        give_up = _holders.get(identity)
    if give_up is None:
        return False
    give_up()
    return try_lock(descriptor)


def hold(identity: FileKey, give_up: Callable[[], None]) -> None:
    """A session has locked a file. `give_up` is called, in another thread, if the same sender begins anew.

    Its earlier session is then over, even if this end does not know that yet: the receiver of a connection that was cut
    waits for the idle timeout.
    """
    with _holders_lock:
        _holders[identity] = give_up


def let_go(identity: FileKey) -> None:
    """A session gives up its lock."""
    with _holders_lock:
        _holders.pop(identity, None)


def _held_chunks(descriptor: int, size_bytes: int) -> tuple[ChunkRange, ...]:
    """The chunks that were written, as the file system knows them: the largest ranges, if there are many."""
    stored_bytes = min(os.fstat(descriptor).st_size, size_bytes)
    ranges = (
        whole_chunks(segment.offset, segment.length, size_bytes)
        for segment in segments_of(descriptor, stored_bytes)
        if not segment.is_hole
    )
    largest = heapq.nlargest(MAX_HELD_RANGES, (one for one in ranges if one.length), key=lambda one: one.length)
    return tuple(sorted(largest))
