"""How a connection is closed so that the peer gets everything that was sent on it."""

import contextlib
import select
import socket
import sys
import time
from math import ceil
from typing import Final

from toolkit.transports.tcp.frame_reader import BLOCK_BYTES
from toolkit.transports.tcp.tcp_info import tcp_info, unacknowledged_bytes

_MIN_QUIET_S: Final = 0.02
"""`linger` considers the peer quiet after this time, or two round trips if they are longer."""


def linger(sock: socket.socket, linger_s: float, end_s: float) -> None:
    """After its sending half was shut down, wait until the peer's kernel has everything, and discard what arrives.

    Closing a socket with unread bytes, or with bytes still arriving, resets the connection, and the peer loses what it
    has not read yet. Returns when the peer has closed too, when everything is acknowledged and the peer is quiet, or
    `linger_s` after the peer last acknowledged something, at `end_s` on the monotonic clock at the latest.
    """
    discarded = bytearray(BLOCK_BYTES)
    quiet_s = max(_MIN_QUIET_S, 2e-6 * tcp_info(sock).get("rtt", 0))
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    fewest_bytes = sys.maxsize
    deadline_s = min(time.monotonic() + linger_s, end_s)
    with contextlib.suppress(OSError):
        while (now_s := time.monotonic()) < deadline_s:
            if poll.poll(ceil(min(quiet_s, deadline_s - now_s) * 1e3)):
                try:
                    if not sock.recv_into(discarded):
                        return
                except BlockingIOError:
                    continue
            else:
                count = unacknowledged_bytes(sock)
                if not count:
                    return
                if count < fewest_bytes:
                    fewest_bytes, deadline_s = count, min(now_s + linger_s, end_s)
