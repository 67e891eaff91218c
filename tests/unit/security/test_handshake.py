"""The handshake of a session: who gets in, which keys both ends get, and what nobody in between can do."""

import random
from collections.abc import Iterator

import pytest
from cryptography.hazmat.backends.openssl.backend import backend

from tests.support.handshakes import (
    HOST,
    KEY,
    PROLOGUE,
    SPEEDS,
    code_admission,
    credential_of,
    make_admission,
    make_pair,
    run_handshake,
)
from toolkit.errors import CredentialRequiredError, ProtocolError, RefusedError, UsageError
from toolkit.parameters import decode_parameters_untrusted, encode_parameters
from toolkit.security.admission import Admission, KeyAdmission, Method, OpenAdmission
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.code_words import Code
from toolkit.security.credentials import CodeCredential, Credential, KeyCredential, NoCredential
from toolkit.security.handshake import Initiator, Reply, Responder
from toolkit.security.keys import AeadName
from toolkit.security.messages import Refusal, SecurityField
from toolkit.security.opened_handshake import OpenedHandshake

METHODS = ("none", "key", "code")


def connect(credential: Credential, admission: Admission) -> Refusal | None:
    """Return why `admission` refuses `credential`; None if it lets it in."""
    initiator = Initiator(credential, PROLOGUE, b"", speeds=SPEEDS)
    outcome = run_handshake(initiator, Responder(admission, speeds=SPEEDS))
    assert outcome.is_finished == (outcome.refusal is None)
    return outcome.refusal


class TestAgreement:
    """What both ends have after a handshake that nobody disturbed."""

    @pytest.mark.parametrize("method", METHODS)
    def test_both_ends_have_the_same_keys_and_the_peers_parameters(self, method: str) -> None:
        outcome = run_handshake(*make_pair(method))
        assert outcome.is_finished
        assert outcome.opened is not None
        assert outcome.accepted is not None
        assert outcome.responder_keys is not None
        assert outcome.accepted.keys == outcome.responder_keys
        assert outcome.accepted.exporter == outcome.opened.exporter == outcome.responder_keys.exporter
        assert outcome.opened.admitted.method is Method[method.upper()]
        assert outcome.opened.parameters == b"client parameters"
        assert outcome.accepted.parameters == b"server parameters"
        keys = outcome.responder_keys
        assert len({keys.client.secret, keys.server.secret, keys.exporter}) == 3

    @pytest.mark.parametrize("method", METHODS)
    def test_no_two_handshakes_have_the_same_keys(self, method: str) -> None:
        runs = [run_handshake(*make_pair(method)) for _ in range(2)]
        assert runs[0].responder_keys != runs[1].responder_keys
        assert not runs[0].messages.keys() ^ runs[1].messages.keys()
        assert all(runs[0].messages[name] != runs[1].messages[name] for name in runs[0].messages)

    def test_what_the_initiator_sends_first_is_repeatable_from_its_randomness(self) -> None:
        messages = [
            Initiator(
                CodeCredential(b"7", b"pw"), PROLOGUE, b"", speeds=SPEEDS, random_bytes=random.Random(3).randbytes
            ).first_message()
            for _ in range(2)
        ]
        assert messages[0] == messages[1]

    @pytest.mark.parametrize("method", METHODS)
    def test_the_messages_fit_the_packets_that_carry_them(self, method: str) -> None:
        sizes = {name: len(message) for name, message in run_handshake(*make_pair(method)).messages.items()}
        assert sizes["M1"] < 300
        assert sizes["M2"] < 1400  # two datagrams
        assert sizes["M3"] <= 1124  # one datagram of 1,200 bytes
        assert sizes.get("P1", 0) <= 60

    def test_the_first_message_and_the_answer_to_a_retry_can_be_repeated(self) -> None:
        initiator, responder = make_pair("code")
        first = initiator.first_message()
        assert initiator.first_message() == first
        answers = [responder.open_untrusted(first, PROLOGUE, HOST, 0) for _ in range(2)]
        assert answers[0] == answers[1]  # nothing is kept, yet the answer is the same
        assert isinstance(answers[0], Reply)
        retried = [initiator.receive_retry_untrusted(answers[0].message) for _ in range(2)]
        assert retried[0] == retried[1]

    def test_the_aead_is_the_one_that_is_faster_on_the_slower_side(self) -> None:
        fast_aes = {AeadName.AES_256_GCM: 9000, AeadName.CHACHA20_POLY1305: 4000}
        slow_aes = {AeadName.AES_256_GCM: 500, AeadName.CHACHA20_POLY1305: 2000}
        for ours, theirs, chosen in [
            (fast_aes, fast_aes, AeadName.AES_256_GCM),
            (fast_aes, slow_aes, AeadName.CHACHA20_POLY1305),
            (slow_aes, fast_aes, AeadName.CHACHA20_POLY1305),
        ]:
            initiator = Initiator(NoCredential(), PROLOGUE, b"", speeds=ours)
            outcome = run_handshake(initiator, Responder(OpenAdmission(), speeds=theirs))
            assert outcome.responder_keys is not None
            assert outcome.responder_keys.client.aead_name is chosen

    def test_without_given_speeds_both_sides_measure_them(self) -> None:
        outcome = run_handshake(Initiator(NoCredential(), PROLOGUE, b""), Responder(OpenAdmission()))
        assert outcome.is_finished

    def test_without_ml_kem_the_user_reads_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backend, "mlkem_supported", lambda: False)
        with pytest.raises(UsageError, match="install a wheel"):
            Initiator(NoCredential(), PROLOGUE, b"", speeds=SPEEDS)
        with pytest.raises(UsageError, match="install a wheel"):
            Responder(OpenAdmission(), speeds=SPEEDS)


class TestPlaintext:
    """Plaintext needs both sides."""

    @pytest.mark.parametrize("method", METHODS)
    def test_if_both_want_it_there_are_no_keys_but_both_are_still_authenticated(self, method: str) -> None:
        outcome = run_handshake(*make_pair(method, wants_plaintext=True, allows_plaintext=True))
        assert outcome.is_finished
        assert outcome.opened is not None
        assert outcome.accepted is not None
        assert outcome.opened.is_plaintext
        assert outcome.accepted.keys is outcome.responder_keys is None
        assert outcome.accepted.exporter == outcome.opened.exporter

    @pytest.mark.parametrize("method", METHODS)
    def test_a_responder_that_allows_it_encrypts_unless_asked(self, method: str) -> None:
        outcome = run_handshake(*make_pair(method, allows_plaintext=True))
        assert outcome.accepted is not None
        assert outcome.accepted.keys is not None
        assert outcome.accepted.keys == outcome.responder_keys

    @pytest.mark.parametrize("method", METHODS)
    def test_a_responder_that_does_not_allow_it_refuses(self, method: str) -> None:
        outcome = run_handshake(*make_pair(method, wants_plaintext=True))
        assert outcome.refusal is Refusal.PLAINTEXT
        assert "leave out `plaintext`" in str(outcome.initiator_error)

    def test_a_responder_cannot_impose_it(self) -> None:
        wishing, responder = make_pair("none", wants_plaintext=True, allows_plaintext=True)
        opened = responder.open_untrusted(wishing.first_message(), PROLOGUE, HOST, 0)
        assert isinstance(opened, OpenedHandshake)
        plain, strict = make_pair("none")
        opened_strict = strict.open_untrusted(plain.first_message(), PROLOGUE, HOST, 0)
        assert isinstance(opened_strict, OpenedHandshake)
        opened_strict.is_plaintext = True  # a responder that lies
        with pytest.raises(ProtocolError, match="not offered"):
            plain.receive_accept_untrusted(opened_strict.accept(b""))
        opened.is_plaintext = False
        with pytest.raises(ProtocolError, match="not offered"):
            wishing.receive_accept_untrusted(opened.accept(b""))


class TestRefusals:
    """Who is refused, and what the user reads."""

    @pytest.mark.parametrize(
        ("credential", "admission", "refusal", "advice"),
        [
            (NoCredential(), "key", Refusal.KEY_NEEDED, "pass it with `key`"),
            (NoCredential(), "code", Refusal.CODE_NEEDED, "add `code`"),
            (KeyCredential(KEY), "none", Refusal.NOTHING_NEEDED, "cannot prove who it is"),
            (KeyCredential(KEY), "code", Refusal.CODE_NEEDED, "add `code`"),
            (KeyCredential(bytes(32)), "key", Refusal.WRONG_KEY, "copy its key file"),
            (CodeCredential(b"7", b"ocean brick lunar"), "none", Refusal.NOTHING_NEEDED, "cannot prove who it is"),
            (CodeCredential(b"7", b"ocean brick lunar"), "key", Refusal.KEY_NEEDED, "pass it with `key`"),
            (CodeCredential(b"7", b"another password"), "code", Refusal.WRONG_CODE, "compare it"),
            (CodeCredential(b"8", b"ocean brick lunar"), "code", Refusal.UNKNOWN_CODE, "no code with this number"),
        ],
    )
    def test_each_refusal_is_one_line_that_says_what_to_do(
        self, credential: Credential, admission: str, refusal: Refusal, advice: str
    ) -> None:
        initiator = Initiator(credential, PROLOGUE, b"", speeds=SPEEDS)
        outcome = run_handshake(initiator, Responder(make_admission(admission), speeds=SPEEDS))
        assert outcome.refusal is refusal
        assert outcome.opened is None
        assert isinstance(outcome.initiator_error, RefusedError)
        assert advice in str(outcome.initiator_error)
        assert str(outcome.initiator_error).isprintable()

    @pytest.mark.parametrize(("method", "is_code"), [("code", True), ("key", False)])
    def test_a_sender_without_a_credential_can_ask_its_user_for_one(self, method: str, is_code: bool) -> None:
        initiator = Initiator(NoCredential(), PROLOGUE, b"", speeds=SPEEDS)
        error = run_handshake(initiator, Responder(make_admission(method), speeds=SPEEDS)).initiator_error
        assert isinstance(error, CredentialRequiredError)
        assert error.is_code is is_code

    def test_a_refusal_of_a_later_version_is_a_refusal_too(self) -> None:
        initiator, _ = make_pair("none")
        for code in (0, 99, 255):
            with pytest.raises(RefusedError, match="update nettool"):
                initiator.receive_accept_untrusted(encode_parameters({SecurityField.REFUSAL: bytes([code])}))

    def test_a_method_of_a_later_version_is_told_what_the_receiver_asks_for(self) -> None:
        message = encode_parameters({SecurityField.METHOD: b"\x63", 1000: b"whatever"})
        answer = Responder(code_admission()).open_untrusted(message, PROLOGUE, HOST, 0)
        assert isinstance(answer, Reply)
        assert answer.refusal is Refusal.CODE_NEEDED
        assert answer.is_refusal

    def test_a_key_admits_beside_a_code_if_the_receiver_has_given_one_out(self) -> None:
        admission = CodeAdmission(lambda *_: None, lambda _: None, session_key=KEY)
        assert connect(KeyCredential(KEY), admission) is None
        assert connect(KeyCredential(bytes(32)), admission) is Refusal.WRONG_KEY
        assert connect(credential_of(admission), admission) is None


class TestCodes:
    """A code admits once, and ends with wrong tries."""

    def test_a_used_code_admits_nobody(self) -> None:
        admission = code_admission()
        credential = credential_of(admission)
        assert connect(credential, admission) is None
        assert connect(credential, admission) is Refusal.ENDED_CODE

    def test_three_wrong_tries_end_a_code(self) -> None:
        codes: Iterator[Code] = iter([Code(7, ("ocean", "brick", "lunar")), Code(8, ("zoo", "zone", "zero"))])
        admission = CodeAdmission(lambda *_: None, lambda _: None, make_code=lambda _: next(codes))
        right = credential_of(admission)
        for _ in range(3):
            assert connect(CodeCredential(b"7", b"guess"), admission) is Refusal.WRONG_CODE
        assert connect(right, admission) in (Refusal.ENDED_CODE, Refusal.TRY_LATER)

    def test_a_wrong_message_that_the_network_repeats_is_one_try(self) -> None:
        admission = code_admission()
        responder = Responder(admission, speeds=SPEEDS)
        guess = Initiator(CodeCredential(b"7", b"guess"), PROLOGUE, b"", speeds=SPEEDS)
        outcome = run_handshake(guess, responder)
        for _ in range(20):
            answer = responder.open_untrusted(outcome.messages["M1"], PROLOGUE, HOST, 0)
            assert isinstance(answer, Reply)
            assert answer.refusal is Refusal.WRONG_CODE
        right = Initiator(credential_of(admission), PROLOGUE, b"", speeds=SPEEDS)
        assert run_handshake(right, responder).is_finished

    def test_tries_are_limited(self) -> None:
        admission = code_admission(uses=1000)
        responder = Responder(admission, speeds=SPEEDS)
        refusals = []
        for _ in range(30):
            message = Initiator(credential_of(admission), PROLOGUE, b"", speeds=SPEEDS).first_message()
            answer = responder.open_untrusted(message, PROLOGUE, HOST, 0)
            assert isinstance(answer, Reply)
            refusals.append(answer.refusal)
        assert refusals[0] is None
        assert refusals[-1] is Refusal.TRY_LATER

    def test_of_two_who_know_a_code_for_one_use_only_one_gets_in(self) -> None:
        admission = code_admission()
        responder = Responder(admission, speeds=SPEEDS)
        credential = credential_of(admission)
        opened, finishes = [], []
        for _ in range(2):
            initiator = Initiator(credential, PROLOGUE, b"", speeds=SPEEDS)
            answer = responder.open_untrusted(initiator.first_message(), PROLOGUE, HOST, 0)
            assert isinstance(answer, Reply)
            m1 = initiator.receive_retry_untrusted(answer.message)
            handshake = responder.open_untrusted(m1, PROLOGUE, HOST, 0)
            assert isinstance(handshake, OpenedHandshake)
            finishes.append(initiator.receive_accept_untrusted(handshake.accept(b"")).finish)
            opened.append(handshake)
        assert opened[1].finish_untrusted(finishes[1]) is not None
        with pytest.raises(ProtocolError, match="code has ended"):
            opened[0].finish_untrusted(finishes[0])

    def test_a_code_is_not_used_up_by_a_handshake_that_is_not_finished(self) -> None:
        admission = code_admission()
        responder = Responder(admission, speeds=SPEEDS)
        dropped = run_handshake(
            Initiator(credential_of(admission), PROLOGUE, b"", speeds=SPEEDS),
            responder,
            lambda name, message: b"" if name == "M2" else message,
        )
        assert not dropped.is_finished
        assert run_handshake(Initiator(credential_of(admission), PROLOGUE, b"", speeds=SPEEDS), responder).is_finished

    def test_an_impostor_gets_one_guess_at_the_code_of_a_sender(self) -> None:
        sender, _ = make_pair("code")
        impostors = [Responder(code_admission(Code(7, (word, "a", "b"))), speeds=SPEEDS) for word in ("one", "two")]
        answers = [impostor.open_untrusted(sender.first_message(), PROLOGUE, HOST, 0) for impostor in impostors]
        assert isinstance(answers[0], Reply)
        assert isinstance(answers[1], Reply)
        m1 = sender.receive_retry_untrusted(answers[0].message)
        with pytest.raises(ProtocolError, match="second answer"):
            sender.receive_retry_untrusted(answers[1].message)
        refused = impostors[0].open_untrusted(m1, PROLOGUE, HOST, 0)
        assert isinstance(refused, Reply)
        assert refused.refusal is Refusal.WRONG_CODE

    @pytest.mark.parametrize(
        "element",
        [b"", bytes(33), b"B" + bytes(32), b"B" + b"\xff" * 32, b"B" + b"\1" + bytes(31), b"B" * 34],
        ids=["empty", "no side", "zero", "not on the curve", "of low order", "long"],
    )
    def test_a_malformed_element_is_rejected_and_the_true_one_still_taken(self, element: bytes) -> None:
        sender, responder = make_pair("code")
        with pytest.raises(ProtocolError):
            sender.receive_retry_untrusted(encode_parameters({SecurityField.PAKE: element}))
        assert run_handshake(sender, responder).is_finished

    @pytest.mark.parametrize("element", [b"", b"A" + bytes(32), b"B" + b"\x58" + b"\x66" * 31, b"A" + b"\xff" * 32])
    def test_a_responder_rejects_a_malformed_element(self, element: bytes) -> None:
        fields = {SecurityField.METHOD: b"\2", SecurityField.NAMEPLATE: b"7", SecurityField.PAKE: element}
        responder = Responder(code_admission(), speeds=SPEEDS)
        with pytest.raises(ProtocolError):
            responder.open_untrusted(encode_parameters({**fields, SecurityField.NOISE: bytes(100)}), PROLOGUE, HOST, 0)

    @pytest.mark.parametrize("nameplate", [b"", b"1" * 17])
    def test_a_nameplate_of_impossible_length_is_rejected(self, nameplate: bytes) -> None:
        fields = {SecurityField.METHOD: b"\2", SecurityField.NAMEPLATE: nameplate, SecurityField.PAKE: bytes(33)}
        with pytest.raises(ProtocolError, match="nameplate"):
            Responder(code_admission()).open_untrusted(encode_parameters(fields), PROLOGUE, HOST, 0)


class TestBetween:
    """Whoever sits between the hosts can end a handshake, and nothing else."""

    @pytest.mark.parametrize("method", METHODS)
    def test_another_prologue_is_noticed(self, method: str) -> None:
        initiator, responder = make_pair(method)
        outcome = run_handshake(initiator, responder, prologue=b"test transport, but an older version")
        assert outcome.opened is None
        assert outcome.refusal in (Refusal.ALTERED, Refusal.WRONG_KEY, Refusal.WRONG_CODE)
        assert isinstance(outcome.initiator_error, RefusedError)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_field_added_in_the_clear_is_noticed(self, method: str) -> None:
        def add(name: str, message: bytes) -> bytes:
            fields = decode_parameters_untrusted(message)
            return encode_parameters({**fields, 999: b"added"}) if name == "M1" else message

        outcome = run_handshake(*make_pair(method), add)
        assert outcome.opened is None

    @pytest.mark.parametrize("method", METHODS)
    def test_a_replayed_first_message_leads_nowhere(self, method: str) -> None:
        initiator, responder = make_pair(method)
        recorded = run_handshake(initiator, responder).messages
        replayed = responder.open_untrusted(recorded["M1"], PROLOGUE, HOST, 0)
        if method == "code":  # it was used
            assert isinstance(replayed, Reply)
            assert replayed.refusal is Refusal.ENDED_CODE
            return
        assert isinstance(replayed, OpenedHandshake)
        replayed.accept(b"")
        with pytest.raises(ProtocolError):
            replayed.finish_untrusted(recorded["M3"])
        with pytest.raises(ValueError, match="not finished"):
            _ = replayed.exporter

    @pytest.mark.parametrize("method", METHODS)
    def test_a_replay_to_another_listener_with_the_same_credential_leads_nowhere(self, method: str) -> None:
        recorded = run_handshake(*make_pair(method)).messages
        _, other = make_pair(method)
        if "P1" in recorded:
            answer = other.open_untrusted(recorded["P1"], PROLOGUE, HOST, 0)
            assert isinstance(answer, Reply)
            assert answer.message != recorded["P2"]
        opened = other.open_untrusted(recorded["M1"], PROLOGUE, HOST, 0)
        if isinstance(opened, Reply):
            assert opened.refusal is Refusal.WRONG_CODE
            return
        opened.accept(b"")
        with pytest.raises(ProtocolError):
            opened.finish_untrusted(recorded["M3"])

    @pytest.mark.parametrize("method", METHODS)
    def test_a_replayed_answer_is_not_taken(self, method: str) -> None:
        recorded = run_handshake(*make_pair(method)).messages
        initiator, responder = make_pair(method)
        with pytest.raises(ProtocolError):
            initiator.receive_accept_untrusted(recorded["M2"])
        assert run_handshake(initiator, responder).is_finished  # and does no harm

    def test_a_replayed_answer_to_a_code_is_no_use(self) -> None:
        recorded = run_handshake(*make_pair("code")).messages
        initiator, responder = make_pair("code")
        outcome = run_handshake(initiator, responder, lambda name, message: recorded["P2"] if name == "P2" else message)
        assert outcome.refusal is Refusal.WRONG_CODE

    def test_a_finished_handshake_takes_nothing_more(self) -> None:
        initiator, responder = make_pair("key")
        outcome = run_handshake(initiator, responder)
        assert outcome.opened is not None
        with pytest.raises(ProtocolError, match="finished already"):
            outcome.opened.finish_untrusted(outcome.messages["M3"])
        with pytest.raises(ProtocolError, match="an unexpected answer"):
            initiator.receive_accept_untrusted(outcome.messages["M2"])

    def test_a_message_sent_back_to_its_sender_is_not_taken(self) -> None:
        initiator, _ = make_pair("key")
        with pytest.raises(ProtocolError):
            initiator.receive_accept_untrusted(initiator.first_message())
        sender, _ = make_pair("code")
        with pytest.raises(ProtocolError):
            sender.receive_retry_untrusted(sender.first_message())

    def test_an_answer_to_a_code_is_not_taken_without_one(self) -> None:
        initiator, _ = make_pair("key")
        with pytest.raises(ProtocolError, match="no code was sent"):
            initiator.receive_retry_untrusted(encode_parameters({SecurityField.PAKE: bytes(33)}))

    def test_someone_who_joins_two_handshakes_without_the_key_is_noticed_by_both(self) -> None:
        """The classic man in the middle: a handshake of its own with each side."""
        victim, receiver = make_pair("key")
        inner = Initiator(KeyCredential(bytes(32)), PROLOGUE, b"", speeds=SPEEDS)
        outer = Responder(KeyAdmission(bytes(32)), speeds=SPEEDS)
        assert run_handshake(victim, outer).refusal is Refusal.WRONG_KEY
        assert run_handshake(inner, receiver).refusal is Refusal.WRONG_KEY
