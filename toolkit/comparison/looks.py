"""Ranks for intervals of a median that hold whenever a campaign stops, although its results decide when that is.

A campaign that samples until its intervals are narrow *looks* at them again and again. Each of n samples falls below
the true median with probability 1/2, so the number of those that do is a random walk, and the interval between the k-th
smallest and the k-th largest sample misses the median exactly if the walk has left the band from k to n - k. An
interval that misses in 5% at every n misses more often at the n at which a campaign stopped: if ratios have two peaks,
an interval is narrow when almost all samples happen to lie in one of them, and that is also when it misses.

Therefore k is chosen for the whole walk: the probability that it ever leaves the band, at whichever number of samples,
is at most the error. k grows only at the looks: the first, and then at each 4/3 times the one before. Between two looks
it stays, and there the walk cannot leave the band unless it has left it at the last look. Up to the n-th sample, the
share 1 - 3 / n of the error may be spent (Lan and DeMets, Biometrika 70, 1983). The probabilities are computed, not
approximated. They hold under every rule for stopping, and for every distribution. With a first look at eight samples
the price is small: the interval of 36 samples lies between the 11th smallest and the 11th largest, where a number fixed
beforehand allows the 12th. A first look at six would be dear: that all six lie on one side takes 3.1% of the 5%.
"""

from functools import cache
from math import comb

import numpy as np

_USUAL_LOOKS, _ALL_LOOKS = 100, 1500
_ROUNDING = 1e-12


def next_look(count: int) -> int:
    """The number of samples at the look after that at `count` samples."""
    return max(count + 1, round(count * 4 / 3))


@cache
def look_after(count: int, first_look: int) -> int:
    """The first look at more than `count` samples."""
    look = first_look
    while look <= count:
        look = next_look(look)
    return look


def rank_at_look(count: int, error: float, first_look: int) -> int:
    """The rank of the ends of the interval of `count` samples, counted from 1; 0 for too few samples.

    The probability that the interval misses the median, at any number of samples, is at most `error`.
    """
    ranks = _ranks(error, first_look, _USUAL_LOOKS if count < _USUAL_LOOKS else _ALL_LOOKS)
    return next((rank for look, rank in reversed(ranks) if look <= count), 0)


@cache
def _ranks(error: float, first_look: int, last_look: int) -> tuple[tuple[int, int], ...]:
    """Each look with its rank, in order."""
    inside = np.ones(1)  # probability that so many samples lie below the median, and the walk has not left the band
    ranks = []
    spent, rank, count, look = 0.0, 0, 0, first_look
    while look <= last_look:
        inside = np.convolve(inside, _binomial(look - count))
        below = np.cumsum(inside)
        while rank < look // 2 and spent + 2 * below[rank] <= error * (1 - 3 / look) + _ROUNDING:
            rank += 1
        if rank:
            spent += 2 * float(below[rank - 1])
            inside[:rank] = inside[-rank:] = 0.0
        ranks.append((look, rank))
        count, look = look, next_look(look)
    return tuple(ranks)


def _binomial(count: int) -> list[float]:
    """The probability of each number of successes in `count` trials with probability 1/2."""
    return [comb(count, successes) / (1 << count) for successes in range(count + 1)]
