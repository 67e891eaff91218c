"""Which blocks a campaign with a budget runs after its pilot: more where intervals are wide, until each is narrow.

An interval is *narrow* if its upper end exceeds its lower one by at most the margin. While the budget lasts, the
path and size with the widest interval gets blocks up to its next look (`toolkit.comparison.looks`), provided that they
fit into the time that is left. Those that can still become narrow in that time come first: otherwise one that never
will, such as a transport that is 30 times as fast give or take a quarter, would take the time of all others. The A/A
control counts like a transport, because its interval limits what may be claimed.

Only widths decide, and no verdict. Whoever stops when a difference appears will find one, and whoever stops there
reports it too large. That widths are not independent of what they measure is accounted for by the intervals, which
hold wherever a campaign stops.

Everything follows from the records, so a campaign that was interrupted goes on with the same block.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.comparison.looks import look_after
from toolkit.comparison.pairs import PairedTrials
from toolkit.comparison.records import Campaign, Results, Trial
from toolkit.comparison.stats import ERROR, Interval
from toolkit.comparison.verdict import Evidence

_MAX_BLOCKS = 1000
_MAX_MARKED_SHARE = 0.5
"""With more marked trials than this, further blocks will hardly make a claim possible."""


@dataclass(frozen=True, slots=True)
class FurtherBlocks:
    """Blocks to run next, of one path and size; some trials of the first may have been run already."""

    path: str
    payload_bytes: int
    blocks: range


@dataclass(frozen=True, slots=True)
class _Candidate:
    next: FurtherBlocks
    width: float
    is_attainable: bool

    @property
    def priority(self) -> tuple[bool, float, int]:
        return self.is_attainable, self.width, -self.next.blocks.start


def elapsed_s(trials: Iterable[Trial]) -> float:
    """How much time a campaign has taken, without interruptions; `trials` include the attempts that were repeated."""
    return max((trial.elapsed_s or 0.0 for trial in trials), default=0.0)


def further_blocks(results: Results, now_s: float) -> FurtherBlocks | None:
    """What to run next after the pilot; None if every interval is narrow, or nothing more fits into the budget.

    now_s: time that the campaign has taken
    """
    campaign = results.campaign
    assert campaign.budget_s is not None
    cells = [PairedTrials(results, path, size) for path in campaign.paths for size in campaign.sizes]
    begun = next(filter(None, (_unfinished(campaign, cell) for cell in cells)), None)
    if begun is not None:
        return begun
    durations_s = dict(durations(results.attempts))
    left_s = campaign.budget_s - now_s
    candidates = list(filter(None, (_candidate(campaign, cell, durations_s, left_s) for cell in cells)))
    return max(candidates, key=lambda each: each.priority).next if candidates else None


def width(interval: Interval | None, margin: float) -> float:
    """The width of an interval relative to the margin; it is narrow if this is at most 1, and infinite if unknown."""
    if interval is None or not interval.low or math.isinf(interval.high):
        return math.inf
    return math.log(interval.high / interval.low) / math.log1p(margin)


def _unfinished(campaign: Campaign, cell: PairedTrials) -> FurtherBlocks | None:
    """The rest of blocks that were begun; an interruption ends a campaign anywhere."""
    counts = [len(cell.trials(label)) for label in campaign.transports]
    blocks = range(min(counts), look_after(max(counts) - 1, campaign.repeats))
    return FurtherBlocks(cell.path, cell.size, blocks) if blocks else None


def _candidate(
    campaign: Campaign, cell: PairedTrials, durations_s: dict[int, float], left_s: float
) -> _Candidate | None:
    """What `cell` would run next; None if it needs nothing more, or the time does not suffice."""
    undecided = list(_undecided(campaign, cell))
    have = len(cell.trials(campaign.baseline))
    upto = look_after(have, campaign.repeats)
    block_s = sum(
        median([durations_s[trial.position] for trial in cell.trials(label)]) for label in campaign.transports
    )
    if not undecided or upto > _MAX_BLOCKS or (upto - have) * block_s > left_s:
        return None
    is_attainable = False
    count = upto
    while not is_attainable and count <= _MAX_BLOCKS and (count - have) * block_s <= left_s:
        is_attainable = _width(undecided, campaign.margin, count) <= 1
        count = look_after(count, campaign.repeats)
    following = FurtherBlocks(cell.path, cell.size, range(have, upto))
    return _Candidate(following, _width(undecided, campaign.margin), is_attainable)


def _undecided(campaign: Campaign, cell: PairedTrials) -> Iterator[Evidence]:
    """What there is on the transports, and on the control, that more blocks may help."""
    for label, setting in campaign.transports.items():
        if label == campaign.baseline or setting.is_yardstick or cell.ratio(label) is None:
            continue
        if max(_marked_share(cell.trials(each)) for each in (label, campaign.baseline)) > _MAX_MARKED_SHARE:
            continue
        evidence = cell.evidence(label)
        if _width([evidence], campaign.margin) > 1:
            yield evidence


def _width(undecided: Sequence[Evidence], margin: float, blocks: int | None = None) -> float:
    """The largest width of these intervals: as measured, or as to be expected of a number of blocks."""
    return max(math.inf if each.doubt else width(each.interval(ERROR, blocks), margin) for each in undecided)


def _marked_share(trials: Sequence[Trial]) -> float:
    return sum(trial.is_doubtful for trial in trials) / len(trials)


def patience_spent_s(attempts: Iterable[Trial]) -> float:
    """How much of a campaign's patience these trials took: their waits, and the time of those that were repeated."""
    attempts = list(attempts)
    repeated = {trial.position for trial in attempts if trial.is_repeated}
    times_s = sum(seconds for position, seconds in durations(attempts) if position in repeated)
    return times_s + sum(trial.waited_s for trial in attempts)


def durations(trials: Iterable[Trial]) -> Iterator[tuple[int, float]]:
    """Position and duration of each trial, with all that belongs to it but the wait for quiet processors.

    The trials include the attempts that were repeated.
    """
    before_s = 0.0
    for trial in sorted(trials, key=lambda trial: trial.position):
        now_s = trial.elapsed_s if trial.elapsed_s is not None else before_s
        yield trial.position, now_s - before_s - trial.waited_s
        before_s = now_s
