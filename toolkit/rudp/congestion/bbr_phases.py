"""The phases of BBR as tables: which follows which, how fast each sends and how much it keeps in flight, and when.

Read: draft-ietf-ccwg-bbr sections 5.3 (state machine), 5.3.3.5 (when to probe) and 5.6.1 (gains).
"""

from enum import Enum
from typing import Final

_NS_PER_S: Final = 1_000_000_000


class Phase(Enum):
    """Sections 5.3.1 to 5.3.4; the middle four are ProbeBW."""

    STARTUP = "startup"
    DRAIN = "drain"
    DOWN = "probe_bw_down"
    CRUISE = "probe_bw_cruise"
    REFILL = "probe_bw_refill"
    UP = "probe_bw_up"
    PROBE_RTT = "probe_rtt"


SUCCESSORS: Final = {
    Phase.STARTUP: {Phase.DRAIN},
    Phase.DRAIN: {Phase.CRUISE, Phase.PROBE_RTT},
    Phase.DOWN: {Phase.CRUISE, Phase.REFILL, Phase.PROBE_RTT},
    Phase.CRUISE: {Phase.REFILL, Phase.PROBE_RTT},
    Phase.REFILL: {Phase.UP, Phase.DOWN, Phase.PROBE_RTT},
    Phase.UP: {Phase.DOWN, Phase.PROBE_RTT},
    Phase.PROBE_RTT: {Phase.CRUISE},
}
"""Which phase may follow which. The draft enters ProbeBW through DOWN also after Drain and ProbeRTT; there is nothing
left to drain then."""

PACING_GAIN: Final = {
    Phase.STARTUP: 2.77,  # 4 ln 2: the least that doubles the delivery rate each round
    Phase.DRAIN: 0.5,
    Phase.DOWN: 0.9,
    Phase.CRUISE: 1.0,
    Phase.REFILL: 1.0,
    Phase.UP: 1.25,
    Phase.PROBE_RTT: 1.0,
}
"""Of the bandwidth."""

CWND_GAIN: Final = {
    Phase.STARTUP: 2.5,
    Phase.DRAIN: 2.0,
    Phase.DOWN: 1.25,
    Phase.CRUISE: 1.25,
    Phase.REFILL: 1.25,
    Phase.UP: 1.3,
    Phase.PROBE_RTT: 0.5,
}
"""Of the product of bandwidth and delay; what acknowledgements aggregate comes on top."""

PROBING: Final = frozenset({Phase.REFILL, Phase.UP})
"""The phases that mean to find out how much is too much."""

_PROBE_WAIT_ROUNDS: Final = 16
_FIRST_PROBE_WAIT_ROUNDS: Final = 2
"""The first probe comes early: it repairs a Startup that left too soon."""
_MIN_PROBE_WAIT_NS: Final = 20_000_000
_MAX_PROBE_WAIT_NS: Final = 2 * _NS_PER_S
_PROBE_WAIT_SPREAD: Final = 0.5
"""Waits are up to this part longer, at random, so that flows do not probe in step."""
_XORSHIFT_MASK: Final = (1 << 64) - 1


class ProbeClock:
    """When the next probe for bandwidth is due. A cycle is the time from one probe's end to the next's.

    rounds: round trips of this cycle so far
    """

    def __init__(self, seed: int) -> None:
        self.rounds = 0
        self._random_state = seed * 2 + 1 & _XORSHIFT_MASK
        self._start_ns = 0
        self._wait_rounds = 0
        self._wait_ns = 0

    def start_cycle(self, now_ns: int, is_first: bool) -> None:
        """Draw how long this cycle lasts: 16 to 24 round trips (the first 2 or 3), 2 to 3 s at the most."""
        spread = 1 + _PROBE_WAIT_SPREAD * self._draw()
        self.rounds = 0
        self._start_ns = now_ns
        self._wait_rounds = int((_FIRST_PROBE_WAIT_ROUNDS if is_first else _PROBE_WAIT_ROUNDS) * spread)
        self._wait_ns = int(_MAX_PROBE_WAIT_NS * spread)

    def is_due(self, now_ns: int) -> bool:
        waited_ns = now_ns - self._start_ns
        has_waited = self.rounds >= self._wait_rounds and waited_ns > _MIN_PROBE_WAIT_NS
        return has_waited or waited_ns > self._wait_ns

    def _draw(self) -> float:
        """A number from [0, 1), by xorshift64*: nothing hangs on it but that flows differ."""
        x = self._random_state
        x ^= x >> 12
        x ^= x << 25 & _XORSHIFT_MASK
        x ^= x >> 27
        self._random_state = x
        return (x * 0x2545F4914F6CDD1D & _XORSHIFT_MASK) / (_XORSHIFT_MASK + 1)
