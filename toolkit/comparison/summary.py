"""What a campaign shows: a row of figures for each transport on each path at each size, and the verdicts.

Two transports are compared by the ratio of their goodputs, block by block; `toolkit.comparison.verdict` decides what
the interval of the median ratio shows. The A/A control, the baseline run a second time, shows what this machine can
resolve.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from toolkit.comparison.conditions import TrialConditions, counted_settings
from toolkit.comparison.factorial import designs, factorials, judged_effects, mixes_factors
from toolkit.comparison.findings import PathVerdict, path_verdict
from toolkit.comparison.pairs import PairedTrials
from toolkit.comparison.paths import REMOTE
from toolkit.comparison.patience import DISTURBED_SHARE
from toolkit.comparison.records import CONTROL_SUFFIX, Campaign, Results
from toolkit.comparison.rows import Row, make_row
from toolkit.comparison.sampling import patience_spent_s
from toolkit.comparison.stats import MIN_SAMPLES
from toolkit.comparison.verdict import NO_CLAIM, Verdict, judge
from toolkit.units import format_fraction, format_seconds

_FIGURES = (
    "Figures: medians; intervals between order statistics, which hold at least 95% whatever the noise, none for fewer "
    f"than {MIN_SAMPLES} samples. A failed transfer is slower than any other, in medians as in the ratios, which are "
    "taken within blocks; a pair of two failed transfers is left out. Costs and delays are those of verified trials."
)
_VERDICTS = (
    "Verdicts: faster or slower if the interval of the ratio excludes 1, also after Holm's correction for the number "
    "of comparisons ({comparisons}); equivalent if it lies within {margin} of 1; else inconclusive; no claim without "
    "an interval, or if more than a fifth of either side's trials have a mark other than busy-machine, except that a "
    "side marked only cpu-bound may be called faster. {control}"
)
_CONTROL = (
    "If the interval of the A/A control leaves {margin}, only larger differences than that interval allows are claimed."
)
_NO_CONTROL = "There is no A/A control, so nothing checks what this machine can resolve."
_MIXED = (
    "{mixed} from {baseline} in both transport and congestion control: a difference between them does not say "
    "which of the two causes it."
)
_TAKEN_SHARE = 0.03
"""Of all processors, in a trial: from here on, something else may have caused its mark."""
_FACTORIALS = (
    "Same congestion control, other transport, and the reverse: main effects of a 2 x 2 design on the logarithm of "
    "goodput, computed within blocks; medians over blocks with 95% intervals, judged as transports are, with a "
    "correction for the number of effects. An interaction is named if the same rules find one."
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that tables, plots and pages are made from: a campaign's records and what they show.

    rows:     one for each path, size and transport, in the campaign's order
    verdicts: one for each path and size, in the campaign's order
    """

    results: Results
    rows: Sequence[Row]
    verdicts: Sequence[PathVerdict]

    @property
    def headline(self) -> list[str]:
        """The verdicts as sentences."""
        return [verdict.text for verdict in self.verdicts]

    @property
    def notes(self) -> list[str]:
        """What to know before reading the verdicts, as sentences."""
        campaign = self.results.campaign
        left_out = [f"{label} was left out: {reason}." for label, reason in campaign.left_out.items()]
        mixed = mixes_factors(campaign)
        warned = [_MIXED.format(mixed=_differing(mixed), baseline=campaign.baseline)] if mixed else []
        taken = [*_repeated_trials(self.results), *_taken_processors(self.results, self.rows)]
        return [*left_out, *warned, *taken, *_changed_conditions(self.results)]


def summarise(results: Results) -> Summary:
    """Compute the rows and verdicts of a campaign. Costly for a long campaign: call it once and pass the result on."""
    campaign = results.campaign
    cells = [PairedTrials(results, path, size) for path in campaign.paths for size in campaign.sizes]
    judged = _judge(campaign, cells)
    effects = iter(judged_effects([each for cell in cells for each in factorials(cell)], campaign.margin))
    count = len(designs(campaign))
    rows: list[Row] = []
    verdicts: list[PathVerdict] = []
    for cell in cells:
        of_cell = [make_row(cell, label, judged.get((cell, label))) for label in campaign.transports]
        rows += of_cell
        verdicts.append(path_verdict(results, of_cell, list(islice(effects, count))))
    return Summary(results, rows, verdicts)


def judging(campaign: Campaign) -> list[str]:
    """How the figures and verdicts of `summarise` come about, as sentences."""
    margin = format_fraction(campaign.margin)
    is_controlled = campaign.baseline + CONTROL_SUFFIX in campaign.transports
    control = _CONTROL.format(margin=margin) if is_controlled else _NO_CONTROL
    verdicts = _VERDICTS.format(comparisons=campaign.comparison_count, margin=margin, control=control)
    return [_FIGURES, verdicts, *([_FACTORIALS] if designs(campaign) else [])]


def _differing(names: Sequence[str]) -> str:
    """The names with the verb that their number asks for."""
    first, last = ", ".join(names[:-1]), names[-1]
    return f"{first} and {last} differ" if first else f"{last} differs"


def _repeated_trials(results: Results) -> list[str]:
    """How many attempts of each transport the hypervisor disturbed, and how many of these had failed."""
    counts = Counter(trial.transport for trial in results.repeated)
    if not counts:
        return []
    counted = ", ".join(f"{label} {counts[label]}" for label in results.campaign.transports if label in counts)
    failed = sum(not trial.verified for trial in results.repeated)
    also = f"; {failed} of them had failed" if failed else ""
    taken = f"The hypervisor took more than {format_fraction(DISTURBED_SHARE)} of the processors"
    return [f"{taken} during trials that were repeated: {counted}{also}."]


def _taken_processors(results: Results, rows: Sequence[Row]) -> list[str]:
    """How often something else had processors in marked trials, if marks cost a claim, and whether patience helps."""
    campaign = results.campaign
    is_local = all(path.kind != REMOTE for path in campaign.paths.values())  # else the other machine has its share
    marked = [trial for trial in results.trials if trial.block >= 0 and trial.is_doubtful]
    loads = [trial.conditions.load for trial in marked if trial.conditions is not None]
    count = sum(load is not None and load.taken_share > _TAKEN_SHARE for load in loads)
    if not is_local or count <= len(marked) / 2 or all(row.verdict != NO_CLAIM for row in rows):
        return []
    seen = f"Other programs or the hypervisor took processors in {count} of {len(marked)} marked trials"
    if not campaign.patience_s:
        return [f"{seen}: a campaign with patience waits for quieter moments."]
    is_short = campaign.time_s is not None and any(load.steal_share > DISTURBED_SHARE for load in loads if load)
    if not is_short and patience_spent_s(results.attempts) < 0.9 * campaign.patience_s:
        return [f"{seen}, although it was quiet before them."]
    used_up = f"the patience of {format_seconds(campaign.patience_s)} did not suffice"
    return [f"{seen}, and {used_up}: with more, more trials are measured in quieter moments."]


def _changed_conditions(results: Results) -> list[str]:
    """Settings that were not the same in all trials of a transport on a path, as sentences."""
    by_row: dict[tuple[str, str], list[TrialConditions]] = {}
    for trial in results.trials:
        if trial.conditions is not None and trial.block >= 0:
            by_row.setdefault((trial.transport, trial.path), []).append(trial.conditions)
    lines = []
    for (transport, path), conditions in by_row.items():
        for name, texts in counted_settings(conditions).items():
            if len(texts) > 1:
                counted = ", ".join(f"{text} ({count} of {len(conditions)})" for text, count in texts.items())
                lines.append(f"{transport}, {path}: the trials had different conditions: {name} {counted}.")
    return lines


def plain(record: Any) -> dict[str, object]:
    """A row, or another dataclass, as a JSON object, with None for infinite values, which JSON cannot express."""
    return {name: _finite(value) for name, value in asdict(record).items()}


def _judge(campaign: Campaign, cells: Sequence[PairedTrials]) -> Mapping[tuple[PairedTrials, str], Verdict]:
    """The verdict on each transport but the baseline, in each cell."""
    control = campaign.baseline + CONTROL_SUFFIX
    keys = [
        (cell, label)
        for cell in cells
        for label, setting in campaign.transports.items()
        if label not in (campaign.baseline, control) and not setting.is_yardstick
    ]
    judged = dict(zip(keys, judge([cell.evidence(label) for cell, label in keys], campaign.margin), strict=True))
    if control in campaign.transports:
        judged |= {(cell, control): judge([cell.evidence(control)], campaign.margin)[0] for cell in cells}
    return judged


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_finite(each) for each in value)
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and math.isinf(value) else value
