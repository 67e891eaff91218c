"""The tokens that servers have given to this user's clients for their next connections: they save a round trip.

One file of the user's cache directory holds them. A token is used once. It says which two addresses have talked, which
the file system knows as well, and it opens nothing: the key exchange follows. Whatever goes wrong here costs one round
trip, so no error is reported.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import platformdirs  # here, because loading it takes longer than the handshake with a host nearby

from toolkit.channel import Address
from toolkit.rudp.handshake_packets import MAX_TOKEN_BYTES

MAX_TOKENS: Final = 256
LIFETIME_S: Final = 24 * 3600
_MAX_FILE_BYTES: Final = 1 << 20


def default_path() -> Path:
    """Return the file in the user's cache directory."""
    return Path(platformdirs.user_cache_dir("nettool")) / "tokens.json"


class TokenCache:
    """The tokens in `path`, which need not exist."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def take(self, server: Address) -> bytes:
        """Return the token for this server, and forget it; b"" if there is none."""
        tokens = self._read()
        token, _ = tokens.pop(str(server), ("", 0.0))
        if not token:
            return b""
        self._write(tokens)
        return bytes.fromhex(token)

    def put(self, server: Address, token: bytes) -> None:
        """Keep the token for the next connection to this server."""
        tokens = {name: entry for name, entry in self._read().items() if name != str(server)}
        tokens[str(server)] = (token.hex(), time.time())
        self._write(dict(list(tokens.items())[-MAX_TOKENS:]))

    def _read(self) -> dict[str, tuple[str, float]]:
        """Return the tokens that may still be valid, oldest first, with the times at which they were kept."""
        tokens: dict[str, tuple[str, float]] = {}
        now_s = time.time()
        try:
            with self._file().open("rb") as file:
                content = json.loads(file.read(_MAX_FILE_BYTES))
            for name, (token, time_s) in content.items():
                size_bytes = len(bytes.fromhex(token))
                if size_bytes <= MAX_TOKEN_BYTES and 0 <= now_s - time_s < LIFETIME_S:
                    tokens[name] = (token, time_s)
        except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
            return {}
        return tokens

    def _write(self, tokens: Mapping[str, tuple[str, float]]) -> None:
        """Replace the file at once, so that another process reads either the old or the new one."""
        with contextlib.suppress(OSError):
            path = self._file()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".tokens-")  # mode 0600
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump(tokens, file)
                os.replace(name, path)
            except OSError:
                os.unlink(name)
                raise

    def _file(self) -> Path:
        if self._path is None:
            self._path = default_path()
        return self._path
