"""The models in real time: carry packets between two TUN devices, each in a network namespace of its own.

The device of one end yields super-packets (`toolkit.emulator.offload`). Their packets are offered to the model of the
path and written to the device of the other end when the model says that they arrive. Neighbours that arrive within
`COALESCE_NS` are written together when the last of them is due: no packet is early, and at 1 Gbit/s forty packets share
one system call, much as with interrupt moderation. At low rates every packet is written alone.

The emulator is one process with one thread. It sleeps in `select`, whose timeout has microseconds where epoll's has
milliseconds. A CPU that was idle for long takes time to wake up (80 us, measured); after a long pause the emulator
therefore wakes a little early and polls the clock for the rest. Memory is bounded by `MAX_HELD_BYTES`; packets beyond
that are dropped and counted as EMULATOR drops. CoDel decides whether to drop a packet when the packet leaves the queue;
the emulator polls for this decision at most `COALESCE_NS` after its time.

A sender hands over super-packets of up to 64 KiB, which reach the bottleneck packet by packet at the rate of the
sender's line (`HostLine`). `PathAccounting` counts how many packets were read and written together.
"""

import heapq
import os
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from toolkit.emulator.accounting import EMULATOR, MAX_ECHOES, LinkAccounting, PathAccounting
from toolkit.emulator.host_line import HostLine
from toolkit.emulator.icmp import echo_sequence
from toolkit.emulator.offload import VNET_BYTES, SuperPacket
from toolkit.netmodel.path import Fate, PathModel, path_models
from toolkit.netmodel.spec import LinkSpec

COALESCE_NS = 400_000
MAX_HELD_BYTES = 256 << 20
_LONG_PAUSE_NS, _WAKE_EARLY_NS = 500_000, 120_000
_READS_PER_TURN, _MAX_DISCARDED = 16, 8000
_READ_BYTES = (1 << 16) + 64
_LATE_BUCKET_NS = 10_000
_LATE_BUCKETS = 1000


class _Offered:
    """A super-packet whose packets are numbered from `first` on; `undecided` of them have no fate yet."""

    __slots__ = ("end", "first", "super_packet", "undecided")

    def __init__(self, first: int, super_packet: SuperPacket) -> None:
        self.first = first
        self.end = first + super_packet.packets
        self.undecided = super_packet.packets
        self.super_packet = super_packet

    def size_bytes(self, first: int, end: int) -> int:
        """IP bytes of the packets in [first, end)."""
        size = (end - first) * self.super_packet.packet_bytes
        if end == self.end:
            size += self.super_packet.last_bytes - self.super_packet.packet_bytes
        return size


class _Direction:
    """One direction: source and sink (descriptors), the sender's line, the model in between, and the counters."""

    def __init__(self, source: int, sink: int, path: PathModel, line: HostLine) -> None:
        self.source = source
        self.sink = sink
        self.path = path
        self.line = line
        self.line_drops = 0  # super-packets
        self.accounting = PathAccounting()
        self.echoes: dict[int, tuple[int, int]] = {}  # packets without a fate -> sequence number, time of reading
        self.offered: deque[_Offered] = deque()  # super-packets with undecided packets, in order

    def super_packet_of(self, index: int) -> _Offered:
        """The super-packet that contains packet `index`."""
        return next(offered for offered in self.offered if index < offered.end)

    def note_echoes(self, fate: Fate) -> None:
        """Note how long the model delays the echo packets among those with this fate."""
        end = fate.first + fate.packets
        for index in [number for number in self.echoes if fate.first <= number < end]:
            sequence, read_ns = self.echoes.pop(index)
            if not fate.drop and len(self.accounting.echo_delays_ns) < MAX_ECHOES:
                self.accounting.echo_delays_ns[sequence] = fate.delivery_ns(index) - read_ns

    def on_decided(self, offered: _Offered, packets: int) -> None:
        """Note that `packets` of `offered` have a fate now."""
        offered.undecided -= packets
        while self.offered and not self.offered[0].undecided:
            self.offered.popleft()


@dataclass(slots=True)
class _WriteRun:
    """Neighbours of one super-packet, to be written together at `due_ns`."""

    offered: _Offered
    first: int
    end: int
    first_due_ns: int
    due_ns: int
    is_marked: bool

    def can_append(self, offered: _Offered, first: int, due_ns: int, is_marked: bool) -> bool:
        """Whether the packets from `first` on, due at `due_ns`, can be written with this run."""
        return (
            offered is self.offered
            and first == self.end
            and is_marked == self.is_marked
            and self.due_ns <= due_ns <= self.first_due_ns + COALESCE_NS
        )


class _Kind(Enum):
    WHOLE = auto()
    MARKED = auto()
    CORRUPTED = auto()
    DUPLICATE = auto()


class _Delivery(NamedTuple):
    """Packets to write together at `due_ns`; `sequence` keeps deliveries with equal times in order."""

    due_ns: int
    sequence: int
    direction: _Direction
    buffers: Sequence[bytes | bytearray | memoryview]
    packets: int
    size_bytes: int
    kind: _Kind


class Emulator:
    """Carries packets between the devices `near` and `far` (descriptors, which the caller closes).

    `start` sets the clock and the models to time 0; `run` works until `control` is readable; `accounting` returns the
    counters at any time in between.
    """

    def __init__(self, near: int, far: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`clock` returns ns and never goes back; tests pass a virtual one."""
        self._near = near
        self._far = far
        self._clock = clock
        self.start(LinkSpec())

    def start(self, spec: LinkSpec) -> None:
        """Discard everything in flight and restart at time 0."""
        forward, backward = path_models(spec)
        self._seed = spec.seed
        self._directions = (
            _Direction(self._near, self._far, forward, HostLine(spec, spec.forward)),
            _Direction(self._far, self._near, backward, HostLine(spec, spec.backward)),
        )
        for source in (self._near, self._far):
            for _ in range(_MAX_DISCARDED):  # more than the ring of a device holds
                if not _read(source):
                    break
        self._due: list[_Delivery] = []
        self._sequence = 0
        self._held_bytes = 0
        self._woken_early_for_ns = 0.0
        self._late = [0] * _LATE_BUCKETS
        self._late_max_ns = 0
        self._cpu_start_ns = time.process_time_ns()
        self._start_ns = self._clock()

    def run(self, control: int) -> None:
        """Carry packets until `control` is readable."""
        sources = [control, self._near, self._far]
        while True:
            readable, _, _ = select.select(sources, [], [], self._pause_s())
            for direction in self._directions:
                if direction.source in readable:
                    self._read_packets(direction)
            self._deliver()
            if control in readable:
                return

    def accounting(self) -> LinkAccounting:
        """The packet counters since `start`."""
        for direction in self._directions:
            direction.accounting.host_dropped = direction.line_drops
            undecided = sum(offered.undecided for offered in direction.offered)
            direction.accounting.in_flight = undecided + sum(
                delivery.packets
                for delivery in self._due
                if delivery.direction is direction and delivery.kind is not _Kind.DUPLICATE
            )
        return LinkAccounting(
            emulator="tun",
            seed=self._seed,
            forward=self._directions[0].accounting,
            backward=self._directions[1].accounting,
            duration_ns=self._now_ns(),
            cpu_ns=time.process_time_ns() - self._cpu_start_ns,
            late_p50_ns=self._late_quantile_ns(0.5),
            late_p99_ns=self._late_quantile_ns(0.99),
            late_max_ns=self._late_max_ns,
        )

    def _now_ns(self) -> int:
        return self._clock() - self._start_ns

    def _pause_s(self) -> float | None:
        """How long to sleep until something is due, in seconds; None: until a packet or command comes."""
        wake_ns: float | None = self._due[0].due_ns if self._due else None
        for direction in self._directions:
            fate_ns = direction.path.next_fate_ns()
            if fate_ns is not None and (wake_ns is None or fate_ns + COALESCE_NS < wake_ns):
                wake_ns = fate_ns + COALESCE_NS
        if wake_ns is None:
            return None
        pause_ns = wake_ns - self._now_ns()
        if pause_ns > _LONG_PAUSE_NS:
            self._woken_early_for_ns = wake_ns
            pause_ns -= _WAKE_EARLY_NS
        elif pause_ns <= _WAKE_EARLY_NS and wake_ns == self._woken_early_for_ns:
            pause_ns = 0
        return max(0.0, pause_ns / 1e9)

    def _read_packets(self, direction: _Direction) -> None:
        """Offer the packets of the source to the model, in a bounded number of reads."""
        counters = direction.accounting
        for _ in range(_READS_PER_TURN):
            data = _read(direction.source)
            if not data:
                return
            try:
                super_packet = SuperPacket(data)
            except ValueError:
                continue  # not an IP packet
            packets = super_packet.packets
            size_bytes = (packets - 1) * super_packet.packet_bytes + super_packet.last_bytes
            now_ns = self._now_ns()
            if not direction.line.has_room(now_ns, size_bytes):
                direction.line_drops += 1
                continue
            counters.reads += 1
            counters.offered += packets
            counters.offered_bytes += size_bytes
            if self._held_bytes + size_bytes > MAX_HELD_BYTES:
                counters.dropped[EMULATOR] += packets
                continue
            self._held_bytes += size_bytes
            start_ns, gap_ns = direction.line.send(now_ns, super_packet.packet_bytes, size_bytes)
            first = direction.path.handle_packets(
                start_ns, super_packet.packet_bytes, packets, super_packet.last_bytes, super_packet.is_ecn, gap_ns
            )
            direction.offered.append(_Offered(first, super_packet))
            if packets == 1 and (sequence := echo_sequence(data[VNET_BYTES:])) is not None:
                direction.echoes[first] = sequence, now_ns
            self._schedule(direction, now_ns)

    def _schedule(self, direction: _Direction, now_ns: int) -> None:
        """Turn the decided fates into deliveries, one for neighbours that arrive close together."""
        run: _WriteRun | None = None
        offered: _Offered | None = None
        for fate in direction.path.poll_fates(now_ns):
            end = fate.first + fate.packets
            if not fate.is_duplicate or offered is None:  # a duplicate directly follows its original
                offered = direction.super_packet_of(fate.first)
                direction.on_decided(offered, fate.packets)
                direction.note_echoes(fate)
            if fate.drop:
                direction.accounting.dropped[fate.drop] += fate.packets
                self._held_bytes -= offered.size_bytes(fate.first, end)
            elif fate.is_duplicate or fate.corrupt_at is not None:
                self._push_run(direction, run)  # first: a copy must follow the run with its original
                run = None
                self._held_bytes += offered.size_bytes(fate.first, end) if fate.is_duplicate else 0
                self._push_special(direction, offered, fate)
            else:
                share = max(1, int(COALESCE_NS // fate.gap_ns)) if fate.gap_ns else fate.packets
                for first in range(fate.first, end, share):
                    part_end = min(first + share, end)
                    due_ns = fate.delivery_ns(part_end - 1)
                    if run is not None and run.can_append(offered, first, due_ns, fate.is_marked):
                        run.end, run.due_ns = part_end, due_ns
                        continue
                    self._push_run(direction, run)
                    first_due_ns = fate.delivery_ns(first)
                    run = _WriteRun(offered, first, part_end, first_due_ns, due_ns, fate.is_marked)
        self._push_run(direction, run)

    def _push_run(self, direction: _Direction, run: _WriteRun | None) -> None:
        if run is not None:
            offered = run.offered
            buffers = offered.super_packet.cut(run.first - offered.first, run.end - run.first, run.is_marked)
            direction.accounting.held_ns += (run.end - run.first) * (run.due_ns - run.first_due_ns) / 2
            size_bytes = offered.size_bytes(run.first, run.end)
            kind = _Kind.MARKED if run.is_marked else _Kind.WHOLE
            self._push(direction, run.due_ns, buffers, run.end - run.first, size_bytes, kind)

    def _push_special(self, direction: _Direction, offered: _Offered, fate: Fate) -> None:
        """Schedule a packet that arrives corrupted, or a second time."""
        index = fate.first - offered.first
        buffers: Sequence[bytes | bytearray | memoryview]
        if fate.corrupt_at is not None:
            buffers = [offered.super_packet.corrupted(index, fate.corrupt_at)]
        else:
            buffers = offered.super_packet.cut(index, fate.packets, fate.is_marked)
        size_bytes = offered.size_bytes(fate.first, fate.first + fate.packets)
        due_ns = fate.delivery_ns(fate.first + fate.packets - 1)
        kind = _Kind.DUPLICATE if fate.is_duplicate else _Kind.CORRUPTED
        self._push(direction, due_ns, buffers, fate.packets, size_bytes, kind)

    def _push(
        self,
        direction: _Direction,
        due_ns: int,
        buffers: Sequence[bytes | bytearray | memoryview],
        packets: int,
        size_bytes: int,
        kind: _Kind,
    ) -> None:
        self._sequence += 1
        delivery = _Delivery(due_ns, self._sequence, direction, buffers, packets, size_bytes, kind)
        heapq.heappush(self._due, delivery)

    def _deliver(self) -> None:
        """Poll the paths for new fates, then write everything that is due."""
        due = self._due
        now_ns = self._now_ns()
        for direction in self._directions:
            fate_ns = direction.path.next_fate_ns()
            if fate_ns is not None and fate_ns <= now_ns:
                self._schedule(direction, now_ns)
        while due and due[0].due_ns <= now_ns:
            delivery = heapq.heappop(due)
            self._held_bytes -= delivery.size_bytes
            counters = delivery.direction.accounting
            try:
                os.writev(delivery.direction.sink, delivery.buffers)
            except OSError:
                if delivery.kind is not _Kind.DUPLICATE:
                    counters.dropped[EMULATOR] += delivery.packets
            else:
                _count(counters, delivery)
            late_ns = now_ns - delivery.due_ns
            self._late[min(late_ns // _LATE_BUCKET_NS, _LATE_BUCKETS - 1)] += delivery.packets
            self._late_max_ns = max(self._late_max_ns, late_ns)
            now_ns = self._now_ns()

    def _late_quantile_ns(self, quantile: float) -> int:
        """The quantile of the lateness histogram, as the upper edge of its bucket."""
        rest = quantile * sum(self._late)
        for bucket, packets in enumerate(self._late):
            rest -= packets
            if rest <= 0 < packets:
                return (bucket + 1) * _LATE_BUCKET_NS
        return 0


def _count(counters: PathAccounting, delivery: _Delivery) -> None:
    """Count a delivery that was written."""
    counters.writes += 1
    if delivery.kind is _Kind.DUPLICATE:
        counters.duplicates += delivery.packets
    elif delivery.kind is _Kind.CORRUPTED:
        counters.corrupted += delivery.packets
    else:
        counters.delivered += delivery.packets
        counters.delivered_bytes += delivery.size_bytes
        if delivery.kind is _Kind.MARKED:
            counters.marked += delivery.packets


def _read(source: int) -> bytes:
    """The next super-packet of a device; empty if none is waiting."""
    try:
        return os.read(source, _READ_BYTES)
    except BlockingIOError:
        return b""
