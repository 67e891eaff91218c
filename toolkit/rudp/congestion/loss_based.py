"""The common part of the loss-based controllers: slow start, recovery periods, undo after spurious losses, pacing.

Theory. The window shrinks at most once per round trip: the first packet that is lost, or marked by ECN, starts a
*recovery period* and reduces the window. Packets sent before the period began carry no new information, whether they
are lost or acknowledged; the period ends when a packet sent within it is acknowledged. Below `ssthresh` the window
grows by the bytes acknowledged (slow start). In the first slow start, where no `ssthresh` is known, HyStart++ ends it
early if the delay rises. Above `ssthresh` the subclass decides how the window grows (congestion avoidance). If the
sender did not use its window, the acknowledgements show nothing about it and it stays unchanged.

Read: RFC 9002 section 7 and appendix B; RFC 9406 (HyStart++).
"""

from dataclasses import dataclass
from typing import Final

from toolkit.rudp.congestion.base import (
    ACKS_PER_RTT,
    UNMEASURED_RTT_NS,
    AckSample,
    LossSample,
    initial_window_bytes,
    window_rate_bps,
)
from toolkit.rudp.congestion.hystart import HyStart

_MINIMUM_WINDOW_DATAGRAMS: Final = 2
"""kMinimumWindow, RFC 9002 section 7.2."""
_SLOW_START_PACING_GAIN: Final = 2.0
"""The window doubles within a round trip, so pacing must allow two windows."""
_AVOIDANCE_PACING_GAIN: Final = 1.25
"""N in RFC 9002 section 7.7: the window is used up even if the RTT varies slightly."""


@dataclass(frozen=True, slots=True)
class _BeforeRecovery:
    """The state to restore if a recovery period proves spurious."""

    window_bytes: float
    ssthresh_bytes: float


class LossBasedController:
    """Implements `base.CongestionController` except for congestion avoidance, which a subclass adds.

    Windows are floats, in bytes, so that growth of less than a byte per acknowledgement is not lost.
    """

    name: str

    def __init__(self, datagram_bytes: int, rate_bps: float | None, seed: int) -> None:
        """`rate_bps` limits the pacing rate. `seed` is unused because no choice here is random."""
        del seed
        self._datagram_bytes = datagram_bytes
        self._rate_limit_bps = rate_bps
        self._window_bytes = float(initial_window_bytes(datagram_bytes))
        self._ssthresh_bytes = float("inf")
        self._smoothed_rtt_ns = UNMEASURED_RTT_NS
        self._recovery_start_ns: int | None = None
        self._before_recovery: _BeforeRecovery | None = None
        self._events_in_period = 0
        self._hystart = HyStart()

    @property
    def congestion_window_bytes(self) -> int:
        return int(self._window_bytes)

    @property
    def acks_per_rtt(self) -> int:
        return ACKS_PER_RTT

    @property
    def pacing_rate_bps(self) -> float:
        gain = _SLOW_START_PACING_GAIN if self._in_slow_start else _AVOIDANCE_PACING_GAIN
        rate_bps = gain * window_rate_bps(self._window_bytes, self._smoothed_rtt_ns)
        return rate_bps if self._rate_limit_bps is None else min(rate_bps, self._rate_limit_bps)

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        """Sending teaches this controller nothing."""

    def on_ack(self, sample: AckSample) -> None:
        self._smoothed_rtt_ns = sample.smoothed_rtt_ns
        if sample.ecn_ce_count:
            self._on_congestion_event(sample.now_ns, sample.largest_acked_sent_time_ns)
        if self._was_sent_before_recovery(sample.largest_acked_sent_time_ns):
            return
        if self._in_slow_start:
            self._slow_start(sample)
        else:
            self._avoid_congestion(sample)

    def on_loss(self, sample: LossSample) -> None:
        self._on_congestion_event(sample.now_ns, sample.newest_lost_sent_time_ns)
        if sample.is_persistent:
            # RFC 9002 section 7.6.2: start over, as TCP does after a timeout; this ends the recovery period.
            self._window_bytes = float(self._minimum_window_bytes)
            self._recovery_start_ns = None
            self._before_recovery = None
            self._on_persistent_congestion()

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        del now_ns
        before = self._before_recovery
        if before is None or not self._was_sent_before_recovery(lost_sent_time_ns):
            return
        self._events_in_period -= 1
        if self._events_in_period > 0:
            return
        self._window_bytes = max(self._window_bytes, before.window_bytes)
        self._ssthresh_bytes = before.ssthresh_bytes
        self._recovery_start_ns = None
        self._before_recovery = None
        self._undo_reduction()

    def on_datagram_size(self, datagram_bytes: int) -> None:
        self._datagram_bytes = datagram_bytes
        self._window_bytes = max(self._window_bytes, self._minimum_window_bytes)

    def snapshot(self) -> dict[str, float | str]:
        return {
            "phase": "slow_start" if self._in_slow_start else "congestion_avoidance",
            "congestion_window": self._window_bytes,
            "ssthresh": self._ssthresh_bytes,
        }

    def _avoid_congestion(self, sample: AckSample) -> None:
        """Grow the window after an acknowledgement in congestion avoidance."""
        raise NotImplementedError

    def _reduced_window_bytes(self) -> float:
        """Return the window after a congestion event, and save what `_undo_reduction` needs."""
        raise NotImplementedError

    def _undo_reduction(self) -> None:
        """The latest congestion event was spurious: restore what `_reduced_window_bytes` saved."""

    def _on_persistent_congestion(self) -> None:
        """The window is at its minimum: forget what the controller knows about the path."""

    @property
    def _in_slow_start(self) -> bool:
        return self._window_bytes < self._ssthresh_bytes

    @property
    def _minimum_window_bytes(self) -> int:
        return _MINIMUM_WINDOW_DATAGRAMS * self._datagram_bytes

    def _was_sent_before_recovery(self, sent_time_ns: int) -> bool:
        return self._recovery_start_ns is not None and sent_time_ns <= self._recovery_start_ns

    def _slow_start(self, sample: AckSample) -> None:
        # RFC 9406 section 4.3: HyStart++ applies to the first slow start only; later ones end at ssthresh.
        is_first = self._ssthresh_bytes == float("inf")
        if is_first:
            self._hystart.on_ack(sample)
        if sample.is_window_limited:
            divisor = self._hystart.growth_divisor if is_first else 1
            self._window_bytes += sample.newly_acked_bytes / divisor
        if is_first and self._hystart.is_done:
            self._ssthresh_bytes = self._window_bytes

    def _on_congestion_event(self, now_ns: int, sent_time_ns: int) -> None:
        if self._was_sent_before_recovery(sent_time_ns):
            self._events_in_period += 1
            return
        self._events_in_period = 1
        self._before_recovery = _BeforeRecovery(self._window_bytes, self._ssthresh_bytes)
        self._recovery_start_ns = now_ns
        self._window_bytes = max(self._reduced_window_bytes(), self._minimum_window_bytes)
        self._ssthresh_bytes = self._window_bytes
