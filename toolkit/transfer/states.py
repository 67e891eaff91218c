"""The session as a table: who may say what, and when.

Both ends keep the same state and advance it by the messages they send and receive. The table allows for what
is on its way: after its END a sender still gets decisions that were made before the receiver knew of it.
"""

from enum import Enum

from toolkit.errors import ProtocolError
from toolkit.transfer.messages import Type


class Party(Enum):
    """Who a message comes from."""

    SENDER = "sender"
    RECEIVER = "receiver"


class State(Enum):
    """Of a session, as one end knows it."""

    NEW = "new"
    OPEN = "open"  # offers and content
    ENDED = "ended"  # everything was offered and sent
    OVER = "over"


_SENDER, _RECEIVER = Party.SENDER, Party.RECEIVER

TRANSITIONS: dict[tuple[State, Party, Type], State] = {
    (State.NEW, _SENDER, Type.BEGIN): State.OPEN,
    (State.OPEN, _SENDER, Type.OFFER): State.OPEN,
    (State.OPEN, _SENDER, Type.HOLE): State.OPEN,
    (State.OPEN, _SENDER, Type.DIGESTS): State.OPEN,
    (State.OPEN, _SENDER, Type.ALIVE): State.OPEN,
    (State.OPEN, _SENDER, Type.END): State.ENDED,
    (State.OPEN, _RECEIVER, Type.ACCEPT): State.OPEN,
    (State.OPEN, _RECEIVER, Type.RESULT): State.OPEN,
    (State.OPEN, _RECEIVER, Type.ALIVE): State.OPEN,
    (State.ENDED, _SENDER, Type.ALIVE): State.ENDED,
    (State.ENDED, _RECEIVER, Type.ACCEPT): State.ENDED,
    (State.ENDED, _RECEIVER, Type.RESULT): State.ENDED,
    (State.ENDED, _RECEIVER, Type.ALIVE): State.ENDED,
    (State.ENDED, _RECEIVER, Type.DONE): State.OVER,
    **{
        (state, party, Type.ERROR): State.OVER
        for state in (State.NEW, State.OPEN, State.ENDED)
        for party in Party
    },
}  # fmt: skip


def advance(state: State, party: Party, message: Type) -> State:
    """The state after a message of that type from that party. Raises ProtocolError where it may not come."""
    following = TRANSITIONS.get((state, party, message))
    if following is None:
        raise ProtocolError(f"the {party.value} may not say {message.name} when the session is {state.value}")
    return following
