"""Senders that come back: which keys a receiver keeps, and for whom it waits."""

import pytest

from tests.support.memory_transport import MemoryTransport
from toolkit.api.returning import ReturningSender, Whereabouts
from toolkit.channel import Address, Channel, Statistic, TransportOptions
from toolkit.errors import ProtocolError
from toolkit.forwarding_channel import ForwardingChannel
from toolkit.security.admission import Admitted, Method
from toolkit.security.reconnections import Reconnections, key_id

KEY, OTHER_KEY = bytes(range(32)), bytes(32 * [7])


class AdmittedChannel(ForwardingChannel):
    """A channel whose sender was admitted in this way."""

    def __init__(self, channel: Channel, admitted: Admitted, encryption: str) -> None:
        super().__init__(channel)
        self._admitted, self._encryption = admitted, encryption

    @property
    def admitted(self) -> Admitted:
        return self._admitted

    def statistics(self) -> dict[str, Statistic]:
        return {**super().statistics(), "encryption": self._encryption}


class Receiver:
    """A receiver's sessions, one after another or at once."""

    def __init__(self) -> None:
        self.reconnections = Reconnections()
        transport = MemoryTransport()
        options = TransportOptions()
        self._channel = transport.connect(transport.listen(Address("127.0.0.1", 0), options).address, options)

    def admitted(self, key: bytes = KEY) -> Admitted:
        """A handshake with this key is finished."""
        number = self.reconnections.next_number(key_id(key))
        assert number is not None
        return Admitted(Method.RECONNECTION, key_id(key), number)

    def start(self, admitted: Admitted, encryption: str = "aes-256-gcm") -> ReturningSender:
        return ReturningSender(AdmittedChannel(self._channel, admitted, encryption), self.reconnections)

    def session(
        self, key: bytes | None, method: Method = Method.CODE, encryption: str = "aes-256-gcm"
    ) -> ReturningSender:
        sender = self.start(Admitted(method), encryption)
        sender.on_begin(key)
        return sender

    def session_that_continues(self) -> ReturningSender:
        sender = self.start(self.admitted())
        sender.on_begin(KEY)
        return sender

    def admits(self, key: bytes) -> bool:
        return self.reconnections.psk(key_id(key)) is not None


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def test_the_key_admits_after_a_loss_and_not_after_any_other_end(receiver: Receiver) -> None:
    assert receiver.session(KEY).end(is_lost=True) is Whereabouts.AWAITED
    assert receiver.admits(KEY)
    assert receiver.session_that_continues().end(is_lost=False) is Whereabouts.GONE
    assert not receiver.admits(KEY)


@pytest.mark.parametrize("method", [Method.KEY, Method.NONE])
def test_a_sender_that_gets_in_anyway_is_awaited_and_its_key_admits_nobody(receiver: Receiver, method: Method) -> None:
    assert receiver.session(KEY, method).end(is_lost=True) is Whereabouts.AWAITED
    assert not receiver.admits(KEY)


@pytest.mark.parametrize("method", [Method.CODE, Method.KEY, Method.NONE])
def test_a_sender_that_gives_no_key_is_not_awaited(receiver: Receiver, method: Method) -> None:
    assert receiver.session(None, method).end(is_lost=True) is Whereabouts.GONE


def test_a_key_that_crossed_the_network_in_plaintext_is_not_kept(receiver: Receiver) -> None:
    assert receiver.session(KEY, encryption="none").end(is_lost=True) is Whereabouts.GONE
    assert not receiver.admits(KEY)


@pytest.mark.parametrize("key", [None, OTHER_KEY], ids=["none", "another"])
def test_a_sender_that_came_back_has_to_continue_its_session(receiver: Receiver, key: bytes | None) -> None:
    """Otherwise its key would outlive the session that it is for."""
    receiver.session(KEY).end(is_lost=True)
    with pytest.raises(ProtocolError, match="continues no session"):
        receiver.start(receiver.admitted()).on_begin(key)
    assert not receiver.admits(OTHER_KEY)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_session_whose_sender_is_back_is_not_the_last_word(receiver: Receiver, is_lost: bool) -> None:
    """It may fail instead, because its file is the newer session's now."""
    first, second = receiver.session(KEY), receiver.session_that_continues()
    assert first.end(is_lost=is_lost) is Whereabouts.BACK
    assert second.end(is_lost=True) is Whereabouts.AWAITED
    assert receiver.session_that_continues().end(is_lost=False) is Whereabouts.GONE


def test_the_newest_session_says_whether_the_sender_is_away(receiver: Receiver) -> None:
    first, second = receiver.session(KEY), receiver.session_that_continues()
    assert second.end(is_lost=True) is Whereabouts.AWAITED
    assert first.end(is_lost=True) is Whereabouts.BACK
    assert receiver.admits(KEY)


def test_an_older_session_does_not_wait_for_a_sender_that_has_been_back(receiver: Receiver) -> None:
    first, second = receiver.session(KEY), receiver.session_that_continues()
    assert second.end(is_lost=False) is Whereabouts.GONE
    assert first.end(is_lost=True) is Whereabouts.BACK
    assert not receiver.admits(KEY)


class TestSessionsThatHaveNotBegun:
    """They are admitted, and the newest ones, before their sender says anything."""

    def test_an_end_of_the_older_one_does_not_end_the_key(self, receiver: Receiver) -> None:
        first = receiver.session(KEY)
        second = receiver.start(receiver.admitted())
        assert first.end(is_lost=False) is Whereabouts.BACK
        second.on_begin(KEY)
        assert second.end(is_lost=False) is Whereabouts.GONE

    def test_a_connection_that_was_given_up_and_begins_late_is_refused(self, receiver: Receiver) -> None:
        """It would take the file from the session that its sender waits for."""
        receiver.session(KEY).end(is_lost=True)
        admitted = receiver.admitted()
        live = receiver.session_that_continues()
        given_up = receiver.start(admitted)
        with pytest.raises(ProtocolError, match="come back since"):
            given_up.on_begin(KEY)
        assert given_up.end(is_lost=False) is Whereabouts.BACK
        assert live.end(is_lost=False) is Whereabouts.GONE

    @pytest.mark.parametrize("is_lost", [True, False])
    def test_a_connection_that_was_given_up_and_never_begins_says_nothing(
        self, receiver: Receiver, is_lost: bool
    ) -> None:
        receiver.session(KEY).end(is_lost=True)
        given_up, live = receiver.start(receiver.admitted()), receiver.session_that_continues()
        assert given_up.end(is_lost=is_lost) is Whereabouts.BACK
        assert live.end(is_lost=True) is Whereabouts.AWAITED

    def test_one_that_the_receiver_is_too_busy_to_start_does_not_count(self, receiver: Receiver) -> None:
        first = receiver.session(KEY)
        receiver.admitted()
        assert first.end(is_lost=True) is Whereabouts.AWAITED

    @pytest.mark.parametrize(("is_lost", "expected"), [(True, Whereabouts.AWAITED), (False, Whereabouts.GONE)])
    def test_the_newest_one_leaves_the_key(self, receiver: Receiver, is_lost: bool, expected: Whereabouts) -> None:
        receiver.session(KEY).end(is_lost=True)
        assert receiver.start(receiver.admitted()).end(is_lost=is_lost) is expected
        assert receiver.admits(KEY)

    def test_one_whose_key_has_ended_since_it_was_admitted_does_not_begin(self, receiver: Receiver) -> None:
        first, admitted = receiver.session(KEY), receiver.admitted()
        assert first.end(is_lost=False) is Whereabouts.GONE
        second = receiver.start(admitted)
        with pytest.raises(ProtocolError, match="has ended"):
            second.on_begin(KEY)
        assert second.end(is_lost=False) is Whereabouts.BACK

    def test_one_in_plaintext_continues_no_session(self, receiver: Receiver) -> None:
        receiver.session(KEY).end(is_lost=True)
        with pytest.raises(ProtocolError, match="continues no session"):
            receiver.start(receiver.admitted(), "none").on_begin(KEY)
