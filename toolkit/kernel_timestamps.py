"""When something has arrived at a socket, by the kernel's clock and not when this process wakes: SO_TIMESTAMPNS.

Read: socket(7), linux/net_tstamp.h, and tcp_recv_timestamp of Linux for TCP.
"""

import socket
import struct
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

Ancillary = list[tuple[int, int, bytes]]
"""What `recvmsg` returns beside the data: level, type and value of each control message."""
SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h
_TIMESPEC: Final = struct.Struct("@ll")
_LONGEST_WAIT_NS: Final = 1_000_000_000
TIMESTAMP_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)
"""The room for ancillary data that `recvmsg` needs for a time stamp."""


def enable_timestamps(sock: socket.socket) -> None:
    """Let the kernel stamp what arrives at a socket; it begins a moment after this call. Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def arrival_time_ns(ancillary: Iterable[tuple[int, int, bytes]]) -> int | None:
    """Return the time stamp in ancillary data, by the clock of `time.time_ns`; None if there is none."""
    for level, kind, value in ancillary:
        if (level, kind, len(value)) == (socket.SOL_SOCKET, SO_TIMESTAMPNS, _TIMESPEC.size):
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return None


def waited_ns(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """Return how long what has just been received had waited in its socket; 0 if the kernel does not say.

    A stamp from the future, or from long ago, means that somebody has set the clock: that is 0, too.
    """
    now_ns = time.time_ns()
    stamp_ns = arrival_time_ns(ancillary)
    wait_ns = 0 if stamp_ns is None else now_ns - stamp_ns
    return wait_ns if 0 <= wait_ns < _LONGEST_WAIT_NS else 0


class ArrivalStamps:
    """The stamps of a socket that is read in rounds. Other systems than Linux stamp nothing.

    last: the stamp of what was read last; empty without one
    """

    def __init__(self, sock: socket.socket) -> None:
        self.last: Ancillary = []
        self._count = 0  # of the control messages that are a stamp; it is the first one
        self._drained_ns = time.monotonic_ns()
        if sys.platform == "linux":
            with suppress(OSError):
                enable_timestamps(sock)
                self._count = 1

    def strip(self, ancillary: Ancillary) -> Ancillary:
        """Keep the stamp of what has just been read, and return the other control messages."""
        if self._count and (not ancillary or ancillary[0][1] != SO_TIMESTAMPNS):
            self._count = 0  # this system takes the option, and stamps nothing
        self.last = ancillary[: self._count]
        return ancillary[self._count :]

    def waited_ns(self, stamp: Ancillary) -> int:
        """Return how long what has this stamp had waited: not since before the socket was last empty."""
        return min(waited_ns(stamp), time.monotonic_ns() - self._drained_ns) if stamp else 0

    def on_drained(self, since_ns: int) -> None:
        """The socket was empty at a time after `since_ns`."""
        self._drained_ns = since_ns
