"""When something has arrived at a socket, by the kernel's clock and not when this process wakes: SO_TIMESTAMPNS.

Read: socket(7), linux/net_tstamp.h, and tcp_recv_timestamp of Linux for TCP.
"""

import socket
import struct
from collections.abc import Iterable
from typing import Final

_SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h
_TIMESPEC: Final = struct.Struct("@ll")
TIMESTAMP_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)
"""The room for ancillary data that `recvmsg` needs for a time stamp."""


def enable_timestamps(sock: socket.socket) -> None:
    """Let the kernel stamp what arrives at a socket; it begins a moment after this call. Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def arrival_time_ns(ancillary: Iterable[tuple[int, int, bytes]]) -> int | None:
    """Return the time stamp in ancillary data, by the clock of `time.time_ns`; None if there is none."""
    for level, kind, value in ancillary:
        if (level, kind, len(value)) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS, _TIMESPEC.size):
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return None
