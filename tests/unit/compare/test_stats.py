"""The statistics against hand-computed values, and the coverage of the intervals."""

import math
import random

import pytest

from toolkit.compare import stats


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


def test_too_few_samples_have_no_interval() -> None:
    estimate = stats.estimated_median([3.0, 1.0, 5.0, 2.0, 4.0])
    assert estimate.value == 3
    assert estimate.interval is None


@pytest.mark.parametrize(
    ("count", "low", "high", "share"),
    [  # from binomial tables: the ranks that just cover 95%, and the fraction of the way to the next ranks
        (6, 1, 6, 0.357),
        (8, 1, 8, 0.936),
        (10, 2, 9, 0.658),
        (15, 4, 12, 0.373),
    ],
)
def test_the_interval_lies_between_two_order_statistics(count: int, low: int, high: int, share: float) -> None:
    samples = [2.0**rank for rank in range(1, count + 1)]
    estimate = stats.estimated_median(random.Random(1).sample(samples, count))
    assert estimate.interval is not None
    assert math.log2(estimate.interval.low) == pytest.approx(low + share, abs=0.001)
    assert math.log2(estimate.interval.high) == pytest.approx(high - share, abs=0.001)


def test_a_ratio_is_the_median_of_the_ratios_of_pairs() -> None:
    fast_and_slow_blocks = [100.0, 10.0, 50.0, 20.0, 80.0, 40.0]
    twice = [2 * sample for sample in fast_and_slow_blocks]
    estimate = stats.paired_ratio(twice, fast_and_slow_blocks)
    assert estimate == stats.Estimate(2.0, stats.Interval(pytest.approx(2.0), pytest.approx(2.0)))
    with pytest.raises(ValueError, match="zip"):
        stats.paired_ratio(twice, fast_and_slow_blocks[1:])


def test_failures_count_on_either_side() -> None:
    sound = [1.0] * 6
    once = stats.paired_ratio([0.0, 1.1, 1.1, 1.1, 1.1, 1.1], sound)
    assert once.value == 1.1
    assert once.interval == (0.0, pytest.approx(1.1))
    inverse = stats.paired_ratio(sound, [0.0, 1.1, 1.1, 1.1, 1.1, 1.1])
    assert inverse.interval == (pytest.approx(1 / 1.1), math.inf)
    assert stats.paired_ratio([0.0] * 6, sound) == (0.0, (0.0, 0.0))
    assert stats.paired_ratio(sound, [0.0] * 6) == (math.inf, (math.inf, math.inf))
    assert stats.paired_ratio([0.0] * 6, [0.0] * 6) == (1.0, (pytest.approx(1.0), pytest.approx(1.0)))
    both = stats.paired_ratio([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert both.interval == (0.0, math.inf)
    unpaired = stats.unpaired_ratio(sound, [0.0] * 4 + [1.0] * 2, seed=1)
    assert unpaired.value == math.inf
    assert unpaired.interval is not None
    assert unpaired.interval[1] == math.inf


@pytest.mark.parametrize("count", [6, 7, 10])
def test_95_per_cent_of_the_intervals_cover_the_true_ratio(count: int) -> None:
    generator = random.Random(20)
    covered = 0
    campaigns = 2000
    for _ in range(campaigns):
        ratios = [(generator.lognormvariate(0, 0.2), generator.lognormvariate(0, 0.2)) for _ in range(count)]
        interval = stats.paired_ratio(*zip(*ratios, strict=True)).interval  # type: ignore[arg-type]
        assert interval is not None
        covered += interval.low <= 1 <= interval.high
    assert 0.935 * campaigns <= covered <= 0.965 * campaigns  # three standard deviations about 95%
