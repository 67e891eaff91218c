"""How each congestion controller behaves on a path, in the product's simulator.

"Ideal" is the best goodput that any protocol could have on the path (`toolkit.netmodel.ideal`). The acceptance figures
of the project are in test_simulated_bars.py; here the paths are slower, so that more of them can be tried.
"""

from dataclasses import replace

import pytest

from tests.support.repetitions import long
from tests.support.simulated_paths import (
    MIB,
    MS,
    SECOND,
    goodput_bps,
    ideal_share,
    link_of,
    queue_drop_share,
    record_controllers,
    rtt_percentile_ms,
    simulate,
    transfer,
)
from toolkit.netmodel.spec import BurstLoss, LinkChange, LinkSpec, QueueSpec
from toolkit.simulator.result import ExperimentResult, jain_index
from toolkit.simulator.simulator import FlowSpec, payload_share

RATE = 10e6
MIDDLE_RATE = 20e6
RTT_MS = 40
FAST_RATE = 100e6


def with_changes(link: LinkSpec, *changes: LinkChange) -> LinkSpec:
    return replace(
        link,
        forward=replace(link.forward, changes=changes),
        backward=replace(link.backward, changes=changes),
    )


def goodput_share(result: ExperimentResult, link: LinkSpec, rate_bps: float, from_s: float, to_s: float) -> float:
    """Goodput of all flows between two times, divided by what `rate_bps` can carry."""
    total_bps = sum(goodput_bps(flow, int(from_s * SECOND), int(to_s * SECOND)) for flow in result.flows)
    return total_bps / (rate_bps * payload_share(link))


# BBR alone


@pytest.mark.parametrize(("loss", "buffer_bdp"), [long(0, 0.25), (0.05, 0.25), long(0.05, 4)])
def test_bbr_fills_a_lossy_path_with_any_buffer(loss: float, buffer_bdp: float) -> None:
    result = transfer(link_of(MIDDLE_RATE, buffer_bdp=buffer_bdp, loss=loss, seed=3), 8 * MIB)
    assert ideal_share(result) >= 0.88
    assert queue_drop_share(result) <= 0.03


@pytest.mark.parametrize("buffer_bdp", [long(1), 4])
def test_bbr_keeps_the_queue_short_in_any_buffer(buffer_bdp: float) -> None:
    result = transfer(link_of(FAST_RATE, buffer_bdp=buffer_bdp), 32 * MIB)
    assert rtt_percentile_ms(result, 50, SECOND) <= 1.15 * RTT_MS
    assert rtt_percentile_ms(result, 99, SECOND) <= 1.5 * RTT_MS


def test_bbr_backs_off_in_a_buffer_of_a_few_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """No queue is visible there, but BBR must not take the drops for random loss."""
    controllers = record_controllers(monkeypatch, "bbr")
    result = transfer(link_of(FAST_RATE, buffer_bdp=0.05), 32 * MIB, "recorded")
    assert queue_drop_share(result) <= 0.08
    assert ideal_share(result) >= 0.75
    path_loss = controllers[0].snapshot()["path_loss"]
    assert isinstance(path_loss, float)
    assert path_loss < 0.05


def test_bbr_tolerates_bursts_of_random_loss() -> None:
    burst = BurstLoss.from_share(0.02, 10 * 120_000)
    assert ideal_share(transfer(link_of(FAST_RATE, seed=2, burst=burst), 32 * MIB)) >= 0.88


def test_bbr_is_back_at_full_rate_at_once_after_an_outage() -> None:
    link = with_changes(link_of(RATE), LinkChange(2 * SECOND, blackout_ns=2 * SECOND))
    result = simulate(link, [FlowSpec("bbr", duration_ns=6 * SECOND)])
    back_s = next(time_ns for time_ns, _ in result.flows[0].progress if time_ns > 4 * SECOND) / SECOND
    assert goodput_share(result, link, RATE, back_s + 0.2, back_s + 0.7) >= 0.9


@pytest.mark.parametrize("buffer_bdp", [0.5, long(4)])
def test_bbr_follows_a_rate_that_halves_and_doubles(buffer_bdp: float) -> None:
    changes = LinkChange(4 * SECOND, rate_bps=RATE / 2), LinkChange(8 * SECOND, rate_bps=RATE)
    link = with_changes(link_of(RATE, buffer_bdp=buffer_bdp), *changes)
    result = simulate(link, [FlowSpec("bbr", duration_ns=12 * SECOND)])
    for start_s, rate_bps in ((1, RATE), (5, RATE / 2), (9, RATE)):
        assert goodput_share(result, link, rate_bps, start_s, start_s + 3) >= 0.88, f"from {start_s} s on"


def test_bbr_measures_the_rtt_of_a_path_that_becomes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    controllers = record_controllers(monkeypatch, "bbr")
    link = with_changes(link_of(5e6, 20 * MS, buffer_bdp=8), LinkChange(2 * SECOND, delay_ns=40 * MS))
    result = simulate(link, [FlowSpec("recorded", duration_ns=26 * SECOND)])
    assert controllers[0].snapshot()["min_rtt"] == pytest.approx(80 * MS, rel=0.08)
    assert goodput_share(result, link, 5e6, 20, 26) >= 0.85


@pytest.mark.long
def test_bbr_obeys_ecn() -> None:
    """A queue that marks from an eighth of a round trip on drops less. It holds a quarter of one: Startup would not
    overflow twice that."""
    queue = QueueSpec(limit_bytes=int(0.25 * FAST_RATE / 2 * 0.04 / 8), ecn_threshold_ns=5 * MS)
    plain = [transfer(link_of(FAST_RATE / 2, buffer_bdp=0.25, seed=seed), 16 * MIB) for seed in range(1, 4)]
    marked = [transfer(link_of(FAST_RATE / 2, queue=queue, seed=seed), 16 * MIB) for seed in range(1, 4)]
    assert sum(map(queue_drop_share, marked)) < sum(map(queue_drop_share, plain))
    marked_ms, plain_ms = ([rtt_percentile_ms(result, 95, SECOND) for result in group] for group in (marked, plain))
    assert sum(marked_ms) < sum(plain_ms)
    assert ideal_share(marked[0]) >= 0.85


def test_startup_loses_little_more_than_one_bdp() -> None:
    result = simulate(link_of(FAST_RATE), [FlowSpec("bbr", duration_ns=SECOND)])
    assert result.flows[0].lost_packets.get("queue", 0) * 1500 <= 1.35 * FAST_RATE * 0.04 / 8
    assert result.samples[-1].phase != "startup"


# Several flows


@pytest.mark.long
def test_four_bbr_flows_share_fairly() -> None:
    """At 20 Mbit/s. At 10 Mbit/s they do not within 10 s: one flow keeps two thirds, and Jain's index is 0.48."""
    result = simulate(link_of(MIDDLE_RATE), [FlowSpec("bbr", duration_ns=8 * SECOND)] * 4)
    assert jain_index([goodput_bps(flow, 3 * SECOND, 8 * SECOND) for flow in result.flows]) >= 0.95


def test_two_bbr_flows_share_fairly_and_keep_the_queue_short_together() -> None:
    result = simulate(link_of(RATE, buffer_bdp=4), [FlowSpec("bbr", duration_ns=10 * SECOND)] * 2)
    assert jain_index([goodput_bps(flow, 2 * SECOND, 10 * SECOND) for flow in result.flows]) >= 0.95
    assert rtt_percentile_ms(result, 95, 2 * SECOND) <= 1.5 * RTT_MS


@pytest.mark.long
def test_two_bbr_flows_share_a_lossy_path() -> None:
    """Which of the two gets more is chance: the index of a single pair is 0.94 to 1, depending on the seed."""
    indices, shares = [], []
    for seed in (1, 2):
        link = link_of(RATE, loss=0.05, seed=seed)
        result = simulate(link, [FlowSpec("bbr", duration_ns=10 * SECOND)] * 2)
        indices.append(jain_index([goodput_bps(flow, 3 * SECOND, 10 * SECOND) for flow in result.flows]))
        shares.append(goodput_share(result, link, RATE * 0.95, 3, 10))
    assert sum(indices) / len(indices) >= 0.95
    assert min(shares) >= 0.9


@pytest.mark.long
@pytest.mark.parametrize("buffer_bdp", [0.5, 1])
def test_bbr_and_cubic_do_not_starve_each_other(buffer_bdp: float) -> None:
    """Each gets at least a quarter of its fair share."""
    flows = [FlowSpec(name, duration_ns=15 * SECOND) for name in ("bbr", "cubic")]
    link = link_of(RATE, buffer_bdp=buffer_bdp)
    result = simulate(link, flows)
    least_bps = min(goodput_bps(flow, 5 * SECOND, 15 * SECOND) for flow in result.flows)
    assert least_bps >= 0.125 * RATE * payload_share(link)


# Loss-based controllers


@pytest.mark.parametrize("control", ["cubic", "newreno"])
def test_a_loss_based_controller_fills_a_path_without_loss(control: str) -> None:
    assert ideal_share(transfer(link_of(RATE), 4 * MIB, control)) >= 0.9


def test_cubic_is_slow_under_random_loss() -> None:
    """RFC 9438 section 5.2, table 1: with 1% of loss the window averages some ten packets. So BBR is the default."""
    assert ideal_share(transfer(link_of(FAST_RATE, loss=0.01), 4 * MIB, "cubic")) < 0.1


def test_cubic_undoes_its_reaction_to_reordering() -> None:
    result = transfer(link_of(FAST_RATE, reorder=0.01, reorder_delay_ns=5 * MS), 32 * MIB, "cubic")
    assert result.flows[0].spurious_losses > 0
    assert ideal_share(result) >= 0.8


# Fixed rate


@pytest.mark.parametrize("loss", [0, long(0.1), 0.3])
def test_the_fixed_rate_is_held_despite_loss(loss: float) -> None:
    link = link_of(RATE, loss=loss)
    flow = FlowSpec("rate", duration_ns=3 * SECOND, rate_bps=RATE / 2)
    assert goodput_share(simulate(link, [flow]), link, RATE / 2 * (1 - loss), 0.5, 3) >= 0.9


@pytest.mark.parametrize("loss", [0, 0.05])
@pytest.mark.parametrize("buffer_bdp", [1, 4])
def test_the_fixed_rate_backs_off_on_a_full_path_and_no_further(buffer_bdp: float, loss: float) -> None:
    result = transfer(link_of(RATE / 2, buffer_bdp=buffer_bdp, loss=loss), 3 * MIB, "rate", rate_bps=0.8 * RATE)
    assert ideal_share(result) >= 0.88
    assert queue_drop_share(result) <= 0.1


def test_the_fixed_rate_is_restored_when_the_path_has_room_again() -> None:
    changes = LinkChange(3 * SECOND, rate_bps=RATE / 5), LinkChange(6 * SECOND, rate_bps=RATE)
    link = with_changes(link_of(RATE), *changes)
    result = simulate(link, [FlowSpec("rate", duration_ns=12 * SECOND, rate_bps=RATE / 2)])
    assert goodput_share(result, link, RATE / 2, 1, 3) >= 0.95
    assert goodput_share(result, link, RATE / 5, 4, 6) >= 0.85
    assert goodput_share(result, link, RATE / 2, 9, 12) >= 0.95


def test_the_fixed_rate_resumes_after_an_outage() -> None:
    link = with_changes(link_of(RATE), LinkChange(SECOND, blackout_ns=2 * SECOND))
    result = simulate(link, [FlowSpec("rate", duration_ns=5 * SECOND, rate_bps=RATE / 2)])
    assert goodput_share(result, link, RATE / 2, 3.7, 5) >= 0.9
