"""Statistics for few, skewed samples with outliers: medians, and intervals that assume no distribution.

The spread is the median absolute deviation, which one bad trial cannot move. The interval of a median lies between two
order statistics. How many of n samples fall below the true median is binomial, whatever their distribution, so that the
probability that the interval from the k-th smallest to the k-th largest sample covers it is known (David and Nagaraja,
Order Statistics, section 7.1). No k gives exactly 95%. The interval therefore lies between the two nearest ones, by the
rule of Hettmansperger and Sheather (Statistics and Probability Letters 4, 1986), which holds 95% at every n. (A
percentile bootstrap of the median holds 87% at seven samples.) With five samples no interval holds more than 94%: below
MIN_SAMPLES there is no interval.

Two transports are compared by the ratios within blocks, because what disturbs one trial of a block often disturbs its
neighbours too. The interval of the ratio decides, never the overlap of two separate intervals. A failed transfer counts
with a goodput of 0, and the ratio to it is infinite; order statistics allow both.
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
    """A value and its 95% interval; None for too few samples."""

    value: float
    interval: Interval | None


def median_absolute_deviation(samples: Sequence[float]) -> float:
    """The median distance from the median, in the unit of the samples. At least one sample is needed."""
    middle = median(samples)
    return median(abs(sample - middle) for sample in samples)


def quantile(samples: Sequence[float], fraction: float) -> float:
    """Quantile by linear interpolation between order statistics (Hyndman and Fan, type 7). At least one sample."""
    ordered = sorted(samples)
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def estimated_median(samples: Sequence[float]) -> Estimate:
    """The median and its interval. Needs at least one sample; samples are not negative, and may be infinite."""
    ordered = sorted(samples)
    return Estimate(median(ordered), _interval(ordered) if len(ordered) >= MIN_SAMPLES else None)


def paired_ratio(samples: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """The median of `samples[i] / baseline[i]`, and its interval. Both have the same length, at least one."""
    return estimated_median([_ratio(sample, base) for sample, base in zip(samples, baseline, strict=True)])


def unpaired_ratio(samples: Sequence[float], baseline: Sequence[float], seed: int) -> Estimate:
    """The ratio of two medians whose samples are not pairs, and its interval by percentile bootstrap.

    Each needs at least one sample. The same seed gives the same interval (Efron and Tibshirani, An Introduction to the
    Bootstrap, chapter 13).
    """
    value = _ratio(median(samples), median(baseline))
    if min(len(samples), len(baseline)) < MIN_SAMPLES:
        return Estimate(value, None)
    generator = np.random.RandomState(seed)
    drawn = sorted(map(_ratio, _medians(samples, generator), _medians(baseline, generator)))
    outside = int((1 - CONFIDENCE) / 2 * RESAMPLES)
    return Estimate(value, Interval(drawn[outside], drawn[-1 - outside]))


def _ratio(sample: float, base: float) -> float:
    """The ratio of two goodputs; 1 if both transfers failed, because neither was better."""
    if base:
        return sample / base
    return math.inf if sample else 1.0


def _interval(ordered: Sequence[float]) -> Interval:
    count = len(ordered)
    fallen = accumulate(math.comb(count, below) for below in range(count // 2))
    coverages = [
        1 - 2 * ways / (1 << count) for ways in fallen
    ]  # of the interval from the rank-th smallest to the rank-th largest
    rank = sum(coverage >= CONFIDENCE for coverage in coverages)
    excess = (coverages[rank - 1] - CONFIDENCE) / (coverages[rank - 1] - coverages[rank])
    share = (count - rank) * excess / (rank + (count - 2 * rank) * excess)
    return Interval(
        _between(ordered[rank - 1], ordered[rank], share), _between(ordered[-rank], ordered[-rank - 1], share)
    )


def _between(outer: float, inner: float, share: float) -> float:
    """Interpolate logarithms, so that the inverse ratio has the inverse interval. A failure has no logarithm."""
    if {outer, inner} & {0.0, math.inf}:
        return outer
    return float(outer ** (1 - share) * inner**share)


def _medians(samples: Sequence[float], generator: np.random.RandomState) -> list[float]:
    """Medians of RESAMPLES resamples. The legacy generator's stream is the same in every version of numpy."""
    chosen = generator.randint(0, len(samples), (RESAMPLES, len(samples)))
    medians: list[float] = np.median(np.asarray(samples, np.float64)[chosen], axis=1).tolist()
    return medians
