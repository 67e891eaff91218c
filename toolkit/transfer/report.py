"""What a session tells its caller: progress while it runs, and what became of each file at its end."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from toolkit.errors import NettoolError, printable
from toolkit.transfer.digest import Algorithm, ListingDigest
from toolkit.transfer.manifest import Entry
from toolkit.transfer.messages import Outcome, Status

VERIFIED = "verified"
REFUSED = "refused"
MISMATCHED = "mismatched"
FAILED = "failed"
SKIPPED = "skipped"

_WORDS = {
    Status.TAKEN: VERIFIED,
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
    """What became of one file or directory: a word, the reason where it is not VERIFIED, its digest where it
    is.
    """

    name: str
    status: str
    size_bytes: int = 0
    digest: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason or self.status}"


@dataclass(slots=True)
class Report:
    """What a session did.

    files, size_bytes:  verified under their final names (directories do not count; bytes with holes)
    digest:             of the one file, or of the listing of several (see ListingDigest), in hexadecimal
    entries:            every file, in the order of the manifest as far as they were decided; of directories
                        only those that were not taken
    """

    algorithm: str
    files: int = 0
    size_bytes: int = 0
    digest: str = ""
    entries: list[FileReport] = field(default_factory=list)

    def those(self, status: str) -> list[FileReport]:
        """The entries of one status."""
        return [entry for entry in self.entries if entry.status == status]


def raise_for(report: Report, *errors: tuple[str, type[NettoolError]]) -> None:
    """Raise the first of these errors, as pairs of a status and a class, that some entry calls for."""
    for status, error in errors:
        entries = report.those(status)
        if entries:
            others = f" (and {len(entries) - 1} more {status})" if len(entries) > 1 else ""
            raise error(f"{entries[0]}{others}")


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
            is_verified = outcome.status is Status.TAKEN
            if is_verified and not digest:
                continue  # a directory
            if is_verified:
                report.files += 1
                report.size_bytes += size_bytes
                self._listing.add(entry.path, digest)
            word = _WORDS[outcome.status]
            report.entries.append(
                FileReport(entry.name, word, size_bytes, digest.hex() if is_verified else "", printable(outcome.reason))
            )
        report.digest = self._listing.hex()
