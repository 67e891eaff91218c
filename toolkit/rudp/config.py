"""The settings of a connection."""

from dataclasses import dataclass

from toolkit.rudp.congestion.base import DEFAULT_CONTROLLER, PathMemory

DEFAULT_DATAGRAM_BYTES = 1472
"""Fills a 1,500-byte IPv4 packet, with 20 bytes of IP header and 8 of UDP header."""
JUMBO_DATAGRAM_BYTES = 8972
"""Fills a 9,000-byte IPv4 packet, the usual size of jumbo frames. Larger packets, which loopback carries, cost about as
much per byte."""


@dataclass(frozen=True, slots=True)
class Config:
    """Times in nanoseconds, sizes in bytes, rates in bits per second of UDP payload.

    congestion_control:   name of a controller, see `toolkit.rudp.congestion.base`
    rate_bps:             maximum sending rate (for the controller `rate`: the rate); None for no limit
    max_datagram_bytes:   largest UDP payload to try; the path may carry less
    idle_timeout_ns:      silence after which the peer is considered gone
    receive_window_bytes: initial receive window of the data stream
    max_message_bytes:    maximum length of a message; a longer one is a protocol error
    memory:               what an earlier connection has learned about the path; None for nothing
    seed:                 seed of all random choices: of the congestion controller, and of the packet numbers to skip
    """

    congestion_control: str = DEFAULT_CONTROLLER
    rate_bps: float | None = None
    max_datagram_bytes: int = DEFAULT_DATAGRAM_BYTES
    idle_timeout_ns: int = 30_000_000_000
    receive_window_bytes: int = 4 << 20
    max_message_bytes: int = 1 << 18
    memory: PathMemory | None = None
    seed: int = 0
