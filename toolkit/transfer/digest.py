"""Digests computed during a transfer, while the bytes are in the cache, whatever order they arrive in.

The digest of a file is the standard one of its whole content, as `xxhsum -H2` or `b3sum` prints it. Both algorithms
are serial: they take the bytes from the first to the last. Each side therefore keeps a *frontier*, the offset up to
which everything is hashed. Bytes that arrive at the frontier are hashed from memory. Bytes beyond it are recorded as
a pending range and read back, usually from the page cache, when the frontier reaches them.

Holes are hashed from a static block of zeros and never read. A message of 25 bytes announces a hole of a gigabyte, so a
hole is not hashed when it is announced: the frontier stops at it, and the session hashes it in steps, which
`ZeroHashing` limits over all sessions of the process. In the same steps it reads back the rest of a long range.

XXH3 (128 bits) detects every accidental change and hashes tens of GB/s; it does not resist an attacker who searches
for collisions. BLAKE3 does, at a fraction of the speed.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import blake3
import xxhash

from toolkit.errors import ProtocolError, UsageError

REREAD_BYTES = 1 << 18  # stays in the second-level cache between read and hash
MAX_PENDING_RANGES = 1 << 17  # about 20 MB of memory; enough for a window of 180 MB with every second packet lost

ZERO_STEP_BYTES = 1 << 24  # of a hole hashed at a time: 1 ms with XXH3, about 10 ms with BLAKE3

BURST_S = 0.02  # how long zeros may be hashed at a stretch after a pause, twice
_BUSY_WAIT_S = 0.005  # about the duration of a step
_ZEROS = memoryview(bytes(1 << 20))

CATCH_UP_BYTES = 1 << 25
"""How much is read back at once: more, as behind a gap in a file that is resumed, would take seconds in silence."""


class Hasher(Protocol):
    """The part of the hashlib interface that both libraries implement."""

    def update(self, data: memoryview | bytes, /) -> object:
        """Hash `data` after everything before."""

    def digest(self) -> bytes:
        """The digest of everything so far."""


class Algorithm(NamedTuple):
    """A digest algorithm: its name for users, its number in messages, the size of a digest, the constructor."""

    name: str
    number: int
    digest_bytes: int
    new: Callable[[], Hasher]


ALGORITHMS = (
    Algorithm("xxh3-128", 1, 16, xxhash.xxh3_128),
    Algorithm("blake3", 2, 32, blake3.blake3),
)
DEFAULT_ALGORITHM = ALGORITHMS[0].name


def algorithm_by_name(name: str) -> Algorithm:
    """The algorithm that a user named. Raises UsageError for an unknown name."""
    for algorithm in ALGORITHMS:
        if algorithm.name == name:
            return algorithm
    raise UsageError(f"unknown digest {name!r}: choose from {', '.join(a.name for a in ALGORITHMS)}")


def content_digest(algorithm: Algorithm, content: bytes | memoryview) -> bytes:
    """The digest of content that is in memory as a whole."""
    hasher = algorithm.new()
    hasher.update(content)
    return hasher.digest()


def algorithm_by_number_untrusted(number: int) -> Algorithm:
    """The algorithm that a peer numbered. Raises ProtocolError for an unknown number."""
    for algorithm in ALGORITHMS:
        if algorithm.number == number:
            return algorithm
    raise ProtocolError(f"the peer requests an unknown digest algorithm ({number})")


class ListingDigest:
    """One digest for several files: the digest of the listing that `xxhsum -H2` or `b3sum` prints for them.

    The listing has one line `HEX  PATH` for each file, in the order sent, and is hashed with the same algorithm.
    A user computes it by piping the output of the tool into the tool.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._hasher = algorithm.new()
        self._files = 0
        self._last_digest = b""

    def add(self, path: bytes, digest: bytes) -> None:
        """Add the next file."""
        self._files += 1
        self._last_digest = digest
        self._hasher.update(digest.hex().encode() + b"  " + path + b"\n")

    def hex(self) -> str:
        """The digest of the file itself if there is only one, otherwise that of the listing; "" for no file."""
        if self._files == 0:
            return ""
        return (self._last_digest if self._files == 1 else self._hasher.digest()).hex()


def _read_nothing(_offset: int, _buffer: memoryview) -> None:
    raise ValueError("the file of this digest was forgotten")


class RunningDigest:
    """The digest of one file up to its frontier, `offset`. Not thread-safe: the owner holds a lock.

    offset:    everything before it has been hashed
    read_into: called as `read_into(offset, buffer)` to fill `buffer` from the file; what it raises passes through
    """

    __slots__ = ("_hasher", "_read_into", "offset")

    def __init__(self, algorithm: Algorithm, read_into: Callable[[int, memoryview], None]) -> None:
        self._hasher = algorithm.new()
        self._read_into = read_into
        self.offset = 0

    def update(self, data: memoryview | bytes) -> None:
        """Hash `data`, the bytes at the frontier."""
        self._hasher.update(data)
        self.offset += len(data)

    def update_zeros(self, length: int) -> None:
        """Hash `length` zeros at the frontier."""
        self.offset += length
        while length > 0:
            step = min(length, len(_ZEROS))
            self._hasher.update(_ZEROS[:step])
            length -= step

    def reread(self, end: int) -> None:
        """Advance the frontier to `end` by reading the file. Raises what `read_into` raises."""
        remaining = end - self.offset
        if remaining <= 0:
            return
        buffer = memoryview(bytearray(min(remaining, REREAD_BYTES)))
        while remaining > 0:
            block = buffer[: min(remaining, len(buffer))]
            self._read_into(self.offset, block)
            self.update(block)
            remaining -= len(block)

    def digest(self) -> bytes:
        """The digest of the bytes before the frontier."""
        return self._hasher.digest()

    def forget_file(self) -> None:
        """Let go of the file, which holds this digest in turn: such pairs would wait for the collector of cycles.

        The file is not read any more.
        """
        self._read_into = _read_nothing


class PendingRanges:
    """The number of pending ranges over all files of a session. Thread-safe."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self, ranges: int) -> None:
        """Count more ranges, or fewer if negative. Raises ProtocolError beyond MAX_PENDING_RANGES."""
        with self._lock:
            self.count += ranges
            if ranges > 0 and self.count > MAX_PENDING_RANGES:
                raise ProtocolError("the peer sent content in too many separate pieces")


class ZeroHashing:
    """Decides when a session may hash zeros: one session at a time, and half of the time at most. Thread-safe.

    However many holes the peers of a process announce, hashing them takes at most half of one processor. Small holes of
    an honest peer wait for nothing: the limit is a token bucket (the virtual scheduling algorithm of ITU-T I.371) that
    is filled half as fast as time passes, and holds BURST_S / 2 of processor time.

    clock:     the time
    cpu_clock: the processor time of the calling thread
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._lock = threading.Lock()  # held during a step
        self._paid_s = 0.0  # the time by which all steps so far were within the limit

    def wait_s(self) -> float:
        """How long until the next step may begin, or until it is worthwhile to ask again."""
        return max(_BUSY_WAIT_S if self._lock.locked() else 0.0, self._paid_s - BURST_S - self._clock())

    def run(self, step: Callable[[], int]) -> int | None:
        """What `step` returns, which hashes ZERO_STEP_BYTES at most; None if it has to wait."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            now_s = self._clock()
            if now_s < self._paid_s - BURST_S:
                return None
            started_s = self._cpu_clock()
            try:
                return step()
            finally:
                self._paid_s = max(self._paid_s, now_s) + 2 * (self._cpu_clock() - started_s)
        finally:
            self._lock.release()


ZERO_HASHING = ZeroHashing()


class ReceivedDigest(RunningDigest):
    """The digest of a file that arrives: each byte once, in any order. The owner calls `clear` when it is done.

    The frontier stops at a hole, and in a long range that was stored, until the owner has called `hash_backlog` often
    enough (`is_behind`).
    """

    __slots__ = ("_counted", "_end_of", "_hole_end_of", "_hole_start_of", "_pending", "_start_of")

    def __init__(
        self, algorithm: Algorithm, read_into: Callable[[int, memoryview], None], pending: PendingRanges
    ) -> None:
        super().__init__(algorithm, read_into)
        self._pending = pending
        self._counted = 0  # this file's share of pending.count
        # Ranges from the frontier on, with neighbours merged, by their start and by their end.
        self._end_of: dict[int, int] = {}
        self._start_of: dict[int, int] = {}
        self._hole_end_of: dict[int, int] = {}
        self._hole_start_of: dict[int, int] = {}

    @property
    def pending_ranges(self) -> int:
        """The number of ranges from the frontier on that are not hashed."""
        return len(self._end_of) + len(self._hole_end_of)

    @property
    def is_behind(self) -> bool:
        """Whether the bytes at the frontier are here, and `hash_backlog` hashes them."""
        return self.offset in self._hole_end_of or self.offset in self._end_of

    def on_data(self, offset: int, data: memoryview) -> None:
        """Take note that `data` was written at `offset`. Raises ProtocolError for bytes that came before."""
        if offset == self.offset and not self.is_behind:
            self.update(data)
            if self._end_of or self._hole_end_of:
                self.catch_up()
        elif data:
            self._add_range(offset, offset + len(data))

    def on_stored(self, offset: int, length: int) -> None:
        """As `on_data`, for content that went to the file without passing through this process's memory."""
        if offset == self.offset and not self.is_behind:
            self.reread(offset + length)
            self.catch_up()
        elif length:
            self._add_range(offset, offset + length)

    def on_hole(self, offset: int, length: int) -> None:
        """As `on_data`, for `length` zeros that are not stored. They are hashed by `hash_backlog`."""
        self.check_new(offset)
        end = offset + length
        if end in self._hole_end_of:
            following = end
            end = self._hole_end_of.pop(following)
            self._hole_start_of.pop(end, None)  # absent if the peer sent holes that overlap
        start = self._hole_start_of.pop(offset, offset)
        self._hole_end_of[start] = end
        self._hole_start_of[end] = start
        self._update_count()

    def hash_backlog(self, length: int) -> int:
        """Hash up to `length` bytes at the frontier; returns how many. The caller calls `catch_up` then."""
        start = self.offset
        if start in self._end_of:
            self._reread_range(length)
            return self.offset - start
        end = self._hole_end_of.pop(self.offset)
        stop = min(end, self.offset + length)
        self.update_zeros(stop - self.offset)
        if stop < end:
            self._hole_end_of[stop] = end
            self._hole_start_of[end] = stop
        else:
            self._hole_start_of.pop(end, None)
        return stop - start

    def check_new(self, offset: int) -> None:
        """Raise ProtocolError if the byte at `offset` is known to have come before."""
        if offset < self.offset or offset in self._end_of or offset in self._hole_end_of:
            raise ProtocolError(f"the peer sent the bytes at offset {offset} twice")

    def clear(self) -> None:
        """Drop all pending ranges, and the file; idempotent."""
        for ranges in (self._end_of, self._start_of, self._hole_end_of, self._hole_start_of):
            ranges.clear()
        self._update_count()
        self.forget_file()

    def _update_count(self) -> None:
        change = self.pending_ranges - self._counted
        if change:
            self._counted += change
            self._pending.add(change)

    def _add_range(self, start: int, end: int) -> None:
        self.check_new(start)
        start = self._start_of.pop(start, start)
        end = self._end_of.pop(end, end)
        self._end_of[start] = end
        self._start_of[end] = start
        self._update_count()

    def catch_up(self) -> None:
        """Advance the frontier over the pending ranges that it has reached, up to the next hole or CATCH_UP_BYTES."""
        stop = self.offset + CATCH_UP_BYTES
        while self.offset < stop and self.offset in self._end_of:
            self._reread_range(stop - self.offset)
        self._update_count()

    def _reread_range(self, length: int) -> None:
        """Advance the frontier over up to `length` bytes of the pending range that begins there."""
        end = self._end_of.pop(self.offset)
        if self._start_of.pop(end, None) is None:
            raise ProtocolError(f"the peer sent the bytes before offset {end} twice")
        stop = min(end, self.offset + length)
        if stop < end:
            self._end_of[stop], self._start_of[end] = end, stop
        self.reread(stop)
