"""What changed between two campaigns: the same transport on the same path at the same size, then and now.

The trials of two campaigns are no pairs, so the interval is that of the ratio of two medians. What else is different
(the kernel, the versions, the machine) stands beside it: a change of the figures may be a change of the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.bench.record import Results
from toolkit.bench.stats import Estimate, unpaired_ratio
from toolkit.bench.verdict import MIN_DIFFERENCE, verdict_of

ONLY_OLD, ONLY_NEW = "only in the old", "only in the new"
_COMPARED = ("nettool", "python", "kernel", "cpu", "cores")


@dataclass(frozen=True, slots=True)
class Change:
    """One cell; medians of goodput, None where it is missing or never arrived.

    ratio:   new / old
    verdict: as `toolkit.bench.verdict` has them, ONLY_OLD or ONLY_NEW
    """

    path: str
    payload_bytes: int
    transport: str
    old_bps: float | None
    new_bps: float | None
    ratio: Estimate | None
    verdict: str


def compare(old: Results, new: Results) -> list[Change]:
    """Every cell of either, those of the old first; marked trials do not count."""
    cells = [*_cells(old), *(cell for cell in _cells(new) if cell not in set(_cells(old)))]
    return [_change(cell, _goodputs(old, cell), _goodputs(new, cell), old.campaign.seed) for cell in cells]


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


def _cells(results: Results) -> list[_Cell]:
    return list(dict.fromkeys((t.path, t.payload_bytes, t.transport) for t in results.trials if t.block >= 0))


def _goodputs(results: Results, cell: _Cell) -> list[float]:
    return [
        trial.goodput_bps
        for trial in results.trials
        if (trial.path, trial.payload_bytes, trial.transport) == cell
        and trial.is_counted
        and not trial.marks
        and trial.goodput_bps
    ]


def _change(cell: _Cell, old: Sequence[float], new: Sequence[float], seed: int) -> Change:
    ratio = unpaired_ratio(new, old, seed) if old and new else None
    verdict = verdict_of(ratio, MIN_DIFFERENCE)
    if old and not new:
        verdict = ONLY_OLD
    elif new and not old:
        verdict = ONLY_NEW
    return Change(*cell, median(old) if old else None, median(new) if new else None, ratio, verdict)
