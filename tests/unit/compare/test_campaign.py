"""Choosing a recorded trial, and the seeds that link trials of a block together."""

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.compare.campaign import link_seed, trial_of
from toolkit.errors import UsageError


def test_a_trial_by_its_number() -> None:
    results = make_results(Truth({("tcp-cubic", "a"): 90e6}), 1)
    assert trial_of(results, 3) == results.trials[2]
    with pytest.raises(UsageError, match="no trial 1000"):
        trial_of(results, 1000)


def test_the_link_has_one_seed_for_each_block() -> None:
    seeds = {link_seed(seed, path, block) for seed in (1, 2) for path in (0, 1, 2) for block in range(-1, 50)}
    assert len(seeds) == 2 * 3 * 51
    assert link_seed(1, 0, 3) == link_seed(1, 0, 3)
