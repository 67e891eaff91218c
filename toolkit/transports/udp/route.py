"""Looks for another route to a peer, for example after a change from cable to Wi-Fi.

Read: udp(7) and ip(7) for the local address of a connected socket; socket(7) and net/core/sock.c for SO_NETNS_COOKIE.
"""

import socket
from typing import Final

_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h


def socket_on_new_route(old: socket.socket) -> socket.socket | None:
    """Return a new socket, connected to the peer of `old`, if the system's route starts at another local address.

    A connected socket keeps its first local address, even if no interface has it any longer. Returns None if the
    address is the same, or there is no route, and to a thread that has left the network namespace of `old`: that sees
    the routes of another host.
    """
    try:
        new = socket.socket(old.family, socket.SOCK_DGRAM)
    except OSError:
        return None  # no descriptors left
    try:
        new.connect(old.getpeername())
        has_changed = new.getsockname()[0] != old.getsockname()[0]
    except OSError:
        has_changed = False  # no route at all for now
    if has_changed and _network_namespace(new) == _network_namespace(old):
        return new
    new.close()
    return None


def _network_namespace(sock: socket.socket) -> bytes | None:
    """What tells the namespace of a socket from others; None on Linux before 5.14, and on other systems."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError:
        return None
