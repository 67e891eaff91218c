"""What changed between two campaigns: the same transport on the same path at the same size, before and after.

Trials over an emulated link with the same random numbers are pairs: block by block, the same packets are lost in both
campaigns. Where every trial of a cell has such a partner, the interval is that of the median ratio of the pairs; else
it is that of the ratio of two medians. Either shows how much trials differ among themselves, and nothing of what
changed between the two campaigns besides nettool. What else is known to differ (the kernel, the versions, the machine)
is therefore listed as well. A failed transfer has a goodput of 0, and a pair in which both failed says nothing. The
intervals of campaigns with a budget hold although their results decided how many trials there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median, median_low

from toolkit.comparison import stats
from toolkit.comparison.pairs import goodput_bps, is_mostly_sound
from toolkit.comparison.records import Campaign, Results, Trial
from toolkit.comparison.stats import (
    ERROR,
    MIN_SAMPLES,
    Estimate,
    estimated_median,
    least_with_interval,
    median_interval,
    unpaired_interval,
    unpaired_ratio,
)
from toolkit.comparison.verdict import NO_CLAIM, Evidence, Verdict, judge
from toolkit.errors import UsageError
from toolkit.units import format_seconds

ONLY_OLD, ONLY_NEW = "only in the old", "only in the new"


@dataclass(frozen=True, slots=True)
class CellChange:
    """One cell in two campaigns: medians of goodput; None where it was not run, or where at least half failed.

    pairs:   trials with the same random numbers in both campaigns; 0 if the trials are not pairs
    arrived: whether any transfer arrived, in the old and in the new campaign
    ratio:   new / old
    verdict: as in `toolkit.comparison.verdict`, or ONLY_OLD, or ONLY_NEW
    is_negligible, because, more_blocks: as in `toolkit.comparison.verdict.Verdict`; blocks of each of the two campaigns
    """

    path: str
    payload_bytes: int
    transport: str
    old_bps: float | None
    new_bps: float | None
    pairs: int
    arrived: tuple[bool, bool]
    ratio: Estimate | None
    verdict: str
    is_negligible: bool
    because: str
    more_blocks: int | None


def compare(old: Results, new: Results) -> list[CellChange]:
    """Every cell of either campaign, those of the old one first, judged by the smaller of the two margins.

    Raises UsageError if the trials of only one were timed, or those of both for different durations.
    """
    if old.campaign.time_s != new.campaign.time_s:
        raise UsageError("the trials of the two campaigns did not last for the same --time: they cannot be compared")
    before, after = _cells(old), _cells(new)
    both = (old.campaign, new.campaign)
    cells = {cell: _Sides(before.get(cell, []), after.get(cell, []), both) for cell in before | after}
    margin = min(old.campaign.margin, new.campaign.margin)
    compared = [cell for cell, sides in cells.items() if sides.old and sides.new]
    judged = dict(zip(compared, judge([cells[cell].evidence() for cell in compared], margin), strict=True))
    return [_change(cell, sides, judged.get(cell)) for cell, sides in cells.items()]


def differences_of_hosts(old: Results, new: Results) -> list[str]:
    """How hosts, files and patience differ, and which transports one campaign alone encrypted: `name: old -> new`."""
    a, b = old.campaign.host, new.campaign.host
    compared = (
        ("nettool", a.nettool, b.nettool),
        ("python", a.python, b.python),
        ("kernel", a.kernel, b.kernel),
        ("cpu", a.cpu, b.cpu),
        ("cores", a.cores, b.cores),
        ("files", old.campaign.storage, new.campaign.storage),
        ("patience", _patience(old), _patience(new)),
    )
    lines = [f"{name}: {before} -> {after}" for name, before, after in compared if before != after]
    return lines + [
        f"{label} encrypted: {_yes(before.is_encrypted)} -> {_yes(after.is_encrypted)}"
        for label, before in old.campaign.transports.items()
        if (after := new.campaign.transports.get(label)) is not None and before.is_encrypted != after.is_encrypted
    ]


def _patience(results: Results) -> str:
    patience_s = results.campaign.patience_s
    return format_seconds(patience_s) if patience_s else "none"


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


_Cell = tuple[str, int, str]


def _cells(results: Results) -> dict[_Cell, list[Trial]]:
    """The trials of each cell that ran, in the campaign's order."""
    campaign = results.campaign
    cells: dict[_Cell, list[Trial]] = {
        cell: [] for cell in product(campaign.paths, campaign.sizes, campaign.transports)
    }
    for trial in results.trials:
        if trial.block >= 0:
            cells.setdefault((trial.path, trial.payload_bytes, trial.transport), []).append(trial)
    return {cell: trials for cell, trials in cells.items() if trials}


class _Sides:
    """The trials of one cell in the two campaigns."""

    def __init__(self, old: Sequence[Trial], new: Sequence[Trial], campaigns: tuple[Campaign, Campaign]) -> None:
        self.old, self.new = old, new
        before, after = (campaign.first_look for campaign in campaigns)
        self._first_looks = after, before  # as in the ratio
        is_fixed = before is None and after is None
        self._first_look = None if is_fixed else min(campaign.repeats for campaign in campaigns)
        self.before, self.after = ([goodput_bps(trial) for trial in side] for side in (old, new))
        partners = {(trial.block, trial.link_seed): trial for trial in old if trial.link_seed is not None}
        both = [(partners[key], trial) for trial in new if (key := (trial.block, trial.link_seed)) in partners]
        self._are_pairs = 0 < len(both) == min(len(old), len(new))
        self._pairs = both if self._are_pairs and len(both) >= MIN_SAMPLES else []

    @property
    def pair_count(self) -> int:
        return len(self._pairs)

    def evidence(self) -> Evidence:
        """What the change is judged by."""
        if self._pairs:
            ratios = self._ratios()
            interval = partial(median_interval, ratios, first_look=self._first_look)
            return Evidence(self.ratio(), interval, len(ratios), doubt=self._doubt())
        interval = partial(unpaired_interval, self.after, self.before, first_looks=self._first_looks)
        return Evidence(self.ratio(), interval, min(len(self.old), len(self.new)), doubt=self._doubt())

    def ratio(self) -> Estimate | None:
        """None if either side was not run or never arrived, or if more than half of both failed."""
        if not any(self.before) or not any(self.after):
            return None
        if self._pairs:
            return estimated_median(self._ratios(), self._first_look) if self._ratios() else None
        is_known = median(self.before) or median(self.after)
        return unpaired_ratio(self.after, self.before, self._first_looks) if is_known else None

    def _ratios(self) -> list[float]:
        pairs = [(goodput_bps(new), goodput_bps(old)) for old, new in self._pairs]
        return [stats.ratio(*pair) for pair in pairs if any(pair)]

    def _doubt(self) -> str:
        ratio = self.ratio()
        if not is_mostly_sound(self.old) or not is_mostly_sound(self.new):
            return "too many trials are marked"
        if ratio is None:
            return "too few transfers arrived"
        return self._too_few() if ratio.interval is None else ""

    def _too_few(self) -> str:
        """That there is no interval, and how many blocks would have one, unless each campaign has run as many."""
        if self._are_pairs:
            least, what = least_with_interval(ERROR, self._first_look), "pairs of which anything arrived"
        else:
            least = max(least_with_interval(ERROR / 2, first_look) for first_look in self._first_looks)
            what = "trials in one of the two campaigns"
        advice = f": run {least} blocks or more in each campaign"
        return f"fewer than {least} {what}{advice if min(len(self.old), len(self.new)) < least else ''}"


def _change(cell: _Cell, sides: _Sides, verdict: Verdict | None) -> CellChange:
    """`verdict`: None for a cell that only one campaign ran."""
    word = verdict.word if verdict is not None else ONLY_NEW if sides.new else ONLY_OLD
    verdict = verdict or Verdict(NO_CLAIM, because=word)
    return CellChange(
        *cell,
        old_bps=_median(sides.before),
        new_bps=_median(sides.after),
        pairs=sides.pair_count,
        arrived=(any(sides.before), any(sides.after)),
        ratio=sides.ratio(),
        verdict=word,
        is_negligible=verdict.is_negligible,
        because=verdict.because,
        more_blocks=verdict.more_blocks,
    )


def _median(goodputs: Sequence[float]) -> float | None:
    """None if a transfer that failed stands in the middle."""
    return (median(goodputs) if goodputs and median_low(goodputs) else 0.0) or None
