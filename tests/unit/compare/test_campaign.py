"""The course of a campaign: which trials run, in which order, and what is written when."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fake_testbed import FakeTestbed
from tests.support.synthetic_campaign import Truth, make_results
from toolkit.compare import campaign
from toolkit.compare.campaign import link_seed, run, trial_of
from toolkit.compare.endpoint_result import EndpointResult
from toolkit.compare.paths import BenchPath
from toolkit.compare.plan import WARM_UP, Plan
from toolkit.compare.record_file import Record
from toolkit.compare.records import Campaign, DirectionAudit, PacketAudit, Results, Trial
from toolkit.compare.scenario import Scenario
from toolkit.errors import TransferError, UsageError

SENT = EndpointResult(seconds=0.1, is_delivered=True, goodput_bps=1e6)
LATE = PacketAudit(DirectionAudit(), DirectionAudit(), late_p99_ms=1000.0)

Run = Callable[..., tuple[Results, list[Record]]]


def plan(folder: Path, repeats: int = 2) -> Plan:
    link = {"rate": ["10Mbit"], "rtt": ["10ms", "20ms"]}
    return Scenario("link", "tcp,udp", None, ("4KiB",), repeats, 1, folder, control=False, link=link).plan()


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a plan over fake testbeds; the results, and the records in the order in which they were written."""

    def runner(
        planned: Plan,
        sender: EndpointResult | TransferError = SENT,
        ledger: PacketAudit | None = None,
        done: Results | None = None,
    ) -> tuple[Results, list[Record]]:
        def open_testbed(_plan: Plan, path: BenchPath) -> FakeTestbed:
            return FakeTestbed(path, sender, EndpointResult(), ledger)

        monkeypatch.setattr(campaign, "open_testbed", open_testbed)
        written: list[Record] = []
        return run(planned, written.append, done), written

    return runner


def cells(results: Results) -> list[tuple[str, int, str]]:
    return sorted((trial.path, trial.block, trial.transport) for trial in results.trials)


def test_every_cell_of_every_block_is_run_on_every_path(run_with: Run, tmp_path: Path) -> None:
    planned = plan(tmp_path)
    results, written = run_with(planned)
    assert len(results.trials) == planned.trial_count == 2 * 2 * 3
    labels = [path.label for path in planned.paths]
    assert cells(results) == [
        (path, block, name) for path in labels for block in (WARM_UP, 0, 1) for name in ("tcp-cubic", "udp-bbr")
    ]
    assert isinstance(written[0], Campaign)
    assert written[1:] == results.trials
    assert [trial.position for trial in results.trials] == list(range(12))


def test_a_failed_trial_does_not_end_the_campaign(run_with: Run, tmp_path: Path) -> None:
    results, _ = run_with(plan(tmp_path), TransferError("the sender has ended"))
    assert {trial.error for trial in results.trials} == {"the sender has ended"}
    assert len(results.trials) == 12


def test_a_resumed_campaign_runs_only_what_is_missing(run_with: Run, tmp_path: Path) -> None:
    planned = plan(tmp_path)
    whole, _ = run_with(planned)
    half = Results(whole.campaign, whole.trials[:7])
    resumed, written = run_with(planned, done=half)
    assert cells(resumed) == cells(whole)
    assert len(written) == 5
    assert [trial.position for trial in resumed.trials] == list(range(12))
    again, written = run_with(planned, done=resumed)
    assert (again.trials, written) == (resumed.trials, [])


def test_a_trial_that_the_emulator_disturbed_is_repeated_once(run_with: Run, tmp_path: Path) -> None:
    results, written = run_with(plan(tmp_path, repeats=1), ledger=LATE)
    trials = [record for record in written if isinstance(record, Trial)]
    assert len([trial for trial in trials if trial.block == WARM_UP]) == 4
    assert len([trial for trial in trials if trial.block == 0]) == 8
    assert len(results.trials) == 8  # the repetition replaces the disturbed trial
    assert {trial.position for trial in results.trials if trial.block == 0} == {3, 5, 9, 11}


def test_a_trial_by_its_number() -> None:
    results = make_results(Truth({("tcp-cubic", "a"): 90e6}), 1)
    assert trial_of(results, 3) == results.trials[2]
    with pytest.raises(UsageError, match="no trial 1000"):
        trial_of(results, 1000)


def test_the_link_has_one_seed_for_each_block() -> None:
    seeds = {link_seed(seed, path, block) for seed in (1, 2) for path in (0, 1, 2) for block in range(-1, 50)}
    assert len(seeds) == 2 * 3 * 51
    assert link_seed(1, 0, 3) == link_seed(1, 0, 3)
