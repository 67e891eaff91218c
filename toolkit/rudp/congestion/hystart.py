"""HyStart++: leave slow start when the delay rises, before the queue overflows.

Theory. Slow start doubles the window each round until something is lost, by then up to a whole window too
much. A queue that builds shows first in the RTT: when a round's minimum exceeds the previous round's by an
eighth (within 4 to 16 ms), growth slows to a quarter for five rounds of *conservative slow start*; if the RTT
falls back meanwhile, it was jitter and slow start goes on, else slow start is over.

One choice of our own: RFC 9406 wants 8 samples before it judges a round. Our receiver acknowledges about 4
times per round trip and each time gives one sample, so 8 would never be reached; 3 are asked for.

Read: RFC 9406 section 4.
"""

from typing import Final

from toolkit.rudp.congestion.base import AckSample

_MIN_RTT_THRESH_NS: Final = 4_000_000
_MAX_RTT_THRESH_NS: Final = 16_000_000
_MIN_RTT_DIVISOR: Final = 8
_CSS_GROWTH_DIVISOR: Final = 4
_CSS_ROUNDS: Final = 5
_RTT_SAMPLES: Final = 3
"""N_RTT_SAMPLE; RFC 9406 section 4.3 has 8, see above."""


class HyStart:
    """Fed every sample of the first slow start; tells how slowly to grow (`growth_divisor`) and if it `is_over`."""

    def __init__(self) -> None:
        self.is_over = False
        self._round_end_bytes = 0
        self._last_round_min_rtt_ns: int | None = None
        self._round_min_rtt_ns: int | None = None
        self._round_samples = 0
        self._css_baseline_min_rtt_ns: int | None = None
        self._css_rounds = 0

    @property
    def growth_divisor(self) -> int:
        """By how much the growth of slow start is to be divided: 1, or 4 in conservative slow start."""
        return 1 if self._css_baseline_min_rtt_ns is None else _CSS_GROWTH_DIVISOR

    def on_ack(self, sample: AckSample) -> None:
        """Take one sample (RFC 9406 section 4.2)."""
        if sample.prior_delivered_bytes >= self._round_end_bytes:
            self._start_round(sample.delivered_bytes)
        if sample.rtt_ns is None:
            return
        self._round_min_rtt_ns = min(sample.rtt_ns, self._round_min_rtt_ns or sample.rtt_ns)
        self._round_samples += 1
        if self._round_samples < _RTT_SAMPLES:
            return
        if self._css_baseline_min_rtt_ns is not None:
            if self._round_min_rtt_ns < self._css_baseline_min_rtt_ns:
                self._css_baseline_min_rtt_ns = None
        elif self._last_round_min_rtt_ns is not None:
            threshold_ns = self._last_round_min_rtt_ns // _MIN_RTT_DIVISOR
            threshold_ns = max(_MIN_RTT_THRESH_NS, min(threshold_ns, _MAX_RTT_THRESH_NS))
            if self._round_min_rtt_ns >= self._last_round_min_rtt_ns + threshold_ns:
                self._css_baseline_min_rtt_ns = self._round_min_rtt_ns
                self._css_rounds = 0

    def _start_round(self, delivered_bytes: int) -> None:
        if self._css_baseline_min_rtt_ns is not None:
            self._css_rounds += 1
            self.is_over = self.is_over or self._css_rounds >= _CSS_ROUNDS
        self._round_end_bytes = delivered_bytes
        self._last_round_min_rtt_ns = self._round_min_rtt_ns
        self._round_min_rtt_ns = None
        self._round_samples = 0
