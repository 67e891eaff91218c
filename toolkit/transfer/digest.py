"""Digests computed alongside a transfer, while the bytes are in the cache, whatever order they come in.

A digest of a file is the standard one of its whole content, which its user can compute again with `xxhsum
-H2` or `b3sum`. Both are serial: bytes go in from the first to the last. So each side keeps a *frontier*, the
offset up to which everything has been hashed. What lands at the frontier is hashed from memory; what lands
beyond it is kept in mind as a range, and read back (from the page cache, as a rule) when the frontier gets
there. Holes are hashed from a static block of zeros and never read.

xxh3-128 finds every accident and moves tens of GB/s; it does not withstand someone who looks for a collision.
BLAKE3 does, at a fraction of the speed.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

import blake3
import xxhash

from toolkit.errors import ProtocolError, UsageError

REREAD_BYTES = 1 << 18  # stays in the second-level cache between the read and the hash
MAX_PENDING_RANGES = 1 << 17  # about 20 MB of bookkeeping; a window of 180 MB in packets with every second one lost

_ZEROS = memoryview(bytes(1 << 20))


class Hasher(Protocol):
    """The part of hashlib's interface that both libraries have."""

    def update(self, data: memoryview | bytes, /) -> object:
        """Hash `data` after what came before."""

    def digest(self) -> bytes:
        """The digest of everything so far."""


class Algorithm(NamedTuple):
    """A digest algorithm: its name for users, its number in messages, its size."""

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
    """Raises UsageError for a name that is not in `ALGORITHMS`."""
    for algorithm in ALGORITHMS:
        if algorithm.name == name:
            return algorithm
    raise UsageError(f"no digest is called {name!r}: choose from {', '.join(a.name for a in ALGORITHMS)}")


def algorithm_by_number_untrusted(number: int) -> Algorithm:
    """Raises ProtocolError for a number that is not in `ALGORITHMS`."""
    for algorithm in ALGORITHMS:
        if algorithm.number == number:
            return algorithm
    raise ProtocolError(f"the peer asks for an unknown digest algorithm ({number})")


class ListingDigest:
    """One digest for several files: that of the listing which `xxhsum -H2` or `b3sum` prints for them.

    A line `HEX  PATH` per file, in the order sent, hashed with the same algorithm: whoever has the files can
    compute it by piping the tool's output into the tool.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._hasher = algorithm.new()
        self._files = 0
        self._only = b""

    def add(self, path: bytes, digest: bytes) -> None:
        """The next file."""
        self._files += 1
        self._only = digest
        self._hasher.update(digest.hex().encode() + b"  " + path + b"\n")

    def hex(self) -> str:
        """The file's own digest for one file, the listing's for several, "" for none."""
        if self._files == 0:
            return ""
        return (self._only if self._files == 1 else self._hasher.digest()).hex()


class Frontier:
    """The running digest of one file, and how far it has got. Not safe for threads: its owner holds a lock.

    read_into(offset, buffer) fills `buffer` from the file; it raises TransferError when it cannot.
    """

    __slots__ = ("_hasher", "_read_into", "offset")

    def __init__(self, algorithm: Algorithm, read_into: Callable[[int, memoryview], None]) -> None:
        self._hasher = algorithm.new()
        self._read_into = read_into
        self.offset = 0
        """Everything before it has been hashed."""

    def update(self, data: memoryview | bytes) -> None:
        """The bytes at the frontier."""
        self._hasher.update(data)
        self.offset += len(data)

    def zeros(self, length: int) -> None:
        """`length` bytes of a hole at the frontier."""
        self.offset += length
        while length > 0:
            step = min(length, len(_ZEROS))
            self._hasher.update(_ZEROS[:step])
            length -= step

    def reread(self, end: int) -> None:
        """Move the frontier to `end` by reading the file."""
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


class PendingRanges:
    """How many ranges wait for their frontiers, over all files of a session. Safe for threads."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def change(self, by: int) -> None:
        """So many more, or fewer. Raises ProtocolError for more than there may be."""
        with self._lock:
            self.count += by
            if by > 0 and self.count > MAX_PENDING_RANGES:
                raise ProtocolError("the peer sends content in too many separate pieces")


class ReceivedDigest(Frontier):
    """The frontier of a file that arrives: each byte once, in any order. Whoever is done with it calls `forget`."""

    __slots__ = ("_counted", "_end_of", "_hole_end_of", "_pending", "_start_of")

    def __init__(
        self, algorithm: Algorithm, read_into: Callable[[int, memoryview], None], pending: PendingRanges
    ) -> None:
        super().__init__(algorithm, read_into)
        self._pending = pending
        self._counted = 0  # of them are ours
        # Ranges that landed beyond the frontier, neighbours merged, by both their ends; and holes by their
        # start.
        self._end_of: dict[int, int] = {}
        self._start_of: dict[int, int] = {}
        self._hole_end_of: dict[int, int] = {}

    @property
    def pending_ranges(self) -> int:
        """How many ranges wait for the frontier."""
        return len(self._end_of) + len(self._hole_end_of)

    def landed(self, offset: int, data: memoryview) -> None:
        """`data` was written at `offset`. Raises ProtocolError for bytes that were there before."""
        if offset == self.offset:
            self.update(data)
            if self._end_of or self._hole_end_of:
                self._catch_up()
        elif data:
            self._keep(offset, offset + len(data))

    def stored(self, offset: int, length: int) -> None:
        """As `landed`, where the content went to the file without passing by here."""
        if offset == self.offset:
            self.reread(offset + length)
            self._catch_up()
        elif length:
            self._keep(offset, offset + length)

    def check_new(self, offset: int) -> None:
        """Raises ProtocolError where the bytes at `offset` are there already, as far as that is known."""
        if offset < self.offset or offset in self._end_of or offset in self._hole_end_of:
            raise ProtocolError(f"the peer sent the bytes at offset {offset} twice")

    def hole(self, offset: int, length: int) -> None:
        """`length` zeros from `offset` are not stored. Raises ProtocolError as `landed` does."""
        if offset == self.offset:
            self.zeros(length)
            self._catch_up()
        else:
            self.check_new(offset)
            self._hole_end_of[offset] = offset + length
            self._count()

    def forget(self) -> None:
        """Nothing waits for the frontier any more."""
        self._end_of.clear()
        self._start_of.clear()
        self._hole_end_of.clear()
        self._count()

    def _count(self) -> None:
        change = self.pending_ranges - self._counted
        if change:
            self._counted += change
            self._pending.change(change)

    def _keep(self, start: int, end: int) -> None:
        self.check_new(start)
        start = self._start_of.pop(start, start)
        end = self._end_of.pop(end, end)
        self._end_of[start] = end
        self._start_of[end] = start
        self._count()

    def _catch_up(self) -> None:
        while True:
            if (end := self._end_of.pop(self.offset, None)) is not None:
                if self._start_of.pop(end, None) is None:
                    raise ProtocolError(f"the peer sent the bytes before offset {end} twice")
                self.reread(end)
            elif (end := self._hole_end_of.pop(self.offset, None)) is not None:
                self.zeros(end - self.offset)
            else:
                break
        self._count()
