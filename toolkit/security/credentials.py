"""What a client presents to be admitted."""

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from toolkit.security.admission import Method


@dataclass(frozen=True)
class NoCredential:
    """Nothing: the session is encrypted, but neither end knows who the other one is."""

    method: ClassVar = Method.NONE


@dataclass(frozen=True)
class KeyCredential:
    """The content of a key file: 32 random bytes, the same at both ends."""

    method: ClassVar = Method.KEY
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class CodeCredential:
    """A code that the receiver shows: a number that names it, and the password, which never leaves this host."""

    method: ClassVar = Method.CODE
    nameplate: bytes
    """ASCII digits, 1 to 16 bytes; sent in the clear."""
    password: bytes = field(repr=False)


@dataclass(frozen=True)
class ReconnectionCredential:
    """The reconnection key of a session whose connection was lost."""

    method: ClassVar = Method.RECONNECTION
    key: bytes = field(repr=False)


Credential: TypeAlias = NoCredential | KeyCredential | CodeCredential | ReconnectionCredential
