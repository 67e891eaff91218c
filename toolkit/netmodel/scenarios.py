"""Named paths with one impairment each, so that results can be reproduced and compared.

Every path has 100 Mbit/s, an RTT of 40 ms and a queue of one bandwidth-delay product, the same in both directions. The
impairment affects a 64 MiB transfer from the first packet to the last.
"""

from dataclasses import dataclass, replace
from typing import Final

from toolkit.errors import UsageError, printable
from toolkit.netmodel.spec import BurstLoss, LinkChange, LinkSpec, PathSpec

RATE_BPS: Final = 100e6
ONE_WAY_NS: Final = 20_000_000
SIZE_BYTES: Final = 64 << 20
_SECOND_NS: Final = 10**9
_PACKET_NS: Final = 120_000  # 1,500 bytes at 100 Mbit/s
_PLAIN: Final = PathSpec(rate_bps=RATE_BPS, delay_ns=ONE_WAY_NS)


@dataclass(frozen=True, slots=True)
class NetworkScenario:
    """`path` is used in both directions; `meaning` is one line for the list of scenarios."""

    name: str
    meaning: str
    path: PathSpec

    @property
    def link(self) -> LinkSpec:
        """The link, with seed 1."""
        return LinkSpec(self.path, self.path)


def _with_changes(*changes: LinkChange) -> PathSpec:
    return replace(_PLAIN, changes=changes)


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        NetworkScenario("clean", "no impairment, for comparison", _PLAIN),
        NetworkScenario(
            "burst-loss",
            "2% loss in bursts of 10 packets on average (Gilbert-Elliott)",
            replace(_PLAIN, burst=BurstLoss.from_share(0.02, 10 * _PACKET_NS)),
        ),
        NetworkScenario("jitter", "10 ms of jitter on average, in order", replace(_PLAIN, jitter_ns=10_000_000)),
        NetworkScenario("reorder", "1% of the packets are held back by 5 ms", replace(_PLAIN, reorder=0.01)),
        NetworkScenario("duplicate", "1% of the packets arrive twice", replace(_PLAIN, duplicate=0.01)),
        NetworkScenario("corrupt", "0.1% of the packets arrive corrupted", replace(_PLAIN, corrupt=0.001)),
        NetworkScenario(
            "blackout",
            "no packet gets through from 2 s to 4 s",
            _with_changes(LinkChange(2 * _SECOND_NS, blackout_ns=2 * _SECOND_NS)),
        ),
        NetworkScenario(
            "rate-change",
            "the rate halves at 2 s, doubles at 4 s, halves at 6 s and doubles at 8 s",
            _with_changes(*(LinkChange(2 * i * _SECOND_NS, rate_bps=RATE_BPS / (1 + i % 2)) for i in range(1, 5))),
        ),
    )
}


def scenario(name: str) -> NetworkScenario:
    """The scenario called `name`. Raises UsageError, which lists them all."""
    if name not in SCENARIOS:
        raise UsageError(f"unknown scenario '{printable(name, 40)}': choose from {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
