"""Trials over links of this machine: probed, audited from end to end, and honest where something is wrong."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.warm_starts import FRESH
from toolkit.comparison import background_flow
from toolkit.comparison.campaign import open_testbed, rerun, run
from toolkit.comparison.plan import Plan, TrialSpec
from toolkit.comparison.record_file import Record
from toolkit.comparison.records import LEDGER_OFF, Probe, Results, Trial
from toolkit.comparison.scenario import Scenario
from toolkit.comparison.summary import summarise
from toolkit.comparison.trial import TrialRunner
from toolkit.comparison.verdict import NO_CLAIM
from toolkit.comparison.workspace import workspace
from toolkit.emulator import tun_device
from toolkit.emulator.link import Link
from toolkit.errors import NettoolError
from toolkit.netmodel.spec import LinkSpec

# The emulator, and it alone, loses one packet in sixty, or more, of UDP, and counts the packet as delivered.
LIAR = """
import os, sys
if "toolkit.emulator.start" in getattr(sys, "orig_argv", []):
    written, count = os.writev, [0]
    def writev(descriptor, buffers):
        data = b"".join(buffers)
        if len(data) > 600 and any(data[h] >> 4 == 4 and data[h + 9] == 17 for h in (10, 12)):
            count[0] += len(data) // 1400
            if count[0] >= 60:
                count[0] = 0
                return len(data)
        return written(descriptor, buffers)
    os.writev = writev
"""
KIB = 1 << 10

LinkOptions = Mapping[str, Sequence[str | bool]]


@pytest.fixture(scope="module", autouse=True)
def _namespaces(warm: None) -> None:  # noqa: ARG001
    try:
        with Link(LinkSpec()):
            pass
    except NettoolError as error:
        pytest.skip(f"no links here: {error}")


def plan(link: LinkOptions, folder: Path, kind: str = "link", transports: str = "tcp,udp", **more: str) -> Plan:
    """One block over one path, with probes and without the control."""
    scenario = Scenario(kind, transports, repeats=1, control=False, folder=folder, link=link, **more)  # type: ignore[arg-type]
    return scenario.plan()


def one_of_each(planned: Plan, size_bytes: int, limit_s: float = 60.0) -> list[Trial]:
    """One trial of each transport, without a warm-up and without a probe."""
    (path,) = planned.paths
    with workspace([size_bytes], planned.seed, planned.folder) as files, open_testbed(planned, path) as testbed:
        runner = TrialRunner(testbed, files, limit_s=limit_s)
        specs = [TrialSpec(0, setting, size_bytes) for setting in planned.settings]
        return [runner.run(spec, position, link_seed=1) for position, spec in enumerate(specs)]


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, list[Record]]:
    """A whole campaign over a lossy link, and the records that it wrote."""
    records: list[Record] = []
    link = {"rate": ["50Mbit"], "rtt": ["20ms"], "loss": ["1%"]}
    planned = replace(plan(link, tmp_path_factory.mktemp("lossy")), sizes=[1024 * KIB])
    return run(planned, records.append), records


def test_every_record_is_written_as_soon_as_it_is_known(lossy: tuple[Results, list[Record]]) -> None:
    results, records = lossy
    assert records[0] == results.campaign
    assert [record for record in records if isinstance(record, Trial)] == results.trials
    assert [record for record in records if isinstance(record, Probe)] == results.probes


def test_the_probe_measures_the_link(lossy: tuple[Results, list[Record]]) -> None:
    (probe,) = lossy[0].probes
    assert probe.rtt_ms is not None
    assert probe.rtt_ms.median > 19.5
    assert probe.loss is not None
    found = re.search(r"of ([0-9,]+) packets", probe.text)
    assert found is not None
    packets = int(found[1].replace(",", ""))
    assert probe.loss > 0 or 0.99**packets > 1e-6  # a busy machine sends too few to be sure of a loss


def test_all_transports_of_a_block_share_the_seed_of_the_link(lossy: tuple[Results, list[Record]]) -> None:
    seeds = {(trial.block, trial.link_seed) for trial in lossy[0].trials}
    assert len(seeds) == len({block for block, _ in seeds}) == 2


def test_trials_over_a_lossy_link_are_verified_and_audited(lossy: tuple[Results, list[Record]]) -> None:
    for trial in lossy[0].trials:
        assert trial.verified, trial.error
        assert trial.ledger is not None
        assert LEDGER_OFF not in trial.marks, trial.ledger
        # Of few packets, the queue may drop those that would be lost: on a busy machine, a burst is hundreds too long.
        assert trial.ledger.forward.lost_by_link or trial.ledger.forward.dropped_by_queue
        assert trial.ledger.forward.sent is not None
        assert trial.ledger.forward.received is not None
        assert trial.cost.wire_bytes_per_payload_byte is not None
        assert trial.cost.wire_bytes_per_payload_byte > 1.03
        assert trial.delay is not None
        assert trial.delay.median_ms > 19
        assert trial.retransmitted_packets
    assert any(trial.ledger is not None and trial.ledger.forward.lost_by_link for trial in lossy[0].trials)


def test_a_recorded_trial_can_be_run_again(lossy: tuple[Results, list[Record]], tmp_path: Path) -> None:
    results, _ = lossy
    recorded = results.trials[-1]
    again = rerun(replace(results, campaign=replace(results.campaign, is_probed=False)), recorded, tmp_path)
    assert again.verified, again.error
    assert again.link_seed == recorded.link_seed
    assert again.sender.digest == recorded.sender.digest


@pytest.mark.parametrize(
    ("link", "size_bytes"),
    [
        (
            {"rate": ["50Mbit"], "rtt": ["20ms"], "loss": ["3%"], "duplicate": ["3%"], "both_ways": [True]},
            512 * KIB,
        ),
        ({"rate": ["50Mbit"], "rtt": ["400ms"]}, 64 * KIB),  # some 20 pings are in flight when the transfer ends
    ],
    ids=["impairments in both directions", "a long round trip"],
)
def test_impairments_of_the_link_do_not_disturb_the_audit(link: LinkOptions, size_bytes: int, tmp_path: Path) -> None:
    for trial in one_of_each(plan(link, tmp_path), size_bytes):
        assert trial.verified, trial.error
        assert LEDGER_OFF not in trial.marks, (trial.transport, trial.ledger)


def test_a_link_that_silently_drops_packets_of_one_transport_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "liar").mkdir()
    (tmp_path / "liar" / "sitecustomize.py").write_text(LIAR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "liar"))
    monkeypatch.setenv(FRESH, "toolkit.emulator")
    planned = plan({"rate": ["100Mbit"], "rtt": ["10ms"]}, tmp_path)
    trials = one_of_each(planned, 4096 * KIB)
    for trial in trials:
        assert trial.ledger is not None
        is_cheated = trial.transport == "udp-bbr"
        assert (LEDGER_OFF in trial.marks) == is_cheated, trial.ledger.forward
        assert (trial.ledger.forward.balance > 30) == is_cheated
    campaign = replace(planned.campaign("memory"), sizes=[4096 * KIB])
    row = next(row for row in summarise(Results(campaign, trials)).rows if row.transport == "udp-bbr")
    assert row.verdict == NO_CLAIM
    assert LEDGER_OFF in row.because


@pytest.mark.parametrize("emulator", ["tun", "switch"])
def test_the_packets_of_a_lan_are_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulator: str) -> None:
    if emulator == "switch":
        monkeypatch.setattr(tun_device, "TUN_DEVICE", "/dev/net/none")  # the process of a link is a fork of this one
    for trial in one_of_each(plan({"rate": ["1Gbit"]}, tmp_path, "lan"), 4096 * KIB):
        assert trial.verified, trial.error
        assert trial.ledger is not None
        assert trial.ledger.emulator == emulator
        assert LEDGER_OFF not in trial.marks, trial.ledger
        for audited in (trial.ledger.forward, trial.ledger.backward):
            assert None not in (audited.sent, audited.offered, audited.received)
        assert trial.ledger.wire_bytes is not None
        assert trial.goodput_bps is not None
        assert trial.goodput_bps < 1e9


def test_the_probe_of_a_lan_without_a_rate_has_nothing_to_meet(tmp_path: Path) -> None:
    planned = plan({}, tmp_path, "lan")
    with open_testbed(planned, planned.paths[0]) as testbed:
        probe = testbed.probe()
    assert probe is not None
    assert probe.is_met is None
    assert probe.rate_bps is not None


def test_a_background_flow_is_measured_alone_and_beside_the_transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_flow, "ALONE_S", 1.0)
    monkeypatch.setattr(background_flow, "RAMP_UP_S", 0.3)
    link = {"rate": ["10Mbit"], "rtt": ["10ms"]}
    planned = replace(plan(link, tmp_path, transports="tcp", competitor="tcp-cubic"), is_probed=False)
    spec = TrialSpec(0, planned.settings[0], 512 * KIB)
    recorded = Trial(0, 0, spec.setting.label, planned.paths[0].label, spec.payload_bytes, True, 1.0, 1e6, link_seed=1)
    trial = rerun(Results(planned.campaign("memory"), [recorded]), recorded, tmp_path)
    assert trial.verified, trial.error
    assert trial.competitor is not None
    assert trial.goodput_bps is not None
    alone_bps, beside_bps = trial.competitor.goodput_bps_alone, trial.competitor.goodput_bps_beside
    assert 0 < alone_bps < 10.5e6  # on a busy machine much less, even less than beside
    assert 0 < beside_bps < 12e6 - trial.goodput_bps
    assert 0.5 <= trial.competitor.jain <= 1
    assert "shared the path" in trial.why


def test_a_transfer_beyond_its_time_limit_is_recorded_as_failed(tmp_path: Path) -> None:
    planned = plan({"rate": ["1Mbit"], "rtt": ["10ms"]}, tmp_path, transports="udp")
    (trial,) = one_of_each(planned, 4096 * KIB, limit_s=1.0)
    assert trial.error == "the sender was not done after 1 s"
    assert not trial.verified
