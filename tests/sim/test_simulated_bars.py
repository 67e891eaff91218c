"""The acceptance figures of the protocol, in the simulator: goodput under loss, fairness, short queues, small files.

Each test names the `nettool sim` command that repeats its experiment. The limits are the project's own (goodput as a
share of the path's ideal, bytes retransmitted per byte lost) and the published behaviour of loss-based congestion
control: Mathis et al., "The macroscopic behavior of the TCP congestion avoidance algorithm" (CCR 1997), and the
response function of CUBIC, RFC 9438 section 5.
"""

import math
from dataclasses import replace

import pytest

from tests.support.repetitions import first_then_long, long
from tests.support.simulated_paths import MS, SECOND, goodput_bps, link_of
from toolkit.netmodel.profiles import profile
from toolkit.netmodel.scenarios import SCENARIOS, SIZE_BYTES
from toolkit.netmodel.spec import LinkSpec, PathSpec, QueueSpec
from toolkit.rudp.congestion.base import PathMemory
from toolkit.rudp.wire import HEADER_BYTES
from toolkit.simulator.result import ExperimentResult
from toolkit.simulator.simulator import RECEIVE_WINDOW_BYTES, Experiment, FlowSpec, payload_share, run

PAYLOAD_BYTES = 1500 - 28 - HEADER_BYTES


def default_link(rate_bps: float, rtt_ns: int = 40 * MS, loss: float = 0.0) -> LinkSpec:
    """The link of `nettool sim --rate --rtt --loss`, with its default queue."""
    return link_of(rate_bps, rtt_ns, loss=loss, queue=QueueSpec())


def check(result: ExperimentResult, min_share: float) -> None:
    """The transfer finished, reached `min_share` of the ideal goodput, and retransmitted little that was not lost."""
    assert result.is_finished
    assert result.ideal_share is not None
    assert result.ideal_share >= min_share
    assert (result.retransmission_ratio or 1) <= 1.15


def test_payload_is_at_least_95_percent_of_a_packet_with_room_for_a_tag() -> None:
    assert payload_share(default_link(1e6)) == PAYLOAD_BYTES / 1500
    assert (PAYLOAD_BYTES - 16) / 1500 >= 0.95


@pytest.mark.parametrize("loss", [long(0.0), 0.01, long(0.1)])
def test_random_loss_does_not_slow_a_transfer(loss: float) -> None:
    """nettool sim --loss 0%,1%,10%"""
    check(run(Experiment(default_link(100e6, loss=loss), [FlowSpec(size_bytes=64 << 20)])), 0.93)


@pytest.mark.parametrize("seed", [1, *map(long, (7, 14))])
def test_startup_does_not_end_for_much_random_loss(seed: int) -> None:
    """nettool sim --rate 20Mbit --rtt 100ms --loss 20% --duration 5s --seed 1

    Startup once took a test of 30 packets for the answer, and left the path with a tenth of its rate, for minutes.
    """
    link = replace(default_link(20e6, 100 * MS, loss=0.2), seed=seed)
    (flow,) = run(Experiment(link, [FlowSpec(duration_ns=5 * SECOND)])).flows
    assert goodput_bps(flow, 3 * SECOND, 5 * SECOND) >= 0.85 * 20e6 * payload_share(link) * 0.8


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 5])
def test_a_path_of_a_second_that_loses_30_percent_is_filled(seed: int) -> None:
    """nettool sim --rate 20Mbit --rtt 1s --loss 30% --duration 30s --seed 1"""
    link = replace(default_link(20e6, SECOND, loss=0.3), seed=seed)
    (flow,) = run(Experiment(link, [FlowSpec(duration_ns=30 * SECOND)])).flows
    assert goodput_bps(flow, 20 * SECOND, 30 * SECOND) >= 0.85 * 20e6 * payload_share(link) * 0.7


@pytest.mark.long
def test_a_fast_lossy_path_is_filled() -> None:
    """nettool sim --rate 1Gbit --rtt 20ms --loss 1% --size 256MiB"""
    check(run(Experiment(default_link(1e9, 20 * MS, loss=0.01), [FlowSpec(size_bytes=256 << 20)])), 0.90)


@pytest.mark.parametrize("name", [long("jitter"), "blackout", long("rate-change")])
def test_scenarios(name: str) -> None:
    """nettool sim --scenario jitter,blackout,rate-change

    The scenario "clean" is the transfer without loss above.
    """
    check(run(Experiment(SCENARIOS[name].link, [FlowSpec(size_bytes=SIZE_BYTES)])), 0.85)


@pytest.mark.parametrize("name", ["burst-loss", long("reorder"), long("duplicate"), long("corrupt")])
def test_scenarios_that_never_change(name: str) -> None:
    """nettool sim --scenario burst-loss,reorder,duplicate,corrupt --size 32MiB

    Half the size of the other scenarios is the stricter test: Startup takes a larger share of the time.
    """
    check(run(Experiment(SCENARIOS[name].link, [FlowSpec(size_bytes=SIZE_BYTES // 2)])), 0.85)


def test_every_scenario_is_tested() -> None:
    tested = {"clean", "jitter", "blackout", "rate-change", "burst-loss", "reorder", "duplicate", "corrupt"}
    assert tested == set(SCENARIOS)


@pytest.mark.parametrize("seed", [10, *map(long, (14, 19, 36, 78, 84))])
def test_jitter_is_not_taken_for_a_full_pipe(seed: int) -> None:
    """nettool sim --scenario jitter --seed 10

    With these seeds the first packets are the latest ones. Startup once ended there, and the transfer took four times
    as long.
    """
    link = replace(SCENARIOS["jitter"].link, seed=seed)
    check(run(Experiment(link, [FlowSpec(size_bytes=SIZE_BYTES)])), 0.85)


@pytest.mark.parametrize("loss", [0.0, 0.01])
def test_startup_fills_a_long_fat_path_within_twelve_round_trips(loss: float) -> None:
    """nettool sim --rate 1Gbit --rtt 100ms --duration 1300ms --loss 0%,1% --trace FILE

    The handshake takes one of the twelve round trips. In the thirteenth, the path delivers at its rate.
    """
    link = default_link(1e9, 100 * MS, loss=loss)
    (flow,) = run(Experiment(link, [FlowSpec(duration_ns=1300 * MS)])).flows
    assert goodput_bps(flow, 1200 * MS, 1300 * MS) >= 0.9 * 1e9 * payload_share(link) * (1 - loss)


@pytest.mark.parametrize("control", ["bbr", long("cubic"), long("newreno")])
def test_a_late_flow_gets_its_share(control: str) -> None:
    """nettool sim --rate 5Mbit --queue 1bdp --flows 2 --stagger 2s --duration 20s --cc bbr,cubic,newreno

    Fairness is measured while both flows are active. Two flows that start together converge sooner.
    """
    flows = [FlowSpec(control, duration_ns=20 * SECOND, start_ns=start_ns) for start_ns in (0, 2 * SECOND)]
    result = run(Experiment(link_of(5e6), flows))
    assert result.ideal_share is not None
    assert result.ideal_share >= 0.9
    assert result.jain_index is not None
    assert result.jain_index >= 0.95


@pytest.mark.parametrize(("validates", "round_trips"), [(False, 2.2), (True, 3.2)])
def test_a_small_file_takes_two_round_trips(validates: bool, round_trips: float) -> None:
    """nettool sim --size 10kB --rtt 100ms --validate"""
    flow = FlowSpec(size_bytes=10_000, validates_address=validates)
    result = run(Experiment(default_link(100e6, 100 * MS), [flow]))
    assert result.is_finished
    assert result.duration_ns <= round_trips * 100 * MS


def mean_window_packets(control: str, rtt_ns: int, loss: float, duration_ns: int) -> float:
    """The mean window at a loss rate, from goodput x RTT on a link that is never full and loses data only."""
    forward = PathSpec(rate_bps=2e9, delay_ns=rtt_ns // 2, loss=loss)
    backward = PathSpec(rate_bps=2e9, delay_ns=rtt_ns // 2)
    result = run(Experiment(LinkSpec(forward, backward), [FlowSpec(control, duration_ns=duration_ns)]))
    return goodput_bps(result.flows[0], duration_ns // 4, duration_ns) * rtt_ns / 8e9 / PAYLOAD_BYTES


@pytest.mark.parametrize("loss", [0.01, long(0.003)])
def test_newreno_follows_the_square_root_of_loss(loss: float) -> None:
    """Mathis et al., equation 3: W = C / sqrt(p), where C = sqrt(3/2) if every packet is acknowledged.

    nettool sim --cc newreno --rate 2Gbit --loss 1%,0.3% --duration 15s
    """
    expected = math.sqrt(1.5 / loss)
    assert 0.75 * expected <= mean_window_packets("newreno", 40 * MS, loss, 15 * SECOND) <= 1.25 * expected


@pytest.mark.parametrize("loss", [0.003, long(0.001)])
def test_cubic_follows_its_response_function(loss: float) -> None:
    """RFC 9438 section 5.1: W = (C (3 + beta) / (4 (1 - beta)))^(1/4) x RTT^(3/4) / p^(3/4), at 200 ms.

    nettool sim --cc cubic --rate 2Gbit --rtt 200ms --loss 0.3%,0.1% --duration 40s
    """
    expected = (0.4 * 3.7 / (4 * 0.3)) ** 0.25 * 0.2**0.75 / loss**0.75
    assert 0.8 * expected <= mean_window_packets("cubic", 200 * MS, loss, 40 * SECOND) <= 1.25 * expected


@pytest.mark.parametrize("window_bytes", [RECEIVE_WINDOW_BYTES, 104 << 10])
@pytest.mark.parametrize("rtt_ms", first_then_long([167, 40, 300]))
def test_the_receive_window_does_not_limit_a_long_path(rtt_ms: int, window_bytes: int) -> None:
    """nettool sim --rate 1Gbit --rtt 40ms,167ms,300ms --size 128MiB --receive-window 8MiB,104KiB,1GiB

    The windows are those of a receiver with a large socket buffer and with the default one of Linux (net.core.rmem_max
    of 212,992), and one without limit.
    """

    def goodput(window: int) -> float:
        flow = FlowSpec(size_bytes=128 << 20, receive_window_bytes=window)
        return run(Experiment(default_link(1e9, rtt_ms * MS), [flow])).goodput_bps

    assert goodput(window_bytes) >= 0.95 * goodput(1 << 30)


def test_a_slow_return_path_does_not_limit_the_transfer() -> None:
    """10 Mbit/s forward, and 100 kbit/s for the acknowledgements (no option of `nettool sim`)."""
    forward = PathSpec(rate_bps=10e6, delay_ns=20 * MS, queue=QueueSpec())
    link = LinkSpec(forward, replace(forward, rate_bps=100e3))
    assert run(Experiment(link, [FlowSpec(size_bytes=16 << 20)])).goodput_bps >= 9e6


GEO_BPS = 9.8133e6
GEO_RTT_NS = 600_900_000


@pytest.mark.parametrize(
    ("rate_bps", "share"),
    [long(None, 0.75), long(GEO_BPS, 0.85), long(GEO_BPS / 2, 0.75), long(10 * GEO_BPS, 0.75)],
)
def test_a_satellite_path_is_filled_in_few_round_trips(rate_bps: float | None, share: float) -> None:
    """nettool sim --profile geo --size 10MiB

    The other bars are those of a path that is remembered, with its rate, half of it and ten times as much.
    """
    memory = None if rate_bps is None else PathMemory(rate_bps, GEO_RTT_NS)
    result = run(Experiment(profile("geo").spec, [FlowSpec(size_bytes=10 << 20, memory=memory)]))
    assert result.is_finished
    assert result.ideal_share is not None
    assert result.ideal_share >= share


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_remembered_path_saves_round_trips(loss: float) -> None:
    """python bench/congestion.py start --only "2.5 MiB" has the times without a memory."""
    link = default_link(100e6, loss=loss)
    new, known = (
        run(Experiment(link, [FlowSpec(size_bytes=5 << 19, memory=memory)]))
        for memory in (None, PathMemory(98e6, 40 * MS))
    )
    assert known.is_finished
    assert known.duration_ns < new.duration_ns - 40 * MS
    assert (known.retransmission_ratio or 1) <= 1.15
