"""The rules of a receiver as handshakes meet them: codes that are right, wrong, used or ended, keys, and neither."""

import threading

import pytest

from toolkit.errors import CredentialRequiredError, ProtocolError, RefusedError
from toolkit.security.admission import Admission, Admitted, KeyAdmission, Method, OpenAdmission
from toolkit.security.code_admission import MAX_WRONG_TRIES, CodeAdmission, CodeEnd
from toolkit.security.code_words import Code
from toolkit.security.credentials import (
    CodeCredential,
    Credential,
    KeyCredential,
    NoCredential,
    ReconnectionCredential,
)
from toolkit.security.handshake import Initiator, Reply, Responder
from toolkit.security.keys import AeadName
from toolkit.security.messages import Refusal
from toolkit.security.opened_handshake import CodeEndedError, OpenedHandshake
from toolkit.security.reconnections import Reconnections, key_id

HOST = bytes([192, 0, 2, 7])
PROLOGUE = b"test"
SPEEDS = {AeadName.AES_256_GCM: 10}
KEY, OTHER_KEY = bytes(range(32)), bytes(32 * [7])


class Receiver:
    """A receiver that admits by code."""

    def __init__(self, *, uses: int = 1, session_key: bytes | None = None) -> None:
        self.ends: list[CodeEnd] = []
        self.reconnections = Reconnections()
        self.admission = CodeAdmission(
            lambda _code, reason: self.ends.append(reason),
            lambda _code: None,
            uses=uses,
            session_key=session_key,
            reconnections=self.reconnections,
        )
        self.responder = Responder(self.admission, speeds=SPEEDS)

    @property
    def code(self) -> Code:
        assert self.admission.code is not None
        return self.admission.code


def initiator(credential: Credential, *, wants_plaintext: bool = False) -> Initiator:
    return Initiator(credential, PROLOGUE, b"", wants_plaintext=wants_plaintext, speeds=SPEEDS)


def attempt(responder: Responder, client: Initiator, host: bytes = HOST) -> OpenedHandshake | Refusal:
    """Carry the messages until M1 has opened, or the responder refuses."""
    answer = responder.open_untrusted(client.first_message(), PROLOGUE, host, 0)
    if isinstance(answer, Reply) and answer.refusal is None:
        answer = responder.open_untrusted(client.receive_retry_untrusted(answer.message), PROLOGUE, host, 0)
    if isinstance(answer, OpenedHandshake):
        return answer
    assert answer.refusal is not None
    with pytest.raises(RefusedError, match=r"receiver|code"):
        client.receive_accept_untrusted(answer.message)
    return answer.refusal


def opened(responder: Responder, client: Initiator, host: bytes = HOST) -> OpenedHandshake:
    """Carry the messages until M1 has opened."""
    result = attempt(responder, client, host)
    assert isinstance(result, OpenedHandshake), result
    return result


def complete(responder: Responder, credential: Credential, host: bytes = HOST) -> OpenedHandshake:
    """Complete a handshake, and return the responder's side."""
    client = initiator(credential)
    server = opened(responder, client, host)
    accepted = client.receive_accept_untrusted(server.accept(b""))
    server.finish_untrusted(accepted.finish)
    assert server.exporter == accepted.exporter
    return server


def refusal(responder: Responder, credential: Credential, host: bytes = HOST) -> OpenedHandshake | Refusal:
    return attempt(responder, initiator(credential), host)


def wrong(code: Code) -> CodeCredential:
    return CodeCredential(code.credential.nameplate, b"zoo-zoo-zoo")


def hosts(count: int) -> list[bytes]:
    return [bytes([10, 0, 0, number]) for number in range(count)]


def test_the_right_code_admits_once_and_the_next_code_after_that() -> None:
    receiver = Receiver()
    first = receiver.code
    server = complete(receiver.responder, first.credential)
    assert server.admitted.method is Method.CODE
    assert receiver.ends == [CodeEnd.USED]
    assert refusal(receiver.responder, first.credential) is Refusal.ENDED_CODE
    complete(receiver.responder, receiver.code.credential)


def test_a_code_is_not_used_before_the_handshake_is_finished() -> None:
    receiver = Receiver()
    for host in hosts(3):
        opened(receiver.responder, initiator(receiver.code.credential), host)
    assert receiver.ends == []
    complete(receiver.responder, receiver.code.credential)


def test_of_two_handshakes_with_one_code_the_second_to_finish_fails() -> None:
    receiver = Receiver()
    clients = [initiator(receiver.code.credential) for _ in range(2)]
    servers = [opened(receiver.responder, client) for client in clients]
    finishes = [
        client.receive_accept_untrusted(server.accept(b"")).finish
        for client, server in zip(clients, servers, strict=True)
    ]
    servers[0].finish_untrusted(finishes[0])
    with pytest.raises(ProtocolError, match="this code has ended"):
        servers[1].finish_untrusted(finishes[1])


def test_three_wrong_tries_end_a_code_whoever_made_them() -> None:
    receiver = Receiver()
    first = receiver.code
    for host in hosts(MAX_WRONG_TRIES):
        assert refusal(receiver.responder, wrong(first), host) is Refusal.WRONG_CODE
    assert receiver.ends == [CodeEnd.WRONG_TRIES]
    assert refusal(receiver.responder, first.credential) is Refusal.ENDED_CODE
    complete(receiver.responder, receiver.code.credential)


def test_tries_that_are_made_at_once_get_no_more_than_three_answers() -> None:
    """Even if some are made over one transport and some over another."""
    receiver = Receiver()
    responders = [receiver.responder, Responder(receiver.admission, speeds=SPEEDS)]
    first = receiver.code
    refusals: list[Refusal | None] = []
    start = threading.Barrier(8)

    def guess(number: int, host: bytes) -> None:
        responder = responders[number % 2]
        client = initiator(wrong(first))
        reply = responder.open_untrusted(client.first_message(), PROLOGUE, host, 0)
        assert isinstance(reply, Reply)
        m1 = client.receive_retry_untrusted(reply.message)
        start.wait()
        answer = responder.open_untrusted(m1, PROLOGUE, host, 0)
        assert isinstance(answer, Reply)
        refusals.append(answer.refusal)

    threads = [threading.Thread(target=guess, args=each) for each in enumerate(hosts(8))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refusals.count(Refusal.WRONG_CODE) == MAX_WRONG_TRIES
    assert refusals.count(Refusal.ENDED_CODE) == 8 - MAX_WRONG_TRIES


def test_a_host_that_guesses_has_to_wait_and_others_do_not() -> None:
    receiver = Receiver(uses=9)
    seen = {refusal(receiver.responder, wrong(receiver.code)) for _ in range(20)}
    assert Refusal.TRY_LATER in seen
    assert refusal(receiver.responder, receiver.code.credential) is Refusal.TRY_LATER
    complete(receiver.responder, receiver.code.credential, hosts(1)[0])


def test_a_session_key_admits_beside_the_code() -> None:
    receiver = Receiver(session_key=KEY)
    server = complete(receiver.responder, KeyCredential(KEY))
    assert server.admitted.method is Method.KEY
    assert receiver.ends == []
    assert refusal(receiver.responder, KeyCredential(OTHER_KEY)) is Refusal.WRONG_KEY
    complete(receiver.responder, receiver.code.credential)
    assert refusal(Receiver().responder, KeyCredential(KEY)) is Refusal.CODE_NEEDED


class TestReconnecting:
    """A sender whose code is used up, and who gave the receiver a key before its connection was lost."""

    @pytest.fixture
    def receiver(self) -> Receiver:
        receiver = Receiver()
        complete(receiver.responder, receiver.code.credential)
        assert receiver.reconnections.add(KEY) == 1
        receiver.reconnections.lose(key_id(KEY), 1)
        return receiver

    def test_the_key_admits_it_until_the_session_has_ended(self, receiver: Receiver) -> None:
        for number in (2, 3):  # its answer may be lost, too
            server = complete(receiver.responder, ReconnectionCredential(KEY))
            assert server.admitted == Admitted(Method.RECONNECTION, key_id(KEY), number)
        receiver.reconnections.end(key_id(KEY), 1)
        assert refusal(receiver.responder, ReconnectionCredential(KEY)) is Refusal.UNKNOWN_SESSION

    def test_sessions_are_numbered_in_the_order_of_the_answers(self, receiver: Receiver) -> None:
        """Their last messages may overtake each other: the sender begins the second one with the first one's answer."""
        clients = [initiator(ReconnectionCredential(KEY)) for _ in range(2)]
        servers = [opened(receiver.responder, client) for client in clients]
        finishes = [
            client.receive_accept_untrusted(server.accept(b"")).finish
            for client, server in zip(clients, servers, strict=True)
        ]
        for server, finish in reversed(list(zip(servers, finishes, strict=True))):
            server.finish_untrusted(finish)
        assert [server.admitted.number for server in servers] == [2, 3]

    def test_the_key_is_no_key_file(self, receiver: Receiver) -> None:
        assert refusal(receiver.responder, KeyCredential(KEY)) is Refusal.CODE_NEEDED
        assert refusal(Responder(KeyAdmission(KEY), speeds=SPEEDS), ReconnectionCredential(KEY)) is Refusal.KEY_NEEDED

    def test_another_key_is_refused(self, receiver: Receiver) -> None:
        assert refusal(receiver.responder, ReconnectionCredential(OTHER_KEY)) is Refusal.UNKNOWN_SESSION

    def test_whoever_has_seen_the_id_has_not_the_key_and_does_not_end_it(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = key_id(KEY)
        with monkeypatch.context() as patch:
            patch.setattr("toolkit.security.handshake.key_id", lambda _: seen)
            for _ in range(2 * MAX_WRONG_TRIES):
                wrong_key = ReconnectionCredential(OTHER_KEY)
                assert refusal(receiver.responder, wrong_key) is Refusal.WRONG_RECONNECTION
        complete(receiver.responder, ReconnectionCredential(KEY))

    def test_wrong_tries_count_as_those_of_codes(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        seen, host = key_id(KEY), hosts(1)[0]  # of one that has not tried a code before
        with monkeypatch.context() as patch:
            patch.setattr("toolkit.security.handshake.key_id", lambda _: seen)
            for _ in range(10):
                refusal(receiver.responder, ReconnectionCredential(OTHER_KEY), host)
        assert refusal(receiver.responder, receiver.code.credential, host) is Refusal.TRY_LATER

    def test_a_replayed_handshake_leads_nowhere(self, receiver: Receiver) -> None:
        client = initiator(ReconnectionCredential(KEY))
        server = opened(receiver.responder, client)
        finish = client.receive_accept_untrusted(server.accept(b"")).finish
        replayed = receiver.responder.open_untrusted(client.first_message(), PROLOGUE, HOST, 0)
        assert isinstance(replayed, OpenedHandshake)
        replayed.accept(b"")
        with pytest.raises(ProtocolError):
            replayed.finish_untrusted(finish)

    def test_a_key_that_ends_during_the_handshake_admits_nobody(self, receiver: Receiver) -> None:
        client = initiator(ReconnectionCredential(KEY))
        server = opened(receiver.responder, client)
        finish = client.receive_accept_untrusted(server.accept(b"")).finish
        receiver.reconnections.end(key_id(KEY), 1)
        with pytest.raises(CodeEndedError):
            server.finish_untrusted(finish)

    def test_an_altered_id_is_noticed(self, receiver: Receiver) -> None:
        """The id is in the clear: pointing it at another sender's key opens nothing."""
        receiver.reconnections.add(OTHER_KEY)
        message = initiator(ReconnectionCredential(KEY)).first_message().replace(key_id(KEY), key_id(OTHER_KEY))
        answer = receiver.responder.open_untrusted(message, PROLOGUE, HOST, 0)
        assert isinstance(answer, Reply)
        assert answer.refusal is Refusal.WRONG_RECONNECTION


@pytest.mark.parametrize(
    ("admission", "credential", "expected"),
    [
        (OpenAdmission(), KeyCredential(KEY), Refusal.NOTHING_NEEDED),
        (OpenAdmission(), CodeCredential(b"7", b"ocean-brick-lunar"), Refusal.NOTHING_NEEDED),
        (KeyAdmission(KEY), NoCredential(), Refusal.KEY_NEEDED),
        (KeyAdmission(KEY), CodeCredential(b"7", b"ocean-brick-lunar"), Refusal.KEY_NEEDED),
        (KeyAdmission(KEY), KeyCredential(OTHER_KEY), Refusal.WRONG_KEY),
        (Receiver().admission, NoCredential(), Refusal.CODE_NEEDED),
        (Receiver().admission, KeyCredential(KEY), Refusal.CODE_NEEDED),
        (Receiver().admission, CodeCredential(b"12345", b"ocean-brick-lunar"), Refusal.UNKNOWN_CODE),
    ],
)
def test_what_the_receiver_did_not_ask_for_is_refused(
    admission: Admission, credential: Credential, expected: Refusal
) -> None:
    assert refusal(Responder(admission, speeds=SPEEDS), credential) is expected


def test_plaintext_needs_both_ends_and_a_refusal_uses_no_code() -> None:
    receiver = Receiver()
    client = initiator(receiver.code.credential, wants_plaintext=True)
    assert attempt(receiver.responder, client) is Refusal.PLAINTEXT
    assert receiver.ends == []


@pytest.mark.parametrize(("admission", "is_code"), [(KeyAdmission(KEY), False), (Receiver().admission, True)])
def test_the_error_of_a_client_that_has_nothing_says_what_it_needs(admission: Admission, is_code: bool) -> None:
    client = initiator(NoCredential())
    reply = Responder(admission, speeds=SPEEDS).open_untrusted(client.first_message(), PROLOGUE, HOST, 0)
    assert isinstance(reply, Reply)
    with pytest.raises(CredentialRequiredError) as caught:
        client.receive_accept_untrusted(reply.message)
    assert caught.value.is_code == is_code
