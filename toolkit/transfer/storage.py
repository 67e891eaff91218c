"""Where a receiving session puts what arrives; a DescriptorSink.

It decides on every entry that is offered, lands content by file id, and gives verified files their names.
Content that a sender risked before it had our decision may come before its offer, or after we refused: the
former is kept in memory, OPTIMISTIC_BYTES in MAX_EARLY_PIECES at most, the latter is thrown away.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from toolkit.errors import ProtocolError
from toolkit.transfer.digest import Algorithm, PendingRanges
from toolkit.transfer.incoming import IncomingFile
from toolkit.transfer.manifest import MAX_FILE_BYTES, Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus, FileDigest, Hole
from toolkit.transfer.names import refusal_of_untrusted
from toolkit.transfer.tree import RefusedEntryError, Tree

OPTIMISTIC_BYTES = 1 << 20  # what a new path takes in the round trips that an answer may cost, a lost packet included
MAX_EARLY_PIECES = 1 << 13  # packets of 1,200 bytes, and the last ones of MAX_GROUP_ENTRIES files, come to a quarter

ACCEPTED = EntryOutcome(EntryStatus.OK)


class Storage:
    """The files of one session. `write` may come from any thread, everything else from the session's."""

    def __init__(self, directory: str | os.PathLike[str], overwrite: bool, durable: bool) -> None:
        self._tree = Tree(directory, durable)
        self._overwrite = overwrite
        self._durable = durable
        self._files: dict[int, IncomingFile] = {}
        self._complete: deque[int] = deque()
        self._next_id = 0
        self._pending = PendingRanges()
        self._early: list[tuple[int, int, bytes]] = []
        self._early_bytes = 0
        self._early_lock = threading.Lock()
        self._finished_bytes = 0

    @property
    def landed_bytes(self) -> int:
        """How much content has landed, in files that are verified or under way."""
        return self._finished_bytes + sum(file.landed_bytes for file in self._files.values())

    def offer(self, entries: Sequence[Entry], algorithm: Algorithm) -> list[EntryOutcome]:
        """Decide on the entries, whose ids follow those of the offer before; TAKEN or REFUSED each.

        Directories are made at once.
        """
        with self._early_lock:
            free_bytes = self._tree.free_bytes()
            if free_bytes is not None:
                free_bytes -= sum(file.awaited_bytes for file in self._files.values())
            outcomes = []
            for file_id, entry in enumerate(entries, self._next_id):
                try:
                    self._check(entry, free_bytes)
                    if entry.kind is EntryKind.FILE:
                        notify = partial(self._complete.append, file_id)
                        self._files[file_id] = self._incoming(entry, algorithm, notify)
                        if free_bytes is not None:
                            free_bytes -= entry.content_bytes
                    outcomes.append(ACCEPTED)
                except RefusedEntryError as refusal:
                    outcomes.append(EntryOutcome(EntryStatus.REFUSED, str(refusal)))
            self._next_id += len(entries)
            early, self._early = self._early, []
        for file_id, offset, data in early:
            self.write(file_id, offset, memoryview(data))
        return outcomes

    def _incoming(self, entry: Entry, algorithm: Algorithm, on_complete: Callable[[], None]) -> IncomingFile:
        return IncomingFile(self._tree, entry, algorithm, on_complete, self._pending)

    def _check(self, entry: Entry, free_bytes: int | None) -> None:
        refusal = refusal_of_untrusted(entry.path)
        if refusal:
            raise RefusedEntryError(refusal)
        parts = tuple(entry.path.split(b"/"))
        if entry.kind is EntryKind.DIRECTORY:
            self._tree.make(parts, entry.mode, entry.mtime_ns)
            return
        if (entry.size_bytes or 0) > MAX_FILE_BYTES:
            raise RefusedEntryError(f"its size of {entry.size_bytes} bytes is more than the receiver takes")
        if free_bytes is not None and entry.content_bytes > free_bytes:
            raise RefusedEntryError("no space left on the receiver's disk")
        self._tree.check(parts, self._overwrite)

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        """See ExtentSink."""
        file = self._files.get(file_id)
        if file is not None:
            file.write(offset, data)
        elif file_id >= self._next_id and data:
            self._keep_early(file_id, offset, data)

    def descriptor(self, file_id: int, offset: int, length: int) -> int | None:
        """See DescriptorSink."""
        file = self._files.get(file_id)
        return None if file is None else file.descriptor(offset, length)

    def landed(self, file_id: int, offset: int, length: int) -> None:
        """See DescriptorSink."""
        file = self._files.get(file_id)
        if file is not None:
            file.landed(offset, length)

    def _keep_early(self, file_id: int, offset: int, data: memoryview) -> None:
        with self._early_lock:
            if file_id >= self._next_id:
                self._early_bytes += len(data)
                is_too_much = self._early_bytes > OPTIMISTIC_BYTES or len(self._early) >= MAX_EARLY_PIECES
                if self._next_id or is_too_much:
                    raise ProtocolError("the peer sent content that it never offered")
                self._early.append((file_id, offset, bytes(data)))
                return
        self.write(file_id, offset, data)  # the offer came in between

    def hole(self, hole: Hole) -> None:
        """See IncomingFile.hole."""
        file = self._known(hole.file_id)
        if file is not None:
            file.hole(hole.offset, hole.length)

    def expect(self, digest: FileDigest) -> None:
        """See IncomingFile.expect."""
        file = self._known(digest.file_id)
        if file is not None:
            file.expect(digest.size_bytes, digest.digest)

    def _known(self, file_id: int) -> IncomingFile | None:
        if file_id >= self._next_id:
            raise ProtocolError("the peer tells of a file that it never offered")
        return self._files.get(file_id)

    def is_waiting_for_digests(self) -> bool:
        """Whether there is a file of which the sender has not yet told the digest."""
        return any(not file.is_expected for file in self._files.values())

    def complete_files(self) -> Iterator[tuple[int, IncomingFile]]:
        """Files of which everything has come, each once; to be committed."""
        while self._complete:
            file_id = self._complete.popleft()
            yield file_id, self._files[file_id]

    def commit(self, file_id: int) -> EntryOutcome:
        """Verify a complete file and give it its name."""
        file = self._files[file_id]
        outcome = file.commit(self._overwrite, self._durable)
        del self._files[file_id]
        self._finished_bytes += file.landed_bytes
        return outcome

    def close(self, complete: bool) -> None:
        """The session is over: nothing stays of what is not verified. Idempotent."""
        for file in self._files.values():
            file.discard()
        self._files.clear()
        self._tree.finish(complete)
        self._tree.close()
