"""The sending end of a session.

The sender offers entries in groups and stays one group ahead of the content, so that the content of a group hides the
round trip of the next offer. It sends up to OPTIMISTIC_BYTES of the first group before the receiver has accepted it:
a congestion window lets hardly more out in the first round trip, and a small file then takes only one round trip.

How the content itself is sent is in content.py, what its user sees of it in send_progress.py.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice

from toolkit.channel import Channel
from toolkit.errors import NettoolError, ProtocolError, RefusedError, TransferError, VerificationError, printable
from toolkit.transfer.attributes import (
    ATTRIBUTES_PARAMETER,
    PRESERVE_PARAMETER,
    Preserve,
    encode_list,
    missing_words,
    words_of,
)
from toolkit.transfer.chunks import RESUME_KEY_PARAMETER, Kept
from toolkit.transfer.comparison import CONTENT_PARAMETER, UPDATE_PARAMETER, Comparison
from toolkit.transfer.content import BATCH_BYTES, ContentSender
from toolkit.transfer.digest import algorithm_by_name
from toolkit.transfer.manifest import LINKS_PARAMETER, MAX_FILE_IDS, MAX_OPEN_GROUPS, EntryKind
from toolkit.transfer.messages import (
    Accept,
    AnyMessage,
    Begin,
    Digests,
    Done,
    End,
    EntryOutcome,
    EntryStatus,
    FileDigest,
    Offer,
    Result,
    Withdraw,
)
from toolkit.transfer.names import display_name
from toolkit.transfer.offered import OfferedGroup, SendOptions, content_parameter
from toolkit.transfer.place import PLACE_PARAMETER, ReceiverPlace
from toolkit.transfer.result import (
    DeliveryStatus,
    EntryResult,
    ProgressCallback,
    ResultBuilder,
    TransferResult,
    UndeliveredEntry,
)
from toolkit.transfer.scan import (
    OnSkipped,
    SkippedEntry,
    Source,
    SourceEntry,
    check_sources,
    in_groups,
    scan,
    totals_of,
)
from toolkit.transfer.selection import LinkChoice, Selection
from toolkit.transfer.send_progress import SendProgress
from toolkit.transfer.session import RECONNECTION_KEY_PARAMETER, Role, SessionEndpoint, SessionState
from toolkit.transfer.source_tree import SourceDirectories
from toolkit.transfer.sources import CHANGED

_LOGGER = logging.getLogger(__name__)

BATCH_FILES = 64  # after this many files, or BATCH_BYTES, digests are sent and messages are handled
UPDATE_GROUPS_AHEAD = 4  # offered while there is nothing to send: unchanged files should not wait for round trips


class SendSession:
    """Sends the files of one session; call `run` once. Raises UsageError for sources that cannot be sent."""

    def __init__(
        self,
        channel: Channel,
        sources: Sequence[Source],
        options: SendOptions,
        progress: ProgressCallback | None,
        cancel: threading.Event | None,
    ) -> None:
        self._roots = check_sources(sources, options.recursive, options.stream_name)
        self._algorithm = algorithm_by_name(options.digest)
        self._options = options
        self._channel = channel
        self._totals = totals_of(self._roots)
        self._progress = SendProgress(channel, progress, self._totals)
        self._endpoint = SessionEndpoint(channel, Role.SENDER, cancel, self._progress.check)
        self._directories = SourceDirectories(follows_links=options.selection.links is LinkChoice.FOLLOW)
        self._groups: dict[int, OfferedGroup] = {}  # groups without a RESULT, in order
        self._upcoming: deque[OfferedGroup] = deque()  # offered, and no content sent yet
        self._groups_ahead = 1 if options.update is None else UPDATE_GROUPS_AHEAD
        self._next_group = 0
        self._next_id = 0
        self._content = ContentSender(
            channel, self._endpoint, self._algorithm, options, self._progress, self._wait, self._poll
        )
        self._results = ResultBuilder(self._algorithm, is_untrusted=False)

    def run(self) -> TransferResult:
        """Run the session from its first message to its last. Raises NettoolError with the `result` so far."""
        result = self._results.result
        try:
            with self._endpoint.reporting_failures(), self._progress.reporting():
                self._send_all()
            result.raise_for(
                {
                    DeliveryStatus.MISMATCHED: VerificationError,
                    DeliveryStatus.FAILED: TransferError,
                    DeliveryStatus.REFUSED: RefusedError,
                }
            )
        except NettoolError as error:
            error.result = result
            raise
        finally:
            self._content.close()
            self._directories.close()
        return result

    def _send_all(self) -> None:
        endpoint, update = self._endpoint, self._options.update
        asked = {} if update is None else {UPDATE_PARAMETER: bytes([update])}
        if self._options.resume_key is not None:
            asked[RESUME_KEY_PARAMETER] = self._options.resume_key
        if self._options.reconnection_key is not None:
            asked[RECONNECTION_KEY_PARAMETER] = self._options.reconnection_key
        files, size_bytes = self._totals
        is_offered_at_once = files is not None and update is None  # nothing to scan or to hash first
        endpoint.send(Begin(self._algorithm, files, size_bytes, parameters=asked), has_more=is_offered_at_once)
        entries = self._scan(self._on_skipped, self._options.selection)
        groups = in_groups(entries, self._algorithm.digest_bytes if update is Comparison.DIGEST else 0)
        if self._asks_first():
            groups = chain(([first] for first in islice(entries, 1)), groups)
        self._offer_next(groups)
        if self._upcoming and self._asks_first():
            self._wait_for_decisions(self._upcoming[0])
        while self._upcoming:
            group = self._upcoming.popleft()
            while len(self._upcoming) < self._groups_ahead and self._offer_next(groups):
                pass
            self._send_group(group)
        endpoint.send(End(self._next_id))
        while endpoint.state is not SessionState.CLOSED:
            self._wait()

    def _scan(self, on_skipped: OnSkipped, selection: Selection) -> Iterator[SourceEntry]:
        return scan(self._roots, self._directories, on_skipped, selection)

    def _asks_first(self) -> bool:
        """Whether nothing is scanned before the receiver's first answer.

        It may write into a directory that is sent, and it may not take links.
        """
        has_directories = any(root.is_directory for root in self._roots)
        may_meet_receiver = self._channel.peer.is_loopback
        return has_directories and (may_meet_receiver or self._options.selection.links is LinkChoice.SEND)

    def _on_skipped(self, skipped: SkippedEntry) -> None:
        status = DeliveryStatus.FAILED if skipped.is_failure else DeliveryStatus.SKIPPED
        self._results.result.add_undelivered(UndeliveredEntry(display_name(skipped.path), status, skipped.reason))

    def _offer_next(self, groups: Iterator[list[SourceEntry]]) -> bool:
        """Offer the next group; False after the last one."""
        takes_long = self._totals[0] is None or self._options.update is Comparison.DIGEST
        following = partial(self._next_sources, groups)
        if takes_long:
            sources, parameters = self._endpoint.run_alive(following)
        else:
            with self._endpoint.file_access():
                sources, parameters = following()
        if not sources:
            return False
        while len(self._groups) >= MAX_OPEN_GROUPS:
            self._wait()
        group = OfferedGroup(self._next_group, self._next_id, sources)
        self._next_group += 1
        self._next_id += len(sources)
        if self._next_id > MAX_FILE_IDS:
            raise TransferError(f"too many files for one session (at most {MAX_FILE_IDS}): send them in parts")
        self._groups[group.number] = group
        self._progress.on_offered(source.entry for source in sources)
        self._upcoming.append(group)
        self._endpoint.send(Offer(group.number, tuple(source.entry for source in sources), parameters))
        return True

    def _next_sources(self, groups: Iterator[list[SourceEntry]]) -> tuple[list[SourceEntry], dict[int, bytes]]:
        """The next group, empty after the last one, and the parameters of its offer."""
        sources = next(groups, [])
        parameters = {}
        if self._options.selection.preserve:
            parameters[ATTRIBUTES_PARAMETER] = encode_list(source.entry.attributes for source in sources)
        if self._options.update is Comparison.DIGEST:
            parameters[CONTENT_PARAMETER] = content_parameter(sources, self._algorithm)
        return sources, parameters

    # Messages from the receiver.

    def _handle(self, message: AnyMessage | None) -> None:
        if isinstance(message, Accept):
            group = self._groups.get(message.group)
            if group is None or group.decisions or len(message.outcomes) != len(group.sources):
                raise ProtocolError("the receiver sent an ACCEPT that matches no offer")
            if self._options.update is None and any(o.status is EntryStatus.UNCHANGED for o in message.outcomes):
                raise ProtocolError("the receiver reports unchanged files, and was not asked for them")
            group.on_accept(message)
            if not group.number:
                self._options.on_accepted()
            self._directories.takes_links |= LINKS_PARAMETER in message.parameters
            if PLACE_PARAMETER in message.parameters:
                self._on_place(ReceiverPlace.decode_untrusted(message.parameters[PLACE_PARAMETER]))
            if not group.number:
                asked = self._options.selection.preserve
                if missing := missing_words(asked, message.parameters.get(PRESERVE_PARAMETER)):
                    words = words_of(asked)
                    _LOGGER.warning("the receiver does not keep %s: have it preserve %s", missing, words)
                counted = replace(self._options.selection, preserve=Preserve.NOTHING)
                self._progress.count_ahead(partial(self._scan, lambda _: None, counted))
        elif isinstance(message, Kept):
            self._on_kept(message)
        elif isinstance(message, Withdraw):
            self._on_withdrawn(message.file_id)
        elif isinstance(message, Result):
            self._on_result(message)
        elif isinstance(message, Done):
            result = self._results.result
            if self._groups or (message.files, message.size_bytes) != (result.files, result.size_bytes):
                raise ProtocolError("the receiver's final count of files or bytes is wrong")

    def _on_place(self, place: ReceiverPlace) -> None:
        """Leave out the directory that the receiver writes to."""
        self._directories.place = place
        for root in self._roots:
            if root.status is not None and place.is_at(root.status):
                name = printable(display_name(root.name))
                raise RefusedError(f"{name}: the receiver stores files in this directory; start it with another `into`")

    def _on_kept(self, message: Kept) -> None:
        for group in self._groups.values():
            resumption = group.resumptions.get(message.file_id - group.first_id)
            if resumption is not None:
                resumption.on_kept(message)
                return
        raise ProtocolError("the receiver sent a KEPT that answers no CHUNKS")

    def _on_withdrawn(self, file_id: int) -> None:
        """The receiver gives up a file, and its RESULT will say why."""
        for group in self._groups.values():
            index = file_id - group.first_id
            if 0 <= index < len(group.sources) and group.decisions is not None and not group.is_unwanted(index):
                group.withdrawn.add(index)
                return
        raise ProtocolError("the receiver withdrew a file that it has not accepted")

    def _on_result(self, message: Result) -> None:
        group = next(iter(self._groups.values()), None)
        if (
            group is None
            or group.decisions is None
            or group.number != message.group
            or len(message.outcomes) != len(group.sources)
        ):
            raise ProtocolError("the receiver sent a RESULT that matches no accepted group")
        results = []
        for index, (source, outcome) in enumerate(zip(group.sources, message.outcomes, strict=True)):
            sent = group.digests.get(index)
            if (outcome.status is EntryStatus.UNCHANGED) != (group.decisions[index].status is EntryStatus.UNCHANGED):
                raise ProtocolError("the receiver changed its mind about a file that it has already")
            if outcome.status is EntryStatus.OK and source.entry.kind is EntryKind.FILE and sent is None:
                raise ProtocolError("the receiver verified a file that was not sent")
            if outcome.status is EntryStatus.MISMATCHED and source.origin and not source.origin.is_unchanged():
                outcome = EntryOutcome(EntryStatus.FAILED, CHANGED)  # while it was read for the second time
            size_bytes, digest = (sent.size_bytes, sent.digest) if sent else (0, b"")
            results.append(EntryResult(source.entry, outcome, size_bytes, digest, group.kept_bytes(index)))
        self._results.add(results)
        del self._groups[group.number]
        for result in results:
            self._options.on_result(result)

    def _poll(self) -> None:
        self._content.unpolled_bytes = 0
        while (message := self._endpoint.receive(timeout_s=0)) is not None:
            self._handle(message)

    def _wait_for_decisions(self, group: OfferedGroup) -> None:
        while group.decisions is None:
            self._wait()

    def _wait(self, wake: int | None = None) -> None:
        self._endpoint.keep_alive()
        self._handle(self._endpoint.receive(wake=wake))

    # Content.

    def _send_group(self, group: OfferedGroup) -> None:
        batch: list[FileDigest] = []
        batch_bytes = 0
        for index, source in enumerate(group.sources):
            if source.entry.kind is not EntryKind.FILE:
                continue
            is_stream = source.entry.size_bytes is None
            if group.number or is_stream or self._options.update is not None:
                self._wait_for_decisions(group)
            if group.is_unwanted(index):
                self._progress.on_refused(source.entry)
                continue
            self._progress.on_file(source.entry.name, None if is_stream else source.entry.content_bytes)
            send = self._content.send_stream if is_stream else self._content.send_file
            digest = send(group, index)
            if digest is None:
                continue
            group.digests[index] = digest
            batch.append(digest)
            batch_bytes += digest.size_bytes
            if len(batch) >= BATCH_FILES or batch_bytes >= BATCH_BYTES:
                batch_bytes = 0
                self._send_digests(batch)
        self._send_digests(batch, is_last=not self._upcoming)

    def _send_digests(self, batch: list[FileDigest], is_last: bool = False) -> None:
        """Send the digests of some files, and handle messages; END follows the last ones at once."""
        if batch:
            self._endpoint.send(Digests(tuple(batch)), has_more=is_last)
            batch.clear()
        if not is_last:
            self._poll()
