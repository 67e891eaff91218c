"""What the caller of a session gets: progress while it runs, and the result of every entry at its end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toolkit.errors import NettoolError, printable
from toolkit.transfer.digest import Algorithm, ListingDigest
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.names import MAX_PATH_BYTES, display_name
from toolkit.units import format_size

MAX_LISTED = 1000  # delivered files, and undelivered entries for each status; a peer may offer any number of them


class DeliveryStatus(StrEnum):
    """Why an entry was not delivered; the values appear in `--json` output (docs/data-format.md)."""

    REFUSED = "refused"
    MISMATCHED = "mismatched"
    FAILED = "failed"
    SKIPPED = "skipped"  # at the sender only: symbolic links and special files in a tree


_DELIVERY_STATUS = {
    EntryStatus.REFUSED: DeliveryStatus.REFUSED,
    EntryStatus.MISMATCHED: DeliveryStatus.MISMATCHED,
    EntryStatus.FAILED: DeliveryStatus.FAILED,
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session has got, in files and in bytes of content without holes; a total is None while it is unknown.

    At a sender, what counts is what the receiver's system has acknowledged.

    name:             the current file
    file_bytes:       how much of it has arrived, and
    file_total_bytes: of how much
    is_idle:          at a sender: everything that there was to send has arrived, so that silence is no outage
    """

    name: str
    files: int
    size_bytes: int
    total_files: int | None
    total_bytes: int | None
    file_bytes: int = 0
    file_total_bytes: int | None = None
    is_idle: bool = False


ProgressCallback = Callable[[Progress], None]


class UndeliveredEntry(NamedTuple):
    """A file or directory that the receiver does not have under its name: which, why in a word, and the reason."""

    name: str
    status: DeliveryStatus
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason or self.status}"


class UnfinishedEntry(NamedTuple):
    """A file of which the receiver has kept what had arrived: a later session goes on with it.

    arrived_bytes: how much of its content is verified to be there, or has just arrived
    """

    name: str
    arrived_bytes: int
    size_bytes: int

    def __str__(self) -> str:
        return f"{format_size(self.arrived_bytes)} of {format_size(self.size_bytes)} of {printable(self.name)}"

    def to_json(self) -> dict[str, str | int]:
        """The entry as an object of the `--json` output."""
        return {"name": self.name, "arrived_bytes": self.arrived_bytes, "bytes": self.size_bytes}


class DeliveredFile(NamedTuple):
    """A file that the receiver has under its name, verified; its size with holes, and its digest in hexadecimal.

    name: at a receiver fit for a terminal, since the sender has chosen it; `path` is exact
    path: at a receiver, where it is below its directory; in a SessionResult, where it is, or None if it was handed over
    """

    name: str
    size_bytes: int
    digest: str
    path: Path | None = None


class UndeliveredEntries:
    """What the results of a session have in common: entries that were not delivered, by status."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def undelivered(self) -> Sequence[UndeliveredEntry]: ...
        @property
        def omitted(self) -> Mapping[DeliveryStatus, int]: ...

    def with_status(self, status: DeliveryStatus) -> list[UndeliveredEntry]:
        """The listed undelivered entries with this status."""
        return [entry for entry in self.undelivered if entry.status == status]

    def has(self, status: DeliveryStatus) -> bool:
        """Whether some entry has this status."""
        return status in self.omitted or any(entry.status == status for entry in self.undelivered)

    def summary(self, status: DeliveryStatus) -> str:
        """The first entry with this status and the number of others, as one line; "" without one."""
        entries = self.with_status(status)
        if not entries:
            return ""
        more = len(entries) - 1 + self.omitted.get(status, 0)
        return f"{entries[0]} (and {more} more {status})" if more else str(entries[0])


@dataclass(slots=True)
class TransferResult(UndeliveredEntries):
    """The result of a session, as either side sees it.

    files, size_bytes:  files verified under their final names, and their size with holes; directories do not count
    hole_bytes:         how much of that is holes, which are not sent
    resumed_bytes:      how much of that the receiver had kept of an earlier session, or has in an earlier version of a
                        file, and was not sent
    digest:             hexadecimal digest of the only file, or of the listing of several (see ListingDigest)
    unchanged:          files that the receiver had already, and that were not sent (comparison.py)
    delivered:          the first files, in manifest order; at most MAX_LISTED
    undelivered:        entries that were not delivered, in manifest order; at most MAX_LISTED of each status
    omitted:            number of entries left out of `undelivered`, by status
    unfinished:         at the receiver only: what a later session can go on with
    """

    algorithm: str
    files: int = 0
    size_bytes: int = 0
    hole_bytes: int = 0
    resumed_bytes: int = 0
    digest: str = ""
    unchanged: int = 0
    delivered: list[DeliveredFile] = field(default_factory=list)
    undelivered: list[UndeliveredEntry] = field(default_factory=list)
    omitted: dict[DeliveryStatus, int] = field(default_factory=dict)
    unfinished: list[UnfinishedEntry] = field(default_factory=list)

    @property
    def sent_bytes(self) -> int:
        """How much of `size_bytes` travelled in this session."""
        return self.size_bytes - self.hole_bytes - self.resumed_bytes

    def add_undelivered(self, entry: UndeliveredEntry) -> None:
        """Record an entry that was not delivered."""
        status = entry.status
        if status not in self.omitted and len(self.with_status(status)) < MAX_LISTED:
            self.undelivered.append(entry)
        else:
            self.omitted[status] = self.omitted.get(status, 0) + 1

    def raise_for(self, errors: Mapping[DeliveryStatus, type[NettoolError]]) -> None:
        """Raise the error of the first status in `errors` that some entry has."""
        for status, error in errors.items():
            if summary := self.summary(status):
                raise error(summary)


class EntryResult(NamedTuple):
    """The final outcome of one entry; a delivered file also has its final size and its digest.

    kept_bytes: how much of it the receiver had, from an earlier session or version
    path:       of a file at a receiver: what it is stored under, the path of `entry` unless a program chose another
    """

    entry: Entry
    outcome: EntryOutcome
    size_bytes: int
    digest: bytes
    kept_bytes: int = 0
    path: bytes = b""


class ResultBuilder:
    """Builds a TransferResult from entry results in manifest order, which the digest of the listing depends on.

    is_untrusted: whether the names are those of the peer, and may hold anything
    """

    def __init__(self, algorithm: Algorithm, is_untrusted: bool) -> None:
        self.result = TransferResult(algorithm.name)
        self._is_untrusted = is_untrusted
        self._listing = ListingDigest(algorithm)

    def add(self, entry_results: Iterable[EntryResult]) -> None:
        """Add the next entries of the manifest."""
        result = self.result
        for entry, outcome, size_bytes, digest, kept_bytes, stored_path in entry_results:
            if outcome.status is EntryStatus.UNCHANGED:
                result.unchanged += entry.kind is EntryKind.FILE
            elif outcome.status is not EntryStatus.OK:
                status = _DELIVERY_STATUS[outcome.status]
                result.add_undelivered(UndeliveredEntry(self._name(entry), status, printable(outcome.reason)))
            elif digest:  # a directory has none
                result.files += 1
                result.size_bytes += size_bytes
                result.hole_bytes += entry.hole_bytes
                result.resumed_bytes += kept_bytes
                self._listing.add(entry.path, digest)
                if len(result.delivered) < MAX_LISTED:
                    path = Path(display_name(stored_path)) if self._is_untrusted else None
                    result.delivered.append(DeliveredFile(self._name(entry), size_bytes, digest.hex(), path))
        result.digest = self._listing.hex()

    def add_unfinished(self, files: Iterable[tuple[Entry, int]]) -> None:
        """Add files that were left to a later session, and how many bytes of each are there."""
        for entry, arrived_bytes in files:
            self.result.unfinished.append(UnfinishedEntry(self._name(entry), arrived_bytes, entry.size_bytes or 0))

    def _name(self, entry: Entry) -> str:
        return printable(entry.name, MAX_PATH_BYTES) if self._is_untrusted else entry.name
