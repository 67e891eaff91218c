"""What changed between two campaigns: the same transport on the same path at the same size, before and after.

The trials of two campaigns are not pairs, so the interval is that of the ratio of two medians. What else differs (the
kernel, the versions, the machine) is listed as well: different figures may have different hosts as their cause.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.compare.comparison import MIN_DIFFERENCE, NO_CLAIM, goodput_bps, is_mostly_sound, verdict_of
from toolkit.compare.records import Results, Trial
from toolkit.compare.stats import Estimate, unpaired_ratio

ONLY_OLD, ONLY_NEW = "only in the old", "only in the new"


@dataclass(frozen=True, slots=True)
class CellChange:
    """One cell in two campaigns: medians of goodput, where a failed transfer counts as 0; None where it was not run.

    ratio:   new / old
    verdict: as in `toolkit.compare.comparison`, or ONLY_OLD, or ONLY_NEW
    """

    path: str
    payload_bytes: int
    transport: str
    old_bps: float | None
    new_bps: float | None
    ratio: Estimate | None
    verdict: str


def compare(old: Results, new: Results) -> list[CellChange]:
    """Every cell of either campaign, those of the old one first."""
    before, after = _cells(old), _cells(new)
    return [_change(cell, before.get(cell, []), after.get(cell, []), old.campaign.seed) for cell in before | after]


def differences_of_hosts(old: Results, new: Results) -> list[str]:
    """How the hosts differ, and which transports were encrypted in one of the two only, as `name: old -> new`."""
    a, b = old.campaign.host, new.campaign.host
    compared = (
        ("nettool", a.nettool, b.nettool),
        ("python", a.python, b.python),
        ("kernel", a.kernel, b.kernel),
        ("cpu", a.cpu, b.cpu),
        ("cores", a.cores, b.cores),
        ("files", old.campaign.storage, new.campaign.storage),
    )
    lines = [f"{name}: {before} -> {after}" for name, before, after in compared if before != after]
    return lines + [
        f"{label} encrypted: {_yes(before.is_encrypted)} -> {_yes(after.is_encrypted)}"
        for label, before in old.campaign.transports.items()
        if (after := new.campaign.transports.get(label)) is not None and before.is_encrypted != after.is_encrypted
    ]


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


_Cell = tuple[str, int, str]


def _cells(results: Results) -> dict[_Cell, list[Trial]]:
    cells: dict[_Cell, list[Trial]] = {}
    for trial in results.trials:
        if trial.block >= 0:
            cells.setdefault((trial.path, trial.payload_bytes, trial.transport), []).append(trial)
    return cells


def _change(cell: _Cell, old: Sequence[Trial], new: Sequence[Trial], seed: int) -> CellChange:
    before, after = ([goodput_bps(trial) for trial in side] for side in (old, new))
    ratio = unpaired_ratio(after, before, seed) if any(before) and any(after) else None
    verdict = verdict_of(ratio, MIN_DIFFERENCE) if is_mostly_sound(old) and is_mostly_sound(new) else NO_CLAIM
    if not new:
        verdict = ONLY_OLD
    elif not old:
        verdict = ONLY_NEW
    return CellChange(*cell, median(before) if old else None, median(after) if new else None, ratio, verdict)
