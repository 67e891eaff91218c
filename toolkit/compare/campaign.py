"""Runs a campaign from its plan to its records, or one recorded trial again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from toolkit.compare.background_flow import BackgroundFlow
from toolkit.compare.paths import LOOPBACK, REMOTE, BenchPath
from toolkit.compare.plan import MAX_REPEATS, WARM_UP, Plan, TrialSpec, schedule
from toolkit.compare.record_file import Record, newest
from toolkit.compare.records import EMULATOR_LATE, Probe, Results, Trial
from toolkit.compare.remote import RemoteTestbed
from toolkit.compare.scenario import plan_of_record
from toolkit.compare.testbed import LoopbackTestbed, Testbed
from toolkit.compare.trial import TrialRunner
from toolkit.compare.workspace import Workspace, workspace
from toolkit.errors import UsageError

_RETRIES = 1
"""How often a trial is repeated at once if something else on this machine has disturbed the emulator."""


def run(plan: Plan, write: Callable[[Record], None], done: Results | None = None) -> Results:
    """Run the plan, except for the trials in `done`, and `write` each record as soon as it is known.

    Raises NettoolError if a path cannot be created, or a record cannot be written; earlier records remain in the file.
    """
    trials = list(done.trials) if done is not None else []
    probes = list(done.probes) if done is not None else []
    finished = {(t.path, t.block, t.transport, t.payload_bytes) for t in trials}  # a failed trial is not repeated
    with workspace(plan.sizes, plan.seed, plan.folder) as files:
        campaign = plan.campaign(files.storage) if done is None else done.campaign
        is_written = done is not None
        for number, path in enumerate(plan.paths):
            specs = [
                spec
                for spec in schedule(plan.all_settings, plan.sizes, plan.repeats, _path_seed(plan.seed, number))
                if (path.label, spec.block, spec.setting.label, spec.payload_bytes) not in finished
            ]
            if all(spec.block == WARM_UP for spec in specs):
                continue
            position = 1 + max((t.position for t in trials), default=-1)
            for record in _run_path(plan, path, number, specs, position, files):
                if not is_written:  # only once there is a path to measure
                    write(campaign)
                    is_written = True
                write(record)
                if isinstance(record, Trial):
                    trials.append(record)
                else:
                    probes.append(record)
    return Results(campaign, newest(trials), probes)


def trial_of(results: Results, number: int) -> Trial:
    """The trial with this number, counted from 1 as in tables. Raises UsageError."""
    for trial in results.trials:
        if trial.position + 1 == number:
            return trial
    raise UsageError(f"there is no trial {number}: the records hold {len(results.trials)}, counted from 1")


def rerun(results: Results, trial: Trial, folder: Path | None = None) -> Trial:
    """Run a recorded trial again: the same bytes over the same link, with the same random numbers of the link.

    Raises NettoolError if its path cannot be created.
    """
    plan = plan_of_record(results.campaign, folder)
    setting = next(s for s in plan.all_settings if s.label == trial.transport)
    path = next(path for path in plan.paths if path.label == trial.path)
    spec = TrialSpec(trial.block, setting, trial.payload_bytes)
    seed = trial.link_seed or 0
    with workspace([trial.payload_bytes], plan.seed, folder) as files, open_testbed(plan, path) as testbed:
        probed = testbed.probe() if plan.is_probed else None
        return _runner(plan, testbed, files, probed, seed).run(spec, trial.position, seed)


def open_testbed(plan: Plan, path: BenchPath) -> AbstractContextManager[Testbed]:
    """The testbed for the trials of a path."""
    if path.kind == LOOPBACK:
        return LoopbackTestbed(path)
    if path.kind == REMOTE:
        assert plan.remote_address is not None
        return RemoteTestbed(
            path,
            plan.remote_address,
            plan.remote_wait_s,
            max(plan.sizes),
            plan.remote_credential,
            needs_plaintext=any(each.program is None and not each.is_encrypted for each in plan.settings),
        )
    from toolkit.compare.emulated_testbed import EmulatedTestbed

    return EmulatedTestbed(path)


def link_seed(seed: int, path_number: int, block: int) -> int:
    """Seed of the link's random draws: the same for every transport and size of a block."""
    return _path_seed(seed, path_number) * MAX_REPEATS + block + 1


def _run_path(
    plan: Plan, path: BenchPath, number: int, specs: Sequence[TrialSpec], position: int, files: Workspace
) -> Iterator[Probe | Trial]:
    with open_testbed(plan, path) as testbed:
        probed = testbed.probe() if plan.is_probed else None
        if probed is not None:
            yield probed
        runner = _runner(plan, testbed, files, probed, link_seed(plan.seed, number, WARM_UP))
        for spec in specs:
            seed = link_seed(plan.seed, number, spec.block)
            for _ in range(1 + _RETRIES):
                trial = runner.run(spec, position, seed)
                position += 1
                yield trial
                if EMULATOR_LATE not in trial.marks or spec.block == WARM_UP:
                    break


def _runner(plan: Plan, testbed: Testbed, files: Workspace, probed: Probe | None, seed: int) -> TrialRunner:
    """A runner for the plan's trials; the background flow, if any, is measured alone first."""
    background_flow = BackgroundFlow(plan.background_flow) if plan.background_flow is not None else None
    if background_flow is not None:
        background_flow.measure_alone(testbed, seed)
    return TrialRunner(testbed, files, probed, plan.limit_s, background_flow)


def _path_seed(seed: int, path_number: int) -> int:
    return seed * 1009 + path_number
