"""What a listener does when more first packets arrive than it has time for: it lets the kernel drop some at random.

Without this, the socket's queue is always full, so the kernel drops from all packets alike: a client that has already
returned its token loses as many as the flood, and its handshake takes several packets. While there is a flood, a filter
on the socket drops a share of the INITIALs before they are queued, and the share adapts until the queue drains.
INITIALs have two shares: one for those with the mark of their address (`toolkit.rudp.address_mark`), which only a host
that receives at this address can know, and one for all others, whether they have a made-up token or none. A flood from
forged addresses thus delays a client's first INITIAL only, which nothing distinguishes from the flood: the client gets
in because it repeats it.

The filter (`flood_filter`) is a classic BPF program, which needs no privileges. It is attached only during a flood.

Read: socket(7) for SO_ATTACH_FILTER.
"""

import contextlib
import ctypes
import socket
import struct
from typing import Final

from toolkit.rudp.address_mark import AddressMarks
from toolkit.rudp.address_validation import token_mark_untrusted
from toolkit.rudp.wire import PacketType
from toolkit.transports.udp.flood_filter import INSTRUCTION_BYTES, FloodFilter

QUEUE_BYTES: Final = 1 << 19
"""Size of the listening socket's queue, twice that with the kernel's overhead: some 450 INITIALs. A longer queue does
not hold more good packets, only older ones."""
INTERVAL_NS: Final = 100_000_000
"""How often the shares adapt; a full queue is emptied in less."""
MIN_SHARE: Final = 1 / 256
_GROWTH, _GROWTH_IN_QUIET, _SHRINKAGE = 1.1, 2.0, 0.8
_QUIET_DATAGRAMS: Final = 16
"""With fewer in an interval, there is no flood any more."""
_FULL_ROUNDS: Final = 9
"""So many full rounds without a break hold more than the queue: it fills up faster than it is emptied. Fewer only show
that the listener had to wait for a processor."""
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_INITIAL: Final = bytes((PacketType.INITIAL,))


class FloodGuard:
    """The shares of the INITIALs that pass, without and with the right mark. Everything else always passes."""

    def __init__(self, sock: socket.socket, marks: AddressMarks) -> None:
        """`sock` is the listening socket, which stays the caller's. `marks` are those of the tokens it hands out."""
        self._sock = sock
        self._marks = marks
        self._filter = FloodFilter(marks)
        self.shares = [1.0, 1.0]
        self._counts = [0, 0]
        self._others = 0
        self._full_rounds = 0
        self._has_drained = False
        self._next_ns = 0
        # An unprivileged process may shrink its queue, too.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)

    def on_unmarked(self, count: int) -> None:
        """The listener has received so many INITIALs without the right mark."""
        self._counts[False] += count

    def on_datagram(self, datagram: bytes | memoryview, host: bytes) -> None:
        """The listener has received this datagram from this packed address."""
        if datagram[:1] != _INITIAL:
            self._others += 1
            return
        mark = token_mark_untrusted(datagram)
        self._counts[mark is not None and mark == self._marks.of(host)] += 1

    def on_round(self, is_full: bool, now_ns: int) -> None:
        """The listener has handled what it has received. `is_full`: more may be waiting."""
        self._has_drained |= not is_full
        self._full_rounds += is_full
        if now_ns >= self._next_ns and (self._has_drained or self._full_rounds >= _FULL_ROUNDS):
            self._adapt()
            self._counts = [0, 0]
            self._others = 0
            self._full_rounds = 0
            self._has_drained = False
            self._next_ns = now_ns + INTERVAL_NS

    @property
    def is_active(self) -> bool:
        """Whether some INITIALs are dropped."""
        return min(self.shares) < 1

    def poll_timeout(self) -> int | None:
        """When to call `on_round` even if nothing arrives: the shares have to grow again. None for never."""
        return self._next_ns if self.is_active else None

    def _adapt(self) -> None:
        before = list(self.shares)
        if self._has_drained:
            is_quiet = sum(self._counts) + self._others < _QUIET_DATAGRAMS
            growth = _GROWTH_IN_QUIET if is_quiet else _GROWTH
            self.shares = [min(1.0, share * growth) for share in self.shares]
        elif sum(self._counts) > self._others:  # in a flood of other packets, dropping INITIALs would only add to it
            larger = self._counts.index(max(self._counts))
            self.shares[larger] = max(MIN_SHARE, self.shares[larger] * _SHRINKAGE)
        if self.shares != before:
            with contextlib.suppress(OSError):  # then the kernel drops from all packets alike
                self._attach()

    def _attach(self) -> None:
        if not self.is_active:
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            return
        program = self._filter.program(self.shares[False], self.shares[True])
        memory = ctypes.create_string_buffer(program, len(program))
        count = len(program) // INSTRUCTION_BYTES
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(memory)))
