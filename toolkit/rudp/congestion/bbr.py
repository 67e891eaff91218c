"""BBR: sends at the rate the path has shown it can deliver, and probes from time to time for more.

Theory. With one bandwidth-delay product (BDP) in flight, a path is full and has no queue. Bandwidth and minimum RTT
cannot be measured at the same time: more bandwidth shows only while the queue fills, the minimum RTT only while it is
empty. BBR therefore alternates between phases:

- *Startup* doubles the rate each round until the delivery rate stops growing.
- *Drain* empties the queue that Startup built.
- *ProbeBW* cycles through DOWN (send a tenth less until the queue is gone), CRUISE (send at the estimated bandwidth),
  REFILL (fill the pipe for one round) and UP (send a quarter more and see whether it is delivered).
- *ProbeRTT* halves the volume in flight for 50 ms if no empty queue has been seen for 1.25 s.

Losses and ECN marks that indicate congestion set bounds: a long-term bound on the volume in flight if a probe caused
them, short-term bounds on bandwidth and volume until the next probe otherwise.

Deviations from the draft (reasons and measurements are in docs/congestion-control.md):

- Which losses count as congestion: see `random_loss`. Startup and CRUISE answer an unexplained loss by sending less.
- Startup stops near what the bottleneck has shown to carry (`bbr_startup`), and may start from a memory of the path.
- CRUISE aims for a short queue, DOWN sends less the longer the queue is, and the window is 1.25 BDP, not 2.
- UP ends once 1.25 BDP are in flight and a queue is seen. It starts every 16 to 24 round trips, not every 2 to 3 s.
- After Drain and ProbeRTT, ProbeBW starts with CRUISE: nothing is left to drain. ProbeRTT is short, but comes often.
- On a LAN, the window limits the flow rather than the pacing rate, until a loss reveals a short buffer.

Read: draft-ietf-ccwg-bbr section 5, whose names are used here.
"""

from typing import Final

from toolkit.rudp.congestion.base import (
    ACKS_PER_RTT,
    UNMEASURED_RTT_NS,
    AckSample,
    LossSample,
    PathMemory,
    initial_window_bytes,
    window_rate_bps,
)
from toolkit.rudp.congestion.bbr_model import BETA, HOST_RTT_NS, UNBOUNDED, BbrModel, ProbeTimer
from toolkit.rudp.congestion.bbr_phases import PHASES, PROBING, Phase
from toolkit.rudp.congestion.bbr_startup import LossVerdict, StartupGuard

_FULL_BW_ROUNDS: Final = 3
"""BBR.full_bw_reached: the pipe is full after this many rounds without 25% growth (section 5.3.1.2)."""
_EXCESSIVE_LOSS_ROUNDS: Final = 2
"""Excessive loss without a queue is congestion if this many successive rounds of a probe show it. One round may be a
loss burst of the path; two are a policer or a buffer of a few packets."""
_DRAIN_ROUNDS: Final = 3
"""A queue that has not drained after this many rounds is not ours."""
_PROBE_RTT_NS: Final = 50_000_000
"""BBR.ProbeRTTDuration is four times as long, but four times as rare."""
_LAN_PACING_GAIN: Final = 2.0
"""Minimum pacing gain where the hosts take longer than the path: the window limits the flow there."""


class Bbr:
    """Implements `base.CongestionController`. `rate_bps` limits the pacing rate; `seed` varies the probe times."""

    name = "bbr"

    def __init__(self, datagram_bytes: int, rate_bps: float | None, seed: int) -> None:
        self.phase = Phase.STARTUP
        self._rate_limit_bps = rate_bps or UNBOUNDED
        self._model = BbrModel(datagram_bytes)
        self._startup = StartupGuard(self._model)
        self._probe_timer = ProbeTimer(seed)
        self._full_bw_reached = False
        self._is_round_congested = False
        self._excessive_loss_rounds = 0
        self._last_lost_bytes = 0
        self._reacted_ns = 0
        self._phase_start_ns = 0
        self._phase_rounds = 0
        self._down_rounds = 0
        self._probe_rtt_done_ns: int | None = None
        self._cwnd_bytes = float(initial_window_bytes(datagram_bytes))
        self._prior_cwnd_bytes = 0.0
        self._pacing_rate_bps = window_rate_bps(PHASES[self.phase].pacing_gain * self._cwnd_bytes, UNMEASURED_RTT_NS)

    @property
    def congestion_window_bytes(self) -> int:
        return int(self._cwnd_bytes)

    @property
    def pacing_rate_bps(self) -> float:
        return min(self._pacing_rate_bps, self._rate_limit_bps)

    @property
    def acks_per_rtt(self) -> int:
        return ACKS_PER_RTT if self._full_bw_reached else self._startup.acks_per_rtt

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
            "careful_resume": self._startup.resume_phase.value,
        }

    def resume(self, memory: PathMemory) -> None:
        start = self._cwnd_bytes, self._pacing_rate_bps
        self._cwnd_bytes, self._pacing_rate_bps = self._startup.resume(memory, start)

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
            self._cwnd_bytes = self._startup.proved_window_bytes(self._cwnd_bytes)
            self._save_cwnd()
            self._cwnd_bytes = float(max(sample.bytes_in_flight, model.min_pipe_bytes))
            model.loss.discard_round()
            return
        self._last_lost_bytes = sample.lost_bytes
        if sample.newest_lost_sent_time_ns < self._reacted_ns:
            return  # sent before the reaction to an overflow, of which it is a part
        model.loss.on_lost(sample.lost_bytes)
        self._judge_loss(sample.now_ns, sample.in_flight_at_send_bytes)

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        del now_ns
        self._model.loss.on_spurious(self._last_lost_bytes)
        self._last_lost_bytes = 0
        self._model.bounds.undo(lost_sent_time_ns)

    def on_ack(self, sample: AckSample) -> None:
        model = self._model
        model.update(sample, self.congestion_window_bytes)
        is_congested = self.phase is not Phase.STARTUP and model.is_loss_congestion(sample.in_flight_at_send_bytes)
        if sample.ecn_ce_count or is_congested:
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

    def _judge_loss(self, now_ns: int, in_flight_at_send_bytes: int) -> None:
        """React to what this round has lost so far, if that is too much. Waiting for its end would lose more."""
        model = self._model
        if not model.loss.is_excessive(in_flight_at_send_bytes):
            return
        if self.phase is Phase.STARTUP:  # its bursts queue for a moment on any path: a queue proves nothing
            verdict = self._startup.on_excessive_loss(now_ns)
            if verdict is LossVerdict.REDUCED:
                self._cwnd_bytes = self._startup.reduced_window_bytes(min(in_flight_at_send_bytes, self._cwnd_bytes))
                self._start_over(now_ns)
            elif verdict is LossVerdict.FULL:
                self._on_congestion(now_ns, in_flight_at_send_bytes)
        elif model.queue.is_seen or self.phase in PROBING:
            self._on_congestion(now_ns, in_flight_at_send_bytes)
        elif self.phase is Phase.CRUISE:
            if model.is_lan:
                model.bounds.set_longterm(now_ns, BETA * in_flight_at_send_bytes)
            self._start_down(now_ns)  # random loss is what sending less does not lower

    def _start_over(self, now_ns: int) -> None:
        """The sending rate has just been reduced: judge losses from now on."""
        self._reacted_ns = now_ns
        self._model.loss.discard_round()
        self._model.rounds.restart()

    def _on_congestion(self, now_ns: int, in_flight_at_send_bytes: int) -> None:
        """Too much was sent. A probe has found the long-term bound; the other phases react when the round ends."""
        self._is_round_congested = True
        if self.phase in PROBING:
            model = self._model
            if model.queue.is_seen:
                target_bytes = BETA * min(model.bdp_bytes(model.bw_bps), self._cwnd_bytes)
            else:  # a few packets in a row were too many, not the volume in flight
                target_bytes = model.needed_bytes
            model.bounds.set_longterm_after_probe(now_ns, in_flight_at_send_bytes, target_bytes)
            self._start_down(now_ns)

    def _end_round(self, sample: AckSample) -> None:
        model = self._model
        self._phase_rounds += 1
        self._probe_timer.rounds += 1
        model.queue.end_round(model.min_rtt_ns)
        is_growing = model.has_measured_rate(sample) and model.full_bw.end_round(model.bw_latest)
        is_random, is_excessive = False, model.loss.is_excessive(sample.in_flight_at_send_bytes)
        self._excessive_loss_rounds = self._excessive_loss_rounds + 1 if is_excessive else 0
        if self.phase is Phase.STARTUP:
            is_random = is_growing and model.queue.was_absent and not is_excessive
            is_random |= self._judge_startup(sample, is_excessive)
        elif self.phase not in PROBING:
            is_after_probe = self._probe_timer.rounds >= 2  # what UP sent is acknowledged by then
            # On a LAN a round of DOWN is too short to drain what UP left, which its bursts then overflow.
            is_random = model.queue.was_absent and is_after_probe and model.min_rtt_ns >= HOST_RTT_NS
            if self._is_round_congested and is_after_probe:
                model.bounds.lower_shortterm(
                    sample.now_ns, model.max_bw.bps, self._cwnd_bytes, model.bw_latest, model.inflight_latest
                )
        down_rounds = self._phase_rounds if self.phase is Phase.DOWN else self._down_rounds
        is_below = self.phase is Phase.STARTUP or 2 <= self._probe_timer.rounds <= 1 + down_rounds
        model.loss.end_round(is_random, is_below_capacity=is_below)
        if self.phase is not Phase.PROBE_RTT and not self._is_round_congested:
            self._restore_cwnd()
        if self.phase is Phase.UP:
            model.bounds.end_up_round()

    def _judge_startup(self, sample: AckSample, is_excessive: bool) -> bool:
        """A round of Startup ends; return whether sending less has shown its losses to be random."""
        if sample.largest_acked_sent_time_ns < self._reacted_ns:
            return False  # sent before the reduction: without an acknowledgement since then, packets seem newer
        verdict_before, verdict = self._startup.verdict, self._startup.end_round(is_excessive)
        if verdict is verdict_before and verdict is not LossVerdict.TESTING:
            return False
        self._model.full_bw.restart(0.0)  # less has been sent: growth shows from the next round on
        if verdict is LossVerdict.FULL:
            self._on_congestion(sample.now_ns, sample.in_flight_at_send_bytes)
        return verdict is LossVerdict.RANDOM

    # State machine (section 5.3)

    def _update_phase(self, sample: AckSample) -> None:
        model, now_ns = self._model, sample.now_ns
        bdp_bytes = model.bdp_bytes(model.max_bw.bps)
        if self.phase is Phase.STARTUP:
            self._update_startup(sample)
        elif self.phase is Phase.DRAIN:
            if sample.bytes_in_flight <= bdp_bytes or self._phase_rounds > _DRAIN_ROUNDS:
                self._start_first_cruise(now_ns)
                model.queue.is_round_stale = self._startup.is_path_proved
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

        - A deep queue grows and the delivery rate does not (at any time; the others at the end of a round). If the
          window is bounded, this is an older queue, or one of acknowledgements.
        - The round was congested: ECN marks, or losses that count as congestion (`random_loss`).
        - Three rounds have brought no growth, or two if there is a standing queue or excessive loss in two rounds.
        """
        model = self._model
        self._startup.on_ack(sample)
        has_hint = self._excessive_loss_rounds >= _EXCESSIVE_LOSS_ROUNDS or model.queue.is_standing(model.min_rtt_ns)
        has_plateau = model.full_bw.has_plateau(_FULL_BW_ROUNDS - 1 if has_hint else _FULL_BW_ROUNDS)
        is_full = self._is_round_congested or (model.rounds.is_start and has_plateau)
        if is_full and (self._is_round_congested or self._excessive_loss_rounds or self._startup.is_slow):
            in_flight_bytes = sample.in_flight_at_send_bytes
            delivered_bytes = max(min(model.needed_bytes, in_flight_bytes), model.inflight_latest)
            model.bounds.set_longterm_after_startup(sample.now_ns, in_flight_bytes, delivered_bytes)
        is_overshooting = model.queue.is_deep and not self._startup.is_bounded
        if is_full or (is_overshooting and not model.full_bw.is_growth(model.bw_latest)):
            self._full_bw_reached = True
            self._reacted_ns = sample.now_ns
            self._enter(Phase.DRAIN, sample.now_ns)

    def _start_first_cruise(self, now_ns: int) -> None:
        self._enter(Phase.CRUISE, now_ns)
        self._probe_timer.start_cycle(now_ns, is_first=True)
        self._down_rounds = 0

    def _start_down(self, now_ns: int) -> None:
        self._enter(Phase.DOWN, now_ns)
        self._probe_timer.start_cycle(now_ns, is_first=False)
        self._down_rounds = 0
        self._start_over(now_ns)

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
            if model.min_rtt.is_probe_due and self._full_bw_reached:
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
        if model.is_lan and model.queue.standing_ns < HOST_RTT_NS and self.phase not in (Phase.DRAIN, Phase.DOWN):
            return max(gain, _LAN_PACING_GAIN)
        if self.phase in (Phase.CRUISE, Phase.DOWN):
            reduction = model.queue.gain_reduction(model.target_queue_ns, model.min_rtt_ns)
            may_fill = self.phase is Phase.CRUISE and not model.bounds.has_longterm
            gain -= reduction if may_fill else max(reduction, 0.0)
        return gain

    def _set_pacing_rate(self, smoothed_rtt_ns: int) -> None:
        model = self._model
        rate_bps = self._pacing_gain() * model.bw_bps / (1 - model.loss.ratio)
        if not self._full_bw_reached:
            # The delivery rate lags a round behind the window, which grows fast; pacing must not hold the window back.
            rate_bps = self._startup.pacing_rate_bps(window_rate_bps(self._cwnd_bytes, smoothed_rtt_ns))
        self._pacing_rate_bps = max(rate_bps, window_rate_bps(model.min_pipe_bytes, smoothed_rtt_ns))

    def _set_cwnd(self, sample: AckSample) -> None:
        model = self._model
        max_bytes = model.bdp_bytes(model.bw_bps, PHASES[self.phase].cwnd_gain) + model.extra_acked.bytes
        cwnd_bytes = self._cwnd_bytes
        if self._full_bw_reached:
            cwnd_bytes = min(cwnd_bytes + sample.newly_acked_bytes, max_bytes)
        else:
            cwnd_bytes = self._startup.next_window_bytes(cwnd_bytes, sample.newly_acked_bytes)
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
        self._cwnd_bytes, self._prior_cwnd_bytes = max(self._cwnd_bytes, self._prior_cwnd_bytes), 0.0
