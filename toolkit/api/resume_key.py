"""The secret by which receivers find the unfinished files of this user's transfers."""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from toolkit.transfer.chunks import RESUME_KEY_BYTES

_SECRET_BYTES: Final = 32


def resume_key(receiver: str) -> bytes:
    """Return the resume key for a receiver, named as the user names it.

    Each receiver gets another one, so that none can ask another what this sender has left there. Without a cache
    directory, the key lasts as long as the process.
    """
    return hashlib.blake2b(receiver.encode(), key=_secret(), digest_size=RESUME_KEY_BYTES).digest()


def _secret() -> bytes:
    import platformdirs  # takes a while to load

    path = Path(platformdirs.user_cache_dir("nettool")) / "resume.key"
    with suppress(OSError):
        known = path.read_bytes()
        if len(known) == _SECRET_BYTES:
            return known
        path.unlink()
    import tempfile  # takes a while to load, and only the first transfer of a user needs it

    secret = secrets.token_bytes(_SECRET_BYTES)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret)
            with suppress(FileExistsError):  # another process was first
                os.link(name, path)
        finally:
            os.unlink(name)
        return path.read_bytes()
    return secret
