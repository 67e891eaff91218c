"""The files of a receive session by their ids (IncomingFiles): the sink that a channel writes to.

One file that arrives is an ArrivingFile, in incoming_file.py.

A sender may send OPTIMISTIC_BYTES of content before it has the receiver's decision. Such content may arrive before
its offer, and is then kept in memory up to this size and up to MAX_EARLY_PIECES pieces. Content of an entry that was
refused is dropped.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from toolkit.errors import ProtocolError
from toolkit.transfer.arriving_file import ArrivingFile
from toolkit.transfer.chunks import Chunks, HeldChunks, Kept
from toolkit.transfer.comparison import KnownFiles
from toolkit.transfer.destination import Destination
from toolkit.transfer.digest import ZERO_HASHING, ZERO_STEP_BYTES, Algorithm
from toolkit.transfer.incoming_file import SessionBudget
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus, FileDigest, Hole
from toolkit.transfer.place import ReceiverPlace

OPTIMISTIC_BYTES = 1 << 20  # what a new path carries in the round trips of an answer, even if a packet is lost
MAX_EARLY_PIECES = 1 << 13
"""How many writes to files that are not offered yet are kept.

OPTIMISTIC_BYTES in packets of 1,200 bytes, and one last short piece for each of MAX_GROUP_ENTRIES files, are a quarter.
"""

NOT_OFFERED = "the peer sent content of a file that it did not offer"
COMMIT_THREADS = 16


class EarlyContent:
    """Content of files that are not offered yet, in memory. Thread-safe."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, int, bytes]] = []
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, file_id: int, offset: int, data: memoryview) -> None:
        """Keep a piece. Raises ProtocolError if a peer that follows the protocol would not have sent it."""
        with self._lock:
            self._bytes += len(data)
            if self._bytes > OPTIMISTIC_BYTES or len(self._pieces) >= MAX_EARLY_PIECES:
                raise ProtocolError(NOT_OFFERED)
            self._pieces.append((file_id, offset, bytes(data)))

    def take(self) -> list[tuple[int, int, bytes]]:
        """What was added since the last call, as arguments of `ExtentSink.write`."""
        with self._lock:
            taken, self._pieces = self._pieces, []
        return taken


class IncomingFiles:
    """The files of one session; a DescriptorSink.

    `write` may be called from any thread, everything else from the session's thread.

    limit_bytes: size of all files that are accepted, with their holes; None for no limit
    unfinished:  files that were left to a later session
    """

    def __init__(self, destination: Destination, limit_bytes: int | None = None) -> None:
        self._destination = destination
        self._files: dict[int, ArrivingFile] = {}
        self._complete: deque[int] = deque()
        self._next_id = 0
        self._budget = SessionBudget(limit_bytes)
        self._early = EarlyContent()
        self._early_lock = threading.Lock()
        self.unfinished: list[ArrivingFile] = []

    @property
    def received_bytes(self) -> int:
        """How much content has arrived, of all files."""
        return self._budget.arrived_bytes

    @property
    def current(self) -> tuple[int, ArrivingFile | None]:
        """The number of files that wait for their digests only, and the file whose content follows theirs.

        The file is None between files.
        """
        for number, file in enumerate(self._files.values()):
            if file.entry.size_bytes is None or file.arrived_bytes < file.entry.content_bytes:
                return number, file
        return len(self._files), None

    def begin(self, resume_key: bytes | None) -> None:
        """See Destination."""
        self._destination.begin(resume_key)

    @property
    def place(self) -> ReceiverPlace | None:
        """See Destination."""
        return self._destination.place

    @property
    def pending_ranges(self) -> int:
        """The number of ranges, over all files, that wait for bytes before them."""
        return self._budget.ranges.count

    def offer(
        self, entries: Sequence[Entry], algorithm: Algorithm, known_files: KnownFiles | None = None
    ) -> list[EntryOutcome]:
        """Decide on the entries of an offer, whose ids follow those of the offer before. See Destination.accept."""
        with self._early_lock:
            outcomes = self._destination.accept(entries, self._budget.content, known_files)
            for file_id, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True), self._next_id):
                if outcome.status is EntryStatus.OK and entry.kind is EntryKind.FILE:
                    on_complete = partial(self._complete.append, file_id)
                    self._files[file_id] = self._destination.create(entry, algorithm, self._budget, on_complete)
            self._next_id += len(entries)
            early = self._early.take()
        for file_id, offset, data in early:
            self.write(file_id, offset, memoryview(data))
        return outcomes

    def held(self, count: int) -> HeldChunks:
        """What the receiver holds of the last `count` entries that were offered, by their index."""
        first_id = self._next_id - count
        ids = (file_id for file_id in range(first_id, self._next_id) if file_id in self._files)
        return {file_id - first_id: held for file_id in ids if (held := self._files[file_id].held)}

    def compare(self, chunks: Chunks) -> Kept | None:
        """See ArrivingFile.compare; None if the file is given up, which the sender learns."""
        file = self._offered_file(chunks.file_id)
        if file is None:
            return None
        return Kept(chunks.file_id, chunks.first, file.compare(chunks.first, chunks.digests))

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

    def on_spliced(self, file_id: int, offset: int, length: int) -> None:
        """See DescriptorSink."""
        file = self._files.get(file_id)
        if file is not None:
            file.on_spliced(offset, length)

    def write_hole(self, hole: Hole) -> None:
        """See ArrivingFile.write_hole."""
        file = self._offered_file(hole.file_id)
        if file is not None:
            file.write_hole(hole.offset, hole.length)

    @property
    def backlog_wait_s(self) -> float | None:
        """How long until `hash_backlog` can do something; None if no file waits for it."""
        return ZERO_HASHING.wait_s() if self._budget.backlog else None

    def hash_backlog(self) -> None:
        """Hash a step of the holes and long ranges that digests have reached, as far as it is this session's turn."""
        backlog, left_bytes = self._budget.backlog, ZERO_STEP_BYTES
        while backlog and left_bytes > 0:
            length = ZERO_HASHING.run(partial(backlog[0].hash_backlog, left_bytes))
            if length is None:
                return
            backlog.popleft().on_backlog_hashed()
            left_bytes -= length

    def expect(self, digest: FileDigest) -> None:
        """See ArrivingFile.expect."""
        file = self._offered_file(digest.file_id)
        if file is not None:
            file.expect(digest.size_bytes, digest.digest)

    def withdraw(self, file_id: int) -> ArrivingFile | None:
        """Discard a file that the sender cannot send; None if its entry was refused. Raises ProtocolError."""
        file = self._offered_file(file_id)
        if file is None:
            return None
        if file.has_expected_digest:
            raise ProtocolError("the peer withdrew a file after its digest")
        file.discard()
        del self._files[file_id]
        return file

    def awaits_digests(self) -> bool:
        """Whether the sender's digest of some file has not come yet."""
        return any(not file.has_expected_digest for file in self._files.values())

    def complete_files(self) -> Iterator[tuple[int, ArrivingFile]]:
        """The files that have become complete or have failed, once each, with their ids.

        The caller passes each to `commit`.
        """
        while self._complete:
            file_id = self._complete.popleft()
            file = self._files.get(file_id)
            if file is not None:  # otherwise it failed, and the sender has withdrawn it meanwhile
                yield file_id, file

    def commit(self, file_id: int) -> EntryOutcome:
        """See ArrivingFile.commit."""
        file = self._files[file_id]
        outcome = file.commit()
        if file.is_unfinished:
            self.unfinished.append(file)
        del self._files[file_id]
        return outcome

    def commit_all(self, file_ids: Sequence[int]) -> list[EntryOutcome]:
        """Commit several files at the same time: what each forces to the disk then shares the disk's own commits.

        With as many threads as the system has left, and at least with this one.
        """
        waiting, outcomes = deque(file_ids), dict[int, EntryOutcome]()

        def commit_waiting() -> None:
            while True:
                try:
                    file_id = waiting.popleft()
                except IndexError:
                    return
                outcomes[file_id] = self.commit(file_id)

        others: list[Future[None]] = []
        with ThreadPoolExecutor(COMMIT_THREADS, "commit") as pool:
            with suppress(RuntimeError):  # no thread is left
                for _ in range(min(len(file_ids), COMMIT_THREADS) - 1):
                    others.append(pool.submit(commit_waiting))
            commit_waiting()
        for other in others:
            other.result()
        return [outcomes[file_id] for file_id in file_ids]

    def close(self, complete: bool) -> None:
        """End the session: give up every file that is not committed, and leave it to a later session. Idempotent."""
        for file in self._files.values():
            file.discard(keep=True)
            if file.is_unfinished:
                self.unfinished.append(file)
        self._files.clear()
        self._destination.close(complete)

    def _keep_early(self, file_id: int, offset: int, data: memoryview) -> None:
        with self._early_lock:
            if file_id >= self._next_id:
                if self._next_id:
                    raise ProtocolError(NOT_OFFERED)
                self._early.add(file_id, offset, data)
                return
        self.write(file_id, offset, data)  # the offer arrived in the meantime

    def _offered_file(self, file_id: int) -> ArrivingFile | None:
        """The file with that id; None if its entry was refused or it is already complete."""
        if file_id >= self._next_id:
            raise ProtocolError("the peer refers to a file that it did not offer")
        return self._files.get(file_id)
