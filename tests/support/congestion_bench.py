"""A bench for congestion controllers alone: senders without a protocol over one bottleneck, in virtual time.

Packets are numbers. The link is a drop-tail queue drained at a rate, then a propagation delay, with seeded loss. The
receiver acknowledges about four times a round trip and at once where a number is missing; the sender detects losses by
packet and time threshold (RFC 9002 section 6.1), probes after a timeout, and makes the samples exactly as
`toolkit.rudp.congestion.base` documents them. What was lost is sent again as new packets, so that a transfer ends when
as many bytes have arrived as were asked for. The complete engine is driven elsewhere; here only its contract counts.
"""

import heapq
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from toolkit.rudp.congestion.base import AckSample, CongestionController, LossSample, controller_factory
from toolkit.rudp.pacer import Pacer
from toolkit.rudp.rtt import RttEstimator

MS = 1_000_000
SECOND = 1_000_000_000
MIB = 1 << 20
DATAGRAM_BYTES = 1472
WIRE_OVERHEAD_BYTES = 28
"""IPv4 and UDP headers: the link's rate and buffer count them."""
TIMER_OVERSHOOT_NS = 80_000


def no_loss(_now_ns: int) -> bool:
    return False


def independent_loss(probability: float, rng: random.Random) -> Callable[[int], bool]:
    return lambda _now_ns: rng.random() < probability


def gilbert_elliott(mean_loss: float, mean_burst_ns: int, rng: random.Random) -> Callable[[int], bool]:
    """Everything is lost in the bad state, nothing in the good one; the states last by the clock, not by packets."""
    mean_good_ns = mean_burst_ns * (1 - mean_loss) / mean_loss
    is_bad, until_ns = False, rng.expovariate(1 / mean_good_ns)

    def is_lost(now_ns: int) -> bool:
        nonlocal is_bad, until_ns
        while until_ns <= now_ns:
            is_bad = not is_bad
            until_ns += rng.expovariate(1 / (mean_burst_ns if is_bad else mean_good_ns))
        return is_bad

    return is_lost


@dataclass
class Link:
    """One direction with a bottleneck; the way back has the same delay and, by `ack_loss`, drops acknowledgements.

    rate_bps:     pieces (from when in ns, bits per second), the first from 0
    buffer_bytes: drop-tail
    jitter_ns:    extra delay, uniform, that keeps the order; reorder_*: a share of packets is late by so much
    """

    rate_bps: list[tuple[int, float]]
    rtt_ns: int
    buffer_bytes: float
    loss: Callable[[int], bool] = no_loss
    ack_loss: Callable[[int], bool] = no_loss
    loss_is_before_queue: bool = False
    jitter_ns: int = 0
    reorder_share: float = 0.0
    reorder_ns: int = 0
    ce_threshold_bytes: float = float("inf")
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    dropped_packets: int = 0
    lost_packets: int = 0
    max_backlog_bytes: float = 0.0
    _backlog_bytes: float = 0.0
    _last_ns: int = 0
    _last_arrival_ns: int = 0

    def rate_at(self, now_ns: int) -> tuple[float, float]:
        """(rate in bytes a nanosecond, until when)."""
        current, until = self.rate_bps[0][1], float("inf")
        for start_ns, rate_bps in self.rate_bps[1:]:
            if start_ns <= now_ns:
                current = rate_bps
            else:
                until = start_ns
                break
        return current / 8e9, until

    def _drain(self, now_ns: int) -> None:
        while self._last_ns < now_ns:
            rate, until = self.rate_at(self._last_ns)
            stop = min(now_ns, until)
            self._backlog_bytes = max(0.0, self._backlog_bytes - rate * (stop - self._last_ns))
            self._last_ns = int(stop)

    def backlog_bytes(self, now_ns: int) -> float:
        self._drain(now_ns)
        return self._backlog_bytes

    def arrival_ns(self, now_ns: int, size_bytes: int) -> tuple[int | None, bool]:
        """(when the packet arrives at the far end or None where it does not, whether it is marked CE)."""
        self._drain(now_ns)
        size_bytes += WIRE_OVERHEAD_BYTES
        if self.loss_is_before_queue and self.loss(now_ns):
            self.lost_packets += 1
            return None, False
        if self._backlog_bytes + size_bytes > self.buffer_bytes:
            self.dropped_packets += 1
            return None, False
        is_marked = self._backlog_bytes > self.ce_threshold_bytes
        self._backlog_bytes += size_bytes
        self.max_backlog_bytes = max(self.max_backlog_bytes, self._backlog_bytes)
        left, at = self._backlog_bytes, float(now_ns)
        while True:
            rate, until = self.rate_at(int(at))
            done = at + left / rate
            if done <= until:
                break
            left -= rate * (until - at)
            at = until
        if not self.loss_is_before_queue and self.loss(now_ns):
            self.lost_packets += 1
            return None, False
        arrival = int(done) + self.rtt_ns // 2
        if self.jitter_ns:
            arrival += self.rng.randrange(self.jitter_ns)
        self._last_arrival_ns = arrival = max(arrival, self._last_arrival_ns)
        if self.reorder_share and self.rng.random() < self.reorder_share:
            arrival += self.reorder_ns
        return arrival, is_marked


@dataclass(slots=True)
class _Burst:
    """What the sender stood at when a burst went out."""

    sent_time_ns: int
    delivered_bytes: int
    delivered_time_ns: int
    first_sent_time_ns: int
    lost_bytes: int
    in_flight_bytes: int
    is_app_limited: bool


@dataclass
class FlowRecord:
    """What is looked at afterwards. Samples are (time in ns, value)."""

    rtts: list[tuple[int, int]] = field(default_factory=list)
    delivered: list[tuple[int, int]] = field(default_factory=list)
    windows: list[tuple[int, int, float, str]] = field(default_factory=list)
    finished_ns: int | None = None
    sent_packets: int = 0
    lost_packets: int = 0
    spurious_packets: int = 0
    max_in_flight_bytes: int = 0


class Flow:
    """One sender and its receiver."""

    def __init__(
        self, bench: "Bench", control: CongestionController, total_bytes: float, start_ns: int, name: str
    ) -> None:
        self.bench = bench
        self.control = control
        self.name = name
        self.total_bytes = total_bytes
        self.start_ns = start_ns
        self.record = FlowRecord()
        self.to_send_bytes = total_bytes
        self.delivered_bytes = 0
        self.lost_bytes = 0
        self.in_flight_bytes = 0
        self.rtt = RttEstimator()
        self.pacer = Pacer()
        self.outstanding: OrderedDict[int, _Burst] = OrderedDict()
        self.declared_lost: OrderedDict[int, int] = OrderedDict()
        self.spurious_left = 0
        self.spurious_sent_ns = 0
        self.next_number = 0
        self.largest_acked = -1
        self.delivered_time_ns = start_ns
        self.first_sent_time_ns = start_ns
        self.is_window_limited = False
        self.packet_threshold = 3
        self.last_sent_ns = start_ns
        self.pto_count = 0
        self.wake_ns: int | None = None
        self.last_ack_progress_ns = start_ns
        # the receiver
        self.received: list[int] = []
        self.received_marks = 0
        self.unacked_bytes = 0
        self.expected = 0
        self.largest_arrival_ns = 0
        self.ack_timer_ns: int | None = None
        # the path was measured by the handshake
        self.rtt.update(bench.link.rtt_ns, 0)

    def is_done(self) -> bool:
        return self.delivered_bytes >= self.total_bytes

    # -- sender --------------------------------------------------------------------------------------------------

    def send(self, now_ns: int) -> None:
        """Send what window and pacer allow; wake up again when the pacer says so."""
        while self.to_send_bytes > 0:
            room = self.control.congestion_window_bytes - self.in_flight_bytes
            if room < DATAGRAM_BYTES:
                self.is_window_limited = True
                return
            rate_bps = self.control.pacing_rate_bps
            budget = self.pacer.budget_bytes(now_ns, rate_bps, DATAGRAM_BYTES)
            if budget == 0:
                self._wake_at(self.pacer.next_send_time_ns() + TIMER_OVERSHOOT_NS)
                return
            left = -(-int(min(self.to_send_bytes, 1 << 40)) // DATAGRAM_BYTES)
            if room < budget:
                self.is_window_limited = True
            self._send_burst(now_ns, min(budget // DATAGRAM_BYTES, room // DATAGRAM_BYTES, left), rate_bps)

    def _send_burst(self, now_ns: int, count: int, rate_bps: float) -> None:
        if self.in_flight_bytes == 0:
            self.first_sent_time_ns = self.delivered_time_ns = now_ns
        size = count * DATAGRAM_BYTES
        self.to_send_bytes -= size
        self.control.on_sent(now_ns, size, self.in_flight_bytes, False)
        self.in_flight_bytes += size
        burst = _Burst(
            now_ns, self.delivered_bytes, self.delivered_time_ns, self.first_sent_time_ns, self.lost_bytes,
            self.in_flight_bytes, self.to_send_bytes <= 0,
        )  # fmt: skip
        self.pacer.on_sent(now_ns, size, rate_bps)
        self.record.max_in_flight_bytes = max(self.record.max_in_flight_bytes, self.in_flight_bytes)
        self.record.sent_packets += count
        self.last_sent_ns = now_ns
        link = self.bench.link
        for number in range(self.next_number, self.next_number + count):
            self.outstanding[number] = burst
            arrival, is_marked = link.arrival_ns(now_ns, DATAGRAM_BYTES)
            if arrival is not None:
                self.bench.at(arrival, self._arrive, (number, is_marked))
        self.next_number += count

    def _wake_at(self, at_ns: int) -> None:
        if self.wake_ns is None or at_ns < self.wake_ns:
            self.wake_ns = at_ns
            self.bench.at(at_ns, self._wake, at_ns)

    def _wake(self, now_ns: int, planned_ns: int) -> None:
        if self.wake_ns == planned_ns:
            self.wake_ns = None
            self.send(now_ns)

    def check_timeout(self, now_ns: int, _argument: object = None) -> None:
        """Probe timeout, and the time threshold of loss detection; looked at every few milliseconds."""
        if self.is_done():
            return
        if self.in_flight_bytes:
            self._detect_lost(now_ns)
            pto_ns = min(self.rtt.pto_ns(25 * MS) << min(self.pto_count, 10), max(400 * MS, self.rtt.pto_ns(25 * MS)))
            if now_ns - max(self.last_sent_ns, self.last_ack_progress_ns) > pto_ns:
                self.pto_count += 1
                self.to_send_bytes += 2 * DATAGRAM_BYTES  # the probes repeat something
                self._send_burst(now_ns, 2, self.control.pacing_rate_bps)
        self.send(now_ns)
        self.bench.at(now_ns + max(2 * MS, self.rtt.smoothed_rtt_ns // 8), self.check_timeout, None)

    def _detect_lost(self, now_ns: int) -> None:
        delay_ns = max(self.rtt.smoothed_rtt_ns, self.rtt.latest_rtt_ns) * 9 // 8
        lost: list[int] = []
        for number, burst in self.outstanding.items():
            if number > self.largest_acked:
                break
            if number <= self.largest_acked - self.packet_threshold or burst.sent_time_ns <= now_ns - delay_ns:
                lost.append(number)
            elif self.packet_threshold == 3:
                break
        if not lost:
            return
        newest = self.outstanding[lost[-1]]
        span_ns = newest.sent_time_ns - self.outstanding[lost[0]].sent_time_ns
        is_contiguous = lost[-1] - lost[0] + 1 == len(lost)
        for number in lost:
            del self.outstanding[number]
            self.declared_lost[number] = now_ns
        size = len(lost) * DATAGRAM_BYTES
        self.in_flight_bytes -= size
        self.lost_bytes += size
        self.to_send_bytes += size
        self.record.lost_packets += len(lost)
        self.spurious_left, self.spurious_sent_ns = len(lost), newest.sent_time_ns
        is_persistent = is_contiguous and span_ns > 3 * self.rtt.pto_ns(25 * MS)
        self.control.on_loss(
            LossSample(now_ns, size, self.in_flight_bytes, newest.sent_time_ns, newest.in_flight_bytes, is_persistent)
        )

    def on_ack(self, now_ns: int, argument: tuple[list[int], int, int]) -> None:
        """An acknowledgement arrives: numbers in order of arrival, CE marks, the receiver's delay."""
        numbers, marks, delay_ns = argument
        fresh = [n for n in numbers if n in self.outstanding]
        late = [n for n in numbers if n in self.declared_lost]
        if late:
            for number in late:
                del self.declared_lost[number]
                self.packet_threshold = max(self.packet_threshold, min(self.largest_acked - number + 1, 4096))
            self.record.spurious_packets += len(late)
            self.to_send_bytes -= len(late) * DATAGRAM_BYTES
            self.delivered_bytes += len(late) * DATAGRAM_BYTES
            self.spurious_left -= len(late)
            if self.spurious_left <= 0:
                self.control.on_spurious_loss(now_ns, self.spurious_sent_ns)
        if not fresh:
            return
        self.pto_count = 0
        self.last_ack_progress_ns = now_ns
        newest = max(fresh)
        state = self.outstanding[newest]
        prior_in_flight = self.in_flight_bytes
        for number in fresh:
            del self.outstanding[number]
        acked = len(fresh) * DATAGRAM_BYTES
        self.in_flight_bytes -= acked
        self.delivered_bytes += acked
        self.delivered_time_ns = now_ns
        rtt_ns = None
        if newest > self.largest_acked:
            latest = now_ns - state.sent_time_ns
            self.rtt.update(latest, delay_ns)
            rtt_ns = max(self.rtt.min_rtt_ns, latest - delay_ns)
            self.record.rtts.append((now_ns, rtt_ns))
        self.largest_acked = max(self.largest_acked, newest)
        interval_ns = max(state.sent_time_ns - state.first_sent_time_ns, now_ns - state.delivered_time_ns)
        self.first_sent_time_ns = max(self.first_sent_time_ns, state.sent_time_ns)
        lost_before = self.lost_bytes
        self._detect_lost(now_ns)
        delivered = self.delivered_bytes - state.delivered_bytes
        self.control.on_ack(
            AckSample(
                now_ns=now_ns,
                newly_acked_bytes=acked,
                newly_lost_bytes=self.lost_bytes - lost_before,
                bytes_in_flight=self.in_flight_bytes,
                prior_in_flight_bytes=prior_in_flight,
                delivered_bytes=self.delivered_bytes,
                prior_delivered_bytes=state.delivered_bytes,
                lost_bytes=self.lost_bytes,
                lost_since_sent_bytes=self.lost_bytes - state.lost_bytes,
                in_flight_at_send_bytes=state.in_flight_bytes,
                largest_acked_sent_time_ns=state.sent_time_ns,
                rtt_ns=rtt_ns,
                smoothed_rtt_ns=self.rtt.smoothed_rtt_ns,
                min_rtt_ns=self.rtt.min_rtt_ns,
                delivery_rate_bps=delivered * 8e9 / interval_ns if interval_ns >= self.rtt.min_rtt_ns else None,
                is_app_limited=state.is_app_limited,
                is_window_limited=self.is_window_limited,
                ecn_ce_count=marks,
            )
        )
        self.is_window_limited = False
        self.record.delivered.append((now_ns, self.delivered_bytes))
        snapshot = self.control.snapshot()
        self.record.windows.append(
            (now_ns, self.control.congestion_window_bytes, self.control.pacing_rate_bps, str(snapshot.get("phase", "")))
        )
        if self.is_done() and self.record.finished_ns is None:
            self.record.finished_ns = now_ns
        self.send(now_ns)

    # -- receiver ------------------------------------------------------------------------------------------------

    def _arrive(self, now_ns: int, argument: tuple[int, bool]) -> None:
        number, is_marked = argument
        self.received.append(number)
        self.received_marks += is_marked
        self.unacked_bytes += DATAGRAM_BYTES
        is_urgent = number != self.expected or is_marked
        if number >= self.expected:
            self.expected = number + 1
            self.largest_arrival_ns = now_ns
        if is_urgent or self.unacked_bytes >= min(max(2 * DATAGRAM_BYTES, self._ack_every_bytes()), MIB):
            self._acknowledge(now_ns)
        elif self.ack_timer_ns is None:
            delay_ns = max(MS, min(25 * MS, self.rtt.smoothed_rtt_ns // 4))
            self.ack_timer_ns = now_ns + delay_ns
            self.bench.at(self.ack_timer_ns, self._ack_timer, self.ack_timer_ns)

    def _ack_every_bytes(self) -> int:
        return self.control.congestion_window_bytes // 4

    def _ack_timer(self, now_ns: int, planned_ns: int) -> None:
        if self.ack_timer_ns == planned_ns and self.received:
            self._acknowledge(now_ns)

    def _acknowledge(self, now_ns: int) -> None:
        self.ack_timer_ns = None
        self.unacked_bytes = 0
        link = self.bench.link
        if link.ack_loss(now_ns):
            return  # what it said is said again by the next one
        argument = (self.received, self.received_marks, now_ns - self.largest_arrival_ns)
        self.bench.at(now_ns + link.rtt_ns - link.rtt_ns // 2, self.on_ack, argument)
        self.received, self.received_marks = [], 0


class Bench:
    """Flows over one link; `run` until all are done or the time is over."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.flows: list[Flow] = []
        self.now_ns = 0
        self._events: list[tuple[int, int, Callable[[int, object], None], object]] = []
        self._sequence = 0

    def at(self, when_ns: int, call: Callable[..., None], argument: object) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (when_ns, self._sequence, call, argument))

    def add(
        self,
        name: str,
        total_bytes: float = float("inf"),
        start_ns: int = 0,
        rate_bps: float | None = None,
        seed: int = 1,
    ) -> Flow:
        flow = Flow(self, controller_factory(name)(DATAGRAM_BYTES, rate_bps, seed), total_bytes, start_ns, name)
        self.flows.append(flow)
        self.at(start_ns, flow.check_timeout, None)
        return flow

    def run(self, until_ns: int) -> None:
        while self._events and self._events[0][0] <= until_ns:
            when_ns, _, call, argument = heapq.heappop(self._events)
            self.now_ns = when_ns
            call(when_ns, argument)
            if all(flow.is_done() for flow in self.flows):
                return
        self.now_ns = until_ns


def path(rate_bps: float, rtt_ms: float, buffer_bdp: float, loss: float = 0.0, seed: int = 1, **other: object) -> Link:
    """A link of one rate with independent loss each way."""
    rng = random.Random(seed)
    rtt_ns = int(rtt_ms * MS)
    bdp_bytes = rate_bps * rtt_ns / 8e9
    arguments: dict[str, object] = {
        "loss": independent_loss(loss, rng),
        "ack_loss": independent_loss(loss, rng),
        "rng": rng,
    } | other
    return Link([(0, rate_bps)], rtt_ns, max(buffer_bdp * bdp_bytes, 4 * DATAGRAM_BYTES), **arguments)  # type: ignore[arg-type]


def goodput_bps(flow: Flow, from_ns: int, to_ns: int) -> float:
    """What arrived between two times, in bits per second."""
    first = max((d for t, d in flow.record.delivered if t <= from_ns), default=0)
    last = max((d for t, d in flow.record.delivered if t <= to_ns), default=0)
    return (last - first) * 8e9 / (to_ns - from_ns)


def jain(shares: list[float]) -> float:
    """Jain's fairness index: 1 when all are equal, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))
