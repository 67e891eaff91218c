"""Whether a directory that is sent is the one that the receiver writes to, or in it.

On one machine, `recv --dir t/in` and `tcp-send -r t` would otherwise send what has just been received, without end. The
receiver therefore marks its directory in its first ACCEPT: a salt, and a hash of the salt, of the boot id of its kernel
and of the directory's device and inode. A sender on the same machine finds the same hash for that directory; to any
other the mark says nothing. Over loopback, the sender offers its first entry alone and scans no further before it knows
the mark. Over another address of the machine, it may have offered two groups by then.
"""

import hashlib
import secrets
from functools import cache
from pathlib import Path
from typing import Protocol, Self

from toolkit.errors import ProtocolError

PLACE_PARAMETER = 1
"""The id of the mark among the parameters of an ACCEPT."""

_SALT_BYTES = 16
_HASH_BYTES = 16
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Directory(Protocol):
    """What identifies a directory, as in os.stat_result."""

    @property
    def st_dev(self) -> int: ...

    @property
    def st_ino(self) -> int: ...


class ReceiverPlace:
    """The mark of a receiver's directory."""

    def __init__(self, salt: bytes, digest: bytes) -> None:
        self._salt = salt
        self._digest = digest

    @classmethod
    def of(cls, status: Directory) -> Self:
        """The mark of the directory with this status."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(salt, _hash(salt, status))

    def encode(self) -> bytes:
        """The value of the parameter."""
        return self._salt + self._digest

    @classmethod
    def decode_untrusted(cls, value: bytes) -> Self:
        """The mark in a parameter. Raises ProtocolError."""
        if len(value) != _SALT_BYTES + _HASH_BYTES:
            raise ProtocolError("the peer sent a mark of its directory of another length")
        return cls(value[:_SALT_BYTES], value[_SALT_BYTES:])

    def is_at(self, status: Directory) -> bool:
        """Whether this is the status of the receiver's directory."""
        return _hash(self._salt, status) == self._digest


def _hash(salt: bytes, status: Directory) -> bytes:
    hasher = hashlib.blake2b(_boot_id(), key=salt, digest_size=_HASH_BYTES)
    hasher.update(status.st_dev.to_bytes(8) + status.st_ino.to_bytes(8))
    return hasher.digest()


@cache
def _boot_id() -> bytes:
    """What tells this machine from others until it starts again; random where the system has no such thing."""
    try:
        return _BOOT_ID.read_bytes()
    except OSError:
        return secrets.token_bytes(16)
