"""NewReno: the loss-based controller of RFC 9002, the baseline for comparing the others.

Theory. In congestion avoidance the window grows by one datagram per round trip; a congestion event halves it (additive
increase, multiplicative decrease). `loss_based` contains the rest.

Read: RFC 9002 section 7.3 and appendix B.
"""

from typing import Final

from toolkit.rudp.congestion.base import AckSample
from toolkit.rudp.congestion.loss_based import LossBasedController

_LOSS_REDUCTION_FACTOR: Final = 0.5
"""kLossReductionFactor, RFC 9002 appendix B.1."""


class NewReno(LossBasedController):
    """Implements `base.CongestionController`. `rate_bps` limits the pacing rate; `seed` is unused."""

    name = "newreno"

    def _avoid_congestion(self, sample: AckSample) -> None:
        if sample.is_window_limited:
            self._window_bytes += self._datagram_bytes * sample.newly_acked_bytes / self._window_bytes

    def _reduced_window_bytes(self) -> float:
        return self._window_bytes * _LOSS_REDUCTION_FACTOR
