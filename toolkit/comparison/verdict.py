"""The one place that decides which verdict an interval allows; tables and pages print it.

- `faster`, `slower`: the 95% interval of the ratio excludes 1. If all of it lies within the *equivalence margin*
  (`--margin`), the difference is certain but *negligible*.
- `equivalent`: the interval lies within the margin, from 1 / (1 + margin) to 1 + margin.
- `inconclusive`: anything else. It is not evidence for equality; the verdict says what is missing, and estimates how
  many more blocks would settle it.
- `no claim`: the trials are not fit to be judged, with one exception: a side that only lacked processors may be called
  the faster one, because it would have been faster still.

The A/A control, the baseline run a second time, is a gate. The end of its own interval that is further from 1 is its
*reach*: this machine can find a difference of that size between a transport and itself. If the reach lies outside the
margin, only a difference that is larger than the reach is claimed, and nothing is equivalent. The same holds for what
other work explains that came with one of the two sides.

A campaign makes many comparisons, each of which would be wrong in one of twenty campaigns. Holm's procedure (Scand. J.
Statist. 6, 1979) keeps the chance that any `faster` or `slower` is false at 5%: a difference has to persist in an
interval that misses with probability 0.05 / m, where m is the number of comparisons that are not yet decided. Those
on which nothing can be claimed stay among them, because what decides that (marks, failures) is seen only afterwards: m
begins with the number that was planned, for which `least_blocks` says how many blocks it takes. None of this applies to
`equivalent`, for which one comparison has an error of at most 2.5%.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toolkit.comparison.stats import ERROR, Estimate, Interval, least_samples
from toolkit.units import format_ratio

FASTER, SLOWER, EQUIVALENT = "faster", "slower", "equivalent"
INCONCLUSIVE, NO_CLAIM = "inconclusive", "no claim"
CLAIMS = (FASTER, SLOWER, EQUIVALENT)
DEFAULT_MARGIN, MAX_MARGIN = 0.05, 0.5
TOO_FEW = "too few pairs of trials for an interval"
_MAX_BLOCKS = 1000
"""Whoever would need more needs a quieter machine."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict.

    word:          FASTER, SLOWER, EQUIVALENT, INCONCLUSIVE or NO_CLAIM
    is_negligible: FASTER or SLOWER, by less than the margin
    because:       why it is NO_CLAIM, or what makes it INCONCLUSIVE; empty if the interval is just too wide
    more_blocks:   about how many more blocks would settle what is INCONCLUSIVE; None if unknown, or beyond 1,000 in all
    resolution:    the smallest measured ratio, as a factor of at least 1, that would have been found in either
                   direction under the same noise; None if unknown or infinite. Where the true ratio is of that size,
                   about a third of campaigns measure too little to find it
    """

    word: str
    is_negligible: bool = False
    because: str = ""
    more_blocks: int | None = None
    resolution: float | None = None


Intervals = Callable[[float, int | None], Interval | None]
"""The interval of a ratio for an error probability: as measured, or as to be expected of a number of blocks."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one comparison is judged by.

    ratio:    of goodputs, with its 95% interval; None if nothing can be compared
    interval: of the same ratio
    samples:  how many the interval is made from
    control:  the interval of the A/A control; None if there was no control
    doubt:    why the trials are not fit to be judged; empty if they are
    load_effect: the largest factor, at least 1, that other work may have caused which did not disturb both sides alike
    despite_doubt: FASTER or SLOWER, if that is true in spite of `doubt` once the interval shows it; else empty
    """

    ratio: Estimate | None
    interval: Intervals
    samples: int
    control: Intervals | None = None
    doubt: str = ""
    load_effect: float = 1.0
    despite_doubt: str = ""


def reach(control: Interval | None) -> float:
    """The largest factor between the baseline and itself that the control leaves possible; infinite if it is unknown.

    It is at least 1.
    """
    if control is None or not control.low:
        return math.inf
    return max(control.high, 1 / control.low)


def judge(comparisons: Sequence[Evidence], margin: float) -> list[Verdict]:
    """The verdicts on all comparisons of a campaign, in their order; `margin` is the largest negligible difference.

    The more comparisons, the more each has to show: judge all that a campaign planned together, and the A/A controls,
    which are no findings, one by one.
    """
    undecided = set(range(len(comparisons)))
    different: set[int] = set()
    while found := {n for n in undecided if _excludes_one(comparisons[n], ERROR / len(undecided))}:
        different |= found
        undecided -= found
    error = ERROR / max(1, len(undecided))
    return [_verdict(each, number in different, margin, error) for number, each in enumerate(comparisons)]


def could_find(resolution: float | None) -> str:
    """The smallest measured difference that would have been found, in words."""
    if resolution is None:
        return "no difference could have been found"
    return f"a measured difference of {_difference(resolution)} or more would have been found"


def to_settle(more_blocks: int | None) -> str:
    """How many more blocks would settle an inconclusive comparison, in words."""
    if more_blocks is None:
        return "more blocks may not settle it"
    return f"about {more_blocks} more block{'s' * (more_blocks > 1)} would settle it"


def least_blocks(comparisons: int, is_budgeted: bool = False) -> int:
    """The smallest number of blocks with which a campaign of so many comparisons can find a difference.

    is_budgeted: whether results decide about further blocks
    """
    return least_samples(ERROR / max(1, comparisons), is_budgeted)


def _may_be_different(evidence: Evidence) -> bool:
    """Whether a difference could be claimed, if the interval shows one."""
    has_interval = evidence.ratio is not None and evidence.ratio.interval is not None
    return has_interval and (not evidence.doubt or bool(evidence.despite_doubt))


def _excludes_one(evidence: Evidence, error: float) -> bool:
    """Whether the interval shows a difference that can be claimed."""
    if not _may_be_different(evidence):
        return False
    interval = evidence.interval(error, None)
    if interval is None or not interval.excludes_one:
        return False
    return evidence.despite_doubt in ("", _direction(interval))


def _direction(interval: Interval) -> str:
    return FASTER if interval.low > 1 else SLOWER


def _verdict(evidence: Evidence, is_different: bool, margin: float, error: float) -> Verdict:
    """The verdict on one comparison. `error`: of the interval in which a difference still has to be seen."""
    ratio = evidence.ratio
    if ratio is None or ratio.interval is None:
        return Verdict(NO_CLAIM, because=evidence.doubt or TOO_FEW)
    limit = _limit(evidence, None)
    word = _word(ratio.value, ratio.interval, is_different, limit, margin)
    if evidence.doubt and word != evidence.despite_doubt:
        return Verdict(NO_CLAIM, because=evidence.doubt)
    finest = _resolution(ratio.value, evidence.interval(error, None), limit, margin)
    if word in (FASTER, SLOWER):
        # In spite of a doubt, the difference may be larger than the interval shows.
        is_negligible = not evidence.doubt and _is_within(ratio.interval, margin)
        return Verdict(word, is_negligible=is_negligible, resolution=finest)
    if word == EQUIVALENT:
        return Verdict(word, resolution=finest)
    because = ""
    if evidence.load_effect == limit > 1 + margin:
        because = (
            f"other work did not disturb both sides alike, which may change their ratio by {_difference(limit)}"
            if math.isfinite(limit)
            else "other work took a whole processor more from one side than from the other"
        )
    elif math.isinf(limit):
        because = "too few transfers of the A/A control arrived to show what this machine can resolve"
    elif limit > 1 + margin:
        because = (
            f"the A/A control may differ from itself by {_difference(limit)}, and this machine resolves nothing finer"
        )
    elif ratio.interval.excludes_one:
        because = "the interval excludes 1, but so would one of so many comparisons by chance"
    elif ratio.interval.low == 0 or math.isinf(ratio.interval.high):
        because = "the interval includes failed transfers"
    more_blocks = _more_blocks(evidence, ratio.value, margin, error)
    return Verdict(INCONCLUSIVE, because=because, more_blocks=more_blocks, resolution=finest)


def _resolution(value: float, strict: Interval | None, limit: float, margin: float) -> float | None:
    """See Verdict. `strict`: the interval that has to exclude 1; `limit`: the reach of the control."""
    if strict is None or not strict.low or not value or math.isinf(strict.high) or math.isinf(limit):
        return None
    found = max(value / strict.low, strict.high / value)
    return max(found, limit) if limit > 1 + margin else found


def _word(value: float, interval: Interval, is_different: bool, limit: float, margin: float) -> str:
    """The rules. `is_different`: whether the interval excludes 1, also corrected for the number of comparisons."""
    is_gated = limit > 1 + margin
    if is_different and not (is_gated and _factor(value) <= limit):
        return _direction(interval)
    return EQUIVALENT if _is_within(interval, margin) and not is_gated else INCONCLUSIVE


def _is_within(interval: Interval, margin: float) -> bool:
    return 1 / (1 + margin) <= interval.low and interval.high <= 1 + margin


def _limit(evidence: Evidence, blocks: int | None) -> float:
    """The largest factor that is not the transport's: the reach of the control, or what an unequal load explains."""
    resolved = 1.0 if evidence.control is None else reach(evidence.control(ERROR, blocks))
    return max(resolved, evidence.load_effect)


def _more_blocks(evidence: Evidence, value: float, margin: float, error: float) -> int | None:
    """How many more blocks like these are to be expected to settle the comparison."""

    def would_settle(blocks: int) -> bool:
        interval, strict = evidence.interval(ERROR, blocks), evidence.interval(error, blocks)
        if interval is None:
            return False
        is_different = strict is not None and strict.excludes_one
        return _word(value, interval, is_different, _limit(evidence, blocks), margin) != INCONCLUSIVE

    if evidence.samples >= _MAX_BLOCKS or not would_settle(_MAX_BLOCKS):
        return None
    more = range(1, _MAX_BLOCKS - evidence.samples)
    return more[0] + bisect_left(more, True, key=lambda blocks: would_settle(evidence.samples + blocks))


def _factor(ratio: float) -> float:
    """The distance from 1 as a factor of at least 1; the same for a ratio and its inverse."""
    return max(ratio, 1 / ratio if ratio else math.inf)


def _difference(factor: float) -> str:
    if factor >= 2:
        return f"a factor of {format_ratio(factor)}"
    return f"{factor - 1:.0%}" if factor >= 1.1 else f"{factor - 1:.1%}"
