"""Whether goodput changed in the course of a campaign: a trend test on trials in the order they ran.

Mann and Kendall count in how many pairs of trials the later one is faster, and in how many it is slower. Their
difference S says whether there is a trend, whatever the distribution and whatever the shape of the trend (Mann,
Econometrica 13, 1945; Kendall, Rank Correlation Methods). Without ties the distribution of S is that of the inversions
of a random permutation, which is computed exactly here; with ties it is approximated by a normal one. The size of the
trend is the median of the slopes between all pairs (Theil, Sen) of the logarithm of goodput.

A trend that all transports share does not bias the comparison: each block runs every transport, in random order. It
does say that the trials are not repetitions of one experiment, and that an interval of a single goodput means little.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

MIN_SAMPLES = 6
_EXACT_SAMPLES = 100
"""More trials than this have a distribution that is normal for all purposes."""


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
    earlier, later = np.triu_indices(count, 1)
    values = np.array(samples)
    score = int(np.sign(values[later] - values[earlier]).sum())
    ties = [tied for tied in Counter(samples).values() if tied > 1]
    logs = np.log(values)
    slope = float(np.median((logs[later] - logs[earlier]) / (later - earlier)))
    p = _normal_p(score, count, ties) if ties or count > _EXACT_SAMPLES else _exact_p(abs(score), count)
    return Drift(p, math.exp(slope * (count - 1)))


def _exact_p(score: int, count: int) -> float:
    """Probability that |S| of a random permutation is at least `score`."""
    pairs = count * (count - 1) // 2
    most = (pairs - score) // 2  # S = pairs - 2 x inversions
    return min(1.0, 2 * sum(_inversions(count)[: most + 1]))


@cache
def _inversions(count: int) -> tuple[float, ...]:
    """Probability of each number of inversions of a random permutation of `count` things."""
    shares = [1.0]
    for things in range(2, count + 1):
        # The last thing is before 0, 1, ... things - 1 of the others, each with the same probability.
        longer = [0.0] * (len(shares) + things - 1)
        running = 0.0
        for inversions in range(len(longer)):
            running += shares[inversions] if inversions < len(shares) else 0.0
            running -= shares[inversions - things] if inversions >= things else 0.0
            longer[inversions] = max(0.0, running) / things
        shares = longer
    return tuple(shares)


def _normal_p(score: int, count: int, ties: Sequence[int]) -> float:
    variance = count * (count - 1) * (2 * count + 5) - sum(tied * (tied - 1) * (2 * tied + 5) for tied in ties)
    if not variance:
        return 1.0
    corrected = max(0, abs(score) - 1)
    return min(1.0, 2 * NormalDist().cdf(-corrected / math.sqrt(variance / 18)))
