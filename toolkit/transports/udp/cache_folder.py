"""A folder of the user's cache directory with one file for each peer.

Neither reading nor keeping an entry depends on how many there are: on a LAN, reading all of them took longer than the
rest of the handshake. An entry saves time, and nothing else. It may be lost, and no error is reported. Entries expire
after a day, and their number is bounded.
"""

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Final

import platformdirs  # here, because loading it takes longer than the handshake with a host nearby

MAX_ENTRIES: Final = 256
LIFETIME_S: Final = 24 * 3600
_PRUNED: Final = 32
"""How many of the oldest are removed at once, beyond MAX_ENTRIES."""
_SAFE: Final = frozenset(".:%-[]")
_NEW: Final = ".new-"


class CacheFolder:
    """Entries by the name of a peer.

    name: the folder's name in the cache directory
    path: another folder, which need not exist
    """

    def __init__(self, name: str, path: Path | None = None) -> None:
        self._name = name
        self._path = path

    @property
    def path(self) -> Path:
        """The folder."""
        if self._path is None:
            self._path = Path(platformdirs.user_cache_dir("nettool")) / self._name
        return self._path

    def read(self, peer: str, max_bytes: int) -> bytes:
        """Return the entry of this peer; b"" if there is none, or if it has expired or is longer than `max_bytes`."""
        with contextlib.suppress(OSError), self._file(peer).open("rb") as file:
            entry = file.read(max_bytes + 1)
            age_s = time.time() - os.fstat(file.fileno()).st_mtime
            if len(entry) <= max_bytes and abs(age_s) < LIFETIME_S:  # the clock may have been wrong
                return entry
        return b""

    def put(self, peer: str, entry: bytes) -> None:
        """Add or replace the entry of this peer."""
        with contextlib.suppress(OSError):
            folder = self.path
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=_NEW)  # mode 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(entry)
                os.replace(name, self._file(peer))  # another process reads either the old or the new one
            except OSError:
                os.unlink(name)
                raise
            _prune(folder)

    def drop(self, peer: str) -> bool:
        """Remove the entry of this peer; whether this has removed one."""
        with contextlib.suppress(OSError):
            self._file(peer).unlink()
            return True
        return False

    def _file(self, peer: str) -> Path:
        return self.path / "".join(each if each.isalnum() or each in _SAFE else "_" for each in peer)


def _prune(folder: Path) -> None:
    """Remove the oldest files if there are too many. Raises OSError."""
    if len(os.listdir(folder)) <= MAX_ENTRIES:
        return
    with os.scandir(folder) as entries:
        oldest_first = sorted(entries, key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns)
    for entry in oldest_first[:_PRUNED]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry)
