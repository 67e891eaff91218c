"""Campaigns over links of this machine: probed, accounted for from end to end, and honest where something is amiss."""

from pathlib import Path

import pytest

from toolkit.compare.campaign import rerun, run
from toolkit.compare.comparison import NO_CLAIM, summarise
from toolkit.compare.record_file import Record, newest
from toolkit.compare.records import LEDGER_OFF, Probe, Results, Trial
from toolkit.compare.scenario import Scenario
from toolkit.emulator.link import Link
from toolkit.errors import NettoolError
from toolkit.netmodel.spec import LinkSpec

# The emulator, and it alone, loses one packet in sixty, or more, of one protocol, and counts it as delivered.
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


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    try:
        with Link(LinkSpec()):
            pass
    except NettoolError as error:
        pytest.skip(f"no links here: {error}")


def campaign(tmp_path: Path, kind: str = "link", **asked: object) -> Results:
    records: list[Record] = []
    settings = {"transports": "tcp,udp", "repeats": 1, "control": False, "folder": tmp_path, **asked}
    results = run(Scenario(kind, **settings).plan(), records.append)  # type: ignore[arg-type]
    assert newest([r for r in records if isinstance(r, Trial)]) == results.trials
    assert [r for r in records if isinstance(r, Probe)] == results.probes
    assert all(trial.verified for trial in results.trials), [trial.error for trial in results.trials]
    return results


def test_a_lossy_link_from_the_probe_to_the_reasons(tmp_path: Path) -> None:
    link = {"rate": ["50Mbit"], "rtt": ["20ms"], "loss": ["1%"]}
    results = campaign(tmp_path, sizes=("2MiB",), link=link)
    (probe,) = results.probes
    assert probe.rtt_ms is not None
    assert 19.5 < probe.rtt_ms.median < 25
    assert probe.loss == pytest.approx(0.01, abs=0.01)
    seeds = {(trial.block, trial.link_seed) for trial in results.trials}
    assert len(seeds) == len({block for block, _ in seeds}) == 2  # one a block, whatever the transport
    for trial in results.trials:
        ledger = trial.ledger
        assert ledger is not None
        assert LEDGER_OFF not in trial.marks, ledger
        assert ledger.forward.lost_by_link > 0
        assert ledger.forward.sent is not None
        assert ledger.forward.received is not None
        assert 1.03 < (trial.cost.wire_bytes_per_payload_byte or 0) < 2
        assert trial.delay is not None
        assert trial.delay.median_ms > 19
        assert trial.retransmitted_packets
    again = rerun(results, results.trials[-1], tmp_path)
    assert again.verified
    assert again.link_seed == results.trials[-1].link_seed


@pytest.mark.parametrize(
    "link",
    [
        {"rate": ["50Mbit"], "rtt": ["20ms"], "loss": ["3%"], "duplicate": ["1%"], "both_ways": [True]},
        {"rate": ["50Mbit"], "rtt": ["400ms"]},  # more than a dozen pings are on their way when the transfer ends
    ],
    ids=["harm on both ways", "a long way"],
)
def test_what_a_link_does_by_its_nature_is_no_cheating(link: dict[str, list[object]], tmp_path: Path) -> None:
    for trial in campaign(tmp_path, sizes=("2MiB",), link=link, probes=False).trials:
        assert LEDGER_OFF not in trial.marks, (trial.transport, trial.ledger)


def test_a_link_that_drops_one_side_s_packets_in_secret_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lies").mkdir()
    (tmp_path / "lies" / "sitecustomize.py").write_text(LIAR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lies"))
    link = {"rate": ["100Mbit"], "rtt": ["10ms"]}
    results = campaign(tmp_path, sizes=("6MiB",), link=link, probes=False)
    for trial in results.trials:
        assert trial.ledger is not None
        is_cheated = trial.transport == "udp-bbr"
        assert (LEDGER_OFF in trial.marks) == is_cheated, trial.ledger.forward
        assert (trial.ledger.forward.balance > 30) == is_cheated
    row = next(row for row in summarise(results).rows if row.transport == "udp-bbr")
    assert row.verdict == NO_CLAIM
    assert LEDGER_OFF in row.no_claim_because


def test_a_lan_has_ends_of_its_own_and_counts_what_they_say(tmp_path: Path) -> None:
    results = campaign(tmp_path, "lan", sizes=("4MiB",), link={"rate": ["1Gbit"]})
    assert results.probes[0].is_met is None
    for trial in results.trials:
        assert trial.ledger is not None
        assert LEDGER_OFF not in trial.marks, trial.ledger
        assert trial.goodput_bps is not None
        assert trial.goodput_bps < 1e9


def test_a_competitor_is_measured_alone_and_beside(tmp_path: Path) -> None:
    link = {"rate": ["20Mbit"], "rtt": ["10ms"]}
    results = campaign(tmp_path, transports="tcp", sizes=("1MiB",), link=link, competitor="tcp-cubic", probes=False)
    for trial in results.trials:
        assert trial.competitor is not None
        assert 10e6 < trial.competitor.goodput_bps_alone < 21e6
        assert trial.competitor.goodput_bps_beside < trial.competitor.goodput_bps_alone
        assert 0.5 <= trial.competitor.jain <= 1
    again = rerun(results, results.trials[-1], tmp_path)
    assert again.competitor is not None
    assert again.competitor.goodput_bps_alone > 10e6


def test_a_transfer_that_takes_too_long_is_given_up_and_told(tmp_path: Path) -> None:
    link = {"rate": ["1Mbit"], "rtt": ["10ms"]}
    settings = {"transports": "udp", "sizes": ("4MiB",), "repeats": 1, "control": False, "probes": False}
    plan = Scenario("link", folder=tmp_path, limit="1s", link=link, **settings).plan()  # type: ignore[arg-type]
    results = run(plan, lambda _record: None)
    assert {trial.error for trial in results.trials} == {"the sender was not done after 1 s"}
    assert not any(trial.verified for trial in results.trials)
