"""What congestion has taught BBR not to exceed.

Read: draft-ietf-ccwg-bbr sections 5.5.10 (congestion signals) and 5.3.3.6 (raising the long-term bound).
"""

from dataclasses import dataclass, replace
from typing import Final

_UNBOUNDED: Final = float("inf")
_BETA: Final = 0.7
"""BBR.Beta: what a congested round leaves of the short-term bounds, unless more was measured."""
_UP_SLOPE_DIVISOR: Final = 16
"""UP raises the long-term bound by a 16th in its first round, twice as much in the next, and so on. The draft begins
with one packet, which takes long on a path that has become much wider, or whose jitter made Startup see too little; the
queue ends UP in any case."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """inflight_longterm: how much in flight was too much when probing; infinite until that has happened.
    bw_shortterm, inflight_shortterm: what is left of bandwidth and volume until the next probe.
    """

    inflight_longterm: float = _UNBOUNDED
    bw_shortterm: float = _UNBOUNDED
    inflight_shortterm: float = _UNBOUNDED


class CongestionBounds:
    """`now` are the bounds that hold; the last change can be undone while nothing else has changed them.

    Whoever changes them says when it is, so that only a loss from before that can take the change back.
    """

    def __init__(self) -> None:
        self.now = Bounds()
        self._before: Bounds | None = None
        self._changed_ns = 0
        self._up_slope_bytes = 0.0

    @property
    def has_longterm(self) -> bool:
        return self.now.inflight_longterm < _UNBOUNDED

    def set_longterm(self, now_ns: int, in_flight_bytes: float) -> None:
        """So much was too much."""
        self._set(now_ns, Bounds(inflight_longterm=in_flight_bytes))

    def set_longterm_by_probe(self, now_ns: int, in_flight_at_send_bytes: int, target_bytes: float) -> None:
        """A probe found that so much was too much; but not less than BBR.Beta of what the model wants."""
        self.set_longterm(now_ns, max(float(in_flight_at_send_bytes), _BETA * target_bytes))

    def set_longterm_by_startup(self, now_ns: int, in_flight_at_send_bytes: int, delivered_bytes: float) -> None:
        """Startup found that so much was too much, and has seen so much delivered in one round trip.

        The second is low where losses ended Startup early; then BBR.Beta of the first is the better guess.
        """
        self.set_longterm(now_ns, max(delivered_bytes, _BETA * in_flight_at_send_bytes))

    def lower(
        self,
        now_ns: int,
        max_bw_bps: float,
        window_bytes: float,
        bw_latest_bps: float,
        inflight_latest_bytes: float,
    ) -> None:
        """A congested round: follow what is delivered down, by no more than BBR.Beta."""
        bandwidth_bps = min(self.now.bw_shortterm, max_bw_bps)
        inflight_bytes = min(self.now.inflight_shortterm, window_bytes)
        self._set(
            now_ns,
            Bounds(
                inflight_longterm=self.now.inflight_longterm,
                bw_shortterm=max(bw_latest_bps, _BETA * bandwidth_bps),
                inflight_shortterm=max(inflight_latest_bytes, _BETA * inflight_bytes),
            ),
        )

    def drop_short_term(self) -> None:
        """The next probe begins."""
        self.now = Bounds(inflight_longterm=self.now.inflight_longterm)
        self._before = None

    def confirm(self) -> None:
        """The last change was made for a mark, which is never taken back."""
        self._before = None

    def undo(self, lost_sent_time_ns: int) -> None:
        """A packet that was sent at that time was not lost: neither has happened what a change since was made for."""
        if self._before is not None and self._changed_ns > lost_sent_time_ns:
            self.now, self._before = self._before, None

    def start_up(self, datagram_bytes: int) -> None:
        """UP begins: the bound rises slowly at first."""
        slope_bytes = self.now.inflight_longterm / _UP_SLOPE_DIVISOR if self.has_longterm else 0.0
        self._up_slope_bytes = max(float(datagram_bytes), slope_bytes)

    def end_up_round(self) -> None:
        self._up_slope_bytes *= 2

    def raise_longterm(self, acked_share_of_window: float) -> None:
        """UP uses all that the bound allows, and nothing speaks against more."""
        raised_bytes = self.now.inflight_longterm + self._up_slope_bytes * acked_share_of_window
        self.now = replace(self.now, inflight_longterm=raised_bytes)

    def _set(self, now_ns: int, bounds: Bounds) -> None:
        self._before, self.now, self._changed_ns = self.now, bounds, now_ns
