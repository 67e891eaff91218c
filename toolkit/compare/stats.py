"""Few samples, skewed and with outliers: medians, and intervals that assume no distribution.

Spread is the median absolute deviation, which one bad trial cannot move. An interval of a median lies between two
order statistics: how many of n samples fall below the true median is binomial, whatever their distribution, so that
the interval from the k-th least to the k-th largest covers it with a chance that is known (David and Nagaraja, Order
Statistics, section 7.1). No k gives 95% exactly; the interval lies between the two that come nearest, by the rule of
Hettmansperger and Sheather (Statistics and Probability Letters 4, 1986), which holds 95% at every n. (A percentile
bootstrap of the median holds 87% at seven samples.) From five samples no interval has more than 94%: below
MIN_SAMPLES there is none.

Two transports are compared by the ratios within blocks, because what disturbs one trial of a block often disturbs its
neighbours too; the ratio's interval decides, never the overlap of two separate ones. A transfer that failed has a
goodput of 0, and takes part: the ratio to it is infinite. Order statistics do not mind.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import NamedTuple

import numpy as np

MIN_SAMPLES = 6
CONFIDENCE = 0.95
RESAMPLES = 5000


class Interval(NamedTuple):
    """Both ends, in the unit of the samples."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A value and its 95% interval; None where there are too few samples for one."""

    value: float
    interval: Interval | None


def median_absolute_deviation(samples: Sequence[float]) -> float:
    """The median distance from the median, in the unit of the samples. `samples` must not be empty."""
    middle = median(samples)
    return median(abs(sample - middle) for sample in samples)


def quantile(samples: Sequence[float], fraction: float) -> float:
    """Linear between order statistics (Hyndman and Fan's type 7). `samples` must not be empty."""
    ordered = sorted(samples)
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def estimated_median(samples: Sequence[float]) -> Estimate:
    """The median and its interval. `samples` are not negative, and may be infinite; there is at least one."""
    ordered = sorted(samples)
    return Estimate(median(ordered), _interval(ordered) if len(ordered) >= MIN_SAMPLES else None)


def paired_ratio(samples: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """The median of `samples[i] / baseline[i]`, and its interval. As long as each other, not empty."""
    return estimated_median([_ratio(sample, base) for sample, base in zip(samples, baseline, strict=True)])


def unpaired_ratio(samples: Sequence[float], baseline: Sequence[float], seed: int) -> Estimate:
    """The ratio of two medians whose samples are no pairs, and its interval by percentile bootstrap.

    Neither may be empty; the same seed gives the same interval (Efron and Tibshirani, An Introduction to the Bootstrap,
    chapter 13).
    """
    value = _ratio(median(samples), median(baseline))
    if min(len(samples), len(baseline)) < MIN_SAMPLES:
        return Estimate(value, None)
    generator = np.random.RandomState(seed)
    drawn = sorted(map(_ratio, _medians(samples, generator), _medians(baseline, generator)))
    outside = int((1 - CONFIDENCE) / 2 * RESAMPLES)
    return Estimate(value, Interval(drawn[outside], drawn[-1 - outside]))


def _ratio(sample: float, base: float) -> float:
    """Of two goodputs. Where both transfers failed, neither was the better one."""
    if base:
        return sample / base
    return math.inf if sample else 1.0


def _interval(ordered: Sequence[float]) -> Interval:
    count = len(ordered)
    fallen = accumulate(math.comb(count, below) for below in range(count // 2))
    coverages = [1 - 2 * ways / (1 << count) for ways in fallen]  # from the rank-th least to the rank-th largest
    rank = sum(coverage >= CONFIDENCE for coverage in coverages)
    excess = (coverages[rank - 1] - CONFIDENCE) / (coverages[rank - 1] - coverages[rank])
    share = (count - rank) * excess / (rank + (count - 2 * rank) * excess)
    return Interval(
        _between(ordered[rank - 1], ordered[rank], share), _between(ordered[-rank], ordered[-rank - 1], share)
    )


def _between(outer: float, inner: float, share: float) -> float:
    """On a scale of logarithms, so that the inverse ratio has the inverse interval; a failure has no place on it."""
    if {outer, inner} & {0.0, math.inf}:
        return outer
    return float(outer ** (1 - share) * inner**share)


def _medians(samples: Sequence[float], generator: np.random.RandomState) -> list[float]:
    """Of RESAMPLES resamples. The old generator, because its stream is the same in every version of numpy."""
    chosen = generator.randint(0, len(samples), (RESAMPLES, len(samples)))
    medians: list[float] = np.median(np.asarray(samples, np.float64)[chosen], axis=1).tolist()
    return medians
