"""The session's state table: every state x party x message, and random walks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ProtocolError
from toolkit.transfer.messages import MessageType
from toolkit.transfer.session import TRANSITIONS, Role, SessionState, advance

INPUTS = [(party, kind) for party in Role for kind in MessageType]


@pytest.mark.parametrize("state", list(SessionState))
@pytest.mark.parametrize(("party", "kind"), INPUTS)
def test_every_input_is_in_the_table_or_an_error(state: SessionState, party: Role, kind: MessageType) -> None:
    if (state, party, kind) in TRANSITIONS:
        assert advance(state, party, kind) is TRANSITIONS[state, party, kind]
    else:
        with pytest.raises(ProtocolError):
            advance(state, party, kind)


@given(st.lists(st.sampled_from(INPUTS), max_size=40))
def test_a_session_begins_once_ends_once_and_only_goes_forward(inputs: list[tuple[Role, MessageType]]) -> None:
    order = list(SessionState)
    state = SessionState.NEW
    begun = ended = False
    for party, kind in inputs:
        try:
            following = advance(state, party, kind)
        except ProtocolError:
            continue
        assert order.index(following) >= order.index(state)
        assert state is not SessionState.CLOSED
        assert not (kind is MessageType.BEGIN and begun)
        assert not (kind is MessageType.END and ended)
        assert begun or kind in (MessageType.BEGIN, MessageType.ERROR)
        assert not (kind is MessageType.DONE and not ended)
        begun, ended = begun or kind is MessageType.BEGIN, ended or kind is MessageType.END
        state = following


def test_each_message_has_one_direction_but_for_two() -> None:
    directions = {kind: {party for _, party, other in TRANSITIONS if other is kind} for kind in MessageType}
    both = {kind for kind, parties in directions.items() if len(parties) == 2}
    assert both == {MessageType.ERROR, MessageType.ALIVE}
    assert all(directions.values())
