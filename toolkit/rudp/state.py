"""The states of a connection as a table; whatever is not in it cannot happen.

ESTABLISHED               data and messages flow
CLOSING                   this side sent CLOSE and answers stragglers with it
CLOSED                    over: by the peer's CLOSE, by silence, or by a port that is closed
"""

from enum import Enum, auto
from typing import Final


class ConnectionState(Enum):
    ESTABLISHED = auto()
    CLOSING = auto()
    CLOSED = auto()


class ConnectionEvent(Enum):
    """What moves a connection from state to state."""

    CLOSE = auto()  # the application ends it
    PEER_CLOSED = auto()  # CLOSE arrived
    LOST = auto()  # silence for the idle timeout, or a port that is closed


TRANSITIONS: Final[dict[tuple[ConnectionState, ConnectionEvent], ConnectionState]] = {
    (ConnectionState.ESTABLISHED, ConnectionEvent.CLOSE): ConnectionState.CLOSING,
    (ConnectionState.ESTABLISHED, ConnectionEvent.PEER_CLOSED): ConnectionState.CLOSED,
    (ConnectionState.ESTABLISHED, ConnectionEvent.LOST): ConnectionState.CLOSED,
    (ConnectionState.CLOSING, ConnectionEvent.CLOSE): ConnectionState.CLOSING,
    (ConnectionState.CLOSING, ConnectionEvent.PEER_CLOSED): ConnectionState.CLOSED,
    (ConnectionState.CLOSING, ConnectionEvent.LOST): ConnectionState.CLOSED,
    (ConnectionState.CLOSED, ConnectionEvent.CLOSE): ConnectionState.CLOSED,
    (ConnectionState.CLOSED, ConnectionEvent.PEER_CLOSED): ConnectionState.CLOSED,
    (ConnectionState.CLOSED, ConnectionEvent.LOST): ConnectionState.CLOSED,
}
