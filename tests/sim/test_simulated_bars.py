"""What the protocol promises, in the simulator: goodput under loss, friendliness, short queues, small files at once.

Each promise is an experiment that `nettool sim` makes again; the command stands beside it. The bars are the project's
own (goodput to the ideal of the path, retransmitted to lost bytes), and the published behaviour of loss-based
congestion control: Mathis et al., "The macroscopic behavior of the TCP congestion avoidance algorithm" (CCR 1997), and
the response function of CUBIC, RFC 9438 section 5.
"""

import math
from dataclasses import replace

import pytest

from toolkit.netmodel.scenarios import SCENARIOS, SIZE_BYTES
from toolkit.netmodel.spec import LinkSpec, PathSpec, QueueSpec
from toolkit.rudp.wire import HEADER_BYTES
from toolkit.simulator.result import ExperimentResult
from toolkit.simulator.simulator import Experiment, FlowSpec, payload_share, run

MS = 1_000_000
SECOND = 1000 * MS
PAYLOAD_BYTES = 1500 - 28 - HEADER_BYTES


def link_of(rate_bps: float, rtt_ns: int, loss: float = 0.0, queue: QueueSpec | None = None) -> LinkSpec:
    path = PathSpec(rate_bps=rate_bps, delay_ns=rtt_ns // 2, loss=loss, queue=queue or QueueSpec())
    return LinkSpec(path, path)


def check(outcome: ExperimentResult, least_share: float, most_ratio: float = 1.15) -> None:
    assert outcome.is_finished
    assert outcome.ideal_share is not None
    assert outcome.ideal_share >= least_share
    assert (outcome.retransmission_ratio or 1) <= most_ratio


def test_payload_is_at_least_95_percent_of_a_packet_with_room_for_a_tag() -> None:
    assert payload_share(link_of(1e6, 0)) == PAYLOAD_BYTES / 1500
    assert (PAYLOAD_BYTES - 16) / 1500 >= 0.95


@pytest.mark.parametrize("loss", [0.0, 0.001, 0.01, 0.05, 0.1])
def test_loss_does_not_slow_a_transfer(loss: float) -> None:
    """nettool sim --loss 0%,0.1%,1%,5%,10%"""
    link = link_of(100e6, 40 * MS, loss)
    check(run(Experiment(link, [FlowSpec(size_bytes=64 << 20)])), least_share=0.93)


@pytest.mark.parametrize("loss", [0.0, 0.01])
def test_a_fast_path_is_filled(loss: float) -> None:
    """nettool sim --rate 1Gbit --rtt 20ms --loss 0%,1% --size 512MiB"""
    link = link_of(1e9, 20 * MS, loss)
    check(run(Experiment(link, [FlowSpec(size_bytes=512 << 20)])), least_share=0.90)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(name: str) -> None:
    """nettool sim --scenario all"""
    least_share = 0.93 if name == "clean" else 0.85
    check(run(Experiment(SCENARIOS[name].link, [FlowSpec(size_bytes=SIZE_BYTES)])), least_share)


@pytest.mark.parametrize("seed", [10, 14, 19])
def test_jitter_is_not_taken_for_a_full_pipe(seed: int) -> None:
    """nettool sim --scenario jitter --seed 10

    Seeds whose first packets are the latest ones: Startup once ended with them, and the transfer took four times as
    long.
    """
    link = replace(SCENARIOS["jitter"].link, seed=seed)
    check(run(Experiment(link, [FlowSpec(size_bytes=SIZE_BYTES)])), least_share=0.85)


def test_start_up_fills_a_long_fat_path_within_twelve_round_trips() -> None:
    """nettool sim --rate 1Gbit --rtt 100ms --duration 2s --trace FILE

    One round trip of the twelve is the handshake; in the thirteenth the path delivers at its rate.
    """
    link = link_of(1e9, 100 * MS)
    (flow,) = run(Experiment(link, [FlowSpec(duration_ns=2 * SECOND)])).flows
    landed = flow.delivered_between(1200 * MS, 1300 * MS)
    assert landed * 8 / 0.1 >= 0.9 * 1e9 * payload_share(link)


def jain_of_two(control: str, rate_bps: float, stagger_ns: int, duration_ns: int) -> float:
    """Over the time that both are there; the link is full meanwhile."""
    flows = [FlowSpec(control, duration_ns=duration_ns, start_ns=index * stagger_ns) for index in range(2)]
    outcome = run(Experiment(link_of(rate_bps, 40 * MS), flows))
    assert outcome.ideal_share is not None
    assert outcome.ideal_share >= 0.9
    assert outcome.jain_index is not None
    return outcome.jain_index


@pytest.mark.parametrize("control", ["bbr", "cubic", "newreno"])
def test_two_flows_share(control: str) -> None:
    """nettool sim --rate 50Mbit --flows 2 --duration 20s --cc bbr,cubic,newreno"""
    assert jain_of_two(control, 50e6, 0, 20 * SECOND) >= 0.95


@pytest.mark.parametrize("control", ["bbr", "cubic", "newreno"])
def test_who_comes_later_gets_a_share(control: str) -> None:
    """nettool sim --rate 10Mbit --flows 2 --stagger 2s --duration 60s --cc bbr,cubic,newreno"""
    assert jain_of_two(control, 10e6, 2 * SECOND, 60 * SECOND) >= 0.95


def test_bbr_keeps_a_deep_queue_short() -> None:
    """nettool sim --duration 20s --queue 4bdp"""
    queue = QueueSpec(limit_bytes=int(4 * 100e6 * 0.04 / 8))
    outcome = run(Experiment(link_of(100e6, 40 * MS, queue=queue), [FlowSpec("bbr", duration_ns=20 * SECOND)]))
    assert outcome.queue_mean_ns <= 0.5 * 40 * MS
    assert outcome.queue_p95_ns <= 1.5 * 40 * MS


@pytest.mark.parametrize(("validates", "round_trips"), [(False, 2.2), (True, 3.2)])
def test_a_small_file_takes_two_round_trips(validates: bool, round_trips: float) -> None:
    """nettool sim --size 10kB --rtt 100ms --validate"""
    link = link_of(100e6, 100 * MS)
    outcome = run(Experiment(link, [FlowSpec(size_bytes=10_000, validates_address=validates)]))
    assert outcome.is_finished
    assert outcome.duration_ns <= round_trips * 100 * MS


def window_packets(control: str, rtt_ns: int, loss: float, seconds: int) -> float:
    """The mean window at a loss rate, in packets: goodput x RTT on a link that never fills, losing data alone."""
    forward = PathSpec(rate_bps=2e9, delay_ns=rtt_ns // 2, loss=loss)
    backward = PathSpec(rate_bps=2e9, delay_ns=rtt_ns // 2)
    outcome = run(Experiment(LinkSpec(forward, backward), [FlowSpec(control, duration_ns=seconds * SECOND)]))
    (flow,) = outcome.flows
    landed = flow.delivered_between((seconds // 4) * SECOND, seconds * SECOND)
    return landed / PAYLOAD_BYTES * rtt_ns / ((seconds - seconds // 4) * SECOND)


@pytest.mark.parametrize("loss", [0.01, 0.003])
def test_newreno_follows_the_square_root_of_loss(loss: float) -> None:
    """Mathis et al., equation 3: W = C / sqrt(p), C = sqrt(3/2) with an acknowledgement of every packet.

    nettool sim --cc newreno --rate 2Gbit --loss 1%,0.3% --duration 60s
    """
    expected = math.sqrt(1.5 / loss)
    assert 0.75 * expected <= window_packets("newreno", 40 * MS, loss, 60) <= 1.25 * expected


@pytest.mark.parametrize("loss", [0.003, 0.001])
def test_cubic_follows_its_response_function(loss: float) -> None:
    """RFC 9438 section 5.1: W = (C (3 + beta) / (4 (1 - beta)))^(1/4) x RTT^(3/4) / p^(3/4), at 200 ms.

    nettool sim --cc cubic --rate 2Gbit --rtt 200ms --loss 0.3%,0.1% --duration 150s
    """
    expected = (0.4 * 3.7 / (4 * 0.3)) ** 0.25 * 0.2**0.75 / loss**0.75
    assert 0.8 * expected <= window_packets("cubic", 200 * MS, loss, 150) <= 1.25 * expected
