"""The destination that writes files below a directory.

What becomes of each file is in stored_file.py.
"""

import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from toolkit.transfer.arriving_file import ArrivingFile
from toolkit.transfer.attributes import MODE_BITS
from toolkit.transfer.comparison import KnownFiles
from toolkit.transfer.destination import ACCEPTED, UNCHANGED, RefusedEntryError
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.earlier_version import EarlierVersion, is_worthwhile
from toolkit.transfer.file_system import NO_SPACE, storage_reason
from toolkit.transfer.incoming_file import SessionBudget
from toolkit.transfer.limits import ByteBudget
from toolkit.transfer.links import make_link
from toolkit.transfer.manifest import MAX_FILE_BYTES, Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.modes import directory_mode, file_mode, process_umask
from toolkit.transfer.names import refusal_reason_untrusted
from toolkit.transfer.place import ReceiverPlace
from toolkit.transfer.small_stored_file import SmallFileStorage, SmallStoredFile, may_wait_in_memory, store_small
from toolkit.transfer.sources import os_error_text
from toolkit.transfer.space import promised_space
from toolkit.transfer.stored_file import StoredFile
from toolkit.transfer.tree import CHANGED_HERE, SAME_FILE, Tree, inode_key
from toolkit.transfer.unfinished import UnfinishedFile, UnfinishedFiles, needed_bytes


class Storage:
    """The files of one session below `directory`; a Destination.

    overwrite: whether a file replaces one of the same name
    durable:   whether files and names are on the disk (fsync) before the sender learns that they are verified
    dotfiles:  whether names may begin with a dot (names.py)
    preserve_modes: whether files may be executable (modes.py)
    holds_small_files: whether small files wait in memory until they are verified (small_stored_file.py)
    file_type: how other files are stored

    Raises UsageError if `directory` cannot be opened.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        overwrite: bool,
        durable: bool,
        dotfiles: bool = False,
        preserve_modes: bool = False,
        holds_small_files: bool = True,
        file_type: type[StoredFile] = StoredFile,
    ) -> None:
        self._tree = Tree(directory, durable)
        self._overwrite = overwrite
        self._durable = durable
        self._dotfiles = dotfiles
        self._preserve_modes = preserve_modes
        self._file_type = file_type
        self._umask = process_umask()
        self._space = promised_space(self._tree.device)
        self._uncreated_bytes = 0  # of accepted files
        self._uncreated_lock = threading.Lock()
        self._compared = Counter[int]()  # existing files whose content was read, and how often
        self._replaced = Counter[int]()  # existing files that were taken for an earlier version, and how often
        self._earlier: dict[bytes, EarlierVersion] = {}  # of accepted files that are not created yet
        self._unfinished: UnfinishedFiles | None = None
        self._small_files: SmallFileStorage | None = None
        if holds_small_files and not durable:  # what is forced to the disk takes long, and each file its own thread
            self._small_files = SmallFileStorage(self._store_small, self._create, self._release)
        self._claimed: dict[bytes, UnfinishedFile] = {}  # of accepted files that are not created yet

    def begin(self, resume_key: bytes | None) -> None:
        """See Destination."""
        self._unfinished = None if resume_key is None else UnfinishedFiles(self._tree, resume_key)

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
            except OSError as error:
                outcomes.append(EntryOutcome(EntryStatus.REFUSED, storage_reason(error)))
        accepted = [
            index
            for index, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True))
            if entry.kind is EntryKind.FILE and outcome is ACCEPTED
        ]
        claims = [self._claim(entries[index]) for index in accepted]
        sizes_bytes = [needed_bytes(entries[index], claimed) for index, claimed in zip(accepted, claims, strict=True)]
        fits = self._space.promise(sizes_bytes, self._tree.free_bytes)
        promised_bytes = 0
        for index, claimed, size_bytes, does_fit in zip(accepted, claims, sizes_bytes, fits, strict=True):
            if does_fit:
                promised_bytes += size_bytes
            else:
                outcomes[index] = EntryOutcome(EntryStatus.REFUSED, NO_SPACE)
                self._earlier.pop(entries[index].path, None)
                if claimed is not None:
                    self._leave(self._claimed.pop(entries[index].path))
                budget.give_back(entries[index].size_bytes or 0)
        with self._uncreated_lock:
            self._uncreated_bytes += promised_bytes
        return outcomes

    def create(
        self, entry: Entry, algorithm: Algorithm, budget: SessionBudget, on_complete: Callable[[], None]
    ) -> ArrivingFile:
        """See Destination."""
        if self._small_files is None or not may_wait_in_memory(entry):
            return self._create(entry, algorithm, budget, on_complete)
        return SmallStoredFile(self._small_files, entry, algorithm, budget, on_complete)

    def _store_small(self, entry: Entry, content: bytes) -> None:
        store_small(self._tree, self._overwrite, self._mode_of(entry), entry, content)

    def _create(
        self, entry: Entry, algorithm: Algorithm, budget: SessionBudget, on_complete: Callable[[], None]
    ) -> StoredFile:
        """Called from any thread for what was small."""
        mode = self._mode_of(entry)
        claimed = self._claimed.pop(entry.path, None)
        file = self._file_type(
            self._tree, self._space, self._overwrite, self._durable, mode, entry, algorithm, budget, on_complete
        )
        if self._unfinished is not None:
            file.resume(self._unfinished, claimed)
        if entry.path in self._earlier:
            file.build_on(self._earlier.pop(entry.path))
        promised_bytes = needed_bytes(entry, claimed)
        self._space.add(file, promised_bytes)
        with self._uncreated_lock:
            self._uncreated_bytes -= promised_bytes
        return file

    def _mode_of(self, entry: Entry) -> int:
        """Which permission bits a file or directory gets; as for special ones, see attributes.py."""
        if entry.attributes is not None and entry.attributes.mode is not None:
            return entry.attributes.mode & MODE_BITS
        if entry.kind is EntryKind.DIRECTORY:
            return directory_mode(entry.mode, self._umask)
        return file_mode(entry.mode, self._umask, self._preserve_modes)

    def _release(self, promised_bytes: int) -> None:
        """A file that was not created needs its space no more."""
        with self._uncreated_lock:
            self._uncreated_bytes -= promised_bytes
        self._space.give_back(promised_bytes)

    @property
    def place(self) -> ReceiverPlace:
        """See Destination."""
        return self._tree.place

    def close(self, complete: bool) -> None:
        """See Destination; a session that failed also removes the directories that it made and that are empty."""
        while self._claimed:
            self._leave(self._claimed.popitem()[1])
        self._space.give_back(self._uncreated_bytes)
        self._uncreated_bytes = 0
        self._tree.finish(complete)
        self._tree.close()
        self._tree.setter.warn()

    def _claim(self, entry: Entry) -> UnfinishedFile | None:
        """Find what an earlier session has left of an accepted file; of two entries of one name, the first gets it."""
        claimed = self._unfinished.claim(entry) if self._unfinished is not None else None
        if claimed is not None:
            self._claimed[entry.path] = claimed
        return claimed

    def _leave(self, claimed: UnfinishedFile) -> None:
        """Leave to another session what was claimed for a file that will not be created."""
        if self._unfinished is not None:
            with suppress(OSError):  # nothing was written
                os.close(claimed.descriptor)
            self._unfinished.release()

    def _decide(self, index: int, entry: Entry, budget: ByteBudget, known_files: KnownFiles | None) -> EntryOutcome:
        """Accept an entry, or find it unchanged; make it if it is a directory. Raises RefusedEntryError."""
        refusal = refusal_reason_untrusted(entry.path, self._dotfiles)
        if refusal:
            raise RefusedEntryError(refusal)
        components = tuple(entry.path.split(b"/"))
        if entry.kind is EntryKind.LINK:
            is_update = known_files is not None
            return make_link(self._tree, entry, overwrite=self._overwrite, is_update=is_update, durable=self._durable)
        if entry.kind is EntryKind.DIRECTORY:
            self._tree.make_directory(components, self._mode_of(entry), entry.mtime_ns, entry.attributes)
            return ACCEPTED
        if (entry.size_bytes or 0) > MAX_FILE_BYTES:
            raise RefusedEntryError(f"its size of {entry.size_bytes} bytes is above the limit of {MAX_FILE_BYTES}")
        # In a directory of this session, what another process has put there is found when the file gets its name.
        status = None if self._tree.has_made(entry.path.rpartition(b"/")[0]) else self._tree.status_of(components)
        if status is not None:
            if known_files and self._is_unchanged(index, entry, status, known_files):
                return UNCHANGED
            self._check_existing(status, known_files is not None)
        if not budget.try_take(entry.size_bytes or 0):
            raise RefusedEntryError(budget.refusal)
        if status is not None and known_files is not None:
            self._note_earlier(entry, status)
        return ACCEPTED

    def _note_earlier(self, entry: Entry, status: os.stat_result) -> None:
        """Let a file that is replaced be built on what is there; in a session once for each name, see below."""
        key = inode_key(status)
        if is_worthwhile(entry, status) and self._replaced[key] < status.st_nlink:
            self._replaced[key] += 1
            self._earlier[entry.path] = EarlierVersion(self._tree, entry, status)

    def _is_unchanged(self, index: int, entry: Entry, status: os.stat_result, known_files: KnownFiles) -> bool:
        """Whether a file that exists is the offered one. Raises RefusedEntryError if it cannot be compared.

        A session has each file read once for each of its names: one byte of an offer could otherwise cost the reading
        of gigabytes, and a session could test many guesses of the content.
        """
        if known_files.reads_content:
            key = inode_key(status)
            if self._compared[key] >= status.st_nlink:
                raise RefusedEntryError(SAME_FILE)
            self._compared[key] += 1
        try:
            open_file = partial(self._tree.open_file, tuple(entry.path.split(b"/")))
            return known_files.has(index, entry, status, open_file)
        except OSError as error:
            raise RefusedEntryError(f"the receiver cannot compare its own ({os_error_text(error)})") from error

    def _check_existing(self, status: os.stat_result, is_update: bool) -> None:
        """Check that a file may replace what has its name. Raises RefusedEntryError."""
        if is_update and not self._overwrite and stat.S_ISREG(status.st_mode):
            raise RefusedEntryError(CHANGED_HERE)
        self._tree.check_existing(status, self._overwrite)
