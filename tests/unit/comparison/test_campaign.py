"""The course of a campaign: which trials run, in which order, and what is written when."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_testbed import Clock, FakeTestbed, NoisyTestbed
from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison import campaign
from toolkit.comparison.campaign import link_seed, run, trial_of
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.packet_counts import DirectionAudit, PacketAudit
from toolkit.comparison.paths import BenchPath
from toolkit.comparison.plan import WARM_UP, Plan
from toolkit.comparison.record_file import Record
from toolkit.comparison.records import EMULATOR_LATE, Campaign, Probe, Results, Trial
from toolkit.comparison.sampling import width
from toolkit.comparison.scenario import Scenario
from toolkit.comparison.summary import summarise
from toolkit.errors import TransferError, UsageError

SENT = EndpointResult(seconds=0.1, is_delivered=True, goodput_bps=1e6)
LATE = PacketAudit(DirectionAudit(), DirectionAudit(), late_p99_ms=1000.0)

Run = Callable[..., tuple[Results, list[Record]]]


def plan(folder: Path, repeats: int = 2) -> Plan:
    return scenario(folder, repeats=repeats).plan()


def scenario(folder: Path, **more: Any) -> Scenario:
    link = {"rate": ["10Mbit"], "rtt": ["10ms", "20ms"]}
    return Scenario("link", "tcp,udp", None, ("4KiB",), seed=1, folder=folder, control=False, link=link, **more)


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


class Waits:
    """Stands for Patience, waits a second each time, and repeats each trial of `repeated` once.

    patience_s: what is left at the start; reserves_s: what each trial left for later paths
    """

    patience_s: float
    reserves_s: list[float]
    repeated = ""

    def __init__(self, patience_s: float, _on_wait: Callable[[float], object]) -> None:
        Waits.patience_s = self.left_s = patience_s
        Waits.reserves_s = []

    def attempts(self, run: Callable[[], Trial], reserve_s: float) -> Iterator[Trial]:
        Waits.reserves_s.append(reserve_s)
        self.left_s -= 1.0
        trial = run()
        if trial.transport == Waits.repeated:
            yield replace(trial, is_repeated=True)
            trial = run()
        yield replace(trial, waited_s=1.0)

    def probes(self, measure: Callable[[], None], _reserve_s: float) -> Iterator[Probe]:
        assert measure() is None  # by a fake testbed
        return iter([])


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan with a patience of 20 s, whose waits are those of `Waits`."""
    monkeypatch.setattr(campaign, "Patience", Waits)
    return scenario(tmp_path, repeats=2, patience="20s").plan()


def test_every_trial_but_a_warm_up_waits_for_quiet_processors(run_with: Run, patient: Plan) -> None:
    results, _ = run_with(patient)
    assert {(trial.block == WARM_UP, trial.waited_s) for trial in results.trials} == {(True, 0.0), (False, 1.0)}
    assert Waits.patience_s == results.campaign.patience_s == 20.0
    assert Waits.reserves_s == [10.0] * 4 + [0.0] * 4  # half of it is for the second path
    assert any("All of this lasts at most 20 s" in line for line in results.campaign.method)


@pytest.fixture
def repeating(patient: Plan, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The same plan; each trial of UDP is repeated once."""
    monkeypatch.setattr(Waits, "repeated", "udp-bbr")
    return patient


def test_a_repeated_trial_is_written_and_counts_nowhere(run_with: Run, repeating: Plan) -> None:
    results, written = run_with(repeating)
    trials = [record for record in written if isinstance(record, Trial)]
    assert [trial.position for trial in trials] == list(range(12 + 4))
    assert {(trial.transport, trial.block >= 0) for trial in results.repeated} == {("udp-bbr", True)}
    assert len(results.repeated) == 4
    assert results.trials == [trial for trial in trials if not trial.is_repeated]
    assert cells(results) == cells(run_with(replace(repeating, patience_s=0.0))[0])


def test_a_trial_whose_repeat_is_missing_is_measured_when_the_campaign_is_resumed(
    run_with: Run, repeating: Plan
) -> None:
    whole, written = run_with(repeating)
    first = next(number for number, record in enumerate(written) if isinstance(record, Trial) and record.is_repeated)
    begun = [record for record in written[: first + 1] if isinstance(record, Trial)]
    half = Results(whole.campaign, begun[:-1], whole.probes, repeated=begun[-1:])
    resumed, _ = run_with(repeating, done=half)
    assert cells(resumed) == cells(whole)
    positions = [trial.position for trial in (*resumed.trials, *resumed.repeated)]
    assert sorted(positions) == list(range(12 + 5))  # the first attempt came once more


def test_a_resumed_campaign_has_the_patience_that_is_left(run_with: Run, patient: Plan) -> None:
    whole, _ = run_with(patient)
    half = Results(whole.campaign, [trial for trial in whole.trials if trial.position < 6], whole.probes)
    run_with(patient, done=half)
    assert Waits.patience_s == 20.0 - sum(trial.waited_s for trial in half.trials)
    repeated = replace(
        half.trials[-1], position=6, is_repeated=True, elapsed_s=(half.trials[-1].elapsed_s or 0.0) + 3.0
    )
    run_with(patient, done=replace(half, repeated=[repeated]))  # it took 3 s, and was not measured again
    assert Waits.patience_s == pytest.approx(20.0 - sum(trial.waited_s for trial in half.trials) - 3.0)


def test_a_trial_that_the_emulator_disturbed_is_marked_and_kept(run_with: Run, tmp_path: Path) -> None:
    results, written = run_with(plan(tmp_path, repeats=1), ledger=LATE)
    assert written[1:] == results.trials
    assert [trial.position for trial in results.trials] == list(range(8))
    assert {tuple(trial.marks) for trial in results.trials} == {(EMULATOR_LATE,)}


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a plan whose transports vary on the path of 20 ms only, on a clock that a trial moves by a second."""

    def runner(planned: Plan, done: Results | None = None) -> tuple[Results, list[Record]]:
        clock = Clock()

        def open_testbed(_plan: Plan, path: BenchPath) -> NoisyTestbed:
            return NoisyTestbed(path, 0.02 if "20 ms" in path.label else 0.0, clock)

        monkeypatch.setattr(campaign, "open_testbed", open_testbed)
        monkeypatch.setattr(campaign, "time", clock)
        written: list[Record] = []
        return run(planned, written.append, done), written

    return runner


def test_a_budget_is_spent_where_the_interval_is_wide(noisy: Run, tmp_path: Path) -> None:
    results, written = noisy(scenario(tmp_path, budget="5min").plan())
    assert written[1:] == results.trials
    blocks = Counter(trial.path for trial in results.trials if trial.transport == "udp-bbr" and trial.block >= 0)
    quiet, wide = (blocks[path] for path in results.campaign.paths)
    assert quiet == 8
    assert wide in (20, 27, 36)
    assert [trial.elapsed_s for trial in results.trials] == [1.0 + n for n in range(len(results.trials))]
    rows = [row for row in summarise(results).rows if row.transport == "udp-bbr"]
    assert [row.trials for row in rows] == [quiet, wide]
    assert all(width(row.ratio.interval, row.margin) <= 1 for row in rows if row.ratio is not None)


def test_a_budget_ends_the_campaign(noisy: Run, tmp_path: Path) -> None:
    results, _ = noisy(scenario(tmp_path, budget="60s").plan())
    assert results.trials[-1].elapsed_s == 60.0  # the next seven blocks of two trials would take until 74 s
    pilot, _ = noisy(scenario(tmp_path, budget="5s").plan())
    assert len(pilot.trials) == 2 * 2 * 9


@pytest.mark.parametrize("left_out", [1, 2, 3, 10, 30])
def test_a_resumed_campaign_goes_on_with_the_same_blocks(noisy: Run, tmp_path: Path, left_out: int) -> None:
    planned = scenario(tmp_path, budget="5min").plan()
    whole, _ = noisy(planned)
    resumed, written = noisy(planned, Results(whole.campaign, whole.trials[:-left_out]))
    assert resumed.trials == whole.trials
    assert written == whole.trials[-left_out:]
    again, written = noisy(planned, resumed)
    assert (again.trials, written) == (whole.trials, [])


def test_a_trial_by_its_number() -> None:
    results = make_results(Truth({("tcp-cubic", "a"): 90e6}), 1)
    assert trial_of(results, 3) == results.trials[2]
    with pytest.raises(UsageError, match="no trial 1000"):
        trial_of(results, 1000)
    repeated = replace(results.trials[0], position=len(results.trials), is_repeated=True)
    assert trial_of(replace(results, repeated=[repeated]), len(results.trials) + 1) == repeated


def test_the_link_has_one_seed_for_each_block() -> None:
    seeds = {link_seed(seed, path, block) for seed in (1, 2) for path in (0, 1, 2) for block in range(-1, 50)}
    assert len(seeds) == 2 * 3 * 51
    assert link_seed(1, 0, 3) == link_seed(1, 0, 3)
