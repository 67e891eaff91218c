"""The receiving half of a connection: what has arrived, where it lands, and when to acknowledge it.

Acknowledgements are SACK ranges of packet numbers (RFC 9000 section 19.3) with the delay, the windows and the drop
counters. How often is the sender's choice (PING; after draft-ietf-quic-ack-frequency): every so many bytes, at most
so late, and at once when a packet is missing that was not missing before, or when the sender asks for it. The sender
also tells below which number all is settled, so that a range is repeated until it no longer matters and no longer.

DATA is handled a batch at a time: the headers of a run of packets are checked as columns, the payload is gathered
once into one contiguous piece, and only the first copy of each byte is passed on.
"""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.batch import MAX_BATCH_BYTES
from toolkit.rudp.flow_control import ReceiveWindow
from toolkit.rudp.range_set import RangeSet
from toolkit.rudp.streams import MessageAssembler

MAX_HOLES: Final = 1 << 16
"""Ranges kept per set: a peer that sends every other byte must not fill the memory."""

FIRST_ACK_EVERY_BYTES: Final = 4 * wire.MIN_DATAGRAM_BYTES
FIRST_MAX_ACK_DELAY_NS: Final = 1_000_000
"""Until the sender has said how it wants to be acknowledged."""

_FULL_REPORT_PACKETS: Final = 3
"""Datagrams of ranges per acknowledgement at the most; what does not fit is older and was told before."""

_MOST_PACKETS: Final = MAX_BATCH_BYTES // wire.MIN_DATAGRAM_BYTES


class _ExpectedHeaders:
    """The headers of DATA packets in a row: what a batch nearly always has, and is compared with as a whole."""

    def __init__(self) -> None:
        self._header = np.zeros(_MOST_PACKETS, wire.DATA.dtype)
        self._header["type"] = wire.PacketType.DATA

    def is_next(self, rows: NDArray[np.uint8], connection_id: int, number: int, position: int) -> bool:
        """Whether every row begins with the header that follows the one of the row before, and no flag is set."""
        count, segment_bytes = rows.shape
        if count > _MOST_PACKETS:
            return False
        step = segment_bytes - wire.HEADER_BYTES
        header = self._header[:count]
        header["connection_id"] = connection_id
        header["packet_number"] = np.arange(number, number + count)
        header["position"] = np.arange(position, position + count * step, step)
        return rows[:, : wire.HEADER_BYTES].tobytes() == header.tobytes()


class Receiver:
    """Feed `receive_data_untrusted` and its like; take `landed`, `ack_time_ns` and `make_ack`."""

    def __init__(self, window_bytes: int, max_message_bytes: int) -> None:
        self.messages = MessageAssembler(max_message_bytes)
        self.window = ReceiveWindow(window_bytes)
        self.ack_every_bytes = FIRST_ACK_EVERY_BYTES
        self.max_ack_delay_ns = FIRST_MAX_ACK_DELAY_NS
        self.accept_limit = wire.MAX_OFFSET
        self.drop_count = 0
        self.duplicate_packets = 0
        self.received_packets = 0
        self.received_bytes = 0
        self._packets = RangeSet()
        self._data = RangeSet()
        self._floor = 0  # packet numbers below are settled
        self._largest = -1
        self._largest_time_ns = 0
        self._unacked_bytes = 0
        self.ack_time_ns: int | None = None  # when the next acknowledgement is due
        self._ack_is_urgent = False
        self._ect_count = 0
        self._ce_count = 0
        self._landing = np.zeros(MAX_BATCH_BYTES, np.uint8)  # no memory is taken before it is written to
        self._landing_view = self._landing.data
        self._landing_end = 0
        self._expected = _ExpectedHeaders()
        self._pieces: list[tuple[int, int, int]] = []  # position, and where in the landing buffer

    @property
    def data_window(self) -> int:
        """First position that is not taken yet; it never goes back."""
        return self.window.limit if len(self._data) >= MAX_HOLES else self.window.advertise(self._data_end)

    @property
    def contiguous_end(self) -> int:
        """Everything of the data space below has arrived."""
        return self._data.contiguous_end()

    @property
    def _data_end(self) -> int:
        return self._data.last[1] if self._data else 0

    def adapt_window(self, dropped_datagrams: int, is_drained: bool) -> None:
        """Fit the receive window to what the socket keeps up with."""
        self.drop_count = dropped_datagrams
        self.window.adapt(self.received_bytes, self._data_end, dropped_datagrams, is_drained)

    @property
    def bytes_until_ack(self) -> int:
        """How much may still arrive in sequence before an acknowledgement is due; 0 while none is scheduled."""
        return 0 if self.ack_time_ns is None else max(0, self.ack_every_bytes - self._unacked_bytes)

    def begin_batch(self) -> None:
        """What was landed before is gone: its room is used again."""
        self._pieces.clear()
        self._landing_end = 0

    def received_data(self) -> list[tuple[int, memoryview]]:
        """(position, bytes) of what is new since `begin_batch`; valid until it is called again."""
        return [(position, self._landing_view[low:high]) for position, low, high in self._pieces]

    def receive_data_untrusted(self, data: memoryview, segment_bytes: int, connection_id: int, now_ns: int) -> int:
        """DATA packets of `segment_bytes` each; returns how many from the front it took, the rest is of another kind.

        Raises ProtocolError where even the first is none that a correct peer sends.
        """
        payload_bytes = segment_bytes - wire.HEADER_BYTES
        if payload_bytes <= 0:
            raise ProtocolError("a DATA packet has no payload")
        count = len(data) // segment_bytes
        rows = np.frombuffer(data, np.uint8, count * segment_bytes).reshape(count, segment_bytes)
        payload = rows[:, wire.HEADER_BYTES :]
        *_, number, position = wire.DATA.unpack_untrusted(data)
        end = position + count * payload_bytes
        limit = min(self.window.limit, self.accept_limit)
        if (
            end <= limit
            and number + count <= wire.MAX_OFFSET
            and self._expected.is_next(rows, connection_id, number, position)
        ):
            self._take_run(number, position, payload, segment_bytes, now_ns)
            return count
        header = np.ndarray((count,), wire.DATA.dtype, rows, 0, (segment_bytes,))
        is_ours = (header["type"] == wire.PacketType.DATA) & (header["connection_id"] == connection_id)
        if not is_ours.all():
            count = int(np.argmin(is_ours))
            if count == 0:
                raise ProtocolError("a packet carries a connection id that is not this one's")
            header = header[:count]
        numbers = header["packet_number"].astype(np.int64)
        positions = header["position"].astype(np.int64)
        is_sound = (positions >= 0) & (positions <= limit - payload_bytes) & (numbers >= 0)
        if not is_sound.all():
            count = int(np.argmin(is_sound))
            if count == 0:
                what = "a packet number makes no sense" if numbers[0] < 0 else "a DATA packet is beyond its window"
                raise ProtocolError(what)
            header, numbers, positions = header[:count], numbers[:count], positions[:count]
        if (header["flags"] & wire.Flags.ACK_NOW).any():
            self._ack_is_urgent = True
        steps = (np.diff(numbers) != 1) | (np.diff(positions) != payload_bytes)
        cuts = [0, *(np.flatnonzero(steps) + 1).tolist(), count] if steps.any() else [0, count]
        for first, last in pairwise(cuts):
            self._take_run(int(numbers[first]), int(positions[first]), payload[first:last], segment_bytes, now_ns)
        return count

    def _take_run(self, number: int, start: int, payload: NDArray[np.uint8], segment_bytes: int, now_ns: int) -> None:
        """Packets in a row, of which each brings the bytes behind those of the one before: a row of `payload` each."""
        length, payload_bytes = payload.shape
        end = start + length * payload_bytes
        if len(self._data) >= MAX_HOLES and not self._data.touches(start, end):
            return  # as if it were lost
        self._note_packets(number, number + length, length * segment_bytes, now_ns)
        new = self._data.add(start, end)
        if new:
            low = self._landing_end
            self._landing[low : low + end - start].reshape(length, payload_bytes)[:] = payload
            self._landing_end = low + end - start
            for new_start, new_end in new:
                self._land(new_start, low + new_start - start, low + new_end - start)

    def _land(self, position: int, low: int, high: int) -> None:
        """Pass on bytes of the landing buffer, joined to the piece before where they follow it in both places."""
        if self._pieces:
            before, first, last = self._pieces[-1]
            if last == low and before + last - first == position:
                self._pieces[-1] = (before, first, high)
                return
        self._pieces.append((position, low, high))

    def note_packet(self, packet_number: int, flags: int, size_bytes: int, now_ns: int) -> None:
        """A packet that wants an acknowledgement."""
        if flags & wire.Flags.ACK_NOW:
            self._ack_is_urgent = True
        self._note_packets(packet_number, packet_number + 1, size_bytes, now_ns)

    def note_silent_packet(self, packet_number: int) -> None:
        """A packet that wants none; its number is known, so that no gap is seen where it was."""
        self._remember(packet_number, packet_number + 1)
        self._largest = max(self._largest, packet_number)

    def _remember(self, start: int, end: int) -> list[tuple[int, int]]:
        """Packet numbers that have arrived; returns the new ones. Where there are too many holes, the oldest go."""
        new = self._packets.add(start, end)
        if len(self._packets) > MAX_HOLES:
            self._packets.remove(0, self._packets.newest_first(0, MAX_HOLES // 2)[-1][0])
        return new

    def note_ecn(self, ecn: int, count: int, now_ns: int) -> None:
        """The IP ECN field of `count` packets that were noted (RFC 3168 section 5); marks are told without delay."""
        if ecn == 0b11:
            self._ce_count += count
            if self.ack_time_ns is not None:
                self.ack_time_ns = now_ns
        elif ecn:
            self._ect_count += count

    def _note_packets(self, start: int, end: int, size_bytes: int, now_ns: int) -> None:
        count = end - start
        self.received_packets += count
        self.received_bytes += size_bytes
        new = self._remember(start, end)
        if not new or new[0] != (start, end):
            self.duplicate_packets += count - sum(stop - begin for begin, stop in new)
        if start > self._largest + 1 or end <= self._largest:
            self._ack_is_urgent = True  # a hole that is new, or one that is filled late
        if end > self._largest + 1:
            self._largest = end - 1
            self._largest_time_ns = now_ns
        self._unacked_bytes += size_bytes
        if self._ack_is_urgent or self._unacked_bytes >= self.ack_every_bytes:
            self.ack_time_ns = now_ns
        elif self.ack_time_ns is None:
            self.ack_time_ns = now_ns + self.max_ack_delay_ns

    def on_frequency(self, least_unacked: int, ack_every_bytes: int, max_ack_delay_ns: int) -> None:
        """What the sender's PING says."""
        self._floor = max(self._floor, least_unacked)
        self._packets.remove(0, min(self._floor, self._largest))
        self.ack_every_bytes = ack_every_bytes
        self.max_ack_delay_ns = max_ack_delay_ns

    def request_ack(self, now_ns: int) -> None:
        """Something other than a packet calls for one: a window that has opened."""
        if self._largest >= 0:
            self.ack_time_ns = now_ns

    def make_acks(self, now_ns: int, datagram_bytes: int) -> list[wire.AckPacket]:
        """The acknowledgement that is due, in as many datagrams as its ranges need, newest first.

        When the largest packet of the later ones arrived is not remembered: they tell no delay.
        """
        per_packet = wire.max_ack_ranges(datagram_bytes)
        limit = per_packet if self._ack_is_urgent else per_packet * _FULL_REPORT_PACKETS
        ranges = self._packets.newest_first(self._floor, limit)
        self.ack_time_ns = None
        self._ack_is_urgent = False
        self._unacked_bytes = 0
        window, message_window = self.data_window, self.messages.announce()
        delay_us = max(0, now_ns - self._largest_time_ns) // 1000
        return [
            wire.AckPacket(
                ranges[i : i + per_packet],
                wire.UNKNOWN_DELAY_US if i else delay_us,
                window,
                message_window,
                self._ect_count,
                self._ce_count,
                self.drop_count,
            )
            for i in range(0, len(ranges), per_packet)
        ]
