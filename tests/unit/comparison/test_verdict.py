"""Which verdict an interval allows: the margin, the gate of the A/A control, and many comparisons."""

import math
from dataclasses import replace
from functools import partial

import pytest

from toolkit.comparison.stats import Estimate, Interval, estimated_median, median_interval
from toolkit.comparison.verdict import (
    EQUIVALENT,
    FASTER,
    INCONCLUSIVE,
    NO_CLAIM,
    SLOWER,
    TOO_FEW,
    Evidence,
    Intervals,
    Verdict,
    could_find,
    judge,
    least_blocks,
    reach,
    to_settle,
)

MARGIN = 0.05


def between(low: float, high: float, control: float | None = 1.02, count: int = 9, doubt: str = "") -> Evidence:
    """Evidence with that interval at every confidence, and a control that reaches that far."""
    middle = math.inf if math.isinf(high) else math.sqrt(low * high)
    reaching = None if control is None else narrowing(1 / control, control, count)
    return Evidence(Estimate(middle, Interval(low, high)), narrowing(low, high, count), count, reaching, doubt)


def narrowing(low: float, high: float, count: int) -> Intervals:
    """An interval whose logarithm narrows with the square root of the number of blocks."""

    def interval(_error: float, blocks: int | None) -> Interval:
        if blocks is None or low == 0 or math.isinf(high):
            return Interval(low, high)
        middle, half = math.log(low * high) / 2, math.log(high / low) / 2 * math.sqrt(count / blocks)
        return Interval(math.exp(middle - half), math.exp(middle + half))

    return interval


def measured(ratios: list[float]) -> Evidence:
    return Evidence(estimated_median(ratios), partial(median_interval, ratios), len(ratios), narrowing(0.99, 1.01, 9))


def verdict_on(evidence: Evidence, margin: float = MARGIN) -> Verdict:
    return judge([evidence], margin)[0]


@pytest.mark.parametrize(
    ("low", "high", "word", "is_negligible"),
    [
        (1.96, 9.69, FASTER, False),
        (1.01, 1.20, FASTER, False),
        (1.001, 1.04, FASTER, True),
        (0.80, 0.95, SLOWER, False),
        (0.989, 0.995, SLOWER, True),
        (0.96, 1.04, EQUIVALENT, False),
        (1 / 1.05, 1.05, EQUIVALENT, False),
        (0.95, 1.05, INCONCLUSIVE, False),
        (0.16, 1.51, INCONCLUSIVE, False),
        (0.99, 1.06, INCONCLUSIVE, False),
    ],
)
def test_an_interval_allows_one_verdict(low: float, high: float, word: str, is_negligible: bool) -> None:
    verdict = verdict_on(between(low, high))
    assert (verdict.word, verdict.is_negligible, verdict.because) == (word, is_negligible, "")
    assert (verdict.more_blocks is not None) == (word == INCONCLUSIVE)
    inverse = verdict_on(between(1 / high, 1 / low))
    assert inverse.word == {FASTER: SLOWER, SLOWER: FASTER}.get(word, word)
    assert (inverse.is_negligible, inverse.more_blocks) == (is_negligible, verdict.more_blocks)


def test_the_margin_is_what_the_user_declares() -> None:
    assert verdict_on(between(0.98, 1.02), 0.01).word == INCONCLUSIVE
    assert verdict_on(between(0.85, 1.15), 0.2).word == EQUIVALENT
    assert verdict_on(between(1.05, 1.15), 0.2).is_negligible


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.99, 1.01, INCONCLUSIVE),  # equivalent, if the machine could tell
        (1.01, 1.30, INCONCLUSIVE),
        (0.75, 0.99, INCONCLUSIVE),
        (1.15, 1.50, FASTER),
        (0.30, 0.70, SLOWER),
    ],
)
def test_a_control_outside_the_margin_leaves_only_differences_larger_than_its_own(
    low: float, high: float, word: str
) -> None:
    verdict = verdict_on(between(low, high, control=1.25))
    assert verdict.word == word
    if word == INCONCLUSIVE:
        assert "differ from itself by 25%" in verdict.because
        assert "nothing finer" in verdict.because
        assert verdict.more_blocks is not None
        assert 9 + verdict.more_blocks == pytest.approx(9 * (math.log(1.25) / distance(low, high)) ** 2, rel=0.25)
    assert verdict_on(between(low, high, control=None)).word != INCONCLUSIVE


def distance(low: float, high: float) -> float:
    return max(abs(math.log(low * high)) / 2, math.log1p(MARGIN))


def test_a_control_of_which_nothing_is_known_leaves_nothing() -> None:
    verdict = verdict_on(between(27, 36, control=math.inf))
    assert (verdict.word, verdict.more_blocks) == (INCONCLUSIVE, None)
    assert "A/A control" in verdict.because


def test_a_large_reach_is_worded_as_a_factor() -> None:
    assert "by a factor of 3.20, " in verdict_on(between(0.5, 1.5, control=3.2)).because


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (Interval(0.96, 1.03), 1 / 0.96),
        (Interval(0.98, 1.2), 1.2),
        (Interval(0.0, 1.2), math.inf),
        (Interval(0.9, math.inf), math.inf),
        (None, math.inf),
    ],
)
def test_the_reach_of_a_control(control: Interval | None, expected: float) -> None:
    assert reach(control) == expected


def test_unfit_trials_make_no_claim() -> None:
    assert verdict_on(between(2, 3, doubt="marked")) == Verdict(NO_CLAIM, because="marked")
    assert verdict_on(measured([2.0] * 5)) == Verdict(NO_CLAIM, because=TOO_FEW)
    assert verdict_on(Evidence(None, lambda *_: None, 0)) == Verdict(NO_CLAIM, because=TOO_FEW)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.2), (0.9, math.inf), (0.0, math.inf)])
def test_an_interval_with_failures_is_inconclusive(low: float, high: float) -> None:
    verdict = verdict_on(between(low, high))
    assert (verdict.word, verdict.because) == (INCONCLUSIVE, "the interval includes failed transfers")
    assert verdict.more_blocks is None


def test_more_comparisons_take_more_blocks() -> None:
    assert [least_blocks(count) for count in (0, 1, 3, 12, 32)] == [6, 6, 7, 9, 11]
    all_slower = measured([0.8] * 9)
    assert {verdict.word for verdict in judge([all_slower] * 12, MARGIN)} == {SLOWER}
    thirteen = judge([all_slower] * 13, MARGIN)
    assert {(verdict.word, verdict.more_blocks) for verdict in thirteen} == {(INCONCLUSIVE, 1)}
    assert "so many comparisons" in thirteen[0].because


def test_a_difference_that_is_found_leaves_more_room_to_the_others() -> None:
    strong, weak = measured([0.8] * 9), measured([0.8] * 8 + [1.2])  # p = 0.004 and 0.039
    unsettled = measured([0.8, 1.2] * 5)
    assert [v.word for v in judge([strong, weak], MARGIN)] == [SLOWER, SLOWER]
    assert [v.word for v in judge([weak, unsettled], MARGIN)] == [INCONCLUSIVE, INCONCLUSIVE]


def test_what_was_planned_and_makes_no_claim_leaves_no_more_room_to_the_others() -> None:
    """So the number of blocks that a campaign takes is known before it begins."""
    all_slower = measured([0.8] * 6)
    doubtful, missing = replace(all_slower, doubt="marked"), Evidence(None, lambda *_: None, 0, doubt="not run")
    assert [v.word for v in judge([all_slower], MARGIN)] == [SLOWER]
    assert least_blocks(2) == 7
    for other in (doubtful, missing):
        assert [v.word for v in judge([all_slower, other], MARGIN)] == [INCONCLUSIVE, NO_CLAIM]
        assert [v.word for v in judge([measured([0.8] * 7), other], MARGIN)] == [SLOWER, NO_CLAIM]


def test_what_could_be_found_is_a_measured_difference() -> None:
    """Of campaigns in which the true ratio is as large, a third measure less."""
    assert could_find(1.2) == "a measured difference of 20% or more would have been found"
    assert could_find(None) == "no difference could have been found"


def test_the_number_of_blocks_in_words() -> None:
    assert to_settle(1) == "about 1 more block would settle it"
    assert to_settle(13) == "about 13 more blocks would settle it"
    assert to_settle(None) == "more blocks may not settle it"


@pytest.mark.parametrize(("low", "high"), [(0.8, 1.05), (0.9, 1.13), (0.97, 1.1), (0.5, 1.02)])
def test_a_width_falls_with_the_square_root_of_the_number_of_blocks(low: float, high: float) -> None:
    middle, half = abs(math.log(low * high)) / 2, math.log(high / low) / 2
    more = verdict_on(between(low, high)).more_blocks
    assert more is not None
    assert 9 + more == pytest.approx(9 * (half / max(middle, math.log1p(MARGIN) - middle)) ** 2, rel=0.25, abs=3)


def test_what_would_take_thousands_of_blocks_is_not_settled_by_more_blocks() -> None:
    assert verdict_on(between(0.1, 10.1)).more_blocks is None
    assert verdict_on(between(0.87, 1.15, count=50)).more_blocks is not None
    assert verdict_on(between(0.9, 1.13, count=2000)).more_blocks is None
