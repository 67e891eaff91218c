"""CUBIC: a loss-based window that grows as a cubic function of time, what most of the Internet's TCP runs.

Theory. After a loss event at window W_max the window falls to 0.7 W_max and then follows W_cubic(t) = C (t -
K)^3 + W_max: fast at first, flat around W_max where the loss was, then fast again in search of more. Growth
depends on time, not on the RTT, so long paths are used too. On short paths, where Reno would be faster, the
window follows an estimate of Reno's instead. A flow that loses before it is back at its old W_max gives room
to the newcomer that it assumes (fast convergence).

The formulas count in segments and seconds; so do the variables that bear their names.

Read: RFC 9438 sections 4.2 (window), 4.3 (Reno-friendly region), 4.6 (decrease), 4.7 (fast convergence), 4.8
      (timeout), 4.9 (spurious loss), 5.8 (application-limited). HyStart++ for slow start: RFC 9406.
"""

from dataclasses import dataclass, replace
from typing import Final

from toolkit.rudp.congestion.base import AckSample
from toolkit.rudp.congestion.loss_based import LossBasedController

_NS_PER_S: Final = 1_000_000_000
_C: Final = 0.4
"""C, in segments per cubed second: how aggressive the curve is (RFC 9438 section 5.1)."""
_BETA_CUBIC: Final = 0.7
"""beta_cubic: what a loss event leaves of the window (RFC 9438 section 4.6)."""
_ALPHA_CUBIC: Final = 3 * (1 - _BETA_CUBIC) / (1 + _BETA_CUBIC)
"""alpha_cubic: segments per round trip at which the decrease above averages Reno's window (RFC 9438 section 4.3)."""
_MAX_GROWTH: Final = 1.5
"""The target lies at most this times the window above it (RFC 9438 section 4.2)."""


@dataclass(frozen=True, slots=True)
class _Epoch:
    """One stage of congestion avoidance; from its start on, t counts.

    start_ns: t_epoch
    k_s:      K = cbrt((W_max - cwnd_epoch) / C), when the curve is back at W_max, in seconds
    w_est:    W_est, what Reno's window would be by now, in segments
    """

    start_ns: int
    k_s: float
    w_est: float


@dataclass(frozen=True, slots=True)
class _Curve:
    """What CUBIC knows; replaced as a whole, so that a spurious loss event is undone by putting the old one
    back.

    w_max:      W_max, the plateau: the window before the last loss event, or less by fast convergence;
                segments
    cwnd_prior: cwnd_prior, the window before the last loss event; segments
    epoch:      None until congestion avoidance begins anew
    """

    w_max: float = 0.0
    cwnd_prior: float = 0.0
    epoch: _Epoch | None = None


class Cubic(LossBasedController):
    """See `base.CongestionController`; (datagram_bytes, rate_bps or None as a bound, seed)."""

    name = "cubic"

    def __init__(self, datagram_bytes: int, rate_bps: float | None, seed: int) -> None:
        super().__init__(datagram_bytes, rate_bps, seed)
        self._curve = _Curve()
        self._curve_before = self._curve
        self._counted_until_ns = 0

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        super().on_sent(now_ns, sent_bytes, bytes_in_flight, is_app_limited)
        if bytes_in_flight == 0:  # a silence ends: the samples of a full window after it do not tell of it
            self._leave_out_time(now_ns)

    def on_ack(self, sample: AckSample) -> None:
        if not sample.is_window_limited:
            self._leave_out_time(sample.now_ns)
        self._counted_until_ns = sample.now_ns
        super().on_ack(sample)

    def snapshot(self) -> dict[str, float | str]:
        return super().snapshot() | {"w_max": self._curve.w_max * self._datagram_bytes}

    def _avoid_congestion(self, sample: AckSample) -> None:
        cwnd = self._window_bytes / self._datagram_bytes
        if self._curve.epoch is None:
            self._curve = self._curve_from(sample.now_ns, cwnd)
        epoch = self._curve.epoch
        assert epoch is not None
        if not sample.is_window_limited:
            return
        segments_acked = sample.newly_acked_bytes / self._datagram_bytes
        alpha = _ALPHA_CUBIC if epoch.w_est < self._curve.cwnd_prior else 1.0
        w_est = epoch.w_est + alpha * segments_acked / cwnd
        self._curve = replace(self._curve, epoch=replace(epoch, w_est=w_est))

        t_s = (sample.now_ns - epoch.start_ns) / _NS_PER_S
        if self._w_cubic(t_s, epoch.k_s) < w_est:
            cwnd = max(cwnd, w_est)
        else:
            target = self._w_cubic(t_s + sample.smoothed_rtt_ns / _NS_PER_S, epoch.k_s)
            target = min(max(target, cwnd), _MAX_GROWTH * cwnd)
            cwnd += (target - cwnd) * min(segments_acked / cwnd, 1.0)
        self._window_bytes = cwnd * self._datagram_bytes

    def _reduced_window_bytes(self) -> float:
        cwnd = self._window_bytes / self._datagram_bytes
        # Fast convergence, RFC 9438 section 4.7: the saturation point has come down, so leave it to others.
        w_max = cwnd * (1 + _BETA_CUBIC) / 2 if cwnd < self._curve.w_max else cwnd
        self._curve_before = self._curve
        self._curve = _Curve(w_max=w_max, cwnd_prior=cwnd)
        return self._window_bytes * _BETA_CUBIC

    def _restore(self) -> None:
        self._curve = self._curve_before

    def _on_persistent_congestion(self) -> None:
        # RFC 9438 section 4.8: the old plateau says nothing now; the curve begins where slow start will end.
        self._curve = replace(self._curve, w_max=0.0, epoch=None)

    def _leave_out_time(self, now_ns: int) -> None:
        """The curve stands still while the window is not what limits the sender (RFC 9438 section 5.8).

        So it was from what has been counted on until `now_ns`.
        """
        epoch = self._curve.epoch
        if epoch is not None:
            unused_ns = now_ns - self._counted_until_ns
            self._curve = replace(self._curve, epoch=replace(epoch, start_ns=epoch.start_ns + unused_ns))
        self._counted_until_ns = now_ns

    def _curve_from(self, now_ns: int, cwnd: float) -> _Curve:
        """The curve of a stage of congestion avoidance that begins now with a window of `cwnd` segments."""
        if cwnd >= self._curve.w_max:
            # Slow start ended without a loss, or the window was above the plateau (RFC 9438 section 4.2): K
            # is 0.
            return replace(self._curve, w_max=cwnd, epoch=_Epoch(now_ns, 0.0, cwnd))
        k_s = ((self._curve.w_max - cwnd) / _C) ** (1 / 3)
        return replace(self._curve, epoch=_Epoch(now_ns, k_s, cwnd))

    def _w_cubic(self, t_s: float, k_s: float) -> float:
        """W_cubic(t) in segments, RFC 9438 section 4.2, figure 1."""
        return float(_C * (t_s - k_s) ** 3 + self._curve.w_max)
