"""What was sent and is not settled: one numpy column per property, indexed by packet number.

Packet numbers are never reused (RFC 9000 section 13.3), so the columns only ever grow at their end; what is settled
falls off the front when room is made. An acknowledgement costs a handful of vector operations over what it names for
the first time, however many ranges it repeats, and looking for losses another handful over what is left.

A packet is IN_FLIGHT until it is acknowledged or declared LOST. LOST packets stay in view for a while, so that an
acknowledgement that comes late shows the loss to have been spurious.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ProtocolError
from toolkit.rudp import wire

SETTLED: Final = 0
IN_FLIGHT: Final = 1
LOST: Final = 2
SPURIOUS_HISTORY: Final = 4096
"""How many packets below the oldest in flight stay in view for the detection of spurious losses."""

_NEVER: Final = 1 << 63
_FIRST_CAPACITY: Final = 1 << 14
_DATA, _MESSAGE, _PROBE = int(wire.PacketType.DATA), int(wire.PacketType.MESSAGE), int(wire.PacketType.PROBE)
"""Plain integers: numpy takes three times as long to compare a column with a member of an enumeration."""
_SKIPPED: Final = 0
"""In place of a packet type: settled, and not by an acknowledgement."""


class SendState(NamedTuple):
    """What the connection stood at when a batch was sent (delivery-rate estimation, draft-ietf-ccwg-bbr 4.1.2)."""

    sent_time_ns: int
    delivered_bytes: int
    delivered_time_ns: int
    first_sent_time_ns: int
    lost_bytes: int
    in_flight_bytes: int
    is_app_limited: bool


class Settled(NamedTuple):
    """Packets that an acknowledgement or a look for losses has settled.

    `data` and `messages` are runs [start, end) of positions, in order of packet number. `spurious` are the numbers of
    packets that had been declared lost before, in increasing order; their `spurious_bytes` of the `bytes` are not in
    flight. `newest` is the highest packet number, `span_ns` the time between the sending of the first and of the last.
    Sizes and counts are of datagrams; `probes` are the sizes of path MTU probes. `indices` count from the packet
    number `base`.
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
    """Every packet number from `base` to `next_packet_number`, settled or not."""

    def __init__(self) -> None:
        self.next_packet_number = 0
        self.least_unacked = 0  # nothing below is in flight
        self._base = 0
        self._oldest_lost = _NEVER  # nothing in view below it is LOST
        self._state = np.zeros(_FIRST_CAPACITY, np.uint8)
        self._kind = np.zeros(_FIRST_CAPACITY, np.uint8)
        self._size = np.zeros(_FIRST_CAPACITY, np.int32)
        self._position = np.zeros(_FIRST_CAPACITY, np.int64)
        self._time_ns = np.zeros(_FIRST_CAPACITY, np.int64)
        self._burst = np.zeros(_FIRST_CAPACITY, np.int64)
        self._states: list[SendState] = []
        self._told: list[tuple[int, int]] = []  # the ranges of the last acknowledgement
        self._first_burst = 0

    def _make_room(self, count: int) -> int:
        """The index of the next packet number, with room for `count` from there on."""
        index = self.next_packet_number - self._base
        if index + count <= len(self._state):
            return index
        floor = max(self._base, self.least_unacked - SPURIOUS_HISTORY)
        drop = floor - self._base
        live = index - drop
        capacity = len(self._state)
        while live + count > capacity // 2:
            capacity *= 2
        for name in ("_state", "_kind", "_size", "_position", "_time_ns", "_burst"):
            old = getattr(self, name)
            new = old if capacity == len(old) else np.zeros(capacity, old.dtype)
            new[:live] = old[drop:index].copy()
            setattr(self, name, new)
        self._base = floor
        if self._oldest_lost < floor:
            still_lost = np.flatnonzero(self._state[:live] == LOST)
            self._oldest_lost = int(still_lost[0]) + floor if len(still_lost) else _NEVER
        if live:
            oldest_burst = int(self._burst[0])
            del self._states[: oldest_burst - self._first_burst]
            self._first_burst = oldest_burst
        return live

    def skip(self) -> int:
        """A packet number for a packet that nobody acknowledges (an ACK, a CLOSE)."""
        index = self._make_room(1)
        self._state[index] = SETTLED
        self._kind[index] = _SKIPPED
        self._burst[index] = self._first_burst + max(0, len(self._states) - 1)
        number = self.next_packet_number
        self.next_packet_number += 1
        if self.least_unacked == number:
            self.least_unacked += 1
        return number

    def record(
        self,
        kind: wire.PacketType,
        positions: NDArray[np.int64],
        sizes: NDArray[np.int32] | int,
        state: SendState,
    ) -> NDArray[np.int64]:
        """Packets of one batch, sent together; returns their packet numbers. Sizes are of datagrams, in bytes."""
        count = len(positions)
        low = self._make_room(count)
        high = low + count
        self._state[low:high] = IN_FLIGHT
        self._kind[low:high] = kind
        self._size[low:high] = sizes
        self._position[low:high] = positions
        self._time_ns[low:high] = state.sent_time_ns
        self._burst[low:high] = self._first_burst + len(self._states)
        self._states.append(state)
        first = self.next_packet_number
        self.next_packet_number += count
        return np.arange(first, first + count)

    @property
    def oldest_sent_time_ns(self) -> int | None:
        """When the oldest packet in flight was sent; None when nothing is in flight."""
        if self.least_unacked == self.next_packet_number:
            return None
        return int(self._time_ns[self.least_unacked - self._base])

    def kinds(self, packet_numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Their packet types; the packets are in view."""
        return self._kind[packet_numbers - self._base]

    def acknowledge_untrusted(self, ranges: list[tuple[int, int]]) -> Settled | None:
        """Settle the packets of `ranges` (newest first); None where that settles nothing new.

        Raises ProtocolError for a packet number that was never sent.
        """
        if ranges[0][1] > self.next_packet_number:
            raise ProtocolError("an ACK packet acknowledges what was never sent")
        told, self._told = self._told, ranges
        ranges = _news(ranges, told)
        if not ranges:
            return None
        base = self._base
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
            indices = np.flatnonzero(covered & (state != SETTLED))
        if not len(indices):
            return None
        indices += low - base
        return self._settle(indices, SETTLED)

    def detect_lost(
        self, largest_acked: int, now_ns: int, loss_delay_ns: int, packet_threshold: int
    ) -> tuple[Settled | None, int | None]:
        """Declare lost what RFC 9002 section 6.1 says is lost; and when to look again, None for never."""
        base, low = self._base, self.least_unacked
        if low > largest_acked:
            return None, None
        indices = np.flatnonzero(self._state[low - base : largest_acked + 1 - base] == IN_FLIGHT) + (low - base)
        if not len(indices):
            return None, None
        times = self._time_ns[indices]
        is_lost = (times <= now_ns - loss_delay_ns) | (indices <= largest_acked - base - packet_threshold)
        waiting = times[~is_lost]
        loss_time_ns = int(waiting[0]) + loss_delay_ns if len(waiting) else None
        lost = indices[is_lost]
        return (self._settle(lost, LOST) if len(lost) else None), loss_time_ns

    def abandon(self) -> Settled | None:
        """Give up all that is in flight, and forget what was lost: no acknowledgement of it says anything any more."""
        end = self.next_packet_number - self._base
        low = self.least_unacked - self._base
        indices = np.flatnonzero(self._state[low:end] == IN_FLIGHT) + low
        given_up = self._settle(indices, SETTLED) if len(indices) else None
        self._state[:end] = SETTLED
        self._kind[:end] = _SKIPPED
        self._oldest_lost = _NEVER
        return given_up

    def outage_ns(self, lost: Settled) -> int:
        """The longest time between the sending of two `lost` packets of which nothing sent in between was acknowledged.

        Probes of the path MTU do not count (RFC 9002 section 7.6.2, RFC 8899 section 3).
        """
        indices = lost.indices[self._kind[lost.indices] != _PROBE]
        low, high = indices[0], indices[-1] + 1
        was_acked = (self._state[low:high] == SETTLED) & (self._kind[low:high] != _SKIPPED)
        outage = np.cumsum(was_acked)[indices - low]  # which run of losses each packet belongs to
        cuts = np.flatnonzero(np.diff(outage)) + 1
        firsts = np.concatenate((indices[:1], indices[cuts]))
        lasts = np.concatenate((indices[cuts - 1], indices[-1:]))
        return int((self._time_ns[lasts] - self._time_ns[firsts]).max())

    def _settle(self, indices: NDArray[np.int64], into: int) -> Settled:
        first, newest = int(indices[0]), int(indices[-1])
        # Packets in a row, as most are, are looked at in place and not gathered.
        those = slice(first, newest + 1) if newest - first + 1 == len(indices) else indices
        sizes, kinds, positions = self._size[those], self._kind[those], self._position[those]
        late = indices[:0]
        if into == LOST:
            self._oldest_lost = min(self._oldest_lost, first + self._base)
        elif self._oldest_lost <= newest + self._base:
            late = np.flatnonzero(self._state[those] == LOST)
        self._state[those] = into
        is_data = kinds == _DATA
        messages: list[tuple[int, int]] = []
        probes: list[int] = []
        if is_data.all():
            data = _runs(positions, sizes)
        else:
            data = _runs(positions[is_data], sizes[is_data])
            is_message = kinds == _MESSAGE
            messages = _runs(positions[is_message], sizes[is_message])
            probes = sizes[kinds == _PROBE].tolist()
        if first + self._base <= self.least_unacked <= newest + self._base:
            self._advance()
        return Settled(
            packets=len(indices),
            bytes=int(sizes.sum()),
            largest_bytes=int(sizes.max()),
            span_ns=int(self._time_ns[newest] - self._time_ns[first]),
            spurious=indices[late] + self._base,
            spurious_bytes=int(sizes[late].sum()),
            newest=newest + self._base,
            newest_state=self._states[int(self._burst[newest]) - self._first_burst],
            data=data,
            messages=messages,
            probes=probes,
            indices=indices,
            base=self._base,
        )

    def _advance(self) -> None:
        index, end = self.least_unacked - self._base, self.next_packet_number - self._base
        while index < end:
            piece = self._state[index : min(index + 4096, end)] == IN_FLIGHT
            first = int(np.argmax(piece))
            if piece[first]:
                self.least_unacked = index + first + self._base
                return
            index += len(piece)
        self.least_unacked = self.next_packet_number


def _news(ranges: list[tuple[int, int]], told: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The first of `ranges`, without those that end both lists: a range is told until it no longer matters."""
    if len(told) > 1 and told[1] in ranges:
        first = ranges.index(told[1])
        if ranges[first:] == told[1 : 1 + len(ranges) - first]:
            return ranges[:first]
    return ranges


def _runs(starts: NDArray[np.int64], sizes: NDArray[np.int32]) -> list[tuple[int, int]]:
    """The bytes of datagrams of these sizes whose payload begins at these positions, adjacent ones joined."""
    if not len(starts):
        return []
    ends = starts + (sizes - wire.HEADER_BYTES)
    cuts = np.flatnonzero(starts[1:] != ends[:-1])
    if not len(cuts):
        return [(int(starts[0]), int(ends[-1]))]
    firsts = np.concatenate((starts[:1], starts[cuts + 1]))
    lasts = np.concatenate((ends[cuts], ends[-1:]))
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
