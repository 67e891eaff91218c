"""The tokens that servers have given to this user's clients for their next connections: they save a round trip.

A folder of the user's cache directory holds one file for each server, so that neither looking for a token nor keeping
one depends on how many there are: on a LAN, reading all of them took longer than the rest of the handshake. A token is
used once. It says which two addresses have talked, which the file system knows as well, and it opens nothing: the key
exchange follows. Whatever goes wrong here costs one round trip, so no error is reported.
"""

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Final

import platformdirs  # here, because loading it takes longer than the handshake with a host nearby

from toolkit.channel import Address
from toolkit.rudp.handshake_packets import MAX_TOKEN_BYTES

MAX_TOKENS: Final = 256
LIFETIME_S: Final = 24 * 3600
_PRUNED: Final = 32
"""How many of the oldest are removed at once, beyond MAX_TOKENS."""
_SAFE: Final = frozenset(".:%-[]")
_NEW: Final = ".new-"


def default_path() -> Path:
    """Return the folder in the user's cache directory."""
    return Path(platformdirs.user_cache_dir("nettool")) / "tokens"


class TokenCache:
    """The tokens in the folder `path`, which need not exist."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def take(self, server: Address) -> bytes:
        """Return the token for this server, and forget it; b"" if there is none."""
        with contextlib.suppress(OSError):
            path = self._file(server)
            with path.open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES + 1)
                age_s = time.time() - os.fstat(file.fileno()).st_mtime
            path.unlink()  # if another process was first, it uses the token
            if len(token) <= MAX_TOKEN_BYTES and age_s < LIFETIME_S:
                return token
        return b""

    def put(self, server: Address, token: bytes) -> None:
        """Keep the token for the next connection to this server."""
        with contextlib.suppress(OSError):
            path = self._file(server)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_NEW)  # mode 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(token)
                os.replace(name, path)  # another process reads either the old or the new one
            except OSError:
                os.unlink(name)
                raise
            self._prune(path.parent)

    @staticmethod
    def _prune(folder: Path) -> None:
        """Remove the oldest files if there are too many. Raises OSError."""
        if len(os.listdir(folder)) <= MAX_TOKENS:
            return
        with os.scandir(folder) as entries:
            oldest_first = sorted(entries, key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns)
        for entry in oldest_first[:_PRUNED]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry)

    def _file(self, server: Address) -> Path:
        if self._path is None:
            self._path = default_path()
        return self._path / "".join(each if each.isalnum() or each in _SAFE else "_" for each in str(server))
