"""The session's state table: every state x party x message, and random walks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ProtocolError
from toolkit.transfer.messages import Type
from toolkit.transfer.states import TRANSITIONS, Party, State, advance

INPUTS = [(party, kind) for party in Party for kind in Type]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(("party", "kind"), INPUTS)
def test_every_input_is_in_the_table_or_an_error(state: State, party: Party, kind: Type) -> None:
    if (state, party, kind) in TRANSITIONS:
        assert advance(state, party, kind) is TRANSITIONS[state, party, kind]
    else:
        with pytest.raises(ProtocolError):
            advance(state, party, kind)


@given(st.lists(st.sampled_from(INPUTS), max_size=40))
def test_a_session_begins_once_ends_once_and_only_goes_forward(inputs: list[tuple[Party, Type]]) -> None:
    order = list(State)
    state = State.NEW
    begun = ended = False
    for party, kind in inputs:
        try:
            following = advance(state, party, kind)
        except ProtocolError:
            continue
        assert order.index(following) >= order.index(state)
        assert state is not State.OVER
        assert not (kind is Type.BEGIN and begun)
        assert not (kind is Type.END and ended)
        assert begun or kind in (Type.BEGIN, Type.ERROR)
        assert not (kind is Type.DONE and not ended)
        begun, ended = begun or kind is Type.BEGIN, ended or kind is Type.END
        state = following


def test_each_message_has_one_direction_but_for_two() -> None:
    directions = {kind: {party for _, party, other in TRANSITIONS if other is kind} for kind in Type}
    both = {kind for kind, parties in directions.items() if len(parties) == 2}
    assert both == {Type.ERROR, Type.ALIVE}
    assert all(directions.values())
