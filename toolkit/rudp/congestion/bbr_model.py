"""BBR's network path model: the measurements of `path_model`, random loss, congestion bounds; and the probe timer.

What counts as random loss, and what as congestion, is described in `random_loss`.

Read: draft-ietf-ccwg-bbr sections 5.5 (network path model), 5.5.10 (congestion signals), 5.3.3.5 (time scale
of probes) and 5.3.3.6 (raising the long-term bound).
"""

from dataclasses import dataclass, replace
from typing import Final

from toolkit.rudp.congestion.base import ACKS_PER_RTT, BITS_PER_BYTE, NS_PER_S, UNMEASURED_RTT_NS, AckSample
from toolkit.rudp.congestion.path_model import ExtraAcked, FullBandwidth, MaxBandwidth, MinRtt, QueueDelay, Rounds
from toolkit.rudp.congestion.random_loss import RandomLoss

UNBOUNDED: Final = float("inf")

HOST_RTT_NS: Final = 2_000_000
"""Lower limit of the RTT in the bandwidth-delay product. On a LAN or within one machine, most of the RTT is the time
that busy hosts take to process a batch, and the minimum RTT does not include it."""
_MIN_PIPE_DATAGRAMS: Final = 4
"""BBR.MinPipeCwnd."""
_HEADROOM: Final = 0.15
"""BBR.Headroom: the part of the long-term bound that is left to other flows while cruising."""
BETA: Final = 0.7
"""BBR.Beta: a congested round lowers the short-term bounds to this share, unless more was measured."""
_TARGET_QUEUE_RTT_DIVISOR: Final = 20
_TARGET_QUEUE_NS: Final = 2_000_000
_TARGET_QUEUE_DATAGRAMS: Final = 2
"""CRUISE aims for a queue of a twentieth of the RTT plus 2 ms, so that the bottleneck stays busy when the host delays
the sender for a moment, and of two of its own datagrams, so that the flow with the least rate gives way the least.
Once a loss has revealed a short buffer, such a queue is tolerated but not aimed for."""
_UP_SLOPE_DIVISOR: Final = 16
"""ProbeBW_UP raises the long-term bound by a 16th in its first round, and doubles the step in each further round. The
draft starts with one packet, which is slow on a path that has become much wider, or where jitter ended Startup early. A
queue ends ProbeBW_UP in any case."""

_PROBE_WAIT_ROUNDS: Final = 16
_FIRST_PROBE_WAIT_ROUNDS: Final = 2
"""The first probe comes early because it corrects a Startup that ended too soon."""
_FIRST_PROBE_WAIT_NS: Final = 20_000_000
_MIN_PROBE_WAIT_NS: Final = 200_000_000
"""On a LAN, 16 round trips are so short that the packets that probes lose would add up."""
_MAX_PROBE_WAIT_NS: Final = 2 * NS_PER_S
_PROBE_WAIT_SPREAD: Final = 0.5
"""Waits are randomly up to this share longer, so that flows do not probe in step."""
_XORSHIFT_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on what BBR sends; infinite if not set.

    inflight_longterm:  bytes in flight that proved too much during a probe
    bw_shortterm:       bits per second, until the next probe
    inflight_shortterm: bytes in flight, until the next probe
    """

    inflight_longterm: float = UNBOUNDED
    bw_shortterm: float = UNBOUNDED
    inflight_shortterm: float = UNBOUNDED


class CongestionBounds:
    """The bounds in force (`current`) and how to undo the last change.

    A change can be undone only by a spurious loss of a packet sent before the change, hence the time argument.
    """

    def __init__(self) -> None:
        self.current = Bounds()
        self._previous: Bounds | None = None
        self._changed_ns = 0
        self._up_slope_bytes = 0.0

    @property
    def has_longterm(self) -> bool:
        """Whether a loss has ever shown the limit of the path's buffer."""
        return self.current.inflight_longterm < UNBOUNDED

    def set_longterm(self, now_ns: int, in_flight_bytes: float) -> None:
        """Set the long-term bound and clear the short-term bounds."""
        self._set(now_ns, Bounds(inflight_longterm=in_flight_bytes))

    def set_longterm_after_probe(self, now_ns: int, in_flight_at_send_bytes: int, target_bytes: float) -> None:
        """A probe found its volume in flight to be too much. The bound is at least `target_bytes`."""
        self.set_longterm(now_ns, max(float(in_flight_at_send_bytes), target_bytes))

    def set_longterm_after_startup(self, now_ns: int, in_flight_at_send_bytes: int, delivered_bytes: float) -> None:
        """Startup found its volume in flight to be too much; `delivered_bytes` arrived within one round trip.

        `delivered_bytes` is low if losses ended Startup early; BBR.Beta of the volume in flight is then closer.
        """
        self.set_longterm(now_ns, max(delivered_bytes, BETA * in_flight_at_send_bytes))

    def lower_shortterm(
        self, now_ns: int, max_bw_bps: float, cwnd_bytes: float, bw_latest_bps: float, inflight_latest_bytes: float
    ) -> None:
        """After a congested round: reduce the bounds to what was delivered, but by no more than BBR.Beta."""
        bandwidth_bps = min(self.current.bw_shortterm, max_bw_bps)
        inflight_bytes = min(self.current.inflight_shortterm, cwnd_bytes)
        self._set(
            now_ns,
            Bounds(
                inflight_longterm=self.current.inflight_longterm,
                bw_shortterm=max(bw_latest_bps, BETA * bandwidth_bps),
                inflight_shortterm=max(inflight_latest_bytes, BETA * inflight_bytes),
            ),
        )

    def reset_shortterm(self) -> None:
        """Clear the short-term bounds, because the next probe begins."""
        self.current = Bounds(inflight_longterm=self.current.inflight_longterm)
        self._previous = None

    def confirm(self) -> None:
        """Make the last change final: an ECN mark caused it, and a mark is never spurious."""
        self._previous = None

    def undo(self, lost_sent_time_ns: int) -> None:
        """Undo the last change if it reacted to the loss, now known to be spurious, of a packet sent at that time."""
        if self._previous is not None and self._changed_ns > lost_sent_time_ns:
            self.current, self._previous = self._previous, None

    def start_up(self, datagram_bytes: int) -> None:
        """ProbeBW_UP begins: reset the slope at which the long-term bound rises."""
        slope_bytes = self.current.inflight_longterm / _UP_SLOPE_DIVISOR if self.has_longterm else 0.0
        self._up_slope_bytes = max(float(datagram_bytes), slope_bytes)

    def end_up_round(self) -> None:
        """A round of ProbeBW_UP ends: double the slope."""
        self._up_slope_bytes *= 2

    def raise_longterm(self, acked_share_of_cwnd: float) -> None:
        """Raise the long-term bound by the slope times the share of the congestion window just acknowledged."""
        raised_bytes = self.current.inflight_longterm + self._up_slope_bytes * acked_share_of_cwnd
        self.current = replace(self.current, inflight_longterm=raised_bytes)

    def _set(self, now_ns: int, bounds: Bounds) -> None:
        self._previous, self.current, self._changed_ns = self.current, bounds, now_ns


class BbrModel:
    """Everything BBR knows about the path. Names without a unit are those of the draft.

    bw_latest:       best delivery rate of this round, bits per second
    inflight_latest: largest volume delivered within a round trip in this round, bytes
    """

    def __init__(self, datagram_bytes: int) -> None:
        self.datagram_bytes = datagram_bytes
        self.max_bw = MaxBandwidth()
        self.full_bw = FullBandwidth()
        self.min_rtt = MinRtt()
        self.extra_acked = ExtraAcked()
        self.rounds = Rounds()
        self.queue = QueueDelay()
        self.loss = RandomLoss(datagram_bytes)
        self.bounds = CongestionBounds()
        self.bw_latest = 0.0
        self.inflight_latest = 0

    def set_datagram_bytes(self, datagram_bytes: int) -> None:
        """The path's datagram size changed."""
        self.datagram_bytes = self.loss.datagram_bytes = datagram_bytes

    def update(self, sample: AckSample, cwnd_bytes: int) -> None:
        """Feed one batch of acknowledgements to all measurements."""
        if sample.rtt_ns is not None or self.min_rtt.ns is None:
            rtt_ns = sample.rtt_ns or sample.min_rtt_ns
            self.min_rtt.update(sample.now_ns, rtt_ns, self.queue.noise_margin_ns)
            self.queue.update(sample.now_ns, rtt_ns, self.min_rtt_ns)
        self.rounds.update(sample)
        self.loss.on_acked(sample.newly_acked_bytes)
        rate_bps = sample.delivery_rate_bps
        if rate_bps is not None:
            self.bw_latest = max(self.bw_latest, rate_bps)
            if not sample.is_lower_bound or rate_bps >= self.max_bw.bps:
                self.max_bw.update(rate_bps)
        self.inflight_latest = max(self.inflight_latest, sample.delivered_bytes - sample.prior_delivered_bytes)
        self.extra_acked.update(sample, self.bw_bps, cwnd_bytes, self.rounds.is_start)

    def has_measured_rate(self, sample: AckSample) -> bool:
        """Whether the round that ends with `sample` shows how much the path carries.

        If its queue never drained, the path was at its limit, even if the sender was late at times.
        """
        was_late = sample.is_late and not self.queue.is_standing(self.min_rtt_ns)
        return sample.delivery_rate_bps is not None and not sample.is_app_limited and not was_late

    def start_round(self, sample: AckSample) -> None:
        """A round begins with `sample`: measure the latest delivery anew."""
        self.bw_latest = sample.delivery_rate_bps or 0.0
        self.inflight_latest = sample.delivered_bytes - sample.prior_delivered_bytes

    @property
    def min_rtt_ns(self) -> int:
        """BBR.min_rtt, or a stand-in before the first sample."""
        return self.min_rtt.ns or UNMEASURED_RTT_NS

    @property
    def bw_bps(self) -> float:
        """BBR.bw: the bandwidth to send at."""
        return min(self.max_bw.bps, self.bounds.current.bw_shortterm)

    def bdp_bytes(self, bandwidth_bps: float, gain: float = 1.0) -> float:
        """What must be in flight for `bandwidth_bps` to be delivered, including what the path loses at random."""
        rtt_ns = max(self.min_rtt_ns, HOST_RTT_NS)
        delivered = bandwidth_bps * rtt_ns / (BITS_PER_BYTE * NS_PER_S)
        return gain * delivered / (1 - self.loss.ratio)

    @property
    def is_lan(self) -> bool:
        """Whether the hosts take longer than the path, and the path has never dropped packets for lack of buffer."""
        return self.min_rtt_ns < HOST_RTT_NS // 2 and not self.bounds.has_longterm

    @property
    def needed_bytes(self) -> float:
        """What must be in flight for our bandwidth, with acknowledgements as seldom as they are asked for."""
        bdp_bytes = self.bdp_bytes(self.bw_bps)
        return bdp_bytes + max(self.extra_acked.bytes, bdp_bytes / ACKS_PER_RTT)

    @property
    def target_queue_ns(self) -> float:
        """The queueing delay at which the bottleneck is always busy."""
        own_ns = _TARGET_QUEUE_DATAGRAMS * self.datagram_bytes * BITS_PER_BYTE * NS_PER_S / max(self.bw_bps, 1.0)
        return _TARGET_QUEUE_NS + self.min_rtt_ns / _TARGET_QUEUE_RTT_DIVISOR + min(own_ns, self.min_rtt_ns)

    @property
    def min_pipe_bytes(self) -> int:
        """BBR.MinPipeCwnd."""
        return _MIN_PIPE_DATAGRAMS * self.datagram_bytes

    def is_loss_congestion(self, flight_bytes: int) -> bool:
        """Whether this round's loss is excessive while a queue is seen."""
        return self.queue.is_seen and self.loss.is_excessive(flight_bytes)

    def inflight_with_headroom(self) -> float:
        """Leave part of the long-term bound to other flows, but keep enough for our own bandwidth."""
        if not self.bounds.has_longterm:
            return UNBOUNDED
        longterm_bytes = self.bounds.current.inflight_longterm
        needed_bytes = min(longterm_bytes, self.needed_bytes)
        return max((1 - _HEADROOM) * longterm_bytes, needed_bytes, self.min_pipe_bytes)


class ProbeTimer:
    """Decides when the next probe for bandwidth is due (draft section 5.3.3.5).

    A cycle lasts from the end of one probe to the end of the next.

    rounds: BBR.rounds_since_bw_probe, round trips of this cycle so far; the owner increments it
    """

    def __init__(self, seed: int) -> None:
        self.rounds = 0
        self._random_state = seed * 2 + 1 & _XORSHIFT_MASK
        self._start_ns = 0
        self._wait_rounds = 0
        self._wait_ns = 0
        self._min_wait_ns = 0

    def start_cycle(self, now_ns: int, is_first: bool) -> None:
        """Draw the length of this cycle: 16 to 24 round trips (the first: 2 or 3), but at most 2 to 3 s."""
        spread = 1 + _PROBE_WAIT_SPREAD * self._random()
        self.rounds = 0
        self._start_ns = now_ns
        self._wait_rounds = int((_FIRST_PROBE_WAIT_ROUNDS if is_first else _PROBE_WAIT_ROUNDS) * spread)
        self._min_wait_ns = _FIRST_PROBE_WAIT_NS if is_first else _MIN_PROBE_WAIT_NS
        self._wait_ns = int(_MAX_PROBE_WAIT_NS * spread)

    def is_due(self, now_ns: int) -> bool:
        """Whether the next probe should start."""
        waited_ns = now_ns - self._start_ns
        has_waited = self.rounds >= self._wait_rounds and waited_ns > self._min_wait_ns
        return has_waited or waited_ns > self._wait_ns

    def _random(self) -> float:
        """A number in [0, 1) from xorshift64*. Its only purpose is that flows differ."""
        x = self._random_state
        x ^= x >> 12
        x ^= x << 25 & _XORSHIFT_MASK
        x ^= x >> 27
        self._random_state = x
        return (x * 0x2545F4914F6CDD1D & _XORSHIFT_MASK) / (_XORSHIFT_MASK + 1)
