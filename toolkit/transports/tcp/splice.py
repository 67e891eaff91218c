"""From a socket into a file through a pipe, without a copy in between that this process would see (splice(2)).

The kernel hands the socket's pages to the pipe and copies them once, into the file's pages. Linux only; `is_available`
tells whether to try at all, and a file system that cannot take spliced pages shows itself by an OSError.
"""

import fcntl
import os
from contextlib import suppress
from typing import Final

PIPE_BYTES: Final = 1 << 20
"""What an unprivileged process may ask for (/proc/sys/fs/pipe-max-size)."""

is_available: Final = hasattr(os, "splice") and hasattr(fcntl, "F_SETPIPE_SZ")


class SplicePipe:
    """A pipe that is filled out of a socket, and then emptied before it is filled again."""

    def __init__(self) -> None:
        """Raises OSError when the process has no descriptors left."""
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with suppress(OSError):  # beyond the user's limit for all pipes the size stays what it is
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def fill(self, source: int, most_bytes: int) -> int:
        """Take what a non-blocking socket has; 0 at its end. Raises BlockingIOError, OSError of the socket."""
        return os.splice(source, self._in, most_bytes, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)

    def empty_into(self, target: int, offset: int, length: int) -> int:
        """Put up to `length` bytes into a file at `offset`; returns how many. Raises OSError of the file."""
        return os.splice(self._out, target, length, offset_dst=offset, flags=os.SPLICE_F_MOVE)

    def read(self, length: int) -> bytes:
        """Take out what a file has refused."""
        return os.read(self._out, length)

    def close(self) -> None:
        """Frees both descriptors."""
        os.close(self._out)
        os.close(self._in)
