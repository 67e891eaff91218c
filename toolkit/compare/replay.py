"""One trial again, from its record alone: the same bytes, the same link, the same random numbers of the link."""

from pathlib import Path

from toolkit.compare.background_flow import Competitor
from toolkit.compare.campaign import place_of
from toolkit.compare.plan import Turn
from toolkit.compare.records import Results, Trial
from toolkit.compare.scenario import plan_of_record
from toolkit.compare.trial import run_trial
from toolkit.compare.workspace import workspace
from toolkit.errors import UsageError


def trial_of(results: Results, number: int) -> Trial:
    """The trial of that number, counted from 1 as tables do. Raises UsageError."""
    for trial in results.trials:
        if trial.position + 1 == number:
            return trial
    raise UsageError(f"there is no trial {number}: there are {len(results.trials)}, from 1 on")


def rerun(results: Results, trial: Trial, folder: Path | None = None) -> Trial:
    """Run it again. Raises NettoolError where its path cannot be made."""
    plan = plan_of_record(results.campaign, folder)
    setting = next(s for s in plan.all_settings if s.label == trial.transport)
    path = next(path for path in plan.paths if path.label == trial.path)
    turn = Turn(trial.block, setting, trial.payload_bytes)
    with workspace([trial.payload_bytes], plan.seed, folder) as files, place_of(plan, path) as place:
        probed = place.probe() if plan.is_probed else None
        seed = trial.link_seed or 0
        competitor = Competitor(plan.competitor) if plan.competitor is not None else None
        if competitor is not None:
            competitor.measure_alone(place, seed)
        return run_trial(place, turn, trial.position, files, seed, probed, plan.limit_s, competitor)
