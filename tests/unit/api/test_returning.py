"""Senders that come back: which keys a receiver keeps, and for whom it waits."""

import pytest

from toolkit.api.returning import ReturningSender, Whereabouts
from toolkit.errors import ProtocolError
from toolkit.security.reconnections import Reconnections, key_id

KEY, OTHER_KEY = bytes(range(32)), bytes(32 * [7])


class Receiver:
    """A receiver's sessions, one after another or at once."""

    def __init__(self) -> None:
        self.reconnections = Reconnections()

    def session(
        self, key: bytes | None, authentication: str = "code", encryption: str = "aes-256-gcm"
    ) -> ReturningSender:
        statistics = {"authentication": authentication, "encryption": encryption}
        sender = ReturningSender(lambda: statistics, self.reconnections)
        sender.on_begin(key)
        return sender

    def admits(self, key: bytes) -> bool:
        return self.reconnections.psk(key_id(key)) is not None


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def test_the_key_admits_after_a_loss_and_not_after_any_other_end(receiver: Receiver) -> None:
    assert receiver.session(KEY).end(is_lost=True) is Whereabouts.AWAITED
    assert receiver.admits(KEY)
    assert receiver.session(KEY, "reconnection").end(is_lost=False) is Whereabouts.GONE
    assert not receiver.admits(KEY)


@pytest.mark.parametrize("authentication", ["key", "none"])
def test_a_sender_that_gets_in_anyway_is_awaited_and_its_key_admits_nobody(
    receiver: Receiver, authentication: str
) -> None:
    assert receiver.session(KEY, authentication).end(is_lost=True) is Whereabouts.AWAITED
    assert not receiver.admits(KEY)


@pytest.mark.parametrize("authentication", ["code", "key", "none"])
def test_a_sender_that_gives_no_key_is_not_awaited(receiver: Receiver, authentication: str) -> None:
    assert receiver.session(None, authentication).end(is_lost=True) is Whereabouts.GONE


def test_a_key_that_crossed_the_network_in_plaintext_is_not_kept(receiver: Receiver) -> None:
    assert receiver.session(KEY, encryption="none").end(is_lost=True) is Whereabouts.GONE
    assert not receiver.admits(KEY)


@pytest.mark.parametrize("key", [None, OTHER_KEY], ids=["none", "another"])
def test_a_sender_that_came_back_has_to_continue_its_session(receiver: Receiver, key: bytes | None) -> None:
    """Otherwise its key would outlive the session that it is for."""
    receiver.session(KEY).end(is_lost=True)
    with pytest.raises(ProtocolError, match="continues no session"):
        receiver.session(key, "reconnection")
    assert not receiver.admits(OTHER_KEY)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_session_whose_sender_is_back_is_not_the_last_word(receiver: Receiver, is_lost: bool) -> None:
    """It may fail instead, because its file is the newer session's now."""
    first, second = receiver.session(KEY), receiver.session(KEY, "reconnection")
    assert first.end(is_lost=is_lost) is Whereabouts.BACK
    assert second.end(is_lost=True) is Whereabouts.AWAITED
    assert receiver.session(KEY, "reconnection").end(is_lost=False) is Whereabouts.GONE


def test_the_newest_session_says_whether_the_sender_is_away(receiver: Receiver) -> None:
    first, second = receiver.session(KEY), receiver.session(KEY, "reconnection")
    assert second.end(is_lost=True) is Whereabouts.AWAITED
    assert first.end(is_lost=True) is Whereabouts.BACK
    assert receiver.admits(KEY)


def test_a_sender_that_is_lost_again_before_its_session_begins_is_awaited(receiver: Receiver) -> None:
    receiver.session(KEY).end(is_lost=True)
    statistics = {"authentication": "reconnection", "encryption": "aes-256-gcm"}
    again = ReturningSender(lambda: statistics, receiver.reconnections)
    assert again.end(is_lost=True) is Whereabouts.AWAITED
    assert receiver.admits(KEY)


def test_nor_is_one_whose_sender_has_been_back(receiver: Receiver) -> None:
    first, second = receiver.session(KEY), receiver.session(KEY, "reconnection")
    assert second.end(is_lost=False) is Whereabouts.GONE
    assert first.end(is_lost=True) is Whereabouts.BACK
    assert not receiver.admits(KEY)
