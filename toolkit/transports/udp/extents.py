"""Lays the extents of files into the data stream of a reliable-UDP connection, and finds them again at the receiver.

The engine moves one stream of bytes and knows no files. The sending channel lays each extent after the previous one and
announces it in a message: (file id, offset, length). The receiving channel lays the announced extents out in the same
way, so both sides know which file each offset of the data stream belongs to. Announcements are sent ahead of their
content; content that overtakes a lost announcement waits in a bounded stash.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Final

from toolkit.channel import Extent, ExtentSink, ExtentSource
from toolkit.errors import ProtocolError
from toolkit.rudp.wire import MAX_OFFSET
from toolkit.transports.keep_alive import FileWait

APPLICATION_MESSAGE: Final = b"\x00"
ANNOUNCEMENTS_MESSAGE: Final = b"\x01"
"""The first byte of every message of the engine: of the application, or announced extents."""
_ANNOUNCEMENT: Final = struct.Struct(">QQQ")
ANNOUNCEMENTS_PER_MESSAGE: Final = 1024
STASH_BYTES: Final = 16 << 20
"""Most memory for content that waits for its announcement or for a sink."""
_PIECE_OVERHEAD_BYTES: Final = 128
"""The memory that a piece of the stash takes besides its content."""
MAX_EXTENTS: Final = 1 << 18
"""Maximum number of announced extents that have not arrived yet; further announcements wait."""
_FORGET_AT_LEAST: Final = 1024


def encode_announcements(extents: Iterable[Extent]) -> bytes:
    """Encode extents in the order in which they lie in the data stream."""
    return b"".join(_ANNOUNCEMENT.pack(*extent) for extent in extents)


def decode_announcements_untrusted(data: bytes) -> list[Extent]:
    """Decode announced extents. Raises ProtocolError."""
    if len(data) % _ANNOUNCEMENT.size:
        raise ProtocolError(f"the peer's announcements have {len(data)} bytes, not a multiple of {_ANNOUNCEMENT.size}")
    extents = [Extent(*fields) for fields in _ANNOUNCEMENT.iter_unpack(data)]
    if any(max(extent) >= MAX_OFFSET or extent.offset + extent.length > MAX_OFFSET for extent in extents):
        raise ProtocolError("the peer announced an extent that is out of range")
    return extents


class OutgoingExtents:
    """The engine's data source: reads offsets of the data stream from files, and releases extents that have arrived.

    acknowledged_bytes: how much has arrived without a gap; any thread may read it
    file_wait:          when a source reads
    """

    def __init__(self) -> None:
        self.file_wait = FileWait()
        self._starts: list[int] = []
        self._extents: list[tuple[Extent, ExtentSource]] = []
        self._unannounced: list[Extent] = []
        self.acknowledged_bytes = 0

    def add(self, data_offset: int, extent: Extent, source: ExtentSource) -> None:
        """Add an extent at `data_offset`, which is the end of the previous one."""
        self._starts.append(data_offset)
        self._extents.append((extent, source))
        self._unannounced.append(extent)

    @property
    def unannounced(self) -> int:
        """The number of extents that `take_announcements` has not returned yet."""
        return len(self._unannounced)

    def take_announcements(self) -> Iterator[bytes]:
        """Encode the extents that the peer does not know of yet, at most ANNOUNCEMENTS_PER_MESSAGE at a time."""
        while self._unannounced:
            batch = self._unannounced[:ANNOUNCEMENTS_PER_MESSAGE]
            del self._unannounced[:ANNOUNCEMENTS_PER_MESSAGE]
            yield encode_announcements(batch)

    def read_into(self, data_offset: int, buffer: memoryview) -> int:
        """See `toolkit.rudp.streams.DataSource`. Raises what the source raises."""
        index = bisect_right(self._starts, data_offset) - 1
        done = elapsed_ns = 0
        while done < len(buffer):
            extent, source = self._extents[index]
            skip = data_offset + done - self._starts[index]
            length = min(len(buffer) - done, extent.length - skip)
            if length > 0:
                with self.file_wait:
                    source.read_into(extent.offset + skip, buffer[done : done + length])
                elapsed_ns += self.file_wait.elapsed_ns
                done += length
            index += 1
        return elapsed_ns

    def release(self, acked_offset: int) -> None:
        """Release the extents that lie below `acked_offset`: they have arrived."""
        self.acknowledged_bytes = acked_offset
        count = 0
        for start, (extent, source) in zip(self._starts, self._extents, strict=True):
            if start + extent.length > acked_offset:
                break
            source.release(extent)
            count += 1
        if count:
            del self._starts[:count]
            del self._extents[:count]

    def release_all(self) -> None:
        """Release every extent: the connection is over."""
        for extent, source in self._extents:
            source.release(extent)
        self._starts.clear()
        self._extents.clear()


class IncomingExtents:
    """Delivers data to the files that it belongs to, and stashes data that has no place yet.

    file_wait:   when a sink writes
    stash_bytes: the memory that the stash takes
    """

    def __init__(self, file_wait: FileWait | None = None) -> None:
        self._file_wait = file_wait or FileWait()
        self._starts: list[int] = []
        self._extents: list[Extent] = []
        self._end = 0  # of the announced part of the data stream
        self._stash: list[tuple[int, bytes]] = []  # a heap by data offset
        self.stash_bytes = 0

    def accept_limit(self, has_sink: bool) -> int:
        """Return the data offset from which on data must not be accepted, for lack of memory to keep it."""
        if self.stash_bytes < STASH_BYTES:
            return self._end + STASH_BYTES
        return self._end if has_sink else 0

    @property
    def has_stash(self) -> bool:
        """Whether data waits for an announcement or a sink."""
        return bool(self._stash)

    @property
    def has_room(self) -> bool:
        """Whether more announcements may be added."""
        return len(self._extents) < MAX_EXTENTS

    def announce(self, extents: list[Extent]) -> None:
        """Add extents that the sender has laid after the previous ones. An empty one has no data to wait for."""
        for extent in extents:
            if extent.length:
                self._starts.append(self._end)
                self._extents.append(extent)
                self._end += extent.length

    def stash(self, data_offset: int, data: memoryview) -> None:
        """Keep a copy of the data until `deliver_stash`."""
        heappush(self._stash, (data_offset, bytes(data)))
        self.stash_bytes += len(data) + _PIECE_OVERHEAD_BYTES

    def deliver_stash(self, sink: ExtentSink) -> bool:
        """Write to `sink` what has a place by now; return whether there was any. Raises what the sink raises."""
        has_delivered = False
        while self._stash and self._stash[0][0] < self._end:
            data_offset, data = heappop(self._stash)
            self.stash_bytes -= len(data) + _PIECE_OVERHEAD_BYTES
            has_delivered |= self.deliver(data_offset, memoryview(data), sink)
        return has_delivered

    def deliver(self, data_offset: int, data: memoryview, sink: ExtentSink) -> bool:
        """Write announced data to `sink` and stash the rest; return whether any was written.

        Raises what the sink raises.
        """
        announced = min(len(data), self._end - data_offset)
        if announced < len(data):
            self.stash(max(data_offset, self._end), data[max(announced, 0) :])
        done = 0
        index = bisect_right(self._starts, data_offset) - 1
        while done < announced:
            extent = self._extents[index]
            skip = data_offset + done - self._starts[index]
            length = min(announced - done, extent.length - skip)
            if length > 0:
                with self._file_wait:
                    sink.write(extent.file_id, extent.offset + skip, data[done : done + length])
                done += length
            index += 1
        return done > 0

    def forget(self, received_offset: int) -> None:
        """Drop the extents that lie below `received_offset`: their data has been received, and the stash has none."""
        if self._stash:
            received_offset = min(received_offset, self._stash[0][0])
        count = bisect_right(self._starts, received_offset) - 1
        if count > _FORGET_AT_LEAST:
            del self._starts[:count]
            del self._extents[:count]
