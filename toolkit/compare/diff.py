"""What changed between two campaigns: the same transport on the same path at the same size, before and after.

The trials of two campaigns are not pairs, so the interval is that of the ratio of two medians. It shows how much the
trials of each campaign differ among themselves, and nothing of what changed between the two campaigns besides nettool.
What else is known to differ (the kernel, the versions, the machine) is therefore listed as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from toolkit.compare.pairs import goodput_bps, is_mostly_sound
from toolkit.compare.records import Results, Trial
from toolkit.compare.stats import ERROR, Estimate, least_samples, unpaired_interval, unpaired_ratio
from toolkit.compare.verdict import Evidence, Verdict, judge

ONLY_OLD, ONLY_NEW = "only in the old", "only in the new"
MIN_TRIALS = least_samples(ERROR / 2)
"""Each campaign needs that many trials of a cell; the two medians share the error."""


@dataclass(frozen=True, slots=True)
class CellChange:
    """One cell in two campaigns: medians of goodput, where a failed transfer counts as 0; None where it was not run.

    ratio:   new / old
    verdict: as in `toolkit.compare.verdict`, or ONLY_OLD, or ONLY_NEW
    is_negligible, because, more_blocks: as in `toolkit.compare.verdict.Verdict`; blocks of each of the two campaigns
    """

    path: str
    payload_bytes: int
    transport: str
    old_bps: float | None
    new_bps: float | None
    ratio: Estimate | None
    verdict: str
    is_negligible: bool
    because: str
    more_blocks: int | None


def compare(old: Results, new: Results) -> list[CellChange]:
    """Every cell of either campaign, those of the old one first, judged by the smaller of the two margins."""
    before, after = _cells(old), _cells(new)
    cells = list(before | after)
    margin = min(old.campaign.margin, new.campaign.margin)
    verdicts = judge([_evidence(before.get(cell, []), after.get(cell, [])) for cell in cells], margin)
    return [
        _change(cell, before.get(cell, []), after.get(cell, []), verdict)
        for cell, verdict in zip(cells, verdicts, strict=True)
    ]


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


def _evidence(old: Sequence[Trial], new: Sequence[Trial]) -> Evidence:
    before, after = ([goodput_bps(trial) for trial in side] for side in (old, new))
    ratio = _ratio(before, after)
    doubt = ""
    if not old or not new:
        doubt = ONLY_NEW if new else ONLY_OLD
    elif not is_mostly_sound(old) or not is_mostly_sound(new):
        doubt = "too many trials are marked"
    elif ratio is None:
        doubt = "too few transfers arrived"
    elif ratio.interval is None:
        doubt = f"fewer than {MIN_TRIALS} trials in one of the two campaigns"
    return Evidence(ratio, partial(unpaired_interval, after, before), min(len(old), len(new)), doubt=doubt)


def _change(cell: _Cell, old: Sequence[Trial], new: Sequence[Trial], verdict: Verdict) -> CellChange:
    before, after = ([goodput_bps(trial) for trial in side] for side in (old, new))
    word = verdict.because if verdict.because in (ONLY_OLD, ONLY_NEW) else verdict.word
    return CellChange(
        *cell,
        old_bps=median(before) if old else None,
        new_bps=median(after) if new else None,
        ratio=_ratio(before, after),
        verdict=word,
        is_negligible=verdict.is_negligible,
        because=verdict.because,
        more_blocks=verdict.more_blocks,
    )


def _ratio(before: Sequence[float], after: Sequence[float]) -> Estimate | None:
    """None if either side was not run or never arrived, or if more than half of both failed."""
    if not any(before) or not any(after) or not (median(before) or median(after)):
        return None
    return unpaired_ratio(after, before)
