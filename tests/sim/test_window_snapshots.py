"""The window over time of each congestion control on ten networks, held against what it was when last looked at.

Virtual time is exact, so is the comparison: a line that differs is a change of behaviour, and whoever made it looks at
whether it is the one that was meant. Then the snapshots are made anew:

    python tests/sim/test_window_snapshots.py --regenerate
"""

import sys
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import pytest

from toolkit.netmodel.spec import BurstLoss, LinkChange, LinkSpec, PathSpec, QueueSpec
from toolkit.rudp.congestion.base import CONTROLLER_NAMES
from toolkit.simulator.result import FlowSample
from toolkit.simulator.simulator import IP_UDP_BYTES, FlowSpec, Simulator

MS = 1_000_000
SECOND = 1000 * MS
FOLDER = Path(__file__).parent / "snapshots"
DURATION_NS = 5 * SECOND
INTERVAL_NS = 200 * MS
RATE_BPS = 10e6
PLAIN = PathSpec(rate_bps=RATE_BPS, delay_ns=20 * MS)
BDP_BYTES = 50_000

NETWORKS = {
    "clean": PLAIN,
    "1% loss": replace(PLAIN, loss=0.01),
    "10% loss": replace(PLAIN, loss=0.1),
    "2% loss in bursts of 5 ms": replace(PLAIN, burst=BurstLoss.from_share(0.02, 5 * MS)),
    "queue of four BDP": replace(PLAIN, queue=QueueSpec(limit_bytes=4 * BDP_BYTES)),
    "queue of a tenth of a BDP": replace(PLAIN, queue=QueueSpec(limit_bytes=BDP_BYTES // 10)),
    "CoDel with ECN": replace(PLAIN, queue=QueueSpec(codel=True, ecn=True)),
    "jitter and reordering": replace(PLAIN, jitter_ns=5 * MS, reorder=0.01),
    "rate halves at 2 s, doubles at 3 s": replace(
        PLAIN, changes=(LinkChange(2 * SECOND, rate_bps=RATE_BPS / 2), LinkChange(3 * SECOND, rate_bps=RATE_BPS))
    ),
    "blackout from 2 s to 3 s": replace(PLAIN, changes=(LinkChange(2 * SECOND, blackout_ns=SECOND),)),
}


def course(control: str, path: PathSpec) -> list[FlowSample]:
    target_bps = RATE_BPS * (1500 - IP_UDP_BYTES) / 1500 if control == "rate" else None
    flow = FlowSpec(control, duration_ns=DURATION_NS, rate_bps=target_bps)
    simulator = Simulator(LinkSpec(path, path), [flow], INTERVAL_NS)
    simulator.run()
    return simulator.samples


def written(control: str) -> str:
    """The courses of `control` on all networks, as they are kept."""
    lines = [f"{control}: window in bytes, bytes in flight, smoothed RTT in us, bytes landed, phase; at a time in ms"]
    for name, path in NETWORKS.items():
        lines += ["", f"[{name}]"]
        for sample in course(control, path):
            lines.append(
                f"{sample.time_ns // MS:5} {sample.congestion_window_bytes:9} {sample.bytes_in_flight:9} "
                f"{sample.smoothed_rtt_ns // 1000:8} {sample.landed_bytes:10} {sample.phase}".rstrip()
            )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("control", CONTROLLER_NAMES)
def test_the_window_over_time_is_as_it_was(control: str) -> None:
    before = (FOLDER / f"{control}.txt").read_text("ascii").splitlines()
    section = ""
    for old, new in zip_longest(before, written(control).splitlines()):
        section = new if new and new.startswith("[") else section
        assert new == old, f"{control} has changed, first on {section}; was it meant to? (see the head of this file)"


if __name__ == "__main__":
    if sys.argv[1:] != ["--regenerate"]:
        sys.exit(__doc__)
    for known in CONTROLLER_NAMES:
        (FOLDER / f"{known}.txt").write_text(written(known), "ascii")
