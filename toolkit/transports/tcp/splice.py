"""Moves content from a socket into a file through a pipe, without copying it through this process (splice(2)).

The kernel links the socket's pages into the pipe and copies them once, into the file's pages. Linux only;
`is_available` says whether to try, and a file system that cannot take spliced pages answers with an OSError.
"""

import fcntl
import os
from contextlib import suppress
from typing import Final

PIPE_BYTES: Final = 1 << 20
"""The largest pipe that an unprivileged process gets by default (/proc/sys/fs/pipe-max-size)."""

is_available: Final = hasattr(os, "splice") and hasattr(fcntl, "F_SETPIPE_SZ")


class SplicePipe:
    """A pipe that is filled from a socket, and emptied before it is filled again."""

    def __init__(self) -> None:
        """Raises OSError if the process has no descriptors left."""
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._open = [self._out, self._in]
        with suppress(OSError):  # above the user's limit for all pipes, the default size stays
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def fill(self, source: int, max_bytes: int) -> int:
        """Take up to `max_bytes` from a non-blocking socket; returns how many, 0 at its end.

        Raises BlockingIOError if the socket has nothing, OSError if it has failed.
        """
        return os.splice(source, self._in, max_bytes, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)

    def empty_into(self, target: int, offset: int, length: int) -> int:
        """Move up to `length` bytes into a file at `offset`; returns how many. Raises OSError of the file."""
        return os.splice(self._out, target, length, offset_dst=offset, flags=os.SPLICE_F_MOVE)

    def read(self, length: int) -> bytes:
        """Read up to `length` bytes that the file has not taken."""
        return os.read(self._out, length)

    def close(self) -> None:
        """Close both descriptors, each once. May be called again, for example after an interrupt."""
        while self._open:
            os.close(self._open.pop())
