"""What a session sends of the files and streams that the receiver accepts: content, holes, and digests of chunks.

Content goes to the channel in slices that take about a tenth of a second each, whatever the path. Between slices the
session handles messages from the receiver.
"""

import os
import time
from collections.abc import Callable
from functools import partial

from toolkit.channel import Channel, Extent
from toolkit.transfer.chunks import Chunks
from toolkit.transfer.digest import Algorithm, content_digest
from toolkit.transfer.incoming import OPTIMISTIC_BYTES
from toolkit.transfer.manifest import MAX_HOLE_BYTES
from toolkit.transfer.messages import FileDigest, Hole, Withdraw
from toolkit.transfer.objects import ReaderStream
from toolkit.transfer.offered import OfferedGroup, SendOptions
from toolkit.transfer.send_progress import SendProgress
from toolkit.transfer.session import SessionEndpoint
from toolkit.transfer.small_files import is_small, read_small
from toolkit.transfer.sources import FileOrigin, FileSource, SourceChangedError, Stream, StreamSlice, StreamSource

MIN_SLICE_BYTES = 1 << 16
MAX_SLICE_BYTES = 1 << 24
SHORT_SLICE_NS = 50_000_000  # a slice that takes less time doubles the slice size
LONG_SLICE_NS = 200_000_000  # a slice that takes more time halves it
BATCH_BYTES = 1 << 20  # after so much content, messages are handled
MAX_ASKED = 8
"""How many CHUNKS may be unanswered: 128 MiB of a file.

The receiver cannot hash what is behind a chunk that it lacks, and reads it a second time.
"""
_PRUNE_FILES = 64


class ContentSender:
    """Sends the content of a session.

    wait:           waits for a message from the receiver or for a descriptor, and handles the message
    poll:           handles the messages that have arrived, and sets `unpolled_bytes` to 0
    unpolled_bytes: sent since the last `poll`
    """

    def __init__(
        self,
        channel: Channel,
        endpoint: SessionEndpoint,
        algorithm: Algorithm,
        options: SendOptions,
        progress: SendProgress,
        wait: Callable[[int | None], None],
        poll: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._endpoint = endpoint
        self._algorithm = algorithm
        self._options = options
        self._progress = progress
        self._wait = wait
        self._poll = poll
        self._open_sources: list[FileSource] = []
        self._prune_at = _PRUNE_FILES
        # How much may still be sent before a decision; nothing if the receiver may have it.
        may_have = options.update is not None or options.is_reconnected
        self._optimistic_bytes = 0 if may_have else OPTIMISTIC_BYTES
        self._slice_bytes = MIN_SLICE_BYTES
        self.unpolled_bytes = 0

    def close(self) -> None:
        """Close every file that is still open."""
        for source in self._open_sources:
            source.close()

    def send_file(self, group: OfferedGroup, index: int) -> FileDigest | None:
        """Hand the content of a file to the channel; its digest.

        None if it does not arrive: the receiver has refused it meanwhile, or it has changed and is withdrawn.
        """
        origin = group.sources[index].origin
        assert origin is not None
        try:
            if is_small(origin) and origin.identity.size_bytes <= self._allowed_bytes(group):
                if group.is_unwanted(index):
                    return None
                if index not in group.resumptions:
                    return self._send_small(group.first_id + index, origin)
            return self._send_large(group, index, origin)
        except SourceChangedError as error:
            self._endpoint.send(Withdraw(group.first_id + index, error.reason))
            return None

    def _send_small(self, file_id: int, origin: FileOrigin) -> FileDigest:
        with self._endpoint.file_access():
            content = read_small(origin)
        if content:
            self._send_extent(Extent(file_id, 0, len(content)), StreamSlice(0, content))
            self.unpolled_bytes += len(content)
        return FileDigest(file_id, len(content), content_digest(self._algorithm, content))

    def _send_large(self, group: OfferedGroup, index: int, origin: FileOrigin) -> FileDigest | None:
        source = FileSource(origin, self._algorithm)
        self._close_later(source)
        try:
            return self._send_content(group, index, source)
        except SourceChangedError:
            source.close()
            raise

    def _send_content(self, group: OfferedGroup, index: int, source: FileSource) -> FileDigest | None:
        file_id = group.first_id + index
        with self._endpoint.file_access():
            segments = source.segments()
        for segment in segments:
            offset, end = segment.offset, segment.offset + segment.length
            while offset < end:
                if segment.is_hole:
                    length = min(end - offset, MAX_HOLE_BYTES)
                    self._endpoint.send(Hole(file_id, offset, length))
                    with self._endpoint.file_access():
                        source.hash_hole(offset, length)
                else:
                    length = self._send_part(group, index, source, offset, end)
                if group.is_unwanted(index):
                    source.close()
                    return None
                self.unpolled_bytes += length
                offset += length
                if self.unpolled_bytes >= BATCH_BYTES:
                    self._poll()
        self._send_differing(group, index, source)
        if group.is_unwanted(index):
            source.close()
            return None
        with self._endpoint.file_access():
            return FileDigest(file_id, source.size_bytes, source.finish())

    def _send_part(self, group: OfferedGroup, index: int, source: FileSource, offset: int, end: int) -> int:
        """Send what follows `offset`, or ask about chunks there that the receiver holds; returns how much."""
        length = min(end - offset, self._allowed_bytes(group))
        if group.is_unwanted(index):
            return 0
        file_id, resumption = group.first_id + index, group.resumptions.get(index)
        held = None if resumption is None else resumption.next_held(offset, end)
        if resumption is not None and held is not None:
            start, held_bytes = resumption.bytes_of(held)
            if start == offset:
                self._send_differing(group, index, source, MAX_ASKED - 1)
                if group.is_unwanted(index):
                    return 0
                digests = self._endpoint.run_alive(partial(source.chunk_digests, held))
                resumption.ask(held)
                self._endpoint.send(Chunks(file_id, held.first, digests))
                self._progress.on_kept(held_bytes)
                return held_bytes
            length = min(length, start - offset)
        source.retain()
        self._send_extent(Extent(file_id, offset, length), source)
        return length

    def _send_differing(self, group: OfferedGroup, index: int, source: FileSource, most_asked: int = 0) -> None:
        """Send the chunks that the receiver holds and that differ, until at most `most_asked` messages are unanswered.

        Returns at once if the receiver does not want the file any more.
        """
        resumption = group.resumptions.get(index)
        while resumption is not None and not group.is_unwanted(index):
            if resumption.differing:
                offset, length = resumption.differing.popleft()
                self._progress.on_kept(-length)
                source.retain()
                self._send_extent(Extent(group.first_id + index, offset, length), source)
                self.unpolled_bytes += length
                if self.unpolled_bytes >= BATCH_BYTES:
                    self._poll()
            elif resumption.unanswered > most_asked:
                self._wait(None)
            else:
                return

    def send_stream(self, group: OfferedGroup, index: int) -> FileDigest | None:
        """Hand a stream to the channel; its digest, None if it does not arrive, as `send_file`."""
        source = group.sources[index]
        origin = source.origin
        if source.reader is not None:
            with ReaderStream(source.reader, source.entry.name, self._algorithm) as stream:
                return self._send_slices(group, index, stream, stream.descriptor)
        if origin is None:
            make = self._options.open_stream or partial(StreamSource, self._options.stream_fd)
            return self._send_slices(group, index, make(self._algorithm), self._options.stream_fd)
        try:
            with self._endpoint.file_access():
                descriptor = origin.open()
            try:
                from_file = StreamSource(descriptor, self._algorithm, origin)
                return self._send_slices(group, index, from_file, descriptor)
            finally:
                os.close(descriptor)
        except SourceChangedError as error:
            self._endpoint.send(Withdraw(group.first_id + index, error.reason))
            return None

    def _send_slices(self, group: OfferedGroup, index: int, stream: Stream, wake: int) -> FileDigest | None:
        """See `send_stream`; `wake` is readable when the stream has something."""
        file_id = group.first_id + index
        while not group.is_unwanted(index):
            with self._endpoint.file_access():
                stream_slice = stream.next_slice()
            if stream_slice is None:
                self._wait(wake)
                continue
            length = len(stream_slice.data)
            if not length:
                return FileDigest(file_id, stream.size_bytes, stream.digest())
            self._send_extent(Extent(file_id, stream_slice.offset, length), stream_slice)
            self.unpolled_bytes += length
            if self.unpolled_bytes >= BATCH_BYTES:
                self._poll()
        return None

    def _allowed_bytes(self, group: OfferedGroup) -> int:
        """How much content may be sent now; waits for the decisions if the optimistic content is used up."""
        if group.decisions is None and not self._optimistic_bytes:
            while group.decisions is None:
                self._wait(None)
        return self._slice_bytes if group.decisions else min(self._slice_bytes, self._optimistic_bytes)

    def _send_extent(self, extent: Extent, source: FileSource | StreamSlice) -> None:
        self._endpoint.check_cancelled()
        self._progress.on_content(extent.length)
        started_ns = time.monotonic_ns()
        self._channel.send_extent(extent, source)
        duration_ns = time.monotonic_ns() - started_ns
        self._optimistic_bytes = max(0, self._optimistic_bytes - extent.length)
        if extent.length >= self._slice_bytes and duration_ns < SHORT_SLICE_NS:
            self._slice_bytes = min(self._slice_bytes * 2, MAX_SLICE_BYTES)
        elif duration_ns > LONG_SLICE_NS:
            self._slice_bytes = max(self._slice_bytes // 2, MIN_SLICE_BYTES)

    def _close_later(self, source: FileSource) -> None:
        """Close `source` at the end of the session, unless it was released before."""
        self._open_sources.append(source)
        if len(self._open_sources) >= self._prune_at:
            self._open_sources = [source for source in self._open_sources if not source.is_released]
            self._prune_at = 2 * len(self._open_sources) + _PRUNE_FILES
