"""Many datagrams in one system call, on a socket that is not connected: recvmmsg(2) and sendmmsg(2).

Python has neither. A listener needs them when strangers send faster than it can answer: each system call of Python's
`socket` gives up the interpreter lock and then waits for it, up to 5 ms while a session computes. Here, reception keeps
the lock (it never blocks), and sending gives it up once for all answers. Other systems lack these calls, and need one
for each datagram (`SingleExchange`).

Read: recvmmsg(2), cmsg(3), ip(7) for IP_PKTINFO, ipv6(7).
"""

import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.rudp.batch import PeerAddress

MAX_DATAGRAMS: Final = 256
"""Maximum number of datagrams of one call."""
_DATAGRAM_BYTES: Final = 2048  # no datagram of this protocol is longer; of a longer one, the rest is cut off
_NAME_BYTES: Final = 28  # struct sockaddr_in6
_CONTROL_BYTES: Final = 128
_IP_PKTINFO: Final = 8
_IPV6_PKTINFO: Final = 50
_IPV6_TCLASS: Final = 67
_CMSG: Final = struct.Struct("@Nii")  # struct cmsghdr: length, level, type
_ALIGNMENT: Final = struct.calcsize("N")
_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"

_HEADER: Final = np.dtype(
    [
        ("name", np.uintp),
        ("name_bytes", np.uintc),
        ("vector", np.uintp),
        ("vectors", np.uintp),
        ("control", np.uintp),
        ("control_bytes", np.uintp),
        ("flags", np.uintp),  # an int, and what fills struct msghdr up
        ("size", np.uintc),
    ],
    align=True,
)
"""struct mmsghdr; NumPy aligns the fields as C does."""
_VECTOR: Final = np.dtype([("base", np.uintp), ("size", np.uintp)])
_receive = getattr(ctypes.PyDLL(None, use_errno=True), "recvmmsg", None)  # keeps the interpreter lock
_send = getattr(ctypes.CDLL(None, use_errno=True), "sendmmsg", None)


class Arrival(NamedTuple):
    """A datagram. `data` is valid until the next call.

    peer, host: where it came from, as the address for `socket`, and the packed IP address alone (4 or 16 bytes)
    local_host: the address of this machine that it was sent to; None if the system does not report it
    ecn:        the IP ECN field
    name:       `peer` as the system call returned it
    """

    data: memoryview
    peer: PeerAddress
    host: bytes
    local_host: str | None
    ecn: int
    name: bytes


class _Messages:
    """Memory for MAX_DATAGRAMS messages, and the structures that point to it.

    data, names, controls: a view of the memory of each message
    """

    def __init__(self) -> None:
        self.vectors = np.zeros(MAX_DATAGRAMS, _VECTOR)
        self.headers = np.zeros(MAX_DATAGRAMS, _HEADER)
        self.headers["vectors"] = 1
        self.headers["vector"] = self.vectors.ctypes.data + np.arange(MAX_DATAGRAMS) * _VECTOR.itemsize
        self._memory: list[NDArray[np.uint8]] = []
        self.data = self._add(self.vectors, "base", _DATAGRAM_BYTES)
        self.names = self._add(self.headers, "name", _NAME_BYTES)
        self.controls = self._add(self.headers, "control", _CONTROL_BYTES)
        self.address = ctypes.c_void_p(self.headers.ctypes.data)

    def _add(self, structures: NDArray[np.void], pointer: str, size: int) -> list[memoryview]:
        memory = np.zeros(MAX_DATAGRAMS * size, np.uint8)
        self._memory.append(memory)
        structures[pointer] = memory.ctypes.data + np.arange(MAX_DATAGRAMS) * size
        return [memory.data[i : i + size] for i in range(0, len(memory), size)]


class DatagramExchange(Protocol):
    """Receives datagrams and sends the answers. Owns no socket."""

    def receive(self, sock: socket.socket) -> list[Arrival]:
        """Return what has arrived, at most MAX_DATAGRAMS; [] for nothing. Never blocks."""

    def send(self, sock: socket.socket, answers: Sequence[tuple[bytes, Arrival]]) -> None:
        """Send each datagram to where its arrival came from, from the address that the arrival was sent to.

        What cannot be sent now counts as lost.
        """


def make_exchange() -> DatagramExchange:
    """Return the fastest exchange that the system has."""
    return SingleExchange() if _receive is None or _send is None else BatchExchange()


class SingleExchange:
    """One system call for each datagram; answers leave from the address that the system prefers."""

    def receive(self, sock: socket.socket) -> list[Arrival]:
        arrivals: list[Arrival] = []
        with contextlib.suppress(OSError):  # nothing is there, or the error of a datagram that was sent
            while len(arrivals) < MAX_DATAGRAMS:
                data, peer = sock.recvfrom(_DATAGRAM_BYTES, socket.MSG_DONTWAIT)
                packed = socket.inet_pton(sock.family, peer[0].partition("%")[0])
                arrivals.append(Arrival(memoryview(data), peer, packed.removeprefix(_IPV4_MAPPED), None, 0, b""))
        return arrivals

    def send(self, sock: socket.socket, answers: Sequence[tuple[bytes, Arrival]]) -> None:
        for datagram, arrival in answers:
            with contextlib.suppress(OSError):
                sock.sendto(datagram, socket.MSG_DONTWAIT, arrival.peer)


class BatchExchange:
    """One system call for many datagrams (Linux). Owns memory for them."""

    def __init__(self) -> None:
        self._in = _Messages()
        self._out = _Messages()

    def receive(self, sock: socket.socket) -> list[Arrival]:
        assert _receive is not None
        messages, headers = self._in, self._in.headers
        messages.vectors["size"] = _DATAGRAM_BYTES
        headers["name_bytes"] = _NAME_BYTES
        headers["control_bytes"] = _CONTROL_BYTES
        count = _receive(sock.fileno(), messages.address, MAX_DATAGRAMS, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return []  # nothing is there, or the error of a datagram that was sent
        arrivals = []
        sizes = headers[:count].tolist()
        for row, (_, name_bytes, _, _, _, control_bytes, _, size) in enumerate(sizes):
            name = bytes(messages.names[row][:name_bytes])
            peer, host = _parse_name(name)
            local_host, ecn = _parse_control(bytes(messages.controls[row][:control_bytes]))
            arrivals.append(Arrival(messages.data[row][:size], peer, host, local_host, ecn, name))
        return arrivals

    def send(self, sock: socket.socket, answers: Sequence[tuple[bytes, Arrival]]) -> None:
        for start in range(0, len(answers), MAX_DATAGRAMS):
            self._send_some(sock, answers[start : start + MAX_DATAGRAMS])

    def _send_some(self, sock: socket.socket, answers: Sequence[tuple[bytes, Arrival]]) -> None:
        assert _send is not None
        messages, headers = self._out, self._out.headers
        name_sizes, control_sizes = [], []
        for row, (datagram, arrival) in enumerate(answers):
            control = _control_of(arrival.local_host, *arrival.peer[3:])
            messages.data[row][: len(datagram)] = datagram
            messages.names[row][: len(arrival.name)] = arrival.name
            messages.controls[row][: len(control)] = control
            name_sizes.append(len(arrival.name))
            control_sizes.append(len(control))
        count = len(answers)
        messages.vectors["size"][:count] = [len(datagram) for datagram, _ in answers]
        headers["name_bytes"][:count] = name_sizes
        headers["control_bytes"][:count] = control_sizes
        first = 0
        while first < count:
            address = ctypes.c_void_p(headers.ctypes.data + first * _HEADER.itemsize)
            sent = _send(sock.fileno(), address, count - first, socket.MSG_DONTWAIT)
            first += sent if sent > 0 else 1


def _parse_name(name: bytes) -> tuple[PeerAddress, bytes]:
    """Return a struct sockaddr_in or sockaddr_in6 as the address for `socket`, and its packed IP address."""
    port = int.from_bytes(name[2:4], "big")
    if int.from_bytes(name[:2], sys.byteorder) == socket.AF_INET:
        packed = name[4:8]
        return (socket.inet_ntop(socket.AF_INET, packed), port), packed
    packed, scope = name[8:24], int.from_bytes(name[24:28], sys.byteorder)
    host = packed[12:] if packed.startswith(_IPV4_MAPPED) else packed
    return (socket.inet_ntop(socket.AF_INET6, packed), port, 0, scope), host  # type: ignore[return-value]


@lru_cache(maxsize=256)
def _parse_control(control: bytes) -> tuple[str | None, int]:
    """Return the local address and the IP ECN field from control messages."""
    local_host, ecn = None, 0
    position = 0
    while position + _CMSG.size <= len(control):
        size, level, kind = _CMSG.unpack_from(control, position)
        value = control[position + _CMSG.size : position + size]
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            local_host = local_host or socket.inet_ntop(socket.AF_INET, value[8:12])  # struct in_pktinfo, ipi_addr
        elif (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            local_host = local_host or socket.inet_ntop(socket.AF_INET6, value[:16])  # struct in6_pktinfo, ipi6_addr
        elif (level, kind) in ((socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, _IPV6_TCLASS)):
            ecn = value[0] & 0b11
        position += max(-(-size // _ALIGNMENT) * _ALIGNMENT, _CMSG.size)
    return local_host, ecn


@lru_cache(maxsize=64)
def _control_of(local_host: str | None, *flow_and_scope: int) -> bytes:
    """Return the control message that sends from `local_host`; b"" for the address that the system prefers."""
    if local_host is None:
        return b""
    if ":" in local_host:
        level, kind = socket.IPPROTO_IPV6, _IPV6_PKTINFO
        interface = flow_and_scope[-1].to_bytes(4, sys.byteorder)  # without it, a link-local address means nothing
        value = socket.inet_pton(socket.AF_INET6, local_host) + interface  # struct in6_pktinfo
    else:
        level, kind = socket.IPPROTO_IP, _IP_PKTINFO
        value = bytes(4) + socket.inet_pton(socket.AF_INET, local_host) + bytes(4)  # struct in_pktinfo, ipi_spec_dst
    message = _CMSG.pack(_CMSG.size + len(value), level, kind) + value
    return message.ljust(-(-len(message) // _ALIGNMENT) * _ALIGNMENT, b"\0")
