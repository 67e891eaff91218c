"""The packets that were sent: one numpy column per property, indexed by packet number.

Packet numbers are never reused (RFC 9000 section 12.3), so the columns grow only at their end. Old packets are
dropped from the front when room is made. Processing an acknowledgement takes a handful of vector operations over the
packets that it names for the first time, however many ranges it repeats. Loss detection takes another handful over
the packets that are left.

A packet is IN_FLIGHT until it is acknowledged (ACKED) or declared LOST. LOST packets are kept for a while, so that a
late acknowledgement shows that the loss was spurious.

Read: RFC 9002 sections 6.1 (loss detection) and 7.6 (persistent congestion).
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.skipped_numbers import SkippedNumbers

ACKED: Final = 0
"""Acknowledged, or no longer of interest."""
IN_FLIGHT: Final = 1
LOST: Final = 2
SPURIOUS_LOSS_HISTORY: Final = 4096
"""How many packets below the oldest in flight are kept at least, for the detection of spurious losses. It is as many as
were ever in flight at once, if that is more: a late packet is as old as a round trip."""
_HISTORY_SHARE: Final = 4
"""Part of the columns for this history. They grow when they are half full, so this is more than was in flight."""

_NEVER: Final = 1 << 63
_INITIAL_CAPACITY: Final = 1 << 10
"""Small, because a small file has to wait for the columns."""
_DATA, _MESSAGE, _PROBE = int(wire.PacketType.DATA), int(wire.PacketType.MESSAGE), int(wire.PacketType.PROBE)
"""Plain integers: numpy takes three times as long to compare a column with a member of an enumeration."""
_NON_ELICITING: Final = 0
"""Stands in the type column for a packet that no acknowledgement is expected for."""


class SendState(NamedTuple):
    """The state of the connection when a batch was sent (draft-ietf-ccwg-bbr section 4.1.2, delivery-rate samples)."""

    sent_time_ns: int
    delivered_bytes: int
    delivered_time_ns: int
    first_sent_time_ns: int
    lost_bytes: int
    in_flight_bytes: int
    is_app_limited: bool
    is_late: bool = False


class PacketGroup(NamedTuple):
    """Packets that were acknowledged together, or declared lost together. Sizes and counts are of datagrams.

    packets, bytes:  number and total size
    largest_bytes:   size of the largest
    span_ns:         time between sending the first and the last
    spurious:        packet numbers that had been declared lost before, in increasing order
    spurious_bytes:  their size; they were no longer in flight
    newest:          highest packet number
    newest_state:    state of the connection when that packet was sent
    data, messages:  stream ranges [start, end) that they carried, in order of packet number
    probes:          sizes of path MTU probes
    indices, base:   packet numbers, as indices that count from `base`
    """

    packets: int
    bytes: int
    largest_bytes: int
    span_ns: int
    spurious: NDArray[np.int64]
    spurious_bytes: int
    newest: int
    newest_state: SendState
    data: list[tuple[int, int]]
    messages: list[tuple[int, int]]
    probes: list[int]
    indices: NDArray[np.int64]
    base: int

    @property
    def packet_numbers(self) -> NDArray[np.int64]:
        """In increasing order."""
        return self.indices + self.base


class SentPackets:
    """Every packet number from `base` to `next_packet_number`.

    base:          lowest packet number that is kept
    least_unacked: packet number below which nothing is in flight
    """

    def __init__(self, stream_overhead_bytes: int, skip_seed: int | None = None) -> None:
        """`stream_overhead_bytes` is the size of a DATA or MESSAGE packet without its payload.

        `skip_seed` is the seed of the packet numbers that are skipped; None for none.
        """
        self._overhead_bytes = stream_overhead_bytes
        self.next_packet_number = 0
        self.least_unacked = 0
        self.base = 0
        self._oldest_lost = _NEVER  # no packet below it is LOST
        self._state = np.zeros(_INITIAL_CAPACITY, np.uint8)
        self._kind = np.zeros(_INITIAL_CAPACITY, np.uint8)
        self._size = np.zeros(_INITIAL_CAPACITY, np.int32)
        self._offset = np.zeros(_INITIAL_CAPACITY, np.int64)
        self._time_ns = np.zeros(_INITIAL_CAPACITY, np.int64)
        self._batch = np.zeros(_INITIAL_CAPACITY, np.int64)
        self._send_states: list[SendState] = []  # one per batch
        self._last_ranges: list[tuple[int, int]] = []  # of the last acknowledgement
        self._first_batch = 0
        self._skipped = None if skip_seed is None else SkippedNumbers(skip_seed)

    def _make_room(self, count: int) -> int:
        """Return the index of the next packet number, with room for `count` packets from there on."""
        index = self.next_packet_number - self.base
        if index + count <= len(self._state):
            return index
        history = max(len(self._state) // _HISTORY_SHARE, SPURIOUS_LOSS_HISTORY)
        floor = max(self.base, self.least_unacked - history)
        drop = floor - self.base
        live = index - drop
        capacity = len(self._state)
        while live + count > capacity // 2:
            capacity *= 2
        for name in ("_state", "_kind", "_size", "_offset", "_time_ns", "_batch"):
            old = getattr(self, name)
            new = old if capacity == len(old) else np.zeros(capacity, old.dtype)
            new[:live] = old[drop:index].copy()
            setattr(self, name, new)
        self.base = floor
        if self._oldest_lost < floor:
            still_lost = np.flatnonzero(self._state[:live] == LOST)
            self._oldest_lost = int(still_lost[0]) + floor if len(still_lost) else _NEVER
        if live:
            oldest_batch = int(self._batch[0])
            del self._send_states[: oldest_batch - self._first_batch]
            self._first_batch = oldest_batch
        return live

    def number_non_eliciting(self) -> int:
        """Return the packet number for a packet that elicits no acknowledgement (ACK, PATH_CHALLENGE, CLOSE)."""
        index = self._make_room(1)
        self._state[index] = ACKED
        self._kind[index] = _NON_ELICITING
        self._batch[index] = self._first_batch + max(0, len(self._send_states) - 1)
        number = self.next_packet_number
        self.next_packet_number += 1
        if self.least_unacked == number:
            self.least_unacked += 1
        return number

    def record(
        self,
        kind: wire.PacketType,
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int32] | int,
        state: SendState,
    ) -> NDArray[np.int64]:
        """Record packets that are sent together; return their packet numbers. Sizes are of datagrams, in bytes."""
        if self._skipped is not None and self.next_packet_number >= self._skipped.next_number:
            self._skipped.skip(self.number_non_eliciting())
        count = len(offsets)
        low = self._make_room(count)
        high = low + count
        self._state[low:high] = IN_FLIGHT
        self._kind[low:high] = int(kind)  # see batch.py: numpy gets no enum
        self._size[low:high] = sizes
        self._offset[low:high] = offsets
        self._time_ns[low:high] = state.sent_time_ns
        self._batch[low:high] = self._first_batch + len(self._send_states)
        self._send_states.append(state)
        first = self.next_packet_number
        self.next_packet_number += count
        return np.arange(first, first + count)

    @property
    def oldest_sent_time_ns(self) -> int | None:
        """When the oldest packet in flight was sent; None if nothing is in flight."""
        if self.least_unacked == self.next_packet_number:
            return None
        return int(self._time_ns[self.least_unacked - self.base])

    def kinds(self, packet_numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Their packet types. The packets must be recent enough to be kept."""
        return self._kind[packet_numbers - self.base]

    def count_together(self, group: PacketGroup) -> int:
        """How many packets of a group were sent in the same call as the one before them in the group."""
        batches = self._batch[group.indices]
        return int(np.count_nonzero(batches[1:] == batches[:-1]))

    def acknowledge_untrusted(self, ranges: list[tuple[int, int]]) -> PacketGroup | None:
        """Mark the packets of `ranges` (newest first) as acknowledged; None if that acknowledges nothing new.

        Raises ProtocolError for a packet number that was never sent, SkippedPacketError if it was skipped.
        """
        if ranges[0][1] > self.next_packet_number:
            raise ProtocolError("ACK of a packet that was never sent")
        last_ranges, self._last_ranges = self._last_ranges, ranges
        ranges = _without_repeated(ranges, last_ranges)
        if not ranges:
            return None
        if self._skipped is not None:
            self._skipped.check_untrusted(ranges)
        base = self.base
        low, high = max(ranges[-1][0], base, min(self.least_unacked, self._oldest_lost)), ranges[0][1]
        if low >= high:
            return None
        state = self._state[low - base : high - base]
        if len(ranges) == 1:
            indices = np.flatnonzero(state)
        else:
            edges = np.zeros(high - low + 1, np.int8)
            bounds = np.array(ranges, np.int64)
            bounds = bounds[bounds[:, 1] > low]
            np.maximum(bounds, low, out=bounds)
            bounds -= low
            edges[bounds[:, 0]] += 1
            edges[bounds[:, 1]] -= 1
            covered = np.cumsum(edges[:-1], dtype=np.int8)
            indices = np.flatnonzero(covered & (state != ACKED))
        if not len(indices):
            return None
        indices += low - base
        return self._mark(indices, ACKED)

    def detect_lost(
        self, largest_acked: int, now_ns: int, loss_delay_ns: int, packet_threshold: int
    ) -> tuple[PacketGroup | None, int | None]:
        """Declare packets lost by RFC 9002 section 6.1. Also return when to call again, None for never.

        A packet in flight is lost once a packet is acknowledged that was sent `packet_threshold` or more packets later,
        or once it was sent at least `loss_delay_ns` ago and any later packet is acknowledged.
        """
        base, low = self.base, self.least_unacked
        if low > largest_acked:
            return None, None
        indices = np.flatnonzero(self._state[low - base : largest_acked + 1 - base] == IN_FLIGHT) + (low - base)
        if not len(indices):
            return None, None
        times = self._time_ns[indices]
        is_lost = (times <= now_ns - loss_delay_ns) | (indices <= largest_acked - base - packet_threshold)
        pending = times[~is_lost]
        loss_time_ns = int(pending[0]) + loss_delay_ns if len(pending) else None
        lost = indices[is_lost]
        return (self._mark(lost, LOST) if len(lost) else None), loss_time_ns

    def abandon(self) -> PacketGroup | None:
        """Give up everything in flight and forget losses: acknowledgements of these packets no longer count."""
        end = self.next_packet_number - self.base
        low = self.least_unacked - self.base
        indices = np.flatnonzero(self._state[low:end] == IN_FLIGHT) + low
        abandoned = self._mark(indices, ACKED) if len(indices) else None
        self._state[:end] = ACKED
        self._kind[:end] = _NON_ELICITING
        self._oldest_lost = _NEVER
        return abandoned

    def take_back(self, count: int) -> PacketGroup | None:
        """Forget that the last `count` packets were sent: they never left, and no acknowledgement of them counts.

        They are all of the last batch, or its end.
        """
        end = self.next_packet_number - self.base
        indices = np.flatnonzero(self._state[end - count : end] == IN_FLIGHT) + (end - count)
        taken = self._mark(indices, ACKED) if len(indices) else None
        self._kind[end - count : end] = _NON_ELICITING
        if taken is not None:
            state = self._send_states[-1]
            self._send_states[-1] = state._replace(in_flight_bytes=state.in_flight_bytes - taken.bytes)
        return taken

    def outage_ns(self, lost: PacketGroup) -> int:
        """The longest time between sending two of the `lost` packets with no acknowledged packet between them.

        Probes of the path MTU do not count (RFC 9002 section 7.6.2, RFC 8899 section 3).
        """
        indices = lost.indices[self._kind[lost.indices] != _PROBE]
        low, high = indices[0], indices[-1] + 1
        was_acked = (self._state[low:high] == ACKED) & (self._kind[low:high] != _NON_ELICITING)
        outage = np.cumsum(was_acked)[indices - low]  # which run of losses each packet belongs to
        cuts = np.flatnonzero(np.diff(outage)) + 1
        firsts = np.concatenate((indices[:1], indices[cuts]))
        lasts = np.concatenate((indices[cuts - 1], indices[-1:]))
        return int((self._time_ns[lasts] - self._time_ns[firsts]).max())

    def _mark(self, indices: NDArray[np.int64], state: int) -> PacketGroup:
        """Give packets a new state, ACKED or LOST."""
        first, newest = int(indices[0]), int(indices[-1])
        if first == newest:
            return self._mark_one(indices, first, state)
        # Consecutive packets, the common case, are read in place and not gathered.
        selected = slice(first, newest + 1) if newest - first + 1 == len(indices) else indices
        sizes, kinds, offsets = self._size[selected], self._kind[selected], self._offset[selected]
        spurious = indices[:0]
        if state == LOST:
            self._oldest_lost = min(self._oldest_lost, first + self.base)
        elif self._oldest_lost <= newest + self.base:
            spurious = np.flatnonzero(self._state[selected] == LOST)
        self._state[selected] = state
        is_data = kinds == _DATA
        messages: list[tuple[int, int]] = []
        probes: list[int] = []
        if is_data.all():
            data = _runs(offsets, sizes - self._overhead_bytes)
        else:
            data = _runs(offsets[is_data], sizes[is_data] - self._overhead_bytes)
            is_message = kinds == _MESSAGE
            messages = _runs(offsets[is_message], sizes[is_message] - self._overhead_bytes)
            probes = sizes[kinds == _PROBE].tolist()
        if first + self.base <= self.least_unacked <= newest + self.base:
            self._advance_least_unacked()
        return PacketGroup(
            packets=len(indices),
            bytes=int(sizes.sum()),
            largest_bytes=int(sizes.max()),
            span_ns=int(self._time_ns[newest] - self._time_ns[first]),
            spurious=indices[spurious] + self.base,
            spurious_bytes=int(sizes[spurious].sum()),
            newest=newest + self.base,
            newest_state=self._send_states[int(self._batch[newest]) - self._first_batch],
            data=data,
            messages=messages,
            probes=probes,
            indices=indices,
            base=self.base,
        )

    def _mark_one(self, indices: NDArray[np.int64], index: int, state: int) -> PacketGroup:
        """The same as `_mark` for a single packet, as each message is: vectors of one take five times as long."""
        size, offset = int(self._size[index]), int(self._offset[index])
        kind, number = self._kind[index], index + self.base
        is_spurious = state != LOST and self._state[index] == LOST
        if state == LOST:
            self._oldest_lost = min(self._oldest_lost, number)
        self._state[index] = state
        if number == self.least_unacked:
            self._advance_least_unacked()
        run = [(offset, offset + size - self._overhead_bytes)]
        return PacketGroup(
            packets=1,
            bytes=size,
            largest_bytes=size,
            span_ns=0,
            spurious=indices + self.base if is_spurious else indices[:0],
            spurious_bytes=size if is_spurious else 0,
            newest=number,
            newest_state=self._send_states[int(self._batch[index]) - self._first_batch],
            data=run if kind == _DATA else [],
            messages=run if kind == _MESSAGE else [],
            probes=[size] if kind == _PROBE else [],
            indices=indices,
            base=self.base,
        )

    def _advance_least_unacked(self) -> None:
        index, end = self.least_unacked - self.base, self.next_packet_number - self.base
        while index < end:
            piece = self._state[index : min(index + 4096, end)] == IN_FLIGHT
            first = int(np.argmax(piece))
            if piece[first]:
                self.least_unacked = index + first + self.base
                return
            index += len(piece)
        self.least_unacked = self.next_packet_number


def _without_repeated(ranges: list[tuple[int, int]], last: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """`ranges` without the tail that the last acknowledgement had too: a peer repeats ranges until it may drop them."""
    if len(last) > 1 and last[1] in ranges:
        first = ranges.index(last[1])
        if ranges[first:] == last[1 : 1 + len(ranges) - first]:
            return ranges[:first]
    return ranges


def _runs(starts: NDArray[np.int64], sizes: NDArray[np.int32]) -> list[tuple[int, int]]:
    """The stream ranges that begin at `starts` and have these sizes; adjacent ranges are joined."""
    if not len(starts):
        return []
    ends = starts + sizes
    cuts = np.flatnonzero(starts[1:] != ends[:-1])
    if not len(cuts):
        return [(int(starts[0]), int(ends[-1]))]
    firsts = np.concatenate((starts[:1], starts[cuts + 1]))
    lasts = np.concatenate((ends[cuts], ends[-1:]))
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
