"""Packet numbers that are skipped at random, so that a peer cannot acknowledge what it has not received.

A receiver that acknowledges packets ahead of their arrival makes the sender go faster than the path allows. It cannot
know which numbers are never used, though, and acknowledges one of them sooner or later. The first numbers are skipped
soon, later ones ever more rarely: each one leaves a gap, which costs the peer an acknowledgement.

Read: RFC 9000 section 21.4 (optimistic ACK attack). The periods are those of quic-go.
"""

from bisect import bisect_left
from collections import deque
from typing import Final

# numpy loads this part only when it is used, which takes 14 ms: not while a connection is made.
from numpy.random import PCG64, Generator, SeedSequence

from toolkit.errors import ProtocolError

INITIAL_PERIOD_PACKETS: Final = 256
MAX_PERIOD_PACKETS: Final = 1 << 17
_REMEMBERED: Final = 8
"""How many of the numbers that were skipped last are remembered."""


class SkippedPacketError(ProtocolError):
    """The peer acknowledges a packet number that was skipped, so it acknowledges what it has not received."""


class SkippedNumbers:
    """Which packet numbers to skip.

    next_number: the first number that may be skipped next
    """

    def __init__(self, seed: int) -> None:
        self._generator = Generator(PCG64(SeedSequence((seed, 0x5C1B))))
        self._period_packets = INITIAL_PERIOD_PACKETS
        self._skipped: deque[int] = deque(maxlen=_REMEMBERED)
        self.next_number = self._after(0)

    def skip(self, number: int) -> None:
        """Packet number `number` is not used; choose when to skip another one."""
        self._skipped.append(number)
        self._period_packets = min(2 * self._period_packets, MAX_PERIOD_PACKETS)
        self.next_number = self._after(number)

    def check_untrusted(self, ranges: list[tuple[int, int]]) -> None:
        """Raises SkippedPacketError if acknowledged `ranges`, newest first, contain a number that was skipped."""
        lowest, end = ranges[-1][0], ranges[0][1]
        for number in self._skipped:
            if not lowest <= number < end:
                continue
            # The oldest range that ends after the number is the only one that can contain it.
            index = bisect_left(ranges, -number, key=lambda r: -r[1]) - 1
            if index >= 0 and ranges[index][0] <= number:
                raise SkippedPacketError(f"the peer has acknowledged packet {number}, which was never sent")

    def _after(self, number: int) -> int:
        return number + 1 + int(self._generator.integers(2 * self._period_packets))
