"""The random streams of a path: one independent stream for each impairment.

A draw belongs to the *index* of a packet (its number among all offered packets) or to a slot of *time*, never to the
order of the calls. The same seed therefore gives packet 1,234 the same fate however packets are grouped, a second
impairment leaves the draws of the first unchanged, and a higher probability loses the same packets and more (common
random numbers).

Draws come from numpy's PCG64 in blocks, which costs a few nanoseconds per packet.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

import numpy as np

from toolkit.netmodel.spec import BurstLoss

BLOCK = 4096
_BURST_BLOCK = 256


def random_stream(seed: int, path: int, impairment: int) -> np.random.Generator:
    """The generator for one impairment of one path; statistically independent of all others."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, path, impairment))))


class IndexedUniforms:
    """A uniform number in [0, 1) for every index. Queries must not go back to an earlier block of indexes.

    `below` decides for a whole packet train in one call.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._start = -BLOCK
        self._draws = np.empty(0)
        self._hits: list[int] = []
        self._probability = -1.0

    def _load_block(self, index: int) -> None:
        """Make the block of `index` current. Skipped blocks are drawn too, so that a gap does not shift later draws."""
        while index >= self._start + BLOCK:
            self._draws = self._generator.random(BLOCK)
            self._start += BLOCK
            self._probability = -1.0

    def value(self, index: int) -> float:
        """The number that belongs to `index`."""
        self._load_block(index)
        return float(self._draws[index - self._start])

    def below(self, first: int, count: int, probability: float) -> Sequence[int]:
        """The indexes in [first, first + count) whose number is below `probability`, in order."""
        found: list[int] = []
        end = first + count
        while first < end:
            self._load_block(first)
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
    """The bad periods of a Gilbert-Elliott channel in continuous time, stationary from time 0 on."""

    def __init__(self, generator: np.random.Generator, burst: BurstLoss) -> None:
        self._generator = generator
        self._burst = burst
        self._bad: deque[tuple[float, float]] = deque()
        bad_share = burst.mean_bad_ns / (burst.mean_good_ns + burst.mean_bad_ns)
        self._drawn_until_ns = 0.0
        if generator.random() < bad_share:  # memoryless: the rest of a sojourn is distributed like a whole one
            self._drawn_until_ns = float(generator.exponential(burst.mean_bad_ns))
            self._bad.append((0.0, self._drawn_until_ns))

    def overlapping(self, first_ns: float, last_ns: float) -> list[tuple[float, float]]:
        """The bad periods [start, end) that overlap [first, last]; `first_ns` never decreases between calls."""
        while self._drawn_until_ns <= last_ns:
            self._draw_block()
        while self._bad and self._bad[0][1] <= first_ns:
            self._bad.popleft()
        found = []
        for period in self._bad:
            if period[0] > last_ns:
                break
            found.append(period)
        return found

    def _draw_block(self) -> None:
        good = self._generator.exponential(self._burst.mean_good_ns, _BURST_BLOCK)
        bad = self._generator.exponential(self._burst.mean_bad_ns, _BURST_BLOCK)
        ends = self._drawn_until_ns + np.cumsum(good + bad)
        self._bad.extend(zip((ends - bad).tolist(), ends.tolist(), strict=True))
        self._drawn_until_ns = float(ends[-1])
