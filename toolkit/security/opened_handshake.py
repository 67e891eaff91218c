"""The responder's side of a handshake from M1 on: what it answers, and when the initiator is in. Sans-I/O."""

from toolkit.errors import ProtocolError
from toolkit.parameters import decode_parameters_untrusted, encode_parameters
from toolkit.security.admission import Admission, Admitted, Method
from toolkit.security.aead import AEAD_IDS
from toolkit.security.keys import AeadName, SessionKeys
from toolkit.security.messages import Refusal, SealedField, SecurityField, encode_sealed, field_untrusted, refusal_error
from toolkit.security.noise import HandshakeState, RandomBytes
from toolkit.security.transcript import session_keys


class CodeEndedError(ProtocolError):
    """The initiator knows the code, but others have used it up, or wrong tries have ended it, meanwhile.

    keys: those of the session, only to tell the initiator so; None for plaintext
    """

    def __init__(self, keys: SessionKeys | None) -> None:
        super().__init__(str(refusal_error(Refusal.ENDED_CODE, has_credential=True)))
        self.keys = keys


class OpenedHandshake:
    """M1 has opened: the initiator knows the psk, unless M1 is a replay. One object for each attempt."""

    def __init__(
        self,
        *,
        noise: HandshakeState,
        method: Method,
        parameters: bytes,
        is_plaintext: bool,
        aead_name: AeadName,
        admission: Admission,
        nameplate: bytes,
        key_id: bytes,
        random_bytes: RandomBytes,
    ) -> None:
        self.parameters = parameters
        """The initiator's parameters of the transport."""
        self.is_plaintext = is_plaintext
        """Whether both sides want plaintext."""
        self._method = method
        self._noise = noise
        self._aead_name = aead_name
        self._admission = admission
        self._nameplate = nameplate
        self._key_id = key_id
        self._random_bytes = random_bytes
        self._exporter: bytes | None = None
        self._number: int | None = None
        self._admitted: Admitted | None = None

    @property
    def admitted(self) -> Admitted:
        """How the initiator was admitted. Raises ValueError before the handshake is finished."""
        if self._admitted is None:
            raise ValueError("the handshake is not finished")
        return self._admitted

    @property
    def exporter(self) -> bytes:
        """AcceptedHandshake.exporter of the initiator. Raises ValueError before the handshake is finished."""
        if self._exporter is None:
            raise ValueError("the handshake is not finished")
        return self._exporter

    def accept(self, parameters: bytes) -> bytes:
        """Return M2, with the transport's `parameters` sealed in it. Call it once; the transport repeats the bytes."""
        if self._method is Method.RECONNECTION:
            # An initiator completes a handshake by this answer, and begins the next one after it has given that up.
            self._number = self._admission.next_number(self._key_id)
        sealed: dict[int, bytes] = {
            SealedField.AEAD: bytes([AEAD_IDS[self._aead_name]]),
            SealedField.PLAINTEXT: bytes([self.is_plaintext]),
            SealedField.TRANSPORT: parameters,
        }
        message = self._noise.write_message(encode_sealed(sealed, self._random_bytes))
        return encode_parameters({SecurityField.NOISE: message})

    def finish_untrusted(self, message: bytes) -> SessionKeys | None:
        """Take M3; return the keys, or None for plaintext. The code counts as used from here.

        Raises ProtocolError if M3 is malformed, not authentic or out of turn; a forged M3 does not keep the true one
        from being taken. Raises CodeEndedError if the code, or a reconnection key, has ended meanwhile.
        """
        if self._noise.is_finished:
            raise ProtocolError("the handshake is finished already")
        noise_message = field_untrusted(decode_parameters_untrusted(message), SecurityField.NOISE)
        self._noise.read_message_untrusted(noise_message)
        keys = session_keys(self._noise, self._aead_name)
        self._admitted = self._admit()
        if self._admitted is None:
            raise CodeEndedError(None if self.is_plaintext else keys)
        self._exporter = keys.exporter
        return None if self.is_plaintext else keys

    def _admit(self) -> Admitted | None:
        """Use the code once; return None if what the initiator has proved to know is not valid any more."""
        if self._method is Method.CODE and not self._admission.record_success(self._nameplate):
            return None
        if self._method is not Method.RECONNECTION:
            return Admitted(self._method)
        if self._number is None or self._admission.reconnection_psk(self._key_id) is None:
            return None
        return Admitted(self._method, self._key_id, self._number)
