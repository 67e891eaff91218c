"""Fixed rate: sends at the rate the user requests, whatever is lost, unless the path is full.

Theory. Users who know their path (a lossy radio link of a given capacity, a reserved circuit) want that rate held, not
a controller that takes every lost packet for a full queue. But a rate that the path cannot carry must not be forced on
everyone who shares it. A path is *full* if it delivers less than is sent and also shows a cause: a queue that stands
for a whole round trip, or the loss of most packets; an ECN mark alone is enough. After three full rounds in a row the
rate drops to nine tenths of what was delivered, if that is less, which drains the queue. As long as the path is not
full, it rises by a fortieth of the target per round. It never falls below a tenth of the target, so that the controller
can find out when the path has room again.

Read: RFC 8085 section 3.1 (what bulk transfers over UDP owe to other traffic); RFC 8084 (circuit breakers).
"""

from typing import Final

from toolkit.errors import UsageError
from toolkit.rudp.congestion.base import (
    ACKS_PER_RTT,
    BITS_PER_BYTE,
    NS_PER_S,
    AckSample,
    LossSample,
    initial_window_bytes,
)
from toolkit.rudp.congestion.path_model import MinRtt, QueueDelay, Rounds

_FULL_DELIVERY_SHARE: Final = 0.95
"""A path can be full only if it delivers less than this share of the sending rate."""
_FULL_LOSS_SHARE: Final = 0.5
"""More loss than this shows a full path even without a queue (a policer, or a buffer of a few packets)."""
_FULL_ROUNDS: Final = 3
"""Full rounds in a row before the rate drops; fewer may be an accident."""
_BACK_OFF: Final = 0.9
_RECOVERY_STEPS: Final = 40
"""Rounds it takes to rise from zero to the target."""
_MIN_RATE_SHARE: Final = 0.1
_WINDOW_RTTS: Final = 2.0
_ACK_DELAY_NS: Final = 50_000_000
"""The window covers two round trips plus twice the usual max ack delay of 25 ms. Its purpose is to stop a sender whose
packets nobody acknowledges, not to limit the rate."""


class FixedRate:
    """Implements `base.CongestionController`. Raises UsageError without a positive `rate_bps`."""

    name = "rate"

    def __init__(self, datagram_bytes: int, rate_bps: float | None, seed: int) -> None:
        del seed
        if rate_bps is None or rate_bps <= 0:
            raise UsageError("congestion control 'rate' needs a rate: add `rate_bps`, for example of 50 Mbit/s")
        self._datagram_bytes = datagram_bytes
        self._target_bps = rate_bps
        self._rate_bps = rate_bps
        self._min_rtt = MinRtt()
        self._queue = QueueDelay()
        self._rounds = Rounds()
        self._full_rounds = 0
        self._round_delivered_bps = 0.0
        self._round_lost_bytes = 0
        self._round_acked_bytes = 0
        self._is_round_app_limited = False
        self._is_round_marked = False

    @property
    def congestion_window_bytes(self) -> int:
        window_ns = _WINDOW_RTTS * (self._min_rtt.ns or 0) + _ACK_DELAY_NS
        window_bytes = self._rate_bps * window_ns / (BITS_PER_BYTE * NS_PER_S)
        return max(int(window_bytes), initial_window_bytes(self._datagram_bytes))

    @property
    def acks_per_rtt(self) -> int:
        return ACKS_PER_RTT

    @property
    def pacing_rate_bps(self) -> float:
        return self._rate_bps

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        """Sending teaches this controller nothing."""

    def on_loss(self, sample: LossSample) -> None:
        self._round_lost_bytes += sample.lost_bytes

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        """Ignored: the losses of a round are judged when it ends, and a single round changes nothing."""

    def on_datagram_size(self, datagram_bytes: int) -> None:
        self._datagram_bytes = datagram_bytes

    def snapshot(self) -> dict[str, float | str]:
        return {
            "phase": "backed_off" if self._rate_bps < self._target_bps else "holding",
            "congestion_window": float(self.congestion_window_bytes),
            "target_rate": self._target_bps,
        }

    def on_ack(self, sample: AckSample) -> None:
        if sample.rtt_ns is not None or self._min_rtt.ns is None:
            rtt_ns = sample.rtt_ns or sample.min_rtt_ns
            self._min_rtt.update(sample.now_ns, rtt_ns)
            self._queue.update(sample.now_ns, rtt_ns, self._min_rtt.ns or rtt_ns)
        self._round_acked_bytes += sample.newly_acked_bytes
        self._round_delivered_bps = max(self._round_delivered_bps, sample.delivery_rate_bps or 0.0)
        self._is_round_app_limited = self._is_round_app_limited or sample.is_app_limited
        self._is_round_marked = self._is_round_marked or sample.ecn_ce_count > 0
        self._rounds.update(sample)
        if self._rounds.is_start:
            self._end_round(sample.min_rtt_ns)

    def _end_round(self, min_rtt_ns: int) -> None:
        self._queue.end_round(self._min_rtt.ns or min_rtt_ns)
        if self._is_path_full(min_rtt_ns):
            self._full_rounds += 1
            if self._full_rounds >= _FULL_ROUNDS:
                self._full_rounds = 0
                reduced_bps = max(_BACK_OFF * self._round_delivered_bps, _MIN_RATE_SHARE * self._target_bps)
                self._rate_bps = min(self._rate_bps, reduced_bps)  # an old delivery rate may be above the current rate
        else:
            self._full_rounds = 0
            if not self._is_round_app_limited:
                self._rate_bps = min(self._rate_bps + self._target_bps / _RECOVERY_STEPS, self._target_bps)
        self._round_delivered_bps = 0.0
        self._round_lost_bytes = self._round_acked_bytes = 0
        self._is_round_app_limited = self._is_round_marked = False

    def _is_path_full(self, min_rtt_ns: int) -> bool:
        """Whether this round delivered less than was sent, and a queue, loss or an ECN mark shows the path is full."""
        if self._is_round_app_limited or not self._round_delivered_bps:
            return False
        has_queue = self._queue.is_standing(self._min_rtt.ns or min_rtt_ns)
        total_bytes = self._round_lost_bytes + self._round_acked_bytes
        loses_most = self._round_lost_bytes > _FULL_LOSS_SHARE * total_bytes
        delivers_less = self._round_delivered_bps < _FULL_DELIVERY_SHARE * self._rate_bps
        return (delivers_less and (has_queue or loses_most)) or self._is_round_marked
