"""The phases of BBR: what each sends, and which may follow which.

Read: draft-ietf-ccwg-bbr sections 5.3 (state machine) and 5.6.1 (gains).
"""

from enum import Enum
from typing import Final, NamedTuple


class Phase(Enum):
    """States of the state machine, draft sections 5.3.1 to 5.3.4. Four of them make up ProbeBW."""

    STARTUP = "startup"
    DRAIN = "drain"
    DOWN = "probe_bw_down"
    CRUISE = "probe_bw_cruise"
    REFILL = "probe_bw_refill"
    UP = "probe_bw_up"
    PROBE_RTT = "probe_rtt"


class PhaseSpec(NamedTuple):
    """pacing_gain: multiplies the bandwidth (draft section 5.6.1)
    cwnd_gain:   multiplies the BDP; the volume that acknowledgements aggregate is added
    successors:  the phases that may follow
    """

    pacing_gain: float
    cwnd_gain: float
    successors: frozenset[Phase]


PHASES: Final = {
    # 2.77 = 4 ln 2 is the smallest gain that doubles the delivery rate each round.
    Phase.STARTUP: PhaseSpec(2.77, 2.0, frozenset({Phase.DRAIN})),
    Phase.DRAIN: PhaseSpec(0.5, 2.0, frozenset({Phase.CRUISE, Phase.PROBE_RTT})),
    Phase.DOWN: PhaseSpec(0.9, 1.25, frozenset({Phase.CRUISE, Phase.REFILL, Phase.PROBE_RTT})),
    Phase.CRUISE: PhaseSpec(1.0, 1.25, frozenset({Phase.REFILL, Phase.DOWN, Phase.PROBE_RTT})),
    Phase.REFILL: PhaseSpec(1.0, 1.25, frozenset({Phase.UP, Phase.DOWN, Phase.PROBE_RTT})),
    Phase.UP: PhaseSpec(1.25, 1.3, frozenset({Phase.DOWN, Phase.PROBE_RTT})),
    Phase.PROBE_RTT: PhaseSpec(1.0, 0.5, frozenset({Phase.CRUISE})),
}
PROBING: Final = frozenset({Phase.REFILL, Phase.UP})
"""Phases that send more in order to find out how much is too much."""
