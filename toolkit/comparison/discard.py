"""A destination that keeps nothing: content is hashed, compared with the sender's digest, and dropped.

Everything else is the session of `nettool recv`. Content goes to an anonymous file in memory (memfd_create(2)),
because it arrives in any order and the digest needs it in one order. The memory behind the digest's frontier is
released (FALLOC_FL_PUNCH_HOLE of fallocate(2)), so that a transfer of any size needs some megabytes. A peer can make a
session hold MAX_FILES files, and MAX_HELD_BYTES between the first missing and the last received byte of each.
"""

import ctypes
import threading
from collections.abc import Callable, Sequence

from toolkit.channel import Channel
from toolkit.errors import ProtocolError
from toolkit.transfer import TransferResult
from toolkit.transfer.comparison import KnownFiles
from toolkit.transfer.destination import ACCEPTED, MISMATCHED, VERIFIED, RefusedEntryError
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.incoming_file import IncomingFile, SessionBudget
from toolkit.transfer.limits import ByteBudget, SessionLimits
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.open_files import anonymous_file
from toolkit.transfer.receiver import ReceiveSession

MAX_FILES = 64
MAX_HELD_BYTES = 256 << 20  # of all files of a session; a loss at 5 Gbit/s and 200 ms holds up half of it
_PUNCH_BYTES = 4 << 20
_KEEP_SIZE_AND_PUNCH = 0x01 | 0x02
_libc = ctypes.CDLL(None, use_errno=True)


def receive_and_discard(
    channel: Channel,
    limits: SessionLimits = SessionLimits(),  # noqa: B008 - frozen
    cancel: threading.Event | None = None,
    destination: "DiscardingDestination | None" = None,
) -> TransferResult:
    """As `toolkit.transfer.receive`, but keep nothing."""
    return ReceiveSession(channel, lambda: destination or DiscardingDestination(), limits, None, cancel).run()


class DiscardingDestination:
    """Verifies files and keeps none. A Destination."""

    def __init__(self) -> None:
        self._memory = _MemoryBudget()

    def begin(self, resume_key: bytes | None) -> None:
        """See Destination; nothing is left for a later session."""

    def accept(
        self,
        entries: Sequence[Entry],
        budget: ByteBudget,
        known_files: KnownFiles | None = None,  # noqa: ARG002 - it has no files
    ) -> list[EntryOutcome]:
        """See Destination."""
        outcomes: list[EntryOutcome] = []
        files = self._memory.files
        for entry in entries:
            try:
                self._check(entry, files, budget)
            except RefusedEntryError as refusal:
                outcomes.append(EntryOutcome(EntryStatus.REFUSED, str(refusal)))
            else:
                files += 1
                outcomes.append(ACCEPTED)
        return outcomes

    def create(
        self, entry: Entry, algorithm: Algorithm, budget: SessionBudget, on_complete: Callable[[], None]
    ) -> IncomingFile:
        """See Destination."""
        return _DiscardedFile(self._memory, entry, algorithm, budget, on_complete)

    @property
    def place(self) -> None:
        """See Destination; the files are in no directory."""

    def close(self, complete: bool) -> None:
        """See Destination; nothing is left to close."""

    def _check(self, entry: Entry, files: int, budget: ByteBudget) -> None:
        if entry.kind is not EntryKind.FILE:
            raise RefusedEntryError("this receiver only measures and accepts no directories or links")
        if files >= MAX_FILES:
            raise RefusedEntryError(f"this receiver only measures and accepts {MAX_FILES} files at a time: send one")
        if not budget.try_take(entry.size_bytes or 0):
            raise RefusedEntryError(budget.refusal)


class _MemoryBudget:
    """The memory that the files of a session hold, at most MAX_HELD_BYTES; `files` counts those that may hold some."""

    def __init__(self) -> None:
        self.files = 0
        self._lock = threading.Lock()
        self._held_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Hold more, or release some if negative. Raises ProtocolError."""
        with self._lock:
            self._held_bytes += size_bytes
            if self._held_bytes > MAX_HELD_BYTES:
                raise ProtocolError("the peer sent content too far ahead of the first missing byte")


class _DiscardedFile(IncomingFile):
    """A file in memory. It is never spliced into: nothing would release that memory."""

    __slots__ = ("_end", "_is_counted", "_memory", "_released_bytes")

    def __init__(
        self,
        memory: _MemoryBudget,
        entry: Entry,
        algorithm: Algorithm,
        budget: SessionBudget,
        on_complete: Callable[[], None],
    ) -> None:
        super().__init__(entry, algorithm, budget, on_complete)
        self._memory = memory
        self._memory.files += 1
        self._is_counted = True
        self._end = self._released_bytes = 0

    def _open(self) -> int:
        self._pinned = True  # the content exists only in this descriptor, so the cache must not close it
        return anonymous_file()

    def write(self, offset: int, data: memoryview) -> None:
        """See IncomingFile."""
        with self.lock:
            end = offset + len(data)
            if end > self._end:
                self._memory.add(end - self._end)
                self._end = end
        super().write(offset, data)
        with self.lock:
            hashed_bytes = self._digest.offset
            if self._descriptor >= 0 and hashed_bytes - self._released_bytes >= _PUNCH_BYTES:
                self._release(hashed_bytes)

    def commit(self) -> EntryOutcome:
        """Verify the file, and drop it."""
        with self.lock:
            if self.failure is not None:
                outcome = EntryOutcome(EntryStatus.FAILED, self.failure)
            else:
                outcome = VERIFIED if self._is_verified() else MISMATCHED
        self.discard()
        self._memory.add(self._released_bytes - self._end)
        return outcome

    def _remove(self) -> None:
        self._memory.files -= self._is_counted
        self._is_counted = False

    def _release(self, end: int) -> None:
        """Release the memory of the content before `end`."""
        start = ctypes.c_int64(self._released_bytes)
        length = ctypes.c_int64(end - self._released_bytes)
        if hasattr(_libc, "fallocate64"):
            _libc.fallocate64(self._descriptor, _KEEP_SIZE_AND_PUNCH, start, length)
        self._memory.add(self._released_bytes - end)
        self._released_bytes = end
