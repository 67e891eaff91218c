"""Statistics for few, skewed samples with outliers: medians, and intervals that assume no distribution.

The spread is the median absolute deviation, which one bad trial cannot move. The interval of a median lies between two
order statistics. How many of n samples fall below the true median is binomial, whatever their distribution, so that the
probability that the interval from the k-th smallest to the k-th largest sample covers it is known (David and Nagaraja,
Order Statistics, section 7.1). The interval uses the largest k that covers at least the confidence asked for. It covers
96.9% at six samples, 96.1% at nine and 95.9% at twenty, and at least 95% at every other number. Rules that come closer
to 95% (Hettmansperger and Sheather interpolate between two k) assume a density that is smooth at the median: at six
samples of a mixture with two peaks they held 90%. With five samples no interval covers more than 94%: below MIN_SAMPLES
there is none. If the results decide how many samples there are, as in a campaign with a budget, an interval has to hold
at every number at which it could have stopped (`toolkit.comparison.looks`).

Two transports are compared by the ratios within blocks, because what disturbs one trial of a block often disturbs its
neighbours too. The interval of the ratio decides, never the overlap of two separate intervals. It leaves out 1 exactly
if the sign test rejects equality. For identical transports that test is exact even if trials are not independent, for
example if the machine slows down during the campaign: which of the two ran first in a block was drawn at random. A
failed transfer counts with a goodput of 0, and the ratio to it is infinite; order statistics allow both.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist, median
from typing import NamedTuple

from toolkit.comparison.looks import rank_at_look

ERROR = 0.05
"""How often an interval may miss what it estimates; 1 minus the confidence."""
MIN_SAMPLES = 6
"""The smallest number of samples that has an interval: `least_samples(ERROR)`."""
_ONE_SIGMA = 0.317
"""How often a normal variable is further from its mean than one standard deviation."""


class Interval(NamedTuple):
    """Both ends, in the unit of the samples."""

    low: float
    high: float

    @property
    def excludes_one(self) -> bool:
        """Whether all of it lies on one side of 1."""
        return self.low > 1 or self.high < 1


class Estimate(NamedTuple):
    """A value and its 95% interval; None for too few samples."""

    value: float
    interval: Interval | None


def median_absolute_deviation(samples: Sequence[float]) -> float:
    """The median distance from the median, in the unit of the samples. At least one sample is needed."""
    middle = median(samples)
    return median(abs(sample - middle) for sample in samples)


def quantile(samples: Sequence[float], fraction: float) -> float:
    """Quantile by linear interpolation between order statistics (Hyndman and Fan, type 7). At least one sample."""
    return _between(sorted(samples), fraction * (len(samples) - 1))


def _between(ordered: Sequence[float], position: float) -> float:
    """The value at a position from 0 to the length minus 1, interpolated; positions beyond an end mean the end."""
    position = min(max(position, 0.0), len(ordered) - 1.0)
    below = int(position)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return low if low == high or position == below else low + (position - below) * (high - low)


def estimated_median(samples: Sequence[float], first_look: int | None = None) -> Estimate:
    """The median and its interval. Needs at least one sample; samples are not negative, and may be infinite."""
    return Estimate(median(samples), median_interval(samples, first_look=first_look))


def median_interval(
    samples: Sequence[float], error: float = ERROR, count: int | None = None, first_look: int | None = None
) -> Interval | None:
    """An interval that misses the median with a probability of at most `error`; None for too few samples.

    count: instead of the interval of these samples, the one to expect of so many samples like them. Its ends are
           quantiles of the samples, at the fractions where its order statistics are to be expected (Blom).
    first_look: see `interval_rank`
    """
    ordered = sorted(samples)
    rank = interval_rank(count or len(ordered), error, first_look)
    if not rank or not ordered:
        return None
    if count is None or count == len(ordered):
        return Interval(ordered[rank - 1], ordered[-rank])
    position = (rank - 0.375) / (count + 0.25) * (len(ordered) + 0.25) - 0.625
    return Interval(_between(ordered, position), _between(ordered, len(ordered) - 1 - position))


@cache
def interval_rank(count: int, error: float = ERROR, first_look: int | None = None) -> int:
    """The interval of so many samples lies between the sample of this rank, counted from 1, and its mirror image.

    0 for too few samples.

    first_look: None if `count` was fixed beforehand. Otherwise the samples were looked at from this number on, and may
                have decided how many there are. `error` is then ERROR divided by a whole number, and an interval
                contains those for a larger error, on which Holm's procedure relies.
    """
    if first_look is not None:
        return min(rank_at_look(count, ERROR / part, first_look) for part in range(1, round(ERROR / error) + 1))
    ways = fallen = 1  # of 2^count: exactly `rank` samples, and at most so many, fall below the median
    rank = 0
    while 2 * fallen / (1 << count) <= error:
        ways = ways * (count - rank) // (rank + 1)
        fallen += ways
        rank += 1
    return rank


def median_error(samples: Sequence[float]) -> float | None:
    """About the standard error of the median, for which a 95% interval is too wide: it holds 99.2% of eight samples.

    It follows from the distance of the two order statistics that hold the median in about two of three cases. None for
    fewer than MIN_SAMPLES.
    """
    count, ordered = len(samples), sorted(samples)
    if count < MIN_SAMPLES:
        return None
    misses = [
        2 * sum(math.comb(count, below) for below in range(rank)) / (1 << count) for rank in range(1, count // 2 + 1)
    ]
    missing = min((miss for miss in misses if miss < 1), key=lambda miss: abs(miss - _ONE_SIGMA))
    rank = misses.index(missing) + 1
    return (ordered[-rank] - ordered[rank - 1]) / (2 * NormalDist().inv_cdf(1 - missing / 2))


def least_samples(error: float, is_first_look: bool = False) -> int:
    """The smallest number of samples of which an interval can miss the median so rarely: by all on one side of it.

    is_first_look: whether the samples may decide that there will be more
    """
    count = math.ceil(1 - math.log2(error))
    while is_first_look and not interval_rank(count, error, count):
        count += 1
    return count


def least_with_interval(error: float, first_look: int | None) -> int:
    """The smallest number of samples that has an interval with that error; `first_look` as in `interval_rank`."""
    return next(number for number in itertools.count(1) if interval_rank(number, error, first_look))


def proportion(hits: int, count: int, error: float = ERROR) -> Estimate:
    """A share of independent events and its interval; `count` is at least 1.

    The interval of Clopper and Pearson (Biometrika 26, 1934), which misses in at most `error` however few hits there
    are.
    """
    from scipy.special import betaincinv  # slow to load

    low = float(betaincinv(hits, count - hits + 1, error / 2)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - error / 2)) if hits < count else 1.0
    return Estimate(hits / count, Interval(low, high))


def shares_differ(hits: int, count: int, other_hits: int, other_count: int, error: float = ERROR) -> bool:
    """Whether two shares of independent events differ; wrong in at most `error` where they do not.

    Fisher's exact test (Statistical Methods for Research Workers, section 21.02). Both counts are at least 1.
    """
    from scipy.stats import fisher_exact  # slow to load

    table = [[hits, count - hits], [other_hits, other_count - other_hits]]
    return bool(fisher_exact(table).pvalue <= error)


def ratio(sample: float, base: float) -> float:
    """The ratio of two goodputs, of which at most one is 0."""
    return sample / base if base else math.inf


def unpaired_ratio(
    samples: Sequence[float], baseline: Sequence[float], first_looks: tuple[int | None, int | None] = (None, None)
) -> Estimate:
    """The ratio of two medians, not both 0, whose samples are not pairs. Both need at least one sample."""
    interval = unpaired_interval(samples, baseline, first_looks=first_looks)
    return Estimate(ratio(median(samples), median(baseline)), interval)


def unpaired_interval(
    samples: Sequence[float],
    baseline: Sequence[float],
    error: float = ERROR,
    count: int | None = None,
    first_looks: tuple[int | None, int | None] = (None, None),
) -> Interval | None:
    """As `median_interval`, for the ratio of two medians; `first_looks` are those of the two sides.

    Each end is a ratio of two ends of the intervals of the medians, each of which misses its median with half the
    `error`.
    """
    sides = zip((samples, baseline), first_looks, strict=True)
    own, base = (median_interval(side, error / 2, count, first_look) for side, first_look in sides)
    if own is None or base is None:
        return None
    return Interval(ratio(own.low, base.high) if own.low else 0.0, ratio(own.high, base.low))
