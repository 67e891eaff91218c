"""BBR."""

from enum import Enum
from typing import Final

from toolkit.rudp.congestion.base import AckSample, LossSample
from toolkit.rudp.congestion.bbr_path import (
    ExtraAcked,
    MaxBandwidth,
    MinRtt,
    PathLoss,
    Rounds,
    queue_threshold_ns,
)
from toolkit.rudp.congestion.loss_based import initial_window_bytes

_NS_PER_S: Final = 1_000_000_000
_BITS: Final = 8
_UNMEASURED_RTT_NS: Final = 1_000_000

_STARTUP_PACING_GAIN: Final = 2.77
_STARTUP_CWND_GAIN: Final = 2.0
_DRAIN_PACING_GAIN: Final = 0.5
_DOWN_PACING_GAIN: Final = 0.9
_UP_PACING_GAIN: Final = 1.25
_CWND_GAIN: Final = 1.25
_UP_CWND_GAIN: Final = 1.3
_PROBE_RTT_CWND_GAIN: Final = 0.5
_PROBE_RTT_DURATION_NS: Final = 200_000_000
_LOSS_THRESHOLD: Final = 0.02
_BETA: Final = 0.7
_HEADROOM: Final = 0.15
_FULL_BW_GROWTH: Final = 1.25
_FULL_BW_ROUNDS: Final = 3
_MIN_PIPE_DATAGRAMS: Final = 4
_HOST_DELAY_NS: Final = 2_000_000
_MIN_PROBE_ROUNDS: Final = 16
_MAX_PROBE_WAIT_NS: Final = 2_000_000_000
_MIN_PROBE_WAIT_NS: Final = 200_000_000
_FIRST_PROBE_ROUNDS: Final = 4
_STANDING_QUEUE_NS: Final = 1_000_000
_STANDING_QUEUE_DIVISOR: Final = 20
_QUEUE_SLOPE: Final = 0.5
_MIN_CRUISE_GAIN: Final = 0.9
_UNBOUNDED: Final = float("inf")


class Phase(Enum):
    STARTUP = "startup"
    DRAIN = "drain"
    PROBE_BW_DOWN = "probe_bw_down"
    PROBE_BW_CRUISE = "probe_bw_cruise"
    PROBE_BW_REFILL = "probe_bw_refill"
    PROBE_BW_UP = "probe_bw_up"
    PROBE_RTT = "probe_rtt"


class Bbr:
    name = "bbr"

    def __init__(self, datagram_bytes: int, rate_bps: float | None, seed: int) -> None:
        self._datagram_bytes = datagram_bytes
        self._rate_bound_bps = rate_bps
        self._random = (seed * 0x9E3779B97F4A7C15 + 1) & (1 << 64) - 1
        self.phase = Phase.STARTUP
        self._max_bw = MaxBandwidth()
        self._min_rtt = MinRtt()
        self._extra_acked = ExtraAcked()
        self._rounds = Rounds()
        self._loss = PathLoss(datagram_bytes)
        self._window_bytes = float(initial_window_bytes(datagram_bytes))
        self._pacing_rate_bps = _STARTUP_PACING_GAIN * self._window_bytes * _BITS * _NS_PER_S / _UNMEASURED_RTT_NS
        self._pacing_gain = _STARTUP_PACING_GAIN
        # bounds
        self._bw_shortterm = _UNBOUNDED
        self._inflight_shortterm = _UNBOUNDED
        self._inflight_longterm = _UNBOUNDED
        self._bw_latest = 0.0
        self._inflight_latest = 0
        # full pipe
        self._full_bw_reached = False
        self._full_bw = 0.0
        self._full_bw_count = 0
        # cycle
        self._cycle_start_ns = 0
        self._cycle_rounds = 0
        self._probe_wait_ns = 0
        self._probe_wait_rounds = 0
        self._phase_start_ns = 0
        self._phase_rounds = 0
        self._filter_is_to_advance = False
        self._up_slope_bytes = 0.0
        self._up_rounds = 0
        self._probe_rtt_done_ns: int | None = None
        self._prior_window_bytes = 0.0
        self._round_min_rtt_ns: int | None = None
        self._recent_rtts: list[int] = []
        self._round_rtt_sum = self._round_rtts = 0
        self._was_calm = True
        self._queue_ns = 0
        self._ce_in_round = False
        self._congested_in_round = False
        self._last_loss_bytes = 0
        self._undo = (self._bw_shortterm, self._inflight_shortterm, self._inflight_longterm)

    @property
    def congestion_window_bytes(self) -> int:
        return int(self._window_bytes)

    @property
    def pacing_rate_bps(self) -> float:
        return (
            self._pacing_rate_bps if self._rate_bound_bps is None else min(self._pacing_rate_bps, self._rate_bound_bps)
        )

    def snapshot(self) -> dict[str, float | str]:
        return {
            "phase": self.phase.value,
            "congestion_window": self._window_bytes,
            "pacing_rate": self._pacing_rate_bps,
            "max_bw": self._max_bw.bps,
            "bw_shortterm": self._bw_shortterm,
            "inflight_longterm": self._inflight_longterm,
            "inflight_shortterm": self._inflight_shortterm,
            "min_rtt": float(self._min_rtt.ns or 0),
            "path_loss": self._loss.share,
            "extra_acked": self._extra_acked.bytes,
        }

    def on_datagram_size(self, datagram_bytes: int) -> None:
        self._datagram_bytes = datagram_bytes

    # -- model

    @property
    def _bandwidth_bps(self) -> float:
        return min(self._max_bw.bps, self._bw_shortterm)

    def _bdp_bytes(self, bandwidth_bps: float, gain: float = 1.0) -> float:
        if self._min_rtt.ns is None:
            return float(initial_window_bytes(self._datagram_bytes))
        return gain * bandwidth_bps * self._min_rtt.ns / (_BITS * _NS_PER_S) / (1 - self._loss.share)

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        if bytes_in_flight == 0 and is_app_limited and self._full_bw_reached:
            self._min_rtt.postpone_probe(now_ns)

    def on_loss(self, sample: LossSample) -> None:
        if sample.is_persistent:
            self._prior_window_bytes = max(self._prior_window_bytes, self._window_bytes)
            self._window_bytes = float(max(sample.bytes_in_flight, self._minimum_window_bytes))
            self._loss.forget_round()
            return
        self._last_loss_bytes = sample.lost_bytes
        self._loss.on_lost(sample.lost_bytes)
        self._check_probe_loss(sample.now_ns, sample.in_flight_at_send_bytes)

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        self._loss.on_spurious(self._last_loss_bytes)
        self._last_loss_bytes = 0
        bw, inflight_short, inflight_long = self._undo
        self._bw_shortterm = max(self._bw_shortterm, bw)
        self._inflight_shortterm = max(self._inflight_shortterm, inflight_short)
        self._inflight_longterm = max(self._inflight_longterm, inflight_long)

    def on_ack(self, sample: AckSample) -> None:
        now = sample.now_ns
        if sample.rtt_ns is not None:
            self._min_rtt.update(now, sample.rtt_ns)
            self._round_rtt_sum += sample.rtt_ns
            self._round_rtts += 1
            self._recent_rtts = [*self._recent_rtts[-2:], sample.rtt_ns]
            self._round_min_rtt_ns = min(self._round_min_rtt_ns or sample.rtt_ns, sample.rtt_ns)
        if self._min_rtt.ns is None:
            self._min_rtt.update(now, sample.min_rtt_ns)
        self._loss.on_acked(sample.newly_acked_bytes)
        self._ce_in_round = self._ce_in_round or sample.ecn_ce_count > 0
        self._rounds.update(sample)
        rate = sample.delivery_rate_bps
        if rate is not None:
            self._bw_latest = max(self._bw_latest, rate)
            if not sample.is_app_limited or rate >= self._max_bw.bps:
                self._max_bw.update(rate)
        self._inflight_latest = max(self._inflight_latest, sample.delivered_bytes - sample.prior_delivered_bytes)
        self._extra_acked.update(
            now, sample.newly_acked_bytes, self._bandwidth_bps, self.congestion_window_bytes, self._rounds.is_start
        )
        if self._ce_in_round:
            self._check_probe_loss(now, sample.in_flight_at_send_bytes)
        if self._rounds.is_start:
            self._end_round(sample)
        self._update_phase(sample)
        if self._rounds.is_start:
            self._bw_latest = rate or 0.0
            self._inflight_latest = sample.delivered_bytes - sample.prior_delivered_bytes
        self._set_pacing_rate()
        self._set_window(sample)

    # -- rounds

    def _has_queue(self) -> bool:
        """seen lately"""
        if self._min_rtt.ns is None or not self._recent_rtts:
            return False
        return min(self._recent_rtts) > self._min_rtt.ns + queue_threshold_ns(self._min_rtt.ns)

    def _is_congested(self, flight_bytes: int) -> bool:
        if self._ce_in_round:
            return True
        if not self._loss.exceeds(_LOSS_THRESHOLD, flight_bytes):
            return False
        return self._has_queue() or self.phase in (Phase.PROBE_BW_UP, Phase.PROBE_BW_REFILL)

    def _end_round(self, sample: AckSample) -> None:
        self._phase_rounds += 1
        self._cycle_rounds += 1
        assert self._min_rtt.ns is not None
        self._queue_ns = max(0, (self._round_min_rtt_ns or self._min_rtt.ns) - self._min_rtt.ns)
        is_growing = False
        rate = sample.delivery_rate_bps
        if rate is not None and not sample.is_app_limited:
            is_growing = self._bw_latest >= self._full_bw * _FULL_BW_GROWTH
            if is_growing:
                self._full_bw, self._full_bw_count = self._bw_latest, 0
            else:
                self._full_bw_count += 1
        if self._is_congested(sample.in_flight_at_send_bytes):
            self._congested_in_round = True
        if self._congested_in_round and self.phase in (Phase.PROBE_BW_DOWN, Phase.PROBE_BW_CRUISE, Phase.DRAIN):
            self._adapt_lower_bounds()
        if self.phase is Phase.STARTUP:
            full = self._full_bw_count >= _FULL_BW_ROUNDS
            full |= (
                not is_growing
                and self._queue_ns > queue_threshold_ns(self._min_rtt.ns)
                and sample.delivery_rate_bps is not None
            )
            if self._congested_in_round:
                full = True
                self._inflight_longterm = max(self._bdp_bytes(self._max_bw.bps), self._inflight_latest)
            if full:
                self._full_bw_reached = True
        mean = self._round_rtt_sum / max(1, self._round_rtts) - self._min_rtt.ns
        calm = mean <= queue_threshold_ns(self._min_rtt.ns)
        no_queue = calm and self._was_calm
        self._was_calm = calm
        self._round_rtt_sum = self._round_rtts = 0
        if self.phase is Phase.STARTUP:
            countable = is_growing and no_queue
        else:
            countable = no_queue and self.phase in (Phase.PROBE_BW_DOWN, Phase.PROBE_BW_CRUISE, Phase.PROBE_BW_REFILL)
        if self._prior_window_bytes and not self._congested_in_round:
            self._window_bytes = max(self._window_bytes, self._prior_window_bytes)
            self._prior_window_bytes = 0.0
        self._loss.end_round(countable)
        self._round_min_rtt_ns = None
        self._ce_in_round = self._congested_in_round = False

    def _adapt_lower_bounds(self) -> None:
        self._undo = (self._bw_shortterm, self._inflight_shortterm, self._inflight_longterm)
        if self._bw_shortterm == _UNBOUNDED:
            self._bw_shortterm = self._max_bw.bps
        if self._inflight_shortterm == _UNBOUNDED:
            self._inflight_shortterm = self._window_bytes
        self._bw_shortterm = max(self._bw_latest, _BETA * self._bw_shortterm)
        self._inflight_shortterm = max(self._inflight_latest, _BETA * self._inflight_shortterm)

    def _reset_short_term(self) -> None:
        self._bw_shortterm = self._inflight_shortterm = _UNBOUNDED

    def _check_probe_loss(self, now_ns: int, in_flight_at_send_bytes: int) -> None:
        if not self._is_congested(in_flight_at_send_bytes):
            return
        self._congested_in_round = True
        if self.phase in (Phase.PROBE_BW_UP, Phase.PROBE_BW_REFILL):
            self._undo = (self._bw_shortterm, self._inflight_shortterm, self._inflight_longterm)
            self._inflight_longterm = max(float(in_flight_at_send_bytes), _BETA * self._target_inflight())
            if not self._has_queue():
                self._loss.forget()
            self._start_down(now_ns)

    def _target_inflight(self) -> float:
        return min(self._bdp_bytes(self._bandwidth_bps), self._window_bytes)

    # -- phases

    def _enter(self, phase: Phase, now_ns: int) -> None:
        self.phase = phase
        self._phase_start_ns = now_ns
        self._phase_rounds = 0
        self._queue_ns = 0

    def _draw(self) -> float:
        """xorshift64*"""
        x = self._random
        x ^= x >> 12
        x ^= (x << 25) & (1 << 64) - 1
        x ^= x >> 27
        self._random = x
        return ((x * 0x2545F4914F6CDD1D) & (1 << 64) - 1) / (1 << 64)

    def _start_down(self, now_ns: int, first: bool = False) -> None:
        self._enter(Phase.PROBE_BW_DOWN, now_ns)
        self._cycle_start_ns = now_ns
        self._cycle_rounds = 0
        self._filter_is_to_advance = not first
        spread = 1 + self._draw() / 2
        self._probe_wait_rounds = int((_FIRST_PROBE_ROUNDS if first else _MIN_PROBE_ROUNDS) * spread)
        self._probe_wait_ns = int(_MAX_PROBE_WAIT_NS * spread)

    def _update_phase(self, sample: AckSample) -> None:
        now = sample.now_ns
        phase = self.phase
        in_flight = sample.bytes_in_flight
        bdp = self._bdp_bytes(self._max_bw.bps)
        if phase is Phase.STARTUP:
            if self._full_bw_reached:
                self._enter(Phase.DRAIN, now)
        if self.phase is Phase.DRAIN:
            if in_flight <= bdp or self._phase_rounds > 3:
                self._start_down(now, first=True)
                self._enter(Phase.PROBE_BW_CRUISE, now)
        elif phase is Phase.PROBE_BW_DOWN:
            if self._filter_is_to_advance and self._phase_rounds >= 1:
                self._filter_is_to_advance = False
                self._max_bw.advance()
            if self._is_time_to_probe(now):
                self._start_refill(now)
            elif self._phase_rounds >= 1 and in_flight <= min(bdp, self._inflight_with_headroom()):
                self._enter(Phase.PROBE_BW_CRUISE, now)
        elif phase is Phase.PROBE_BW_CRUISE:
            if self._is_time_to_probe(now):
                self._start_refill(now)
        elif phase is Phase.PROBE_BW_REFILL:
            if self._rounds.is_start and self._phase_rounds >= 1:
                self._start_up(sample)
        elif phase is Phase.PROBE_BW_UP:
            self._probe_up(sample)
            if self._is_time_to_go_down(sample, bdp):
                self._start_down(now)
        self._check_probe_rtt(sample)

    def _is_time_to_probe(self, now_ns: int) -> bool:
        waited_ns = now_ns - self._cycle_start_ns
        return waited_ns > self._probe_wait_ns or (
            self._cycle_rounds >= self._probe_wait_rounds and waited_ns > _MIN_PROBE_WAIT_NS
        )

    def _start_refill(self, now_ns: int) -> None:
        self._reset_short_term()
        self._enter(Phase.PROBE_BW_REFILL, now_ns)
        self._up_rounds = 0

    def _start_up(self, sample: AckSample) -> None:
        self._enter(Phase.PROBE_BW_UP, sample.now_ns)
        self._full_bw, self._full_bw_count = sample.delivery_rate_bps or 0.0, 0
        self._raise_up_slope()

    def _raise_up_slope(self) -> None:
        self._up_slope_bytes = self._datagram_bytes * (1 << min(self._up_rounds, 30))
        if self._inflight_longterm < _UNBOUNDED:
            self._up_slope_bytes = max(self._datagram_bytes, self._inflight_longterm / 32) * (
                1 << min(self._up_rounds, 30)
            )
        self._up_rounds += 1

    def _probe_up(self, sample: AckSample) -> None:
        if self._inflight_longterm == _UNBOUNDED:
            return
        if sample.is_window_limited and self._window_bytes >= self._inflight_longterm:
            self._full_bw, self._full_bw_count = sample.delivery_rate_bps or 0.0, 0
            self._inflight_longterm += self._up_slope_bytes * sample.newly_acked_bytes / self._window_bytes
        if self._rounds.is_start:
            self._raise_up_slope()

    def _is_time_to_go_down(self, sample: AckSample, bdp: float) -> bool:
        assert self._min_rtt.ns is not None
        if self._full_bw_count >= _FULL_BW_ROUNDS:
            return True
        if sample.now_ns < self._phase_start_ns + self._min_rtt.ns:
            return False
        return sample.prior_in_flight_bytes >= _UP_PACING_GAIN * bdp and self._has_queue()

    def _inflight_with_headroom(self) -> float:
        if self._inflight_longterm == _UNBOUNDED:
            return _UNBOUNDED
        headroom = max(self._datagram_bytes, _HEADROOM * self._inflight_longterm)
        needed = min(self._inflight_longterm, self._bdp_bytes(self._bandwidth_bps) + self._extra_acked.bytes)
        return max(self._inflight_longterm - headroom, needed, self._minimum_window_bytes)

    def _check_probe_rtt(self, sample: AckSample) -> None:
        now = sample.now_ns
        if self.phase is not Phase.PROBE_RTT:
            if self._min_rtt.probe_is_due and self._full_bw_reached and sample.bytes_in_flight > 0:
                self._enter(Phase.PROBE_RTT, now)
                self._prior_window_bytes = self._window_bytes
                self._probe_rtt_done_ns = None
                self._min_rtt.start_probe()
            return
        if self._probe_rtt_done_ns is None:
            if sample.bytes_in_flight <= self._probe_rtt_window():
                self._probe_rtt_done_ns = now + _PROBE_RTT_DURATION_NS
                self._phase_rounds = 0
        elif self._phase_rounds >= 1 and now > self._probe_rtt_done_ns:
            self._min_rtt.end_probe(now)
            self._window_bytes = max(self._window_bytes, self._prior_window_bytes)
            self._prior_window_bytes = 0.0
            self._reset_short_term()
            self._start_down(now, first=True)
            self._filter_is_to_advance = False
            self._enter(Phase.PROBE_BW_CRUISE, now)

    # -- control

    @property
    def _minimum_window_bytes(self) -> int:
        return _MIN_PIPE_DATAGRAMS * self._datagram_bytes

    def _probe_rtt_window(self) -> float:
        return max(self._bdp_bytes(self._bandwidth_bps, _PROBE_RTT_CWND_GAIN), self._minimum_window_bytes)

    def _gain(self) -> float:
        if self.phase is Phase.STARTUP:
            return _STARTUP_PACING_GAIN
        if self.phase is Phase.DRAIN:
            return _DRAIN_PACING_GAIN
        if self.phase is Phase.PROBE_BW_UP:
            return _UP_PACING_GAIN
        if self.phase in (Phase.PROBE_BW_CRUISE, Phase.PROBE_BW_DOWN):
            assert self._min_rtt.ns is not None
            target = _STANDING_QUEUE_NS + self._min_rtt.ns // _STANDING_QUEUE_DIVISOR
            excess = max(0.0, (self._queue_ns - target) / self._min_rtt.ns)
            if self.phase is Phase.PROBE_BW_DOWN:
                return max(_DOWN_PACING_GAIN - _QUEUE_SLOPE * excess, 0.75)
            return max(1.0 - _QUEUE_SLOPE * excess, _MIN_CRUISE_GAIN)
        return 1.0

    def _set_pacing_rate(self) -> None:
        if self._max_bw.bps == 0.0:
            return
        rate = self._gain() * self._bandwidth_bps / (1 - self._loss.share)
        if self._full_bw_reached or rate > self._pacing_rate_bps or self._rounds.count > 1:
            self._pacing_rate_bps = rate

    def _set_window(self, sample: AckSample) -> None:
        gain = _CWND_GAIN
        if self.phase in (Phase.STARTUP, Phase.DRAIN):
            gain = _STARTUP_CWND_GAIN
        elif self.phase is Phase.PROBE_BW_UP:
            gain = _UP_CWND_GAIN
        bw = self._bandwidth_bps
        most = self._bdp_bytes(bw, gain) + self._extra_acked.bytes + bw * _HOST_DELAY_NS / 8e9
        most = max(most, self._minimum_window_bytes)
        window = self._window_bytes
        if self._full_bw_reached:
            window = min(window + sample.newly_acked_bytes, most)
        elif window < most or sample.delivered_bytes < initial_window_bytes(self._datagram_bytes):
            window += sample.newly_acked_bytes / (1 - self._loss.share)
        cap = _UNBOUNDED
        if self.phase is Phase.PROBE_BW_CRUISE or self.phase is Phase.PROBE_RTT:
            cap = self._inflight_with_headroom()
        elif self.phase not in (Phase.STARTUP, Phase.DRAIN):
            cap = self._inflight_longterm
        if self.phase is not Phase.PROBE_BW_UP and self.phase is not Phase.PROBE_BW_REFILL:
            cap = min(cap, self._inflight_shortterm)
        if self.phase is Phase.PROBE_RTT:
            cap = min(cap, self._probe_rtt_window())
        self._window_bytes = max(min(window, cap), self._minimum_window_bytes)
