"""What a sender presents to a receiver, and when it may connect without anything.

Off loopback, a sender needs a code, a key, or its user's consent: otherwise whoever answers in the receiver's place
would have to ask for nothing.
"""

import os
import socket
from pathlib import Path

from toolkit.channel import Address
from toolkit.errors import UsageError
from toolkit.security.admission import Method
from toolkit.security.code_words import parse_code
from toolkit.security.credentials import Credential, KeyCredential, NoCredential
from toolkit.security.key_file import read_key
from toolkit.transports.addresses import address_of, resolve


class UnprovenReceiverError(UsageError):
    """Nothing would show who the receiver is, and the caller has not agreed to that (exit code 2)."""

    def __init__(self) -> None:
        super().__init__(
            "nothing would show who answers: give the receiver's code or a key, or is_open if it is open to everyone"
        )


def credential_of(
    code: str | None = None, key: str | os.PathLike[str] | None = None, *, is_open: bool = False
) -> Credential:
    """Return the credential for a code, the credential for a key file, or none.

    Raises UsageError for a malformed code, a key file that cannot be used, or arguments that contradict each other.
    """
    if (code is not None) + (key is not None) + is_open > 1:
        raise UsageError("use one of code, key and is_open: a receiver asks for a code, for a key, or for neither")
    if key is not None:
        return KeyCredential(read_key(Path(key)))
    return NoCredential() if code is None else parse_code(code).credential


def check_before_connecting(credential: Credential, receiver: Address, *, is_open: bool) -> None:
    """Raises UnprovenReceiverError; UnreachableError for a name without addresses."""
    if credential.method is Method.NONE and not is_open and not is_here(receiver):
        raise UnprovenReceiverError


def check_connected(credential: Credential, peer: Address, *, is_open: bool) -> bool:
    """Return whether something shows who the connected receiver is.

    Raises UnprovenReceiverError: a name had addresses of this machine only when `check_before_connecting` looked, and
    another one when it was connected to.
    """
    is_proven = credential.method is not Method.NONE or peer.is_loopback
    if not is_proven and not is_open:
        raise UnprovenReceiverError
    return is_proven


def is_here(receiver: Address) -> bool:
    """Return whether every address of the receiver is a loopback address. Raises UnreachableError, UsageError."""
    return all(address_of(name).is_loopback for _, name in resolve(receiver, socket.SOCK_STREAM))
