"""The states of a connection, as a table; a transition that is not in it is an error.

ESTABLISHED  data and messages flow
CLOSING      this side has sent CLOSE, and answers late packets with it
CLOSED       ended by the peer's CLOSE, by the idle timeout, or by a closed port
"""

from enum import Enum, auto
from typing import Final


class ConnectionState(Enum):
    """What a connection can do now."""

    ESTABLISHED = auto()
    CLOSING = auto()
    CLOSED = auto()


class ConnectionEvent(Enum):
    """What moves a connection from state to state."""

    CLOSE = auto()  # the application closes the connection
    PEER_CLOSED = auto()  # CLOSE has arrived
    LOST = auto()  # the idle timeout has expired, or the peer's port is closed


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
