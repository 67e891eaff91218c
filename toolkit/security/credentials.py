"""What a client knows, by which a receiver lets it in."""

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class NoCredential:
    """Nothing: the session is encrypted, but neither end knows who the other one is."""


@dataclass(frozen=True)
class KeyCredential:
    """The content of a key file: 32 random bytes, the same at both ends."""

    key: bytes = field(repr=False)


@dataclass(frozen=True)
class CodeCredential:
    """A code that the receiver shows: a number that names it, and the password, which never leaves this host."""

    nameplate: bytes
    """ASCII digits, 1 to 16 bytes; sent in the clear."""
    password: bytes = field(repr=False)


Credential: TypeAlias = NoCredential | KeyCredential | CodeCredential
