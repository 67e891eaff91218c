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
KEY_ID = key_id(KEY)


class Receiver:
    """Reconnection keys on a clock of their own."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.keys = Reconnections(lambda: self.now_s)

    def admits(self, key: bytes) -> bool:
        return self.keys.psk(key_id(key)) == reconnection_psk(key)

    def admit_and_start(self, key: bytes) -> int:
        """A sender comes back; return the number of its session."""
        number = self.keys.next_number(key_id(key))
        assert number is not None
        self.keys.start(key_id(key), number)
        return number


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
    assert receiver.keys.add(KEY) == 1
    receiver.now_s += 10 * KEPT_S
    assert receiver.admits(KEY)
    assert receiver.keys.lose(KEY_ID, 1)
    receiver.now_s += KEPT_S - 1
    assert receiver.admits(KEY)
    receiver.now_s += 1
    assert not receiver.admits(KEY)
    assert receiver.keys.next_number(KEY_ID) is None


def test_a_key_is_dead_once_its_session_has_ended(receiver: Receiver) -> None:
    receiver.keys.add(KEY)
    receiver.keys.add(OTHER_KEY)
    receiver.keys.end(KEY_ID, 1)
    assert not receiver.admits(KEY)
    assert receiver.keys.next_number(KEY_ID) is None
    assert receiver.admits(OTHER_KEY)


def test_only_a_key_that_was_added_admits(receiver: Receiver) -> None:
    receiver.keys.add(KEY)
    assert receiver.keys.next_number(key_id(OTHER_KEY)) is None
    receiver.keys.start(key_id(OTHER_KEY), 2)
    assert not receiver.keys.is_newest(key_id(OTHER_KEY), 2)
    assert not receiver.admits(OTHER_KEY)


def test_a_sender_may_be_back_before_its_loss_is_noticed(receiver: Receiver) -> None:
    receiver.keys.add(KEY)
    assert receiver.admit_and_start(KEY) == 2
    assert not receiver.keys.lose(KEY_ID, 1)
    receiver.now_s += 10 * KEPT_S
    assert receiver.admits(KEY)
    assert receiver.keys.end(KEY_ID, 2)
    assert not receiver.admits(KEY)


def test_the_order_of_the_numbers_says_which_session_is_the_newest(receiver: Receiver) -> None:
    """The thread of a session that its sender has given up may be held up, and start it late."""
    receiver.keys.add(KEY)
    given_up, live = receiver.keys.next_number(KEY_ID), receiver.keys.next_number(KEY_ID)
    assert (given_up, live) == (2, 3)
    receiver.keys.start(KEY_ID, 3)
    receiver.keys.start(KEY_ID, 2)
    assert not receiver.keys.is_newest(KEY_ID, 2)
    assert not receiver.keys.end(KEY_ID, 2)
    assert receiver.keys.is_newest(KEY_ID, 3)
    assert receiver.keys.end(KEY_ID, 3)


def test_a_session_that_was_admitted_and_never_starts_leaves_the_last_word_to_the_one_before(
    receiver: Receiver,
) -> None:
    receiver.keys.add(KEY)
    receiver.keys.next_number(KEY_ID)
    assert receiver.keys.lose(KEY_ID, 1)
    receiver.now_s += KEPT_S
    assert not receiver.admits(KEY)


def test_an_older_session_that_fails_leaves_the_key_to_the_newer(receiver: Receiver) -> None:
    receiver.keys.add(KEY)
    receiver.admit_and_start(KEY)
    assert not receiver.keys.end(KEY_ID, 1)
    assert receiver.keys.lose(KEY_ID, 2)
    assert receiver.admits(KEY)
    receiver.now_s += KEPT_S
    assert not receiver.admits(KEY)


def test_an_older_session_that_ends_late_does_not_prolong_the_key(receiver: Receiver) -> None:
    receiver.keys.add(KEY)
    receiver.admit_and_start(KEY)
    receiver.keys.lose(KEY_ID, 2)
    receiver.now_s += KEPT_S - 1
    assert not receiver.keys.lose(KEY_ID, 1)
    assert receiver.admits(KEY)
    receiver.now_s += 1
    assert not receiver.admits(KEY)


def test_the_late_end_of_a_lost_session_revives_no_key(receiver: Receiver) -> None:
    receiver.keys.add(KEY)
    receiver.admit_and_start(KEY)
    receiver.keys.end(KEY_ID, 2)
    assert not receiver.keys.lose(KEY_ID, 1)
    assert not receiver.keys.end(KEY_ID, 1)
    assert not receiver.admits(KEY)


def test_the_number_of_keys_is_limited_and_running_sessions_keep_theirs(receiver: Receiver) -> None:
    numbers = [receiver.keys.add(numbered(each)) for each in range(MAX_KEYS)]
    assert receiver.keys.add(KEY) is None
    for each in (5, 3):
        number = numbers[each]
        assert number is not None
        receiver.keys.lose(key_id(numbered(each)), number)
        receiver.now_s += 1
    assert receiver.keys.add(KEY)
    assert [each for each in range(MAX_KEYS) if not receiver.admits(numbered(each))] == [5]
