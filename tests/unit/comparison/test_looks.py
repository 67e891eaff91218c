"""Ranks of intervals that hold at every number of samples at once, however the last one was chosen."""

import numpy as np
import pytest

from toolkit.comparison.looks import look_after, next_look, rank_at_look
from toolkit.comparison.stats import ERROR, interval_rank, least_samples

LAST = 200
SEED = 20


def test_looks_are_a_third_apart() -> None:
    assert [look_after(count, 8) for count in (0, 7, 8, 10, 11, 20, 36)] == [8, 8, 11, 11, 15, 27, 48]
    assert [next_look(count) for count in (1, 2, 8, 48)] == [2, 3, 11, 64]


@pytest.mark.parametrize("comparisons", [1, 2, 4, 16])
def test_the_walk_leaves_the_band_with_at_most_the_error(comparisons: int) -> None:
    error = ERROR / comparisons
    first = least_samples(error, is_first_look=True)
    generator = np.random.default_rng(SEED)
    below = np.cumsum(generator.random((40_000, LAST)) < 0.5, axis=1)
    outside = np.zeros(len(below), bool)
    for count in range(first, LAST + 1):
        rank = interval_rank(count, error, first)
        outside |= (below[:, count - 1] < rank) | (below[:, count - 1] > count - rank)
    share = float(outside.mean())
    assert 0.5 * error < share <= 1.05 * error, f"seed {SEED}: {share}"  # 5%: what 40,000 walks leave to chance


def test_the_price_is_at_most_a_few_ranks() -> None:
    ranks = [(count, interval_rank(count, ERROR, 8), interval_rank(count)) for count in (8, 11, 15, 20, 27, 36, 48, 64)]
    assert all(fixed - 3 <= rank <= fixed for _, rank, fixed in ranks), ranks
    assert rank_at_look(7, ERROR, 8) == 0


def test_an_interval_contains_those_for_a_larger_error() -> None:
    for count in range(8, LAST):
        ranks = [interval_rank(count, ERROR / part, 8) for part in range(1, 13)]
        assert ranks == sorted(ranks, reverse=True)


def test_the_first_look_at_which_a_difference_can_be_found() -> None:
    assert [least_samples(ERROR / count, is_first_look=True) for count in (1, 2, 4, 6, 16)] == [7, 8, 8, 9, 10]
