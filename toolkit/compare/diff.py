"""What changed between two campaigns: the same transport on the same path at the same size, then and now.

The trials of two campaigns are no pairs, so the interval is that of the ratio of two medians. What else is different
(the kernel, the versions, the machine) stands beside it: a change of the figures may be a change of the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.compare.comparison import MIN_DIFFERENCE, NO_CLAIM, goodput_bps, is_mostly_sound, verdict_of
from toolkit.compare.records import Results, Trial
from toolkit.compare.stats import Estimate, unpaired_ratio

ONLY_OLD, ONLY_NEW = "only in the old", "only in the new"
_COMPARED = ("nettool", "python", "kernel", "cpu", "cores")


@dataclass(frozen=True, slots=True)
class Change:
    """One cell; medians of goodput, where a transfer that failed counts as 0; None where it was not run.

    ratio:   new / old
    verdict: as `toolkit.compare.comparison` has them, ONLY_OLD or ONLY_NEW
    """

    path: str
    payload_bytes: int
    transport: str
    old_bps: float | None
    new_bps: float | None
    ratio: Estimate | None
    verdict: str


def compare(old: Results, new: Results) -> list[Change]:
    """Every cell of either, those of the old first; failures and marks as `toolkit.compare.comparison` has them."""
    before, after = _cells(old), _cells(new)
    return [_change(cell, before.get(cell, []), after.get(cell, []), old.campaign.seed) for cell in before | after]


def differences_of_hosts(old: Results, new: Results) -> list[str]:
    """What is different about the machines, as `name: old -> new`."""
    told = [
        f"{name}: {old.campaign.host.get(name)} -> {new.campaign.host.get(name)}"
        for name in _COMPARED
        if old.campaign.host.get(name) != new.campaign.host.get(name)
    ]
    if old.campaign.storage != new.campaign.storage:
        told.append(f"files: {old.campaign.storage} -> {new.campaign.storage}")
    return told


_Cell = tuple[str, int, str]


def _cells(results: Results) -> dict[_Cell, list[Trial]]:
    cells: dict[_Cell, list[Trial]] = {}
    for trial in results.trials:
        if trial.block >= 0:
            cells.setdefault((trial.path, trial.payload_bytes, trial.transport), []).append(trial)
    return cells


def _change(cell: _Cell, old: Sequence[Trial], new: Sequence[Trial], seed: int) -> Change:
    before, after = ([goodput_bps(trial) for trial in side] for side in (old, new))
    ratio = unpaired_ratio(after, before, seed) if any(before) and any(after) else None
    verdict = verdict_of(ratio, MIN_DIFFERENCE) if is_mostly_sound(old) and is_mostly_sound(new) else NO_CLAIM
    if not new:
        verdict = ONLY_OLD
    elif not old:
        verdict = ONLY_NEW
    return Change(*cell, median(before) if old else None, median(after) if new else None, ratio, verdict)
