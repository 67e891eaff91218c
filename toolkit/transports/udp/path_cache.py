"""What sessions have learned about the paths to their peers, for the next session with the same one.

They may be lost: a session then starts as on an unknown path. A congestion controller uses such a memory carefully
(`toolkit.rudp.congestion.careful_resume`).
"""

import json
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from toolkit.channel import Address
from toolkit.rudp.congestion.base import PathMemory
from toolkit.transports.udp.cache_folder import CacheFolder

_BENCHMARK_NETWORK: Final = ip_network("198.18.0.0/15")
"""RFC 2544: addresses of test networks, such as those of `nettool link`. The same address is another path each time."""
MIN_RTT_NS: Final = 5_000_000
"""A shorter path is filled before a memory of it is read."""
_MAX_ENTRY_BYTES: Final = 1024
_MAX_RATE_BPS: Final = 1e13
_MAX_RTT_NS: Final = 60_000_000_000


class PathCache:
    """The memories in the folder `path`, which need not exist."""

    def __init__(self, path: Path | None = None) -> None:
        self._folder = CacheFolder("paths", path)

    def recall(self, peer: Address) -> PathMemory | None:
        """Return what is known about the path to this host; None if nothing is."""
        if not _is_kept(peer):
            return None
        try:
            entry = json.loads(self._folder.read(peer.host, _MAX_ENTRY_BYTES))
            rate_bps, rtt_ns = float(entry["rate_bps"]), int(entry["rtt_ns"])
        except (TypeError, KeyError, ValueError, OverflowError, RecursionError):
            return None
        is_plausible = 0 < rate_bps < _MAX_RATE_BPS and 0 < rtt_ns < _MAX_RTT_NS
        return PathMemory(rate_bps, rtt_ns) if is_plausible else None

    def keep(
        self, peer: Address, congestion: Mapping[str, float | str], min_rtt_ns: int, has_rate_limit: bool = False
    ) -> None:
        """Keep what a session with this host has learned, if its controller measures the bandwidth.

        `congestion` is the controller's last snapshot.

        A session that ended while it was still starting has not seen all of it. But it may have seen that the path no
        longer carries what is remembered. A session with a rate limit of the user's (`has_rate_limit`) has seen that
        limit: from a memory of too low a rate, the next session would need more round trips than from none.
        """
        if not _is_kept(peer) or min_rtt_ns < MIN_RTT_NS or "max_bw" not in congestion:
            return
        if congestion["phase"] != "startup" and not has_rate_limit:
            entry = {"rate_bps": round(float(congestion["max_bw"])), "rtt_ns": min_rtt_ns}
            self._folder.put(peer.host, json.dumps(entry).encode())
        elif congestion.get("careful_resume") == "retreated":
            self._folder.drop(peer.host)


def _is_kept(peer: Address) -> bool:
    """Whether this address always means the same path."""
    if peer.is_loopback:
        return False
    address = ip_address(peer.host.partition("%")[0])
    return address.version != _BENCHMARK_NETWORK.version or address not in _BENCHMARK_NETWORK
