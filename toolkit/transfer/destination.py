"""Where a receive session puts what arrives: the Destination protocol, and what a destination answers.

`storage.Storage` writes a directory tree; `toolkit.comparison.discard` verifies the content and keeps none of it. A
destination decides which entries are accepted and says where the content of each file goes, an ArrivingFile.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from toolkit.transfer.arriving_file import ArrivingFile
from toolkit.transfer.comparison import KnownFiles
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.incoming_file import SessionBudget
from toolkit.transfer.limits import ByteBudget
from toolkit.transfer.manifest import Entry
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.place import ReceiverPlace

ACCEPTED = EntryOutcome(EntryStatus.OK)
UNCHANGED = EntryOutcome(EntryStatus.UNCHANGED)
VERIFIED = EntryOutcome(EntryStatus.OK)
MISMATCHED = EntryOutcome(EntryStatus.MISMATCHED, "its digest differs from the sender's")


class RefusedEntryError(Exception):
    """An entry is refused, for the reason in the message; the session continues without it."""


class Destination(Protocol):
    """Where a receive session puts its files. Called from the session's thread."""

    def begin(self, resume_key: bytes | None) -> None:
        """The session has begun. With a resume key, the sender can go on with what its earlier sessions have left."""

    def accept(
        self, entries: Sequence[Entry], budget: ByteBudget, known_files: KnownFiles | None = None
    ) -> list[EntryOutcome]:
        """Decide on the entries of an offer: an outcome each, OK or REFUSED with a reason. Creates directories.

        The size of every accepted file is taken from `budget`; a stream is charged as it arrives.

        known_files: tells which files are here already, and UNCHANGED; None if the sender does not ask
        """

    def create(
        self, entry: Entry, algorithm: Algorithm, budget: SessionBudget, on_complete: Callable[[], None]
    ) -> ArrivingFile:
        """The file for an accepted FILE entry; the arguments are those of ArrivingFile.

        Called for each of them after `accept`, in their order.
        """

    @property
    def place(self) -> ReceiverPlace | None:
        """The mark of the directory that the files are in; None if they are in none."""

    def close(self, complete: bool) -> None:
        """End the session, after every file was committed or discarded; `complete` unless it failed. Idempotent."""
