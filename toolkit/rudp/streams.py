"""The two byte spaces of a connection, as their sender and their receiver see them.

DATA carries extents and may land in any order; MESSAGE carries length-prefixed messages that are delivered in order.
Both number their bytes from 0 (RFC 9000 section 2.2 calls this an offset), so that a retransmission is a range of
positions under a new packet number, cut into packets afresh.
"""

import struct
from collections import deque
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ProtocolError
from toolkit.rudp.range_set import RangeSet

MESSAGE_WINDOW_BYTES: Final = 1 << 20
MAX_MESSAGE_HOLES: Final = 1 << 12
"""A window of whole packets leaves fewer; a peer that sends every other byte must not fill the memory."""
FIRST_DATA_WINDOW_BYTES: Final = 1 << 16
"""What either side takes before it has said how much; no receive window is smaller."""
_LENGTH: Final = struct.Struct(">I")


class DataSource(Protocol):
    """Where the engine gets the bytes of the data space from; asked again for what was lost."""

    def read_into(self, position: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` from `position` on."""


class SendSpace:
    """What there is to send, what of it is lost and what has arrived. All in bytes."""

    def __init__(self, window: int) -> None:
        self.end = 0  # what the application has handed over
        self.next_position = 0  # first byte never sent
        self.window = window  # first byte that the peer does not take yet
        self.acked = RangeSet()
        self.lost = RangeSet()
        self.retransmitted_bytes = 0
        self._is_abandoned = False

    def offer(self, length_bytes: int) -> int:
        """There are so many more bytes; returns the position of the first. ValueError once the source has failed."""
        if self._is_abandoned:
            raise ValueError("the source of this space has failed: nothing more is sent of it")
        self.end += length_bytes
        return self.end - length_bytes

    def abandon(self) -> None:
        """The source failed: nothing of this space is sent any more, and nothing of it is waited for."""
        self._is_abandoned = True
        self.end = self.next_position
        self.lost = RangeSet()

    @property
    def has_new(self) -> bool:
        """Something new may be sent now."""
        return self.next_position < min(self.end, self.window)

    @property
    def is_blocked(self) -> bool:
        """There is something new, and only the peer's window holds it back."""
        return self.window <= self.next_position < self.end

    @property
    def is_fully_acked(self) -> bool:
        """Everything handed over has arrived."""
        return self._is_abandoned or self.acked.contiguous_end() == self.end

    def on_lost(self, runs: list[tuple[int, int]]) -> None:
        """Queue for retransmission what has not arrived by another packet."""
        if self._is_abandoned:
            return
        for start, end in runs:
            cursor = start
            while cursor < end:
                cursor = self.acked.contiguous_end(cursor)
                if cursor >= end:
                    break
                stop = self.acked.next_start(cursor, end)
                self.lost.add(cursor, stop)
                cursor = stop

    def on_acked(self, runs: list[tuple[int, int]]) -> None:
        """Settle what has arrived; a loss that proves spurious is not sent again."""
        for start, end in runs:
            self.acked.add(start, end)
            if self.lost:
                self.lost.remove(start, end)

    def oldest_unsettled(self, limit_bytes: int) -> tuple[int, int] | None:
        """The first bytes that were sent and have not arrived, at most `limit_bytes`; None when all have."""
        start = self.acked.contiguous_end()
        if start >= self.next_position or self._is_abandoned:
            return None
        return start, self.acked.next_start(start, min(start + limit_bytes, self.next_position))

    def take(self, max_packets: int, payload_bytes: int) -> list[tuple[int, int]]:
        """What to send next, lost bytes first: runs whose lengths are multiples of `payload_bytes` but for the last."""
        runs = []
        room = max_packets
        while room and self.lost:
            start, end = self.lost.first
            stop = min(end, start + room * payload_bytes)
            self.lost.remove(start, stop)
            self.retransmitted_bytes += stop - start
            runs.append((start, stop))
            room -= -(-(stop - start) // payload_bytes)
            if (stop - start) % payload_bytes:
                return runs
        if room and self.has_new:
            start = self.next_position
            stop = min(self.end, self.window, start + room * payload_bytes)
            self.next_position = stop
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], stop)
            else:
                runs.append((start, stop))
        return runs


def segment_positions(runs: list[tuple[int, int]], payload_bytes: int) -> NDArray[np.int64]:
    """Where each packet's payload begins."""
    if len(runs) == 1:
        return np.arange(runs[0][0], runs[0][1], payload_bytes)
    return np.concatenate([np.arange(start, end, payload_bytes) for start, end in runs])


class MessageBuffer:
    """The messages that were handed over and are not acknowledged, as the source of the message space."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._base = 0

    def append(self, message: bytes) -> int:
        """Queue a message; returns the new end of the space."""
        self._bytes += _LENGTH.pack(len(message))
        self._bytes += message
        return self._base + len(self._bytes)

    def read_into(self, position: int, buffer: memoryview) -> None:
        start = position - self._base
        buffer[:] = self._bytes[start : start + len(buffer)]

    def release(self, position: int) -> None:
        """Nothing below `position` is asked for again."""
        if position > self._base:
            del self._bytes[: position - self._base]
            self._base = position


class MessageAssembler:
    """Received pieces of the message space, put in order and cut into messages."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._received = RangeSet()
        self._bytes = bytearray()
        self._base = 0  # position of the first byte of _bytes: all before it has become messages
        self._consumed = 0  # of that, what the application has taken
        self._announced = MESSAGE_WINDOW_BYTES
        self._ready: deque[tuple[bytes, int]] = deque()

    @property
    def window(self) -> int:
        """First position that is not taken yet."""
        return self._consumed + MESSAGE_WINDOW_BYTES

    def receive_untrusted(self, position: int, payload: memoryview) -> None:
        """Put a piece in. ProtocolError when it is beyond the window or spells an absurd length."""
        end = position + len(payload)
        if end > self.window:
            raise ProtocolError("a MESSAGE packet is beyond its window")
        if len(self._received) >= MAX_MESSAGE_HOLES and not self._received.touches(position, end):
            raise ProtocolError("MESSAGE packets leave more holes than a window has packets")
        for start, stop in self._received.add(position, end):
            short = stop - self._base - len(self._bytes)
            if short > 0:
                self._bytes.extend(bytes(short))
            self._bytes[start - self._base : stop - self._base] = payload[start - position : stop - position]
        whole = self._received.contiguous_end() - self._base
        cursor = 0
        while whole - cursor >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes, cursor)
            if length > self._max_message_bytes:
                self._drop(cursor)
                raise ProtocolError(f"a message of {length} bytes is longer than any may be")
            stop = cursor + _LENGTH.size + length
            if stop > whole:
                break
            self._ready.append((bytes(self._bytes[cursor + _LENGTH.size : stop]), self._base + stop))
            cursor = stop
        self._drop(cursor)

    def _drop(self, count: int) -> None:
        """The first `count` bytes have become messages."""
        del self._bytes[:count]
        self._base += count

    def poll(self) -> bytes | None:
        """The next message in order."""
        if not self._ready:
            return None
        message, self._consumed = self._ready.popleft()
        return message

    @property
    def wants_update(self) -> bool:
        """Half of the window that the peer knows of was used up: it should hear of more."""
        return self.window - self._announced > MESSAGE_WINDOW_BYTES // 2

    def announce(self) -> int:
        """The window, as it is told to the peer now."""
        self._announced = self.window
        return self._announced
