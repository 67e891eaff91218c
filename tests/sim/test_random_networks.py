"""Random networks: every byte arrives once, at its offset, whatever the path does.

The simulated receiver checks every byte, and that none is delivered twice. These tests check that nothing is missing
and that the counters agree. A failure names its seed, from which `random_network` makes the same network again.
More seeds: `NETTOOL_NETWORKS=5000 pytest` on this file.
"""

import os

import pytest

from tests.support.random_network import LIMIT_NS, random_network
from tests.support.repetitions import first_then_long
from toolkit.simulator.simulator import Simulator

NETWORKS = int(os.environ.get("NETTOOL_NETWORKS", "80"))
CHUNK = 20


@pytest.mark.parametrize("first", first_then_long(range(0, NETWORKS, CHUNK)))
def test_random_networks_deliver_everything_exactly_once(first: int) -> None:
    for seed in range(first, first + CHUNK):
        link, specs = random_network(seed)
        try:
            results = Simulator(link, specs).run(LIMIT_NS)
        except Exception as error:
            error.add_note(f"network seed {seed}: {link} {specs}")
            raise
        for spec, flow in zip(specs, results, strict=True):
            what = f"network seed {seed}, {spec}: {flow.failure} {flow.landed_bytes} {link}"
            assert flow.landed_bytes == spec.size_bytes, what
            assert flow.finished_ns is not None, what
            assert flow.retransmitted_bytes >= 0, what


@pytest.mark.parametrize("seed", range(0, NETWORKS, 100))
def test_a_seed_gives_the_same_result_again(seed: int) -> None:
    link, specs = random_network(seed)
    first, second = (Simulator(link, specs).run(LIMIT_NS) for _ in range(2))
    assert first == second
