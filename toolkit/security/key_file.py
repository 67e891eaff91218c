"""Key files: 256 random bits that both ends hold, for unattended machines.

A key file is text: the line "nettool key 1", then the key as 64 hexadecimal digits. Anyone who can read it is admitted,
so its mode is 0600, and a file that others can read is refused, as ssh refuses such private keys.
"""

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from toolkit.errors import TransferError, UsageError, printable_path

KEY_BYTES = 32
_HEADER = "nettool key 1"
_KEY_FILE = re.compile(rf"{_HEADER}\r?\n([0-9a-fA-F]{{{2 * KEY_BYTES}}})(?:\r?\n)?", re.ASCII)
_MAX_FILE_BYTES = 4096
_MODE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_new_key(path: Path) -> None:
    """Create a key file with a new random key, mode 0600. Never replaces or follows what exists under that name.

    Raises UsageError if the file exists or cannot be created, TransferError if it cannot be written.
    """
    shown = printable_path(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, _MODE)
    except FileExistsError:
        raise UsageError(f"{shown} exists and will not be overwritten: choose another name") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot create {shown}: {_reason(error)}") from None
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, _MODE)
            file.write(f"{_HEADER}\n{secrets.token_hex(KEY_BYTES)}\n")
            file.flush()
            os.fsync(descriptor)
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise TransferError(f"cannot write {shown}: {_reason(error)}") from None
        raise


def read_key(path: Path) -> bytes:
    """Return the key of a key file: KEY_BYTES bytes.

    Raises UsageError if the file cannot be read, if others than its owner can read or change it, or if it holds no key.
    """
    shown = printable_path(path)
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the key file {shown}: {_reason(error)}") from None
    if mode & _OTHERS:
        raise UsageError(f"others can use the key file {shown}: run 'chmod 600 {shown}'")
    found = _KEY_FILE.fullmatch(content.decode("ascii", "replace"))
    if found is None:
        raise UsageError(
            f"{shown} is not a key file: make one with 'nettool keygen FILE', and copy it to both machines"
        )
    return bytes.fromhex(found[1])


def _reason(error: Exception) -> str:
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()
