"""Whom a receiver admits."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Method(IntEnum):
    """What a receiver asks of its clients, as sent in a handshake."""

    NONE = 0
    KEY = 1
    CODE = 2
    RECONNECTION = 3
    """The key that a sender gave the receiver in a session whose connection was lost (reconnections.py)."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """How a client was admitted.

    key_id: of the reconnection key, for Method.RECONNECTION at the receiver; else b""
    number: the order in which the receiver has answered the handshakes of its clients with this key; else 0
    """

    method: Method
    key_id: bytes = b""
    number: int = 0


class Admission(Protocol):
    """The rules of one receiver. Thread-safe.

    `network` is what limits for each host count by (`toolkit.channel.Address.network`).
    """

    @property
    def method(self) -> Method:
        """What the receiver asks for; it never changes."""

    @property
    def trying(self) -> AbstractContextManager[object]:
        """Held while a code is tried, over all transports. Otherwise more tries could be under way than are left."""

    def admits(self, method: Method) -> bool:
        """Return whether clients may use this method: `method`, and sometimes another."""

    def psk(self) -> bytes:
        """Return the key that both ends know, 32 bytes; zeros for Method.NONE. Raises ValueError if there is none."""

    def reconnection_psk(self, key_id: bytes) -> bytes | None:
        """Return the pre-shared key of the reconnection key with this id, or None if no such key is valid."""

    def next_number(self, key_id: bytes) -> int | None:
        """Return Admitted.number for a handshake that is answered now, or None if the reconnection key has ended."""

    def password(self, nameplate: bytes) -> bytes | None:
        """Return the password of the code with this nameplate, or None if no such code is valid."""

    def has_ended(self, nameplate: bytes) -> bool:
        """Return whether the code with this nameplate was valid once."""

    def may_try(self, network: bytes, now_ns: int) -> bool:
        """Count one attempt with a code; return whether the limits allow it (a PAKE costs about 20 ms)."""

    def record_wrong(self, nameplate: bytes, network: bytes) -> None:
        """Count a wrong try of the code with this nameplate; b"" for a reconnection key."""

    def record_success(self, nameplate: bytes) -> bool:
        """Use the code once. Return False if it has ended meanwhile, so that this use is not allowed."""


class OpenAdmission:
    """Admits everyone."""

    method = Method.NONE
    trying: AbstractContextManager[object] = nullcontext()

    def admits(self, method: Method) -> bool:
        """Return whether this is the method that the receiver asks for."""
        return method == self.method

    def psk(self) -> bytes:
        """Return 32 zero bytes."""
        return bytes(32)

    def reconnection_psk(self, key_id: bytes) -> bytes | None:  # noqa: ARG002
        """Return None: clients are admitted in the same way again."""
        return None

    def next_number(self, key_id: bytes) -> int | None:  # noqa: ARG002
        """Return None: clients are admitted in the same way again."""
        return None

    def password(self, nameplate: bytes) -> bytes | None:  # noqa: ARG002
        """Return None: there are no codes."""
        return None

    def has_ended(self, nameplate: bytes) -> bool:  # noqa: ARG002
        """Return False: there are no codes."""
        return False

    def may_try(self, network: bytes, now_ns: int) -> bool:  # noqa: ARG002
        """Return False: there are no codes to try."""
        return False

    def record_wrong(self, nameplate: bytes, network: bytes) -> None:
        """Do nothing: there are no codes."""

    def record_success(self, nameplate: bytes) -> bool:  # noqa: ARG002
        """Return False: there are no codes."""
        return False


class KeyAdmission(OpenAdmission):
    """Admits clients that have the same key file."""

    method = Method.KEY

    def __init__(self, key: bytes) -> None:
        """Admit clients with this key of 32 bytes. Raises ValueError if it has another length."""
        if len(key) != 32:
            raise ValueError(f"a key has 32 bytes, not {len(key)}")
        self._key = key

    def psk(self) -> bytes:
        """Return the key."""
        return self._key
