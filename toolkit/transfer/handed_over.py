"""A destination that hands each verified file over to the program: as bytes, or through a file object.

Content arrives in any order, and none of it may be used before its digest is verified. A program that wants bytes has
room for them, so they wait in memory. The content of a single file, which may be of any size, goes to a file on the
disk without a name. Only that keeps a descriptor open: if each of many files did, one session could take all that the
process may have.
"""

import errno
import io
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final

from toolkit.transfer.arriving_file import ArrivingFile
from toolkit.transfer.comparison import KnownFiles
from toolkit.transfer.destination import ACCEPTED, MISMATCHED, UNCHANGED, VERIFIED, RefusedEntryError
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.file_system import storage_reason
from toolkit.transfer.incoming_file import IncomingFile, SessionBudget
from toolkit.transfer.limits import ByteBudget
from toolkit.transfer.manifest import MAX_FILE_BYTES, Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.names import refusal_reason_untrusted
from toolkit.transfer.small_stored_file import SmallFileStorage, SmallStoredFile, may_wait_in_memory

QUICK_BYTES: Final = 1 << 20
"""A file below this size is handed over between two messages; a larger one while another thread keeps the session.

So is a single file of any size, because its file object may block, for example on a pipe.
"""

MAX_NAMES_BYTES: Final = 1 << 28
"""Memory for the names of a session, which stay in it to its end: a million names of 160 bytes."""
_NAME_OVERHEAD_BYTES: Final = 100  # of a name in a set

HandOver = Callable[[str, BinaryIO], None]
"""Called as `hand_over(name, file)` with a file to read to its end; it is closed after the call. May raise OSError."""


class SingleFile:
    """The one file that a session, and those that continue it, may hand over. Thread-safe.

    A sender whose connection was lost offers the file again if it does not know that it has arrived; but what was
    written to a file object cannot be taken back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entry: Entry | None = None
        self._is_whole = False

    def begin(self, entry: Entry) -> None:
        """The file is handed over from now on. Raises OSError if another session has begun to."""
        with self._lock:
            if self._entry is not None:
                raise OSError(0, "another session has brought it")
            self._entry = entry

    def finish(self) -> None:
        """The file was handed over."""
        self._is_whole = True

    def is_here(self, entry: Entry, is_update: bool) -> bool:
        """Whether a sender that updates offers what was handed over; False if nothing was.

        Raises RefusedEntryError for anything else that is offered then.
        """
        if self._entry is None:
            return False
        if not (is_update and self._is_whole and _identity(entry) == _identity(self._entry)):
            raise RefusedEntryError("this receiver takes one file, which an earlier session has brought")
        return True


def _identity(entry: Entry) -> tuple[bytes, int | None, int]:
    return entry.path, entry.size_bytes, entry.mtime_ns


class HandedOverDestination:
    """Hands files over once they are verified; directories are nothing to it. A Destination.

    hand_over:  takes a file; several threads may call it
    single:     what it shares with earlier sessions, if it takes one file only. That is in the directory for temporary
                files until then, if it is large; several are in memory, as far as the limits of the session allow
    dotfiles:   whether names may begin with a dot (names.py)
    """

    def __init__(self, hand_over: HandOver, *, single: SingleFile | None = None, dotfiles: bool = False) -> None:
        self._hand_over = hand_over
        self._single = single
        self._dotfiles = dotfiles
        self._names: set[bytes] = set()
        self._names_bytes = 0  # of memory
        self._small_files = SmallFileStorage(self._hand_over_small, self._create, stores_quickly=single is None)

    def begin(self, resume_key: bytes | None) -> None:
        """See Destination; nothing is left for a later session."""

    def accept(
        self,
        entries: Sequence[Entry],
        budget: ByteBudget,
        known_files: KnownFiles | None = None,
    ) -> list[EntryOutcome]:
        """See Destination."""
        outcomes = []
        for entry in entries:
            try:
                outcomes.append(self._decide(entry, budget, known_files))
            except RefusedEntryError as refusal:
                outcomes.append(EntryOutcome(EntryStatus.REFUSED, str(refusal)))
        return outcomes

    def create(
        self, entry: Entry, algorithm: Algorithm, budget: SessionBudget, on_complete: Callable[[], None]
    ) -> ArrivingFile:
        """See Destination."""
        if may_wait_in_memory(entry):
            return SmallStoredFile(self._small_files, entry, algorithm, budget, on_complete)
        return self._create(entry, algorithm, budget, on_complete)

    def _create(
        self, entry: Entry, algorithm: Algorithm, budget: SessionBudget, on_complete: Callable[[], None]
    ) -> IncomingFile:
        kind = _MemoryFile if self._single is None else _SpooledFile
        return kind(self._give, entry, algorithm, budget, on_complete)

    @property
    def place(self) -> None:
        """See Destination; the files are in no directory."""

    def close(self, complete: bool) -> None:
        """See Destination; nothing is left to close."""

    def _hand_over_small(self, entry: Entry, content: bytes) -> None:
        """Hand over a small file, which was in memory. Raises OSError."""
        self._give(entry, io.BytesIO(content))

    def _give(self, entry: Entry, file: BinaryIO) -> None:
        """Hand a file over. Raises OSError."""
        if self._single is not None:
            self._single.begin(entry)
        with file:
            self._hand_over(entry.name, file)
        if self._single is not None:
            self._single.finish()

    def _decide(self, entry: Entry, budget: ByteBudget, known_files: KnownFiles | None) -> EntryOutcome:
        """Accept an entry, or find it unchanged. Raises RefusedEntryError."""
        if refusal := refusal_reason_untrusted(entry.path, self._dotfiles):
            raise RefusedEntryError(refusal)
        if entry.kind is EntryKind.DIRECTORY:
            return ACCEPTED
        if entry.kind is not EntryKind.FILE:
            raise RefusedEntryError("this receiver keeps files in no directory, and takes no links")
        if entry.path in self._names:
            raise RefusedEntryError("this session has brought a file of that name")
        if self._single is not None:
            if self._names:
                raise RefusedEntryError("this receiver takes one file")
            if self._single.is_here(entry, is_update=known_files is not None):
                return UNCHANGED
        if (entry.size_bytes or 0) > MAX_FILE_BYTES:
            raise RefusedEntryError(f"its size of {entry.size_bytes} bytes is above the limit of {MAX_FILE_BYTES}")
        names_bytes = self._names_bytes + len(entry.path) + _NAME_OVERHEAD_BYTES
        if names_bytes > MAX_NAMES_BYTES:
            raise RefusedEntryError(f"too many files in one session, after {len(self._names)}: send them in parts")
        if not budget.try_take(entry.size_bytes or 0):
            raise RefusedEntryError(budget.refusal)
        self._names_bytes = names_bytes
        self._names.add(entry.path)
        return ACCEPTED


class _HandedOverFile(IncomingFile):
    """A file without a name, until it is handed over."""

    __slots__ = ("_give",)

    def __init__(
        self,
        give: Callable[[Entry, BinaryIO], None],
        entry: Entry,
        algorithm: Algorithm,
        budget: SessionBudget,
        on_complete: Callable[[], None],
    ) -> None:
        super().__init__(entry, algorithm, budget, on_complete)
        self._give = give

    def _file(self) -> BinaryIO:
        """The whole content; called with `lock` held. Raises OSError."""
        raise NotImplementedError

    def commit(self) -> EntryOutcome:
        """See IncomingFile."""
        try:
            with self.lock:
                if self.failure is not None:
                    return EntryOutcome(EntryStatus.FAILED, self.failure)
                if not self._is_verified():
                    return MISMATCHED
                self._give(self.entry, self._file())
                return VERIFIED
        except OSError as error:
            return EntryOutcome(EntryStatus.FAILED, storage_reason(error))
        finally:
            self.discard()


class _MemoryFile(_HandedOverFile):
    """A file in memory: as much as is before the end of its last byte that has arrived, gaps included.

    That is no more than the session may bring: a stream takes its gaps from the budget, too (IncomingFile).
    """

    __slots__ = ("_content",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._content = io.BytesIO()

    def commits_quickly(self) -> bool:
        """See IncomingFile."""
        return self.size_bytes < QUICK_BYTES

    def _store(self, offset: int, data: memoryview | bytes) -> None:
        try:
            self._content.seek(offset)
            self._content.write(data)
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None

    def _read_exactly(self, offset: int, buffer: memoryview) -> None:
        self._content.seek(offset)
        self._content.readinto(buffer)

    def _file(self) -> BinaryIO:
        if self._stored_end < self._size_bytes:  # a hole at the end was not written
            self._store(self._size_bytes - 1, b"\0")
        return io.BytesIO(self._content.getvalue())  # shares the bytes, and so does its `read`

    def _remove(self) -> None:
        self._content = io.BytesIO()


class _SpooledFile(_HandedOverFile):
    """A file on the disk; it keeps a descriptor open."""

    __slots__ = ()

    def commits_quickly(self) -> bool:
        """See IncomingFile."""
        return False

    def _open(self) -> int:
        self._pinned = True  # the content exists only in this descriptor, so the cache must not close it
        import tempfile  # takes a while to import, and most receivers write to a directory

        with tempfile.TemporaryFile(prefix="nettool-") as file:
            return os.dup(file.fileno())

    def _file(self) -> BinaryIO:
        descriptor = self._ensure_open()
        os.ftruncate(descriptor, self._size_bytes)  # a hole at the end was not written
        os.lseek(descriptor, 0, os.SEEK_SET)
        return open(descriptor, "rb", closefd=False)
