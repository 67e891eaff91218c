"""How often one host may begin a key exchange: each costs processor time before anybody has shown who they are.

A host is an IPv4 address, or the /64 of an IPv6 address, which one site has alone. All link-local IPv6 addresses have
the same /64, so each of them is a host of its own, as an IPv4 address of the same link is.
"""

from collections import OrderedDict
from typing import Final

KEY_EXCHANGES_PER_SECOND: Final = 128
"""How many key exchanges a host may begin per second; each takes about a millisecond of CPU time."""
KEY_EXCHANGE_BURST: Final = 256
_IPV6_BYTES: Final = 16
_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"
_REMEMBERED: Final = 1024
"""How many hosts to remember; beyond that, the one that has begun least recently is forgotten."""


def network_of(packed: bytes) -> bytes:
    """Return what limits for each host count by. `packed` is an IP address of 4 or 16 bytes."""
    if packed.startswith(_IPV4_MAPPED):
        return packed[len(_IPV4_MAPPED) :]
    is_link_local = packed[:1] == b"\xfe" and packed[1] & 0xC0 == 0x80  # fe80::/10
    return packed if len(packed) != _IPV6_BYTES or is_link_local else packed[:8]


class HostRates:
    """A token bucket for each host. Not thread-safe."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[bytes, tuple[float, int]] = OrderedDict()  # tokens and their time, by host

    def may_begin(self, network: bytes, now_ns: int) -> bool:
        """Count one key exchange of a host (Address.network); return whether the limit allows it."""
        tokens, time_ns = self._buckets.get(network, (KEY_EXCHANGE_BURST, now_ns))
        tokens = min(KEY_EXCHANGE_BURST, tokens + (now_ns - time_ns) * KEY_EXCHANGES_PER_SECOND / 1e9)
        is_allowed = tokens >= 1
        self._buckets[network] = (tokens - is_allowed, now_ns)
        self._buckets.move_to_end(network)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return is_allowed
