"""A file that a session writes, from its temporary name to its final one.

A file gets its final name, from `Tree.publish` (tree.py), only when it is whole and its digest is the sender's. Until
then it is called `.nettool-*.part`, is in the same directory and readable by its owner only. A session that fails
leaves a large one to the next session of the same sender (unfinished.py), and removes the others. Holes are not
written, which keeps the file sparse. What an update changes in a large file is added to a copy of the rest
(earlier_version.py).
"""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress

from toolkit.errors import ProtocolError
from toolkit.transfer import preallocate
from toolkit.transfer.chunks import CHUNK_BYTES, ChunkRange, chunk_digest
from toolkit.transfer.destination import MISMATCHED, VERIFIED, RefusedEntryError
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.earlier_version import EarlierVersion, with_chunks
from toolkit.transfer.file_system import storage_reason, try_lock
from toolkit.transfer.incoming_file import NOT_HELD, IncomingFile, SessionBudget
from toolkit.transfer.manifest import Entry
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.names import new_partial_name
from toolkit.transfer.open_files import TRUNCATED, read_exactly, write_fully
from toolkit.transfer.space import PromisedSpace
from toolkit.transfer.tree import REPLACED, FileKey, Tree, file_key
from toolkit.transfer.unfinished import (
    MIN_UNFINISHED_BYTES,
    UnfinishedFile,
    UnfinishedFiles,
    hold,
    let_go,
    needed_bytes,
)

QUICK_COMMIT_BYTES = 1 << 23  # a smaller file is renamed quickly on any file system; a thread for it would cost more
GIVE_UP_WAIT_S = 0.5  # how long a newer session waits for a file that this one is just forcing to the disk

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StoredFile(IncomingFile):
    """A temporary file beside its final name.

    With `resume`, it may be one that an earlier session has left, and a later session may go on with it. It is then
    locked from its beginning until it has another name, so that no two sessions write to it; the descriptor stays open.
    """

    __slots__ = (
        "_claimed",
        "_components",
        "_durable",
        "_earlier",
        "_identity",
        "_is_left",
        "_is_locked",
        "_mode",
        "_next_chunk",
        "_overwrite",
        "_space",
        "_temporary",
        "_tree",
        "_unfinished",
    )

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
        self._unfinished: UnfinishedFiles | None = None
        self._claimed: UnfinishedFile | None = None
        self._earlier: EarlierVersion | None = None
        self._is_locked = False
        self._is_left = False  # to a later session, if it fails
        self._next_chunk = 0  # the first that was not compared

    def resume(self, unfinished: UnfinishedFiles, claimed: UnfinishedFile | None) -> None:
        """Let a later session go on with this file, and go on with what an earlier one has left of it, if anything.

        Called at once after the file was made.
        """
        self._unfinished = unfinished
        if claimed is None:
            return
        with self.lock:
            self._claimed = claimed
            self._temporary, self._identity = claimed.name, claimed.identity
            self._is_locked = True
            hold(claimed.identity, self._give_up)
            self._adopt(claimed.descriptor)
            self._may_reserve = False
            self.granted_bytes = needed_bytes(self.entry, claimed)

    def build_on(self, earlier: EarlierVersion) -> None:
        """Take what has not changed from the earlier version of this file. Called at once after the file was made."""
        self._earlier = earlier
        self._may_reserve = False

    @property
    def held(self) -> tuple[ChunkRange, ...]:
        """See IncomingFile."""
        held = () if self._claimed is None else self._claimed.held
        return held if self._earlier is None else with_chunks(held, self._earlier.chunks)

    def try_close(self) -> bool:
        """See CachedFile; the lock of a file ends with its descriptor."""
        return not self._is_locked and super().try_close()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        is_new = not self._temporary
        try:
            with self._tree.directory(self._components[:-1]) as parent:
                descriptor = self._create(parent, flags) if is_new else os.open(self._temporary, flags, dir_fd=parent)
        except RefusedEntryError as error:
            raise OSError(0, str(error)) from None
        try:
            identity = file_key(os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        if is_new:
            self._identity = identity
            if self._is_locked:
                hold(identity, self._give_up)
        elif identity != self._identity:  # possible only in a directory that others may write to
            os.close(descriptor)
            raise OSError(0, REPLACED)
        return descriptor

    def _create(self, parent: int, flags: int) -> int:
        """Make and open the temporary file, with a lock and a name that a later session finds if possible."""
        name = None if self._unfinished is None else self._unfinished.take_name(self.entry)
        if self._unfinished is not None and name is not None:
            try:
                self._temporary = name
                descriptor = self._make(parent, flags)
                try:
                    self._is_locked = try_lock(descriptor)
                except OSError:  # no locks here: nobody could go on with it
                    with suppress(OSError):
                        os.unlink(name, dir_fd=parent)
                if self._is_locked:
                    return descriptor
                os.close(descriptor)  # if it exists, another session has found it at once, and got the lock
            except FileExistsError:  # another session is receiving the same file
                pass
            finally:
                if not self._is_locked:
                    self._temporary = b""
                    self._unfinished.release()
        self._temporary = new_partial_name()
        return self._make(parent, flags)

    def _make(self, parent: int, flags: int) -> int:
        """Make the temporary file in the directory with the descriptor `parent`, and open it. Raises OSError."""
        return os.open(self._temporary, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)

    def _grant(self, needed_bytes: int) -> None:
        if not self._space.extend(self, needed_bytes, self._tree.free_bytes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._ask_at_bytes = self.granted_bytes

    def write_hole(self, offset: int, length: int) -> None:
        """See IncomingFile. The zeros are not written, so what an earlier session has left there must go."""
        if self._claimed is not None:
            with self.lock:
                try:
                    if not self._is_closed:
                        preallocate.clear(self._ensure_open(), offset, length)
                except OSError as error:
                    self._fail(error)
        super().write_hole(offset, length)

    def compare(self, first: int, digests: Sequence[bytes]) -> tuple[bool, ...]:
        """See IncomingFile."""
        end = first + len(digests)
        if first < self._next_chunk or not any(one.first <= first and end <= one.end for one in self.held):
            raise ProtocolError(NOT_HELD)
        self._next_chunk = end
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with nullcontext() if self._earlier is None else self._earlier.opened() as earlier:
            return tuple(
                self._keep_chunk(number * CHUNK_BYTES, digest, buffer, earlier)
                for number, digest in enumerate(digests, first)
            )

    def _keep_chunk(self, offset: int, digest: bytes, buffer: memoryview, earlier: int | None) -> bool:
        """Keep a chunk if it has this digest, here or in the earlier version, whose descriptor is `earlier`."""
        content = buffer[: min(CHUNK_BYTES, self._size_bytes - offset)]
        with self.lock:
            if self._is_closed:
                return False
            self._digest.check_new(offset)
            try:
                is_here = self._claimed is not None and self._has_chunk(self._ensure_open(), offset, content, digest)
                if not is_here:
                    if earlier is None or not self._has_chunk(earlier, offset, content, digest):
                        return False
                    self._copy(offset, content)
                self.kept_bytes += len(content)
                self._budget.count_arrived(len(content))
                self._stored_end = max(self._stored_end, offset + len(content))
                self._digest.on_data(offset, content)
            except OSError as error:
                self._fail(error)
                return False
            self._count(0)
            return True

    def _has_chunk(self, descriptor: int, offset: int, content: memoryview, digest: bytes) -> bool:
        """Read a chunk into `content`; whether it could be read and has this digest. If not, it is sent again."""
        with suppress(OSError):
            read_exactly(descriptor, offset, content)
            return chunk_digest(self._algorithm, content) == digest
        return False

    def _copy(self, offset: int, content: memoryview) -> None:
        """Store a chunk of the earlier version, in the space that the file was granted. Raises OSError."""
        if self.received_bytes + len(content) > self._ask_at_bytes:
            self._grant(self.received_bytes + len(content))
        write_fully(self._ensure_open(), offset, content)
        self.granted_bytes = max(0, self.granted_bytes - len(content))
        self._ask_at_bytes -= len(content)

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
                attributes = self.entry.attributes
                self._tree.setter.apply(descriptor, self._mode, self.entry.mtime_ns, attributes=attributes)
                if self._durable:
                    os.fsync(descriptor)
                self._hide()
                if attributes is not None:  # the owner is part of the identity
                    self._identity = file_key(os.fstat(descriptor))
                self._close()
            self._tree.publish(self._components, self._temporary, self._overwrite, self._identity)
            self._temporary = b""
            return VERIFIED
        except RefusedEntryError as error:
            return EntryOutcome(EntryStatus.REFUSED, str(error))
        except OSError as error:
            self._is_left = self._is_left or error.errno in _FULL
            self.failure = storage_reason(error)
            return EntryOutcome(EntryStatus.FAILED, self.failure)
        finally:
            self.discard(keep=self._is_left)

    def _fail(self, error: OSError) -> None:
        self._is_left = self._is_left or error.errno in _FULL
        super()._fail(error)

    def _hide(self) -> None:
        """Give the file a name that no other session looks for, before its lock ends. Raises OSError."""
        if self._is_locked:
            name = new_partial_name()
            with self._tree.directory(self._components[:-1]) as parent:
                os.rename(self._temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            self._temporary = name
            self._unlock()

    def _give_up(self) -> None:
        """Leave the file to a newer session of the same sender; called from another thread.

        Not while the channel may write to the descriptor by itself, nor if the disk keeps this session waiting: the
        newer session then begins a file of its own.
        """
        if not self.lock.acquire(timeout=GIVE_UP_WAIT_S):
            return
        try:
            if not self._is_locked or self._pinned:
                return
            self._is_left = True  # by whichever thread discards it first
            self._fail(OSError(0, "another session of its sender goes on with it"))
        finally:
            self.lock.release()
        self.discard(keep=True)

    def _unlock(self) -> None:
        """Take note that the lock ends now, or that it does not matter any more."""
        if self._is_locked and self._unfinished is not None:
            self._is_locked = False
            if self._identity is not None:
                let_go(self._identity)
            self._unfinished.release()

    def _keep(self) -> bool:
        if not self._is_locked:
            return False
        try:
            descriptor = self._ensure_open()
            os.ftruncate(descriptor, os.fstat(descriptor).st_size)  # gives back what was reserved beyond the end
            if os.fstat(descriptor).st_blocks * 512 < MIN_UNFINISHED_BYTES:
                return False
        except OSError:
            return False
        self._space.remove(self)
        self._temporary = b""
        self._unlock()
        return True

    def _remove(self) -> None:
        self._space.remove(self)
        if self._temporary:
            self._tree.remove((*self._components[:-1], self._temporary))
            self._temporary = b""
        self._unlock()
