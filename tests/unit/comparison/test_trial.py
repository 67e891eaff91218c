"""What the record of a trial says about transfers with a known outcome; no process and no path is involved."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.fake_testbed import FakeTestbed
from toolkit.comparison.conditions import SocketSettings, TrialConditions
from toolkit.comparison.endpoint_result import EndpointResult, Samples
from toolkit.comparison.machine_load import LoadCounters, MachineLoad
from toolkit.comparison.packet_counts import DirectionAudit, PacketAudit
from toolkit.comparison.paths import LAN_KIND, BenchPath, from_options, loopback, remote
from toolkit.comparison.plan import TrialSpec, parse_transports
from toolkit.comparison.records import (
    BUSY_MACHINE,
    CPU_BOUND,
    EMULATOR_LATE,
    HOST_DROPS,
    LEDGER_OFF,
    PARTIAL,
    PROBE_OFF,
    SELF_LOSS,
    UNRELIABLE,
    Probe,
    Setting,
    Trial,
)
from toolkit.comparison.trial import TrialRunner
from toolkit.comparison.workspace import Workspace
from toolkit.errors import TransferError

SIZE = 1_000_000
LINK = from_options("link", {"rate": "100Mbit", "rtt": "40ms"}, seed=1)
TIMES = [point / 100 for point in range(101)]
SENDER = EndpointResult(
    size_bytes=SIZE,
    seconds=1.0,
    digest="00",
    connect_s=0.05,
    started_s=100.0,
    packets_retransmitted=3,
    congestion_control="bbr",
    series=Samples(
        t_s=TIMES,
        delivered_bytes=[SIZE * t for t in TIMES],
        congestion_window_bytes=[1e5] * 101,
        rtt_ms=[40.0] * 101,
        retransmitted_packets=[0.0] * 101,
        recovering_s=[0.0] * 101,
        receiver_limited_s=[0.0] * 101,
        busy_s=[0.1 * t for t in TIMES],
    ),
)
RECEIVER = EndpointResult(size_bytes=SIZE, seconds=0.95, digest="00", started_s=100.05)
BALANCED = PacketAudit(DirectionAudit(700, 700, delivered=700, received=700), DirectionAudit(70, 70), 1_100_000)
NOT_MET = Probe("a", None, None, None, None, False, "too slow")


def trial(
    tmp_path: Path,
    sender: EndpointResult | TransferError = SENDER,
    receiver: EndpointResult | TransferError = RECEIVER,
    ledger: PacketAudit | None = BALANCED,
    path: BenchPath = LINK,
    probe: Probe | None = None,
    setting: Setting = parse_transports("udp")[0],  # noqa: B008 - frozen
) -> Trial:
    testbed = cast(Any, FakeTestbed(path, sender, receiver, ledger))
    runner = TrialRunner(testbed, Workspace(tmp_path, "memory"), probe)
    return runner.run(TrialSpec(2, setting, SIZE), 7, link_seed=5)


@pytest.mark.parametrize(
    ("path", "name", "backlog_bytes"),
    [(remote("far"), "tcp", None), (remote("far"), "udp", 1 << 16), (LINK, "tcp", 125_000), (LINK, "udp", 125_000)],
)
def test_what_is_held_unsent_follows_from_no_measured_rate(
    tmp_path: Path, path: BenchPath, name: str, backlog_bytes: int | None
) -> None:
    """A probe that found a path far too slow would throttle TCP, and make UDP the faster one."""
    testbed = FakeTestbed(path, SENDER, RECEIVER)
    probe = Probe(path.label, 1e6, None, None, None, None, "")
    runner = TrialRunner(cast(Any, testbed), Workspace(tmp_path, "memory"), probe, time_s=1.0)
    runner.run(TrialSpec(2, parse_transports(name)[0], 0), 7, link_seed=5)
    assert [job.backlog_bytes for job in testbed.jobs] == [backlog_bytes]


def test_conditions_are_recorded_and_a_busy_machine_is_marked(tmp_path: Path) -> None:
    ticks = {"user": 0, "nice": 0, "system": 0, "idle": 0, "iowait": 0, "irq": 0, "softirq": 0, "steal": 0}
    testbed = FakeTestbed(LINK, replace(SENDER, counters={"segment_bytes": 1448}), RECEIVER, BALANCED)
    testbed.loads = [
        LoadCounters(ticks, 0, None, 1.0),
        LoadCounters({**ticks, "user": 60, "idle": 130, "steal": 10}, 40, None, 2.0),
    ]
    runner = TrialRunner(cast(Any, testbed), Workspace(tmp_path, "memory"))
    recorded = runner.run(TrialSpec(2, parse_transports("udp")[0], SIZE), 7, link_seed=5)
    assert recorded.marks == [BUSY_MACHINE]
    assert not recorded.is_doubtful  # the mark is named with the verdict, which it does not forbid
    assert recorded.conditions == TrialConditions(
        sender=SocketSettings(segment_bytes=1448),
        device=testbed.device(),
        tcp_metrics="not-saved",
        load=MachineLoad(0.1, 0.05),
    )


def timed(tmp_path: Path, receiver: EndpointResult, sender: EndpointResult = SENDER, path: BenchPath = LINK) -> Trial:
    testbed = cast(Any, FakeTestbed(path, sender, receiver, BALANCED))
    runner = TrialRunner(testbed, Workspace(tmp_path, "memory"), time_s=0.5, seed=3)
    return runner.run(TrialSpec(2, parse_transports("udp")[0], 0), 7, link_seed=5)


def test_a_timed_trial_counts_what_had_arrived_when_the_time_was_up(tmp_path: Path) -> None:
    recorded = timed(tmp_path, replace(RECEIVER, cut_s=100.5, cut_bytes=400_000))
    assert (recorded.payload_bytes, recorded.content_bytes, recorded.error) == (0, SIZE, None)
    assert recorded.seconds == pytest.approx(0.5)
    assert recorded.goodput_bps == pytest.approx(8 * 400_000 / 0.5)
    assert recorded.cost.wire_bytes_per_payload_byte == pytest.approx(1.1)  # of all that was sent
    assert recorded.series is not None
    assert (recorded.series.t_s[-1], recorded.series.delivered_bytes[-1]) == (0.5, 400_000)
    assert recorded.time_split is not None
    assert sum(recorded.time_split.by_kind().values()) == pytest.approx(0.5)
    assert recorded.time_split.tail_s == 0


def test_the_receiver_knows_the_deadline_before_the_sender_starts(tmp_path: Path) -> None:
    """Afterwards, a busy machine could run this process only when all was over."""
    testbed = FakeTestbed(LINK, SENDER, RECEIVER)
    runner = TrialRunner(cast(Any, testbed), Workspace(tmp_path, "memory"), time_s=0.5)
    runner.run(TrialSpec(2, parse_transports("udp")[0], 0), 7, link_seed=5)
    assert testbed.calls == ["set_deadline", "go"]


def test_a_timed_trial_between_two_clocks_counts_all_until_it_is_verified(tmp_path: Path) -> None:
    recorded = timed(tmp_path, RECEIVER, path=remote("192.0.2.1"))
    assert (recorded.verified, recorded.seconds) == (True, SENDER.seconds)
    assert SENDER.seconds is not None
    assert recorded.goodput_bps == pytest.approx(8 * SIZE / SENDER.seconds)
    empty = timed(tmp_path, replace(RECEIVER, size_bytes=0), replace(SENDER, size_bytes=0), path=remote("192.0.2.1"))
    assert empty.error == "no content was sent before the time was up"


@pytest.mark.parametrize("time_s", [None, 0.5])
def test_of_a_reverse_path_the_one_that_accepted_sends_and_the_clock_of_the_other_counts(
    tmp_path: Path, time_s: float | None
) -> None:
    far = replace(SENDER, connect_s=None, started_s=None, seconds=1.3)
    near = replace(RECEIVER, connect_s=0.07, seconds=1.1)
    testbed = FakeTestbed(remote("far", is_reverse=True), sender=near, receiver=far)
    runner = TrialRunner(cast(Any, testbed), Workspace(tmp_path, "memory"), time_s=time_s)
    recorded = runner.run(TrialSpec(2, parse_transports("udp")[0], 0 if time_s else SIZE), 7, link_seed=5)
    assert [job.is_reverse for job in testbed.jobs] == [True]
    assert (recorded.sender.digest, recorded.sender.seconds, recorded.receiver.seconds) == ("00", 1.3, 1.1)
    assert (recorded.verified, recorded.seconds, recorded.connect_s) == (True, 1.1, 0.07)
    assert recorded.goodput_bps == pytest.approx(8 * SIZE / 1.1)
    assert recorded.time_split is not None
    assert recorded.time_split.handshake_s == 0.07
    assert recorded.retransmitted_packets == SENDER.packets_retransmitted


def test_a_reverse_trial_that_fails_keeps_what_the_receiver_reported_as_the_receivers(tmp_path: Path) -> None:
    near = replace(RECEIVER, error="the sender failed: no bbr")
    testbed = FakeTestbed(remote("far", is_reverse=True), sender=near, receiver=TransferError("no result"))
    runner = TrialRunner(cast(Any, testbed), Workspace(tmp_path, "memory"), time_s=0.5)
    recorded = runner.run(TrialSpec(2, parse_transports("udp")[0], 0), 7, link_seed=5)
    assert (recorded.error, recorded.receiver, recorded.sender) == (
        "the sender failed: no bbr",
        replace(near, series=None),
        EndpointResult(),
    )


@pytest.mark.parametrize(
    ("receiver", "sender", "error"),
    [
        (replace(RECEIVER, cut_s=100.5, cut_bytes=0), SENDER, "nothing had arrived"),
        (replace(RECEIVER, cut_s=100.5, size_bytes=0), replace(SENDER, size_bytes=0), "before its time was up"),
        (replace(RECEIVER, cut_s=100.5, cut_bytes=5, digest="01"), SENDER, "content differs"),
        (replace(RECEIVER, cut_s=100.5, cut_bytes=5), replace(SENDER, error="it broke"), "it broke"),
    ],
)
def test_a_timed_trial_fails_as_a_whole(
    tmp_path: Path, receiver: EndpointResult, sender: EndpointResult, error: str
) -> None:
    recorded = timed(tmp_path, receiver, sender)
    assert not recorded.verified
    assert (recorded.seconds, recorded.goodput_bps, recorded.series) == (None, None, None)
    assert recorded.error is not None
    assert error in recorded.error


def test_a_verified_transfer(tmp_path: Path) -> None:
    recorded = trial(tmp_path)
    assert (recorded.block, recorded.position, recorded.transport, recorded.link_seed) == (2, 7, "udp-bbr", 5)
    assert recorded.verified
    assert (recorded.seconds, recorded.goodput_bps, recorded.error) == (1.0, 8 * SIZE, None)
    assert recorded.marks == []
    assert recorded.cost.wire_bytes_per_payload_byte == pytest.approx(1.1)
    assert recorded.time_split is not None
    assert recorded.time_split.handshake_s == 0.05
    assert recorded.why == "It was held back by bbr for 94% of the time (3 packets resent)."
    assert recorded.series is not None
    assert recorded.series.delivered_bytes[-1] == SIZE
    assert recorded.sender == replace(SENDER, series=None)


@pytest.mark.parametrize(
    ("sender", "receiver", "error"),
    [
        (SENDER, replace(RECEIVER, digest="01"), "the received content differs"),
        (replace(SENDER, digest=None), replace(RECEIVER, digest=None), "the received content differs"),
        (replace(SENDER, error="connection lost"), RECEIVER, "connection lost"),
        (SENDER, replace(RECEIVER, error="disk full"), "disk full"),
        (SENDER, TransferError("the receiver was not done"), "the receiver was not done"),
        (TransferError("the sender has ended"), RECEIVER, "the sender has ended"),
    ],
)
def test_a_failed_transfer_is_recorded_with_its_reason(
    sender: EndpointResult | TransferError, receiver: EndpointResult | TransferError, error: str, tmp_path: Path
) -> None:
    recorded = trial(tmp_path, sender, receiver)
    assert (recorded.verified, recorded.seconds, recorded.goodput_bps) == (False, None, None)
    assert recorded.error == error
    assert recorded.series is None


def test_a_failed_sender_explains_a_receiver_without_result(tmp_path: Path) -> None:
    failed = replace(SENDER, error="connection lost")
    recorded = trial(tmp_path, failed, TransferError("the receiver was not done"))
    assert recorded.error == "connection lost"
    assert recorded.receiver == EndpointResult()


def test_marks_of_the_link(tmp_path: Path) -> None:
    off = replace(BALANCED, forward=replace(BALANCED.forward, balance=50))
    assert trial(tmp_path, ledger=off).marks == [LEDGER_OFF]
    drops = replace(BALANCED, forward=replace(BALANCED.forward, dropped_by_host=50))
    assert trial(tmp_path, ledger=drops).marks == [HOST_DROPS]
    own = replace(BALANCED, forward=replace(BALANCED.forward, dropped_by_host=50, dropped_by_sender=50))
    assert trial(tmp_path, ledger=own).marks == [SELF_LOSS, HOST_DROPS]
    assert trial(tmp_path, ledger=replace(BALANCED, late_p99_ms=3.9)).marks == []
    assert trial(tmp_path, ledger=replace(BALANCED, late_p99_ms=4.1)).marks == [EMULATOR_LATE]
    assert trial(tmp_path, ledger=replace(BALANCED, dropped_by_emulator=1)).marks == [EMULATOR_LATE]
    assert trial(tmp_path, probe=NOT_MET).marks == [PROBE_OFF]


def test_what_the_sender_had_to_send_again_for_its_own_host_is_a_mark(tmp_path: Path) -> None:
    for drops, marks in ((10, []), (11, [SELF_LOSS])):
        sender = replace(SENDER, datagrams_sent=1000, local_drops=drops)
        assert trial(tmp_path, sender).marks == marks


def test_a_busy_processor_is_a_mark_only_on_an_emulated_link(tmp_path: Path) -> None:
    assert SENDER.series is not None
    busy = replace(SENDER, series=replace(SENDER.series, busy_s=[0.95 * t for t in TIMES]))
    assert trial(tmp_path, busy).marks == [CPU_BOUND]
    changing = from_options("link", {"rate": "100Mbit", "rtt": "40ms", "changes": ["1s rate 50Mbit"]}, seed=1)
    assert trial(tmp_path, busy, path=changing).marks == [CPU_BOUND]
    recorded = trial(tmp_path, busy, path=loopback(), ledger=None)
    assert recorded.marks == []
    assert "A processor was the limit" in recorded.why


def test_waiting_for_the_emulators_processor_is_a_mark_also_on_a_lan(tmp_path: Path) -> None:
    assert SENDER.series is not None
    lan = replace(LINK, kind=LAN_KIND)
    busy = replace(SENDER, series=replace(SENDER.series, busy_s=[0.95 * t for t in TIMES]))
    assert trial(tmp_path, busy, path=lan).marks == []
    series = replace(SENDER.series, busy_s=[0.0 for _ in TIMES], waiting_s=[0.95 * t for t in TIMES])
    waiting = replace(SENDER, series=series)
    assert trial(tmp_path, waiting, ledger=replace(BALANCED, emulator="tun"), path=lan).marks == [CPU_BOUND]
    assert trial(tmp_path, waiting, ledger=replace(BALANCED, emulator="switch"), path=lan).marks == []


def test_an_outside_program_without_a_digest_reports_its_own_figures(tmp_path: Path) -> None:
    iperf3 = parse_transports("iperf3-udp=50Mbit")[0]
    sender = EndpointResult(size_bytes=900, seconds=2.0, goodput_bps=4e6, is_delivered=True, is_unreliable=True)
    recorded = trial(tmp_path, sender, EndpointResult(), setting=iperf3)
    assert recorded.verified
    assert (recorded.seconds, recorded.goodput_bps, recorded.marks) == (2.0, 4e6, [UNRELIABLE])


@pytest.mark.parametrize(("counted", "marks"), [(0.94, [PARTIAL]), (0.95, []), (1.3, [])])
def test_a_program_that_counted_a_part_of_the_content_is_marked_and_pays_for_that_part(
    tmp_path: Path, counted: float, marks: list[str]
) -> None:
    iperf3 = parse_transports("iperf3-tcp")[0]
    size = int(counted * SIZE)
    recorded = trial(
        tmp_path, EndpointResult(size_bytes=size, seconds=2.0, goodput_bps=4e6, is_delivered=True), setting=iperf3
    )
    assert (recorded.verified, recorded.goodput_bps, recorded.marks) == (True, 4e6, marks)
    assert recorded.content_bytes == size
    assert recorded.cost.wire_bytes_per_payload_byte == pytest.approx(1_100_000 / size)


def test_a_setting_without_a_rate_needs_a_path_with_one(tmp_path: Path) -> None:
    iperf3 = parse_transports("iperf3-udp")[0]
    recorded = trial(tmp_path, path=loopback(), ledger=None, setting=iperf3)
    assert recorded.error is not None
    assert "iperf3-udp=1Gbit" in recorded.error
