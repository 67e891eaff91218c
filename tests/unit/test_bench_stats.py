"""The statistics against values worked out by hand, and the intervals against what they promise."""

import random

import pytest

from toolkit.bench import stats


def test_one_outlier_does_not_move_the_deviation() -> None:
    assert stats.median_absolute_deviation([10, 11, 12, 13, 14]) == 1
    assert stats.median_absolute_deviation([10, 11, 12, 13, 1400]) == 1


def test_quantiles_lie_between_order_statistics() -> None:
    samples = [40.0, 10.0, 30.0, 20.0]
    assert stats.quantile(samples, 0) == 10
    assert stats.quantile(samples, 1) == 40
    assert stats.quantile(samples, 0.5) == 25
    assert stats.quantile(samples, 0.25) == pytest.approx(17.5)
    assert stats.quantile([7.0], 0.975) == 7


def test_too_few_samples_give_a_value_and_no_interval() -> None:
    estimate = stats.bootstrap_median([3.0, 1.0, 2.0, 4.0], seed=1)
    assert estimate.value == 2.5
    assert estimate.interval is None


def test_the_interval_is_made_of_the_samples_and_repeats_with_its_seed() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]
    estimate = stats.bootstrap_median(samples, seed=7)
    assert estimate == stats.bootstrap_median(samples, seed=7)
    assert estimate.interval == (1.0, 5.0)  # all that five samples can say


def test_a_ratio_is_taken_pair_by_pair() -> None:
    fast_and_slow_blocks = [100.0, 10.0, 50.0, 20.0, 80.0]
    twice = [2 * sample for sample in fast_and_slow_blocks]
    estimate = stats.paired_ratio(twice, fast_and_slow_blocks, seed=1)
    assert estimate == stats.Estimate(2.0, stats.Interval(2.0, 2.0))
    with pytest.raises(ValueError, match="zip"):
        stats.paired_ratio(twice, fast_and_slow_blocks[1:], seed=1)


@pytest.mark.parametrize("count", [5, 9])
def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(count: int) -> None:
    generator = random.Random(20)
    covered = 0
    campaigns = 60
    for campaign in range(campaigns):
        base = [generator.lognormvariate(0, 0.2) for _ in range(count)]
        other = [generator.lognormvariate(0, 0.2) for _ in range(count)]
        interval = stats.paired_ratio(other, base, seed=campaign).interval
        assert interval is not None
        covered += interval.low <= 1 <= interval.high
    assert covered >= 0.85 * campaigns  # 95% promised; under 85% of 60 has a chance of one in a thousand
