"""The statistics against hand-computed values, and the coverage of the intervals."""

import math
import random

import pytest

from toolkit.comparison import stats


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
    ("count", "rank"),
    [
        (6, 1),
        (8, 1),
        (9, 2),
        (12, 3),
        (15, 4),
        (20, 6),
        (2000, 956),
    ],  # the sign test's critical values at 5%, from tables
)
def test_the_interval_lies_between_two_order_statistics(count: int, rank: int) -> None:
    samples = [float(sample) for sample in range(1, count + 1)]
    estimate = stats.estimated_median(random.Random(1).sample(samples, count))
    assert estimate.interval == (rank, count + 1 - rank)


@pytest.mark.parametrize("count", [9, 20, 100, 1000])
def test_the_interval_of_more_samples_of_the_same_kind_can_be_foreseen(count: int) -> None:
    generator = random.Random(4)
    many = [generator.lognormvariate(0, 0.2) for _ in range(400)]
    widths = [stats.median_interval(generator.choices(many, k=count)) for _ in range(200)]
    mean = sum(one.high - one.low for one in widths if one is not None) / len(widths)
    expected = stats.median_interval(many, count=count)
    assert expected is not None
    assert expected.high - expected.low == pytest.approx(mean, rel=0.1)


def test_what_is_foreseen_of_a_few_samples_lies_between_them() -> None:
    samples = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, math.inf]
    assert stats.median_interval(samples) == (1, math.inf)
    assert stats.median_interval(samples, count=len(samples)) == (1, math.inf)
    assert stats.median_interval(samples, count=5) is None
    later = [stats.median_interval(samples, count=count) for count in (20, 100, 1000)]
    assert [one.low < 4 < one.high for one in later if one is not None] == [True] * 3
    assert [round(one.high - one.low, 1) for one in later if one is not None] == pytest.approx([3.2, 1.4, 0.4], abs=0.3)
    assert stats.median_interval([math.inf] * 6, count=50) == (math.inf, math.inf)


def test_less_error_takes_more_samples() -> None:
    assert stats.least_samples(stats.ERROR) == stats.MIN_SAMPLES
    for error in (0.05, 0.05 / 3, 0.05 / 32, 2**-9):
        least = stats.least_samples(error)
        assert stats.median_interval([1.0] * (least - 1), error) is None
        assert stats.median_interval([1.0] * least, error) == (1, 1)


@pytest.mark.parametrize(
    ("low", "high", "excludes"), [(0.5, 0.9, True), (1.1, 2, True), (0.9, 1.1, False), (1, 2, False), (0.5, 1, False)]
)
def test_an_interval_excludes_one(low: float, high: float, excludes: bool) -> None:
    assert stats.Interval(low, high).excludes_one == excludes


def test_failures_count_on_either_side() -> None:
    assert stats.ratio(0.0, 5.0) == 0
    assert stats.ratio(5.0, 0.0) == math.inf
    assert stats.estimated_median([0.0, 1.1, 1.1, 1.1, 1.1, 1.1]) == (1.1, (0, 1.1))
    assert stats.estimated_median([math.inf, 0.9, 0.9, 0.9, 0.9, 0.9]) == (0.9, (0.9, math.inf))


def test_an_unpaired_ratio_has_the_intervals_of_both_medians() -> None:
    old, new = [float(n) for n in range(1, 8)], [float(n) for n in range(10, 80, 10)]
    assert stats.unpaired_ratio(new, old) == (10, (10 / 7, 70))
    assert stats.unpaired_ratio(new[:6], old).interval is None
    sound = [1.0] * 8
    assert stats.unpaired_ratio(sound, [0.0] * 8) == (math.inf, (math.inf, math.inf))
    assert stats.unpaired_ratio([0.0] * 8, sound) == (0, (0, 0))
    assert stats.unpaired_ratio([0.0] + [1.0] * 9, [0.0] + [1.0] * 9).interval == (1, 1)
    assert stats.unpaired_ratio([0.0] * 7 + sound, sound).interval == (0, 1)


@pytest.mark.parametrize("count", [7, 9, 12])
def test_95_per_cent_of_the_unpaired_intervals_cover_the_true_ratio(count: int) -> None:
    generator = random.Random(20)
    campaigns = 2000
    covered = 0
    for _ in range(campaigns):
        old, new = ([generator.lognormvariate(0, 0.2) for _ in range(count)] for _ in range(2))
        interval = stats.unpaired_ratio(new, old).interval
        assert interval is not None
        covered += interval.low <= 1 <= interval.high
    assert covered >= 0.95 * campaigns
