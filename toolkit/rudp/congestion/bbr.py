"""BBR: sends at the rate the path has shown it can deliver, and probes from time to time for more.

Theory. With one bandwidth-delay product (BDP) in flight, a path is full and has no queue. Bandwidth and minimum RTT
cannot be measured at the same time: more bandwidth shows only while the queue fills, the minimum RTT only while it is
empty. BBR therefore alternates between phases:

- *Startup* doubles the rate each round until the delivery rate stops growing.
- *Drain* empties the queue that Startup built.
- *ProbeBW* cycles through DOWN (send a tenth less until the queue is gone), CRUISE (send at the estimated bandwidth),
  REFILL (fill the pipe for one round) and UP (send a quarter more and see whether it is delivered).
- *ProbeRTT* halves the volume in flight for 200 ms if no empty queue has been seen for 5 s.

Losses and ECN marks that indicate congestion set bounds: a long-term bound on the volume in flight if a probe caused
them, short-term bounds on bandwidth and volume until the next probe otherwise.

Deviations from the draft (reasons and measurements are in docs/congestion-control.md):

- Which losses count as congestion: see `bbr_model`.
- CRUISE aims for a short queue and DOWN sends less the longer the queue is; the draft always paces at 99%. The window
  is 1.25 BDP, not 2. A single flow then wastes nothing, several flows drain what they have built together, and the RTT
  stays below 1.5 times its minimum in a buffer of any depth.
- Startup has more exits than in the draft (`_update_startup` lists them), and grows the window by 1.5 times what is
  acknowledged, because acknowledgements arrive up to a quarter of a round trip late.
- UP ends once 1.25 BDP are in flight and a queue is seen. It starts every 16 to 24 round trips, not every 2 to 3 s, so
  that short transfers also notice a changed path.
- After Drain and ProbeRTT nothing is left to drain, so ProbeBW starts with CRUISE instead of DOWN.
- On a LAN, the window limits the flow rather than the pacing rate, until a loss reveals a short buffer.

Read: draft-ietf-ccwg-bbr section 5, whose names are used here.
"""

from enum import Enum
from typing import Final, NamedTuple

from toolkit.rudp.congestion.base import UNMEASURED_RTT_NS, AckSample, LossSample, initial_window_bytes, window_rate_bps
from toolkit.rudp.congestion.bbr_model import HOST_RTT_NS, UNBOUNDED, BbrModel, ProbeTimer


class Phase(Enum):
    """States of the state machine, draft sections 5.3.1 to 5.3.4. Four of them make up ProbeBW."""

    STARTUP = "startup"
    DRAIN = "drain"
    DOWN = "probe_bw_down"
    CRUISE = "probe_bw_cruise"
    REFILL = "probe_bw_refill"
    UP = "probe_bw_up"
    PROBE_RTT = "probe_rtt"


class PhaseSpec(NamedTuple):
    """pacing_gain: multiplies the bandwidth (draft section 5.6.1)
    cwnd_gain:   multiplies the BDP; the volume that acknowledgements aggregate is added
    successors:  the phases that may follow
    """

    pacing_gain: float
    cwnd_gain: float
    successors: frozenset[Phase]


PHASES: Final = {
    # 2.77 = 4 ln 2 is the smallest gain that doubles the delivery rate each round.
    Phase.STARTUP: PhaseSpec(2.77, 2.5, frozenset({Phase.DRAIN})),
    Phase.DRAIN: PhaseSpec(0.5, 2.0, frozenset({Phase.CRUISE, Phase.PROBE_RTT})),
    Phase.DOWN: PhaseSpec(0.9, 1.25, frozenset({Phase.CRUISE, Phase.REFILL, Phase.PROBE_RTT})),
    Phase.CRUISE: PhaseSpec(1.0, 1.25, frozenset({Phase.REFILL, Phase.PROBE_RTT})),
    Phase.REFILL: PhaseSpec(1.0, 1.25, frozenset({Phase.UP, Phase.DOWN, Phase.PROBE_RTT})),
    Phase.UP: PhaseSpec(1.25, 1.3, frozenset({Phase.DOWN, Phase.PROBE_RTT})),
    Phase.PROBE_RTT: PhaseSpec(1.0, 0.5, frozenset({Phase.CRUISE})),
}
_PROBING: Final = frozenset({Phase.REFILL, Phase.UP})
"""Phases that send more in order to find out how much is too much."""

_STARTUP_CWND_GROWTH: Final = 1.5
"""How much the window grows in Startup per byte acknowledged."""
_STARTUP_WINDOWS_PER_RTT: Final = 2.0
"""Startup paces at least this many windows per round trip, so that acknowledgements come early in it."""
_FULL_BW_ROUNDS: Final = 3
"""BBR.full_bw_reached: the pipe is full after this many rounds without 25% growth (section 5.3.1.2)."""
_EXCESSIVE_LOSS_ROUNDS: Final = 2
"""Excessive loss without a queue is congestion if this many successive rounds of a probe show it. One round may be a
loss burst of the path; two are a policer or a buffer of a few packets."""
_DRAIN_ROUNDS: Final = 3
"""A queue that has not drained after this many rounds is not ours."""
_PROBE_RTT_NS: Final = 200_000_000
"""BBR.ProbeRTTDuration."""
_LAN_PACING_GAIN: Final = 2.0
"""Minimum pacing gain where the hosts take longer than the path: the window limits the flow there."""

_TARGET_QUEUE_RTT_DIVISOR: Final = 20
_TARGET_QUEUE_NS: Final = 2_000_000
"""CRUISE aims for a queue of a twentieth of the RTT plus 2 ms, so that the bottleneck stays busy when the host delays
the sender for a moment. Once a loss has revealed a short buffer, such a queue is tolerated but not aimed for."""
_QUEUE_SLOPE: Final = 0.5
_QUEUE_SCALE_NS: Final = 10_000_000
"""The pacing gain changes by _QUEUE_SLOPE per queueing delay of one RTT plus 10 ms beyond the target."""
_MAX_QUEUE_REACTION: Final = {Phase.CRUISE: 0.1, Phase.DOWN: 0.15}
"""Largest such change of the pacing gain, in the phases that react to the queue."""


class Bbr:
    """Implements `base.CongestionController`. `rate_bps` limits the pacing rate; `seed` varies the probe times."""

    name = "bbr"

    def __init__(self, datagram_bytes: int, rate_bps: float | None, seed: int) -> None:
        self.phase = Phase.STARTUP
        self._rate_limit_bps = rate_bps or UNBOUNDED
        self._model = BbrModel(datagram_bytes)
        self._probe_timer = ProbeTimer(seed)
        self._full_bw_reached = False
        self._is_round_congested = False
        self._excessive_loss_rounds = 0
        self._last_lost_bytes = 0
        self._phase_start_ns = 0
        self._phase_rounds = 0
        self._down_rounds = 0
        self._probe_rtt_done_ns: int | None = None
        self._cwnd_bytes = float(initial_window_bytes(datagram_bytes))
        self._prior_cwnd_bytes = 0.0
        initial_rate_bps = window_rate_bps(self._cwnd_bytes, UNMEASURED_RTT_NS)
        self._pacing_rate_bps = PHASES[Phase.STARTUP].pacing_gain * initial_rate_bps

    @property
    def congestion_window_bytes(self) -> int:
        return int(self._cwnd_bytes)

    @property
    def pacing_rate_bps(self) -> float:
        return min(self._pacing_rate_bps, self._rate_limit_bps)

    def snapshot(self) -> dict[str, float | str]:
        model = self._model
        return {
            "phase": self.phase.value,
            "congestion_window": self._cwnd_bytes,
            "max_bw": model.max_bw.bps,
            "min_rtt": float(model.min_rtt.ns or 0),
            "extra_acked": model.extra_acked.bytes,
            "path_loss": model.loss.ratio,
            "inflight_longterm": model.bounds.current.inflight_longterm,
            "bw_shortterm": model.bounds.current.bw_shortterm,
            "inflight_shortterm": model.bounds.current.inflight_shortterm,
        }

    def on_datagram_size(self, datagram_bytes: int) -> None:
        self._model.set_datagram_bytes(datagram_bytes)
        self._cwnd_bytes = max(self._cwnd_bytes, self._model.min_pipe_bytes)

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        del sent_bytes
        if bytes_in_flight == 0 and is_app_limited:
            self._model.min_rtt.postpone_probe(now_ns)

    def on_loss(self, sample: LossSample) -> None:
        model = self._model
        if sample.is_persistent:
            # An outage, not a queue: restart with a small window, and restore the old one after one good round.
            self._save_cwnd()
            self._cwnd_bytes = float(max(sample.bytes_in_flight, model.min_pipe_bytes))
            model.loss.discard_round()
            return
        self._last_lost_bytes = sample.lost_bytes
        model.loss.on_lost(sample.lost_bytes)
        if model.is_loss_congestion(sample.in_flight_at_send_bytes):
            self._on_congestion(sample.now_ns, sample.in_flight_at_send_bytes)

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        del now_ns
        self._model.loss.on_spurious(self._last_lost_bytes)
        self._last_lost_bytes = 0
        self._model.bounds.undo(lost_sent_time_ns)

    def on_ack(self, sample: AckSample) -> None:
        model = self._model
        model.update(sample, self.congestion_window_bytes)
        if sample.ecn_ce_count or model.is_loss_congestion(sample.in_flight_at_send_bytes):
            self._on_congestion(sample.now_ns, sample.in_flight_at_send_bytes)
        if sample.ecn_ce_count:
            model.bounds.confirm()
        if model.rounds.is_start:
            self._end_round(sample)
        self._update_phase(sample)
        if model.rounds.is_start:
            self._is_round_congested = False
            model.start_round(sample)
        self._set_cwnd(sample)
        self._set_pacing_rate(sample.smoothed_rtt_ns)

    # Congestion signals (section 5.5.10)

    def _on_congestion(self, now_ns: int, in_flight_at_send_bytes: int) -> None:
        """Too much was sent. A probe has found the long-term bound; the other phases react when the round ends."""
        self._is_round_congested = True
        if self.phase in _PROBING:
            model = self._model
            target_bytes = min(model.bdp_bytes(model.bw_bps), self._cwnd_bytes)
            model.bounds.set_longterm_after_probe(now_ns, in_flight_at_send_bytes, target_bytes)
            self._start_down(now_ns)

    def _end_round(self, sample: AckSample) -> None:
        model = self._model
        self._phase_rounds += 1
        self._probe_timer.rounds += 1
        model.queue.end_round(model.min_rtt_ns)
        is_growing = False
        if sample.delivery_rate_bps is not None and not sample.is_app_limited:
            is_growing = model.full_bw.end_round(model.bw_latest)
        is_excessive = model.loss.is_excessive(sample.in_flight_at_send_bytes)
        self._excessive_loss_rounds = self._excessive_loss_rounds + 1 if is_excessive else 0
        if self.phase is Phase.STARTUP:
            is_random = is_growing and model.queue.was_absent and not is_excessive
        elif self.phase in _PROBING:
            if self._excessive_loss_rounds >= _EXCESSIVE_LOSS_ROUNDS:
                self._on_congestion(sample.now_ns, sample.in_flight_at_send_bytes)
            is_random = False
        else:
            # The excess that UP sent is declared lost in the first two rounds of DOWN; BBR has already reacted to it.
            is_after_probe = self._probe_timer.rounds >= 2
            is_random = model.queue.was_absent and is_after_probe
            if is_excessive and model.is_lan:
                model.bounds.set_longterm(sample.now_ns, sample.in_flight_at_send_bytes)
            if self._is_round_congested and is_after_probe:
                model.bounds.lower_shortterm(
                    sample.now_ns, model.max_bw.bps, self._cwnd_bytes, model.bw_latest, model.inflight_latest
                )
        down_rounds = self._phase_rounds if self.phase is Phase.DOWN else self._down_rounds
        model.loss.end_round(is_random, is_below_capacity=2 <= self._probe_timer.rounds <= 1 + down_rounds)
        if self.phase is not Phase.PROBE_RTT and not self._is_round_congested:
            self._restore_cwnd()
        if self.phase is Phase.UP:
            model.bounds.end_up_round()

    # State machine (section 5.3)

    def _update_phase(self, sample: AckSample) -> None:
        model, now_ns = self._model, sample.now_ns
        bdp_bytes = model.bdp_bytes(model.max_bw.bps)
        if self.phase is Phase.STARTUP:
            self._update_startup(sample)
        elif self.phase is Phase.DRAIN:
            if sample.bytes_in_flight <= bdp_bytes or self._phase_rounds > _DRAIN_ROUNDS:
                self._start_first_cruise(now_ns)
        elif self.phase is Phase.DOWN:
            self._update_down(sample, bdp_bytes)
        elif self.phase is Phase.CRUISE:
            if self._probe_timer.is_due(now_ns):
                self._start_refill(now_ns)
        elif self.phase is Phase.REFILL:
            if model.rounds.is_start and self._phase_rounds >= 1:
                self._start_up(sample)
        elif self.phase is Phase.UP:
            self._update_up(sample, bdp_bytes)
        self._update_probe_rtt(sample)

    def _enter(self, phase: Phase, now_ns: int) -> None:
        if phase not in PHASES[self.phase].successors:
            raise AssertionError(f"{phase} does not follow {self.phase}")
        self.phase = phase
        self._phase_start_ns = now_ns
        self._phase_rounds = 0
        self._model.queue.reset_standing()

    def _update_startup(self, sample: AckSample) -> None:
        """Leave Startup once the pipe is full, as any of these shows:

        - A deep queue grows and the delivery rate does not (at any time; the others at the end of a round).
        - The round was congested: ECN marks, or losses that `bbr_model` counts as congestion.
        - Three rounds have brought no growth, or two if there is a standing queue or excessive loss in two rounds.
        """
        model = self._model
        has_hint = self._excessive_loss_rounds >= _EXCESSIVE_LOSS_ROUNDS or model.queue.is_standing(model.min_rtt_ns)
        has_plateau = model.full_bw.has_plateau(_FULL_BW_ROUNDS - 1 if has_hint else _FULL_BW_ROUNDS)
        is_full = model.rounds.is_start and (self._is_round_congested or has_plateau)
        if is_full and (self._is_round_congested or self._excessive_loss_rounds):
            needed_bytes = model.bdp_bytes(model.max_bw.bps) + model.extra_acked.bytes
            in_flight_bytes = sample.in_flight_at_send_bytes
            delivered_bytes = max(min(needed_bytes, in_flight_bytes), model.inflight_latest)
            model.bounds.set_longterm_after_startup(sample.now_ns, in_flight_bytes, delivered_bytes)
        if is_full or (model.queue.is_deep and not model.full_bw.is_growth(model.bw_latest)):
            self._full_bw_reached = True
            self._enter(Phase.DRAIN, sample.now_ns)

    def _start_first_cruise(self, now_ns: int) -> None:
        self._enter(Phase.CRUISE, now_ns)
        self._probe_timer.start_cycle(now_ns, is_first=True)
        self._down_rounds = 0

    def _start_down(self, now_ns: int) -> None:
        self._enter(Phase.DOWN, now_ns)
        self._probe_timer.start_cycle(now_ns, is_first=False)
        self._down_rounds = 0
        self._model.rounds.restart()

    def _update_down(self, sample: AckSample, bdp_bytes: float) -> None:
        model = self._model
        if model.rounds.is_start and self._phase_rounds == 1:
            model.max_bw.advance()  # everything that UP sent has been acknowledged
        if self._probe_timer.is_due(sample.now_ns):
            self._start_refill(sample.now_ns)
        elif self._phase_rounds >= 1 and sample.bytes_in_flight <= min(bdp_bytes, model.inflight_with_headroom()):
            self._down_rounds = self._phase_rounds
            self._enter(Phase.CRUISE, sample.now_ns)

    def _start_refill(self, now_ns: int) -> None:
        self._model.bounds.reset_shortterm()
        self._enter(Phase.REFILL, now_ns)
        self._model.rounds.restart()

    def _start_up(self, sample: AckSample) -> None:
        self._enter(Phase.UP, sample.now_ns)
        self._model.full_bw.restart(sample.delivery_rate_bps or 0.0)
        self._model.bounds.start_up(self._model.datagram_bytes)

    def _update_up(self, sample: AckSample, bdp_bytes: float) -> None:
        """Raise the long-term bound while it is the limit; leave UP when there is no more bandwidth to find."""
        model = self._model
        if sample.is_window_limited and self._cwnd_bytes >= model.bounds.current.inflight_longterm:
            model.bounds.raise_longterm(sample.newly_acked_bytes / self._cwnd_bytes)
            model.full_bw.restart(sample.delivery_rate_bps or 0.0)
        has_probed = sample.now_ns >= self._phase_start_ns + model.min_rtt_ns
        is_full = sample.prior_in_flight_bytes >= PHASES[Phase.UP].pacing_gain * bdp_bytes and model.queue.is_seen
        if model.full_bw.has_plateau(_FULL_BW_ROUNDS) or (has_probed and is_full):
            self._start_down(sample.now_ns)

    def _update_probe_rtt(self, sample: AckSample) -> None:
        model = self._model
        if self.phase is not Phase.PROBE_RTT:
            if model.min_rtt.is_probe_due and self._full_bw_reached and sample.bytes_in_flight:
                self._enter(Phase.PROBE_RTT, sample.now_ns)
                self._save_cwnd()
                self._probe_rtt_done_ns = None
        elif self._probe_rtt_done_ns is None:
            if sample.bytes_in_flight <= self._probe_rtt_cwnd_bytes():
                self._probe_rtt_done_ns = sample.now_ns + _PROBE_RTT_NS
                self._phase_rounds = 0
                model.rounds.restart()
                model.min_rtt.start_probe(sample.rtt_ns or sample.smoothed_rtt_ns)
        elif self._phase_rounds >= 1 and sample.now_ns > self._probe_rtt_done_ns:
            model.min_rtt.end_probe(sample.now_ns)
            self._restore_cwnd()
            model.bounds.reset_shortterm()
            self._start_first_cruise(sample.now_ns)

    # Control parameters (section 5.6)

    def _pacing_gain(self) -> float:
        model = self._model
        gain = PHASES[self.phase].pacing_gain
        if model.is_lan and model.queue.standing_ns < HOST_RTT_NS:
            return max(gain, _LAN_PACING_GAIN)
        if self.phase in _MAX_QUEUE_REACTION:
            target_ns = _TARGET_QUEUE_NS + model.min_rtt_ns // _TARGET_QUEUE_RTT_DIVISOR
            excess = (model.queue.standing_ns - target_ns) / (model.min_rtt_ns + _QUEUE_SCALE_NS)
            may_fill = self.phase is Phase.CRUISE and not model.bounds.has_longterm
            gain -= min(_QUEUE_SLOPE * (excess if may_fill else max(excess, 0.0)), _MAX_QUEUE_REACTION[self.phase])
        return gain

    def _set_pacing_rate(self, smoothed_rtt_ns: int) -> None:
        model = self._model
        rate_bps = self._pacing_gain() * model.bw_bps / (1 - model.loss.ratio)
        if not self._full_bw_reached:
            # The delivery rate lags a round behind the window, which doubles; pacing must not hold the window back.
            rate_bps = max(rate_bps, _STARTUP_WINDOWS_PER_RTT * window_rate_bps(self._cwnd_bytes, smoothed_rtt_ns))
        self._pacing_rate_bps = max(rate_bps, window_rate_bps(model.min_pipe_bytes, smoothed_rtt_ns))

    def _set_cwnd(self, sample: AckSample) -> None:
        model = self._model
        max_bytes = model.bdp_bytes(model.bw_bps, PHASES[self.phase].cwnd_gain) + model.extra_acked.bytes
        cwnd_bytes = self._cwnd_bytes
        if self._full_bw_reached:
            cwnd_bytes = min(cwnd_bytes + sample.newly_acked_bytes, max_bytes)
        elif cwnd_bytes < max_bytes or sample.delivery_rate_bps is None:
            cwnd_bytes += _STARTUP_CWND_GROWTH * sample.newly_acked_bytes / (1 - model.loss.ratio)
        self._cwnd_bytes = max(min(cwnd_bytes, self._cwnd_bound_bytes()), model.min_pipe_bytes)

    def _cwnd_bound_bytes(self) -> float:
        model, bounds = self._model, self._model.bounds.current
        if self.phase in (Phase.STARTUP, Phase.DRAIN):
            return bounds.inflight_shortterm
        if self.phase is Phase.PROBE_RTT:
            return min(self._probe_rtt_cwnd_bytes(), model.inflight_with_headroom())
        if self.phase is Phase.CRUISE:
            return min(bounds.inflight_shortterm, model.inflight_with_headroom())
        return min(bounds.inflight_shortterm, bounds.inflight_longterm)

    def _probe_rtt_cwnd_bytes(self) -> float:
        model = self._model
        return max(model.bdp_bytes(model.bw_bps, PHASES[Phase.PROBE_RTT].cwnd_gain), model.min_pipe_bytes)

    def _save_cwnd(self) -> None:
        self._prior_cwnd_bytes = max(self._prior_cwnd_bytes, self._cwnd_bytes)

    def _restore_cwnd(self) -> None:
        self._cwnd_bytes = max(self._cwnd_bytes, self._prior_cwnd_bytes)
        self._prior_cwnd_bytes = 0.0
