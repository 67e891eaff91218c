"""The state table of a session: every state x role x message, and random walks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ProtocolError
from toolkit.transfer.message_types import MessageType
from toolkit.transfer.session import TRANSITIONS, Role, SessionState, advance

INPUTS = [(role, message_type) for role in Role for message_type in MessageType]


@pytest.mark.parametrize("state", list(SessionState))
@pytest.mark.parametrize(("role", "message_type"), INPUTS)
def test_an_input_outside_the_table_is_an_error(state: SessionState, role: Role, message_type: MessageType) -> None:
    if (state, role, message_type) in TRANSITIONS:
        assert advance(state, role, message_type) is TRANSITIONS[state, role, message_type]
    else:
        with pytest.raises(ProtocolError):
            advance(state, role, message_type)


@given(st.lists(st.sampled_from(INPUTS), max_size=40))
def test_a_session_begins_once_ends_once_and_never_goes_back(inputs: list[tuple[Role, MessageType]]) -> None:
    order = list(SessionState)
    state = SessionState.NEW
    begun = ended = False
    for role, message_type in inputs:
        try:
            following = advance(state, role, message_type)
        except ProtocolError:
            continue
        assert order.index(following) >= order.index(state)
        assert state is not SessionState.CLOSED
        assert not (message_type is MessageType.BEGIN and begun)
        assert not (message_type is MessageType.END and ended)
        assert begun or message_type in (MessageType.BEGIN, MessageType.ERROR)
        assert not (message_type is MessageType.DONE and not ended)
        begun, ended = begun or message_type is MessageType.BEGIN, ended or message_type is MessageType.END
        state = following


def test_only_error_alive_and_withdraw_go_both_ways() -> None:
    directions = {
        message_type: {role for _, role, other in TRANSITIONS if other is message_type} for message_type in MessageType
    }
    both = {message_type for message_type, roles in directions.items() if len(roles) == 2}
    assert both == {MessageType.ERROR, MessageType.ALIVE, MessageType.WITHDRAW}
    assert all(directions.values())
