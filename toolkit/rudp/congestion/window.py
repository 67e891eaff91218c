"""What the controllers share about windows: the first one, and the rate that a window makes.

Read: RFC 9002 sections 7.2 (initial window) and 7.7 (pacing).
"""

from typing import Final

_NS_PER_S: Final = 1_000_000_000
_BITS_PER_BYTE: Final = 8

UNMEASURED_RTT_NS: Final = 1_000_000
"""Stands for the RTT until there is one, so that the initial window goes out at once; RFC 9002 section 7.7 allows
that, and draft-ietf-ccwg-bbr section 5.6.2 does the same."""


def initial_window_bytes(datagram_bytes: int) -> int:
    """Ten datagrams, at most 14,720 bytes unless two datagrams are more (RFC 9002 section 7.2)."""
    return min(10 * datagram_bytes, max(14_720, 2 * datagram_bytes))


def window_rate_bps(window_bytes: float, rtt_ns: int) -> float:
    """One window a round trip, in bits per second."""
    return window_bytes * _BITS_PER_BYTE * _NS_PER_S / rtt_ns
