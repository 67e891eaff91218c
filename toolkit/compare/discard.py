"""A receiver that keeps nothing: what arrives is hashed, compared with the sender's digest, and forgotten.

It is the session of `nettool recv` in everything else. Content lands in memory without a name (memfd_create(2)),
because it comes in any order and the digest wants it in one; what the digest has passed is given back to the
system (fallocate(2), FALLOC_FL_PUNCH_HOLE), so that a transfer of any size takes some megabytes. What a peer may have
held at a time is bounded: in MAX_FILES files, and MAX_HELD_BYTES from what is missing first to what came last.
"""

import ctypes
import os
import tempfile
import threading
from collections.abc import Callable

from toolkit.channel import Channel
from toolkit.errors import ProtocolError
from toolkit.transfer import ProgressCallback, ReceiveOptions, TransferResult
from toolkit.transfer.digest import Algorithm, PendingRanges
from toolkit.transfer.incoming import IncomingFile
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.receiver import ReceiveSession
from toolkit.transfer.storage import Storage
from toolkit.transfer.tree import RefusedEntryError, Tree, storage_error

MAX_FILES = 64
MAX_HELD_BYTES = 256 << 20  # of a session; a loss on a path of 5 Gbit/s and 200 ms holds half of it up
_PUNCH_BYTES = 4 << 20
_KEEP_SIZE_AND_PUNCH = 0x01 | 0x02
_libc = ctypes.CDLL(None, use_errno=True)


def receive_and_discard(
    channel: Channel,
    limit_bytes: int | None = None,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> TransferResult:
    """As `toolkit.transfer.receive`, and nothing stays; files beyond `limit_bytes` are refused."""
    return _DiscardingReceiver(channel, limit_bytes, progress, cancel).run()


class _DiscardingReceiver(ReceiveSession):
    def __init__(
        self,
        channel: Channel,
        limit_bytes: int | None,
        progress: ProgressCallback | None,
        cancel: threading.Event | None,
    ) -> None:
        super().__init__(channel, os.sep, ReceiveOptions(overwrite=True), progress, cancel)
        self._limit_bytes = limit_bytes

    def _make_storage(self) -> Storage:
        return DiscardingStorage(self._limit_bytes)


class DiscardingStorage(Storage):
    """Takes files as long as they come to `limit_bytes` at most."""

    def __init__(self, limit_bytes: int | None) -> None:
        super().__init__(os.sep, overwrite=True, durable=False)
        self._tree.maps_extents = False  # a splice would land content that nobody gives back
        self._left_bytes = limit_bytes
        self._room = _Room()

    def _check(self, entry: Entry, _free_bytes: int | None) -> None:
        if entry.kind is EntryKind.DIRECTORY:
            raise RefusedEntryError("this receiver measures, and keeps no directories")
        if len(self._files) >= MAX_FILES:
            raise RefusedEntryError(f"this receiver measures, and takes {MAX_FILES} files at a time: send one")
        if self._left_bytes is not None:
            if entry.size_bytes is None or entry.size_bytes > self._left_bytes:
                raise RefusedEntryError("it is more than this receiver takes; see its --max-bytes")
            self._left_bytes -= entry.size_bytes

    def _incoming(self, entry: Entry, algorithm: Algorithm, on_complete: Callable[[], None]) -> IncomingFile:
        return _DiscardedFile(self._tree, entry, algorithm, on_complete, self._pending, self._room)


class _Room:
    """What the files of a session hold, MAX_HELD_BYTES at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Less than nothing gives back. Raises ProtocolError."""
        with self._lock:
            self._held_bytes += size_bytes
            if self._held_bytes > MAX_HELD_BYTES:
                raise ProtocolError("the peer sends too far ahead of what is missing")


class _DiscardedFile(IncomingFile):
    __slots__ = ("_end", "_punched_bytes", "_room")

    def __init__(
        self,
        tree: Tree,
        entry: Entry,
        algorithm: Algorithm,
        on_complete: Callable[[], None],
        pending: PendingRanges,
        room: _Room,
    ) -> None:
        super().__init__(tree, entry, algorithm, on_complete, pending)
        self._room = room
        self._end = self._punched_bytes = 0

    def _open(self) -> int:
        self._pinned = True  # what was written is in the descriptor only: the cache may not take it
        try:
            if hasattr(os, "memfd_create"):
                return os.memfd_create("nettool")
            with tempfile.TemporaryFile() as file:
                return os.dup(file.fileno())
        except OSError as error:
            raise storage_error(error, self.entry.name) from error

    def write(self, offset: int, data: memoryview) -> None:
        """See IncomingFile."""
        with self.lock:
            end = offset + len(data)
            if end > self._end:
                self._room.take(end - self._end)
                self._end = end
        super().write(offset, data)
        with self.lock:
            passed_bytes = self._digest.offset
            if self._descriptor >= 0 and passed_bytes - self._punched_bytes >= _PUNCH_BYTES:
                self._punch(passed_bytes)

    def _punch(self, end: int) -> None:
        start = ctypes.c_int64(self._punched_bytes)
        length = ctypes.c_int64(end - self._punched_bytes)
        if hasattr(_libc, "fallocate64"):
            _libc.fallocate64(self._descriptor, _KEEP_SIZE_AND_PUNCH, start, length)
        self._room.take(self._punched_bytes - end)
        self._punched_bytes = end

    def commit(self, _overwrite: bool, _durable: bool) -> EntryOutcome:
        """Verify, and forget."""
        with self.lock:
            is_same = self._digest.digest() == self._expected_digest
        self.discard()
        self._room.take(self._punched_bytes - self._end)
        return (
            EntryOutcome(EntryStatus.OK)
            if is_same
            else EntryOutcome(EntryStatus.MISMATCHED, "its digest is not the sender's")
        )
