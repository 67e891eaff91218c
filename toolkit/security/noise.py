"""The Noise Protocol Framework, revision 34 (noiseprotocol.org/noise.html), for the patterns that nettool uses.

Sections 5.1 to 5.3 define CipherState, SymmetricState and HandshakeState; section 9, pre-shared keys. The hash is
SHA-256, the Diffie-Hellman function X25519, the cipher AES-256-GCM or ChaCha20-Poly1305 (sections 12.1 to 12.5).

The handshake of a session is

    Noise_NNhfrpsk0_25519+MLKEM768_AESGCM_SHA256
        -> psk, e
        <- e, ee, e1
        -> ekem1

It is NNpsk0 with the tokens of the Noise extension for Hybrid Forward Secrecy: `e1` is an ephemeral encapsulation key,
sent as EncryptAndHash(key); `ekem1` is the ciphertext of a secret encapsulated for that key, sent as
EncryptAndHash(ciphertext) and followed by MixKey(secret). The extension lets the initiator send `e1`. Here the
responder does ("hfr"): a key of 1,184 bytes would make the first message too large for one datagram beside its other
fields, and a responder that keeps no state for strangers can judge only one datagram.

Exchanging the roles changes nothing that security rests on. KEM keys and X25519 keys alike are made for one handshake
and then forgotten, so a psk that leaks later opens no recorded session (forward secrecy). The final chaining key
depends on the psk, the X25519 secret and the KEM secret: an attacker who breaks one of X25519 and ML-KEM still lacks
the other (hybrid strength). Both keys and the ciphertext are in the transcript hash, which every tag authenticates.
What the exchange does change: the payload of the second message is protected by the psk and X25519 alone, because the
KEM secret exists only from the third message on. It holds parameters of the transport, and nothing of the user. The
first payload is protected by the psk alone, as in NNpsk0: it has no forward secrecy, and can be replayed.
"""

import hashlib
import secrets
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal

from toolkit.errors import ProtocolError, UsageError
from toolkit.security.keys import TAG_BYTES, AeadName, make_aead

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

RandomBytes = Callable[[int], bytes]

HASH_BYTES = 32
PSK_BYTES = 32
X25519_BYTES = 32
KEM_SEED_BYTES = 64
KEM_KEY_BYTES = 1184
KEM_CIPHERTEXT_BYTES = 1088


class Token(Enum):
    """What a message does to the handshake, in order."""

    PSK = auto()
    E = auto()
    EE = auto()
    E1 = auto()
    EKEM1 = auto()


@dataclass(frozen=True)
class NoisePattern:
    """The tokens of each message. The initiator sends the first message, and the sides take turns."""

    name: str
    dh_name: str
    messages: tuple[tuple[Token, ...], ...]

    @property
    def has_psk(self) -> bool:
        """Whether ephemeral keys are mixed into the keys as well (section 9.2)."""
        return any(Token.PSK in tokens for tokens in self.messages)

    def protocol_name(self, cipher: AeadName) -> bytes:
        """Return the name that begins the transcript (section 8)."""
        cipher_name = "AESGCM" if cipher is AeadName.AES_256_GCM else "ChaChaPoly"
        return f"Noise_{self.name}_{self.dh_name}_{cipher_name}_SHA256".encode()


NN = NoisePattern("NN", "25519", ((Token.E,), (Token.E, Token.EE)))
NN_PSK0 = NoisePattern("NNpsk0", "25519", ((Token.PSK, Token.E), (Token.E, Token.EE)))
NN_HFR_PSK0 = NoisePattern(
    "NNhfrpsk0", "25519+MLKEM768", ((Token.PSK, Token.E), (Token.E, Token.EE, Token.E1), (Token.EKEM1,))
)


class NotAuthenticError(ProtocolError):
    """A tag does not match: the peer has another key, or the message or what precedes it was changed on the way."""


class CipherState:
    """A key and its nonce counter (section 5.1). Without a key, text passes unchanged."""

    def __init__(self, cipher: AeadName, key: bytes | None = None) -> None:
        """Begin with nonce 0."""
        self._byte_order: Literal["big", "little"] = "big" if cipher is AeadName.AES_256_GCM else "little"
        self._aead = None if key is None else make_aead(cipher, key)
        self._nonce = 0

    @property
    def has_key(self) -> bool:
        """Whether there is a key."""
        return self._aead is not None

    def encrypt_with_ad(self, associated_data: bytes, plaintext: bytes) -> bytes:
        """Return `plaintext` sealed with the next nonce."""
        if self._aead is None:
            return plaintext
        return self._aead.encrypt(self._next_nonce(), plaintext, associated_data)

    def decrypt_with_ad_untrusted(self, associated_data: bytes, ciphertext: bytes) -> bytes:
        """Return `ciphertext` opened with the next nonce. Raises NotAuthenticError, a ProtocolError."""
        from cryptography.exceptions import InvalidTag

        if self._aead is None:
            return ciphertext
        try:
            return self._aead.decrypt(self._next_nonce(), ciphertext, associated_data)
        except InvalidTag:
            raise NotAuthenticError("a handshake message is not authentic") from None

    def _next_nonce(self) -> bytes:
        """Return 32 bits of zeros and the counter (sections 12.3 and 12.4), and count."""
        nonce = bytes(4) + self._nonce.to_bytes(8, self._byte_order)
        self._nonce += 1
        return nonce


class SymmetricState:
    """The chaining key, the transcript hash and the cipher (section 5.2)."""

    def __init__(self, protocol_name: bytes, cipher: AeadName) -> None:
        """Begin a handshake; a name longer than a hash is hashed."""
        if len(protocol_name) <= HASH_BYTES:
            self.handshake_hash = protocol_name.ljust(HASH_BYTES, b"\0")
        else:
            self.handshake_hash = hashlib.sha256(protocol_name).digest()
        self._chaining_key = self.handshake_hash
        self._cipher_name = cipher
        self._cipher = CipherState(cipher)

    def copy(self) -> "SymmetricState":
        """Return an independent copy."""
        other = copy(self)
        other._cipher = copy(self._cipher)
        return other

    @property
    def tag_bytes(self) -> int:
        """How much EncryptAndHash adds at present."""
        return TAG_BYTES if self._cipher.has_key else 0

    def mix_hash(self, data: bytes) -> None:
        """Add `data` to the transcript."""
        self.handshake_hash = hashlib.sha256(self.handshake_hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Make the keys depend on `secret`."""
        self._chaining_key, key = self._hkdf(secret, 2)
        self._cipher = CipherState(self._cipher_name, key)

    def mix_key_and_hash(self, secret: bytes) -> None:
        """Make the keys and the transcript depend on `secret` (a psk)."""
        self._chaining_key, hash_input, key = self._hkdf(secret, 3)
        self.mix_hash(hash_input)
        self._cipher = CipherState(self._cipher_name, key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Return `plaintext` sealed for the transcript so far, and add the result to it."""
        ciphertext = self._cipher.encrypt_with_ad(self.handshake_hash, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash_untrusted(self, ciphertext: bytes) -> bytes:
        """Return the inverse of encrypt_and_hash. Raises NotAuthenticError, a ProtocolError."""
        plaintext = self._cipher.decrypt_with_ad_untrusted(self.handshake_hash, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self, count: int = 2) -> tuple[bytes, ...]:
        """Return `count` secrets: for the initiator's direction, for the responder's, and (3) for other purposes.

        Noise defines two. HKDF gives the same two when it derives three.
        """
        return self._hkdf(b"", count)

    def _hkdf(self, secret: bytes, count: int) -> tuple[bytes, ...]:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        output = HKDF(SHA256(), count * HASH_BYTES, self._chaining_key, b"").derive(secret)
        return tuple(output[at : at + HASH_BYTES] for at in range(0, len(output), HASH_BYTES))


def require_ml_kem() -> None:
    """Raise UsageError if the installed `cryptography` was built without ML-KEM."""
    from cryptography.hazmat.backends.openssl.backend import backend

    if not backend.mlkem_supported():
        raise UsageError("the installed cryptography package has no ML-KEM: install a wheel of it with pip")


class HandshakeState:
    """One side of a handshake (section 5.3). The sides call `write_message` and `read_message_untrusted` in turns."""

    def __init__(
        self,
        pattern: NoisePattern,
        *,
        is_initiator: bool,
        prologue: bytes = b"",
        psk: bytes = bytes(PSK_BYTES),
        cipher: AeadName = AeadName.AES_256_GCM,
        random_bytes: RandomBytes = secrets.token_bytes,
    ) -> None:
        """Begin. Both sides need the same pattern, cipher, prologue and psk (PSK_BYTES bytes), or nothing opens."""
        if len(psk) != PSK_BYTES:
            raise ValueError(f"a psk has {PSK_BYTES} bytes, not {len(psk)}")
        self._pattern = pattern
        self._is_initiator = is_initiator
        self._psk = psk
        self._random_bytes = random_bytes
        self._step = 0
        self._dh_key: X25519PrivateKey | None = None
        self._remote_dh_key: X25519PublicKey | None = None
        self._kem_key: MLKEM768PrivateKey | None = None
        self._remote_kem_key: MLKEM768PublicKey | None = None
        self._symmetric = SymmetricState(pattern.protocol_name(cipher), cipher)
        self._symmetric.mix_hash(prologue)

    @property
    def is_finished(self) -> bool:
        """Whether all messages have been exchanged."""
        return self._step == len(self._pattern.messages)

    @property
    def handshake_hash(self) -> bytes:
        """The hash of the transcript so far; once finished, it identifies the handshake (section 11.2)."""
        return self._symmetric.handshake_hash

    def split(self, count: int = 2) -> tuple[bytes, ...]:
        """Return secrets, as SymmetricState.split does. Raises ValueError before the handshake is finished."""
        if not self.is_finished:
            raise ValueError("the handshake is not finished")
        return self._symmetric.split(count)

    def write_message(self, payload: bytes = b"") -> bytes:
        """Return the next message, with `payload` in it. Raises ValueError if it is not this side's turn."""
        parts = [self._write_token(token) for token in self._tokens(self._is_initiator)]
        parts.append(self._symmetric.encrypt_and_hash(payload))
        self._advance()
        return b"".join(parts)

    def read_message_untrusted(self, message: bytes) -> bytes:
        """Return the payload of the peer's next message.

        Raises ProtocolError if the message is malformed or not authentic; the state is then as before, so that a forged
        message does not keep the true one from being read. Raises ValueError if it is not the peer's turn.
        """
        before = (self._symmetric.copy(), self._remote_dh_key, self._remote_kem_key)
        try:
            rest = message
            for token in self._tokens(not self._is_initiator):
                rest = self._read_token_untrusted(token, rest)
            payload = self._symmetric.decrypt_and_hash_untrusted(rest)
        except ProtocolError:
            self._symmetric, self._remote_dh_key, self._remote_kem_key = before
            raise
        self._advance()
        return payload

    def _advance(self) -> None:
        """Count a message. After the last one, forget all that could open a recorded handshake later."""
        self._step += 1
        if self.is_finished:
            self._psk, self._dh_key, self._kem_key = b"", None, None

    def _tokens(self, by_initiator: bool) -> tuple[Token, ...]:
        if self.is_finished or (self._step % 2 == 0) != by_initiator:
            raise ValueError("a handshake message out of turn")
        return self._pattern.messages[self._step]

    def _write_token(self, token: Token) -> bytes:
        match token:
            case Token.PSK:
                self._symmetric.mix_key_and_hash(self._psk)
            case Token.E:
                return self._write_dh_key()
            case Token.EE:
                self._mix_dh_untrusted()
            case Token.E1:
                return self._write_kem_key()
            case Token.EKEM1:
                return self._write_kem_ciphertext()
        return b""

    def _read_token_untrusted(self, token: Token, message: bytes) -> bytes:
        """Process `token` with what it has at the start of `message`; return the rest of the message."""
        match token:
            case Token.PSK:
                self._symmetric.mix_key_and_hash(self._psk)
            case Token.E:
                return self._read_dh_key_untrusted(message)
            case Token.EE:
                self._mix_dh_untrusted()
            case Token.E1:
                return self._read_kem_key_untrusted(message)
            case Token.EKEM1:
                return self._read_kem_ciphertext_untrusted(message)
        return message

    def _write_dh_key(self) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._dh_key = X25519PrivateKey.from_private_bytes(self._random_bytes(X25519_BYTES))
        return self._mix_dh_key(self._dh_key.public_key().public_bytes_raw())

    def _read_dh_key_untrusted(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        key, rest = _cut_untrusted(message, X25519_BYTES)
        self._remote_dh_key = X25519PublicKey.from_public_bytes(self._mix_dh_key(key))
        return rest

    def _mix_dh_key(self, key: bytes) -> bytes:
        self._symmetric.mix_hash(key)
        if self._pattern.has_psk:
            self._symmetric.mix_key(key)
        return key

    def _mix_dh_untrusted(self) -> None:
        """Mix in the shared X25519 secret. A peer's key of low order, which would make it zero, is an error."""
        if self._dh_key is None or self._remote_dh_key is None:
            raise AssertionError("the pattern has ee before both keys")
        try:
            secret = self._dh_key.exchange(self._remote_dh_key)
        except ValueError:  # RFC 7748, section 6.1
            raise ProtocolError("an X25519 key of low order") from None
        self._symmetric.mix_key(secret)

    def _write_kem_key(self) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

        self._kem_key = MLKEM768PrivateKey.from_seed_bytes(self._random_bytes(KEM_SEED_BYTES))
        return self._symmetric.encrypt_and_hash(self._kem_key.public_key().public_bytes_raw())

    def _read_kem_key_untrusted(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

        sealed, rest = _cut_untrusted(message, KEM_KEY_BYTES + self._symmetric.tag_bytes)
        key = self._symmetric.decrypt_and_hash_untrusted(sealed)
        try:
            self._remote_kem_key = MLKEM768PublicKey.from_public_bytes(key)
        except ValueError:  # FIPS 203, section 7.2: a coefficient is not below q
            raise ProtocolError("a malformed ML-KEM key") from None
        return rest

    def _write_kem_ciphertext(self) -> bytes:
        if self._remote_kem_key is None:
            raise AssertionError("the pattern has ekem1 before e1")
        secret, ciphertext = self._remote_kem_key.encapsulate()
        sealed = self._symmetric.encrypt_and_hash(ciphertext)
        self._symmetric.mix_key(secret)
        return sealed

    def _read_kem_ciphertext_untrusted(self, message: bytes) -> bytes:
        if self._kem_key is None:
            raise AssertionError("the pattern has ekem1 before e1")
        sealed, rest = _cut_untrusted(message, KEM_CIPHERTEXT_BYTES + self._symmetric.tag_bytes)
        ciphertext = self._symmetric.decrypt_and_hash_untrusted(sealed)
        self._symmetric.mix_key(self._kem_key.decapsulate(ciphertext))  # its length is right
        return rest


def _cut_untrusted(message: bytes, length: int) -> tuple[bytes, bytes]:
    """Return the first `length` bytes and the rest. Raises ProtocolError if there are fewer."""
    if len(message) < length:
        raise ProtocolError("a handshake message is cut short")
    return message[:length], message[length:]
