"""The trend test against planted trends, and against its exact distribution."""

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations

import pytest

from tests.support.repetitions import first_then_long
from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.drift import drift
from toolkit.comparison.summary import summarise


def test_the_probability_is_that_of_all_permutations() -> None:
    scores = Counter(
        sum((later > earlier) - (later < earlier) for earlier, later in combinations(order, 2))
        for order in permutations(range(1, 7))
    )
    total = sum(scores.values())
    for samples in ((1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 6, 5), (3, 1, 2, 6, 5, 4), (6, 4, 5, 3, 1, 2), (1, 6, 2, 5, 3, 4)):
        score = abs(sum((later > earlier) - (later < earlier) for earlier, later in combinations(samples, 2)))
        share = sum(count for found, count in scores.items() if abs(found) >= score) / total
        found = drift(samples)
        assert found is not None
        assert found.p == pytest.approx(share)


@pytest.mark.parametrize("count", first_then_long([20, 8, 150]))
def test_a_trend_is_found_and_chance_seldom_is(count: int) -> None:
    generator = random.Random(count)
    noise = [[generator.lognormvariate(0, 0.03) for _ in range(count)] for _ in range(300)]
    found = [drift(samples) for samples in noise]
    assert sum(each is not None and each.p <= 0.05 for each in found) <= 27
    slower = [drift([sample * 0.8 ** (n / (count - 1)) for n, sample in enumerate(samples)]) for samples in noise]
    assert sum(each is not None and each.p <= 0.05 for each in slower) >= 250
    factors = sorted(each.factor for each in slower if each is not None)
    assert factors[150] == pytest.approx(0.8, rel=0.03)


def test_ties_and_few_samples() -> None:
    flat = drift([5.0] * 9)
    assert flat is not None
    assert (flat.p, flat.factor) == (1.0, 1.0)
    steps = drift([1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0])
    assert steps is not None
    assert steps.p < 0.01
    assert drift([1.0] * 5) is None
    assert drift([1.0] * 9 + [0.0]) is None


def test_a_drift_is_named_with_the_verdict() -> None:
    truth = Truth({("tcp-cubic", "a"): 9e7, ("udp-bbr", "a"): 4e7}, repeats=12, drift=0.0)
    results = make_results(truth, 1)
    assert all(row.drift is None for row in summarise(results).rows)
    trials = [
        replace(t, goodput_bps=t.goodput_bps * 0.7 ** (t.block / 11)) if t.goodput_bps and t.block >= 0 else t
        for t in results.trials
    ]
    summary = summarise(replace(results, trials=trials))
    assert all(row.drift == pytest.approx(0.7, rel=0.05) for row in summary.rows)
    assert (
        "udp-bbr drifted: from the first trial to the last its goodput changed by a factor of 0." in summary.headline[0]
    )
