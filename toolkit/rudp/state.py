"""The states of a connection as a table; whatever is not in it cannot happen.

ESTABLISHED               data and messages flow
CLOSING                   this side sent CLOSE and answers stragglers with it
CLOSED                    over: by the peer's CLOSE, by silence, or by a port that is closed
"""

from enum import Enum, auto
from typing import Final


class State(Enum):
    ESTABLISHED = auto()
    CLOSING = auto()
    CLOSED = auto()


class Event(Enum):
    """What moves a connection from state to state."""

    CLOSE = auto()  # the application ends it
    PEER_CLOSED = auto()  # CLOSE arrived
    LOST = auto()  # silence for the idle timeout, or a port that is closed


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.ESTABLISHED, Event.CLOSE): State.CLOSING,
    (State.ESTABLISHED, Event.PEER_CLOSED): State.CLOSED,
    (State.ESTABLISHED, Event.LOST): State.CLOSED,
    (State.CLOSING, Event.CLOSE): State.CLOSING,
    (State.CLOSING, Event.PEER_CLOSED): State.CLOSED,
    (State.CLOSING, Event.LOST): State.CLOSED,
    (State.CLOSED, Event.CLOSE): State.CLOSED,
    (State.CLOSED, Event.PEER_CLOSED): State.CLOSED,
    (State.CLOSED, Event.LOST): State.CLOSED,
}
