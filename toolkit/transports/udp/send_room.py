"""How much of what a socket sends may wait in this host's queues: TCP small queues, for UDP.

A device that is slower than the sender queues its packets, and drops them once the queue is full. The send buffer of
the socket counts what waits there. It is set to two milliseconds of the pacing rate, so that the sender waits before
the queue is full. A queue that drops nevertheless is shorter than that, and the room shrinks to what it held. If it
held less than the super-packet that it dropped, super-packets shrink as well: it may have no room for one at all.
Rounds of the sender shrink, too: a short queue would be empty before a long round is prepared, and the end of a long
round would wait here for room, which looks like a longer path.

What has left the host, or has crossed a virtual device, is no longer counted.

Read: socket(7), udp_poll and sock_writeable of Linux; Dumazet, TCP Small Queues.
"""

import fcntl
import select
import socket
import struct
import termios
import time
from typing import Final

from toolkit.rudp.batch import MAX_SUPER_PACKET_BYTES
from toolkit.rudp.sender import MAX_ROUND_BYTES

_SO_SNDBUFFORCE: Final = 32
_UINT32: Final = struct.Struct("=I")
_NS_PER_S: Final = 1_000_000_000

_ROOM_NS: Final = 2_000_000
"""How much may wait, as a time at the pacing rate: longer than the sender takes to wake."""
_MIN_ROOM_BYTES: Final = 1 << 16
"""The same at low rates: a super-packet."""
_MAX_ROOM_BYTES: Final = 16 << 20
_ROOM_AFTER_DROP: Final = 0.75
"""Share of what waited when the queue dropped. One more super-packet has to fit besides, which may take two drops."""
_MIN_ROOM_AFTER_DROP_BYTES: Final = 1 << 12
_MIN_SUPER_PACKET_BYTES: Final = 1 << 11
_MIN_ROUND_SUPER_PACKETS: Final = 2
"""One leaves the host while the other is prepared."""
_UNLOOKED_SHARE: Final = 8
"""Once half of the buffer was free, an eighth is sent before the system is asked again: a dozen acknowledgements."""
_DATAGRAM_OVERHEAD_BYTES: Final = 1 << 10
"""The kernel's overhead for a datagram, about."""
_GROWTH_PER_S: Final = 1.125
"""Growth of the room after a drop: the queue may have been full of another program's packets."""


class SendRoom:
    """The room for one socket in this host's queues, in bytes with the kernel's overhead.

    max_super_packet_bytes: most to hand over in one call
    buffer_bytes:           size of the socket's send buffer, as the kernel reports it
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)
        self._room_bytes = 0  # 0: the system's default
        self._max_room_bytes: float = _MAX_ROOM_BYTES
        self.max_super_packet_bytes = MAX_SUPER_PACKET_BYTES
        self._changed_ns = 0
        self._unlooked_bytes = 0  # what was sent since there was room for certain, with the kernel's overhead
        self.buffer_bytes = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    @property
    def is_left(self) -> bool:
        """Whether there is room for a batch. If not, wait until the socket is writable."""
        return self._unlooked_bytes <= self.buffer_bytes // _UNLOOKED_SHARE or self.wait(0)

    def wait(self, timeout_ms: int) -> bool:
        """Wait for room at most so long; return whether there is any."""
        events = self._writable.poll(timeout_ms)
        if not events or not events[0][1] & select.POLLOUT:
            return False
        self._unlooked_bytes = 0
        return True

    def on_sent(self, sent_bytes: int, datagrams: int) -> None:
        """These datagrams were handed to the socket."""
        self._unlooked_bytes += sent_bytes + datagrams * _DATAGRAM_OVERHEAD_BYTES

    def follow_rate(self, rate_bps: float, now_ns: int) -> None:
        """Adapt the room to the pacing rate."""
        if now_ns - self._changed_ns > _NS_PER_S:
            self._max_room_bytes = min(self._max_room_bytes * _GROWTH_PER_S, _MAX_ROOM_BYTES)
            super_packet_bytes = int(self.max_super_packet_bytes * _GROWTH_PER_S)
            self.max_super_packet_bytes = min(super_packet_bytes, MAX_SUPER_PACKET_BYTES)
            self._changed_ns = now_ns
        wanted_bytes = min(max(rate_bps * _ROOM_NS / (8 * _NS_PER_S), _MIN_ROOM_BYTES), self._max_room_bytes)
        if not 2 * wanted_bytes / 3 <= self._room_bytes <= 3 * wanted_bytes / 2:
            self._set(int(wanted_bytes))

    @property
    def has_shrunk(self) -> bool:
        """Whether room should be looked for before each super-packet, and not only before a batch of them."""
        return self._max_room_bytes < _MAX_ROOM_BYTES

    @property
    def max_round_bytes(self) -> int:
        """Most to prepare at once: after a drop the room, with the kernel's overhead, or two super-packets."""
        least_bytes = max(_MIN_ROUND_SUPER_PACKETS * self.max_super_packet_bytes, _MIN_ROOM_BYTES)
        return min(max(int(self._max_room_bytes), least_bytes), MAX_ROUND_BYTES)

    def on_drop(self, dropped_bytes: int) -> None:
        """A queue of this host had no room for a super-packet of this size."""
        queued_bytes = _queued_bytes(self._socket)
        most_bytes = _ROOM_AFTER_DROP * min(queued_bytes, self._max_room_bytes)
        self._max_room_bytes = max(most_bytes, _MIN_ROOM_AFTER_DROP_BYTES)
        if queued_bytes < dropped_bytes:
            self.max_super_packet_bytes = max(dropped_bytes // 2, _MIN_SUPER_PACKET_BYTES)
        self._changed_ns = time.monotonic_ns()
        self._set(int(self._max_room_bytes))

    def _set(self, room_bytes: int) -> None:
        # The kernel doubles the send buffer, and calls a socket writable while less than half of that waits.
        self._room_bytes = room_bytes
        self._unlooked_bytes = _MAX_ROOM_BYTES  # it may be less than what waits there already
        for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):  # the first may exceed wmem_max, with CAP_NET_ADMIN
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, room_bytes)
            except OSError:
                continue
            self.buffer_bytes = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            return


def _queued_bytes(sock: socket.socket) -> int:
    """What waits in this host's queues (SIOCOUTQ)."""
    count: int = _UINT32.unpack(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(_UINT32.size)))[0]
    return count
