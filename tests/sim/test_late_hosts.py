"""A sender that shares a processor with other programs: it runs for a moment, and then waits until its next turn."""

import random
from bisect import bisect_right

import pytest

from tests.support.simulated_paths import MS, SECOND, goodput_bps, link_of, simulate
from toolkit.simulator.host import ClientHost
from toolkit.simulator.simulator import FlowSpec

RUN_NS, WAIT_NS = 3 * MS, 40 * MS


def run_in_turns(monkeypatch: pytest.MonkeyPatch, seed: int, duration_ns: int) -> None:
    """Wake senders only in slices of about `RUN_NS`, about `WAIT_NS` apart."""
    dice = random.Random(seed)
    starts, ends = [0], [0]
    while ends[-1] < duration_ns:
        starts.append(ends[-1] + int(dice.uniform(0.2, 1.8) * WAIT_NS))
        ends.append(starts[-1] + int(dice.uniform(0.5, 1.5) * RUN_NS))
    wanted_ns = ClientHost.next_ns

    def next_ns(host: ClientHost) -> int | None:
        time_ns = wanted_ns(host)
        if time_ns is None:
            return None
        index = bisect_right(starts, time_ns) - 1
        return time_ns if time_ns < ends[index] else starts[index + 1]

    monkeypatch.setattr(ClientHost, "next_ns", next_ns)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_late_sender_does_not_take_its_own_rate_for_that_of_the_path(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """It would send the less, the less it has sent: a tenth of this path remained."""
    run_in_turns(monkeypatch, seed, 10 * SECOND)
    flow = simulate(link_of(100e6, 40 * MS, seed=seed), [FlowSpec("bbr", duration_ns=3 * SECOND)]).flows[0]
    assert goodput_bps(flow, SECOND, 3 * SECOND) > 0.2 * 100e6
