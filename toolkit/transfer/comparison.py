"""Which files the receiver has already: what `--update` asks in BEGIN, and how the receiver answers.

A sender that updates says so in BEGIN. The receiver then reports a file that it has under the same name as UNCHANGED,
and the sender does not send it. By default, a file is the same if size and modification time are. With digests, which
the sender has to compute before it offers, it is the same if size and content are. Anything else is an ordinary file
of the offer: one that exists is replaced only if the receiver allows that.

A receiver that does not know the parameter refuses files that exist, as it would without it.
"""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

from toolkit.errors import ProtocolError
from toolkit.transfer.digest import REREAD_BYTES, Algorithm
from toolkit.transfer.manifest import Entry, EntryKind

UPDATE_PARAMETER = 3
"""The id of the Comparison among the parameters of a BEGIN; its value is one byte."""

CONTENT_PARAMETER = 4
"""The id of the digests among the parameters of an OFFER, if files are compared by digest.

The digests of all files of known size in the group, in the order of their entries.
"""

# Units in which file systems keep times: NTFS and SMB, exFAT, ext3 and HFS+, FAT.
_TIME_UNITS_NS = (100, 10_000_000, 1_000_000_000, 2_000_000_000)


class Comparison(IntEnum):
    """By what a file is recognised, as encoded."""

    TIME = 0  # size and modification time
    DIGEST = 1  # size and content


class KnownFiles:
    """What a receiver compares the files of one offer with.

    algorithm: of `digests`
    digests:   the digest of the content of each entry; None for one that is compared by time, or not at all
    """

    def __init__(self, comparison: Comparison, algorithm: Algorithm, digests: Sequence[bytes | None]) -> None:
        self._comparison = comparison
        self._algorithm = algorithm
        self._digests = digests

    @classmethod
    def decode_untrusted(
        cls, comparison: Comparison, algorithm: Algorithm, entries: Sequence[Entry], value: bytes | None
    ) -> "KnownFiles":
        """From an offer with these entries, and the value of its CONTENT_PARAMETER. Raises ProtocolError."""
        digests: list[bytes | None] = [None] * len(entries)
        if comparison is Comparison.DIGEST:
            size, places = algorithm.digest_bytes, [n for n, entry in enumerate(entries) if is_compared(entry)]
            if value is None or len(value) != size * len(places):
                raise ProtocolError("the sender's offer does not have a digest for each of its files")
            for number, place in enumerate(places):
                digests[place] = value[number * size : (number + 1) * size]
        return cls(comparison, algorithm, digests)

    def only(self, indices: Iterable[int]) -> "KnownFiles":
        """The same for the entries of the offer that have these indices."""
        return KnownFiles(self._comparison, self._algorithm, [self._digests[index] for index in indices])

    @property
    def reads_content(self) -> bool:
        """Whether a comparison reads the whole file."""
        return self._comparison is Comparison.DIGEST

    def has(self, index: int, entry: Entry, status: os.stat_result, open_file: Callable[[], int]) -> bool:
        """Whether the existing file with that status is the offered one, at `index`.

        open_file: opens it. Raises OSError if it cannot be read.
        """
        if entry.kind is not EntryKind.FILE or not stat.S_ISREG(status.st_mode) or status.st_size != entry.size_bytes:
            return False
        if self._comparison is Comparison.TIME:
            return is_same_time(entry.mtime_ns, status.st_mtime_ns)
        descriptor = open_file()
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            return is_file and digest_of(descriptor, self._algorithm) == self._digests[index]
        finally:
            os.close(descriptor)


def comparison_untrusted(value: bytes) -> Comparison:
    """The comparison that the value of an UPDATE_PARAMETER asks for. Raises ProtocolError."""
    try:
        return Comparison(value[0] if len(value) == 1 else -1)
    except ValueError:
        raise ProtocolError("the sender compares files in an unknown way") from None


def is_same_time(offered_ns: int, stored_ns: int) -> bool:
    """Whether a modification time is the offered one, as the file system keeps it."""
    return offered_ns == stored_ns or any(offered_ns - offered_ns % unit == stored_ns for unit in _TIME_UNITS_NS)


def digest_of(descriptor: int, algorithm: Algorithm) -> bytes:
    """The digest of a whole file. Raises OSError."""
    hasher = algorithm.new()
    buffer = memoryview(bytearray(REREAD_BYTES))
    offset = 0
    while count := os.preadv(descriptor, (buffer,), offset):
        hasher.update(buffer[:count])
        offset += count
    return hasher.digest()


def is_compared(entry: Entry) -> bool:
    """Whether an entry is compared by digest."""
    return entry.kind is EntryKind.FILE and entry.size_bytes is not None
