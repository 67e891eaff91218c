"""The bottleneck of a path: a transmitter and the queue in front of it.

A *transmitter* determines when a packet departs: at a rate that may change on schedule, or at the opportunities of a
delivery trace. A *queue* determines which packets reach it. Drop-tail knows the departure of a packet when it arrives.
CoDel (RFC 8289) decides when the packet reaches the head of the queue, by the packets that have arrived since.

Packets are handled as trains: equal packets that arrived together and depart at equal intervals. A burst of sixty
packets costs little more than one. Times are float ns since the start of the link; sizes are bytes of IP packets.
"""

import math
import sys
from bisect import bisect_left, bisect_right
from collections import deque
from typing import NamedTuple, Protocol

from toolkit.netmodel.spec import TRACE_OPPORTUNITY_BYTES, LinkChange, PathSpec, QueueSpec, queue_limit_bytes


class PacketTrain(NamedTuple):
    """`packets` packets, numbered from `first` on, that depart every `gap_ns` from `first_ns` on."""

    first: int
    packets: int
    first_ns: float
    gap_ns: float
    is_marked: bool = False

    def time_ns(self, index: int) -> float:
        """When packet `index` departs."""
        return self.first_ns + (index - self.first) * self.gap_ns

    def part(self, first: int, end: int) -> "PacketTrain":
        """The packets in [first, end)."""
        return PacketTrain(first, end - first, self.time_ns(first), self.gap_ns, self.is_marked)


class Transmitter(Protocol):
    """Sends packets one after another."""

    def rate_bps(self, now_ns: float) -> float:
        """The rate at `now_ns`; for a trace, its average rate."""

    def ready_ns(self, now_ns: float) -> float:
        """When the transmission of a packet that reaches the head of the queue at `now_ns` begins."""

    def send(self, now_ns: float, first: int, count: int, packet_bytes: int) -> list[PacketTrain]:
        """The departures of `count` equal packets that are all queued at `now_ns`."""


class RateTransmitter:
    """Sends at a rate. The rate at the first bit of a packet applies to the whole packet."""

    def __init__(self, rate_bps: float, changes: tuple[LinkChange, ...]) -> None:
        self._changes_ns = [c.at_ns for c in changes if c.rate_bps is not None]
        self._rates_bps = [rate_bps, *(c.rate_bps for c in changes if c.rate_bps is not None)]
        self._free_ns = 0.0

    def rate_bps(self, now_ns: float) -> float:
        """As in Transmitter."""
        return self._rates_bps[bisect_right(self._changes_ns, now_ns)]

    def ready_ns(self, now_ns: float) -> float:
        """As in Transmitter."""
        return max(now_ns, self._free_ns)

    def send(self, now_ns: float, first: int, count: int, packet_bytes: int) -> list[PacketTrain]:
        """As in Transmitter."""
        trains = []
        while count:
            start_ns = max(now_ns, self._free_ns)
            period = bisect_right(self._changes_ns, start_ns)
            gap_ns = packet_bytes * 8e9 / self._rates_bps[period]
            sent = count
            if period < len(self._changes_ns):
                sent = min(count, math.ceil((self._changes_ns[period] - start_ns) / gap_ns))
            trains.append(PacketTrain(first, sent, start_ns + gap_ns, gap_ns))
            self._free_ns = start_ns + sent * gap_ns
            first += sent
            count -= sent
        return trains


class TraceTransmitter:
    """Sends at the opportunities of a repeating mahimahi trace (`toolkit.netmodel.mahimahi` has the rules)."""

    def __init__(self, trace_ms: tuple[int, ...], mean_rate_bps: float) -> None:
        self._mean_rate_bps = mean_rate_bps
        self._trace_ms = trace_ms
        self._next = 0  # number of the next opportunity, counted over all repetitions
        self._left_bytes = TRACE_OPPORTUNITY_BYTES

    def rate_bps(self, now_ns: float) -> float:  # noqa: ARG002
        """As in Transmitter."""
        return self._mean_rate_bps

    def _time_ns(self) -> float:
        rounds, line = divmod(self._next, len(self._trace_ms))
        return (rounds * self._trace_ms[-1] + self._trace_ms[line]) * 1e6

    def ready_ns(self, now_ns: float) -> float:
        """As in Transmitter. Opportunities before `now_ns` are lost."""
        if self._time_ns() < now_ns:
            period_ms = self._trace_ms[-1]
            now_ms = math.ceil(now_ns / 1e6)
            rounds, rest_ms = divmod(now_ms, period_ms)
            if rest_ms == 0:  # the last opportunities of the previous round occur at this time
                rounds, rest_ms = rounds - 1, period_ms
            reached = rounds * len(self._trace_ms) + bisect_left(self._trace_ms, rest_ms)
            if reached > self._next:
                self._next = reached
                self._left_bytes = TRACE_OPPORTUNITY_BYTES
        return self._time_ns()

    def send(self, now_ns: float, first: int, count: int, packet_bytes: int) -> list[PacketTrain]:
        """As in Transmitter."""
        self.ready_ns(now_ns)
        trains = []
        for index in range(first, first + count):
            rest = packet_bytes
            while True:
                departure_ns = self._time_ns()
                used = min(rest, self._left_bytes)
                rest -= used
                self._left_bytes -= used
                if not self._left_bytes:
                    self._next += 1
                    self._left_bytes = TRACE_OPPORTUNITY_BYTES
                if not rest:
                    break
            trains.append(PacketTrain(index, 1, departure_ns, 0.0))
        return trains


class Queue(Protocol):
    """The queue of a path. `now_ns` never decreases."""

    def enqueue(self, now_ns: float, first: int, count: int, packet_bytes: int, is_ecn: bool) -> int:
        """Offer `count` equal, simultaneous packets. Returns how many are accepted; the last ones are refused."""

    def takes_together(self, now_ns: float, packet_bytes: int, is_ecn: bool) -> int:
        """How many equal packets that arrive one after another, faster than they depart, could as well arrive at once.

        At least 1.
        """

    def refuses_until_ns(self, now_ns: float, packet_bytes: int) -> float:
        """Until when all packets of this size that arrive are refused; `now_ns` where that is not certain."""

    def dequeue(self, now_ns: float) -> tuple[list[PacketTrain], list[int]]:
        """The trains sent and the numbers of the packets dropped by decisions up to `now_ns`."""

    def next_ns(self) -> float | None:
        """When `dequeue` will next return something; None while no packet awaits a decision."""


class Unlimited:
    """No bottleneck: packets depart when they arrive."""

    def __init__(self) -> None:
        self._sent: list[PacketTrain] = []

    def enqueue(self, now_ns: float, first: int, count: int, packet_bytes: int, is_ecn: bool) -> int:  # noqa: ARG002
        """As in Queue."""
        self._sent.append(PacketTrain(first, count, now_ns, 0.0))
        return count

    def takes_together(self, now_ns: float, packet_bytes: int, is_ecn: bool) -> int:  # noqa: ARG002
        """As in Queue."""
        return sys.maxsize

    def refuses_until_ns(self, now_ns: float, packet_bytes: int) -> float:  # noqa: ARG002
        """As in Queue."""
        return now_ns

    def dequeue(self, now_ns: float) -> tuple[list[PacketTrain], list[int]]:  # noqa: ARG002
        """As in Queue."""
        sent, self._sent = self._sent, []
        return sent, []

    def next_ns(self) -> float | None:
        """As in Queue."""
        return self._sent[0].first_ns if self._sent else None


class DropTail:
    """First in, first out, with a limit. An empty queue accepts any packet.

    A packet belongs to the backlog until its last bit is sent.
    """

    def __init__(self, transmitter: Transmitter, path: PathSpec, rtt_ns: int) -> None:
        self._transmitter = transmitter
        self._path = path
        self._rtt_ns = rtt_ns
        self._sent: list[PacketTrain] = []
        self._waiting: deque[tuple[PacketTrain, int]] = deque()
        self._waiting_bytes = 0

    def _backlog_bytes(self, now_ns: float) -> int:
        """Bytes of the accepted packets that are not fully sent at `now_ns`."""
        waiting = self._waiting
        while waiting:
            train, packet_bytes = waiting[0]
            if train.first_ns > now_ns:
                break
            if train.time_ns(train.first + train.packets - 1) > now_ns:
                return self._waiting_bytes - _departed(train, now_ns) * packet_bytes
            self._waiting_bytes -= train.packets * packet_bytes
            waiting.popleft()
        return self._waiting_bytes

    def enqueue(self, now_ns: float, first: int, count: int, packet_bytes: int, is_ecn: bool) -> int:
        """As in Queue."""
        backlog = self._backlog_bytes(now_ns)
        accepted = min(count, max((self._limit_bytes(now_ns) - backlog) // packet_bytes, 0 if backlog else 1))
        if accepted:
            for train in self._transmitter.send(now_ns, first, accepted, packet_bytes):
                self._waiting.append((train, packet_bytes))
                self._sent.extend(self._mark_late_packets(train, now_ns) if is_ecn else (train,))
            self._waiting_bytes += accepted * packet_bytes
        return accepted

    def takes_together(self, now_ns: float, packet_bytes: int, is_ecn: bool) -> int:
        """As in Queue: if they fit at once they fit one by one, and depart at the same times."""
        if is_ecn and self._path.queue.ecn_threshold_ns is not None:  # a mark depends on the time of the arrival
            return 1
        return max(1, (self._limit_bytes(now_ns) - self._backlog_bytes(now_ns)) // packet_bytes)

    def refuses_until_ns(self, now_ns: float, packet_bytes: int) -> float:
        """As in Queue: until so many packets have departed that one fits. An empty queue refuses none."""
        excess = self._backlog_bytes(now_ns) + packet_bytes - self._limit_bytes(now_ns)
        until_ns = now_ns
        if self._path.changes:  # they may change the limit
            return until_ns
        for train, size in self._waiting:
            if excess <= 0:
                break
            departed = _departed(train, now_ns)
            leaving = min(train.packets - departed, math.ceil(excess / size))
            until_ns = train.time_ns(train.first + departed + leaving - 1)
            excess -= leaving * size
        return until_ns

    def _limit_bytes(self, now_ns: float) -> int:
        return queue_limit_bytes(self._path, self._rtt_ns, self._transmitter.rate_bps(now_ns))

    def _mark_late_packets(self, train: PacketTrain, now_ns: float) -> list[PacketTrain]:
        threshold_ns = self._path.queue.ecn_threshold_ns
        if threshold_ns is None:
            return [train]
        end = train.first + train.packets
        index = train.first  # departures increase, so that the first marked packet splits the train
        while index < end and train.time_ns(index) - now_ns <= threshold_ns:
            index += 1
        unmarked, marked = train.part(train.first, index), train.part(index, end)._replace(is_marked=True)
        return [part for part in (unmarked, marked) if part.packets]

    def dequeue(self, now_ns: float) -> tuple[list[PacketTrain], list[int]]:  # noqa: ARG002
        """As in Queue."""
        sent, self._sent = self._sent, []
        return sent, []

    def next_ns(self) -> float | None:
        """As in Queue."""
        return self._sent[0].first_ns if self._sent else None


def _departed(train: PacketTrain, now_ns: float) -> int:
    """How many packets of a train, the last of which has not departed, have departed by `now_ns`."""
    return 0 if train.first_ns > now_ns else int((now_ns - train.first_ns) / train.gap_ns) + 1


class CoDel:
    """Controlled delay (RFC 8289 section 5) with a drop-tail limit. Variables are named as in the RFC.

    With `ecn`, an ECN-capable packet is marked and sent where CoDel would drop it.
    """

    def __init__(self, transmitter: Transmitter, path: PathSpec, rtt_ns: int) -> None:
        self._transmitter = transmitter
        self._path = path
        self._rtt_ns = rtt_ns
        self._spec: QueueSpec = path.queue
        self._packets: deque[tuple[float, int, int, bool]] = deque()  # arrival, index, bytes, whether it can be marked
        self._bytes = 0
        self._max_packet_bytes = 0
        self._first_above_time_ns = 0.0
        self._drop_next_ns = 0.0
        self._count = 0
        self._last_count = 0
        self._is_dropping = False
        self._dropped: list[int] = []
        self._sent: list[PacketTrain] = []

    def enqueue(self, now_ns: float, first: int, count: int, packet_bytes: int, is_ecn: bool) -> int:
        """As in Queue."""
        limit = queue_limit_bytes(self._path, self._rtt_ns, self._transmitter.rate_bps(now_ns))
        can_mark = is_ecn and self._spec.ecn
        self._max_packet_bytes = max(self._max_packet_bytes, packet_bytes)
        for index in range(first, first + count):
            self._serve(now_ns)  # the transmitter may take the first packet before the second is queued
            if self._packets and self._bytes + packet_bytes > limit:
                return index - first
            self._packets.append((now_ns, index, packet_bytes, can_mark))
            self._bytes += packet_bytes
        return count

    def takes_together(self, now_ns: float, packet_bytes: int, is_ecn: bool) -> int:  # noqa: ARG002
        """As in Queue: the delay of each packet counts from its own arrival."""
        return 1

    def refuses_until_ns(self, now_ns: float, packet_bytes: int) -> float:  # noqa: ARG002
        """As in Queue: what departs when is decided later."""
        return now_ns

    def dequeue(self, now_ns: float) -> tuple[list[PacketTrain], list[int]]:
        """As in Queue."""
        self._serve(now_ns)
        sent, self._sent = self._sent, []
        dropped, self._dropped = self._dropped, []
        return sent, dropped

    def next_ns(self) -> float | None:
        """As in Queue."""
        if self._sent or self._dropped:
            return 0.0
        return self._transmitter.ready_ns(self._packets[0][0]) if self._packets else None

    def _serve(self, now_ns: float) -> None:
        """Let the transmitter take packets up to `now_ns`, deciding on each at its own time."""
        while self._packets:
            start_ns = self._transmitter.ready_ns(self._packets[0][0])
            if start_ns > now_ns:
                return
            packet, is_marked = self._next_packet(start_ns)
            if packet is not None:
                for train in self._transmitter.send(start_ns, packet[1], 1, packet[2]):
                    self._sent.append(train._replace(is_marked=is_marked))

    def _next_packet(self, now_ns: float) -> tuple[tuple[float, int, int, bool] | None, bool]:
        """`dequeue` of the RFC: the packet to send, if any is left, and whether it is marked."""
        packet, ok_to_drop = self._pop(now_ns)
        if packet is None:
            self._is_dropping = False
            return None, False
        if self._is_dropping:
            if not ok_to_drop:
                self._is_dropping = False
            while self._is_dropping and packet is not None and now_ns >= self._drop_next_ns:
                self._count += 1
                if packet[3]:
                    self._drop_next_ns = self._control_law(self._drop_next_ns)
                    return packet, True
                self._dropped.append(packet[1])
                packet, ok_to_drop = self._pop(now_ns)
                if ok_to_drop:
                    self._drop_next_ns = self._control_law(self._drop_next_ns)
                else:
                    self._is_dropping = False
            return packet, False
        if not ok_to_drop:
            return packet, False
        is_marked = packet[3]
        if not is_marked:
            self._dropped.append(packet[1])
            packet, _ = self._pop(now_ns)
        self._is_dropping = True
        # Soon after the last dropping state, resume near the drop rate that controlled the queue then.
        delta = self._count - self._last_count
        is_recent = now_ns - self._drop_next_ns < 16 * self._spec.interval_ns
        self._count = delta if delta > 1 and is_recent else 1
        self._drop_next_ns = self._control_law(now_ns)
        self._last_count = self._count
        return packet, is_marked

    def _pop(self, now_ns: float) -> tuple[tuple[float, int, int, bool] | None, bool]:
        """`dodequeue` of the RFC: the head, and whether the delay was above target for a whole interval."""
        if not self._packets:
            self._first_above_time_ns = 0.0
            return None, False
        packet = self._packets.popleft()
        self._bytes -= packet[2]
        if now_ns - packet[0] < self._spec.target_ns or self._bytes <= self._max_packet_bytes:
            self._first_above_time_ns = 0.0
            return packet, False
        if self._first_above_time_ns == 0.0:
            self._first_above_time_ns = now_ns + self._spec.interval_ns
            return packet, False
        return packet, now_ns >= self._first_above_time_ns

    def _control_law(self, from_ns: float) -> float:
        return from_ns + self._spec.interval_ns / math.sqrt(self._count)
