"""The one place that decides which verdict an interval allows; tables and pages print it.

- `faster`, `slower`: the 95% interval of the ratio excludes 1. If all of it lies within the *equivalence margin*
  (`--margin`), the difference is certain but *negligible*.
- `equivalent`: the interval lies within the margin, from 1 / (1 + margin) to 1 + margin.
- `inconclusive`: anything else. It is not evidence for equality; the verdict says what is missing, and estimates how
  many more blocks would settle it.
- `no claim`: the trials are not fit to be judged.

The A/A control, the baseline run a second time, is a gate. The end of its own interval that is further from 1 is its
*reach*: this machine can find a difference of that size between a transport and itself. If the reach lies outside the
margin, only a difference that is larger than the reach is claimed, and nothing is equivalent.

A campaign makes many comparisons, each of which would be wrong in one of twenty campaigns. Holm's procedure (Scand. J.
Statist. 6, 1979) keeps the chance that any `faster` or `slower` is false at 5%: a difference has to persist in an
interval that misses with probability 0.05 / m, where m is the number of comparisons that are not yet decided. That
takes more blocks (`toolkit.compare.stats.least_samples`). It does not apply to `equivalent`, for which one comparison
has an error of at most 2.5%.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

from toolkit.compare.stats import ERROR, Estimate, Interval, interval_rank, least_samples
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
    """

    word: str
    is_negligible: bool = False
    because: str = ""
    more_blocks: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one comparison is judged by.

    ratio:    of goodputs, with its 95% interval; None if nothing can be compared
    interval: of the same ratio, for an error probability; None for too few samples
    samples:  how many the interval is made from
    reach:    of the A/A control (`reach`); None if there was no control
    doubt:    why the trials are not fit to be judged; empty if they are
    """

    ratio: Estimate | None
    interval: Callable[[float], Interval | None]
    samples: int
    reach: float | None = None
    doubt: str = ""


def reach(control: Estimate | None) -> float:
    """The largest factor between the baseline and itself that the control leaves possible; infinite if it is unknown.

    It is at least 1.
    """
    if control is None or control.interval is None or not control.interval.low:
        return math.inf
    return max(control.interval.high, 1 / control.interval.low)


def judge(comparisons: Sequence[Evidence], margin: float) -> list[Verdict]:
    """The verdicts on all comparisons of a campaign, in their order; `margin` is the largest negligible difference.

    The more comparisons, the more each has to show: judge those of a campaign together, and the A/A controls, which are
    no findings, one by one.
    """
    undecided = {number for number, each in enumerate(comparisons) if not _doubt(each)}
    different: set[int] = set()
    while found := {n for n in undecided if _excludes_one(comparisons[n], ERROR / len(undecided))}:
        different |= found
        undecided -= found
    error = ERROR / max(1, len(undecided))
    return [_verdict(each, number in different, margin, error) for number, each in enumerate(comparisons)]


def to_settle(more_blocks: int | None) -> str:
    """How many more blocks would settle an inconclusive comparison, in words."""
    if more_blocks is None:
        return "more blocks may not settle it"
    return f"about {more_blocks} more block{'s' * (more_blocks > 1)} would settle it"


def least_blocks(comparisons: int) -> int:
    """The smallest number of blocks with which a campaign of so many comparisons can find a difference."""
    return least_samples(ERROR / max(1, comparisons))


def _doubt(evidence: Evidence) -> str:
    if evidence.doubt:
        return evidence.doubt
    return TOO_FEW if evidence.ratio is None or evidence.ratio.interval is None else ""


def _excludes_one(evidence: Evidence, error: float) -> bool:
    interval = evidence.interval(error)
    return interval is not None and interval.excludes_one


def _verdict(evidence: Evidence, is_different: bool, margin: float, error: float) -> Verdict:
    """The verdict on one comparison. `error`: of the interval in which a difference still has to be seen."""
    ratio, limit = evidence.ratio, evidence.reach or 1.0
    if evidence.doubt or ratio is None or ratio.interval is None:
        return Verdict(NO_CLAIM, because=_doubt(evidence))
    is_gated = limit > 1 + margin
    is_within = 1 / (1 + margin) <= ratio.interval.low and ratio.interval.high <= 1 + margin
    if is_different and not (is_gated and _factor(ratio.value) <= limit):
        return Verdict(FASTER if ratio.interval.low > 1 else SLOWER, is_negligible=is_within)
    if is_within and not is_gated:
        return Verdict(EQUIVALENT)
    because = ""
    if math.isinf(limit):
        because = "too few transfers of the A/A control arrived to show what this machine can resolve"
    elif is_gated:
        because = (
            f"the A/A control may differ from itself by {_difference(limit)}, and this machine resolves nothing finer"
        )
    elif ratio.interval.excludes_one:
        because = "the interval excludes 1, but so would one of so many comparisons by chance"
    elif ratio.interval.low == 0 or math.isinf(ratio.interval.high):
        because = "the interval includes failed transfers"
    return Verdict(INCONCLUSIVE, because=because, more_blocks=_more_blocks(evidence, ratio, margin, error))


def _more_blocks(evidence: Evidence, ratio: Estimate, margin: float, error: float) -> int | None:
    """How many more blocks would narrow the intervals enough, if the median stays where it is.

    A difference is settled when its interval excludes 1, or lies within the margin, whichever comes first; the control
    has to resolve the margin, or the difference if that is larger.
    """
    assert ratio.interval is not None
    low, high = ratio.interval
    limit = evidence.reach or 1.0
    if low == 0 or math.isinf(high) or math.isinf(limit):
        return None
    shift, room, half = abs(math.log(ratio.value)), math.log1p(margin), math.log(high / low) / 2
    now = _width(evidence.samples, ERROR)

    def would_settle(blocks: int) -> bool:
        width = _width(blocks, ERROR) / now
        if math.log(limit) * width > max(shift, room):
            return False
        return half * width <= room - shift or half * _width(blocks, error) / now < shift

    if evidence.samples >= _MAX_BLOCKS or not would_settle(_MAX_BLOCKS):
        return None
    blocks = evidence.samples + 1
    while not would_settle(blocks):
        blocks = min(blocks + 1 + blocks // 20, _MAX_BLOCKS)
    return blocks - evidence.samples


@cache
def _width(blocks: int, error: float) -> float:
    """Half the expected width of an interval of normal samples, in standard deviations (Blom's approximation)."""
    rank = interval_rank(blocks, error)
    return -NormalDist().inv_cdf((rank - 0.375) / (blocks + 0.25)) if rank else math.inf


def _factor(ratio: float) -> float:
    """The distance from 1 as a factor of at least 1; the same for a ratio and its inverse."""
    return max(ratio, 1 / ratio if ratio else math.inf)


def _difference(factor: float) -> str:
    return f"{factor - 1:.0%}" if factor < 2 else f"a factor of {format_ratio(factor)}"
