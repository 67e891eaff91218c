"""Runs a campaign from its plan to its records, or one recorded trial again."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

from toolkit.comparison.background_flow import BackgroundFlow
from toolkit.comparison.paths import LOOPBACK, REMOTE, BenchPath
from toolkit.comparison.patience import Patience
from toolkit.comparison.plan import MAX_REPEATS, WARM_UP, Plan, TrialSpec, further_block, schedule
from toolkit.comparison.record_file import Record
from toolkit.comparison.records import Probe, Results, Trial
from toolkit.comparison.remote import RemoteTestbed
from toolkit.comparison.remote_probe import fitting_time_s
from toolkit.comparison.sampling import elapsed_s, further_blocks, patience_spent_s
from toolkit.comparison.scenario import plan_of_record
from toolkit.comparison.testbed import LoopbackTestbed, Testbed
from toolkit.comparison.trial import TrialRunner
from toolkit.comparison.workspace import Workspace, workspace
from toolkit.errors import UsageError


def run(
    plan: Plan,
    write: Callable[[Record], None],
    done: Results | None = None,
    on_wait: Callable[[float], object] = lambda _left_s: None,
) -> Results:
    """Run the plan, except for the trials in `done`, and `write` each record as soon as it is known.

    on_wait: is called about every half second while a trial waits for quiet processors, with the seconds of patience
             that are left

    No trial is repeated because of how it came out, whether it failed or is marked. A timed trial that the hypervisor
    disturbed is measured again, while patience lasts (`toolkit.comparison.patience`).

    Raises NettoolError if a path cannot be created, or a record cannot be written; earlier records remain in the file.
    """
    probes = []
    if plan.is_time_open:
        plan, probe = _with_fitting_time(plan)
        probes.append(probe)
    with (
        workspace(plan.file_sizes, plan.seed, plan.folder) as files,
        _Run(plan, write, done, files, on_wait) as running,
    ):
        for probe in probes:
            running.keep_probe(probe)
        for number in range(len(plan.paths)):
            seed = _path_seed(plan.seed, number)
            specs = schedule(plan.all_settings, plan.sizes, plan.repeats, seed)
            running.run(number, list(specs), len(plan.paths) - number)
        if plan.budget_s is not None:
            labels = [path.label for path in plan.paths]
            while (following := further_blocks(running.results, running.now_s())) is not None:
                number, size = labels.index(following.path), following.payload_bytes
                seed = _path_seed(plan.seed, number)
                for block in following.blocks:
                    running.run(number, further_block(plan.all_settings, size, block, seed))
        return running.results


class _Run:
    """A campaign that runs: its records so far, and the path that is open; a context manager that closes the path."""

    def __init__(
        self,
        plan: Plan,
        write: Callable[[Record], None],
        done: Results | None,
        files: Workspace,
        on_wait: Callable[[float], object],
    ) -> None:
        self._plan = plan
        self._write = write
        self._files = files
        self._campaign = plan.campaign(files.storage) if done is None else done.campaign
        self._is_written = done is not None
        self._trials = list(done.trials) if done is not None else []
        self._repeated = list(done.repeated) if done is not None else []
        self._probes = list(done.probes) if done is not None else []
        self._probed: set[int] = set()  # numbers of paths
        self._finished = {(t.path, t.block, t.transport, t.payload_bytes) for t in self._trials}
        attempts = done.attempts if done is not None else []
        self._position = 1 + max((trial.position for trial in attempts), default=-1)
        self._started_s = time.monotonic() - elapsed_s(attempts)
        self._patience = Patience(plan.patience_s - patience_spent_s(attempts), on_wait)
        self._open_number: int | None = None
        self._open = ExitStack()
        self._runner: TrialRunner | None = None

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def results(self) -> Results:
        """The records so far."""
        return Results(self._campaign, self._trials, self._probes, repeated=self._repeated)

    def now_s(self) -> float:
        """How much time the campaign has taken, without interruptions."""
        return time.monotonic() - self._started_s

    def run(self, number: int, specs: Sequence[TrialSpec], paths_left: int = 1) -> None:
        """Run the trials that are not finished on the path of this number; a warm-up alone is left out.

        paths_left: between how many paths, this one included, what is left of the patience is divided
        """
        label = self._plan.paths[number].label
        left = [
            spec for spec in specs if (label, spec.block, spec.setting.label, spec.payload_bytes) not in self._finished
        ]
        if all(spec.block == WARM_UP for spec in left):
            return
        reserve_s = self._patience.left_s * (1 - 1 / paths_left)
        runner = self._runner_on(number, reserve_s)
        for spec in left:
            self._measure(runner, spec, link_seed(self._plan.seed, number, spec.block), reserve_s)

    def _measure(self, runner: TrialRunner, spec: TrialSpec, seed: int, reserve_s: float) -> None:
        """Run a trial, and again if it has to be repeated."""

        def attempt() -> Trial:
            return runner.run(spec, self._position, seed)

        attempts = [attempt()] if spec.block == WARM_UP else self._patience.attempts(attempt, reserve_s)
        for trial in attempts:
            self._keep(replace(trial, elapsed_s=round(self.now_s(), 3)))
            self._position += 1

    def keep_probe(self, probe: Probe) -> None:
        """Keep what was measured of a path before this campaign; it is not measured again."""
        self._probed.add(next(n for n, path in enumerate(self._plan.paths) if path.label == probe.path))
        self._keep(probe)

    def _runner_on(self, number: int, reserve_s: float) -> TrialRunner:
        """The runner on the path of this number, which is opened, and probed when it is opened first."""
        if self._runner is None or self._open_number != number:
            self._open.close()
            path = self._plan.paths[number]
            testbed = self._open.enter_context(open_testbed(self._plan, path))
            self._open_number = number
            if self._plan.is_probed and number not in self._probed:
                self._probed.add(number)
                for probe in self._patience.probes(testbed.probe, reserve_s):
                    self._keep(probe)
            probed = next((probe for probe in reversed(self._probes) if probe.path == path.label), None)
            seed = link_seed(self._plan.seed, number, WARM_UP)
            self._runner = _runner(self._plan, testbed, self._files, probed, seed)
        return self._runner

    def _keep(self, record: Probe | Trial) -> None:
        if not self._is_written:  # only once there is a path to measure
            self._write(self._campaign)
            self._is_written = True
        self._write(record)
        if isinstance(record, Trial):
            (self._repeated if record.is_repeated else self._trials).append(record)
        else:
            self._probes.append(record)


def trial_of(results: Results, number: int) -> Trial:
    """The trial with this number, counted from 1 as in tables. Raises UsageError."""
    attempts = results.attempts
    for trial in attempts:
        if trial.position + 1 == number:
            return trial
    raise UsageError(f"there is no trial {number}: the records hold {len(attempts)}, counted from 1")


def rerun(results: Results, trial: Trial, folder: Path | None = None) -> Trial:
    """Run a recorded trial again: the same bytes over the same link, with the same random numbers of the link.

    Raises NettoolError if its path cannot be created.
    """
    plan = plan_of_record(results.campaign, folder)
    setting = next(s for s in plan.all_settings if s.label == trial.transport)
    path = next(path for path in plan.paths if path.label == trial.path)
    spec = TrialSpec(trial.block, setting, trial.payload_bytes)
    seed = trial.link_seed or 0
    with (
        workspace([trial.payload_bytes] if trial.payload_bytes else [], plan.seed, folder) as files,
        open_testbed(plan, path) as testbed,
    ):
        probed = testbed.probe() if plan.is_probed else None
        return _runner(plan, testbed, files, probed, seed).run(spec, trial.position, seed)


def open_testbed(plan: Plan, path: BenchPath) -> AbstractContextManager[Testbed]:
    """The testbed for the trials of a path."""
    if path.kind == LOOPBACK:
        return LoopbackTestbed(path)
    if path.kind == REMOTE:
        return _remote_testbed(plan, path)
    from toolkit.comparison.emulated_testbed import EmulatedTestbed

    return EmulatedTestbed(path)


def _remote_testbed(plan: Plan, path: BenchPath) -> RemoteTestbed:
    assert plan.remote_address is not None
    return RemoteTestbed(
        path,
        plan.remote_address,
        plan.remote_wait_s,
        max(plan.sizes),
        plan.remote_credential,
        needs_plaintext=any(each.program is None and not each.is_encrypted for each in plan.settings),
    )


def _with_fitting_time(plan: Plan) -> tuple[Plan, Probe]:
    """A remote plan whose trials take a time that suits its path, and what was measured for that."""
    (path,) = plan.paths
    with _remote_testbed(plan, path) as testbed:
        probe = testbed.probe()
    time_s = fitting_time_s(plan, probe)
    return replace(plan, time_s=time_s, is_time_open=False, remote_credential=testbed.credential), probe


def link_seed(seed: int, path_number: int, block: int) -> int:
    """Seed of the link's random draws: the same for every transport and size of a block."""
    return _path_seed(seed, path_number) * MAX_REPEATS + block + 1


def _runner(plan: Plan, testbed: Testbed, files: Workspace, probed: Probe | None, seed: int) -> TrialRunner:
    """A runner for the plan's trials; the background flow, if any, is measured alone first."""
    background_flow = BackgroundFlow(plan.background_flow) if plan.background_flow is not None else None
    if background_flow is not None:
        background_flow.measure_alone(testbed, seed)
    return TrialRunner(testbed, files, probed, plan.limit_s, background_flow, plan.time_s, plan.seed)


def _path_seed(seed: int, path_number: int) -> int:
    return seed * 1009 + path_number
