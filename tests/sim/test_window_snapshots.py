"""Snapshots of every congestion controller on ten networks: window, RTT and phase over time.

Virtual time is exact, and so is the comparison: any line that differs is a change of behaviour. If the change is
intended, regenerate the snapshots:

    python -m tests.sim.test_window_snapshots --regenerate

By default the test compares the most diverse networks; all of them with `NETTOOL_SNAPSHOTS=all pytest` on this file.
"""

import os
import sys
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import pytest

from tests.support.repetitions import first_then_long
from toolkit.netmodel.spec import BurstLoss, LinkChange, LinkSpec, PathSpec, QueueSpec
from toolkit.rudp.congestion.base import CONTROLLER_NAMES
from toolkit.simulator.result import FlowSample
from toolkit.simulator.simulator import IP_UDP_BYTES, FlowSpec, Simulator

MS = 1_000_000
SECOND = 1000 * MS
FOLDER = Path(__file__).parent / "snapshots"
DURATION_NS = 4 * SECOND
INTERVAL_NS = 200 * MS
RATE_BPS = 5e6
BDP_BYTES = 25_000
PLAIN = PathSpec(rate_bps=RATE_BPS, delay_ns=20 * MS, queue=QueueSpec(limit_bytes=BDP_BYTES))

NETWORKS = {
    "clean": PLAIN,
    "1% loss": replace(PLAIN, loss=0.01),
    "10% loss": replace(PLAIN, loss=0.1),
    "2% loss in bursts of 5 ms": replace(PLAIN, burst=BurstLoss.from_share(0.02, 5 * MS)),
    "queue of four BDP": replace(PLAIN, queue=QueueSpec(limit_bytes=4 * BDP_BYTES)),
    "queue of a fifth of a BDP": replace(PLAIN, queue=QueueSpec(limit_bytes=BDP_BYTES // 5)),
    "CoDel with ECN": replace(PLAIN, queue=QueueSpec(codel=True, ecn=True)),
    "jitter and reordering": replace(PLAIN, jitter_ns=5 * MS, reorder=0.01),
    "rate halves at 2 s, doubles at 3 s": replace(
        PLAIN, changes=(LinkChange(2 * SECOND, rate_bps=RATE_BPS / 2), LinkChange(3 * SECOND, rate_bps=RATE_BPS))
    ),
    "blackout from 2 s to 3 s": replace(PLAIN, changes=(LinkChange(2 * SECOND, blackout_ns=SECOND),)),
}
# Until 2 s, the network with the blackout is the clean one.
DIVERSE = [
    "10% loss",
    "queue of a fifth of a BDP",
    "CoDel with ECN",
    "jitter and reordering",
    "blackout from 2 s to 3 s",
]
COMPARED = list(NETWORKS) if os.environ.get("NETTOOL_SNAPSHOTS") == "all" else DIVERSE


def samples_of(control: str, path: PathSpec) -> list[FlowSample]:
    target_bps = RATE_BPS * (1500 - IP_UDP_BYTES) / 1500 if control == "rate" else None
    flow = FlowSpec(control, duration_ns=DURATION_NS, rate_bps=target_bps)
    simulator = Simulator(LinkSpec(path, path), [flow], INTERVAL_NS)
    simulator.run()
    return simulator.samples


def section(control: str, name: str) -> str:
    """The samples of `control` on the network `name`, as text."""
    lines = [f"[{name}]"]
    for sample in samples_of(control, NETWORKS[name]):
        lines.append(
            f"{sample.time_ns // MS:5} {sample.congestion_window_bytes:9} {sample.bytes_in_flight:9} "
            f"{sample.smoothed_rtt_ns // 1000:8} {sample.landed_bytes:10} {sample.phase}".rstrip()
        )
    return "\n".join(lines)


def snapshot(control: str) -> str:
    """The samples of `control` on all networks, as text."""
    head = f"{control}: time (ms), window (bytes), in flight (bytes), smoothed RTT (us), received (bytes), phase"
    return "\n\n".join([head, *(section(control, name) for name in NETWORKS)]) + "\n"


@pytest.mark.parametrize("control", first_then_long(CONTROLLER_NAMES))
def test_the_window_over_time_is_unchanged(control: str) -> None:
    _, *sections = (FOLDER / f"{control}.txt").read_text("ascii").rstrip("\n").split("\n\n")
    expected = dict(zip(NETWORKS, sections, strict=True))
    for name in COMPARED:
        for new, old in zip_longest(section(control, name).splitlines(), expected[name].splitlines()):
            assert new == old, f"{control} behaves differently, first on [{name}]: see the head of this file"


if __name__ == "__main__":
    if sys.argv[1:] != ["--regenerate"]:
        sys.exit(__doc__)
    for known in CONTROLLER_NAMES:
        (FOLDER / f"{known}.txt").write_text(snapshot(known), "ascii")
