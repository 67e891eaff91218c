"""What a session tells its caller: progress while it runs, and what became of each file at its end."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from toolkit.errors import NettoolError, printable
from toolkit.transfer.digest import Algorithm, ListingDigest
from toolkit.transfer.manifest import Entry
from toolkit.transfer.messages import Outcome, Status

MAX_LISTED = 1000  # of each status: a peer may offer names that are refused for as long as it likes

REFUSED = "refused"
MISMATCHED = "mismatched"
FAILED = "failed"
SKIPPED = "skipped"

_WORDS = {
    Status.REFUSED: REFUSED,
    Status.MISMATCHED: MISMATCHED,
    Status.FAILED: FAILED,
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session has got; totals are None as long as they are not known. Bytes of content."""

    name: str
    files: int
    size_bytes: int
    total_files: int | None
    total_bytes: int | None


ProgressCallback = Callable[[Progress], None]


class FileReport(NamedTuple):
    """What became of one file or directory that is not verified under its name: a word, and the reason."""

    name: str
    status: str
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason or self.status}"


@dataclass(slots=True)
class Report:
    """What a session did.

    files, size_bytes:  verified under their final names (directories do not count; bytes with holes)
    digest:             of the one file, or of the listing of several (see ListingDigest), in hexadecimal
    entries:            what was not verified, in the order of the manifest; the first MAX_LISTED of a status
    unlisted:           how many more there were, by status
    """

    algorithm: str
    files: int = 0
    size_bytes: int = 0
    digest: str = ""
    entries: list[FileReport] = field(default_factory=list)
    unlisted: dict[str, int] = field(default_factory=dict)

    def add(self, entry: FileReport) -> None:
        """One more that was not verified."""
        status = entry.status
        if status not in self.unlisted and len(self.those(status)) < MAX_LISTED:
            self.entries.append(entry)
        else:
            self.unlisted[status] = self.unlisted.get(status, 0) + 1

    def those(self, status: str) -> list[FileReport]:
        """The entries of one status."""
        return [entry for entry in self.entries if entry.status == status]

    def summary(self, status: str) -> str:
        """The first of one status, and how many more there are; "" for none."""
        entries = self.those(status)
        if not entries:
            return ""
        more = len(entries) - 1 + self.unlisted.get(status, 0)
        return f"{entries[0]} (and {more} more {status})" if more else str(entries[0])


def raise_for(report: Report, *errors: tuple[str, type[NettoolError]]) -> None:
    """Raise the first of these errors, as pairs of a status and a class, that some entry calls for."""
    for status, error in errors:
        if summary := report.summary(status):
            raise error(summary)


class SendReport(Report):
    """What a sender did; SKIPPED are links and devices in trees."""


class ReceiveReport(Report):
    """What a receiver did."""


class Settled(NamedTuple):
    """An entry of which the outcome is known, and for a file its final size and digest."""

    entry: Entry
    outcome: Outcome
    size_bytes: int
    digest: bytes


class Account:
    """Makes a report of what is settled, in the order of the manifest, which the digest of a listing needs."""

    def __init__(self, report: Report, algorithm: Algorithm) -> None:
        self.report = report
        self._listing = ListingDigest(algorithm)

    def add(self, settled: Iterable[Settled]) -> None:
        """The next entries of the manifest."""
        report = self.report
        for entry, outcome, size_bytes, digest in settled:
            if outcome.status is not Status.TAKEN:
                report.add(FileReport(entry.name, _WORDS[outcome.status], printable(outcome.reason)))
            elif digest:  # a directory has none
                report.files += 1
                report.size_bytes += size_bytes
                self._listing.add(entry.path, digest)
        report.digest = self._listing.hex()
