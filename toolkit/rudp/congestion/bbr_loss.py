"""Which losses are congestion and which are the path's own: what lets BBR go on where packets are lost at
random.

The draft takes more than 2% of loss in a round trip for a full queue, sends less, and on a path that loses 5%
whatever one does it never stops sending less: what is delivered is 5% below what is sent, so the bandwidth
estimate falls by that much again and again. We ask instead what a loss depends on.

- A queue that drops is a queue, and shows in the RTT. Loss in rounds without one is the path's own, and its
  share of
  all packets is measured: `share`.
- Loss is congestion where it exceeds `share` by the draft's 2% and by more than chance explains *and* either
  there
  is a queue, or we are just probing by sending more, which random loss does not mind.
- A policer, or a buffer of a few packets, drops without a queue that could be seen. But it drops less when
  one sends
  less, and random loss does not: `share` is never more than what was lost in ProbeBW_DOWN, when BBR sends a
  tenth less than the path takes.

What the path loses is made up for: to have a bandwidth *delivered*, BBR sends 1 / (1 - share) times as much,
and keeps as much more in flight. Both are right where the loss is behind the bottleneck, harmless where it is
before it.

Chance: the number of packets lost of n scatters around share x n with variance share x n x `dispersion`,
        where the dispersion is 1 for independent loss, and more for bursts; it is measured as well.
"""

from typing import Final

MAX_PATH_LOSS: Final = 0.3
"""More than this is not made up for."""
_LOSS_THRESHOLD: Final = 0.02
"""BBR.LossThresh, draft-ietf-ccwg-bbr section 2."""
_MEMORY_ROUNDS: Final = 16
"""The shares of older rounds weigh less, by 1/e per this many."""
_PRIOR_DATAGRAMS: Final = 50
"""How much the assumption that a path loses nothing weighs at first, in packets."""
_SIGNIFICANT_DEVIATIONS: Final = 3.0
_SCATTER_PRIOR: Final = 3.0
"""Packets of variance that are there even on a path that has not lost anything yet."""
_TOLERATED_DEVIATIONS: Final = 2.0
_MAX_DISPERSION: Final = 50.0


class PathLoss:
    """Fed with losses and acknowledgements, and told what kind of round each was when it ends.

    share: of the packets sent, what the path loses whether one sends more or less
    """

    def __init__(self, datagram_bytes: int) -> None:
        self.share = 0.0
        self.datagram_bytes = datagram_bytes
        self._round_lost_bytes = 0
        self._round_acked_bytes = 0
        self._lost = 0.0
        self._total = float(_PRIOR_DATAGRAMS)
        self._low_lost = 0.0
        self._low_total = 0.0
        self._dispersion = 1.0

    def on_lost(self, lost_bytes: int) -> None:
        self._round_lost_bytes += lost_bytes

    def on_spurious(self, lost_bytes: int) -> None:
        """`lost_bytes` of the last round or two were no loss at all."""
        self._round_lost_bytes = max(0, self._round_lost_bytes - lost_bytes)

    def on_acked(self, acked_bytes: int) -> None:
        self._round_acked_bytes += acked_bytes

    def is_excessive(self, flight_bytes: int) -> bool:
        """Whether this round has lost more than the path's own losses and chance explain.

        `flight_bytes` is what one round trip has in flight: the beginning of a round is no sample of it.
        """
        total = max(self._round_lost_bytes + self._round_acked_bytes, flight_bytes) / self.datagram_bytes
        scatter: float = (self._dispersion * (self.share * total + _SCATTER_PRIOR)) ** 0.5
        tolerated = (self.share + _LOSS_THRESHOLD) * total + _SIGNIFICANT_DEVIATIONS * scatter
        return self._round_lost_bytes > tolerated * self.datagram_bytes

    def end_round(self, is_of_the_path: bool, is_below_capacity: bool) -> None:
        """A round trip is over.

        is_of_the_path:    no queue was full, as far as delay and growth can tell
        is_below_capacity: what was acknowledged in it was sent in ProbeBW_DOWN
        """
        lost = self._round_lost_bytes / self.datagram_bytes
        total = lost + self._round_acked_bytes / self.datagram_bytes
        self.forget_round()
        if not is_of_the_path or not total:
            return
        keep = 1 - 1 / _MEMORY_ROUNDS
        if is_below_capacity:
            self._low_lost = self._low_lost / 2 + lost
            self._low_total = self._low_total / 2 + total
        expected = max(self.share * total, 1.0)
        deviation = min((lost - expected) ** 2 / expected, _MAX_DISPERSION)
        self._dispersion = max(1.0, keep * self._dispersion + (1 - keep) * deviation)
        self._lost = keep * self._lost + min(lost, MAX_PATH_LOSS * total)
        self._total = keep * self._total + total
        self.share = min(self._lost / self._total, self._low_bound())

    def forget_round(self) -> None:
        """What this round lost tells nothing of the path's usual loss."""
        self._round_lost_bytes = self._round_acked_bytes = 0

    def _low_bound(self) -> float:
        """The most that the share can be, by what was lost while sending less than the path takes."""
        if not self._low_total:
            return MAX_PATH_LOSS
        share = self._low_lost / self._low_total
        scatter: float = (self._dispersion * share / self._low_total) ** 0.5
        return share + _TOLERATED_DEVIATIONS * scatter + 1 / self._low_total
