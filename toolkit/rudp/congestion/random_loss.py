"""The loss that a path causes at random, which BBR compensates for.

The draft treats a loss of more than 2% in a round trip as congestion and slows down. On a path that loses 5% at random,
the delivery rate is always 5% below the sending rate, so the bandwidth estimate would fall again and again. BBR
therefore looks for evidence of congestion before it believes a loss:

- A full queue shows in the RTT. Loss in rounds without a queue is random; `RandomLoss.ratio` measures it.
- Loss is congestion if it exceeds `ratio` by the draft's 2% and by more than chance explains, *and* either a queue is
  seen or BBR is currently probing with a higher rate, which random loss would not respond to.
- A policer, or a buffer of a few packets, drops without a visible queue, but drops less if less is sent. Random loss
  does not depend on the sending rate. So `ratio` never exceeds what was lost while sending less: in ProbeBW_DOWN, a
  tenth less than the path carries, and before that in the rounds of Startup, each of which sent half as much as the
  next.

BBR compensates for random loss: to have a bandwidth *delivered*, it sends 1 / (1 - ratio) times as much and keeps as
much more in flight. This is correct if the loss occurs behind the bottleneck and harmless if it occurs before it.

The number of packets lost out of n has the variance ratio x n x dispersion. The index of dispersion is 1 for
independent losses and larger for bursts; it is measured as well.
"""

from dataclasses import dataclass
from typing import Final

MAX_RANDOM_LOSS: Final = 0.3
"""The largest ratio of random loss that BBR compensates for."""
_LOSS_THRESHOLD: Final = 0.02
"""BBR.LossThresh, draft-ietf-ccwg-bbr section 2."""
_MEMORY_ROUNDS: Final = 16
"""Time constant, in rounds, of the exponential averages."""
_PRIOR_DATAGRAMS: Final = 50
"""Weight, in packets, of the initial assumption that the path loses nothing."""
_EVIDENCE_DATAGRAMS: Final = 500
"""What was lost below the capacity of the path is remembered for as many packets, or two rounds if those are more."""
_SIGNIFICANT_DEVIATIONS: Final = 3.0
_PRIOR_VARIANCE: Final = 3.0
"""Variance, in packets, assumed even on a path that has not lost anything yet."""
_TOLERATED_DEVIATIONS: Final = 2.0
_MAX_DISPERSION: Final = 50.0


@dataclass(frozen=True, slots=True)
class LossCount:
    """What has become of some packets. Their numbers need not be whole."""

    lost: float = 0.0
    packets: float = 0.0

    def __add__(self, other: "LossCount") -> "LossCount":
        return LossCount(self.lost + other.lost, self.packets + other.packets)

    @property
    def share(self) -> float:
        """The share that was lost."""
        return self.lost / self.packets if self.packets else 0.0

    @property
    def least_share(self) -> float:
        """The share less its standard deviation, if losses are independent."""
        share = self.share
        deviation: float = (share * (1 - share) / max(self.packets, 1.0)) ** 0.5
        return max(0.0, share - deviation)


class RandomLoss:
    """Measures the loss that does not depend on the sending rate (see the head of this file).

    ratio: share of the packets sent that the path loses at random
    """

    def __init__(self, datagram_bytes: int) -> None:
        self.ratio = 0.0
        self.datagram_bytes = datagram_bytes
        self._round_lost_bytes = 0
        self._round_acked_bytes = 0
        self._lost = 0.0
        self._total = float(_PRIOR_DATAGRAMS)
        self._below_capacity_lost = 0.0
        self._below_capacity_total = 0.0
        self._dispersion = 1.0

    def on_lost(self, lost_bytes: int) -> None:
        """Count packets declared lost."""
        self._round_lost_bytes += lost_bytes

    def on_spurious(self, lost_bytes: int) -> None:
        """Take back losses of the last round or two that proved spurious."""
        self._round_lost_bytes = max(0, self._round_lost_bytes - lost_bytes)

    def on_acked(self, acked_bytes: int) -> None:
        """Count packets acknowledged."""
        self._round_acked_bytes += acked_bytes

    @property
    def round_count(self) -> LossCount:
        """What has become of this round's packets so far."""
        total_bytes = self._round_lost_bytes + self._round_acked_bytes
        return LossCount(self._round_lost_bytes / self.datagram_bytes, total_bytes / self.datagram_bytes)

    def is_excessive(self, flight_bytes: int) -> bool:
        """Whether this round has lost more than random loss and chance explain.

        `flight_bytes` is what one round trip has in flight: the first packets of a round are too few to judge it by.
        """
        total = max(self._round_lost_bytes + self._round_acked_bytes, flight_bytes) / self.datagram_bytes
        deviation: float = (self._dispersion * (self.ratio * total + _PRIOR_VARIANCE)) ** 0.5
        tolerated = (self.ratio + _LOSS_THRESHOLD) * total + _SIGNIFICANT_DEVIATIONS * deviation
        return self._round_lost_bytes > tolerated * self.datagram_bytes

    def end_round(self, is_random: bool, is_below_capacity: bool) -> None:
        """A round trip ends.

        is_random:         neither delay nor growth indicates that a full queue caused the losses of this round
        is_below_capacity: less was sent than the path carries: in ProbeBW_DOWN, or while Startup still grew
        """
        lost = self._round_lost_bytes / self.datagram_bytes
        total = lost + self._round_acked_bytes / self.datagram_bytes
        self.discard_round()
        if not is_random or not total:
            return
        keep = 1 - 1 / _MEMORY_ROUNDS
        if is_below_capacity:
            if self._below_capacity_total > _EVIDENCE_DATAGRAMS:
                self._below_capacity_lost /= 2
                self._below_capacity_total /= 2
            self._below_capacity_lost += lost
            self._below_capacity_total += total
        expected = max(self.ratio * total, 1.0)
        dispersion = min((lost - expected) ** 2 / expected, _MAX_DISPERSION)
        self._dispersion = max(1.0, keep * self._dispersion + (1 - keep) * dispersion)
        self._lost = keep * self._lost + min(lost, MAX_RANDOM_LOSS * total)
        self._total = keep * self._total + total
        self.ratio = min(self._lost / self._total, self._upper_limit())

    def believe(self, share: float) -> None:
        """This share of loss has proved to be random, whatever was measured before. `end_round` follows."""
        share = min(share, MAX_RANDOM_LOSS)
        self._lost = share * self._total
        self._below_capacity_lost = share * self._below_capacity_total

    def discard_round(self) -> None:
        """Ignore what this round has lost so far."""
        self._round_lost_bytes = self._round_acked_bytes = 0

    def _upper_limit(self) -> float:
        """The largest plausible ratio, given what was lost while sending below the path's capacity."""
        if not self._below_capacity_total:
            return MAX_RANDOM_LOSS
        ratio = self._below_capacity_lost / self._below_capacity_total
        deviation: float = (self._dispersion * ratio / self._below_capacity_total) ** 0.5
        return ratio + _TOLERATED_DEVIATIONS * deviation
