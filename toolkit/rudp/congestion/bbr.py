"""BBR: sends at the rate that the path has shown it can deliver, and probes now and then whether it can more.

Theory. A path has a bandwidth and a round-trip time; with their product in flight it is full and no queue stands. Both
are measured, but not at once: more bandwidth shows only when the queue is filled, the minimum RTT only when it is
empty. So BBR takes turns. *Startup* doubles the rate until it no longer rises; *Drain* lets the queue go again that
this has built; *ProbeBW* cycles through DOWN (a tenth less, until the queue is gone), CRUISE (at the rate), REFILL (one
round to fill the pipe) and UP (a quarter more, to see whether it is delivered). *ProbeRTT* halves what is in flight for
200 ms where the queue was not seen empty for 5 s. Losses and marks that mean congestion lower bounds: for long, what
was in flight when probing caused them; for the rest of the cycle, the bandwidth and volume measured.

Choices of our own (docs/congestion-control.md has the reasons and the measurements):
- which loss is congestion: see `bbr_loss`;
- CRUISE steers for a short queue and DOWN sends less for a longer one, where the draft always takes off 1%, and the
  window is 1.25 times the product, not twice: a lone flow wastes nothing, several together drain what they have built,
  and the RTT stays below 1.5 times its minimum in a buffer of any depth;
- Startup also ends when a deep queue grows and the rate does not, and grows the window by 1.5 times what is
  acknowledged, which makes up for acknowledgements that come a quarter of a round trip late;
- UP ends once its 1.25 products are in flight and a queue is seen, and comes every 16 to 24 round trips, not every 2
  to 3 s: a short transfer too must notice that its path has changed;
- where the hosts take longer than the path (a LAN, one machine), the window paces, until a loss shows a short buffer.

Read: draft-ietf-ccwg-bbr (no RFC yet), section 5; the names are the draft's.
"""

from typing import Final

from toolkit.rudp.congestion.base import UNMEASURED_RTT_NS, AckSample, LossSample, initial_window_bytes, window_rate_bps
from toolkit.rudp.congestion.bbr_bounds import CongestionBounds
from toolkit.rudp.congestion.bbr_loss import PathLoss
from toolkit.rudp.congestion.bbr_phases import CWND_GAIN, PACING_GAIN, PROBING, SUCCESSORS, Phase, ProbeClock
from toolkit.rudp.congestion.path_model import ExtraAcked, FullBandwidth, MaxBandwidth, MinRtt, QueueDelay, Rounds

_NS_PER_S: Final = 1_000_000_000
_BITS_PER_BYTE: Final = 8
_UNBOUNDED: Final = float("inf")

_STARTUP_GROWTH: Final = 1.5
"""By how much of what is acknowledged the window grows in Startup."""
_STARTUP_WINDOW_GAIN: Final = 2.0
"""At least so many windows a round trip are paced in Startup, so that acknowledgements come early in it."""
_FULL_BW_ROUNDS: Final = 3
"""BBR.full_bw_reached: the pipe is full after three rounds that brought less than a quarter more (section 5.3.1.2)."""
_EXCESSIVE_ROUNDS: Final = 2
"""Excessive loss without a queue counts when two rounds on end show it, in which more is being sent: one may be a
burst of the path's own, two are a policer or a buffer of a few packets."""
_DRAIN_ROUNDS: Final = 3
"""Whatever does not drain within so many is not our queue."""
_HEADROOM: Final = 0.15
"""BBR.Headroom: the part of the long-term bound that is left to others while cruising."""
_MIN_PIPE_DATAGRAMS: Final = 4
"""BBR.MinPipeCwnd."""
_PROBE_RTT_NS: Final = 200_000_000
"""BBR.ProbeRTTDuration."""
_HOST_RTT_NS: Final = 8_000_000
"""A product of bandwidth and delay is made with no shorter RTT: on a LAN, and between two processes of one machine,
what two busy hosts take to handle a batch is most of the RTT, and is not in its minimum."""
_LAN_GAIN: Final = 2.0
"""Paces at no less than this where the hosts are what takes time: the window is what bounds a LAN."""

_STANDING_QUEUE_DIVISOR: Final = 20
_STANDING_QUEUE_NS: Final = 2_000_000
"""The queue that CRUISE steers for: a twentieth of the RTT and 2 ms. A sender that its host lets wait for a moment then
leaves no gap at the bottleneck. Where a loss has shown how short the buffer is, it is only put up with."""
_QUEUE_SLOPE: Final = 0.5
_QUEUE_SCALE_NS: Final = 10_000_000
"""How much less is sent for a queue beyond that (and more for one below), per round trip and 10 ms of it."""
_MAX_QUEUE_REACTION: Final = {Phase.CRUISE: 0.1, Phase.DOWN: 0.15}


class Bbr:
    """See `base.CongestionController`; (datagram_bytes, rate_bps or None as a bound, seed of the probe times)."""

    name = "bbr"

    def __init__(self, datagram_bytes: int, rate_bps: float | None, seed: int) -> None:
        self._datagram_bytes = datagram_bytes
        self._rate_bound_bps = rate_bps
        self._probe_clock = ProbeClock(seed)
        self.phase = Phase.STARTUP

        self._max_bw = MaxBandwidth()
        self._min_rtt = MinRtt()
        self._extra_acked = ExtraAcked()
        self._rounds = Rounds()
        self._queue = QueueDelay()
        self._loss = PathLoss(datagram_bytes)
        self._bounds = CongestionBounds()
        self._last_lost_bytes = 0
        self._bw_latest = 0.0
        self._inflight_latest = 0
        self._is_round_congested = False
        self._excessive_rounds = 0

        self._full_bw = FullBandwidth()
        self._full_bw_reached = False

        self._phase_start_ns = 0
        self._phase_rounds = 0
        self._down_rounds = 0
        self._probe_rtt_done_ns: int | None = None

        self._window_bytes = float(initial_window_bytes(datagram_bytes))
        self._prior_window_bytes = 0.0
        gain = PACING_GAIN[Phase.STARTUP]
        self._pacing_rate_bps = gain * window_rate_bps(self._window_bytes, UNMEASURED_RTT_NS)

    @property
    def congestion_window_bytes(self) -> int:
        return int(self._window_bytes)

    @property
    def pacing_rate_bps(self) -> float:
        return min(self._pacing_rate_bps, self._rate_bound_bps or _UNBOUNDED)

    def snapshot(self) -> dict[str, float | str]:
        return {
            "phase": self.phase.value,
            "congestion_window": self._window_bytes,
            "max_bw": self._max_bw.bps,
            "min_rtt": float(self._min_rtt.ns or 0),
            "extra_acked": self._extra_acked.bytes,
            "path_loss": self._loss.share,
            "inflight_longterm": self._bounds.now.inflight_longterm,
            "bw_shortterm": self._bounds.now.bw_shortterm,
            "inflight_shortterm": self._bounds.now.inflight_shortterm,
        }

    def on_datagram_size(self, datagram_bytes: int) -> None:
        self._datagram_bytes = self._loss.datagram_bytes = datagram_bytes
        self._window_bytes = max(self._window_bytes, self._min_pipe_bytes)

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        del sent_bytes
        if bytes_in_flight == 0 and is_app_limited:
            self._min_rtt.postpone_probe(now_ns)

    def on_loss(self, sample: LossSample) -> None:
        if sample.is_persistent:
            # A silence, not a queue: start carefully, and take the window up again after one good round.
            self._prior_window_bytes = max(self._prior_window_bytes, self._window_bytes)
            self._window_bytes = float(max(sample.bytes_in_flight, self._min_pipe_bytes))
            self._loss.forget_round()
            return
        self._last_lost_bytes = sample.lost_bytes
        self._loss.on_lost(sample.lost_bytes)
        if self._is_loss_congestion(sample.in_flight_at_send_bytes):
            self._on_congestion(sample.now_ns, sample.in_flight_at_send_bytes)

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        del now_ns
        self._loss.on_spurious(self._last_lost_bytes)
        self._last_lost_bytes = 0
        self._bounds.undo(lost_sent_time_ns)

    def on_ack(self, sample: AckSample) -> None:
        self._update_model(sample)
        if sample.ecn_ce_count or self._is_loss_congestion(sample.in_flight_at_send_bytes):
            self._on_congestion(sample.now_ns, sample.in_flight_at_send_bytes)
        if sample.ecn_ce_count:
            self._bounds.confirm()
        if self._rounds.is_start:
            self._end_round(sample)
        self._update_phase(sample)
        if self._rounds.is_start:
            self._bw_latest = sample.delivery_rate_bps or 0.0
            self._inflight_latest = sample.delivered_bytes - sample.prior_delivered_bytes
        self._set_window(sample)
        self._set_pacing_rate(sample.smoothed_rtt_ns)

    # The model of the path (section 5.5)

    def _update_model(self, sample: AckSample) -> None:
        if sample.rtt_ns is not None or self._min_rtt.ns is None:
            rtt_ns = sample.rtt_ns or sample.min_rtt_ns
            self._min_rtt.update(sample.now_ns, rtt_ns)
            self._queue.update(rtt_ns, self._min_rtt_ns)
        self._rounds.update(sample)
        self._loss.on_acked(sample.newly_acked_bytes)
        rate_bps = sample.delivery_rate_bps
        if rate_bps is not None:
            self._bw_latest = max(self._bw_latest, rate_bps)
            if not sample.is_app_limited or rate_bps >= self._max_bw.bps:
                self._max_bw.update(rate_bps)
        self._inflight_latest = max(self._inflight_latest, sample.delivered_bytes - sample.prior_delivered_bytes)
        self._extra_acked.update(sample, self._bw_bps, self.congestion_window_bytes, self._rounds.is_start)

    @property
    def _min_rtt_ns(self) -> int:
        return self._min_rtt.ns or UNMEASURED_RTT_NS

    @property
    def _bw_bps(self) -> float:
        """BBR.bw: what the model says that the path delivers."""
        return min(self._max_bw.bps, self._bounds.now.bw_shortterm)

    def _bdp_bytes(self, bandwidth_bps: float, gain: float = 1.0) -> float:
        """What must be in flight for `bandwidth_bps` to be delivered, the part that the path loses included."""
        rtt_ns = max(self._min_rtt_ns, _HOST_RTT_NS)
        delivered = bandwidth_bps * rtt_ns / (_BITS_PER_BYTE * _NS_PER_S)
        return gain * delivered / (1 - self._loss.share)

    @property
    def _is_lan(self) -> bool:
        """The hosts take longer than the path, and it has never dropped for want of room."""
        return self._min_rtt_ns < _HOST_RTT_NS // 8 and not self._bounds.has_longterm

    @property
    def _min_pipe_bytes(self) -> int:
        return _MIN_PIPE_DATAGRAMS * self._datagram_bytes

    # Congestion (sections 5.5.10 and 5.5.11)

    def _is_loss_congestion(self, flight_bytes: int) -> bool:
        return self._queue.is_seen and self._loss.is_excessive(flight_bytes)

    def _on_congestion(self, now_ns: int, in_flight_at_send_bytes: int) -> None:
        """Too much was sent. Whoever was probing has found the bound; the others act once, when the round ends."""
        self._is_round_congested = True
        if self.phase in PROBING:
            target_bytes = min(self._bdp_bytes(self._bw_bps), self._window_bytes)
            self._bounds.set_longterm_by_probe(now_ns, in_flight_at_send_bytes, target_bytes)
            self._start_down(now_ns)

    # Once a round trip

    def _end_round(self, sample: AckSample) -> None:
        self._phase_rounds += 1
        self._probe_clock.rounds += 1
        self._queue.end_round(self._min_rtt_ns)
        is_growing = False
        if sample.delivery_rate_bps is not None and not sample.is_app_limited:
            is_growing = self._full_bw.end_round(self._bw_latest)
        is_excessive = self._loss.is_excessive(sample.in_flight_at_send_bytes)
        self._excessive_rounds = self._excessive_rounds + 1 if is_excessive else 0
        if self.phase is Phase.STARTUP:
            self._check_startup_done(sample, is_growing)
            is_of_the_path = is_growing and self._queue.was_absent and not is_excessive
        elif self.phase in PROBING:
            if self._excessive_rounds >= _EXCESSIVE_ROUNDS:
                self._on_congestion(sample.now_ns, sample.in_flight_at_send_bytes)
            is_of_the_path = False
        else:
            # What UP sent too much is declared lost in the first two rounds of DOWN, and answered already.
            is_of_the_path = self._queue.was_absent and self._probe_clock.rounds >= 2
            if is_excessive and self._is_lan:
                self._bounds.set_longterm(sample.now_ns, sample.in_flight_at_send_bytes)
            if self._is_round_congested and self._probe_clock.rounds >= 2:
                self._bounds.lower(
                    sample.now_ns, self._max_bw.bps, self._window_bytes, self._bw_latest, self._inflight_latest
                )
        down_rounds = self._phase_rounds if self.phase is Phase.DOWN else self._down_rounds
        self._loss.end_round(is_of_the_path, is_below_capacity=2 <= self._probe_clock.rounds <= 1 + down_rounds)
        if self.phase is not Phase.PROBE_RTT and not self._is_round_congested:
            self._restore_window()
        if self.phase is Phase.UP:
            self._bounds.end_up_round()
        self._is_round_congested = False

    def _check_startup_done(self, sample: AckSample, is_growing: bool) -> None:
        """The pipe is full after rounds without growth: three, or two where they lose too much or have a queue."""
        is_hinted = self._excessive_rounds >= _EXCESSIVE_ROUNDS or self._queue.is_standing(self._min_rtt_ns)
        wanted_rounds = _FULL_BW_ROUNDS - 1 if is_hinted else _FULL_BW_ROUNDS
        if self._is_round_congested or (not is_growing and self._full_bw.has_plateau(wanted_rounds)):
            self._full_bw_reached = True
            if self._is_round_congested or self._excessive_rounds:
                needed_bytes = self._bdp_bytes(self._max_bw.bps) + self._extra_acked.bytes
                delivered_bytes = max(min(needed_bytes, sample.in_flight_at_send_bytes), self._inflight_latest)
                self._bounds.set_longterm_by_startup(sample.now_ns, sample.in_flight_at_send_bytes, delivered_bytes)

    # Phases (section 5.3)

    def _enter(self, phase: Phase, now_ns: int) -> None:
        if phase not in SUCCESSORS[self.phase]:
            raise AssertionError(f"{phase} does not follow {self.phase}")
        self.phase = phase
        self._phase_start_ns = now_ns
        self._phase_rounds = 0
        self._queue.forget_standing()

    def _start_down(self, now_ns: int) -> None:
        self._enter(Phase.DOWN, now_ns)
        self._probe_clock.start_cycle(now_ns, is_first=False)
        self._down_rounds = 0
        self._rounds.restart()

    def _start_first_cruise(self, now_ns: int) -> None:
        """After Drain and ProbeRTT there is nothing left to drain."""
        self._enter(Phase.CRUISE, now_ns)
        self._probe_clock.start_cycle(now_ns, is_first=True)
        self._down_rounds = 0

    def _update_phase(self, sample: AckSample) -> None:
        now_ns = sample.now_ns
        bdp_bytes = self._bdp_bytes(self._max_bw.bps)
        if self.phase is Phase.STARTUP:
            if self._full_bw_reached or (self._queue.is_deep and not self._full_bw.is_growth(self._bw_latest)):
                self._full_bw_reached = True
                self._enter(Phase.DRAIN, now_ns)
        elif self.phase is Phase.DRAIN:
            if sample.bytes_in_flight <= bdp_bytes or self._phase_rounds > _DRAIN_ROUNDS:
                self._start_first_cruise(now_ns)
        elif self.phase is Phase.DOWN:
            self._update_down(sample, bdp_bytes)
        elif self.phase is Phase.CRUISE:
            if self._probe_clock.is_due(now_ns):
                self._start_refill(now_ns)
        elif self.phase is Phase.REFILL:
            if self._rounds.is_start and self._phase_rounds >= 1:
                self._start_up(sample)
        elif self.phase is Phase.UP:
            self._update_up(sample, bdp_bytes)
        self._update_probe_rtt(sample)

    def _update_down(self, sample: AckSample, bdp_bytes: float) -> None:
        if self._rounds.is_start and self._phase_rounds == 1:
            self._max_bw.advance()  # what UP sent is acknowledged now
        if self._probe_clock.is_due(sample.now_ns):
            self._start_refill(sample.now_ns)
        elif self._phase_rounds >= 1 and sample.bytes_in_flight <= min(bdp_bytes, self._inflight_with_headroom()):
            self._down_rounds = self._phase_rounds
            self._enter(Phase.CRUISE, sample.now_ns)

    def _start_refill(self, now_ns: int) -> None:
        self._bounds.drop_short_term()
        self._enter(Phase.REFILL, now_ns)
        self._rounds.restart()

    def _start_up(self, sample: AckSample) -> None:
        self._enter(Phase.UP, sample.now_ns)
        self._full_bw.restart(sample.delivery_rate_bps or 0.0)
        self._bounds.start_up(self._datagram_bytes)

    def _update_up(self, sample: AckSample, bdp_bytes: float) -> None:
        """Raise the long-term bound while it is what holds us, and leave when there is no more to find."""
        if sample.is_window_limited and self._window_bytes >= self._bounds.now.inflight_longterm:
            self._bounds.raise_longterm(sample.newly_acked_bytes / self._window_bytes)
            self._full_bw.restart(sample.delivery_rate_bps or 0.0)
        has_probed = sample.now_ns >= self._phase_start_ns + self._min_rtt_ns
        is_full = sample.prior_in_flight_bytes >= PACING_GAIN[Phase.UP] * bdp_bytes and self._queue.is_seen
        if self._full_bw.has_plateau(_FULL_BW_ROUNDS) or (has_probed and is_full):
            self._start_down(sample.now_ns)

    def _update_probe_rtt(self, sample: AckSample) -> None:
        if self.phase is not Phase.PROBE_RTT:
            if self._min_rtt.is_probe_due and self._full_bw_reached and sample.bytes_in_flight:
                self._enter(Phase.PROBE_RTT, sample.now_ns)
                self._prior_window_bytes = max(self._prior_window_bytes, self._window_bytes)
                self._probe_rtt_done_ns = None
        elif self._probe_rtt_done_ns is None:
            if sample.bytes_in_flight <= self._probe_rtt_window_bytes():
                self._probe_rtt_done_ns = sample.now_ns + _PROBE_RTT_NS
                self._phase_rounds = 0
                self._rounds.restart()
                self._min_rtt.start_probe(sample.rtt_ns or sample.smoothed_rtt_ns)
        elif self._phase_rounds >= 1 and sample.now_ns > self._probe_rtt_done_ns:
            self._min_rtt.end_probe(sample.now_ns)
            self._restore_window()
            self._bounds.drop_short_term()
            self._start_first_cruise(sample.now_ns)

    # Control (section 5.6)

    def _pacing_gain(self) -> float:
        gain = PACING_GAIN[self.phase]
        if self._is_lan and self._queue.standing_ns < _HOST_RTT_NS:
            return max(gain, _LAN_GAIN)
        if self.phase in _MAX_QUEUE_REACTION:
            wanted_ns = _STANDING_QUEUE_NS + self._min_rtt_ns // _STANDING_QUEUE_DIVISOR
            excess = (self._queue.standing_ns - wanted_ns) / (self._min_rtt_ns + _QUEUE_SCALE_NS)
            may_fill = self.phase is Phase.CRUISE and not self._bounds.has_longterm
            gain -= min(_QUEUE_SLOPE * (excess if may_fill else max(excess, 0.0)), _MAX_QUEUE_REACTION[self.phase])
        return gain

    def _set_pacing_rate(self, smoothed_rtt_ns: int) -> None:
        rate_bps = self._pacing_gain() * self._bw_bps / (1 - self._loss.share)
        if not self._full_bw_reached:
            # The delivery rate is a round behind the window, which doubles: pace what the window lets go.
            rate_bps = max(rate_bps, _STARTUP_WINDOW_GAIN * window_rate_bps(self._window_bytes, smoothed_rtt_ns))
        self._pacing_rate_bps = max(rate_bps, window_rate_bps(self._min_pipe_bytes, smoothed_rtt_ns))

    def _set_window(self, sample: AckSample) -> None:
        most_bytes = self._bdp_bytes(self._bw_bps, CWND_GAIN[self.phase]) + self._extra_acked.bytes
        window_bytes = self._window_bytes
        if self._full_bw_reached:
            window_bytes = min(window_bytes + sample.newly_acked_bytes, most_bytes)
        elif window_bytes < most_bytes or sample.delivery_rate_bps is None:
            window_bytes += _STARTUP_GROWTH * sample.newly_acked_bytes / (1 - self._loss.share)
        self._window_bytes = max(min(window_bytes, self._window_bound_bytes()), self._min_pipe_bytes)

    def _window_bound_bytes(self) -> float:
        if self.phase in (Phase.STARTUP, Phase.DRAIN):
            return self._bounds.now.inflight_shortterm
        if self.phase is Phase.PROBE_RTT:
            return min(self._probe_rtt_window_bytes(), self._inflight_with_headroom())
        if self.phase is Phase.CRUISE:
            return min(self._bounds.now.inflight_shortterm, self._inflight_with_headroom())
        return min(self._bounds.now.inflight_shortterm, self._bounds.now.inflight_longterm)

    def _inflight_with_headroom(self) -> float:
        """Leave a part of the long-term bound to others, but not so much that our own bandwidth has no room."""
        if not self._bounds.has_longterm:
            return _UNBOUNDED
        longterm_bytes = self._bounds.now.inflight_longterm
        needed_bytes = min(longterm_bytes, self._bdp_bytes(self._bw_bps) + self._extra_acked.bytes)
        return max((1 - _HEADROOM) * longterm_bytes, needed_bytes, self._min_pipe_bytes)

    def _probe_rtt_window_bytes(self) -> float:
        return max(self._bdp_bytes(self._bw_bps, CWND_GAIN[Phase.PROBE_RTT]), self._min_pipe_bytes)

    def _restore_window(self) -> None:
        self._window_bytes = max(self._window_bytes, self._prior_window_bytes)
        self._prior_window_bytes = 0.0
