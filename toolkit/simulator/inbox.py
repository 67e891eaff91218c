"""Datagrams in flight through the simulator, and the queue from which a host receives them.

Handing the engine one packet at a time would take most of the time of a simulation and change nothing: DATA that
arrives in sequence while an acknowledgement is scheduled anyway has no effect until that acknowledgement is due. A host
is therefore woken only for a packet that matters: the first, the one that exhausts the byte budget of the
acknowledgement, one after a gap, or anything but DATA. It then receives everything that has arrived, in batches like
those of UDP_GRO, each with the arrival time of its last packet. Acknowledgements leave at the same nanosecond and with
the same content as packet by packet.

Arrivals are stored as runs: neighbours of one transmit that arrive at equal intervals.
"""

import math
from collections import deque
from typing import NamedTuple

from toolkit.rudp import wire
from toolkit.rudp.batch import MAX_BATCH_BYTES, Batch, Transmit

_ECT = (0b01, 0b10)
_CE = 0b11


class Datagrams:
    """A copy of one transmit of the engine; `sequence` is the packet number of its first datagram.

    A packet number that is skipped leaves a gap, which the receiver acknowledges at once as it does after a loss.
    Packets of the handshake have no number.
    """

    __slots__ = ("count", "ecn", "ends_sequence", "is_data", "segment_bytes", "sequence", "view")

    def __init__(self, transmit: Transmit) -> None:
        self.view = memoryview(bytes(transmit.data))
        self.segment_bytes = transmit.segment_bytes
        self.count = -(-len(self.view) // transmit.segment_bytes)
        self.ecn = transmit.ecn
        packet_type = self.view[0]
        is_numbered = packet_type >= wire.PacketType.DATA
        self.sequence = wire.COMMON.unpack_untrusted(self.view)[3] if is_numbered else -self.count
        self.is_data = packet_type == wire.PacketType.DATA
        last = (self.count - 1) * transmit.segment_bytes
        self.ends_sequence = bool(self.view[last + 1] & wire.Flags.ACK_NOW)

    @property
    def is_ecn_capable(self) -> bool:
        """Whether a queue may mark them (RFC 3168 section 5)."""
        return self.ecn in _ECT

    @property
    def last_bytes(self) -> int:
        """Size of the last datagram, which may be short."""
        return len(self.view) - (self.count - 1) * self.segment_bytes

    def part(self, first: int, end: int) -> memoryview:
        """The datagrams in [first, end)."""
        return self.view[first * self.segment_bytes : end * self.segment_bytes]

    def payload_bytes(self, first: int, end: int) -> int:
        """Bytes of the data stream in the datagrams [first, end)."""
        return len(self.part(first, end)) - (end - first) * wire.HEADER_BYTES if self.is_data else 0


class DatagramRun(NamedTuple):
    """Datagrams [first, end) of one transmit: the first arrives at `first_ns`, the others every `gap_ns`."""

    datagrams: Datagrams
    first: int
    end: int
    first_ns: float
    gap_ns: float
    is_marked: bool

    @property
    def head_ns(self) -> int:
        """When the first datagram has arrived, as clock time."""
        return math.ceil(self.first_ns)

    def time_ns(self, index: int) -> int:
        """When datagram `index` has arrived."""
        return math.ceil(self.first_ns + (index - self.first) * self.gap_ns)

    def arrived(self, now_ns: float) -> int:
        """The end of the datagrams that have arrived by `now_ns`, which include the first."""
        if not self.gap_ns:
            return self.end
        return min(self.end, self.first + 1 + max(0, int((now_ns - self.first_ns) / self.gap_ns)))


class Inbox:
    """Runs in order of the arrival of their first datagram."""

    def __init__(self) -> None:
        self._runs: deque[DatagramRun] = deque()
        self._next_sequence = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    def put(self, run: DatagramRun) -> None:
        """Add a run, after those with the same arrival time."""
        runs = self._runs
        if not runs or runs[-1].first_ns <= run.first_ns:
            runs.append(run)
            return
        index = len(runs)
        while index and runs[index - 1].first_ns > run.first_ns:
            index -= 1
        runs.insert(index, run)

    def due_ns(self, budget_bytes: int) -> int | None:
        """When the first packet that matters arrives; None if no such packet is on its way.

        DATA in sequence does not matter, except for the packet that exhausts `budget_bytes`.
        """
        expected = self._next_sequence
        matters_ns: int | None = None
        for run in self._runs:
            if matters_ns is not None:
                return min(matters_ns, run.head_ns)
            datagrams = run.datagrams
            if (
                budget_bytes <= 0
                or not datagrams.is_data
                or run.is_marked
                or datagrams.sequence + run.first != expected
            ):
                return run.head_ns
            needed = -(-budget_bytes // datagrams.segment_bytes)
            count = run.end - run.first
            last_ns = run.time_ns(run.first + min(needed, count) - 1)
            if needed <= count or (datagrams.ends_sequence and run.end == datagrams.count):
                matters_ns = last_ns
            budget_bytes -= count * datagrams.segment_bytes
            expected += count
        return matters_ns

    def take(self, now_ns: int) -> list[tuple[Batch, int]]:
        """Everything that has arrived by `now_ns`, in order, as (batch, time at which to handle it).

        For DATA, which may have waited here, that is the arrival of the last packet; for all else it is `now_ns`.
        """
        batches: list[tuple[Batch, int]] = []
        pieces: list[memoryview] = []
        segment = size = ecn = time_ns = 0
        runs = self._runs
        while runs and runs[0].first_ns <= now_ns:
            run = runs.popleft()
            until_ns = min(now_ns, runs[0].first_ns) if runs else now_ns
            end = run.arrived(until_ns)
            if end < run.end:
                self._put_back(run._replace(first=end, first_ns=run.first_ns + (end - run.first) * run.gap_ns))
            datagrams = run.datagrams
            follows = datagrams.sequence + run.first == self._next_sequence
            self._next_sequence = datagrams.sequence + end
            piece = datagrams.part(run.first, end)
            run_ecn = _CE if run.is_marked else datagrams.ecn
            if pieces and (
                not follows
                or segment != datagrams.segment_bytes
                or size % segment
                or size + len(piece) > MAX_BATCH_BYTES
                or ecn != run_ecn
            ):
                batches.append((_joined(pieces, segment, ecn), time_ns))
                pieces, size = [], 0
            pieces.append(piece)
            segment, ecn = datagrams.segment_bytes, run_ecn
            size += len(piece)
            time_ns = run.time_ns(end - 1) if datagrams.is_data else now_ns
        if pieces:
            batches.append((_joined(pieces, segment, ecn), time_ns))
        return batches

    def _put_back(self, run: DatagramRun) -> None:
        if self._runs and run.first_ns >= self._runs[0].first_ns:
            self.put(run)
        else:
            self._runs.appendleft(run)


def _joined(pieces: list[memoryview], segment_bytes: int, ecn: int) -> Batch:
    return Batch(pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces)), segment_bytes, ecn)
