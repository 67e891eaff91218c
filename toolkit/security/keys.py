"""The keys that protect a session after its handshake: a secret for each direction, and all that is derived from it.

Every derivation is HKDF-Expand (RFC 5869) with SHA-256 and a label, laid out like HKDF-Expand-Label of RFC 8446,
section 7.1:

    info = length u16, label length u8, "nettool " + label, context length u8, context

A secret is one generation of one direction's keys. Its `key` and `iv` seal packets or records, `next` is the generation
after it (a key update, as in RFC 9001, section 6.1), and `derive` gives an independent secret to another connection of
the same session. Nothing leads back from what is derived to the secret, or from one generation to the one before.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Protocol, TypeAlias

SECRET_BYTES = 32
KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16

Bytes: TypeAlias = bytes | bytearray | memoryview


class AeadName(StrEnum):
    """The AEADs that protect a session. Both have keys of 32 bytes, nonces of 12 and tags of 16."""

    AES_256_GCM = "aes-256-gcm"
    CHACHA20_POLY1305 = "chacha20-poly1305"


FORGERY_LIMITS = {AeadName.AES_256_GCM: 1 << 52, AeadName.CHACHA20_POLY1305: 1 << 36}
"""How many packets may fail to open before a forgery is no longer improbable enough (RFC 9001, section 6.6)."""


class SessionAead(Protocol):
    """An AEAD with its key. The same key and nonce must never seal two different texts.

    The `_into` methods fill `buf`, which must have exactly the size of the result (text plus TAG_BYTES, or sealed text
    minus TAG_BYTES), and return that size. Opening raises cryptography.exceptions.InvalidTag.
    """

    def encrypt(self, nonce: Bytes, data: Bytes, associated_data: Bytes | None, /) -> bytes:
        """Return `data` sealed, with the tag at the end."""

    def decrypt(self, nonce: Bytes, data: Bytes, associated_data: Bytes | None, /) -> bytes:
        """Return the text of the sealed `data`."""

    def encrypt_into(self, nonce: Bytes, data: Bytes, associated_data: Bytes | None, buf: Bytes, /) -> int:
        """Seal `data` into `buf`."""

    def decrypt_into(self, nonce: Bytes, data: Bytes, associated_data: Bytes | None, buf: Bytes, /) -> int:
        """Open the sealed `data` into `buf`."""


def make_aead(name: AeadName, key: bytes) -> SessionAead:
    """Return the AEAD `name` with a key of KEY_BYTES bytes. Raises ValueError if the key has another length."""
    from cryptography.hazmat.primitives.ciphers import aead

    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return aead.AESGCM(key) if name is AeadName.AES_256_GCM else aead.ChaCha20Poly1305(key)


def expand_label(secret: bytes, label: str, context: bytes = b"", length: int = SECRET_BYTES) -> bytes:
    """Return `length` bytes derived from `secret` for the purpose `label` and `context` (at most 255 bytes)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    full_label = b"nettool " + label.encode("ascii")
    info = b"".join((length.to_bytes(2), bytes([len(full_label)]), full_label, bytes([len(context)]), context))
    return HKDFExpand(SHA256(), length, info).derive(secret)


@dataclass(frozen=True)
class TrafficKeys:
    """One generation of the keys of one direction. The secret, the key and the IV appear in no repr."""

    aead_name: AeadName
    secret: bytes = field(repr=False)
    generation: int = 0
    """How many key updates precede it."""

    @cached_property
    def key(self) -> bytes:
        """KEY_BYTES bytes for the AEAD."""
        return expand_label(self.secret, "key", length=KEY_BYTES)

    @cached_property
    def iv(self) -> bytes:
        """IV_BYTES bytes. The nonce of a packet or record is the IV XOR its number."""
        return expand_label(self.secret, "iv", length=IV_BYTES)

    @cached_property
    def aead(self) -> SessionAead:
        """The AEAD with the key."""
        return make_aead(self.aead_name, self.key)

    def nonce(self, number: int) -> bytes:
        """Return the nonce of packet or record `number`, which is below 2^64 (RFC 9001, section 5.3)."""
        return (int.from_bytes(self.iv) ^ number).to_bytes(IV_BYTES)

    def next(self) -> "TrafficKeys":
        """Return the generation after this one."""
        return TrafficKeys(self.aead_name, expand_label(self.secret, "key update"), self.generation + 1)

    def derive(self, label: bytes) -> "TrafficKeys":
        """Return independent keys, generation 0, for the purpose `label` (at most 255 bytes)."""
        return TrafficKeys(self.aead_name, expand_label(self.secret, "derived", label))


@dataclass(frozen=True)
class SessionKeys:
    """What a handshake yields. The client is the initiator; each direction has keys of its own."""

    client: TrafficKeys
    """Seals what the client sends."""
    server: TrafficKeys
    """Seals what the server sends."""
    exporter: bytes = field(repr=False)
    """A secret of SECRET_BYTES bytes for other purposes; use it through `export`."""

    def export(self, label: str, context: bytes = b"", length: int = SECRET_BYTES) -> bytes:
        """Return bytes that only the two ends know, for the purpose `label` and `context` (at most 255 bytes)."""
        return expand_label(self.exporter, label, context, length)

    def derive(self, label: bytes) -> "SessionKeys":
        """Return independent keys for another connection of the session, named by `label` (at most 255 bytes)."""
        exporter = expand_label(self.exporter, "derived", label)
        return SessionKeys(self.client.derive(label), self.server.derive(label), exporter)
