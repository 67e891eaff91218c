"""Rate: sends at the rate that the user asked for, through any loss, unless the path is really full.

Theory. Who knows their path (a lossy radio link of so many Mb/s, a reserved circuit) wants that rate held, and no
controller that takes a lost packet for a full queue. But a rate that the path cannot carry must not be forced upon
everybody who shares it. Full is a path that delivers less than is sent *and* shows it: a queue stands for a whole
round trip, or most of what is sent is lost. Three such rounds on end are one too many for an accident; then the rate
falls to nine tenths of what was delivered, which drains the queue, and rises again by a fortieth of the target a round
as soon as the path is not full. It never falls below a tenth of the target: what is left must be enough to find
out that the path has room again.

The measures of a queue are BBR's (`bbr_path`).

Read: RFC 8085 section 3.1 (what bulk traffic over UDP owes to others); RFC 8084 (circuit breakers).
"""

from typing import Final

from toolkit.errors import UsageError
from toolkit.rudp.congestion.base import AckSample, LossSample, initial_window_bytes
from toolkit.rudp.congestion.path_model import MinRtt, QueueDelay, Rounds

_NS_PER_S: Final = 1_000_000_000
_BITS_PER_BYTE: Final = 8

_DELIVERED_SHARE: Final = 0.95
"""Less than this of what is sent must arrive for the path to count as full."""
_BREAKING_LOSS: Final = 0.5
"""So much loss means a full path even where no queue is seen (a policer, or a buffer of a few packets)."""
_FULL_ROUNDS: Final = 3
_BACK_OFF: Final = 0.9
_RECOVERY_STEPS: Final = 40
"""Rounds from nothing to the target."""
_FLOOR_SHARE: Final = 0.1
_WINDOW_RTTS: Final = 2.0
_ACK_DELAY_NS: Final = 50_000_000
"""The window covers two round trips and acknowledgements that come late by twice the usual limit of 25 ms: it is there
to stop a sender that nobody answers, not to set its rate."""


class FixedRate:
    """See `base.CongestionController`; (datagram_bytes, rate_bps, seed). Raises UsageError where there is no rate."""

    name = "rate"

    def __init__(self, datagram_bytes: int, rate_bps: float | None, seed: int) -> None:
        del seed
        if rate_bps is None or rate_bps <= 0:
            raise UsageError("congestion control 'rate' holds a rate: say which one, with --rate")
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
        window_bytes = self._rate_bps * window_ns / (_BITS_PER_BYTE * _NS_PER_S)
        return max(int(window_bytes), initial_window_bytes(self._datagram_bytes))

    @property
    def pacing_rate_bps(self) -> float:
        return self._rate_bps

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        """Nothing to learn from sending."""

    def on_loss(self, sample: LossSample) -> None:
        self._round_lost_bytes += sample.lost_bytes

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        """A round's losses are judged at its end; what proves spurious later is not worth going back for."""

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
            self._queue.update(rtt_ns, self._min_rtt.ns or rtt_ns)
        self._round_acked_bytes += sample.newly_acked_bytes
        self._round_delivered_bps = max(self._round_delivered_bps, sample.delivery_rate_bps or 0.0)
        self._is_round_app_limited = self._is_round_app_limited or sample.is_app_limited
        self._is_round_marked = self._is_round_marked or sample.ecn_ce_count > 0
        self._rounds.update(sample)
        if self._rounds.is_start:
            self._end_round(sample.min_rtt_ns)

    def _end_round(self, min_rtt_ns: int) -> None:
        self._queue.end_round(self._min_rtt.ns or min_rtt_ns)
        is_full = self._is_path_full(min_rtt_ns)
        if is_full:
            self._full_rounds += 1
            if self._full_rounds >= _FULL_ROUNDS:
                self._full_rounds = 0
                self._rate_bps = max(_BACK_OFF * self._round_delivered_bps, _FLOOR_SHARE * self._target_bps)
        else:
            self._full_rounds = 0
            if not self._is_round_app_limited:
                self._rate_bps = min(self._rate_bps + self._target_bps / _RECOVERY_STEPS, self._target_bps)
        self._round_delivered_bps = 0.0
        self._round_lost_bytes = self._round_acked_bytes = 0
        self._is_round_app_limited = self._is_round_marked = False

    def _is_path_full(self, min_rtt_ns: int) -> bool:
        """Whether this round got less than was sent, and delay, loss or marks say that the path is why."""
        if self._is_round_app_limited or not self._round_delivered_bps:
            return False
        has_queue = self._queue.is_standing(self._min_rtt.ns or min_rtt_ns)
        total_bytes = self._round_lost_bytes + self._round_acked_bytes
        is_broken = self._round_lost_bytes > _BREAKING_LOSS * total_bytes
        is_short = self._round_delivered_bps < _DELIVERED_SHARE * self._rate_bps
        return (is_short and (has_queue or is_broken)) or self._is_round_marked
