"""The receiving end of a session: decides on offers, stores and verifies content, and reports every outcome."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from toolkit.channel import Channel
from toolkit.errors import NettoolError, ProtocolError, TransferError, VerificationError
from toolkit.security.reconnections import RECONNECTION_KEY_BYTES
from toolkit.transfer.arriving_file import ArrivingFile
from toolkit.transfer.attributes import (
    ATTRIBUTES_PARAMETER,
    PRESERVE_PARAMETER,
    Preserve,
    decode_list_untrusted,
)
from toolkit.transfer.chunks import (
    HELD_PARAMETER,
    RESUME_KEY_BYTES,
    RESUME_KEY_PARAMETER,
    Chunks,
    encode_held,
)
from toolkit.transfer.comparison import (
    CONTENT_PARAMETER,
    UPDATE_PARAMETER,
    Comparison,
    KnownFiles,
    comparison_untrusted,
)
from toolkit.transfer.destination import Destination
from toolkit.transfer.digest import ALGORITHMS, Algorithm
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.limits import LimitError, SessionLimits, SessionWatch
from toolkit.transfer.manifest import LINKS_PARAMETER, MAX_FILE_IDS, MAX_OPEN_GROUPS, EntryKind
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
    Withdraw,
)
from toolkit.transfer.place import PLACE_PARAMETER
from toolkit.transfer.result import (
    DeliveryStatus,
    EntryResult,
    Progress,
    ProgressCallback,
    ResultBuilder,
    TransferResult,
)
from toolkit.transfer.session import (
    ALIVE_INTERVAL_S,
    RECONNECTION_KEY_PARAMETER,
    Role,
    SessionEndpoint,
    SessionState,
    VersionError,
)

PROGRESS_INTERVAL_NS = 50_000_000  # how often the receive loop reports progress, sends ALIVE if due, and checks limits
QUICK_OFFER_ENTRIES = 16  # names of a smaller offer are checked at once on any file system


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """How to receive.

    overwrite: whether a file replaces one of the same name, once it is whole and verified
    durable:   whether a file is on the disk (fsync) before the sender learns that it is verified
    dotfiles:  whether names may begin with a dot
    preserve_modes: whether files may be executable
    preserve:  what else is preserved, if the sender offers it
    limits:    what the session may take
    on_begin:  called with the reconnection key of a sender that comes back if the connection is lost, None for another;
               may raise a NettoolError to end the session
    on_result: called with what has become of each entry that was offered
    """

    overwrite: bool = False
    durable: bool = False
    dotfiles: bool = False
    preserve_modes: bool = False
    preserve: Preserve = Preserve.NOTHING
    limits: SessionLimits = field(default_factory=SessionLimits)
    on_begin: Callable[[bytes | None], None] = lambda _: None
    on_result: Callable[[EntryResult], None] = lambda _: None


class _ReceivedGroup:
    """An offered group and the results of its entries so far."""

    def __init__(self, offer: Offer, first_id: int, decisions: list[EntryOutcome]) -> None:
        self.number = offer.group
        self.first_id = first_id
        self.entries = offer.entries
        self.results: list[EntryResult | None] = []
        for entry, decision in zip(offer.entries, decisions, strict=True):
            is_awaited = entry.kind is EntryKind.FILE and decision.status is EntryStatus.OK
            self.results.append(None if is_awaited else EntryResult(entry, decision, 0, b""))
        self.missing_results = self.results.count(None)

    def set_result(self, file_id: int, outcome: EntryOutcome, file: ArrivingFile) -> EntryResult:
        """Set the result of a file that was awaited, and return it."""
        index = file_id - self.first_id
        entry, stored = self.entries[index], file.entry
        result = EntryResult(entry, outcome, file.size_bytes, file.digest, file.kept_bytes, stored.path)
        self.results[index] = result
        self.missing_results -= 1
        return result


class ReceiveSession:
    """Receives the files of one session into a destination; call `run` once.

    open_destination: makes the destination; called by `run`, so that the peer learns of a failure
    on_begin, on_result, preserve: see ReceiveOptions
    """

    def __init__(
        self,
        channel: Channel,
        open_destination: Callable[[], Destination],
        limits: SessionLimits,
        progress: ProgressCallback | None,
        cancel: threading.Event | None,
        on_begin: Callable[[bytes | None], None] = lambda _: None,
        on_result: Callable[[EntryResult], None] = lambda _: None,
        preserve: Preserve = Preserve.NOTHING,
    ) -> None:
        self._preserve = preserve
        self._endpoint = SessionEndpoint(channel, Role.RECEIVER, cancel)
        channel.check_while_waiting(self._check_blocked)  # in place of the endpoint's check, which it includes
        self._on_key = on_begin
        self._on_result = on_result
        self._open_destination = open_destination
        self._limits = limits
        self._watch = SessionWatch(limits)
        self._has_directories = False  # in its offers
        self._steps = 0  # offers, holes, comparisons, and files with an outcome
        self._progress = progress
        self._algorithm: Algorithm = ALGORITHMS[0]  # until BEGIN arrives
        self._comparison: Comparison | None = None
        self._results = ResultBuilder(self._algorithm, is_untrusted=True)
        self._totals: tuple[int | None, int | None] = (None, None)
        self._groups: deque[_ReceivedGroup] = deque()  # groups without a RESULT, in order
        self._next_group = 0
        self._next_id = 0
        self._last_name = ""
        self._completed_files = 0
        self._hole_bytes = 0  # of what was offered
        self._last_progress_ns = 0

    def run(self) -> TransferResult:
        """Run the session from its first message to its last.

        Raises NettoolError with the `result` so far; an entry that this end refused is no error.
        """
        try:
            with self._endpoint.reporting_failures():
                with self._endpoint.file_access():
                    destination = self._open_destination()
                self._receive_all(IncomingFiles(destination, self._limits.max_bytes))
            result = self._results.result
            result.raise_for({DeliveryStatus.MISMATCHED: VerificationError, DeliveryStatus.FAILED: TransferError})
            return result
        except NettoolError as error:
            error.result = self._results.result
            raise

    def _receive_all(self, files: IncomingFiles) -> None:
        """Receive until the last group has its RESULT. Unfinished files are removed or kept when this ends.

        The peer is told of a failure after that, so that nothing is left behind if it ends this process in answer.
        """
        try:
            while self._endpoint.state is not SessionState.ENDED or self._groups:
                message = self._receive(files)
                if message is not None:
                    self._handle(message, files)
                with self._endpoint.file_access():
                    files.hash_backlog()
                self._commit_complete_files(files)
                self._send_results()
                self._report_progress(files)
            if self._has_directories:  # setting their times, or an fsync of each, may take long
                self._endpoint.run_alive(lambda: files.close(complete=True))
            else:
                with self._endpoint.file_access():
                    files.close(complete=True)
        except Exception:
            with suppress(NettoolError):  # the channel is broken, which is why
                self._endpoint.run_alive(lambda: files.close(complete=False))
            raise
        except BaseException:
            files.close(complete=False)
            raise
        finally:
            for group in self._groups:  # which the session did not finish: some of its files have their names
                self._results.add(result for result in group.results if result is not None)
            self._results.add_unfinished((file.entry, file.arrived_bytes) for file in files.unfinished)
        result = self._results.result
        self._endpoint.send(Done(result.files, result.size_bytes))

    def _receive(self, files: IncomingFiles) -> AnyMessage | None:
        """The next message. Counts the time that the peer lets this end wait; a receive takes longer if it is busy."""
        backlog_wait_s = files.backlog_wait_s
        if backlog_wait_s is not None:
            return self._endpoint.receive(files, min(backlog_wait_s, ALIVE_INTERVAL_S))
        started_ns = time.monotonic_ns()
        message = self._endpoint.receive(files)
        self._watch.on_waited(min((time.monotonic_ns() - started_ns) / 1e9, ALIVE_INTERVAL_S))
        return message

    def _check_blocked(self) -> None:
        """A message waits for room. A peer may take none for ever, and still say that it is alive."""
        self._endpoint.check_cancelled()
        self._watch.check_blocked()

    def _report_progress(self, files: IncomingFiles) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._last_progress_ns < PROGRESS_INTERVAL_NS:
            return
        self._last_progress_ns = now_ns
        has_begun = self._endpoint.state is not SessionState.NEW
        self._watch.check(has_begun, files.received_bytes, self._steps)
        if has_begun:
            self._endpoint.keep_alive()
        if self._progress is not None:
            self._progress(self._progress_of(files))

    def _progress_of(self, files: IncomingFiles) -> Progress:
        total_files, total_bytes = self._totals
        content_bytes = None if total_bytes is None else total_bytes - self._hole_bytes
        whole, file = files.current
        count = self._completed_files + whole
        if file is None:
            return Progress(self._last_name, count, files.received_bytes, total_files, content_bytes)
        self._last_name = file.entry.name
        return Progress(
            file.entry.name,
            count,
            files.received_bytes,
            total_files,
            content_bytes,
            file.arrived_bytes,
            None if file.entry.size_bytes is None else file.entry.content_bytes,
        )

    def _handle(self, message: AnyMessage, files: IncomingFiles) -> None:
        if isinstance(message, Begin):
            self._on_begin(message, files)
        elif isinstance(message, Offer):
            self._on_offer(message, files)
        elif isinstance(message, Chunks):
            kept = self._endpoint.run_alive(lambda: files.compare(message))
            if kept is not None:
                self._endpoint.send(kept)
                self._steps += 1
        elif isinstance(message, Hole):
            with self._endpoint.file_access():
                files.write_hole(message)
            self._steps += 1
        elif isinstance(message, Digests):
            for digest in message.files:
                files.expect(digest)
        elif isinstance(message, Withdraw):
            with self._endpoint.file_access():
                file = files.withdraw(message.file_id)
            if file is not None:
                self._set_result(message.file_id, EntryOutcome(EntryStatus.FAILED, message.reason), file)
        elif isinstance(message, End) and (message.entries != self._next_id or files.awaits_digests()):
            raise ProtocolError("the sender ended the session before it sent everything that it offered")

    def _on_begin(self, begin: Begin, files: IncomingFiles) -> None:
        if begin.version != SESSION_VERSION:
            raise VersionError(f"session version {begin.version} at the sender, {SESSION_VERSION} at the receiver")
        self._algorithm = begin.algorithm
        if UPDATE_PARAMETER in begin.parameters:
            self._comparison = comparison_untrusted(begin.parameters[UPDATE_PARAMETER])
        self._results = ResultBuilder(begin.algorithm, is_untrusted=True)
        self._totals = (begin.total_files, begin.total_bytes)
        if (begin.total_files or 0) > self._limits.max_files:
            raise self._too_many_files()
        resume_key = begin.parameters.get(RESUME_KEY_PARAMETER)
        if resume_key is not None and len(resume_key) != RESUME_KEY_BYTES:
            raise ProtocolError("the sender sent a resume key of another length")
        reconnection_key = begin.parameters.get(RECONNECTION_KEY_PARAMETER)
        if reconnection_key is not None and len(reconnection_key) != RECONNECTION_KEY_BYTES:
            raise ProtocolError("the sender sent a reconnection key of another length")
        if files.place is None:  # what is in no directory has nothing but content
            self._preserve = Preserve.NOTHING
        self._on_key(reconnection_key)
        files.begin(resume_key)

    def _too_many_files(self) -> LimitError:
        return LimitError(f"a session may bring {self._limits.max_files} files (the receiver's `max_files`)")

    def _on_offer(self, offer: Offer, files: IncomingFiles) -> None:
        if offer.group != self._next_group or self._next_id + len(offer.entries) > MAX_FILE_IDS:
            raise ProtocolError("the sender sent an offer with a wrong number")
        if len(self._groups) >= MAX_OPEN_GROUPS:
            raise ProtocolError(f"the sender offered more than {MAX_OPEN_GROUPS} groups at a time")
        if self._next_id + len(offer.entries) > self._limits.max_files:
            raise self._too_many_files()
        offer = self._with_attributes(offer)
        decisions = self._decide(offer, files)
        place = None if offer.group else files.place
        parameters = {} if place is None else {PLACE_PARAMETER: place.encode()}
        if not offer.group:
            parameters[LINKS_PARAMETER] = b""
            if self._preserve:
                parameters[PRESERVE_PARAMETER] = bytes([self._preserve])
        if held := files.held(len(offer.entries)):
            parameters[HELD_PARAMETER] = encode_held(held)
        self._endpoint.send(Accept(offer.group, tuple(decisions), parameters))
        self._steps += 1
        self._hole_bytes += sum(entry.hole_bytes for entry in offer.entries)
        group = _ReceivedGroup(offer, self._next_id, decisions)
        self._groups.append(group)
        self._next_group += 1
        self._next_id += len(offer.entries)
        for result in group.results:
            if result is not None:  # it is known already
                self._on_result(result)

    def _with_attributes(self, offer: Offer) -> Offer:
        """The offer with what is preserved of its entries. Raises ProtocolError."""
        value = offer.parameters.get(ATTRIBUTES_PARAMETER)
        if value is None or not self._preserve:
            return offer
        attributes = decode_list_untrusted(value, len(offer.entries), self._preserve)
        pairs = zip(offer.entries, attributes, strict=True)
        return replace(offer, entries=tuple(replace(entry, attributes=found) for entry, found in pairs))

    def _decide(self, offer: Offer, files: IncomingFiles) -> list[EntryOutcome]:
        """Accept or refuse the entries of an offer. Many checks, an fsync or a digest may take long."""
        known_files = None
        if self._comparison is not None:
            digests = offer.parameters.get(CONTENT_PARAMETER)
            known_files = KnownFiles.decode_untrusted(self._comparison, self._algorithm, offer.entries, digests)
        has_directories = any(entry.kind is not EntryKind.FILE for entry in offer.entries)
        self._has_directories |= has_directories
        is_quick = len(offer.entries) <= QUICK_OFFER_ENTRIES and not has_directories
        if is_quick and self._comparison is not Comparison.DIGEST:
            with self._endpoint.file_access():
                return files.offer(offer.entries, self._algorithm, known_files)
        return self._endpoint.run_alive(lambda: files.offer(offer.entries, self._algorithm, known_files))

    def _commit_complete_files(self, files: IncomingFiles) -> None:
        """Commit what is complete. What takes long is committed at the same time, and ALIVE is sent meanwhile."""
        slow: dict[int, ArrivingFile] = {}
        for file_id, file in files.complete_files():
            if file.failure is not None:
                self._endpoint.send(Withdraw(file_id, file.failure))
            if file.commits_quickly():
                self._endpoint.keep_alive()  # many quick commits in a row take long, too
                with self._endpoint.file_access():
                    outcome = files.commit(file_id)
                self._set_result(file_id, outcome, file)
            else:
                slow[file_id] = file
        if slow:
            outcomes = self._endpoint.run_alive(lambda: files.commit_all(list(slow)))
            for (file_id, file), outcome in zip(slow.items(), outcomes, strict=True):
                self._set_result(file_id, outcome, file)

    def _set_result(self, file_id: int, outcome: EntryOutcome, file: ArrivingFile) -> None:
        group = next(group for group in reversed(self._groups) if group.first_id <= file_id)
        result = group.set_result(file_id, outcome, file)
        self._steps += 1
        self._completed_files += 1
        self._last_name = file.entry.name
        self._on_result(result)

    def _send_results(self) -> None:
        """Send the RESULT of every group that is finished, in the order of the groups."""
        while self._groups and not self._groups[0].missing_results:
            group = self._groups.popleft()
            results = [result for result in group.results if result is not None]
            self._results.add(results)
            # If END has arrived as well, DONE leaves in the same packet; otherwise the next `receive` sends this.
            self._endpoint.send(Result(group.number, tuple(result.outcome for result in results)), has_more=True)
