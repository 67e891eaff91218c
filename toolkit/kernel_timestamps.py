"""When something has arrived at a socket, by the kernel's clock and not when this process wakes: SO_TIMESTAMPNS.

Read: socket(7), linux/net_tstamp.h, and tcp_recv_timestamp of Linux for TCP.
"""

import socket
import struct
import time
from collections.abc import Iterable
from typing import Final

SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h
_TIMESPEC: Final = struct.Struct("@ll")
_LONGEST_WAIT_NS: Final = 1_000_000_000
TIMESTAMP_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)
"""The room for ancillary data that `recvmsg` needs for a time stamp."""


def enable_timestamps(sock: socket.socket) -> None:
    """Let the kernel stamp what arrives at a socket; it begins a moment after this call. Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def waited_ns(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """Return how long what has just been received had waited in its socket; 0 if the kernel does not say.

    A stamp from the future, or from long ago, means that somebody has set the clock: that is 0, too.
    """
    now_ns = time.time_ns()
    stamp_ns = arrival_time_ns(ancillary)
    wait_ns = 0 if stamp_ns is None else now_ns - stamp_ns
    return wait_ns if 0 <= wait_ns < _LONGEST_WAIT_NS else 0


def arrival_time_ns(ancillary: Iterable[tuple[int, int, bytes]]) -> int | None:
    """Return the time stamp in ancillary data, by the clock of `time.time_ns`; None if there is none."""
    for level, kind, value in ancillary:
        if (level, kind, len(value)) == (socket.SOL_SOCKET, SO_TIMESTAMPNS, _TIMESPEC.size):
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return None
