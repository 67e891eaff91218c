"""CUBIC: a loss-based controller whose window is a cubic function of time; the default of most TCP stacks.

Theory. A congestion event at window W_max reduces the window to 0.7 W_max. From then on the window follows
W_cubic(t) = C (t - K)^3 + W_max: it grows fast at first, is flat around W_max, where the loss occurred, and then grows
fast again in search of more capacity. Growth depends on time, not on the RTT, so CUBIC also fills long paths. On short
paths, where Reno would be faster, the window follows an estimate of Reno's window. A flow that loses again before it is
back at W_max assumes a new competitor and releases more capacity (fast convergence).

The formulas count in segments and seconds, and so do the variables that carry their names:

    w_max        W_max        window before the latest congestion event, possibly lowered by fast convergence; segments
    cwnd         cwnd         congestion window; segments
    cwnd_prior   cwnd_prior   window before the latest congestion event; segments
    start_ns     t_epoch      start of the current congestion avoidance stage; ns
    t_s          t            time since t_epoch; seconds
    k_s          K            cbrt((W_max - cwnd_epoch) / C), when W_cubic is back at W_max; seconds
    w_est        W_est        estimate of Reno's window; segments

Read: RFC 9438 sections 4.2 (window increase), 4.3 (Reno-friendly region), 4.6 (multiplicative decrease), 4.7 (fast
convergence), 4.8 (timeout), 4.9 (spurious events) and 5.8 (application-limited flows).
"""

from dataclasses import dataclass, replace
from typing import Final

from toolkit.rudp.congestion.base import NS_PER_S, AckSample
from toolkit.rudp.congestion.loss_based import LossBasedController

_C: Final = 0.4
"""C in segments / second^3: how aggressively the window grows (RFC 9438 section 5.1)."""
_BETA_CUBIC: Final = 0.7
"""beta_cubic: the share of the window that remains after a congestion event (RFC 9438 section 4.6)."""
_ALPHA_CUBIC: Final = 3 * (1 - _BETA_CUBIC) / (1 + _BETA_CUBIC)
"""alpha_cubic in segments per round trip: with beta_cubic, gives the average window of Reno (RFC 9438 section 4.3)."""
_MAX_TARGET_GROWTH: Final = 1.5
"""The target is at most this many times cwnd (RFC 9438 section 4.2)."""


@dataclass(frozen=True, slots=True)
class _Epoch:
    """A congestion avoidance stage. See the head of this file for names and units."""

    start_ns: int
    k_s: float
    w_est: float


@dataclass(frozen=True, slots=True)
class _CubicState:
    """State of the cubic function. It is replaced as a whole, so that undoing a spurious event restores the old object.

    epoch: None until the next congestion avoidance stage begins
    """

    w_max: float = 0.0
    cwnd_prior: float = 0.0
    epoch: _Epoch | None = None


class Cubic(LossBasedController):
    """Implements `base.CongestionController`. `rate_bps` limits the pacing rate; `seed` is unused."""

    name = "cubic"

    def __init__(self, datagram_bytes: int, rate_bps: float | None, seed: int) -> None:
        super().__init__(datagram_bytes, rate_bps, seed)
        self._state = _CubicState()
        self._state_before_event = self._state
        self._counted_until_ns = 0

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        super().on_sent(now_ns, sent_bytes, bytes_in_flight, is_app_limited)
        if bytes_in_flight == 0:
            # An idle period ends. If a full window follows, all its samples are window-limited and do not show it.
            self._exclude_time(now_ns)

    def on_ack(self, sample: AckSample) -> None:
        if not sample.is_window_limited:
            self._exclude_time(sample.now_ns)
        self._counted_until_ns = sample.now_ns
        super().on_ack(sample)

    def snapshot(self) -> dict[str, float | str]:
        return super().snapshot() | {"w_max": self._state.w_max * self._datagram_bytes}

    def _avoid_congestion(self, sample: AckSample) -> None:
        cwnd = self._window_bytes / self._datagram_bytes
        if self._state.epoch is None:
            self._state = self._start_epoch(sample.now_ns, cwnd)
        epoch = self._state.epoch
        assert epoch is not None
        if not sample.is_window_limited:
            return
        segments_acked = sample.newly_acked_bytes / self._datagram_bytes
        # RFC 9438 section 4.3: W_est += alpha_cubic * segments_acked / cwnd; alpha_cubic is 1 once W_est >= cwnd_prior.
        alpha = _ALPHA_CUBIC if epoch.w_est < self._state.cwnd_prior else 1.0
        w_est = epoch.w_est + alpha * segments_acked / cwnd
        self._state = replace(self._state, epoch=replace(epoch, w_est=w_est))

        t_s = (sample.now_ns - epoch.start_ns) / NS_PER_S
        if self._w_cubic(t_s, epoch.k_s) < w_est:
            cwnd = max(cwnd, w_est)
        else:
            # RFC 9438 section 4.2: target = W_cubic(t + RTT), limited to [cwnd, 1.5 cwnd]; sections 4.4 and 4.5 then
            # grow cwnd by (target - cwnd) / cwnd per segment acknowledged.
            target = self._w_cubic(t_s + sample.smoothed_rtt_ns / NS_PER_S, epoch.k_s)
            target = min(max(target, cwnd), _MAX_TARGET_GROWTH * cwnd)
            cwnd += (target - cwnd) * min(segments_acked / cwnd, 1.0)
        self._window_bytes = cwnd * self._datagram_bytes

    def _reduced_window_bytes(self) -> float:
        cwnd = self._window_bytes / self._datagram_bytes
        # Fast convergence, RFC 9438 section 4.7: W_max = cwnd (1 + beta_cubic) / 2 if the saturation point has fallen.
        w_max = cwnd * (1 + _BETA_CUBIC) / 2 if cwnd < self._state.w_max else cwnd
        self._state_before_event = self._state
        self._state = _CubicState(w_max=w_max, cwnd_prior=cwnd)
        return self._window_bytes * _BETA_CUBIC

    def _undo_reduction(self) -> None:
        self._state = self._state_before_event

    def _on_persistent_congestion(self) -> None:
        # RFC 9438 section 4.8: the old W_max is meaningless now; the next epoch starts where slow start ends.
        self._state = replace(self._state, w_max=0.0, epoch=None)

    def _exclude_time(self, now_ns: int) -> None:
        """Do not count the time since the latest sample: t stops while cwnd is not the limit (RFC 9438 section 5.8)."""
        epoch = self._state.epoch
        if epoch is not None:
            unused_ns = now_ns - self._counted_until_ns
            self._state = replace(self._state, epoch=replace(epoch, start_ns=epoch.start_ns + unused_ns))
        self._counted_until_ns = now_ns

    def _start_epoch(self, now_ns: int, cwnd: float) -> _CubicState:
        """The state of a congestion avoidance stage that begins now with a window of `cwnd` segments."""
        if cwnd >= self._state.w_max:
            # RFC 9438 section 4.2: slow start ended without a loss, or cwnd is above W_max. K is 0 and W_max is cwnd.
            return replace(self._state, w_max=cwnd, epoch=_Epoch(now_ns, 0.0, cwnd))
        k_s = ((self._state.w_max - cwnd) / _C) ** (1 / 3)
        return replace(self._state, epoch=_Epoch(now_ns, k_s, cwnd))

    def _w_cubic(self, t_s: float, k_s: float) -> float:
        """W_cubic(t) = C (t - K)^3 + W_max in segments (RFC 9438 section 4.2, figure 1)."""
        return float(_C * (t_s - k_s) ** 3 + self._state.w_max)
