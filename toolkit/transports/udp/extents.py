"""Files laid into the data space of a reliable-UDP connection, and found again at the other end.

The engine moves one space of bytes. The sending channel lays each extent behind the one before and says so by an
announcement, a message of its own: (file id, offset, length). The receiving channel lays them out in the same way, so
that both know which file a position belongs to. Announcements are sent ahead of the content; where one is late (lost),
content that comes before it waits in a small stash.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Final

from toolkit.channel import Extent, ExtentSink, ExtentSource
from toolkit.errors import ProtocolError
from toolkit.rudp.wire import MAX_OFFSET

_ANNOUNCEMENT: Final = struct.Struct(">QQQ")
STASH_BYTES: Final = 16 << 20
"""What may wait for an announcement or for a sink."""
_PIECE_BYTES: Final = 128
"""What each piece of the stash takes beside its content."""
MAX_EXTENTS: Final = 1 << 18
"""So many may be announced and not have landed before no more announcements are taken."""


def encode_announcements(extents: Iterable[Extent]) -> bytes:
    """Extents in the order in which they lie in the data space."""
    return b"".join(_ANNOUNCEMENT.pack(*extent) for extent in extents)


def decode_announcements_untrusted(data: bytes) -> list[Extent]:
    """Raises ProtocolError for anything else."""
    if len(data) % _ANNOUNCEMENT.size:
        raise ProtocolError("an announcement of content is not whole")
    extents = [Extent(*fields) for fields in _ANNOUNCEMENT.iter_unpack(data)]
    if any(max(extent) >= MAX_OFFSET or extent.offset + extent.length > MAX_OFFSET for extent in extents):
        raise ProtocolError("an announcement of content makes no sense")
    return extents


class OutgoingExtents:
    """The engine's data source: positions back to files. Extents leave it once they have arrived."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._extents: list[tuple[Extent, ExtentSource]] = []

    def add(self, position: int, extent: Extent, source: ExtentSource) -> None:
        """`extent` begins at `position`, the end of what was added before."""
        self._starts.append(position)
        self._extents.append((extent, source))

    def read_into(self, position: int, buffer: memoryview) -> None:
        """See `toolkit.rudp.streams.DataSource`."""
        index = bisect_right(self._starts, position) - 1
        done = 0
        while done < len(buffer):
            extent, source = self._extents[index]
            skip = position + done - self._starts[index]
            piece = min(len(buffer) - done, extent.length - skip)
            if piece > 0:
                source.read_into(extent.offset + skip, buffer[done : done + piece])
                done += piece
            index += 1

    def release(self, acked_offset: int) -> None:
        """Everything below has arrived."""
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
        """The connection is over: nothing is read any more."""
        for extent, source in self._extents:
            source.release(extent)
        self._starts.clear()
        self._extents.clear()


class IncomingExtents:
    """Positions forward to files, and the stash of what cannot be placed yet."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._extents: list[Extent] = []
        self._end = 0
        self._stash: list[tuple[int, bytes]] = []  # a heap: what can be placed first is at its head
        self.stash_bytes = 0

    def accept_limit(self, has_sink: bool) -> int:
        """Content from this position on is not taken: there would be no place for it."""
        is_full = self.stash_bytes >= STASH_BYTES
        if is_full:
            return self._end if has_sink else 0
        return self._end + STASH_BYTES

    @property
    def has_stash(self) -> bool:
        """Something waits for an announcement or a sink."""
        return bool(self._stash)

    @property
    def has_room(self) -> bool:
        """More announcements may be taken."""
        return len(self._extents) < MAX_EXTENTS

    def announce(self, extents: list[Extent]) -> None:
        """The sender has laid these behind the ones before."""
        for extent in extents:
            self._starts.append(self._end)
            self._extents.append(extent)
            self._end += extent.length

    def stash(self, position: int, data: memoryview) -> None:
        """Keep a copy until `land_stash`."""
        heappush(self._stash, (position, bytes(data)))
        self.stash_bytes += len(data) + _PIECE_BYTES

    def land_stash(self, sink: ExtentSink) -> bool:
        """Land what can be placed by now; returns whether there was any."""
        landed = False
        while self._stash and self._stash[0][0] < self._end:
            position, data = heappop(self._stash)
            self.stash_bytes -= len(data) + _PIECE_BYTES
            landed |= self.land(position, memoryview(data), sink)
        return landed

    def land(self, position: int, data: memoryview, sink: ExtentSink) -> bool:
        """Pass bytes on to where they belong; what was not announced is stashed. Returns whether any was passed on."""
        placed = min(len(data), self._end - position)
        if placed < len(data):
            self.stash(max(position, self._end), data[max(placed, 0) :])
        done = 0
        index = bisect_right(self._starts, position) - 1
        while done < placed:
            extent = self._extents[index]
            skip = position + done - self._starts[index]
            piece = min(placed - done, extent.length - skip)
            if piece > 0:
                sink.write(extent.file_id, extent.offset + skip, data[done : done + piece])
                done += piece
            index += 1
        return done > 0

    def forget(self, received_offset: int) -> None:
        """Everything below has landed, or waits in the stash."""
        if self._stash:
            return
        keep = bisect_right(self._starts, received_offset) - 1
        if keep > 1024:
            del self._starts[:keep]
            del self._extents[:keep]
