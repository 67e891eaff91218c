"""What a listener does when more first packets arrive than it has time for: it lets the kernel drop some at random.

Without this, the socket's queue is always full, so the kernel drops from all packets alike: a client that has already
returned its token loses as many as the flood, and its handshake takes several packets. While there is a flood, a filter
on the socket drops a share of the INITIALs before they are queued, and the share adapts until the queue drains.
INITIALs with and without a token have shares of their own, so a flood of one kind does not keep out the other. Nothing
distinguishes a client's packet from a forged one of its kind: a client gets in because it repeats its INITIAL.

The filter is a classic BPF program, which needs no privileges. It is attached only during a flood.

Read: bpf(4), linux/filter.h (SKF_AD_RANDOM), socket(7) for SO_ATTACH_FILTER.
"""

import contextlib
import ctypes
import socket
import struct
from collections.abc import Collection
from typing import Final

from toolkit.rudp.handshake_packets import InitialFlags
from toolkit.rudp.wire import PacketType

QUEUE_BYTES: Final = 1 << 19
"""Size of the listening socket's queue, twice that with the kernel's overhead: some 450 INITIALs. A longer queue does
not hold more good packets, only older ones."""
INTERVAL_NS: Final = 100_000_000
"""How often the shares adapt; a full queue is emptied in less."""
MIN_SHARE: Final = 1 / 256
_GROWTH, _SHRINKAGE = 1.15, 0.6
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27

# Instructions of classic BPF: code, jump if true, jump if false, operand. The filter of a UDP socket sees the packet
# from the UDP header on.
_INSTRUCTION: Final = struct.Struct("=HBBI")
_LOAD_BYTE, _LOAD_WORD, _JUMP_EQUAL, _JUMP_BITS, _JUMP_GREATER_EQUAL, _RETURN = 0x30, 0x20, 0x15, 0x45, 0x35, 0x06
_TYPE_AT, _FLAGS_AT = 8, 9
_RANDOM: Final = 0xFFFF_F000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: a random number
_ALL: Final = 0xFFFF_FFFF


class FloodGuard:
    """The shares of the INITIALs that pass, without and with a token. Everything else always passes."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is the listening socket, which stays the caller's."""
        self._sock = sock
        self.shares = [1.0, 1.0]
        self._counts = [0, 0]
        self._others = 0
        self._has_drained = False
        self._next_ns = 0
        # An unprivileged process may shrink its queue, too.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)

    def on_round(self, initials: Collection[bool], others: int, is_full: bool, now_ns: int) -> None:
        """The listener has handled these INITIALs (whether each had a token) and `others` that are none.

        `is_full`: more may be waiting.
        """
        for has_token in initials:
            self._counts[has_token] += 1
        self._others += others
        self._has_drained |= not is_full
        if now_ns >= self._next_ns:
            self._adapt()
            self._counts = [0, 0]
            self._others = 0
            self._has_drained = False
            self._next_ns = now_ns + INTERVAL_NS

    @property
    def is_active(self) -> bool:
        """Whether some INITIALs are dropped."""
        return min(self.shares) < 1

    def _adapt(self) -> None:
        before = list(self.shares)
        if self._has_drained:
            self.shares = [min(1.0, share * _GROWTH) for share in self.shares]
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
        program = ctypes.create_string_buffer(filter_program(*self.shares))
        count = len(program) // _INSTRUCTION.size
        self._sock.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(program))
        )


def filter_program(share_without_token: float, share_with_token: float) -> bytes:
    """Return the instructions that drop all but these shares of the INITIALs without and with a token."""
    limits = [int(share * _ALL) for share in (share_without_token, share_with_token)]
    program = (
        (_LOAD_BYTE, 0, 0, _TYPE_AT),
        (_JUMP_EQUAL, 0, 6, PacketType.INITIAL),
        (_LOAD_BYTE, 0, 0, _FLAGS_AT),
        (_JUMP_BITS, 2, 0, InitialFlags.HAS_TOKEN),
        (_LOAD_WORD, 0, 0, _RANDOM),
        (_JUMP_GREATER_EQUAL, 3, 2, limits[False]),
        (_LOAD_WORD, 0, 0, _RANDOM),
        (_JUMP_GREATER_EQUAL, 1, 0, limits[True]),
        (_RETURN, 0, 0, _ALL),
        (_RETURN, 0, 0, 0),
    )
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
