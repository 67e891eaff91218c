"""The simulator: times against closed forms, batches against single packets, figures against hand calculation."""

from dataclasses import replace
from itertools import pairwise

import pytest

from toolkit.errors import UsageError
from toolkit.netmodel.ideal import ideal_bytes, ideal_ns
from toolkit.netmodel.path import Fate
from toolkit.netmodel.spec import BurstLoss, LinkChange, LinkSpec, PathSpec, QueueSpec
from toolkit.rudp.ack_tracker import AckTracker
from toolkit.simulator.result import QueueingDelay, jain_index
from toolkit.simulator.simulator import CORRUPT, IP_UDP_BYTES, TOO_LARGE, Experiment, FlowSpec, Simulator, run

MS = 1_000_000
SECOND = 1000 * MS
PLAIN = PathSpec(rate_bps=100e6, delay_ns=20 * MS)
CROSSING_NS = 20 * MS + 1228 * 8 * 10  # one way of a 1,200-byte datagram at 100 Mbit/s


def link_of(path: PathSpec, seed: int = 1, mtu_bytes: int = 1500) -> LinkSpec:
    return LinkSpec(path, path, mtu_bytes, seed)


# Time


def test_one_packet_takes_the_handshake_and_one_way() -> None:
    """Each flight takes propagation and transmission: INITIAL, the two ACCEPTs, FINISH with PING and DATA, and ACK."""
    (flow,) = Simulator(link_of(PLAIN), [FlowSpec(size_bytes=1, start_ns=3 * MS)]).run()
    accept_ns, finish_ns, ping_ns, data_ns, ack_ns = (
        (IP_UDP_BYTES * packets + size) * 8 * 10 for packets, size in ((2, 1383), (1, 1124), (1, 34), (1, 27), (1, 74))
    )
    first_flight_ns = CROSSING_NS + accept_ns + 20 * MS
    data_ns += 20 * MS + finish_ns + ping_ns
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


def test_an_extra_delay_applies_in_each_direction() -> None:
    near, far = Simulator(
        link_of(PLAIN), [FlowSpec(size_bytes=1000), FlowSpec(size_bytes=1000, extra_delay_ns=15 * MS, start_ns=SECOND)]
    ).run()
    assert far.min_rtt_ns - near.min_rtt_ns == pytest.approx(30 * MS, abs=100_000)


def test_a_flow_ends_after_its_duration() -> None:
    (flow,) = Simulator(link_of(PLAIN), [FlowSpec(duration_ns=2 * SECOND, start_ns=SECOND)]).run()
    assert (flow.end_ns, flow.finished_ns, flow.failure) == (3 * SECOND, None, "")
    assert flow.landed_bytes > 10e6


def test_a_flow_without_size_and_duration_is_rejected() -> None:
    with pytest.raises(UsageError, match="never ends"):
        FlowSpec()


def test_the_time_limit_ends_a_flow_that_cannot_finish() -> None:
    (flow,) = Simulator(link_of(replace(PLAIN, loss=1.0)), [FlowSpec(size_bytes=1)]).run(SECOND)
    assert (flow.end_ns, flow.landed_bytes, flow.failure) == (SECOND, 0, "the handshake did not complete")

    (flow,) = Simulator(link_of(PLAIN), [FlowSpec(size_bytes=64 << 20)]).run(SECOND)
    assert "not finished" in flow.failure
    assert 0 < flow.landed_bytes < 64 << 20


def test_an_engine_that_never_sleeps_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.rudp.connection.Connection.poll_timeout", lambda _self: 0)
    with pytest.raises(RuntimeError, match="never sleeps"):
        Simulator(link_of(PLAIN), [FlowSpec(size_bytes=1000)]).run()


# Batches


@pytest.fixture
def packet_by_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every packet wakes the host."""
    monkeypatch.setattr(AckTracker, "bytes_until_ack", 0)


@pytest.mark.parametrize(
    "path",
    [
        PLAIN,
        replace(PLAIN, loss=0.02),
        replace(PLAIN, reorder=0.02, duplicate=0.02),
        replace(PLAIN, queue=QueueSpec(codel=True)),
        replace(PLAIN, burst=BurstLoss.from_share(0.02, 2 * MS)),
    ],
    ids=["clean", "loss", "reordering", "codel", "bursts"],
)
@pytest.mark.parametrize("control", ["bbr", "cubic"])
def test_batches_do_not_change_the_result(
    path: PathSpec, control: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single packets or batches: the same acknowledgements at the same nanoseconds, hence the same result."""
    monkeypatch.setattr("toolkit.simulator.host.INTERRUPT_INTERVAL_NS", 0)
    flows = [FlowSpec(control, size_bytes=1 << 20)]
    (batched,) = Simulator(link_of(path), flows).run()
    request.getfixturevalue("packet_by_packet")
    (single,) = Simulator(link_of(path), flows).run()
    assert len(batched.progress) < len(single.progress)
    assert replace(batched, progress=[]) == replace(single, progress=[])


# What the link does to a flow


def test_flows_share_the_rate_and_do_not_exceed_it() -> None:
    result = run(Experiment(link_of(PLAIN), [FlowSpec("cubic", duration_ns=3 * SECOND) for _ in range(3)]))
    assert result.ideal_share is not None
    assert 0.8 < result.ideal_share <= 1
    assert all(flow.landed_bytes for flow in result.flows)


def test_the_seed_determines_the_result() -> None:
    one, same, other = (
        Simulator(link_of(replace(PLAIN, loss=0.05), seed), [FlowSpec(size_bytes=300_000)]).run() for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_retransmitted_bytes_equal_lost_bytes() -> None:
    """On a path with a queue of ten packets, every byte sent is delivered or dropped."""
    path = replace(PLAIN, queue=QueueSpec(limit_bytes=15_000))
    (flow,) = Simulator(link_of(path), [FlowSpec("cubic", size_bytes=4 << 20)]).run()
    assert set(flow.lost_packets) == {"queue"}
    assert flow.sent_payload_bytes == flow.landed_bytes + flow.lost_bytes
    assert flow.retransmitted_bytes == flow.lost_bytes > 0
    assert flow.retransmission_ratio == 1


def test_corrupted_packets_are_lost_and_counted() -> None:
    (flow,) = Simulator(link_of(replace(PLAIN, corrupt=0.05, duplicate=0.05)), [FlowSpec(size_bytes=1 << 20)]).run()
    assert flow.lost_packets[CORRUPT] > 10
    assert flow.finished_ns is not None


def test_a_datagram_larger_than_the_path_mtu_never_arrives() -> None:
    """The path carries 1,300 bytes and the hosts assume 1,500: the MTU search finds what gets through."""
    (flow,) = Simulator(link_of(PLAIN, mtu_bytes=1300), [FlowSpec(size_bytes=16 << 20, host_mtu_bytes=1500)]).run()
    assert flow.finished_ns is not None
    assert flow.lost_packets[TOO_LARGE] >= 3
    assert flow.sent_payload_bytes / flow.packets_sent > 1200  # 1,200-byte datagrams carry less


def test_jumbo_packets_are_used_where_the_link_allows_them() -> None:
    (flow,) = Simulator(link_of(PLAIN, mtu_bytes=9000), [FlowSpec(size_bytes=4 << 20)]).run()
    assert flow.sent_payload_bytes / flow.packets_sent > 7000


def test_ecn_marks_replace_drops() -> None:
    path = replace(PLAIN, queue=QueueSpec(codel=True, ecn=True))
    flow, dropped = (
        Simulator(link_of(replace(PLAIN, queue=queue)), [FlowSpec("cubic", size_bytes=8 << 20)]).run()[0]
        for queue in (path.queue, QueueSpec(codel=True))
    )
    assert dropped.lost_packets["aqm"] > 0
    assert "aqm" not in flow.lost_packets


def test_samples_are_taken_at_their_interval() -> None:
    simulator = Simulator(link_of(PLAIN), [FlowSpec(size_bytes=1 << 20)] * 2, 10 * MS)
    simulator.run()
    times = [sample.time_ns for sample in simulator.samples if sample.flow == 1]
    assert {b - a for a, b in pairwise(times)} == {10 * MS}
    delivered = [sample.landed_bytes for sample in simulator.samples if sample.flow == 0]
    assert delivered == sorted(delivered)
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


def test_the_ideal_of_a_path_that_changes() -> None:
    """8 Mbit/s, from 1 s on 4 Mbit/s, down from 2 s to 3 s, then 25% loss. Packets are all payload."""
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


def test_the_ideal_accounts_for_bursts_and_corruption() -> None:
    path = PathSpec(rate_bps=8e6, burst=BurstLoss.from_share(0.1, MS), corrupt=0.5)
    assert ideal_bytes(path, 1.0, 0, SECOND) == pytest.approx(450_000)
