"""One file that arrives: writing, hashing, counting and completeness, the same for every destination.

A destination has a subclass, which says where the content goes. A file that cannot be stored fails by itself: the
session reports it, tells the sender to stop sending it, and goes on.
"""

import errno
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from toolkit.errors import ProtocolError
from toolkit.transfer import preallocate
from toolkit.transfer.chunks import ChunkRange
from toolkit.transfer.digest import Algorithm, PendingRanges, ReceivedDigest
from toolkit.transfer.file_system import storage_reason
from toolkit.transfer.limits import ByteBudget
from toolkit.transfer.manifest import MAX_FILE_BYTES, Entry
from toolkit.transfer.messages import EntryOutcome
from toolkit.transfer.open_files import CachedFile, read_exactly, write_fully

NOT_HELD = "the peer sent digests of chunks that this end does not hold"
OFFER_CHANGED = "the peer changed the size or the digest of a file that it offered"

UNASKED_BYTES = 1 << 20  # that a file may take beyond its offer without asking: a question costs up to a millisecond
MAX_HELD_BYTES = 1 << 23
"""Memory for the small files of a session that wait to be verified: over UDP, digests lag behind by some rounds."""
MAX_SPLICE_BYTES = 1 << 20  # a pipe holds no more; what a channel writes at a time to a descriptor that it was given


class SessionBudget:
    """What the files of a session share.

    ranges:   the pending ranges of their digests
    content:  the bytes that the session may still bring
    backlog:  files whose digest has reached a hole, or more than it takes at once; the session hashes that in steps
    arrived_bytes: the content that has arrived so far
    """

    __slots__ = ("_held_bytes", "_lock", "arrived_bytes", "backlog", "content", "ranges")

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.ranges = PendingRanges()
        self.content = ByteBudget(limit_bytes)
        self.backlog: deque[IncomingFile] = deque()
        self.arrived_bytes = 0
        self._held_bytes = 0  # in memory
        self._lock = threading.Lock()

    def count_arrived(self, length: int) -> None:
        """Add to `arrived_bytes`; any thread may call it."""
        with self._lock:
            self.arrived_bytes += length

    def try_hold(self, length: int) -> bool:
        """Count content that has arrived and is kept in memory, if there is room; any thread may call it."""
        with self._lock:
            if self._held_bytes + length > MAX_HELD_BYTES:
                return False
            self._held_bytes += length
            self.arrived_bytes += length
            return True

    def let_go(self, length: int) -> None:
        """Content is not in memory any more."""
        with self._lock:
            self._held_bytes -= length


class IncomingFile(CachedFile):
    """A file that arrives: `write` may be called from any thread, the rest from the session's.

    A subclass opens the descriptor to which the content goes (`_open`), and verifies and keeps the content (`commit`).

    budget:       what it shares with the other files of its session
    received_bytes: how much content this session has brought
    kept_bytes:   how much was there, from an earlier session or version, and the sender's digests have confirmed
    granted_bytes: how much space on the disk it may use
    is_unfinished: whether what has arrived was left to a later session
    failure:      why the content cannot be stored, in words for both users; None unless that has happened
    on_complete:  called once, from any thread, when all content and the sender's digest are there, or the file failed
    maps_extents: whether the file system gains by reserved blocks and by splicing (see file_system.py)
    """

    __slots__ = (
        "_algorithm",
        "_ask_at_bytes",
        "_budget",
        "_digest",
        "_expected_digest",
        "_hole_bytes",
        "_is_behind",
        "_is_closed",
        "_is_stream",
        "_maps_extents",
        "_may_reserve",
        "_on_complete",
        "_reserved_bytes",
        "_size_bytes",
        "_stored_end",
        "_taken_end",
        "entry",
        "failure",
        "granted_bytes",
        "is_unfinished",
        "kept_bytes",
        "received_bytes",
    )

    def __init__(
        self,
        entry: Entry,
        algorithm: Algorithm,
        budget: SessionBudget,
        on_complete: Callable[[], None],
        maps_extents: bool = False,
    ) -> None:
        super().__init__()
        self.entry = entry
        self.received_bytes = 0
        self.kept_bytes = 0
        self.is_unfinished = False
        self._budget = budget
        self._is_stream = entry.size_bytes is None
        self.granted_bytes = entry.content_bytes
        self._ask_at_bytes = entry.content_bytes + UNASKED_BYTES  # of content; beyond, `_grant` asks for more space
        self._size_bytes = MAX_FILE_BYTES if entry.size_bytes is None else entry.size_bytes
        self._algorithm = algorithm
        self._digest = ReceivedDigest(algorithm, self._read_exactly, budget.ranges)
        self._expected_digest: bytes | None = None
        self._hole_bytes = 0
        self._is_behind = False  # and therefore in `budget.backlog`
        self._is_closed = False  # complete, failed or discarded: further content is ignored
        self._taken_end = 0  # of a stream: of what it has taken from the budget
        self._stored_end = 0  # of the content, without holes: the size of what is stored
        self.failure: str | None = None
        self._on_complete = on_complete
        self._maps_extents = maps_extents
        has_no_holes = entry.content_bytes == entry.size_bytes
        self._may_reserve = maps_extents and has_no_holes and entry.content_bytes >= preallocate.MIN_FILE_BYTES
        self._reserved_bytes = 0

    @property
    def awaited_bytes(self) -> int:
        """How much of the space that the file was granted its content has not used yet."""
        return max(0, self.granted_bytes - max(self.received_bytes, self._reserved_bytes))

    @property
    def held(self) -> tuple[ChunkRange, ...]:
        """The chunks that an earlier session has left or an earlier version has, and that nobody has compared."""
        return ()

    @property
    def arrived_bytes(self) -> int:
        """How much of the content is here."""
        return self.received_bytes + self.kept_bytes

    @property
    def hashed_bytes(self) -> int:
        """How much content is hashed: everything before the first gap."""
        return self._digest.offset

    @property
    def has_expected_digest(self) -> bool:
        """Whether the sender's digest has come."""
        return self._expected_digest is not None

    @property
    def size_bytes(self) -> int:
        """The final size, once it is known."""
        return self._size_bytes

    @property
    def digest(self) -> bytes:
        """The digest of the content up to the first missing byte."""
        return self._digest.digest()

    def write(self, offset: int, data: memoryview) -> None:
        """Store content. Raises ProtocolError, LimitError."""
        length = len(data)
        with self.lock:
            if self._is_closed or not length:
                return
            self._take(offset + length)
            try:
                if self.received_bytes + length > self._ask_at_bytes:
                    self._grant(self.received_bytes + length)
                if self._may_reserve and self.received_bytes + length > self._reserved_bytes:
                    self._reserve(self.received_bytes + length)
                self._store(offset, data)
                self._stored_end = max(self._stored_end, offset + length)
                self._digest.on_data(offset, data)
            except OSError as error:
                self._fail(error)
            else:
                self._count(length)

    def descriptor(self, offset: int, length: int) -> int | None:
        """See DescriptorSink; for a channel that writes the content in one thread only.

        None where reading the content back for the digest costs as much as the copy that a splice saves (tmpfs).
        """
        with self.lock:
            if self._is_closed or not self._maps_extents:
                return None
            self._check_end(offset + length)
            self._digest.check_new(offset)
            try:
                if self.received_bytes + min(length, MAX_SPLICE_BYTES) > self._ask_at_bytes:
                    self._grant(self.received_bytes + min(length, MAX_SPLICE_BYTES))
                if self._may_reserve and self.received_bytes > self._reserved_bytes:
                    self._reserve(self.received_bytes)
                descriptor = self._ensure_open()
            except OSError as error:
                self._fail(error)
                return None
            self._pinned = True
            return descriptor

    def on_spliced(self, offset: int, length: int) -> None:
        """See DescriptorSink."""
        with self.lock:
            self._pinned = False
            self._take(offset + length)
            self._stored_end = max(self._stored_end, offset + length)
            try:
                self._digest.on_stored(offset, length)
            except OSError as error:
                self._fail(error)
            else:
                self._count(length)

    def write_hole(self, offset: int, length: int) -> None:
        """Take note of a range of zeros that is not sent, and not written. Raises ProtocolError, LimitError."""
        with self.lock:
            if self._is_closed:
                return
            self._take(offset + length)
            self._digest.on_hole(offset, length)
            self._hole_bytes += length
            self._notice_backlog()

    def hash_backlog(self, length: int) -> int:
        """Hash up to `length` bytes of what the digest has reached and left; returns how many. Raises ProtocolError."""
        with self.lock:
            if self._is_closed:
                return 0
            try:
                return self._digest.hash_backlog(length)
            except OSError as error:
                self._fail(error)
                return 0

    def on_backlog_hashed(self) -> None:
        """Go on after `hash_backlog`, with what has arrived behind that. Raises ProtocolError."""
        with self.lock:
            self._is_behind = False
            if self._is_closed:
                return
            try:
                self._digest.catch_up()
            except OSError as error:
                self._fail(error)
                return
            self._notice_backlog()
            self._check_complete()

    def expect(self, size_bytes: int, digest: bytes) -> None:
        """Take the sender's final size and digest. Raises ProtocolError if they contradict what came before."""
        with self.lock:
            offered = self.entry.size_bytes
            if self._expected_digest is not None or (offered is not None and offered != size_bytes):
                raise ProtocolError(OFFER_CHANGED)
            if not self._digest.offset <= size_bytes <= self._size_bytes:
                raise ProtocolError(f"the peer sent content beyond the end of a file ({size_bytes} bytes)")
            self._size_bytes = size_bytes
            self._expected_digest = digest
            self._check_complete()

    def compare(self, first: int, digests: Sequence[bytes]) -> tuple[bool, ...]:  # noqa: ARG002 - for subclasses
        """Keep each chunk from `first` on whose digest is the sender's; which ones. Raises ProtocolError."""
        raise ProtocolError(NOT_HELD)

    def commits_quickly(self) -> bool:
        """Whether `commit` returns at once; if not, the session stays alive meanwhile."""
        return True

    def commit(self) -> EntryOutcome:
        """Verify a complete file and keep it under its final name, or discard it; FAILED if it has failed."""
        raise NotImplementedError

    def discard(self, keep: bool = False) -> None:
        """Give up the file: nothing remains of it unless `commit` has kept it. Idempotent.

        keep: leave to a later session what has arrived, if the destination can; `is_unfinished` then
        """
        with self.lock:
            self._is_closed = True
            self._digest.clear()
            if keep and self._keep():
                self.is_unfinished = True
            else:
                self._remove()  # before `_close` gives up the lock of a file that other sessions may look for
            with suppress(OSError):  # what is discarded need not be stored
                self._close()

    def _keep(self) -> bool:
        """Leave what was stored to a later session; False if that is impossible. Called with `lock` held."""
        return False

    def _remove(self) -> None:
        """Remove what was stored and not kept; called with `lock` held."""

    def _on_close_error(self, error: OSError) -> None:
        self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Give up the file, whose content cannot be stored; called with `lock` held."""
        self.failure = self.failure or storage_reason(error)
        if not self._is_closed:
            self._is_closed = True
            self._on_complete()

    def _is_verified(self) -> bool:
        """Whether the digest of a complete file is the sender's; called with `lock` held."""
        return self._digest.digest() == self._expected_digest

    def _store(self, offset: int, data: memoryview) -> None:
        """Store content; called with `lock` held. Raises OSError."""
        write_fully(self._descriptor if self._descriptor >= 0 else self._ensure_open(), offset, data)

    def _read_exactly(self, offset: int, buffer: memoryview) -> None:
        read_exactly(self._ensure_open(), offset, buffer)

    def _check_end(self, end: int) -> None:
        if end > self._size_bytes:
            raise ProtocolError(f"the peer sent content beyond the end of a file ({self._size_bytes} bytes)")

    def _take(self, end: int) -> None:
        """Take the bytes of a stream up to `end` from what the session may bring. Raises ProtocolError, LimitError."""
        self._check_end(end)
        if self._is_stream and end > self._taken_end:
            self._budget.content.take(end - self._taken_end)
            self._taken_end = end

    def _count(self, length: int) -> None:
        self.received_bytes += length
        self._budget.count_arrived(length)
        self._notice_backlog()
        if self._digest.offset >= self._size_bytes:
            self._check_complete()

    def _check_complete(self) -> None:
        if self._expected_digest is not None and self._digest.offset == self._size_bytes and not self._is_closed:
            # Each byte was hashed once. If more bytes came than that, the file may hold some that were not hashed.
            if self.arrived_bytes + self._hole_bytes != self._size_bytes:
                raise ProtocolError("the peer sent bytes of a file twice, or beyond its end")
            self._is_closed = True
            self._on_complete()

    def _grant(self, needed_bytes: int) -> None:  # noqa: ARG002 - for subclasses
        """Set `_ask_at_bytes` to `needed_bytes` or more. Raises OSError (ENOSPC) if others were promised the space."""
        self._ask_at_bytes = MAX_FILE_BYTES

    def _notice_backlog(self) -> None:
        if self._digest.is_behind and not self._is_behind:
            self._is_behind = True
            self._budget.backlog.append(self)

    def _reserve(self, arrived_bytes: int) -> None:
        """Reserve blocks for what has arrived and as much again, by one step at most.

        Never by what a peer has announced: one that announces much and sends little would take every free block. A
        file system that cannot reserve is not tried again.
        """
        if arrived_bytes < preallocate.MIN_FILE_BYTES:
            return
        following = min(arrived_bytes + min(arrived_bytes, preallocate.STEP_BYTES), self._size_bytes)
        try:
            preallocate.reserve(self._ensure_open(), self._reserved_bytes, following - self._reserved_bytes)
            self._reserved_bytes = following
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._may_reserve = False
