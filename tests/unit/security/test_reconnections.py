"""Reconnection keys: how long they admit, and when they are worth nothing."""

import pytest

from toolkit.security.reconnections import (
    KEPT_S,
    KEY_ID_BYTES,
    MAX_KEYS,
    RECONNECTION_KEY_BYTES,
    Reconnections,
    key_id,
    reconnection_psk,
)

KEY, OTHER_KEY = bytes(range(32)), bytes(32 * [7])


class Receiver:
    """Reconnection keys on a clock of their own."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.keys = Reconnections(lambda: self.now_s)

    def admits(self, key: bytes) -> bool:
        return self.keys.psk(key_id(key)) == reconnection_psk(key)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def numbered(number: int) -> bytes:
    return number.to_bytes(RECONNECTION_KEY_BYTES)


def test_what_crosses_the_network_in_the_clear_is_not_the_key() -> None:
    assert len(key_id(KEY)) == KEY_ID_BYTES
    assert len({KEY, key_id(KEY), reconnection_psk(KEY), key_id(OTHER_KEY), reconnection_psk(OTHER_KEY)}) == 5
    assert key_id(KEY) not in reconnection_psk(KEY)


def test_a_key_admits_while_its_session_runs_and_for_a_while_after_its_loss(receiver: Receiver) -> None:
    assert not receiver.admits(KEY)
    assert receiver.keys.begin(KEY, is_new=True)
    receiver.now_s += 10 * KEPT_S
    assert receiver.admits(KEY)
    assert receiver.keys.lose(KEY, 1)
    receiver.now_s += KEPT_S - 1
    assert receiver.admits(KEY)
    receiver.now_s += 1
    assert not receiver.admits(KEY)


def test_a_key_is_dead_once_its_session_has_ended(receiver: Receiver) -> None:
    receiver.keys.begin(KEY, is_new=True)
    receiver.keys.begin(OTHER_KEY, is_new=True)
    receiver.keys.end(KEY, 1)
    assert not receiver.admits(KEY)
    assert receiver.admits(OTHER_KEY)


def test_a_session_that_came_back_brings_no_other_key(receiver: Receiver) -> None:
    receiver.keys.begin(KEY, is_new=True)
    receiver.keys.lose(KEY, 1)
    assert not receiver.keys.begin(OTHER_KEY, is_new=False)
    assert not receiver.admits(OTHER_KEY)
    assert receiver.keys.begin(KEY, is_new=False)


def test_a_sender_may_be_back_before_its_loss_is_noticed(receiver: Receiver) -> None:
    receiver.keys.begin(KEY, is_new=True)
    assert receiver.keys.begin(KEY, is_new=False) == 2
    assert not receiver.keys.lose(KEY, 1)
    receiver.now_s += 10 * KEPT_S
    assert receiver.admits(KEY)
    assert receiver.keys.end(KEY, 2)
    assert not receiver.admits(KEY)


def test_an_older_session_that_fails_leaves_the_key_to_the_newer(receiver: Receiver) -> None:
    receiver.keys.begin(KEY, is_new=True)
    receiver.keys.begin(KEY, is_new=False)
    assert not receiver.keys.end(KEY, 1)
    assert receiver.keys.lose(KEY, 2)
    assert receiver.admits(KEY)
    receiver.now_s += KEPT_S
    assert not receiver.admits(KEY)


def test_an_older_session_that_ends_late_does_not_prolong_the_key(receiver: Receiver) -> None:
    receiver.keys.begin(KEY, is_new=True)
    receiver.keys.begin(KEY, is_new=False)
    receiver.keys.lose(KEY, 2)
    receiver.now_s += KEPT_S - 1
    assert not receiver.keys.lose(KEY, 1)
    assert receiver.admits(KEY)
    receiver.now_s += 1
    assert not receiver.admits(KEY)


def test_the_late_end_of_a_lost_session_revives_no_key(receiver: Receiver) -> None:
    receiver.keys.begin(KEY, is_new=True)
    receiver.keys.begin(KEY, is_new=False)
    receiver.keys.end(KEY, 2)
    assert not receiver.keys.lose(KEY, 1)
    assert not receiver.keys.end(KEY, 1)
    assert not receiver.admits(KEY)


def test_the_number_of_keys_is_limited_and_running_sessions_keep_theirs(receiver: Receiver) -> None:
    for number in range(MAX_KEYS):
        assert receiver.keys.begin(numbered(number), is_new=True)
    assert not receiver.keys.begin(KEY, is_new=True)
    receiver.keys.lose(numbered(5), 1)
    receiver.now_s += 1
    receiver.keys.lose(numbered(3), 1)
    assert receiver.keys.begin(KEY, is_new=True)
    assert [number for number in range(MAX_KEYS) if not receiver.admits(numbered(number))] == [5]
