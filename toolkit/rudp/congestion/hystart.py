"""HyStart++: leaves slow start when the delay rises, before the queue overflows.

Theory. Slow start doubles the window each round until a packet is lost; by then it may be a whole window too large. A
growing queue shows first in the RTT. If the minimum RTT of a round exceeds that of the previous round by an eighth (but
at least 4 and at most 16 ms), HyStart++ enters *conservative slow start* (CSS), in which the window grows a quarter as
fast. If the RTT falls back within five rounds, the increase was jitter and slow start resumes; otherwise slow start is
done.

Deviation: RFC 9406 wants 8 RTT samples before it judges a round. Our receiver acknowledges about four times per round
trip and each acknowledgement gives one sample, so 3 samples suffice here.

Read: RFC 9406 section 4; the names are those of its section 4.3.
"""

from typing import Final

from toolkit.rudp.congestion.base import AckSample

_MIN_RTT_THRESH_NS: Final = 4_000_000
_MAX_RTT_THRESH_NS: Final = 16_000_000
_MIN_RTT_DIVISOR: Final = 8
_N_RTT_SAMPLE: Final = 3
"""8 in RFC 9406 section 4.3; see the head of this file."""
_CSS_GROWTH_DIVISOR: Final = 4
_CSS_ROUNDS: Final = 5


class HyStart:
    """Consumes the samples of the first slow start.

    is_done: slow start should end
    """

    def __init__(self) -> None:
        self.is_done = False
        self._round_end_bytes = 0
        self._last_round_min_rtt_ns: int | None = None
        self._current_round_min_rtt_ns: int | None = None
        self._rtt_sample_count = 0
        self._css_baseline_min_rtt_ns: int | None = None
        self._css_rounds = 0

    @property
    def growth_divisor(self) -> int:
        """Divides the growth of the window: 1 in slow start, 4 in conservative slow start."""
        return 1 if self._css_baseline_min_rtt_ns is None else _CSS_GROWTH_DIVISOR

    def on_ack(self, sample: AckSample) -> None:
        """Process one batch of acknowledgements (RFC 9406 section 4.2)."""
        if sample.prior_delivered_bytes >= self._round_end_bytes:
            self._start_round(sample.delivered_bytes)
        if sample.rtt_ns is None:
            return
        self._current_round_min_rtt_ns = min(sample.rtt_ns, self._current_round_min_rtt_ns or sample.rtt_ns)
        self._rtt_sample_count += 1
        if self._rtt_sample_count < _N_RTT_SAMPLE:
            return
        if self._css_baseline_min_rtt_ns is not None:
            if self._current_round_min_rtt_ns < self._css_baseline_min_rtt_ns:
                self._css_baseline_min_rtt_ns = None
        elif self._last_round_min_rtt_ns is not None:
            rtt_thresh_ns = self._last_round_min_rtt_ns // _MIN_RTT_DIVISOR
            rtt_thresh_ns = max(_MIN_RTT_THRESH_NS, min(rtt_thresh_ns, _MAX_RTT_THRESH_NS))
            if self._current_round_min_rtt_ns >= self._last_round_min_rtt_ns + rtt_thresh_ns:
                self._css_baseline_min_rtt_ns = self._current_round_min_rtt_ns
                self._css_rounds = 0

    def _start_round(self, delivered_bytes: int) -> None:
        if self._css_baseline_min_rtt_ns is not None:
            self._css_rounds += 1
            self.is_done = self.is_done or self._css_rounds >= _CSS_ROUNDS
        self._round_end_bytes = delivered_bytes
        self._last_round_min_rtt_ns = self._current_round_min_rtt_ns
        self._current_round_min_rtt_ns = None
        self._rtt_sample_count = 0
