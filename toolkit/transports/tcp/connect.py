"""Happy Eyeballs (RFC 8305): try the addresses of a name staggered, keep the connection that is there first.

The next attempt begins 250 ms after the last one (section 5), or at once when none is left running. Addresses come in
the order of section 4, from `toolkit.transports.addresses`.
"""

import errno
import select
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import ceil
from typing import Final

from toolkit.transports.addresses import SocketAddress

CONNECTION_ATTEMPT_DELAY_S: Final = 0.25
_UNDER_WAY: Final = frozenset((0, errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK))

Configure = Callable[[socket.socket], None]


def dial(candidates: Sequence[SocketAddress], configure: Configure, deadline_s: float) -> socket.socket:
    """The first connection to come about, non-blocking; every other attempt is closed.

    configure(sock) is called for each socket before it connects. deadline_s is of the monotonic clock. Raises
    TimeoutError when it passes, and otherwise the OSError of the attempt that tells most: a refusal before the rest.
    """
    waiting = deque(candidates)
    running: list[socket.socket] = []
    failures: list[OSError] = []
    next_start_s = time.monotonic()
    winner: socket.socket | None = None
    with selectors.DefaultSelector() as selector:
        try:
            while winner is None and (waiting or running) and (now_s := time.monotonic()) < deadline_s:
                if waiting and (now_s >= next_start_s or not running):
                    next_start_s = now_s + CONNECTION_ATTEMPT_DELAY_S
                    try:
                        sock = begin(waiting.popleft(), configure)
                    except OSError as error:
                        failures.append(error)
                        continue
                    running.append(sock)
                    selector.register(sock, selectors.EVENT_WRITE, sock)
                until_s = min(deadline_s, next_start_s) if waiting else deadline_s
                for key, _ in selector.select(max(0.0, until_s - now_s)):
                    sock = key.data
                    try:
                        check(sock)
                        winner = winner or sock
                    except OSError as error:
                        failures.append(error)
                        selector.unregister(sock)
                        running.remove(sock)
                        sock.close()
        finally:
            for sock in running:
                if sock is not winner:
                    sock.close()
    if winner is not None:
        return winner
    refusal = next((failure for failure in failures if failure.errno == errno.ECONNREFUSED), None)
    raise refusal or (TimeoutError("nobody answered in time") if running or not failures else failures[-1])


def begin(candidate: SocketAddress, configure: Configure) -> socket.socket:
    """A non-blocking socket that has begun to connect. Raises OSError."""
    family, to = candidate
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        configure(sock)
        code = sock.connect_ex(to)
        if code not in _UNDER_WAY:
            raise OSError(code, "connect failed")
    except BaseException:
        sock.close()
        raise
    return sock


def finish(sock: socket.socket, deadline_s: float) -> None:
    """Wait until a socket from `begin` is connected. Raises TimeoutError, OSError."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(ceil(max(0.0, deadline_s - time.monotonic()) * 1e3)):
        raise TimeoutError("nobody answered in time")
    check(sock)


def check(sock: socket.socket) -> None:
    """Raises OSError when a socket that is writable has not become a connection."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not code and sock.getsockname() == sock.getpeername():
        # A port from the ephemeral range, where nothing listens, can be connected with itself (RFC 9293 section 3.5).
        code = errno.ECONNREFUSED
    if code:
        raise OSError(code, "connect failed")
