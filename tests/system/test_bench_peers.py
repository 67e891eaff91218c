"""Outside programs, where they are installed: each transfers what its job names, and reports the result."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from toolkit.comparison.campaign import run
from toolkit.comparison.records import UNRELIABLE, Results
from toolkit.comparison.rows import YARDSTICK
from toolkit.comparison.scenario import Scenario
from toolkit.comparison.summary import summarise
from toolkit.comparison.verdict import NO_CLAIM
from toolkit.errors import UsageError
from toolkit.report.text import report_text

needs_iperf3 = pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed")
needs_aioquic = pytest.mark.skipif(importlib.util.find_spec("aioquic") is None, reason="aioquic is not installed")


def campaign(transports: str, folder: Path, size: int = 1 << 20) -> Results:
    scenario = Scenario(
        "loopback", transports=transports, sizes=(str(size),), repeats=1, control=False, folder=folder, limit="20s"
    )
    return run(scenario.plan(), lambda _record: None)


@needs_iperf3
def test_iperf3_over_tcp_is_an_outside_baseline(tmp_path: Path) -> None:
    for trial in campaign("iperf3-tcp", tmp_path, 64 << 20).trials:
        assert trial.verified, trial.error
        assert trial.goodput_bps is not None
        assert trial.goodput_bps > 0
        assert trial.retransmitted_packets is not None
        assert trial.cost.cpu_seconds_sender is not None


@needs_iperf3
def test_iperf3_over_udp_repairs_no_losses_and_gets_no_verdict(tmp_path: Path) -> None:
    results = campaign("udp,iperf3-udp=50Mbit", tmp_path)
    trials = [trial for trial in results.trials if trial.transport == "iperf3-udp=50Mbit"]
    for trial in trials:
        assert trial.verified, trial.error
        assert UNRELIABLE in trial.marks
        assert trial.goodput_bps is not None
        assert 0 < trial.goodput_bps < 60e6
    row = next(row for row in summarise(results).rows if row.transport == "iperf3-udp=50Mbit")
    assert row.verdict == NO_CLAIM


def test_a_copy_of_the_file_is_a_yardstick_without_a_verdict(tmp_path: Path) -> None:
    results = campaign("tcp,cp", tmp_path)
    for trial in results.trials:
        assert trial.verified, trial.error
        assert trial.goodput_bps is not None
    summary = summarise(results)
    row = next(row for row in summary.rows if row.transport == "cp")
    assert (row.verdict, results.campaign.comparison_count) == (YARDSTICK, 0)
    assert row.ratio is not None
    assert "cp" not in summary.headline[0]
    assert "yardstick" in report_text([summary])
    with pytest.raises(UsageError, match="leave it out"):
        Scenario("link", transports="tcp,cp").plan()


@needs_iperf3
def test_the_error_asks_for_a_rate_if_the_path_has_none(tmp_path: Path) -> None:
    for trial in campaign("iperf3-udp", tmp_path).trials:
        assert trial.error is not None
        assert "iperf3-udp=1Gbit" in trial.error


@needs_aioquic
def test_quic_transfers_the_same_file(tmp_path: Path) -> None:
    results = campaign("udp,quic,quic-cubic", tmp_path)
    assert all(trial.verified for trial in results.trials), [trial.error for trial in results.trials]
    assert len({trial.sender.digest for trial in results.trials}) == 1
    assert {trial.sender.congestion_control for trial in results.trials} >= {"reno", "cubic"}
    assert sorted(path.name for path in tmp_path.iterdir()) == []
