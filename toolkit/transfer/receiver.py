"""The receiving end of a session: decides on what is offered, lands content, verifies, and says what became
of it.
"""

import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from toolkit.channel import Channel
from toolkit.errors import (
    NettoolError,
    ProtocolError,
    TransferError,
    VerificationError,
)
from toolkit.transfer.digest import ALGORITHMS, Algorithm
from toolkit.transfer.manifest import MAX_FILE_IDS, MAX_OPEN_GROUPS, EntryKind
from toolkit.transfer.messages import (
    SESSION_VERSION,
    Accept,
    AnyMessage,
    Begin,
    Digests,
    Done,
    End,
    EntryOutcome,
    EntryStatus,
    Hole,
    Offer,
    Result,
)
from toolkit.transfer.result import (
    DeliveryStatus,
    EntryResult,
    Progress,
    ProgressCallback,
    ResultBuilder,
    TransferResult,
)
from toolkit.transfer.session import ALIVE_INTERVAL_S, SessionEndpoint, VersionError
from toolkit.transfer.states import Role, SessionState
from toolkit.transfer.storage import Storage

LOOK_UP_INTERVAL_NS = 50_000_000  # how often the loop looks up from content for progress and signs of life
QUICK_COMMIT_BYTES = 1 << 23  # a file under it is named at once, wherever it lies; a thread for it would cost more


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """How to receive.

    overwrite: whether files of the same name are replaced, when the new one is whole and verified
    durable:   whether a file is on the disk (fsync) before the sender is told that it is verified
    """

    overwrite: bool = False
    durable: bool = False


class _Group:
    """A group that was offered, and what became of its entries so far."""

    def __init__(self, offer: Offer, first_id: int, decisions: list[EntryOutcome]) -> None:
        self.number = offer.group
        self.first_id = first_id
        self.entries = offer.entries
        self.settled: list[EntryResult | None] = []
        for entry, decision in zip(offer.entries, decisions, strict=True):
            is_awaited = entry.kind is EntryKind.FILE and decision.status is EntryStatus.OK
            self.settled.append(None if is_awaited else EntryResult(entry, decision, 0, b""))
        self.undecided = self.settled.count(None)

    def settle(self, file_id: int, outcome: EntryOutcome, size_bytes: int, digest: bytes) -> None:
        """The outcome for a file that was awaited."""
        index = file_id - self.first_id
        self.settled[index] = EntryResult(self.entries[index], outcome, size_bytes, digest)
        self.undecided -= 1


class ReceiveSession:
    """Receives one session's files; `run` once."""

    def __init__(
        self,
        channel: Channel,
        directory: str | os.PathLike[str],
        options: ReceiveOptions,
        progress: ProgressCallback | None,
        cancel: threading.Event | None,
    ) -> None:
        self._endpoint = SessionEndpoint(channel, Role.RECEIVER, cancel)
        self._directory = directory
        self._options = options
        self._progress = progress
        self._algorithm: Algorithm = ALGORITHMS[0]  # until BEGIN tells
        self._results = ResultBuilder(self._algorithm)
        self._totals: tuple[int | None, int | None] = (None, None)
        self._groups: deque[_Group] = deque()  # offered and without a result, in order
        self._next_group = 0
        self._next_id = 0
        self._name = ""
        self._looked_up_ns = 0

    def run(self) -> TransferResult:
        """The session from its first message to its last. Raises errors of the family, with the result."""
        storage: Storage | None = None
        try:
            with self._endpoint.telling():
                storage = self._make_storage()
                self._run(storage)
            result = self._results.result
            result.raise_for({DeliveryStatus.MISMATCHED: VerificationError, DeliveryStatus.FAILED: TransferError})
            return result
        except NettoolError as error:
            error.result = self._results.result
            raise
        finally:
            if storage is not None:
                storage.close(complete=False)

    def _make_storage(self) -> Storage:
        return Storage(self._directory, self._options.overwrite, self._options.durable)

    def _run(self, storage: Storage) -> None:
        endpoint = self._endpoint
        while True:
            message = endpoint.receive(storage)
            if message is not None:
                self._take(message, storage)
            self._settle(storage)
            if endpoint.state is SessionState.ENDED and not self._groups:
                break
            self._look_up(storage)
        storage.close(complete=True)
        result = self._results.result
        endpoint.send(Done(result.files, result.size_bytes))

    def _look_up(self, storage: Storage) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_up_ns < LOOK_UP_INTERVAL_NS:
            return
        self._looked_up_ns = now_ns
        if self._endpoint.state is not SessionState.NEW:
            self._endpoint.stay_alive()
        if self._progress is not None:
            files = self._results.result.files
            self._progress(Progress(self._name, files, storage.landed_bytes, *self._totals))

    def _take(self, message: AnyMessage, storage: Storage) -> None:
        if isinstance(message, Begin):
            self._begin(message)
        elif isinstance(message, Offer):
            self._decide(message, storage)
        elif isinstance(message, Hole):
            storage.hole(message)
        elif isinstance(message, Digests):
            for digest in message.files:
                storage.expect(digest)
        elif isinstance(message, End) and (message.entries != self._next_id or storage.is_waiting_for_digests()):
            raise ProtocolError("the sender ends before it has sent what it offered")

    def _begin(self, begin: Begin) -> None:
        if begin.version != SESSION_VERSION:
            raise VersionError(f"session version {SESSION_VERSION} here, {begin.version} there")
        self._algorithm = begin.algorithm
        self._results = ResultBuilder(begin.algorithm)
        self._totals = (begin.total_files, begin.total_bytes)

    def _decide(self, offer: Offer, storage: Storage) -> None:
        if offer.group != self._next_group or self._next_id + len(offer.entries) > MAX_FILE_IDS:
            raise ProtocolError("the sender numbers its offers wrongly")
        if len(self._groups) >= MAX_OPEN_GROUPS:
            raise ProtocolError("the sender offers too much at a time")
        decisions = storage.offer(offer.entries, self._algorithm)
        self._endpoint.send(Accept(offer.group, tuple(decisions)))
        self._groups.append(_Group(offer, self._next_id, decisions))
        self._next_group += 1
        self._next_id += len(offer.entries)

    def _settle(self, storage: Storage) -> None:
        """Commit what is complete, and send the results of groups that are."""
        for file_id, file in storage.complete_files():
            outcome = self._commit(storage, file_id, file.size_bytes)
            group = next(group for group in reversed(self._groups) if group.first_id <= file_id)
            group.settle(file_id, outcome, file.size_bytes, file.digest)
            self._name = file.entry.name
        while self._groups and not self._groups[0].undecided:
            group = self._groups.popleft()
            settled = [each for each in group.settled if each is not None]
            self._results.add(settled)
            self._endpoint.send(Result(group.number, tuple(each.outcome for each in settled)))

    def _commit(self, storage: Storage, file_id: int, size_bytes: int) -> EntryOutcome:
        if not self._options.durable and size_bytes < QUICK_COMMIT_BYTES:
            self._endpoint.stay_alive()  # many in a row take their time, too
            return storage.commit(file_id)
        # A disk that is to sync, or a remote file system that writes everything back when a file's mode is set or
        # it is closed, may take longer than the peer would wait in silence.
        with ThreadPoolExecutor(1) as helper:
            committed = helper.submit(storage.commit, file_id)
            while not wait([committed], ALIVE_INTERVAL_S).done:
                self._endpoint.stay_alive()
            return committed.result()
