"""The random streams of a path: one for each impairment, none of which can disturb another.

A draw belongs to the *index* of a packet (its place among all that were offered) or to a slot of *time*,
never to the order in which somebody asks. So the same seed gives packet number 1,234 the same fate however
the packets were grouped on their way here, a second impairment leaves the draws of the first as they were,
and raising a probability adds lost packets to those that were lost before (common random numbers).

Draws come from numpy's PCG64, a block at a time: some nanoseconds per packet.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

import numpy as np

from toolkit.netmodel.spec import BurstLoss

BLOCK = 4096
_BURST_BLOCK = 256


def random_stream(seed: int, path: int, impairment: int) -> np.random.Generator:
    """The generator of one impairment of one direction; statistically independent of all others."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, path, impairment))))


class IndexedUniforms:
    """A uniform number in [0, 1) for every index; indexes are asked for in rising order, gaps are free.

    `below` is a loss decision for a whole packet train at the price of a comparison.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._start = -BLOCK
        self._draws = np.empty(0)
        self._hits: list[int] = []
        self._probability = -1.0

    def _block_of(self, index: int) -> None:
        """Make the block of `index` current. Every block is drawn, so that a gap leaves later draws alone."""
        while index >= self._start + BLOCK:
            self._draws = self._generator.random(BLOCK)
            self._start += BLOCK
            self._probability = -1.0

    def value(self, index: int) -> float:
        """The number of `index`."""
        self._block_of(index)
        return float(self._draws[index - self._start])

    def below(self, first: int, count: int, probability: float) -> Sequence[int]:
        """Those of the `count` indexes from `first` on whose number is below `probability`, in order."""
        found: list[int] = []
        end = first + count
        while first < end:
            self._block_of(first)
            if probability != self._probability:
                self._hits = (np.flatnonzero(self._draws < probability) + self._start).tolist()
                self._probability = probability
            block_end = min(end, self._start + BLOCK)
            hits = self._hits
            at = bisect_left(hits, first)
            while at < len(hits) and hits[at] < block_end:
                found.append(hits[at])
                at += 1
            first = block_end
        return found


class BurstStates:
    """The bad periods of a Gilbert-Elliott channel in time: exponential stays, stationary from time 0 on."""

    def __init__(self, generator: np.random.Generator, burst: BurstLoss) -> None:
        self._generator = generator
        self._burst = burst
        self._bad: deque[tuple[float, float]] = deque()
        bad_share = burst.mean_bad_ns / (burst.mean_good_ns + burst.mean_bad_ns)
        self._drawn_until_ns = 0.0
        if generator.random() < bad_share:  # an exponential stay has no memory: its rest is as long as a whole
            self._drawn_until_ns = float(generator.exponential(burst.mean_bad_ns))
            self._bad.append((0.0, self._drawn_until_ns))

    def overlapping(self, first_ns: float, last_ns: float) -> list[tuple[float, float]]:
        """The bad periods [start, end) that meet [first, last]; `first_ns` never goes back between calls."""
        while self._drawn_until_ns <= last_ns:
            self._draw()
        while self._bad and self._bad[0][1] <= first_ns:
            self._bad.popleft()
        found = []
        for period in self._bad:
            if period[0] > last_ns:
                break
            found.append(period)
        return found

    def _draw(self) -> None:
        good = self._generator.exponential(self._burst.mean_good_ns, _BURST_BLOCK)
        bad = self._generator.exponential(self._burst.mean_bad_ns, _BURST_BLOCK)
        ends = self._drawn_until_ns + np.cumsum(good + bad)
        self._bad.extend(zip((ends - bad).tolist(), ends.tolist(), strict=True))
        self._drawn_until_ns = float(ends[-1])
