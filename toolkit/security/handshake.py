"""The handshake: from a credential to the keys of a session. Sans-I/O; a transport carries the messages.

`toolkit/security/noise.py` describes the Noise pattern, `messages.py` the layout. With a code, SPAKE2 makes the psk in
one more round trip, before M1. The prologue of the Noise handshake covers the transport's own prologue (everything that
was negotiated in the clear) and every other field of M1, so nothing of that can be altered unnoticed.

    Initiator                        Responder
    first_message  -- P1 -->  open_untrusted       only with a code
    receive_retry_untrusted  <-- P2 --  Reply
                   -- M1 -->  open_untrusted       M1 shows that the initiator knows the psk
    receive_accept_untrusted  <-- M2 --  OpenedHandshake.accept
                   -- M3 -->  OpenedHandshake.finish_untrusted

The initiator may send protected data right behind M3. The responder keeps nothing about an initiator before M1 opened.
Messages may be repeated and forged ones may come between: what does not open changes nothing.
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from toolkit.errors import ProtocolError
from toolkit.parameters import (
    decode_parameters_untrusted,
    decode_uint_untrusted,
    encode_parameters,
)
from toolkit.security.admission import Admission, Method
from toolkit.security.aead import (
    Speeds,
    choose_aead,
    decode_aead_untrusted,
    decode_speeds_untrusted,
    encode_speeds,
    measured_speeds,
)
from toolkit.security.credentials import (
    CodeCredential,
    Credential,
    KeyCredential,
    NoCredential,
    ReconnectionCredential,
)
from toolkit.security.keys import SECRET_BYTES, AeadName, SessionKeys
from toolkit.security.messages import (
    MAX_NAMEPLATE_BYTES,
    FirstMessage,
    Refusal,
    SealedField,
    SecurityField,
    encode_sealed,
    field_untrusted,
    flag_untrusted,
    refusal_error,
)
from toolkit.security.noise import (
    NN_HFR_PSK0,
    PSK_BYTES,
    HandshakeState,
    NotAuthenticError,
    RandomBytes,
    require_ml_kem,
)
from toolkit.security.opened_handshake import OpenedHandshake
from toolkit.security.pake import PakeInitiator, PakeResponder
from toolkit.security.reconnections import key_id, reconnection_psk
from toolkit.security.transcript import noise_prologue, session_keys

_NEEDED = {
    Method.NONE: Refusal.NOTHING_NEEDED,
    Method.KEY: Refusal.KEY_NEEDED,
    Method.CODE: Refusal.CODE_NEEDED,
}
_NOT_OPENED = {Method.NONE: Refusal.ALTERED, Method.KEY: Refusal.WRONG_KEY, Method.CODE: Refusal.WRONG_CODE}
_MAX_REMEMBERED_MESSAGES = 256


@dataclass(frozen=True)
class AcceptedHandshake:
    """The initiator's handshake is complete."""

    finish: bytes
    """M3; the responder needs it before it can open anything."""
    parameters: bytes
    """The responder's parameters of the transport."""
    keys: SessionKeys | None
    """None if both sides agreed on plaintext."""
    exporter: bytes = field(repr=False)
    """A secret of SECRET_BYTES bytes that both ends have, also with plaintext; the same as `keys.exporter`."""


class Initiator:
    """The side that connects: one object for each attempt."""

    def __init__(
        self,
        credential: Credential,
        prologue: bytes,
        parameters: bytes,
        *,
        wants_plaintext: bool = False,
        random_bytes: RandomBytes = secrets.token_bytes,
        speeds: Speeds | None = None,
    ) -> None:
        """`prologue` holds all that the transport negotiates in the clear, `parameters` what it sends sealed in M1.

        `speeds` are this machine's speeds of the AEADs; measured if None. Raises UsageError if `cryptography` has no
        ML-KEM.
        """
        require_ml_kem()
        self._credential = credential
        self._prologue = prologue
        self._parameters = parameters
        self._wants_plaintext = wants_plaintext
        self._random_bytes = random_bytes
        self._speeds = measured_speeds() if speeds is None else speeds
        self._noise: HandshakeState | None = None
        self._clear_fields: dict[int, bytes] = {}
        self._pake: PakeInitiator | None = None
        self._retry: bytes | None = None
        self._message = self._begin()

    def first_message(self) -> bytes:
        """Return P1 with a code, M1 otherwise. A repetition returns the same bytes."""
        return self._message

    def receive_retry_untrusted(self, message: bytes) -> bytes:
        """Take P2, return M1; or take the same P2 again, return the same M1.

        Raises RefusedError for a refusal, ProtocolError for anything else. Only the first well-formed P2 is
        taken: each one tests a password, and an impostor must not test more than one.
        """
        fields = self._fields_unless_refused_untrusted(message)
        if self._retry is not None:
            if message != self._retry:
                raise ProtocolError("a second answer to the code")
            return self._message
        if self._pake is None:
            raise ProtocolError("an answer to a code, but no code was sent")
        answer = field_untrusted(fields, SecurityField.PAKE)
        self._message = self._make_m1(self._pake.finish_untrusted(answer), answer)
        self._retry = message
        return self._message

    def receive_accept_untrusted(self, message: bytes) -> AcceptedHandshake:
        """Take M2. Call it until it returns once: M3 is made once.

        Raises RefusedError for a refusal. Raises ProtocolError for anything else, above all if the responder
        does not prove that it knows the key or code; the true M2 may still come.
        """
        fields = self._fields_unless_refused_untrusted(message)
        noise_message = field_untrusted(fields, SecurityField.NOISE)
        noise = self._noise
        if noise is None:
            raise ProtocolError("an unexpected answer")
        try:
            payload = noise.read_message_untrusted(noise_message)
        except NotAuthenticError:
            raise ProtocolError(
                "the receiver's answer is not authentic: something between the hosts altered it or answers in its place"
            ) from None
        self._noise = None
        sealed = decode_parameters_untrusted(payload)
        aead_name = decode_aead_untrusted(field_untrusted(sealed, SealedField.AEAD))
        is_plaintext = flag_untrusted(sealed, SealedField.PLAINTEXT)
        if aead_name not in self._speeds or is_plaintext != self._wants_plaintext:
            raise ProtocolError("the receiver chose what was not offered")
        parameters = field_untrusted(sealed, SealedField.TRANSPORT)
        finish = encode_parameters({SecurityField.NOISE: noise.write_message()})
        keys = session_keys(noise, aead_name)
        return AcceptedHandshake(finish, parameters, None if is_plaintext else keys, keys.exporter)

    def _fields_unless_refused_untrusted(self, message: bytes) -> dict[int, bytes]:
        fields = decode_parameters_untrusted(message)
        if SecurityField.REFUSAL in fields:
            code = decode_uint_untrusted(fields[SecurityField.REFUSAL], 1)
            raise refusal_error(code, not isinstance(self._credential, NoCredential))
        return fields

    def _begin(self) -> bytes:
        self._clear_fields[SecurityField.METHOD] = bytes([self._credential.method])
        if isinstance(self._credential, CodeCredential):
            self._clear_fields[SecurityField.NAMEPLATE] = self._credential.nameplate
            self._pake = PakeInitiator(self._credential.password, self._random_bytes)
            self._clear_fields[SecurityField.PAKE] = self._pake.element
            return encode_parameters(self._clear_fields)
        if isinstance(self._credential, ReconnectionCredential):
            self._clear_fields[SecurityField.KEY_ID] = key_id(self._credential.key)
            return self._make_m1(reconnection_psk(self._credential.key))
        return self._make_m1(self._credential.key if isinstance(self._credential, KeyCredential) else bytes(PSK_BYTES))

    def _make_m1(self, psk: bytes, answer: bytes = b"") -> bytes:
        prologue = noise_prologue(self._prologue, self._clear_fields, answer)
        self._noise = HandshakeState(
            NN_HFR_PSK0, is_initiator=True, prologue=prologue, psk=psk, random_bytes=self._random_bytes
        )
        sealed: dict[int, bytes] = {
            SealedField.AEAD_SPEEDS: encode_speeds(self._speeds),
            SealedField.PLAINTEXT: bytes([self._wants_plaintext]),
            SealedField.TRANSPORT: self._parameters,
        }
        noise_message = self._noise.write_message(encode_sealed(sealed, self._random_bytes))
        return encode_parameters({**self._clear_fields, SecurityField.NOISE: noise_message})


@dataclass(frozen=True)
class Reply:
    """What to send back to an initiator, about which nothing is kept: P2, or a refusal."""

    message: bytes
    refusal: Refusal | None = None
    """Why the initiator is refused; None for P2."""

    @property
    def is_refusal(self) -> bool:
        """Whether this ends the attempt."""
        return self.refusal is not None


class Responder:
    """The side that listens: one object for each listener. Thread-safe."""

    def __init__(
        self,
        admission: Admission,
        *,
        allows_plaintext: bool = False,
        random_bytes: RandomBytes = secrets.token_bytes,
        speeds: Speeds | None = None,
    ) -> None:
        """`speeds` are this machine's speeds of the AEADs; measured with the first handshake if None.

        Raises UsageError if `cryptography` has no ML-KEM.
        """
        require_ml_kem()
        self._admission = admission
        self._allows_plaintext = allows_plaintext
        self._random_bytes = random_bytes
        self._speeds = speeds
        self._pake = PakeResponder(random_bytes(SECRET_BYTES))
        self._wrong_messages: OrderedDict[bytes, None] = OrderedDict()

    def open_untrusted(self, message: bytes, prologue: bytes, network: bytes, now_ns: int) -> Reply | OpenedHandshake:
        """Take P1 or M1 from a client that has shown that it receives at its address.

        `network` is what limits for each host count by (`toolkit.channel.Address.network`).
        Raises ProtocolError, and nothing else, if the message is malformed; it then deserves no answer.
        """
        received = FirstMessage.decode_untrusted(message, prologue)
        if received.method is None or not self._admission.admits(received.method):
            return _refuse(_NEEDED[self._admission.method])
        if received.method is Method.CODE:
            return self._open_code_untrusted(received, network, now_ns)
        if received.noise_message is None:
            raise ProtocolError("a handshake message has no NOISE")
        if received.method is Method.RECONNECTION:
            return self._open_reconnection_untrusted(received, received.noise_message, network, now_ns)
        opened = self._open_m1_untrusted(received, received.noise_message, self._psk(received.method))
        return opened or _refuse(_NOT_OPENED[received.method])

    def _psk(self, method: Method) -> bytes:
        return self._admission.psk() if method is Method.KEY else bytes(PSK_BYTES)

    def _open_code_untrusted(self, received: FirstMessage, network: bytes, now_ns: int) -> Reply | OpenedHandshake:
        nameplate = field_untrusted(received.clear_fields, SecurityField.NAMEPLATE)
        element = field_untrusted(received.clear_fields, SecurityField.PAKE)
        if not 0 < len(nameplate) <= MAX_NAMEPLATE_BYTES:
            raise ProtocolError(f"a nameplate of {len(nameplate)} bytes")
        with self._admission.trying:
            if self._is_known_to_be_wrong(received):
                return _refuse(Refusal.WRONG_CODE)
            password = self._admission.password(nameplate)
            if password is None:
                return _refuse(Refusal.ENDED_CODE if self._admission.has_ended(nameplate) else Refusal.UNKNOWN_CODE)
            if not self._admission.may_try(network, now_ns):
                return _refuse(Refusal.TRY_LATER)
            context = noise_prologue(received.prologue, received.clear_fields)
            if received.noise_message is None:
                answer = self._pake.answer_untrusted(password, element, context)
                return Reply(encode_parameters({SecurityField.PAKE: answer}))
            answer, psk = self._pake.finish_untrusted(password, element, context)
            opened = self._open_m1_untrusted(received, received.noise_message, psk, answer)
            if opened is None:
                self._remember_wrong(received)
                self._admission.record_wrong(nameplate, network)
                return _refuse(Refusal.WRONG_CODE)
            return opened

    def _open_reconnection_untrusted(
        self, received: FirstMessage, noise_message: bytes, network: bytes, now_ns: int
    ) -> Reply | OpenedHandshake:
        identifier = field_untrusted(received.clear_fields, SecurityField.KEY_ID)
        with self._admission.trying:
            if self._is_known_to_be_wrong(received):
                return _refuse(Refusal.WRONG_RECONNECTION)
            psk = self._admission.reconnection_psk(identifier)
            if psk is None:
                return _refuse(Refusal.UNKNOWN_SESSION)
            opened = self._open_m1_untrusted(received, noise_message, psk)
            if opened is None:
                self._remember_wrong(received)
                self._admission.may_try(network, now_ns)  # a right try counts as none: outages may come one by one
                self._admission.record_wrong(b"", network)
                return _refuse(Refusal.WRONG_RECONNECTION)
            return opened

    def _open_m1_untrusted(
        self, received: FirstMessage, noise_message: bytes, psk: bytes, answer: bytes = b""
    ) -> Reply | OpenedHandshake | None:
        """Return None if M1 is not authentic: the initiator has another psk, or what it sent was altered."""
        prologue = noise_prologue(received.prologue, received.clear_fields, answer)
        noise = HandshakeState(
            NN_HFR_PSK0, is_initiator=False, prologue=prologue, psk=psk, random_bytes=self._random_bytes
        )
        try:
            sealed = decode_parameters_untrusted(noise.read_message_untrusted(noise_message))
        except NotAuthenticError:
            return None
        opened = OpenedHandshake(
            noise=noise,
            method=Method.NONE if received.method is None else received.method,
            parameters=field_untrusted(sealed, SealedField.TRANSPORT),
            is_plaintext=flag_untrusted(sealed, SealedField.PLAINTEXT),
            aead_name=self._choose_aead_untrusted(field_untrusted(sealed, SealedField.AEAD_SPEEDS)),
            admission=self._admission,
            nameplate=received.clear_fields.get(SecurityField.NAMEPLATE, b""),
            key_id=received.clear_fields.get(SecurityField.KEY_ID, b""),
            random_bytes=self._random_bytes,
        )
        return _refuse(Refusal.PLAINTEXT) if opened.is_plaintext and not self._allows_plaintext else opened

    def _choose_aead_untrusted(self, speeds: bytes) -> AeadName:
        ours = measured_speeds() if self._speeds is None else self._speeds
        return choose_aead(ours, decode_speeds_untrusted(speeds))

    def _is_known_to_be_wrong(self, received: FirstMessage) -> bool:
        return received.digest in self._wrong_messages

    def _remember_wrong(self, received: FirstMessage) -> None:
        """Remember an M1 with a wrong code, so that a repetition on the network counts as one try and costs nothing."""
        self._wrong_messages[received.digest] = None
        if len(self._wrong_messages) > _MAX_REMEMBERED_MESSAGES:
            self._wrong_messages.popitem(last=False)


def _refuse(refusal: Refusal) -> Reply:
    return Reply(encode_parameters({SecurityField.REFUSAL: bytes([refusal])}), refusal)
