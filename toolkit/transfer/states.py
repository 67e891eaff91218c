"""The session as a table: who may say what, and when.

Both ends keep the same state and advance it by the messages they send and receive. The table allows for what
is on its way: after its END a sender still gets decisions that were made before the receiver knew of it.
"""

from enum import Enum

from toolkit.errors import ProtocolError
from toolkit.transfer.messages import MessageType


class Role(Enum):
    """Who a message comes from."""

    SENDER = "sender"
    RECEIVER = "receiver"


class SessionState(Enum):
    """Of a session, as one end knows it."""

    NEW = "new"
    OPEN = "open"  # offers and content
    ENDED = "ended"  # everything was offered and sent
    OVER = "over"


_SENDER, _RECEIVER = Role.SENDER, Role.RECEIVER

TRANSITIONS: dict[tuple[SessionState, Role, MessageType], SessionState] = {
    (SessionState.NEW, _SENDER, MessageType.BEGIN): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.OFFER): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.HOLE): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.DIGESTS): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.ALIVE): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.END): SessionState.ENDED,
    (SessionState.OPEN, _RECEIVER, MessageType.ACCEPT): SessionState.OPEN,
    (SessionState.OPEN, _RECEIVER, MessageType.RESULT): SessionState.OPEN,
    (SessionState.OPEN, _RECEIVER, MessageType.ALIVE): SessionState.OPEN,
    (SessionState.ENDED, _SENDER, MessageType.ALIVE): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.ACCEPT): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.RESULT): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.ALIVE): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.DONE): SessionState.OVER,
    **{
        (state, party, MessageType.ERROR): SessionState.OVER
        for state in (SessionState.NEW, SessionState.OPEN, SessionState.ENDED)
        for party in Role
    },
}  # fmt: skip


def advance(state: SessionState, party: Role, message: MessageType) -> SessionState:
    """The state after a message of that type from that party. Raises ProtocolError where it may not come."""
    following = TRANSITIONS.get((state, party, message))
    if following is None:
        raise ProtocolError(f"the {party.value} may not say {message.name} when the session is {state.value}")
    return following
