"""Datagrams on their way through the simulator, and the queue in which a host finds them.

Theory. To hand the engine one packet at a time would cost most of a simulation and change nothing: DATA that follows in
sequence while an acknowledgement is scheduled anyway cannot be noticed by anybody until that acknowledgement is due.
So a host is woken for the packet that makes a difference (the first, the one that fills the acknowledgement's byte
budget, the one after a gap, anything that is not DATA), and is then handed all that has arrived, in batches as UDP_GRO
would make them, each with the time at which its last packet arrived. Acknowledgements leave at the nanosecond at which
they would have left packet by packet, and say the same.

What arrives is kept as runs: neighbours of one transmit that arrive at equal distances.
"""

import math
from collections import deque
from typing import NamedTuple

from toolkit.rudp import wire
from toolkit.rudp.batch import MAX_BATCH_BYTES, Batch, Transmit

_ECT = (0b01, 0b10)
_CE = 0b11


class Datagrams:
    """What one `poll_transmit` gave, copied; `sequence` counts the datagrams of the sending host before it."""

    __slots__ = ("count", "ecn", "ends_sequence", "is_data", "segment_bytes", "sequence", "view")

    def __init__(self, transmit: Transmit, sequence: int) -> None:
        self.view = memoryview(bytes(transmit.data))
        self.segment_bytes = transmit.segment_bytes
        self.count = -(-len(self.view) // transmit.segment_bytes)
        self.sequence = sequence
        self.ecn = transmit.ecn
        self.is_data = self.view[0] == wire.PacketType.DATA
        last = (self.count - 1) * transmit.segment_bytes
        self.ends_sequence = bool(self.view[last + 1] & wire.Flags.ACK_NOW)

    @property
    def is_ecn_capable(self) -> bool:
        """Whether a queue may mark them (RFC 3168 section 5)."""
        return self.ecn in _ECT

    @property
    def last_bytes(self) -> int:
        """Size of the last one, which may be short."""
        return len(self.view) - (self.count - 1) * self.segment_bytes

    def part(self, first: int, end: int) -> memoryview:
        """The datagrams from `first` up to and without `end`."""
        return self.view[first * self.segment_bytes : end * self.segment_bytes]

    def payload_bytes(self, first: int, end: int) -> int:
        """How many bytes of the data space these carry."""
        return len(self.part(first, end)) - (end - first) * wire.HEADER_BYTES if self.is_data else 0


class Run(NamedTuple):
    """Datagrams `first` up to `end` of one transmit: the first arrives at `first_ns`, each other `gap_ns` later."""

    datagrams: Datagrams
    first: int
    end: int
    first_ns: float
    gap_ns: float
    is_marked: bool

    @property
    def head_ns(self) -> int:
        """When the first has arrived, as a time of the clock."""
        return math.ceil(self.first_ns)

    def time_ns(self, index: int) -> int:
        """When datagram `index` has arrived."""
        return math.ceil(self.first_ns + (index - self.first) * self.gap_ns)

    def arrived(self, now_ns: float) -> int:
        """The end of those that are there by `now_ns`; the first is."""
        if not self.gap_ns:
            return self.end
        return min(self.end, self.first + 1 + max(0, int((now_ns - self.first_ns) / self.gap_ns)))


class Inbox:
    """Runs in the order of their first datagram's arrival."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._next_sequence = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    def put(self, run: Run) -> None:
        """Add what will arrive; among equals it comes last."""
        runs = self._runs
        if not runs or runs[-1].first_ns <= run.first_ns:
            runs.append(run)
            return
        place = len(runs)
        while place and runs[place - 1].first_ns > run.first_ns:
            place -= 1
        runs.insert(place, run)

    def due_ns(self, budget_bytes: int) -> int | None:
        """When the first packet arrives that matters; None while there is none.

        `budget_bytes` of DATA in sequence do not, but for the packet that exceeds them.
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
        """What has arrived by `now_ns`, in order, each batch with the time to handle it at.

        That is the arrival of the last packet for DATA, which may have waited here, and now for all else.
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

    def _put_back(self, run: Run) -> None:
        if self._runs and run.first_ns >= self._runs[0].first_ns:
            self.put(run)
        else:
            self._runs.appendleft(run)


def _joined(pieces: list[memoryview], segment_bytes: int, ecn: int) -> Batch:
    return Batch(pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces)), segment_bytes, ecn)
