"""Few samples, skewed and with outliers: medians, and intervals that assume no distribution.

Spread is the median absolute deviation, which one bad trial cannot move. Intervals are percentile
bootstraps (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13) of the median. With n
samples no interval made from them can cover the true median with more than 1 - 2^(1-n): 94% at five, 75% at
three. Below MIN_SAMPLES there is therefore none. Two transports are compared by the ratios within blocks,
because what disturbs one trial of a block often disturbs its neighbours too; the ratio's interval decides,
never the overlap of two separate ones.
"""

import random
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

MIN_SAMPLES = 5
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


def bootstrap_median(samples: Sequence[float], seed: int) -> Estimate:
    """The median and its interval; the same seed gives the same interval. `samples` must not be empty."""
    return Estimate(median(samples), _bootstrap(samples, median, seed))


def paired_ratio(samples: Sequence[float], baseline: Sequence[float], seed: int) -> Estimate:
    """The median of `samples[i] / baseline[i]`, and its interval. As long as each other, not empty."""
    ratios = [sample / base for sample, base in zip(samples, baseline, strict=True)]
    return bootstrap_median(ratios, seed)


def _bootstrap(samples: Sequence[float], statistic: Callable[[Sequence[float]], float], seed: int) -> Interval | None:
    if len(samples) < MIN_SAMPLES:
        return None
    generator = random.Random(seed)
    drawn = [statistic(generator.choices(samples, k=len(samples))) for _ in range(RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    return Interval(quantile(drawn, tail), quantile(drawn, 1 - tail))
