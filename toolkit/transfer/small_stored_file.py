"""A small file that arrives: its content stays in memory until it is verified, and is then stored with few calls.

What a tree of thousands of small files costs is what one of them costs, in system calls and in Python. Such a file
nearly always arrives in order, and its digest soon after it. It is then hashed at once, and nothing is on the disk
before it is known to be right. If it arrives in another way, or too much waits in memory, an IncomingFile takes its
place: in a directory, a StoredFile.
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from toolkit.errors import ProtocolError
from toolkit.transfer.chunks import ChunkRange
from toolkit.transfer.destination import MISMATCHED, VERIFIED, RefusedEntryError
from toolkit.transfer.digest import Algorithm, content_digest
from toolkit.transfer.file_system import storage_reason
from toolkit.transfer.incoming_file import NOT_HELD, OFFER_CHANGED, IncomingFile, SessionBudget
from toolkit.transfer.manifest import Entry
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.names import new_partial_name
from toolkit.transfer.open_files import TRUNCATED, write_fully
from toolkit.transfer.small_files import SMALL_BYTES
from toolkit.transfer.tree import Tree, file_key

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE: Final = 0o600


class SmallFileStorage(NamedTuple):
    """What a destination does with small files.

    store:   keeps the verified content of an entry. Raises RefusedEntryError, OSError
    make:    makes the file that takes the place of a small one; the arguments are those of Destination.create
    release: gives back that many bytes of the space that was promised to small files
    stores_quickly: whether `store` returns at once
    """

    store: Callable[[Entry, bytes], None]
    make: Callable[[Entry, Algorithm, SessionBudget, Callable[[], None]], IncomingFile]
    release: Callable[[int], None] = lambda _: None
    stores_quickly: bool = True


def may_wait_in_memory(entry: Entry) -> bool:
    """Whether an offered file is small and has no holes."""
    return entry.content_bytes == entry.size_bytes and entry.content_bytes <= SMALL_BYTES


class SmallStoredFile:
    """See ArrivingFile."""

    __slots__ = (
        "_algorithm",
        "_budget",
        "_content",
        "_digest",
        "_expected_digest",
        "_is_closed",
        "_is_released",
        "_large",
        "_lock",
        "_on_complete",
        "_storage",
        "entry",
    )

    kept_bytes: Final = 0
    is_unfinished: Final = False
    held: Final[tuple[ChunkRange, ...]] = ()

    def __init__(
        self,
        storage: SmallFileStorage,
        entry: Entry,
        algorithm: Algorithm,
        budget: SessionBudget,
        on_complete: Callable[[], None],
    ) -> None:
        self.entry = entry
        self._storage = storage
        self._algorithm = algorithm
        self._budget = budget
        self._on_complete = on_complete
        self._lock = threading.Lock()
        self._content = b""
        self._digest = b""  # of all content
        self._expected_digest: bytes | None = None
        self._is_closed = False  # complete or discarded: further content is ignored
        self._is_released = False  # its space and its memory
        self._large: IncomingFile | None = None  # what has taken its place

    @property
    def size_bytes(self) -> int:
        """See ArrivingFile."""
        return self.entry.content_bytes if self._large is None else self._large.size_bytes

    @property
    def arrived_bytes(self) -> int:
        """See ArrivingFile."""
        return len(self._content) if self._large is None else self._large.arrived_bytes

    @property
    def digest(self) -> bytes:
        """See ArrivingFile."""
        return self._digest if self._large is None else self._large.digest

    @property
    def failure(self) -> str | None:
        """See ArrivingFile."""
        return None if self._large is None else self._large.failure

    @property
    def has_expected_digest(self) -> bool:
        """See ArrivingFile."""
        return self._expected_digest is not None if self._large is None else self._large.has_expected_digest

    def write(self, offset: int, data: memoryview) -> None:
        """See ArrivingFile. Content that arrives in order waits in memory."""
        large = self._large
        if large is None:
            with self._lock:
                if self._large is None and (self._is_closed or not data or self._hold(offset, data)):
                    return
                large = self._replace()
        large.write(offset, data)

    def _hold(self, offset: int, data: memoryview) -> bool:
        """Keep content in memory if it is the next and there is room; called with `_lock` held."""
        end = offset + len(data)
        if offset != len(self._content) or end > self.entry.content_bytes or not self._budget.try_hold(len(data)):
            return False
        self._content = self._content + data if offset else bytes(data)
        if end == self.entry.content_bytes:
            self._digest = content_digest(self._algorithm, self._content)
            self._check_complete()
        return True

    def _replace(self) -> IncomingFile:
        """Let a larger kind of file go on with this file, unless one does already; called with `_lock` held."""
        if self._large is None:
            content, self._content = self._content, b""
            self._budget.let_go(len(content))
            self._budget.count_arrived(-len(content))
            self._large = self._storage.make(self.entry, self._algorithm, self._budget, self._on_complete)
            self._large.write(0, memoryview(content))
            if self._expected_digest is not None:
                self._large.expect(self.entry.content_bytes, self._expected_digest)
        return self._large

    def _replacement(self) -> IncomingFile | None:
        """As `_replace`; None if the file is closed."""
        with self._lock:
            return None if self._is_closed and self._large is None else self._replace()

    def descriptor(self, offset: int, length: int) -> int | None:
        """See DescriptorSink."""
        return None if self._large is None else self._large.descriptor(offset, length)

    def on_spliced(self, offset: int, length: int) -> None:
        """See DescriptorSink."""
        if self._large is not None:
            self._large.on_spliced(offset, length)

    def write_hole(self, offset: int, length: int) -> None:
        """See ArrivingFile."""
        file = self._replacement()
        if file is not None:
            file.write_hole(offset, length)

    def compare(self, first: int, digests: Sequence[bytes]) -> tuple[bool, ...]:  # noqa: ARG002 - a small file has none
        """See ArrivingFile; nothing of a small file is left by earlier sessions."""
        raise ProtocolError(NOT_HELD)

    def expect(self, size_bytes: int, digest: bytes) -> None:
        """See ArrivingFile."""
        with self._lock:
            if self._large is None:
                if self._expected_digest is not None or size_bytes != self.entry.content_bytes:
                    raise ProtocolError(OFFER_CHANGED)
                self._expected_digest = digest
                if not size_bytes:
                    self._digest = content_digest(self._algorithm, b"")
                self._check_complete()
                return
        self._large.expect(size_bytes, digest)

    def _check_complete(self) -> None:
        if self._expected_digest is not None and self._digest and not self._is_closed:
            self._is_closed = True
            self._on_complete()

    def commits_quickly(self) -> bool:
        """See ArrivingFile."""
        return self._storage.stores_quickly if self._large is None else self._large.commits_quickly()

    def commit(self) -> EntryOutcome:
        """See ArrivingFile."""
        if self._large is not None:
            return self._large.commit()
        try:
            if self._digest != self._expected_digest:
                return MISMATCHED
            self._storage.store(self.entry, self._content)
            return VERIFIED
        except RefusedEntryError as error:
            return EntryOutcome(EntryStatus.REFUSED, str(error))
        except OSError as error:
            return EntryOutcome(EntryStatus.FAILED, storage_reason(error))
        finally:
            self.discard()

    def discard(self, keep: bool = False) -> None:
        """See ArrivingFile."""
        with self._lock:
            if self._large is not None:
                self._large.discard(keep)
                return
            self._is_closed = True
            if not self._is_released:
                self._is_released = True
                self._budget.let_go(len(self._content))
                self._content = b""
                self._storage.release(self.entry.content_bytes)


def store_small(tree: Tree, overwrite: bool, mode: int, entry: Entry, content: bytes) -> None:
    """Write verified content to a file with a temporary name, and publish it. Raises RefusedEntryError, OSError."""
    temporary = new_partial_name()
    components = tuple(entry.path.split(b"/"))
    with tree.directory(components[:-1]) as parent:
        first_mode = mode if entry.attributes is None else _PRIVATE  # a read-only file takes no attributes
        descriptor = os.open(temporary, _CREATE, first_mode, dir_fd=parent)
    try:
        try:
            if content:
                write_fully(descriptor, 0, memoryview(content))
            status = os.fstat(descriptor)
            if status.st_size != len(content):
                raise OSError(0, TRUNCATED)
            tree.setter.apply(descriptor, mode, entry.mtime_ns, status, entry.attributes)
            if entry.attributes is not None:  # the owner is part of the identity
                status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        tree.publish(components, temporary, overwrite, file_key(status))
    except BaseException:
        tree.remove((*components[:-1], temporary))
        raise
