"""How often one host may begin a key exchange: each costs processor time before anybody has shown who they are."""

from collections import OrderedDict
from typing import Final

KEY_EXCHANGES_PER_SECOND: Final = 128
"""How many key exchanges a host may begin per second; each takes about a millisecond of CPU time."""
KEY_EXCHANGE_BURST: Final = 256
_REMEMBERED: Final = 1024
"""How many hosts to remember; beyond that, the one that has begun least recently is forgotten."""


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
