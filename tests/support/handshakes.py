"""Handshakes in memory, with someone between the two sides who may alter any message."""

from collections.abc import Callable
from dataclasses import dataclass, field

from toolkit.errors import NettoolError
from toolkit.security.admission import Admission, KeyAdmission, OpenAdmission
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.code_words import Code
from toolkit.security.credentials import Credential, KeyCredential, NoCredential
from toolkit.security.handshake import AcceptedHandshake, Initiator, Reply, Responder
from toolkit.security.keys import AeadName, SessionKeys
from toolkit.security.messages import Refusal
from toolkit.security.opened_handshake import OpenedHandshake

PROLOGUE = b"test transport"
HOST = bytes([192, 0, 2, 7])
KEY = bytes(range(32))
SPEEDS = {AeadName.AES_256_GCM: 9000, AeadName.CHACHA20_POLY1305: 4000}

Alter = Callable[[str, bytes], bytes]
"""Gets the name of a message, such as `M1`, and its bytes; returns what arrives."""


def code_admission(code: Code | None = None, *, uses: int = 1) -> CodeAdmission:
    chosen = Code(7, ("ocean", "brick", "lunar")) if code is None else code
    return CodeAdmission(lambda *_: None, lambda _: None, uses=uses, is_renewed=False, make_code=lambda _: chosen)


def credential_of(admission: Admission) -> Credential:
    """Return what `admission` lets in."""
    if isinstance(admission, CodeAdmission):
        assert admission.code is not None
        return admission.code.credential
    return KeyCredential(admission.psk()) if isinstance(admission, KeyAdmission) else NoCredential()


def make_admission(method: str) -> Admission:
    return {"none": OpenAdmission, "key": lambda: KeyAdmission(KEY), "code": code_admission}[method]()


@dataclass
class Outcome:
    """What became of a handshake. An error of either side ends it."""

    messages: dict[str, bytes] = field(default_factory=dict)
    """As sent, by name: P1, P2, M1, M2, M3."""
    opened: OpenedHandshake | None = None
    accepted: AcceptedHandshake | None = None
    responder_keys: SessionKeys | None = None
    is_finished: bool = False
    """The responder has taken M3."""
    refusal: Refusal | None = None
    initiator_error: NettoolError | None = None
    responder_error: NettoolError | None = None


def run_handshake(
    initiator: Initiator, responder: Responder, alter: Alter | None = None, *, prologue: bytes = PROLOGUE
) -> Outcome:
    """Pass the messages between both sides until the handshake ends."""
    outcome = Outcome()

    def deliver(name: str, message: bytes) -> bytes:
        outcome.messages[name] = message
        return message if alter is None else alter(name, message)

    def to_responder(name: str, message: bytes) -> Reply | OpenedHandshake | None:
        try:
            return responder.open_untrusted(deliver(name, message), prologue, HOST, 0)
        except NettoolError as error:
            outcome.responder_error = error
            return None

    first = initiator.first_message()
    answer = to_responder("M1" if len(first) > 60 else "P1", first)
    try:
        if isinstance(answer, Reply):
            outcome.refusal = answer.refusal
            answer = to_responder("M1", initiator.receive_retry_untrusted(deliver("P2", answer.message)))
        if isinstance(answer, Reply):
            outcome.refusal = answer.refusal
            initiator.receive_accept_untrusted(answer.message)
        if not isinstance(answer, OpenedHandshake):
            return outcome
        outcome.opened = answer
        outcome.accepted = initiator.receive_accept_untrusted(deliver("M2", answer.accept(b"server parameters")))
    except NettoolError as error:
        outcome.initiator_error = error
        return outcome
    try:
        outcome.responder_keys = answer.finish_untrusted(deliver("M3", outcome.accepted.finish))
        outcome.is_finished = True
    except NettoolError as error:
        outcome.responder_error = error
    return outcome


def make_pair(
    method: str, *, wants_plaintext: bool = False, allows_plaintext: bool = False
) -> tuple[Initiator, Responder]:
    """Return two sides that agree, authenticated by `none`, `key` or `code`."""
    admission = make_admission(method)
    initiator = Initiator(
        credential_of(admission), PROLOGUE, b"client parameters", wants_plaintext=wants_plaintext, speeds=SPEEDS
    )
    return initiator, Responder(admission, allows_plaintext=allows_plaintext, speeds=SPEEDS)
