"""The sending end of a session.

Entries are offered in groups, one group ahead of the content, so that the round trip of an offer is hidden
behind the content of the group before. Of the first group OPTIMISTIC_BYTES of content are risked before the
receiver has accepted: a congestion window lets hardly more out in the first round trip, and a small file then
needs one only.

Content is handed to the channel in slices that take about a tenth of a second each, whatever the path:
between them the sender looks whether the receiver has something to say, and results progress.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from toolkit.channel import Channel, Extent
from toolkit.errors import (
    NettoolError,
    ProtocolError,
    RefusedError,
    TransferError,
    VerificationError,
)
from toolkit.transfer.digest import DEFAULT_ALGORITHM, algorithm_by_name
from toolkit.transfer.manifest import MAX_FILE_IDS, MAX_HOLE_BYTES, MAX_OPEN_GROUPS, EntryKind
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
    Hole,
    Offer,
    Result,
)
from toolkit.transfer.names import display_name
from toolkit.transfer.result import (
    DeliveryStatus,
    EntryResult,
    Progress,
    ProgressCallback,
    ResultBuilder,
    TransferResult,
    UndeliveredEntry,
)
from toolkit.transfer.scan import Item, Root, SkippedEntry, check_sources, in_groups, totals_of, walk
from toolkit.transfer.session import SessionEndpoint
from toolkit.transfer.sources import FileSource, Stream, StreamSlice
from toolkit.transfer.states import Role
from toolkit.transfer.storage import OPTIMISTIC_BYTES

MIN_SLICE_BYTES = 1 << 16
MAX_SLICE_BYTES = 1 << 24
SHORT_SLICE_NS = 50_000_000  # a slice that took less is followed by one of twice the size
LONG_SLICE_NS = 200_000_000
BATCH_FILES = 64  # after so many files, or so much content, digests are sent and messages looked for
BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How to send.

    digest:      the name of an algorithm in `digest.ALGORITHMS`
    recursive:   whether directories are sent, with everything in them
    stream_name: what the standard input, given as "-", is to be called at the receiver
    stream_fd:   the descriptor to read it from
    """

    digest: str = DEFAULT_ALGORITHM
    recursive: bool = False
    stream_name: str = "stdin"
    stream_fd: int = 0


@dataclass(slots=True)
class _Group:
    """A group that was offered: its ids begin at `first_id`; digests by index, as they are sent."""

    number: int
    first_id: int
    items: list[Item]
    decisions: tuple[EntryOutcome, ...] | None = None
    digests: dict[int, FileDigest] = field(default_factory=dict)

    def is_refused(self, index: int) -> bool:
        """Whether the receiver has said that it does not take this entry."""
        return self.decisions is not None and self.decisions[index].status is EntryStatus.REFUSED


class SendSession:
    """Sends one session's files; `run` once."""

    def __init__(
        self,
        channel: Channel,
        sources: Sequence[str | os.PathLike[str]],
        options: SendOptions,
        progress: ProgressCallback | None,
        cancel: threading.Event | None,
    ) -> None:
        self._roots: list[Root] = check_sources(sources, options.recursive, options.stream_name)
        self._algorithm = algorithm_by_name(options.digest)
        self._options = options
        self._channel = channel
        self._endpoint = SessionEndpoint(channel, Role.SENDER, cancel)
        self._progress = progress
        self._totals = totals_of(self._roots)
        self._left_out: list[SkippedEntry] = []
        self._groups: dict[int, _Group] = {}  # offered and without a result, in order
        self._next_group = 0
        self._next_id = 0
        self._sources: list[FileSource] = []
        self._prune_at = BATCH_FILES
        self._risk_bytes = OPTIMISTIC_BYTES
        self._slice_bytes = MIN_SLICE_BYTES
        self._unpolled_bytes = 0
        self._sent_files = 0
        self._sent_bytes = 0
        self._changed: list[NettoolError] = []
        self._results = ResultBuilder(self._algorithm)

    def run(self) -> TransferResult:
        """The session from its first message to its last. Raises errors of the family, with the result."""
        result = self._results.result
        try:
            with self._endpoint.telling():
                self._run()
            self._raise_for(result)
        except NettoolError as error:
            error.result = result
            raise
        finally:
            for source in self._sources:
                source.close()
        return result

    def _run(self) -> None:
        endpoint = self._endpoint
        endpoint.send(Begin(self._algorithm, *self._totals))
        groups = in_groups(walk(self._roots, self._left_out))
        upcoming = self._offer(groups)
        while upcoming is not None:
            group, upcoming = upcoming, self._offer(groups)
            self._send_group(group)
        endpoint.send(End(self._next_id))
        while not endpoint.is_over:
            self._wait()

    def _offer(self, groups: Iterator[list[Item]]) -> _Group | None:
        items = next(groups, None)
        if items is None:
            return None
        while len(self._groups) >= MAX_OPEN_GROUPS:
            self._wait()
        group = _Group(self._next_group, self._next_id, items)
        self._next_group += 1
        self._next_id += len(items)
        if self._next_id > MAX_FILE_IDS:
            raise TransferError("more files than one session can number: send them in parts")
        self._groups[group.number] = group
        self._endpoint.send(Offer(group.number, tuple(item.entry for item in items)))
        return group

    # What the receiver says.

    def _take(self, message: AnyMessage | None) -> None:
        if isinstance(message, Accept):
            group = self._groups.get(message.group)
            if group is None or group.decisions or len(message.outcomes) != len(group.items):
                raise ProtocolError("the receiver decides on what it was not offered")
            group.decisions = message.outcomes
        elif isinstance(message, Result):
            self._take_result(message)
        elif isinstance(message, Done):
            result = self._results.result
            if self._groups or (message.files, message.size_bytes) != (result.files, result.size_bytes):
                raise ProtocolError("the receiver's count of what it has is not ours")

    def _take_result(self, result: Result) -> None:
        group = next(iter(self._groups.values()), None)
        if (
            group is None
            or group.decisions is None
            or group.number != result.group
            or len(result.outcomes) != len(group.items)
        ):
            raise ProtocolError("the receiver gives results that it cannot have")
        settled = []
        for index, (item, outcome) in enumerate(zip(group.items, result.outcomes, strict=True)):
            sent = group.digests.get(index)
            if outcome.status is EntryStatus.OK and item.entry.kind is EntryKind.FILE and sent is None:
                raise ProtocolError("the receiver has verified what was not sent")
            if outcome.status is EntryStatus.MISMATCHED and item.origin and not item.origin.is_unchanged():
                self._changed.append(item.origin.changed())
            size_bytes, digest = (sent.size_bytes, sent.digest) if sent else (0, b"")
            settled.append(EntryResult(item.entry, outcome, size_bytes, digest))
        self._results.add(settled)
        del self._groups[group.number]

    def _poll(self) -> None:
        self._unpolled_bytes = 0
        while (message := self._endpoint.receive(timeout_s=0)) is not None:
            self._take(message)

    def _await_decisions(self, group: _Group) -> None:
        while group.decisions is None:
            self._wait()

    def _wait(self, wake: int | None = None) -> None:
        self._endpoint.stay_alive()
        self._take(self._endpoint.receive(wake=wake))

    # Content.

    def _send_group(self, group: _Group) -> None:
        batch: list[FileDigest] = []
        for index, item in enumerate(group.items):
            if item.entry.kind is EntryKind.DIRECTORY:
                continue
            if group.number or item.origin is None:
                self._await_decisions(group)
            if group.is_refused(index):
                continue
            digest = self._send_stream(group, index) if item.origin is None else self._send_file(group, index)
            if digest is None:
                continue
            group.digests[index] = digest
            batch.append(digest)
            self._sent_files += 1
            if len(batch) >= BATCH_FILES or self._unpolled_bytes >= BATCH_BYTES:
                self._send_digests(batch)
        self._send_digests(batch)

    def _send_digests(self, batch: list[FileDigest]) -> None:
        if batch:
            self._endpoint.send(Digests(tuple(batch)))
            batch.clear()
        self._poll()

    def _send_file(self, group: _Group, index: int) -> FileDigest | None:
        """Hand over the content of a file; its digest, or None when the receiver refuses it by now."""
        item, file_id = group.items[index], group.first_id + index
        assert item.origin is not None
        source = FileSource(item.origin, self._algorithm)
        self._keep(source)
        for segment in source.segments():
            offset, end = segment.offset, segment.offset + segment.length
            while offset < end:
                if segment.is_hole:
                    length = min(end - offset, MAX_HOLE_BYTES)
                    self._endpoint.send(Hole(file_id, offset, length))
                    source.hole(offset, length)
                    self._sent(item, length)
                else:
                    length = min(end - offset, self._allowed(group))
                    if group.is_refused(index):
                        source.close()
                        return None
                    source.hand_over()
                    self._send_extent(Extent(file_id, offset, length), source)
                    self._sent(item, length)
                offset += length
                if self._unpolled_bytes >= BATCH_BYTES:
                    self._poll()
        return FileDigest(file_id, item.origin.identity.size_bytes, source.finish())

    def _send_stream(self, group: _Group, index: int) -> FileDigest:
        item, file_id = group.items[index], group.first_id + index
        stream = Stream(self._options.stream_fd, self._algorithm)
        while True:
            stretch = stream.next_slice()
            if stretch is None:
                self._wait(wake=self._options.stream_fd)
                continue
            length = len(stretch.data)
            if not length:
                return FileDigest(file_id, stream.size_bytes, stream.digest())
            self._send_extent(Extent(file_id, stretch.offset, length), stretch)
            self._sent(item, length)
            if self._unpolled_bytes >= BATCH_BYTES:
                self._poll()

    def _allowed(self, group: _Group) -> int:
        """How much content may be handed over now; waits for the receiver where nothing more is risked."""
        if group.decisions is None and not self._risk_bytes:
            self._await_decisions(group)
        return self._slice_bytes if group.decisions else min(self._slice_bytes, self._risk_bytes)

    def _send_extent(self, extent: Extent, source: FileSource | StreamSlice) -> None:
        started_ns = time.monotonic_ns()
        self._channel.send_extent(extent, source)
        took_ns = time.monotonic_ns() - started_ns
        self._risk_bytes = max(0, self._risk_bytes - extent.length)
        if extent.length >= self._slice_bytes and took_ns < SHORT_SLICE_NS:
            self._slice_bytes = min(self._slice_bytes * 2, MAX_SLICE_BYTES)
        elif took_ns > LONG_SLICE_NS:
            self._slice_bytes = max(self._slice_bytes // 2, MIN_SLICE_BYTES)

    def _sent(self, item: Item, length: int) -> None:
        """Keep count of what was handed over or told of."""
        self._sent_bytes += length
        self._unpolled_bytes += length
        if self._progress is not None:
            self._progress(Progress(item.entry.name, self._sent_files, self._sent_bytes, *self._totals))

    def _keep(self, source: FileSource) -> None:
        """Have the source closed in the end, unless it was released by then."""
        self._sources.append(source)
        if len(self._sources) >= self._prune_at:
            self._sources = [source for source in self._sources if not source.is_released]
            self._prune_at = 2 * len(self._sources) + BATCH_FILES

    # The end.

    def _raise_for(self, result: TransferResult) -> None:
        for left_out in self._left_out:
            status = DeliveryStatus.FAILED if left_out.is_failure else DeliveryStatus.SKIPPED
            result.undelivered.append(UndeliveredEntry(display_name(left_out.path), status, left_out.reason))
        if self._changed:
            raise self._changed[0]
        result.raise_for(
            {
                DeliveryStatus.MISMATCHED: VerificationError,
                DeliveryStatus.FAILED: TransferError,
                DeliveryStatus.REFUSED: RefusedError,
            }
        )
