"""What the two sides of a handshake send each other: parameters, carried by packets or frames of the transport.

    P1  initiator -> responder   METHOD, NAMEPLATE, PAKE              only with a code
    P2  responder -> initiator   PAKE                                 only with a code
    M1  initiator -> responder   METHOD, [NAMEPLATE, PAKE,] NOISE
    M2  responder -> initiator   NOISE
    M3  initiator -> responder   NOISE
        responder -> initiator   REFUSAL                              instead of P2 or M2

The payloads of the Noise messages M1 and M2 are parameters too (SealedField), and with them those of the transport.
"""

from dataclasses import dataclass
from enum import IntEnum

from toolkit.errors import CredentialRequiredError, ProtocolError, RefusedError
from toolkit.parameters import decode_parameters_untrusted, decode_uint_untrusted, encode_parameters, grease
from toolkit.security.admission import Method
from toolkit.security.noise import RandomBytes
from toolkit.security.transcript import digest

MAX_NAMEPLATE_BYTES = 16


class SecurityField(IntEnum):
    """Parameters of a handshake message, in the clear."""

    METHOD = 1
    """u8: what the initiator has (Method)."""
    NAMEPLATE = 2
    """ASCII digits: which of the receiver's codes."""
    PAKE = 3
    """A SPAKE2 element, 33 bytes."""
    NOISE = 4
    """A Noise message."""
    REFUSAL = 5
    """u8: Refusal."""
    KEY_ID = 6
    """16 bytes: which of the reconnection keys of the receiver."""


class SealedField(IntEnum):
    """Parameters in the payloads of M1 and M2."""

    AEAD_SPEEDS = 1
    """M1: the AEADs that the initiator knows, `id u8, Mbit/s u32` each."""
    AEAD = 2
    """M2, u8: the id of the AEAD that the responder chose."""
    PLAINTEXT = 3
    """u8: 1 in M1 if the initiator asks for a session without encryption, 1 in M2 if the responder agrees."""
    TRANSPORT = 4
    """Parameters of the transport."""


class Refusal(IntEnum):
    """Why a responder refuses the initiator. It is not authenticated: anyone on the path can forge one."""

    CODE_NEEDED = 1
    KEY_NEEDED = 2
    NOTHING_NEEDED = 3
    WRONG_CODE = 4
    UNKNOWN_CODE = 5
    ENDED_CODE = 6
    WRONG_KEY = 7
    ALTERED = 8
    PLAINTEXT = 9
    TRY_LATER = 10
    UNKNOWN_SESSION = 11
    WRONG_RECONNECTION = 12


_TEXTS: dict[int, str] = {
    Refusal.CODE_NEEDED: "the receiver asks for a code: add `code` with the code that it shows",
    Refusal.KEY_NEEDED: "the receiver asks for a key: copy its key file to this host and pass it with `key`",
    Refusal.NOTHING_NEEDED: "the receiver asks for no code and no key, so it cannot prove who it is: start it with a "
    "code or the same `key`; leave out `code` and `key` only if you trust the network",
    Refusal.WRONG_CODE: "the code is wrong: compare it with the one that the receiver shows (a few wrong tries end it)",
    Refusal.UNKNOWN_CODE: "the receiver has no code with this number: compare it with the code that the receiver shows",
    Refusal.ENDED_CODE: "this code has ended, because it was used or because of wrong tries: take the code that the "
    "receiver shows now",
    Refusal.WRONG_KEY: "the receiver has a different key: copy its key file to this host and pass it with `key`",
    Refusal.ALTERED: "the receiver cannot open the handshake, which was altered on its way: check what lies between "
    "the hosts, and that both run the same version of nettool",
    Refusal.PLAINTEXT: "the receiver does not allow plaintext: leave out `plaintext`, or start it with `plaintext` too",
    Refusal.TRY_LATER: "the receiver limits how often codes are tried: try again in a minute",
    Refusal.UNKNOWN_SESSION: "the receiver no longer waits for this session: send the files again, with the code that "
    "it shows now",
    Refusal.WRONG_RECONNECTION: "the receiver has another key for this session: send the files again, with the code "
    "that it shows now",
}
_UNKNOWN_TEXT = "the receiver refuses, for a reason that this version does not know: update nettool on this host"


def refusal_error(code: int, has_credential: bool) -> RefusedError:
    """Return the error for a refusal as received, known or not. It says what to do about it.

    A CredentialRequiredError says that a credential is needed and there is none.
    """
    text = _TEXTS.get(code, _UNKNOWN_TEXT)
    if code in (Refusal.CODE_NEEDED, Refusal.KEY_NEEDED) and not has_credential:
        return CredentialRequiredError(text, is_code=code == Refusal.CODE_NEEDED)
    return RefusedError(text)


@dataclass(frozen=True)
class FirstMessage:
    """P1 or M1 as received."""

    method: Method | None
    """None if this version does not know it."""
    clear_fields: dict[int, bytes]
    """All fields except NOISE, known or not."""
    noise_message: bytes | None
    """None in P1."""
    prologue: bytes
    digest: bytes
    """A hash of the message and the prologue."""

    @classmethod
    def decode_untrusted(cls, message: bytes, prologue: bytes) -> "FirstMessage":
        """Raises ProtocolError."""
        fields = decode_parameters_untrusted(message)
        noise_message = fields.pop(SecurityField.NOISE, None)
        number = decode_uint_untrusted(field_untrusted(fields, SecurityField.METHOD), 1)
        method = next((method for method in Method if method == number), None)
        return cls(method, fields, noise_message, prologue, digest(message, prologue))


def field_untrusted(fields: dict[int, bytes], identifier: SecurityField | SealedField) -> bytes:
    """Return a field that must be there. Raises ProtocolError."""
    value = fields.get(identifier)
    if value is None:
        raise ProtocolError(f"a handshake message has no {identifier.name}")
    return value


def flag_untrusted(sealed: dict[int, bytes], identifier: SealedField) -> bool:
    """Return whether a flag is there and set. Raises ProtocolError if it is neither 0 nor 1."""
    value = sealed.get(identifier, b"\0")
    if value not in (b"\0", b"\1"):
        raise ProtocolError(f"{identifier.name} is 0x{value[:8].hex()}")
    return value == b"\1"


def encode_sealed(sealed: dict[int, bytes], random_bytes: RandomBytes) -> bytes:
    """Return the payload of M1 or M2, with GREASE."""
    identifier, value = grease(random_bytes)
    return encode_parameters({identifier: value, **sealed})
