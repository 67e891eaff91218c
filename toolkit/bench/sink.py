"""A receiver that keeps nothing: what arrives is hashed, compared with the sender's digest, and forgotten.

It is the session of `nettool recv` in everything else. Content lands in memory without a name (memfd_create(2)),
because it comes in any order and the digest wants it in one; what the digest has passed is given back to the
system (fallocate(2), FALLOC_FL_PUNCH_HOLE), so that a transfer of any size takes some megabytes.
"""

import ctypes
import os
import tempfile
import threading
from collections.abc import Callable

from toolkit.transfer.channel import Channel
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.incoming import IncomingFile
from toolkit.transfer.manifest import Entry, Kind
from toolkit.transfer.messages import Outcome, Status
from toolkit.transfer.receiver import ReceiveOptions, Receiver
from toolkit.transfer.report import ProgressCallback, ReceiveReport
from toolkit.transfer.storage import Storage
from toolkit.transfer.tree import NotTakenError

_PUNCH_BYTES = 16 << 20
_KEEP_SIZE_AND_PUNCH = 0x01 | 0x02
_libc = ctypes.CDLL(None, use_errno=True)


def receive_and_discard(
    channel: Channel,
    limit_bytes: int | None = None,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> ReceiveReport:
    """As `toolkit.transfer.session.receive`, and nothing stays; files beyond `limit_bytes` are refused."""
    return _DiscardingReceiver(channel, limit_bytes, progress, cancel).run()


class _DiscardingReceiver(Receiver):
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
        return _DiscardingStorage(self._limit_bytes)


class _DiscardingStorage(Storage):
    """Takes files as long as they come to `limit_bytes` at most."""

    def __init__(self, limit_bytes: int | None) -> None:
        super().__init__(os.sep, overwrite=True, durable=False)
        self._left_bytes = limit_bytes

    def _check(self, entry: Entry, _free_bytes: int | None) -> None:
        if entry.kind is Kind.DIRECTORY:
            raise NotTakenError("this receiver measures, and keeps no directories")
        if self._left_bytes is not None:
            if entry.size_bytes is None or entry.size_bytes > self._left_bytes:
                raise NotTakenError("it is more than this receiver takes; see its --max-bytes")
            self._left_bytes -= entry.size_bytes

    def _incoming(self, entry: Entry, algorithm: Algorithm, on_complete: Callable[[], None]) -> IncomingFile:
        return _DiscardedFile(self._tree, entry, algorithm, on_complete, self._pending)


class _DiscardedFile(IncomingFile):
    __slots__ = ("_punched_bytes",)
    _punched_bytes: int

    def _open(self) -> int:
        self._pinned = True  # what was written is in the descriptor only: the cache may not take it
        self._punched_bytes = 0
        if hasattr(os, "memfd_create"):
            return os.memfd_create("nettool")
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())

    def write(self, offset: int, data: memoryview) -> None:
        """See IncomingFile."""
        super().write(offset, data)
        with self.lock:
            passed_bytes = self._digest.offset - _PUNCH_BYTES
            if self._descriptor >= 0 and passed_bytes - self._punched_bytes >= _PUNCH_BYTES:
                self._punch(passed_bytes)

    def _punch(self, end: int) -> None:
        start = ctypes.c_int64(self._punched_bytes)
        length = ctypes.c_int64(end - self._punched_bytes)
        if hasattr(_libc, "fallocate64"):
            _libc.fallocate64(self._descriptor, _KEEP_SIZE_AND_PUNCH, start, length)
        self._punched_bytes = end

    def commit(self, _overwrite: bool, _durable: bool) -> Outcome:
        """Verify, and forget."""
        with self.lock:
            is_same = self._digest.digest() == self._expected_digest
        self.discard()
        return Outcome(Status.TAKEN) if is_same else Outcome(Status.MISMATCHED, "its digest is not the sender's")
