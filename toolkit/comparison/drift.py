"""Whether goodput changed in the course of a campaign: a trend test on trials in the order they ran.

Mann and Kendall count in how many pairs of trials the later one is faster, and in how many it is slower: that is
Kendall's tau of goodput and order, which shows a trend whatever its shape and whatever the distribution (Mann,
Econometrica 13, 1945; Kendall, Rank Correlation Methods). The size of the trend is the median of the slopes between all
pairs (Theil, Sen) of the logarithm of goodput.

A trend that all transports share does not bias the comparison: each block runs every transport, in random order. It
does say that the trials are not repetitions of one experiment, and that an interval of a single goodput means little.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_SAMPLES = 6


@dataclass(frozen=True, slots=True)
class Drift:
    """A trend. p: probability of so strong a trend by chance, in either direction. factor: last relative to first."""

    p: float
    factor: float


def drift(samples: Sequence[float]) -> Drift | None:
    """The trend of positive samples in the order of time; None for fewer than MIN_SAMPLES."""
    count = len(samples)
    if count < MIN_SAMPLES or min(samples) <= 0:
        return None
    from scipy.stats import kendalltau, theilslopes  # slow to load

    p = float(kendalltau(np.arange(count), samples).pvalue)  # not a number if all samples are equal
    slope = float(theilslopes(np.log(samples)).slope)
    return Drift(1.0 if math.isnan(p) else p, math.exp(slope * (count - 1)))
