"""What a connection is told before it begins; each figure with its reason."""

from dataclasses import dataclass

from toolkit.rudp.congestion.base import DEFAULT_CONTROLLER

DEFAULT_DATAGRAM_BYTES = 1472
"""What fills a 1,500-byte IPv4 packet: 20 bytes of IP and 8 of UDP go off."""


@dataclass(frozen=True, slots=True)
class Config:
    """Times in nanoseconds, sizes in bytes, rates in bits per second of UDP payload.

    congestion_control:   a name known to `toolkit.rudp.congestion.base`
    rate_bps:             an upper bound (for the controller `rate`: the target), None for none
    max_datagram_bytes:   the largest UDP payload that is tried; the path may carry less
    idle_timeout_ns:      silence after which the peer is lost
    receive_window_bytes: how far beyond what has arrived the peer may send, to begin with
    max_message_bytes:    a longer message is a protocol error
    seed:                 for whatever a congestion control draws at random
    """

    congestion_control: str = DEFAULT_CONTROLLER
    rate_bps: float | None = None
    max_datagram_bytes: int = DEFAULT_DATAGRAM_BYTES
    idle_timeout_ns: int = 30_000_000_000
    receive_window_bytes: int = 4 << 20
    max_message_bytes: int = 1 << 18
    seed: int = 0
