"""Options of a UDP socket: what it reports with each datagram, and the size of its receive buffer.

Python's socket module does not name these options. A system that lacks one goes without it.

Read: udp(7), ip(7), ipv6(7), socket(7), linux/in.h, linux/in6.h.
"""

import socket
from typing import Final

from toolkit.kernel_timestamps import SO_TIMESTAMPNS

SO_RXQ_OVFL: Final = 40
_SO_RCVBUFFORCE: Final = 33
_IP_PKTINFO: Final = 8
_IP_RECVTOS: Final = 13
_IPV6_RECVPKTINFO: Final = 49
_IPV6_RECVTCLASS: Final = 66

_WANTED_BUFFER_BYTES: Final = 16 << 20
"""Size of the receive buffer. At 10 Gbit/s it holds what arrives in 13 ms, which is several time slices of a scheduler.
The receive window begins at a quarter of it."""


def try_option(sock: socket.socket, level: int, option: int, value: int) -> bool:
    """Set an option; return whether the system has it."""
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def report_ecn(sock: socket.socket) -> None:
    """Make the socket report the IP ECN field of what arrives from now on, and of what waits in it."""
    try_option(sock, socket.IPPROTO_IP, _IP_RECVTOS, 1)
    try_option(sock, socket.IPPROTO_IPV6, _IPV6_RECVTCLASS, 1)


def report_local_address(sock: socket.socket) -> None:
    """Make the socket report the local address that a datagram was sent to, and neither drops nor times of arrival.

    The control messages of most datagrams are then equal, and are parsed once (`mmsg`).
    """
    for option in (SO_RXQ_OVFL, SO_TIMESTAMPNS):
        try_option(sock, socket.SOL_SOCKET, option, 0)
    try_option(sock, socket.IPPROTO_IP, _IP_PKTINFO, 1)
    try_option(sock, socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)


def grow_receive_buffer(sock: socket.socket) -> None:
    """Enlarge it to 16 MiB, or as far as the system permits; never shrink a larger default.

    SO_RCVBUFFORCE exceeds the system's maximum (net.core.rmem_max), but needs CAP_NET_ADMIN.
    """
    # The kernel doubles the value that is set, for its overhead, and returns the double.
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 * _WANTED_BUFFER_BYTES:
        return
    if not try_option(sock, socket.SOL_SOCKET, _SO_RCVBUFFORCE, _WANTED_BUFFER_BYTES):
        try_option(sock, socket.SOL_SOCKET, socket.SO_RCVBUF, _WANTED_BUFFER_BYTES)
