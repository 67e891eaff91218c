"""The destination that writes files below a directory.

A file gets its final name, from `Tree.publish` (tree.py), only when it is whole and its digest is the sender's. Until
then it is called `.nettool-*.part`, is in the same directory and readable by its owner only; a failed session removes
it. Holes are not written, which keeps the file sparse.
"""

import errno
import logging
import os
import stat
from collections.abc import Callable, Sequence
from functools import partial

from toolkit.transfer.comparison import KnownFiles
from toolkit.transfer.destination import (
    ACCEPTED,
    MISMATCHED,
    TRUNCATED,
    UNCHANGED,
    VERIFIED,
    IncomingFile,
    RefusedEntryError,
    SessionBudget,
    storage_reason,
)
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.limits import ByteBudget
from toolkit.transfer.manifest import MAX_FILE_BYTES, Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.modes import directory_mode, file_mode, process_umask
from toolkit.transfer.names import new_partial_name, refusal_reason_untrusted
from toolkit.transfer.place import ReceiverPlace
from toolkit.transfer.sources import os_error_text
from toolkit.transfer.space import PromisedSpace, promised_space
from toolkit.transfer.tree import REPLACED, FileKey, Tree, file_key

_LOGGER = logging.getLogger(__name__)
CHANGED_HERE = "differs from the receiver's; the receiver replaces files only with --overwrite"
QUICK_COMMIT_BYTES = 1 << 23  # a smaller file is renamed quickly on any file system; a thread for it would cost more


class Storage:
    """The files of one session below `directory`; a Destination.

    overwrite: whether a file replaces one of the same name
    durable:   whether files and names are on the disk (fsync) before the sender learns that they are verified
    dotfiles:  whether names may begin with a dot (names.py)
    preserve_modes: whether files may be executable (modes.py)
    file_type: how a file is stored

    Raises UsageError if `directory` cannot be opened.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        overwrite: bool,
        durable: bool,
        dotfiles: bool = False,
        preserve_modes: bool = False,
        file_type: "type[StoredFile] | None" = None,
    ) -> None:
        self._tree = Tree(directory, durable)
        self._overwrite = overwrite
        self._durable = durable
        self._dotfiles = dotfiles
        self._preserve_modes = preserve_modes
        self._file_type = file_type or StoredFile
        self._umask = process_umask()
        self._space = promised_space(self._tree.device)
        self._uncreated_bytes = 0  # of accepted files

    def accept(
        self, entries: Sequence[Entry], budget: ByteBudget, known_files: KnownFiles | None = None
    ) -> list[EntryOutcome]:
        """See Destination."""
        outcomes = []
        for index, entry in enumerate(entries):
            try:
                outcomes.append(self._decide(index, entry, budget, known_files))
            except RefusedEntryError as refusal:
                outcomes.append(EntryOutcome(EntryStatus.REFUSED, str(refusal)))
        accepted = [
            index
            for index, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True))
            if entry.kind is EntryKind.FILE and outcome is ACCEPTED
        ]
        sizes_bytes = [entries[index].content_bytes for index in accepted]
        fits = self._space.promise(sizes_bytes, self._tree.free_bytes)
        for index, size_bytes, does_fit in zip(accepted, sizes_bytes, fits, strict=True):
            if does_fit:
                self._uncreated_bytes += size_bytes
            else:
                outcomes[index] = EntryOutcome(EntryStatus.REFUSED, "no space left on the receiver's disk")
                budget.give_back(entries[index].size_bytes or 0)
        return outcomes

    def create(
        self, entry: Entry, algorithm: Algorithm, budget: SessionBudget, on_complete: Callable[[], None]
    ) -> IncomingFile:
        """See Destination."""
        mode = file_mode(entry.mode, self._umask, self._preserve_modes)
        file = self._file_type(
            self._tree, self._space, self._overwrite, self._durable, mode, entry, algorithm, budget, on_complete
        )
        self._space.add(file, entry.content_bytes)
        self._uncreated_bytes -= entry.content_bytes
        return file

    @property
    def place(self) -> ReceiverPlace:
        """See Destination."""
        return self._tree.place

    def close(self, complete: bool) -> None:
        """See Destination; a session that failed also removes the directories that it made and that are empty."""
        self._space.give_back(self._uncreated_bytes)
        self._uncreated_bytes = 0
        self._tree.finish(complete)
        self._tree.close()
        if self._tree.plain_entries:
            _LOGGER.warning(
                "mode or time of %d received entries could not be set: the file system does not allow it",
                self._tree.plain_entries,
            )
            self._tree.plain_entries = 0

    def _decide(self, index: int, entry: Entry, budget: ByteBudget, known_files: KnownFiles | None) -> EntryOutcome:
        """Accept an entry, or find it unchanged; make it if it is a directory. Raises RefusedEntryError."""
        refusal = refusal_reason_untrusted(entry.path, self._dotfiles)
        if refusal:
            raise RefusedEntryError(refusal)
        components = tuple(entry.path.split(b"/"))
        if entry.kind is EntryKind.DIRECTORY:
            self._tree.make_directory(components, directory_mode(entry.mode, self._umask), entry.mtime_ns)
            return ACCEPTED
        if (entry.size_bytes or 0) > MAX_FILE_BYTES:
            raise RefusedEntryError(f"its size of {entry.size_bytes} bytes is above the limit of {MAX_FILE_BYTES}")
        status = self._tree.status_of(components)
        if status is not None:
            try:
                if known_files and known_files.has(index, entry, status, partial(self._tree.open_file, components)):
                    return UNCHANGED
            except OSError as error:
                raise RefusedEntryError(f"the receiver cannot compare its own ({os_error_text(error)})") from error
            self._check_existing(status, known_files is not None)
        if not budget.try_take(entry.size_bytes or 0):
            raise RefusedEntryError(budget.refusal)
        return ACCEPTED

    def _check_existing(self, status: os.stat_result, is_update: bool) -> None:
        """Check that a file may replace what has its name. Raises RefusedEntryError."""
        if is_update and not self._overwrite and stat.S_ISREG(status.st_mode):
            raise RefusedEntryError(CHANGED_HERE)
        self._tree.check_existing(status, self._overwrite)


class StoredFile(IncomingFile):
    """A temporary file beside its final name."""

    __slots__ = ("_components", "_durable", "_identity", "_mode", "_overwrite", "_space", "_temporary", "_tree")

    def __init__(
        self,
        tree: Tree,
        space: PromisedSpace,
        overwrite: bool,
        durable: bool,
        mode: int,
        entry: Entry,
        algorithm: Algorithm,
        budget: SessionBudget,
        on_complete: Callable[[], None],
    ) -> None:
        super().__init__(entry, algorithm, budget, on_complete, tree.maps_extents)
        self._tree = tree
        self._space = space
        self._overwrite = overwrite
        self._durable = durable
        self._mode = mode
        self._components = tuple(entry.path.split(b"/"))
        self._temporary = b""  # created on first use
        self._identity: FileKey | None = None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        is_new = not self._temporary
        if is_new:
            self._temporary = new_partial_name()
        try:
            with self._tree.directory(self._components[:-1]) as parent:
                descriptor = self._make(parent, flags) if is_new else os.open(self._temporary, flags, dir_fd=parent)
        except RefusedEntryError as error:
            raise OSError(0, str(error)) from None
        identity = file_key(os.fstat(descriptor))
        if is_new:
            self._identity = identity
        elif identity != self._identity:  # possible only in a directory that others may write to
            os.close(descriptor)
            raise OSError(0, REPLACED)
        return descriptor

    def _make(self, parent: int, flags: int) -> int:
        """Make the temporary file in the directory with the descriptor `parent`, and open it. Raises OSError."""
        return os.open(self._temporary, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)

    def _grant(self, needed_bytes: int) -> None:
        if not self._space.extend(self, needed_bytes, self._tree.free_bytes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._ask_at_bytes = self.granted_bytes

    def commits_quickly(self) -> bool:
        """See IncomingFile.

        fsync may take longer than the peer waits in silence, and so may a remote file system, which writes a file
        back when its mode is set or when it is closed.
        """
        return not self._durable and self.size_bytes < QUICK_COMMIT_BYTES

    def commit(self) -> EntryOutcome:
        """See IncomingFile."""
        try:
            with self.lock:
                if self.failure is not None:
                    return EntryOutcome(EntryStatus.FAILED, self.failure)
                descriptor = self._ensure_open()
                if not self._is_verified():
                    return MISMATCHED
                stored_bytes = os.fstat(descriptor).st_size
                if stored_bytes < self._stored_end:
                    raise OSError(0, TRUNCATED)
                if stored_bytes != self._size_bytes:
                    os.ftruncate(descriptor, self._size_bytes)  # a hole at the end was not written
                self._tree.apply_attributes(descriptor, self._mode, self.entry.mtime_ns)
                if self._durable:
                    os.fsync(descriptor)
                self._close()
            self._tree.publish(self._components, self._temporary, self._overwrite, self._identity)
            self._temporary = b""
            return VERIFIED
        except RefusedEntryError as error:
            return EntryOutcome(EntryStatus.REFUSED, str(error))
        except OSError as error:
            self.failure = storage_reason(error)
            return EntryOutcome(EntryStatus.FAILED, self.failure)
        finally:
            self.discard()

    def _remove(self) -> None:
        self._space.remove(self)
        if self._temporary:
            self._tree.remove((*self._components[:-1], self._temporary))
            self._temporary = b""
