"""A destination whose user decides about each entry: which are taken, and under which names they are stored."""

from collections import deque
from collections.abc import Callable, Sequence

from toolkit.transfer.arriving_file import ArrivingFile
from toolkit.transfer.comparison import KnownFiles
from toolkit.transfer.destination import Destination, RefusedEntryError
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.incoming_file import SessionBudget
from toolkit.transfer.limits import ByteBudget
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.names import refusal_reason_untrusted
from toolkit.transfer.place import ReceiverPlace

_DIRECTORY_MODE = 0o755


class ChosenDestination:
    """Asks `choose` about each entry, and passes what it returns to another destination. A Destination.

    choose: returns the entry to store in place of the offered one; raises RefusedEntryError to refuse it. The names
            that it gets are the sender's, and those that it returns are checked as those of a sender are. The
            directories that it invents are made, unless the name is refused.
    """

    def __init__(self, destination: Destination, choose: Callable[[Entry], Entry]) -> None:
        self._destination = destination
        self._choose = choose
        self._accepted: deque[Entry] = deque()  # files that are not created yet
        self._parent = b""  # the directory that was made last: many files in a row are in it

    def begin(self, resume_key: bytes | None) -> None:
        """See Destination."""
        self._destination.begin(resume_key)

    def accept(
        self, entries: Sequence[Entry], budget: ByteBudget, known_files: KnownFiles | None = None
    ) -> list[EntryOutcome]:
        """See Destination."""
        outcomes: dict[int, EntryOutcome] = {}
        chosen: dict[int, Entry] = {}
        for index, entry in enumerate(entries):
            try:
                chosen[index] = self._choose(entry)
            except RefusedEntryError as refusal:
                outcomes[index] = EntryOutcome(EntryStatus.REFUSED, str(refusal))
            else:
                path = chosen[index].path
                if path != entry.path and refusal_reason_untrusted(path, dotfiles=True) is None:
                    self._make_parents(chosen[index], budget)
        known = None if known_files is None else known_files.only(chosen)
        decided = self._destination.accept(list(chosen.values()), budget, known)
        for (index, entry), outcome in zip(chosen.items(), decided, strict=True):
            outcomes[index] = outcome
            if outcome.status is EntryStatus.OK and entry.kind is EntryKind.FILE:
                self._accepted.append(entry)
        return [outcomes[index] for index in range(len(entries))]

    def create(
        self,
        entry: Entry,  # noqa: ARG002 - the chosen one is stored in its place
        algorithm: Algorithm,
        budget: SessionBudget,
        on_complete: Callable[[], None],
    ) -> ArrivingFile:
        """See Destination."""
        return self._destination.create(self._accepted.popleft(), algorithm, budget, on_complete)

    @property
    def place(self) -> ReceiverPlace | None:
        """See Destination."""
        return self._destination.place

    def close(self, complete: bool) -> None:
        """See Destination."""
        self._destination.close(complete)

    def _make_parents(self, entry: Entry, budget: ByteBudget) -> None:
        """Make the directories that a chosen name needs. One that is refused lets the entry be refused, too."""
        *components, _ = entry.path.split(b"/")
        paths = [b"/".join(components[:depth]) for depth in range(1, len(components) + 1)]
        if paths and paths[-1] != self._parent:
            self._parent = paths[-1]
            parents = [Entry(EntryKind.DIRECTORY, path, _DIRECTORY_MODE, entry.mtime_ns) for path in paths]
            self._destination.accept(parents, budget)
