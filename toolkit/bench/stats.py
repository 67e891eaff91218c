"""Few samples, skewed and with outliers: medians, and intervals that assume no distribution.

Spread is the median absolute deviation, which one bad trial cannot move. Intervals are percentile
bootstraps (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13) of the median. With n
samples no interval made from them can cover the true median with more than 1 - 2^(1-n): 94% at five, 75% at
three. Below MIN_SAMPLES there is therefore none. Two transports are compared by the ratios within blocks,
because what disturbs one trial of a block often disturbs its neighbours too; the ratio's interval decides,
never the overlap of two separate ones.
"""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

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
    return Estimate(median(samples), _bootstrap(samples, seed))


def paired_ratio(samples: Sequence[float], baseline: Sequence[float], seed: int) -> Estimate:
    """The median of `samples[i] / baseline[i]`, and its interval. As long as each other, not empty."""
    ratios = [sample / base for sample, base in zip(samples, baseline, strict=True)]
    return bootstrap_median(ratios, seed)


def unpaired_ratio(samples: Sequence[float], baseline: Sequence[float], seed: int) -> Estimate:
    """The ratio of two medians whose samples are no pairs, and its interval. Neither may be empty."""
    value = median(samples) / median(baseline)
    if min(len(samples), len(baseline)) < MIN_SAMPLES:
        return Estimate(value, None)
    generator = np.random.RandomState(seed)
    drawn = _medians(samples, generator) / _medians(baseline, generator)
    return Estimate(value, _percentiles(drawn))


def jain(rates: Sequence[float]) -> float:
    """Jain's index of fairness: 1 where all have the same, 1/n where one has everything (DEC-TR-301, 1984)."""
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 1.0


def _bootstrap(samples: Sequence[float], seed: int) -> Interval | None:
    if len(samples) < MIN_SAMPLES:
        return None
    return _percentiles(_medians(samples, np.random.RandomState(seed)))


def _medians(
    samples: Sequence[float], generator: np.random.RandomState
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Of RESAMPLES resamples. The old generator, because its stream is the same in every version of numpy."""
    chosen = generator.randint(0, len(samples), (RESAMPLES, len(samples)))
    medians: np.ndarray[tuple[int], np.dtype[np.float64]] = np.median(np.asarray(samples, np.float64)[chosen], axis=1)
    return medians


def _percentiles(drawn: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Interval(float(low), float(high))
