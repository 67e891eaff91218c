"""Paths with a name, so that anybody can meet the same one again: what goes wrong, and how much of it.

All are 100 Mb/s and 40 ms with a queue of one bandwidth-delay product, and one thing the matter, in both directions
where that makes sense. The first packets of a 64 MiB transfer meet it as well as the last ones.
"""

from dataclasses import dataclass, replace
from typing import Final

from toolkit.errors import UsageError, printable
from toolkit.netmodel.spec import BurstLoss, LinkChange, LinkSpec, PathSpec

RATE_BPS: Final = 100e6
ONE_WAY_NS: Final = 20_000_000
SIZE_BYTES: Final = 64 << 20
_SECOND_NS: Final = 10**9
_PACKET_NS: Final = 120_000  # 1,500 bytes at 100 Mb/s
_PLAIN: Final = PathSpec(rate_bps=RATE_BPS, delay_ns=ONE_WAY_NS)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`path` is that of both directions; `meaning` is one line for the list."""

    name: str
    meaning: str
    path: PathSpec

    @property
    def link(self) -> LinkSpec:
        """The link, with the seed 1."""
        return LinkSpec(self.path, self.path)


def _changes(*changes: LinkChange) -> PathSpec:
    return replace(_PLAIN, changes=changes)


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("clean", "nothing the matter: for comparison", _PLAIN),
        Scenario(
            "burst-loss",
            "2% lost in bursts of 10 packets on average (Gilbert-Elliott)",
            replace(_PLAIN, burst=BurstLoss.from_share(0.02, 10 * _PACKET_NS)),
        ),
        Scenario("jitter", "10 ms of jitter on average, in order", replace(_PLAIN, jitter_ns=10_000_000)),
        Scenario("reorder", "1% of the packets are late by 5 ms", replace(_PLAIN, reorder=0.01)),
        Scenario("duplicate", "1% of the packets arrive twice", replace(_PLAIN, duplicate=0.01)),
        Scenario("corrupt", "0.1% of the packets arrive damaged", replace(_PLAIN, corrupt=0.001)),
        Scenario(
            "blackout",
            "nothing gets through for 2 s, from 2 s on",
            _changes(LinkChange(2 * _SECOND_NS, blackout_ns=2 * _SECOND_NS)),
        ),
        Scenario(
            "rate-change",
            "the rate halves at 2 s, doubles at 4 s, halves at 6 s and doubles at 8 s",
            _changes(*(LinkChange(2 * i * _SECOND_NS, rate_bps=RATE_BPS / (1 + i % 2)) for i in range(1, 5))),
        ),
    )
}


def scenario(name: str) -> Scenario:
    """The scenario called `name`. Raises UsageError that lists them all."""
    if name not in SCENARIOS:
        raise UsageError(f"there is no scenario '{printable(name, 40)}': choose from {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
