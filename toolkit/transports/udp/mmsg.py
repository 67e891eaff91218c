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

MAX_DATAGRAMS: Final = 64
"""Maximum number of datagrams of one call. Sessions of this process wait for the interpreter lock while they are
handled, about a millisecond."""
_DATAGRAM_BYTES: Final = 2048  # no datagram of this protocol is longer; of a longer one, the rest is cut off
_NAME_BYTES: Final = 28  # struct sockaddr_in6
_IPV4_NAME_BYTES: Final = 16
_CONTROL_BYTES: Final = 128
_IP_PKTINFO: Final = 8
_IPV6_PKTINFO: Final = 50
_IPV6_TCLASS: Final = 67
_CMSG: Final = struct.Struct("@Nii")  # struct cmsghdr: length, level, type
_ALIGNMENT: Final = struct.calcsize("N")
_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"

MMSGHDR: Final = np.dtype(
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
IOVEC: Final = np.dtype([("base", np.uintp), ("size", np.uintp)])
recvmmsg = getattr(ctypes.PyDLL(None, use_errno=True), "recvmmsg", None)  # keeps the interpreter lock
sendmmsg = getattr(ctypes.CDLL(None, use_errno=True), "sendmmsg", None)
# Not Final: `toolkit.tracing` replaces the two, to report their calls.


class Arrival(NamedTuple):
    """A datagram, which is valid until the next call. Most of a flood is answered without more than `host` and `port`.

    name:    where it came from, as a struct sockaddr_in or sockaddr_in6
    control: its control messages
    """

    data: memoryview
    name: bytes
    control: bytes

    @property
    def host(self) -> bytes:
        """The packed IP address that it came from, 4 or 16 bytes."""
        name = self.name
        if len(name) == _IPV4_NAME_BYTES:
            return name[4:8]
        return name[20:24] if name.startswith(_IPV4_MAPPED, 8) else name[8:24]

    @property
    def port(self) -> int:
        """The UDP port that it came from."""
        return int.from_bytes(self.name[2:4], "big")

    @property
    def peer(self) -> PeerAddress:
        """Where it came from, as the address for `socket`."""
        if len(self.name) == _IPV4_NAME_BYTES:
            return socket.inet_ntop(socket.AF_INET, self.name[4:8]), self.port
        scope = int.from_bytes(self.name[24:28], sys.byteorder)
        return socket.inet_ntop(socket.AF_INET6, self.name[8:24]), self.port, 0, scope  # type: ignore[return-value]

    @property
    def local_host(self) -> str | None:
        """The address of this machine that it was sent to; None if the system does not report it."""
        return _parse_control(self.control)[0]

    @property
    def ecn(self) -> int:
        """The IP ECN field."""
        return _parse_control(self.control)[1]


class _Rows:
    """Memory of `size_bytes` for each message, to which `structures` point.

    views: a view of each row
    """

    def __init__(self, structures: NDArray[np.void], pointer: str, size_bytes: int) -> None:
        self._memory = np.zeros((MAX_DATAGRAMS, size_bytes), np.uint8)
        self.views = [row.data for row in self._memory]
        structures[pointer] = self._memory.ctypes.data + np.arange(MAX_DATAGRAMS) * size_bytes

    def fill(self, contents: Sequence[bytes]) -> list[int]:
        """Copy each of the contents to the start of its row; return their sizes."""
        sizes = list(map(len, contents))
        if len(sizes) > 1 and len(set(sizes)) == 1:  # as the answers to a flood
            joined = np.frombuffer(b"".join(contents), np.uint8)
            self._memory[: len(contents), : sizes[0]] = joined.reshape(len(contents), sizes[0])
        else:
            for view, content, size in zip(self.views, contents, sizes, strict=False):
                view[:size] = content
        return sizes


class _Messages:
    """Memory for MAX_DATAGRAMS messages, and the structures that point to it, with their columns.

    address: of the first structure
    """

    def __init__(self) -> None:
        vectors = np.zeros(MAX_DATAGRAMS, IOVEC)
        headers = np.zeros(MAX_DATAGRAMS, MMSGHDR)
        headers["vectors"] = 1
        headers["vector"] = vectors.ctypes.data + np.arange(MAX_DATAGRAMS) * IOVEC.itemsize
        self.data = _Rows(vectors, "base", _DATAGRAM_BYTES)
        self.names = _Rows(headers, "name", _NAME_BYTES)
        self.controls = _Rows(headers, "control", _CONTROL_BYTES)
        self.address = headers.ctypes.data
        # Room for data, name and control message. The system returns how much of the last two it used, and the size of
        # each message in `sizes`.
        self.room_bytes, self.name_bytes, self.control_bytes, self.sizes = (
            vectors["size"], headers["name_bytes"], headers["control_bytes"], headers["size"]
        )  # fmt: skip


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
    return SingleExchange() if recvmmsg is None or sendmmsg is None else BatchExchange()


class SingleExchange:
    """One system call for each datagram; answers leave from the address that the system prefers."""

    def receive(self, sock: socket.socket) -> list[Arrival]:
        arrivals: list[Arrival] = []
        with contextlib.suppress(OSError):  # nothing is there, or the error of a datagram that was sent
            while len(arrivals) < MAX_DATAGRAMS:
                data, peer = sock.recvfrom(_DATAGRAM_BYTES, socket.MSG_DONTWAIT)
                arrivals.append(Arrival(memoryview(data), _name_of(sock.family, peer), b""))
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
        self._in.room_bytes[:] = _DATAGRAM_BYTES

    def receive(self, sock: socket.socket) -> list[Arrival]:
        assert recvmmsg is not None
        messages = self._in
        messages.name_bytes[:] = _NAME_BYTES
        messages.control_bytes[:] = _CONTROL_BYTES
        address = ctypes.c_void_p(messages.address)
        count = recvmmsg(sock.fileno(), address, MAX_DATAGRAMS, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return []  # nothing is there, or the error of a datagram that was sent
        return [
            Arrival(data[:size], bytes(name[:name_bytes]), bytes(control[:control_bytes]))
            for data, name, control, size, name_bytes, control_bytes in zip(
                messages.data.views,
                messages.names.views,
                messages.controls.views,
                messages.sizes[:count].tolist(),
                messages.name_bytes[:count].tolist(),
                messages.control_bytes[:count].tolist(),
                strict=False,
            )
        ]

    def send(self, sock: socket.socket, answers: Sequence[tuple[bytes, Arrival]]) -> None:
        for start in range(0, len(answers), MAX_DATAGRAMS):
            self._send_some(sock, answers[start : start + MAX_DATAGRAMS])

    def _send_some(self, sock: socket.socket, answers: Sequence[tuple[bytes, Arrival]]) -> None:
        assert sendmmsg is not None
        messages, count = self._out, len(answers)
        controls = [_answer_control(arrival.control, arrival.name[24:28]) for _, arrival in answers]
        messages.room_bytes[:count] = messages.data.fill([datagram for datagram, _ in answers])
        messages.name_bytes[:count] = messages.names.fill([arrival.name for _, arrival in answers])
        messages.control_bytes[:count] = messages.controls.fill(controls)
        first = 0
        while first < count:
            address = ctypes.c_void_p(messages.address + first * MMSGHDR.itemsize)
            sent = sendmmsg(sock.fileno(), address, count - first, socket.MSG_DONTWAIT)
            first += sent if sent > 0 else 1


def _name_of(family: int, peer: PeerAddress) -> bytes:
    """Return an address for `socket` as a struct sockaddr_in or sockaddr_in6."""
    packed = socket.inet_pton(family, peer[0].partition("%")[0])
    start = family.to_bytes(2, sys.byteorder) + peer[1].to_bytes(2, "big")
    if family == socket.AF_INET:
        return start + packed + bytes(8)
    return start + bytes(4) + packed + peer[3].to_bytes(4, sys.byteorder)  # type: ignore[misc, no-any-return]


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
def _answer_control(control: bytes, scope: bytes) -> bytes:
    """Return the control message that answers from the address that an arrival was sent to; b"" if it is not known.

    scope: the interface of a link-local address, as in a struct sockaddr_in6
    """
    local_host = _parse_control(control)[0]
    if local_host is None:
        return b""
    if ":" in local_host:
        level, kind = socket.IPPROTO_IPV6, _IPV6_PKTINFO
        value = socket.inet_pton(socket.AF_INET6, local_host) + scope  # struct in6_pktinfo
    else:
        level, kind = socket.IPPROTO_IP, _IP_PKTINFO
        value = bytes(4) + socket.inet_pton(socket.AF_INET, local_host) + bytes(4)  # struct in_pktinfo, ipi_spec_dst
    message = _CMSG.pack(_CMSG.size + len(value), level, kind) + value
    return message.ljust(-(-len(message) // _ALIGNMENT) * _ALIGNMENT, b"\0")
