"""One file that arrives: a temporary file beside its final place, a running digest, and a rename at the end.

The file has its final name only once it is whole and its digest is the sender's. Until then it is
`.nettool-*.part`, readable by its owner alone, and it is removed whatever goes wrong. Holes are not written:
the file stays sparse.
"""

import errno
import os
import secrets
from collections.abc import Callable

from toolkit.errors import ProtocolError, TransferError, printable
from toolkit.transfer import preallocate
from toolkit.transfer.digest import Algorithm, PendingRanges, ReceivedDigest
from toolkit.transfer.manifest import MAX_FILE_BYTES, Entry
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.open_files import CachedFile
from toolkit.transfer.tree import RefusedEntryError, Tree, reason_of, storage_error


class IncomingFile(CachedFile):
    """A file on its way in; `write` may come from any thread, the rest from the session's.

    on_complete() is called once, from whichever thread, when everything has landed and the digest has come.
    """

    __slots__ = (
        "_digest",
        "_expected_digest",
        "_hole_bytes",
        "_is_over",
        "_may_reserve",
        "_on_complete",
        "_parts",
        "_reserved_bytes",
        "_size_bytes",
        "_temporary",
        "_tree",
        "entry",
        "landed_bytes",
    )

    def __init__(
        self,
        tree: Tree,
        entry: Entry,
        algorithm: Algorithm,
        on_complete: Callable[[], None],
        pending: PendingRanges,
    ) -> None:
        super().__init__()
        self.entry = entry
        self.landed_bytes = 0
        self._tree = tree
        self._parts = tuple(entry.path.split(b"/"))
        self._size_bytes = MAX_FILE_BYTES if entry.size_bytes is None else entry.size_bytes
        self._digest = ReceivedDigest(algorithm, self._read_exactly, pending)
        self._expected_digest: bytes | None = None
        self._hole_bytes = 0
        self._is_over = False
        self._on_complete = on_complete
        self._temporary = b""
        is_whole = entry.content_bytes == entry.size_bytes and entry.content_bytes >= preallocate.MIN_FILE_BYTES
        self._may_reserve = is_whole and tree.maps_extents
        self._reserved_bytes = 0

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        if not self._temporary:
            self._temporary = f".nettool-{secrets.token_hex(8)}.part".encode()
            flags |= os.O_CREAT | os.O_EXCL
        try:
            with self._tree.at(self._parts[:-1]) as parent:
                return os.open(self._temporary, flags, 0o600, dir_fd=parent)
        except OSError as error:
            raise storage_error(error, self.entry.name) from error
        except RefusedEntryError as error:
            raise TransferError(f"{printable(self.entry.name)}: {error}") from error

    def _read_exactly(self, offset: int, buffer: memoryview) -> None:
        try:
            taken = os.preadv(self._opened(), (buffer,), offset)
            while taken < len(buffer):
                more = os.preadv(self._opened(), (buffer[taken:],), offset + taken)
                if not more:
                    raise OSError(0, "it was changed while it arrived")
                taken += more
        except OSError as error:
            raise storage_error(error, self.entry.name) from error

    def write(self, offset: int, data: memoryview) -> None:
        """Land content. Raises ProtocolError, TransferError."""
        length = len(data)
        with self.lock:
            if self._is_over or not length:
                return
            self._check_end(offset + length)
            descriptor = self._descriptor if self._descriptor >= 0 else self._opened()
            try:
                if self._may_reserve and offset + length > self._reserved_bytes:
                    self._reserve(offset + length)
                written = os.pwrite(descriptor, data, offset)
                while written < length:
                    written += os.pwrite(descriptor, data[written:], offset + written)
            except OSError as error:
                raise storage_error(error, self.entry.name) from error
            self._digest.landed(offset, data)
            self._count(length)

    def descriptor(self, offset: int, length: int) -> int | None:
        """See DescriptorSink; for who lands content in one thread only.

        None where the read for the digest costs as much as the copy that a splice saves (tmpfs).
        """
        with self.lock:
            if self._is_over or not self._tree.maps_extents:
                return None
            self._check_end(offset + length)
            self._digest.check_new(offset)
            try:
                if self._may_reserve and offset + length > self._reserved_bytes:
                    self._reserve(offset + length)
                descriptor = self._opened()
            except OSError as error:
                raise storage_error(error, self.entry.name) from error
            self._pinned = True
            return descriptor

    def landed(self, offset: int, length: int) -> None:
        """See DescriptorSink."""
        with self.lock:
            self._pinned = False
            self._digest.stored(offset, length)
            self._count(length)

    def _check_end(self, end: int) -> None:
        if end > self._size_bytes:
            raise ProtocolError(f"the peer sent more of a file than it has ({self._size_bytes} bytes)")

    def _count(self, length: int) -> None:
        self.landed_bytes += length
        if self._digest.offset >= self._size_bytes:
            self._check_complete()

    def _reserve(self, end: int) -> None:
        """Have blocks reserved up to `end` and some way beyond; whoever cannot does without."""
        following = min(end + preallocate.STEP_BYTES, self._size_bytes)
        try:
            preallocate.reserve(self._opened(), self._reserved_bytes, following - self._reserved_bytes)
            self._reserved_bytes = following
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._may_reserve = False

    def hole(self, offset: int, length: int) -> None:
        """A range is zeros and does not come. Raises ProtocolError."""
        with self.lock:
            self._check_end(offset + length)
            self._digest.hole(offset, length)
            self._hole_bytes += length
            self._check_complete()

    def expect(self, size_bytes: int, digest: bytes) -> None:
        """The sender's last word on the file. Raises ProtocolError where it contradicts what came before."""
        with self.lock:
            offered = self.entry.size_bytes
            if self._expected_digest is not None or (offered is not None and offered != size_bytes):
                raise ProtocolError("the peer contradicts itself about a file's size")
            if not self._digest.offset <= size_bytes <= self._size_bytes:
                raise ProtocolError(f"the peer sent more of a file than it has ({size_bytes} bytes)")
            self._size_bytes = size_bytes
            self._expected_digest = digest
            self._check_complete()

    @property
    def awaited_bytes(self) -> int:
        """How much room on the disk it still takes."""
        return max(0, self.entry.content_bytes - max(self.landed_bytes, self._reserved_bytes))

    @property
    def is_expected(self) -> bool:
        """Whether `expect` was called."""
        return self._expected_digest is not None

    @property
    def size_bytes(self) -> int:
        """The final size, once it is known."""
        return self._size_bytes

    @property
    def digest(self) -> bytes:
        """The digest of what has landed."""
        return self._digest.digest()

    def _check_complete(self) -> None:
        if self._expected_digest is not None and self._digest.offset == self._size_bytes and not self._is_over:
            # Each byte was hashed once; where more came than that, the file may hold what was not hashed.
            if self.landed_bytes + self._hole_bytes != self._size_bytes:
                raise ProtocolError("the peer sent some bytes of a file twice, or bytes beyond its end")
            self._is_over = True
            self._on_complete()

    def commit(self, overwrite: bool, durable: bool) -> EntryOutcome:
        """Verify a complete file and give it its name, or remove it."""
        try:
            with self.lock:
                descriptor = self._opened()
                if self._digest.digest() != self._expected_digest:
                    return EntryOutcome(EntryStatus.MISMATCHED, "its digest is not the sender's")
                if self._hole_bytes:
                    os.ftruncate(descriptor, self._size_bytes)  # the last of them was never written
                os.fchmod(descriptor, self.entry.mode)
                os.utime(descriptor, ns=(self.entry.mtime_ns, self.entry.mtime_ns))
                if durable:
                    os.fsync(descriptor)
                self._close()
            self._tree.publish(self._parts, self._temporary, overwrite)
            self._temporary = b""
            return EntryOutcome(EntryStatus.OK)
        except RefusedEntryError as error:
            return EntryOutcome(EntryStatus.REFUSED, str(error))
        except OSError as error:
            return EntryOutcome(EntryStatus.FAILED, reason_of(error))
        finally:
            self.discard()

    def discard(self) -> None:
        """Give the file up, and leave nothing of it but what `commit` has named; idempotent."""
        with self.lock:
            self._is_over = True
            self._digest.forget()
            self._close()
            if self._temporary:
                self._tree.remove((*self._parts[:-1], self._temporary))
                self._temporary = b""
