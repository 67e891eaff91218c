"""Verdicts on simulated campaigns with a known truth, under noise of many kinds.

They sample as `nettool bench` does by default: a pilot, and then further blocks until the intervals are narrow. Those
of a fixed number of blocks (`--repeat`) have the same tests where they differ.

The seed is in every message. There are so many campaigns that a rate beyond its bound is not chance.
"""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from tests.support.noise import BASELINE, NOISES, RIVAL, Logs, log_goodputs
from tests.support.planted_truths import CAMPAIGNS, MOST, NEGLIGIBLE, PILOT, SEED, evidence, verdicts, words
from tests.support.repetitions import first_then_long
from toolkit.comparison.looks import look_after
from toolkit.comparison.sampling import width
from toolkit.comparison.stats import median_interval
from toolkit.comparison.verdict import (
    DEFAULT_MARGIN,
    EQUIVALENT,
    FASTER,
    INCONCLUSIVE,
    SLOWER,
    judge,
    least_blocks,
)

BLOCKS = 9
ENOUGH = 25
"""Blocks after which an interval under 3% noise lies within the margin of 5%."""
MANY = 1000


@pytest.mark.parametrize("noise", first_then_long(NOISES))
@pytest.mark.parametrize("blocks", [None, BLOCKS])
def test_identical_transports_differ_in_at_most_5_of_100_campaigns(noise: str, blocks: int | None) -> None:
    made = verdicts(noise, 1.0, blocks)
    different = sum(one.word in (FASTER, SLOWER) for one, _ in made)
    assert different <= 0.05 * CAMPAIGNS, f"{noise}, seed {SEED}: {different} of {CAMPAIGNS}"
    wide = [one for one, interval in made if interval.high / interval.low > (1 + DEFAULT_MARGIN) ** 2]
    assert wide or blocks is None, f"{noise}, seed {SEED}"
    assert not any(one.word == EQUIVALENT or one.is_negligible for one in wide), f"{noise}, seed {SEED}"


@pytest.mark.parametrize("noise", first_then_long(NOISES))
@pytest.mark.parametrize("blocks", [None, BLOCKS])
def test_a_difference_of_ten_per_cent_is_found_or_inconclusive(noise: str, blocks: int | None) -> None:
    counted = words(noise, 0.9, blocks)
    assert counted[SLOWER] + counted[INCONCLUSIVE] >= 0.95 * CAMPAIGNS, f"{noise}, seed {SEED}: {counted}"


@pytest.mark.parametrize(("noise", "factor", "truth"), [("lognormal 3%", 0.9, SLOWER), ("20% drift", 1 / 0.9, FASTER)])
def test_a_difference_of_ten_per_cent_is_found_on_a_quiet_machine(noise: str, factor: float, truth: str) -> None:
    counted = words(noise, factor)
    assert counted[truth] >= 0.9 * CAMPAIGNS, f"{noise}, seed {SEED}: {counted}"


@pytest.mark.parametrize("blocks", [None, ENOUGH])
def test_a_difference_of_one_per_cent_is_negligible_after_enough_blocks(blocks: int | None) -> None:
    counted = words("lognormal 3%", 1.01, blocks)
    assert counted[EQUIVALENT] + counted[NEGLIGIBLE] >= 0.8 * CAMPAIGNS, f"seed {SEED}: {counted}"


@pytest.mark.parametrize("noise", first_then_long(NOISES))
@pytest.mark.parametrize("factor", [1.0, 0.95])
def test_the_blocks_that_an_inconclusive_verdict_asks_for_mostly_settle_it(noise: str, factor: float) -> None:
    asked = [one.more_blocks for one, _ in verdicts(noise, factor, BLOCKS, 200) if one.word == INCONCLUSIVE]
    typical = sorted(blocks or MANY for blocks in asked)[len(asked) // 2]
    assert typical < MANY, f"{noise}, seed {SEED}: {asked}"
    counted = words(noise, factor, BLOCKS + typical, count=200)
    assert counted[INCONCLUSIVE] <= 0.5 * 200, f"{noise}, seed {SEED}, {typical} more blocks: {counted}"


@pytest.mark.parametrize("cells", [3, 6])
def test_a_campaign_of_many_comparisons_has_a_false_one_in_at_most_5_of_100(cells: int) -> None:
    campaigns = CAMPAIGNS // 2
    logs = log_goodputs("bimodal 55/45 at 5x", SEED, campaigns * cells, max(BLOCKS, least_blocks(cells)))
    comparisons = [replace(evidence(one), control=None) for one in logs]  # without the gate, which prevents even more
    false = 0
    for first in range(0, len(comparisons), cells):
        judged = judge(comparisons[first : first + cells], DEFAULT_MARGIN)
        false += any(one.word in (FASTER, SLOWER) for one in judged)
    assert false <= 0.05 * campaigns, f"{cells} comparisons, seed {SEED}: {false} of {campaigns}"


@pytest.mark.parametrize("noise", first_then_long(NOISES))
@pytest.mark.parametrize("blocks", [6, BLOCKS, ENOUGH])
def test_an_interval_holds_what_it_promises(noise: str, blocks: int) -> None:
    logs = log_goodputs(noise, SEED, 2000, blocks, factor=1.3)
    assert coverage(np.exp(logs[:, :, RIVAL] - logs[:, :, BASELINE]), 1.3) >= 0.95, f"{noise}, seed {SEED}"


@pytest.mark.parametrize("count", [6, 7, 9, 12, 20])
def test_an_interval_holds_95_per_cent_of_a_skewed_mixture(count: int) -> None:
    generator = np.random.default_rng(SEED)
    shape = (10_000, count)
    logs = generator.normal(0, 0.03, shape) + np.where(generator.random(shape) < 0.45, np.log(5), 0)
    truth = np.exp(NormalDist(0, 0.03).inv_cdf(0.5 / 0.55))
    assert coverage(np.exp(logs), truth) >= 0.95, f"seed {SEED}"


def test_an_interval_holds_wherever_a_campaign_stops() -> None:
    """Where ratios have two peaks, intervals are narrow when almost all samples lie in one peak, and then they miss."""
    generator = np.random.default_rng(SEED)
    shape = (4000, MOST)
    logs = generator.normal(0, 0.03, shape) + np.where(generator.random(shape) < 0.45, np.log(5), 0)
    truth = np.exp(NormalDist(0, 0.03).inv_cdf(0.5 / 0.55))
    missed = missed_if_fixed = 0
    for samples in np.exp(logs).tolist():
        for first_look in (PILOT, None):
            blocks = PILOT
            while width(median_interval(samples[:blocks], first_look=first_look), DEFAULT_MARGIN) > 1:
                if look_after(blocks, PILOT) > MOST:
                    break
                blocks = look_after(blocks, PILOT)
            interval = median_interval(samples[:blocks], first_look=first_look)
            assert interval is not None
            is_missed = not interval.low <= truth <= interval.high
            missed += is_missed and first_look is not None
            missed_if_fixed += is_missed and first_look is None
    assert missed <= 0.05 * len(logs), f"seed {SEED}: {missed}"
    assert missed_if_fixed > 0.05 * len(logs), f"seed {SEED}: {missed_if_fixed}: the looks need no correction"


def coverage(samples: Logs, truth: float) -> float:
    """The share of rows whose interval contains the truth."""
    intervals = [median_interval(row) for row in samples.tolist()]
    return sum(one is not None and one.low <= truth <= one.high for one in intervals) / len(intervals)
