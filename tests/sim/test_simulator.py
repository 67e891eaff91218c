"""The simulator itself: its clock against closed forms, its batching against packet by packet, its figures by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest

from toolkit.errors import UsageError
from toolkit.netmodel.ideal import ideal_bytes, ideal_ns
from toolkit.netmodel.path import Fate
from toolkit.netmodel.spec import BurstLoss, LinkChange, LinkSpec, PathSpec, QueueSpec
from toolkit.rudp.connection import Connection
from toolkit.simulator.experiment import Experiment, run
from toolkit.simulator.result import QueueingDelay, jain_index
from toolkit.simulator.simulator import CORRUPT, IP_UDP_BYTES, TOO_LARGE, FlowSpec, Simulator

MS = 1_000_000
SECOND = 1000 * MS
PLAIN = PathSpec(rate_bps=100e6, delay_ns=20 * MS)
CROSSING_NS = 20 * MS + 1228 * 8 * 10  # of a 1,200-byte datagram at 100 Mb/s


def link_of(path: PathSpec, seed: int = 1, mtu_bytes: int = 1500) -> LinkSpec:
    return LinkSpec(path, path, mtu_bytes, seed)


# Time


def test_one_packet_takes_the_handshake_and_its_own_way() -> None:
    """INITIAL and DATA cross the link by propagation and transmission; so do ACCEPT and ACK, which are small."""
    (flow,) = Simulator(link_of(PLAIN), [FlowSpec(size_bytes=1, start_ns=3 * MS)]).run()
    accept_ns, ack_ns = ((IP_UDP_BYTES + size) * 8 * 10 for size in (34, 74))
    first_flight_ns = CROSSING_NS + accept_ns + 20 * MS
    data_ns = 20 * MS + (IP_UDP_BYTES + 38 + IP_UDP_BYTES + 27) * 8 * 10  # behind the PING
    assert flow.start_ns == 3 * MS
    assert flow.delivered_ns - flow.start_ns == pytest.approx(first_flight_ns + data_ns, abs=60_000)
    assert flow.finished_ns is not None
    assert flow.finished_ns - flow.delivered_ns == pytest.approx(20 * MS + ack_ns, abs=60_000)


def test_address_validation_costs_one_round_trip() -> None:
    plain, validated = (
        Simulator(link_of(PLAIN), [FlowSpec(size_bytes=1000, validates_address=validates)]).run()[0]
        for validates in (False, True)
    )
    assert plain.finished_ns is not None
    assert validated.finished_ns is not None
    assert validated.finished_ns - plain.finished_ns == pytest.approx(CROSSING_NS + 20 * MS, abs=100_000)


def test_a_delay_of_its_own_counts_each_way() -> None:
    near, far = Simulator(
        link_of(PLAIN), [FlowSpec(size_bytes=1000), FlowSpec(size_bytes=1000, extra_delay_ns=15 * MS, start_ns=SECOND)]
    ).run()
    assert far.min_rtt_ns - near.min_rtt_ns == pytest.approx(30 * MS, abs=100_000)


def test_a_duration_ends_a_flow() -> None:
    (flow,) = Simulator(link_of(PLAIN), [FlowSpec(duration_ns=2 * SECOND, start_ns=SECOND)]).run()
    assert (flow.end_ns, flow.finished_ns, flow.failure) == (3 * SECOND, None, "")
    assert flow.landed_bytes > 10e6


def test_a_flow_without_an_end_is_refused() -> None:
    with pytest.raises(UsageError, match="never end"):
        FlowSpec()


def test_the_limit_ends_what_cannot_end() -> None:
    (flow,) = Simulator(link_of(replace(PLAIN, loss=1.0)), [FlowSpec(size_bytes=1)]).run(SECOND)
    assert (flow.end_ns, flow.landed_bytes, flow.failure) == (SECOND, 0, "the handshake did not complete")

    (flow,) = Simulator(link_of(PLAIN), [FlowSpec(size_bytes=64 << 20)]).run(SECOND)
    assert "not finished" in flow.failure
    assert 0 < flow.landed_bytes < 64 << 20


def test_an_engine_that_never_sleeps_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.rudp.connection.Connection.poll_timeout", lambda _self: 0)
    with pytest.raises(RuntimeError, match="for ever"):
        Simulator(link_of(PLAIN), [FlowSpec(size_bytes=1000)]).run()


# Batches


@pytest.fixture
def packet_by_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No packet waits for the next one, and each interrupts."""
    monkeypatch.setattr(Connection, "bytes_until_ack", 0)


@pytest.mark.parametrize(
    "path",
    [
        PLAIN,
        replace(PLAIN, loss=0.02),
        replace(PLAIN, reorder=0.02, duplicate=0.02),
        replace(PLAIN, queue=QueueSpec(codel=True)),
        replace(PLAIN, burst=BurstLoss.from_share(0.02, 2 * MS)),
    ],
    ids=["clean", "loss", "disorder", "codel", "bursts"],
)
@pytest.mark.parametrize("control", ["bbr", "cubic"])
def test_batches_change_nothing(
    path: PathSpec, control: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed up alone or in batches: the same acknowledgements at the same nanoseconds, and so the same course."""
    monkeypatch.setattr("toolkit.simulator.host.INTERRUPT_INTERVAL_NS", 0)
    flows = [FlowSpec(control, size_bytes=1 << 20)]
    (batched,) = Simulator(link_of(path), flows).run()
    request.getfixturevalue("packet_by_packet")
    (single,) = Simulator(link_of(path), flows).run()
    assert len(batched.progress) < len(single.progress)
    assert replace(batched, progress=[]) == replace(single, progress=[])


# What the link does to the flow


def test_the_rate_is_shared_by_all_flows_and_never_exceeded() -> None:
    outcome = run(Experiment(link_of(PLAIN), [FlowSpec("cubic", duration_ns=3 * SECOND) for _ in range(3)]))
    assert outcome.ideal_share is not None
    assert 0.8 < outcome.ideal_share <= 1
    assert all(flow.landed_bytes for flow in outcome.flows)


def test_the_seed_decides() -> None:
    one, same, other = (
        Simulator(link_of(replace(PLAIN, loss=0.05), seed), [FlowSpec(size_bytes=300_000)]).run() for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_what_is_lost_is_what_is_sent_again() -> None:
    """The books of a clean path with a queue of ten packets: everything sent landed or was dropped, bit by bit."""
    path = replace(PLAIN, queue=QueueSpec(limit_bytes=15_000))
    (flow,) = Simulator(link_of(path), [FlowSpec("cubic", size_bytes=4 << 20)]).run()
    assert set(flow.lost_packets) == {"queue"}
    assert flow.sent_payload_bytes == flow.landed_bytes + flow.lost_bytes
    assert flow.retransmitted_bytes == flow.lost_bytes > 0
    assert flow.retransmission_ratio == 1


def test_damaged_packets_are_lost_and_counted() -> None:
    (flow,) = Simulator(link_of(replace(PLAIN, corrupt=0.05, duplicate=0.05)), [FlowSpec(size_bytes=1 << 20)]).run()
    assert flow.lost_packets[CORRUPT] > 10
    assert flow.finished_ns is not None


def test_a_datagram_that_is_too_large_for_the_path_never_arrives() -> None:
    """The path carries 1,300 bytes, the hosts believe 1,500: the engine's search finds what gets through."""
    simulator = Simulator(link_of(PLAIN), [FlowSpec(size_bytes=4 << 20)])
    for path in (simulator._forward, simulator._backward):
        path._mtu_bytes = 1300
    (flow,) = simulator.run()
    assert flow.finished_ns is not None
    assert flow.lost_packets[TOO_LARGE] >= 3
    ((client, _),) = simulator._ends
    assert client.connection is not None
    assert 1250 <= client.connection.stats().datagram_bytes <= 1300 - IP_UDP_BYTES


def test_jumbo_packets_are_used_where_the_link_has_them() -> None:
    (flow,) = Simulator(link_of(PLAIN, mtu_bytes=9000), [FlowSpec(size_bytes=4 << 20)]).run()
    assert flow.sent_payload_bytes / flow.packets_sent > 7000


def test_ecn_marks_spare_the_packets() -> None:
    path = replace(PLAIN, queue=QueueSpec(codel=True, ecn=True))
    flow, dropped = (
        Simulator(link_of(replace(PLAIN, queue=queue)), [FlowSpec("cubic", size_bytes=8 << 20)]).run()[0]
        for queue in (path.queue, QueueSpec(codel=True))
    )
    assert dropped.lost_packets["aqm"] > 0
    assert "aqm" not in flow.lost_packets


def test_samples_come_at_their_distance() -> None:
    simulator = Simulator(link_of(PLAIN), [FlowSpec(size_bytes=1 << 20)] * 2, 10 * MS)
    simulator.run()
    times = [sample.time_ns for sample in simulator.samples if sample.flow == 1]
    assert {b - a for a, b in pairwise(times)} == {10 * MS}
    landed = [sample.landed_bytes for sample in simulator.samples if sample.flow == 0]
    assert landed == sorted(landed)
    assert all(sample.congestion_window_bytes > 0 for sample in simulator.samples)


# Figures


def test_jain_index() -> None:
    assert jain_index([5.0, 5.0, 5.0]) == 1
    assert jain_index([7.0, 0.0]) == 0.5
    assert jain_index([1.0, 3.0]) == pytest.approx(0.8)


def test_queueing_delay_is_weighted_by_packets() -> None:
    queueing = QueueingDelay(replace(PLAIN, changes=(LinkChange(SECOND, rate_bps=50e6, delay_ns=30 * MS),)))
    queueing.add(0, Fate(0, 1, "", 20 * MS + 120_000), 1500)
    queueing.add(1, Fate(1, 3, "", 24 * MS + 120_001, 120_000), 1500)
    queueing.add(SECOND, Fate(4, 1, "", SECOND + 30 * MS + 240_000), 1500)
    assert queueing.mean_ns == pytest.approx(3 * 4.12 * MS / 5)
    assert queueing.percentile_ns(40) == 0
    assert queueing.percentile_ns(95) == pytest.approx(4.12 * MS)


def test_ideal_of_a_path_that_changes() -> None:
    """8 Mb/s, from 1 s on 4 Mb/s, down from 2 s to 3 s, then a quarter lost: payload is all there is to a packet."""
    path = PathSpec(
        rate_bps=8e6,
        changes=(
            LinkChange(SECOND, rate_bps=4e6),
            LinkChange(2 * SECOND, blackout_ns=SECOND),
            LinkChange(3 * SECOND, loss=0.25),
        ),
    )
    assert ideal_ns(path, 1.0, 1_000_000, 0) == SECOND
    assert ideal_ns(path, 1.0, 1_500_000, 0) == 2 * SECOND
    assert ideal_ns(path, 1.0, 1_875_000, 0) == 4 * SECOND
    assert ideal_ns(path, 0.5, 250_000, SECOND) == SECOND
    assert ideal_bytes(path, 1.0, 0, 4 * SECOND) == 1_875_000
    assert ideal_bytes(path, 0.5, 2 * SECOND, 3 * SECOND) == 0
    assert ideal_ns(PathSpec(), 1.0, 1, 0) is None
    assert ideal_bytes(PathSpec(), 1.0, 0, 1) is None


def test_ideal_counts_bursts_and_damage() -> None:
    path = PathSpec(rate_bps=8e6, burst=BurstLoss.from_share(0.1, MS), corrupt=0.5)
    assert ideal_bytes(path, 1.0, 0, SECOND) == pytest.approx(450_000)
