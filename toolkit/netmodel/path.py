"""One direction of a link as a model: packets in, fates out. Pure and seeded.

A packet enters the queue of the bottleneck (`toolkit.netmodel.queues`) and then passes the impairments, which may drop,
corrupt, duplicate and delay it:

    offered -> queue (overflow, active management) -> bottleneck -> blackout, bursts, loss -> corruption,
    duplication -> propagation delay, jitter, reordering -> delivered

Packets lost behind the bottleneck have used its capacity, as on a real path. The model has no clock and draws only from
its seed: the same seed and the same offered packets (times, sizes, ECN) give the same fates, to the nanosecond. The
draws of an impairment belong to the packet's index, those of bursts and of in-order jitter to time
(`toolkit.netmodel.impairments`). Times are ns since the start of the link; sizes are those of IP packets.

The driver contract:

    path.handle_packets(now_ns, packet_bytes)     one packet, or a burst of equal packets, arrives, at once or at a rate
    path.poll_fates(now_ns)                       the fates decided by now, each once
    path.next_fate_ns()                           when to poll again; None: not before the next packet

Without CoDel every fate is decided at once, even if the delivery is later. `now_ns` never decreases.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from toolkit.netmodel.impairments import BurstStates, IndexedUniforms, random_stream
from toolkit.netmodel.queues import (
    CoDel,
    DropTail,
    PacketTrain,
    Queue,
    RateTransmitter,
    TraceTransmitter,
    Transmitter,
    Unlimited,
)
from toolkit.netmodel.spec import LinkSpec, PathSpec

QUEUE, AQM, BLACKOUT, BURST, LOSS = "queue", "aqm", "blackout", "burst", "loss"
DROP_REASONS = (QUEUE, AQM, BLACKOUT, BURST, LOSS)
"""Why a packet never arrives: full queue, CoDel, blackout, bad period of a burst channel, independent loss."""

_LOSS, _BURST, _BURST_GOOD, _BURST_BAD, _CORRUPT, _DUPLICATE, _REORDER, _JITTER, _BIT = range(9)


class Fate(NamedTuple):
    """The common fate of `packets` packets, numbered from `first` on.

    drop:          one of DROP_REASONS, or "" for packets that arrive
    first_ns:      arrival of the first packet; the others follow every `gap_ns` (see `delivery_ns`)
    is_marked:     the packets arrive with Congestion Experienced
    corrupt_at:    the packets arrive with one bit flipped: its position as a number in [0, 1)
    is_duplicate:  the second delivery of packets; their first delivery is another Fate
    """

    first: int
    packets: int
    drop: str
    first_ns: float = 0.0
    gap_ns: float = 0.0
    is_marked: bool = False
    corrupt_at: float | None = None
    is_duplicate: bool = False

    def delivery_ns(self, index: int) -> int:
        """When packet `index` arrives, rounded up: never early."""
        return math.ceil(self.first_ns + (index - self.first) * self.gap_ns)

    def deliveries(self) -> Iterator[tuple[int, int]]:
        """(packet number, delivery time in ns) of each packet; empty for dropped packets."""
        if not self.drop:
            for index in range(self.first, self.first + self.packets):
                yield index, self.delivery_ns(index)


class PathModel:
    """One direction of a link; the module docstring has the driver contract."""

    def __init__(self, spec: PathSpec, rtt_ns: int, seed: int, direction: int = 0) -> None:
        """`rtt_ns` sizes a queue without a limit; `direction` gives each direction its own random streams."""
        self._spec = spec
        self._queue = _queue_of(spec, rtt_ns)
        self._impairments = _ImpairmentStage(spec, seed, direction)
        self._fates: list[Fate] = []
        self._offered = 0

    @property
    def offered_packets(self) -> int:
        """Packets offered so far, which is the number of the next packet."""
        return self._offered

    def handle_packets(
        self,
        now_ns: float,
        packet_bytes: int,
        count: int = 1,
        last_bytes: int = 0,
        is_ecn: bool = False,
        gap_ns: float = 0.0,
    ) -> int:
        """Offer `count` packets of `packet_bytes` each (the last of `last_bytes`, if not 0).

        They arrive every `gap_ns` from `now_ns` on, but no later than the bottleneck could send them. The next packets
        must not be offered at an earlier time than the last of these. A queue may mark packets that carry ECT
        (`is_ecn`). Returns the number of the first packet; the others follow.
        """
        first = self._offered
        self._offered += count
        equal = count - 1 if last_bytes and last_bytes != packet_bytes else count
        self._enqueue(now_ns, first, equal, packet_bytes, is_ecn, gap_ns)
        if equal < count:
            self._enqueue(now_ns + equal * gap_ns, first + equal, 1, last_bytes, is_ecn, 0.0)
        return first

    def _enqueue(self, now_ns: float, first: int, count: int, packet_bytes: int, is_ecn: bool, gap_ns: float) -> None:
        """Offer equal packets to the queue, as many in one step as makes no difference."""
        end = first + count
        while first < end:
            step = end - first
            if gap_ns:
                step = min(step, self._queue.takes_together(now_ns, packet_bytes, is_ecn))
            accepted = self._queue.enqueue(now_ns, first, step, packet_bytes, is_ecn)
            if gap_ns and not accepted:  # nor are those that follow before a packet has departed
                refused_ns = self._queue.refuses_until_ns(now_ns, packet_bytes) - now_ns
                step = min(end - first, max(1, int(refused_ns / gap_ns)))
            if accepted < step:
                self._fates.append(Fate(first + accepted, step - accepted, QUEUE))
            now_ns += step * gap_ns
            first += step

    def poll_fates(self, now_ns: float) -> list[Fate]:
        """The fates decided up to `now_ns`; arrivals are in the order of departure from the bottleneck."""
        trains, dropped = self._queue.dequeue(now_ns)
        self._fates.extend(Fate(index, 1, AQM) for index in dropped)
        for train in trains:
            self._impairments.apply(train, self._fates)
        fates, self._fates = self._fates, []
        return fates

    def next_fate_ns(self) -> float | None:
        """When `poll_fates` will next return a fate; None: not before another packet is offered."""
        return 0.0 if self._fates else self._queue.next_ns()


def path_models(spec: LinkSpec) -> tuple[PathModel, PathModel]:
    """The forward and the backward path of a link at time 0."""
    forward, backward = spec.forward, spec.backward
    return PathModel(forward, spec.rtt_ns, spec.seed, 0), PathModel(backward, spec.rtt_ns, spec.seed, 1)


def _queue_of(spec: PathSpec, rtt_ns: int) -> Queue:
    transmitter: Transmitter
    if spec.trace_ms is not None and spec.mean_rate_bps is not None:
        transmitter = TraceTransmitter(spec.trace_ms, spec.mean_rate_bps)
    elif spec.rate_bps is not None:
        transmitter = RateTransmitter(spec.rate_bps, spec.changes)
    else:
        return Unlimited()
    return (CoDel if spec.queue.codel else DropTail)(transmitter, spec, rtt_ns)


class _ImpairmentStage:
    """Everything behind the bottleneck: loss, corruption, duplication and delay, train by train."""

    def __init__(self, spec: PathSpec, seed: int, direction: int) -> None:
        def uniforms(impairment: int) -> IndexedUniforms:
            return IndexedUniforms(random_stream(seed, direction, impairment))

        self._spec = spec
        self._loss = spec.loss
        self._delay_ns = float(spec.delay_ns)
        self._changes = deque(c for c in spec.changes if c.delay_ns is not None or c.loss is not None)
        self._blackouts = deque(
            (float(c.at_ns), float(c.at_ns + c.blackout_ns)) for c in spec.changes if c.blackout_ns is not None
        )
        self._bursts = None
        if spec.burst is not None:
            self._bursts = BurstStates(random_stream(seed, direction, _BURST), spec.burst)
        self._loss_uniforms = {impairment: uniforms(impairment) for impairment in (_LOSS, _BURST_GOOD, _BURST_BAD)}
        self._per_packet = tuple(
            (impairment, probability, uniforms(impairment))
            for impairment, probability in (
                (_CORRUPT, spec.corrupt),
                (_DUPLICATE, spec.duplicate),
                (_REORDER, spec.reorder),
            )
            if probability
        )
        self._bits = uniforms(_BIT)
        self._jitter = uniforms(_JITTER)
        self._last_arrival_ns = 0.0

    def apply(self, train: PacketTrain, fates: list[Fate]) -> None:
        """Append the fates of the packets of `train`."""
        end = train.first + train.packets
        while self._changes and self._changes[0].at_ns <= train.time_ns(end - 1):
            change = self._changes.popleft()
            before = _first_since(train, change.at_ns)
            if before > train.first:
                self._apply_unchanged(train.part(train.first, before), fates)
                train = train.part(before, end)
            self._loss = self._loss if change.loss is None else change.loss
            self._delay_ns = self._delay_ns if change.delay_ns is None else float(change.delay_ns)
        self._apply_unchanged(train, fates)

    def _apply_unchanged(self, train: PacketTrain, fates: list[Fate]) -> None:
        """As `apply`, for a train within which no scheduled change occurs."""
        lost = self._lost(train)
        impaired: dict[int, set[int]] = {}
        for impairment, probability, uniforms in self._per_packet:
            for index in uniforms.below(train.first, train.packets, probability):
                if index not in lost:
                    impaired.setdefault(index, set()).add(impairment)
        next_index = train.first
        for index, drop in sorted({**dict.fromkeys(impaired, ""), **lost}.items()) if lost or impaired else ():
            if index > next_index:
                self._arrive(train.part(next_index, index), fates)
            next_index = index + 1
            if not drop:
                self._arrive_impaired(train.part(index, next_index), impaired[index], fates)
        if next_index < train.first + train.packets:
            self._arrive(train.part(next_index, train.first + train.packets), fates)
        fates.extend(_lost_fates(lost))

    def _lost(self, train: PacketTrain) -> dict[int, str]:
        """Packet number -> reason. Of several reasons the first on the path counts: blackout, burst, loss."""
        first, count = train.first, train.packets
        lost: dict[int, str] = {}
        if self._loss:
            lost.update(dict.fromkeys(self._loss_uniforms[_LOSS].below(first, count, self._loss), LOSS))
        if self._bursts is not None and self._spec.burst is not None:
            last_ns = train.time_ns(first + count - 1)
            bad = _within(train, self._bursts.overlapping(train.first_ns, last_ns))
            hit_bad = self._loss_uniforms[_BURST_BAD].below(first, count, self._spec.burst.loss_bad) if bad else ()
            hit_good: Sequence[int] = ()
            if self._spec.burst.loss_good:
                hit_good = self._loss_uniforms[_BURST_GOOD].below(first, count, self._spec.burst.loss_good)
            lost.update(dict.fromkeys(bad.intersection(hit_bad).union(set(hit_good) - bad), BURST))
        while self._blackouts and self._blackouts[0][1] <= train.first_ns:
            self._blackouts.popleft()
        if self._blackouts:
            lost.update(dict.fromkeys(_within(train, self._blackouts), BLACKOUT))
        return lost

    def _arrive_impaired(self, single: PacketTrain, impairments: set[int], fates: list[Fate]) -> None:
        """The fates of one packet that is corrupted, duplicated or held back, or several of these."""
        at = len(fates)
        self._arrive(single, fates)
        if _REORDER in impairments:
            held_ns = fates[at].first_ns + self._spec.reorder_delay_ns
            fates[at] = fates[at]._replace(first_ns=held_ns)
        if _CORRUPT in impairments:
            fates[at] = fates[at]._replace(corrupt_at=self._bits.value(single.first))
        if _DUPLICATE in impairments:
            fates.append(fates[at]._replace(is_duplicate=True))

    def _arrive(self, train: PacketTrain, fates: list[Fate]) -> None:
        """Delay and jitter; without reordering, packets arrive in the order in which they were sent."""
        spec = self._spec
        if not spec.jitter_ns:
            self._arrive_in_order(train, self._delay_ns, fates)
        elif spec.jitter_reorders:
            for index in range(train.first, train.first + train.packets):
                jitter_ns = self._exponential(index)
                arrival_ns = train.time_ns(index) + self._delay_ns + jitter_ns
                fates.append(Fate(index, 1, "", arrival_ns, 0.0, train.is_marked))
        else:
            # One draw for each slot of time as long as the mean: packets close in time share their delay.
            indexes = range(train.first, train.first + train.packets)
            for slot, group in groupby(indexes, lambda index: int(train.time_ns(index) // spec.jitter_ns)):
                members = list(group)
                part = train.part(members[0], members[-1] + 1)
                self._arrive_in_order(part, self._delay_ns + self._exponential(slot), fates)

    def _exponential(self, index: int) -> float:
        return -self._spec.jitter_ns * math.log1p(-self._jitter.value(index))

    def _arrive_in_order(self, train: PacketTrain, delay_ns: float, fates: list[Fate]) -> None:
        first_ns = train.first_ns + delay_ns
        end = train.first + train.packets
        floor_ns = self._last_arrival_ns
        if first_ns < floor_ns:  # packets that would overtake arrive together with their predecessor
            held = train.packets
            if train.gap_ns:
                held = min(held, math.ceil((floor_ns - first_ns) / train.gap_ns))
            fates.append(Fate(train.first, held, "", floor_ns, 0.0, train.is_marked))
            train = train.part(train.first + held, end)
            if not train.packets:
                return
        arrivals = Fate(train.first, train.packets, "", train.first_ns + delay_ns, train.gap_ns, train.is_marked)
        self._last_arrival_ns = arrivals.first_ns + (train.packets - 1) * train.gap_ns
        fates.append(arrivals)


def _within(train: PacketTrain, periods: list[tuple[float, float]] | deque[tuple[float, float]]) -> set[int]:
    """The packets of `train` that depart within one of `periods` [start, end)."""
    indexes: set[int] = set()
    for start_ns, end_ns in periods:
        indexes.update(range(_first_since(train, start_ns), _first_since(train, end_ns)))
    return indexes


def _first_since(train: PacketTrain, at_ns: float) -> int:
    """The number of the first packet of `train` that departs at or after `at_ns`; the end of the train if none does."""
    end = train.first + train.packets
    if at_ns <= train.first_ns:
        return train.first
    if not train.gap_ns:
        return end
    index = min(end, train.first + math.ceil((at_ns - train.first_ns) / train.gap_ns))
    return index if index == end or train.time_ns(index) >= at_ns else index + 1


def _lost_fates(lost: dict[int, str]) -> Iterator[Fate]:
    """`lost` as few fates: neighbours with the same reason share one."""
    run: Fate | None = None
    for index, drop in sorted(lost.items()):
        if run is not None and run.drop == drop and run.first + run.packets == index:
            run = run._replace(packets=run.packets + 1)
            continue
        if run is not None:
            yield run
        run = Fate(index, 1, drop)
    if run is not None:
        yield run
