"""Starts a connection at a part of the rate that the path has carried before, and retreats if it no longer does.

A long path takes five or more round trips to fill from an initial window, and a file of a few megabytes is sent by
then. A path to a peer met before may well carry what it has carried then, but another path, or other flows, may have
taken its place. So the memory is used carefully, in these steps:

- *Reconnaissance.* The RTT has to be that of the memory. Here this is the round trip of the handshake, which the
  draft's initial window would only repeat.
- *Unvalidated.* Half of the remembered volume is sent, evenly over a round trip. A sender that has little to send yet,
  or little room in the peer's window, proves nothing, and stays in this step.
- *Validating.* The first of it is acknowledged: a little more than the remembered rate is sent. After another round
  trip, everything that was sent unvalidated has arrived, and the remembered rate is taken for that of the bottleneck,
  as if it had been measured.
- *Safe retreat.* Losses or a queue at any time until then: the path is narrower. The window is half of what has
  arrived, and the memory is forgotten.

Read: draft-ietf-tsvwg-careful-resume, whose names are used here.
"""

from enum import Enum
from typing import Final

from toolkit.rudp.congestion.base import PathMemory

_LEAST_JUMP: Final = 8
_VALIDATING_GAIN: Final = 1.25
"""What is sent of the remembered rate once a first part of it has arrived, so that it shows whether it was too low."""
_ACK_DELAY_RTTS: Final = 1 / 8
"""The window covers this much more than the rate does, so that the first acknowledgement may be late."""
_JUMP: Final = 0.5
"""The part of the remembered volume and rate that is sent before anything is acknowledged."""
_LEAST_FILL: Final = 0.5
"""The part of that window that has to be in flight for its acknowledgement to prove something. Sent evenly, it is 0.7
after 0.8 of the remembered RTT."""


class ResumePhase(Enum):
    """What has become of the memory."""

    NONE = "none"
    UNVALIDATED = "unvalidated"
    VALIDATING = "validating"
    VALIDATED = "validated"
    RETREATED = "retreated"


class CarefulResume:
    """The use of one memory by Startup.

    phase: the draft's phase; NONE if nothing is remembered
    """

    def __init__(self) -> None:
        self.phase = ResumePhase.NONE
        self._rate_bps = 0.0
        self._window_bytes = 0.0

    @property
    def is_active(self) -> bool:
        """Whether the path has still to prove what is remembered."""
        return self.phase in (ResumePhase.UNVALIDATED, ResumePhase.VALIDATING)

    def start(self, memory: PathMemory, initial_bytes: float) -> float | None:
        """Use a memory of this path; returns the window in bytes.

        None if it saves nothing over the window `initial_bytes`, which grows by eight in its first round trip.
        """
        window_bytes = _JUMP * memory.volume_bytes
        if window_bytes < _LEAST_JUMP * initial_bytes:
            return None
        self.phase = ResumePhase.UNVALIDATED
        self._rate_bps = memory.rate_bps
        self._window_bytes = window_bytes * (1 + _ACK_DELAY_RTTS)
        return self._window_bytes

    @property
    def limit_bps(self) -> float:
        """The rate to send at most while the path is to prove itself."""
        return (_JUMP if self.phase is ResumePhase.UNVALIDATED else _VALIDATING_GAIN) * self._rate_bps

    def start_round(self, in_flight_bytes: int) -> float | None:
        """A round begins; returns the rate that the path has proved, in bits per second, once it has.

        `in_flight_bytes` is what was in flight before the acknowledgement that begins it.
        """
        if self.phase is ResumePhase.UNVALIDATED:
            if in_flight_bytes >= _LEAST_FILL * self._window_bytes:
                self.phase = ResumePhase.VALIDATING
        elif self.phase is ResumePhase.VALIDATING:
            self.phase = ResumePhase.VALIDATED
            return self._rate_bps
        return None

    def retreat(self) -> None:
        """The path does not carry what is remembered."""
        self.phase = ResumePhase.RETREATED
