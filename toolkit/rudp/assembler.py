"""Receive side, part two: what has arrived of the two streams.

DATA may be delivered in any order, so only the first copy of each byte is passed on, at its offset. MESSAGE carries
length-prefixed messages, which are delivered in order.

DATA is handled a batch at a time. The headers of consecutive packets are checked as numpy columns, and their payload
is opened into one contiguous buffer, which costs no copy of its own. Nearly every batch is a run of consecutive
packets; it is recognised by one comparison of all headers with the expected ones. The comparison only selects what to
open; nothing is recorded of a packet that does not open.

Read: RFC 9000 sections 2.2 (offsets) and 4.1 (flow control).
"""

from collections import deque
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.ack_tracker import AckTracker
from toolkit.rudp.batch import MAX_BATCH_BYTES
from toolkit.rudp.flow_control import MessageWindow, ReceiveWindow
from toolkit.rudp.protection import PacketProtection
from toolkit.rudp.range_set import RangeSet
from toolkit.rudp.streams import MESSAGE_LENGTH

MAX_DATA_HOLES: Final = 1 << 16
MAX_MESSAGE_HOLES: Final = 1 << 12
"""Maximum number of ranges kept per stream, so that a peer that sends every other byte cannot exhaust memory. A window
of full packets leaves fewer."""

_MAX_PACKETS: Final = MAX_BATCH_BYTES // wire.MIN_DATAGRAM_BYTES
# For numpy, which gets no enum (see batch.py).
_DATA, _ACK_NOW, _KEY_PHASE = int(wire.PacketType.DATA), int(wire.Flags.ACK_NOW), int(wire.Flags.KEY_PHASE)


class DataAssembler:
    """The data stream of the peer. Call `begin_batch`, `receive_untrusted` until the batch ends, then `received`.

    accept_limit: stream offset from which on data is dropped as if it were lost, for lack of room in the application
    """

    def __init__(
        self, connection_id: int, window: ReceiveWindow, acks: AckTracker, protection: PacketProtection
    ) -> None:
        """`protection` opens the packets; those that are accepted are reported to `acks`."""
        self.accept_limit = wire.MAX_OFFSET
        self._connection_id = connection_id
        self._window = window
        self._acks = acks
        self._protection = protection
        self._ranges = RangeSet()
        self._expected = _ExpectedHeaders(connection_id)
        self._buffer = np.zeros(MAX_BATCH_BYTES, np.uint8)  # takes no memory before it is written to
        self._buffer_view = self._buffer.data
        self._buffer_end = 0
        self._pieces: list[tuple[int, int, int]] = []  # stream offset, start and end in the buffer

    @property
    def contiguous_end(self) -> int:
        """The stream offset below which everything has arrived."""
        return self._ranges.contiguous_end()

    @property
    def received_end(self) -> int:
        """The end of the highest byte that has arrived."""
        return self._ranges.last[1] if self._ranges else 0

    def advertise_limit(self) -> int:
        """The stream offset to advertise as the receive limit. It does not grow while there are too many holes."""
        return self._window.limit if len(self._ranges) >= MAX_DATA_HOLES else self._window.advertise(self.received_end)

    def begin_batch(self) -> None:
        """Reuse the buffer: what `received` returned before is no longer valid."""
        self._pieces.clear()
        self._buffer_end = 0

    def received(self) -> list[tuple[int, memoryview]]:
        """(stream offset, bytes) of the data that is new since `begin_batch`; valid until the next call of that."""
        return [(offset, self._buffer_view[start:end]) for offset, start, end in self._pieces]

    def receive_untrusted(self, data: memoryview, segment_bytes: int, now_ns: int) -> int:
        """Take DATA packets of `segment_bytes` each from the front of `data`; return how many were taken.

        The next one is of another kind, invalid or forged. Raises ProtocolError if the first packet is.
        """
        payload_bytes = segment_bytes - self._protection.stream_overhead_bytes
        if payload_bytes <= 0:
            raise ProtocolError("DATA packet without payload")
        count = len(data) // segment_bytes
        rows = np.frombuffer(data, np.uint8, count * segment_bytes).reshape(count, segment_bytes)
        _, flags, _, number, offset = wire.DATA.unpack_untrusted(data)
        limit = min(self._window.limit, self.accept_limit)
        if offset + count * payload_bytes <= limit and number + count <= wire.MAX_OFFSET:
            numbers = self._expected.match(rows, flags & _KEY_PHASE, number, offset, payload_bytes)
            if numbers is not None:
                opened = self._open_untrusted(rows, numbers)
                self._receive_run(number, offset, opened, self._buffer_end, segment_bytes, now_ns)
                return opened
        header = np.ndarray((count,), wire.DATA.dtype, rows, 0, (segment_bytes,))
        return self._receive_columns_untrusted(header, rows, limit, now_ns)

    def _receive_columns_untrusted(
        self, header: NDArray[np.void], rows: NDArray[np.uint8], limit: int, now_ns: int
    ) -> int:
        """The general case of `receive_untrusted`: packets in any order, some of them perhaps invalid."""
        count, segment_bytes = rows.shape
        payload_bytes = segment_bytes - self._protection.stream_overhead_bytes
        is_ours = (header["type"] == _DATA) & (header["connection_id"] == self._connection_id)
        if not is_ours.all():
            count = int(np.argmin(is_ours))
            if count == 0:
                raise ProtocolError("packet with an unknown connection id")
            header = header[:count]
        numbers = header["packet_number"].astype(np.int64)
        offsets = header["offset"].astype(np.int64)
        is_valid = (offsets >= 0) & (offsets <= limit - payload_bytes) & (numbers >= 0)
        flags = header["flags"]
        is_valid[1:] &= (flags[1:] ^ flags[0]) & _KEY_PHASE == 0  # packets of one key phase at a time
        if not is_valid.all():
            count = int(np.argmin(is_valid))
            if count == 0:
                too_large = "packet number out of range" if numbers[0] < 0 else "DATA packet beyond the receive window"
                raise ProtocolError(too_large)
        count = self._open_untrusted(rows[:count], numbers)
        numbers, offsets = numbers[:count], offsets[:count]
        is_cut = (np.diff(numbers) != 1) | (np.diff(offsets) != payload_bytes)
        cuts = [0, *(np.flatnonzero(is_cut) + 1).tolist(), count] if is_cut.any() else [0, count]
        accepted_before = self._acks.packets_accepted
        low = self._buffer_end
        for first, end in pairwise(cuts):
            number, offset, at = int(numbers[first]), int(offsets[first]), low + first * payload_bytes
            self._receive_run(number, offset, end - first, at, segment_bytes, now_ns)
        if self._acks.packets_accepted > accepted_before and (flags[:count] & _ACK_NOW).any():
            self._acks.on_ack_now(now_ns)
        return count

    def _open_untrusted(self, rows: NDArray[np.uint8], numbers: NDArray[np.int64]) -> int:
        """Open packets into the free part of the buffer; return how many. Raises ProtocolError if the first fails."""
        opened = self._protection.open_stream(rows, numbers, self._buffer, self._buffer_end)
        if opened == 0:
            raise ProtocolError("DATA packet that is forged or damaged")
        return opened

    def _receive_run(self, number: int, start: int, count: int, low: int, segment_bytes: int, now_ns: int) -> None:
        """Take opened packets with consecutive numbers and offsets, whose payload begins at `low` in the buffer.

        Only bytes that have not arrived before are passed on.
        """
        end = start + count * (segment_bytes - self._protection.stream_overhead_bytes)
        if len(self._ranges) >= MAX_DATA_HOLES and not self._ranges.touches(start, end):
            return  # not acknowledged, as if it were lost
        if not self._acks.on_packets(number, number + count, count * segment_bytes, now_ns):
            return
        for new_start, new_end in self._ranges.add(start, end):
            self._buffer_end = low + end - start
            self._add_piece(new_start, low + new_start - start, low + new_end - start)

    def _add_piece(self, offset: int, start: int, end: int) -> None:
        """Pass on [start, end) of the buffer, joined to the piece before if it continues that one in both."""
        if self._pieces:
            last_offset, last_start, last_end = self._pieces[-1]
            if last_end == start and last_offset + last_end - last_start == offset:
                self._pieces[-1] = (last_offset, last_start, end)
                return
        self._pieces.append((offset, start, end))


class _ExpectedHeaders:
    """The headers of consecutive DATA packets with the same flags, to compare a whole batch with."""

    def __init__(self, connection_id: int) -> None:
        self._flags = 0
        self._header = np.zeros(_MAX_PACKETS, wire.DATA.dtype)
        self._header["type"] = wire.PacketType.DATA
        self._header["connection_id"] = connection_id

    def match(
        self, rows: NDArray[np.uint8], flags: int, number: int, offset: int, payload_bytes: int
    ) -> NDArray[np.int64] | None:
        """The packet numbers of `rows` if they are consecutive, starting with this packet number and stream offset.

        None if they are not.
        """
        count = len(rows)
        if count > _MAX_PACKETS:
            return None
        if flags != self._flags:
            self._flags = flags
            self._header["flags"] = flags
        header = self._header[:count]
        numbers = np.arange(number, number + count)
        header["packet_number"] = numbers
        header["offset"] = np.arange(offset, offset + count * payload_bytes, payload_bytes)
        return numbers if rows[:, : wire.HEADER_BYTES].tobytes() == header.tobytes() else None


class MessageAssembler:
    """The message stream of the peer: pieces in, whole messages out in order."""

    def __init__(self, max_message_bytes: int) -> None:
        self.window = MessageWindow()
        self._max_message_bytes = max_message_bytes
        self._ranges = RangeSet()
        self._bytes = bytearray()
        self._base = 0  # stream offset of the first byte of _bytes; all before it has become messages
        self._ready: deque[tuple[bytes, int]] = deque()  # message, stream offset of its end

    def receive_untrusted(self, offset: int, payload: memoryview) -> None:
        """Take one piece. Raises ProtocolError if it is beyond the window or makes a message too long."""
        end = offset + len(payload)
        if end > self.window.limit:
            raise ProtocolError("MESSAGE packet beyond the receive window")
        if len(self._ranges) >= MAX_MESSAGE_HOLES and not self._ranges.touches(offset, end):
            raise ProtocolError("too many gaps between MESSAGE packets")
        for new_start, new_end in self._ranges.add(offset, end):
            missing = new_end - self._base - len(self._bytes)
            if missing > 0:
                self._bytes.extend(bytes(missing))
            self._bytes[new_start - self._base : new_end - self._base] = payload[new_start - offset : new_end - offset]
        self._split_untrusted()

    def poll(self) -> bytes | None:
        """The next message in order; None until it is complete."""
        if not self._ready:
            return None
        message, end = self._ready.popleft()
        self.window.on_consumed(end)
        return message

    def _split_untrusted(self) -> None:
        """Move complete messages from the bytes to the queue."""
        available = self._ranges.contiguous_end() - self._base
        start = 0
        while available - start >= MESSAGE_LENGTH.size:
            (length,) = MESSAGE_LENGTH.unpack_from(self._bytes, start)
            if length > self._max_message_bytes:
                self._remove(start)
                raise ProtocolError(f"message of {length} bytes is too long")
            end = start + MESSAGE_LENGTH.size + length
            if end > available:
                break
            self._ready.append((bytes(self._bytes[start + MESSAGE_LENGTH.size : end]), self._base + end))
            start = end
        self._remove(start)

    def _remove(self, count: int) -> None:
        del self._bytes[:count]
        self._base += count
