"""Which blocks follow the pilot: where the interval is widest, as long as the budget lasts."""

import math
from dataclasses import replace

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.records import CPU_BOUND, Results, Trial
from toolkit.comparison.sampling import FurtherBlocks, elapsed_s, further_blocks, width
from toolkit.comparison.stats import Interval

TRIAL_S = 2.0
PILOT = 8
QUIET, NOISY, WILD = "quiet", "noisy", "wild"
NOISE = {QUIET: 0.002, NOISY: 0.02, WILD: 5.0}


def pilot(*paths: str, budget_s: float = 360.0, blocks: int = PILOT) -> Results:
    """A campaign after its pilot, whose trials took TRIAL_S each; the name of a path says how noisy it is."""
    parts = [
        make_results(Truth({(t, path): 90e6 for t in ("tcp-cubic", "udp-bbr")}, repeats=blocks, noise=NOISE[path]), 1)
        for path in paths
    ]
    trials = [trial for part in parts for trial in part.trials]
    timed = [replace(t, position=n, elapsed_s=(n + 1) * TRIAL_S) for n, t in enumerate(trials)]
    campaign = replace(
        parts[0].campaign,
        repeats=PILOT,
        budget_s=budget_s,
        paths={path: part.campaign.paths[path] for path, part in zip(paths, parts, strict=True)},
    )
    return Results(campaign, timed)


def following(results: Results) -> FurtherBlocks | None:
    return further_blocks(results, elapsed_s(results.trials))


def test_the_widest_interval_gets_blocks_up_to_the_next_look() -> None:
    size = pilot(QUIET).campaign.sizes[0]
    assert following(pilot(QUIET, NOISY)) == FurtherBlocks(NOISY, size, range(8, 11))
    assert following(pilot(NOISY, blocks=11)) == FurtherBlocks(NOISY, size, range(11, 15))


def test_a_campaign_ends_when_every_interval_is_narrow() -> None:
    assert following(pilot(QUIET)) is None


def test_what_cannot_become_narrow_in_time_comes_last() -> None:
    first = following(pilot(WILD, NOISY, budget_s=2000.0))
    assert first is not None
    assert first.path == NOISY
    alone = following(pilot(WILD, QUIET))
    assert alone is not None
    assert alone.path == WILD


def test_a_campaign_ends_when_nothing_more_fits_into_the_budget() -> None:
    taken_s = elapsed_s(pilot(NOISY).trials)
    block_s = 3 * TRIAL_S
    assert taken_s == 27 * TRIAL_S
    assert following(pilot(NOISY, budget_s=taken_s + 3 * block_s)) is not None
    assert following(pilot(NOISY, budget_s=taken_s + 3 * block_s - 1)) is None
    assert following(pilot(NOISY, budget_s=1.0)) is None


@pytest.mark.parametrize("trials", [1, 3, 5])
def test_begun_blocks_are_finished_whatever_the_budget(trials: int) -> None:
    whole = pilot(NOISY, blocks=11)
    begun = [trial for trial in whole.trials if trial.block < PILOT]
    further = [trial for trial in whole.trials if trial.block >= PILOT][:trials]
    campaign = replace(whole.campaign, budget_s=1.0)
    left = following(Results(campaign, begun + further))
    assert left is not None
    assert left.blocks == range(PILOT + trials // 3, 11)


def test_transports_that_cannot_be_judged_get_no_more_blocks() -> None:
    def changed(trial: Trial, **values: object) -> Trial:
        return replace(trial, **values) if trial.transport == "udp-bbr" else trial  # type: ignore[arg-type]

    noisy = pilot(NOISY)
    quiet = pilot(QUIET)
    failed = [changed(trial, verified=False, goodput_bps=None, seconds=None) for trial in quiet.trials]
    assert following(replace(quiet, trials=failed)) is None
    marked = [changed(trial, marks=[CPU_BOUND]) for trial in quiet.trials]
    assert following(replace(quiet, trials=marked)) is None
    assert (
        following(replace(noisy, trials=[replace(t, verified=False, goodput_bps=None) for t in noisy.trials])) is None
    )


def test_a_few_marked_trials_ask_for_more_blocks() -> None:
    """Disturbed trials are not repeated: further blocks outnumber them."""
    quiet = pilot(QUIET)
    marked = [replace(t, marks=[CPU_BOUND]) if t.transport == "udp-bbr" and t.block < 3 else t for t in quiet.trials]
    following_blocks = following(replace(quiet, trials=marked))
    assert following_blocks is not None
    assert following_blocks.blocks == range(8, 11)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(0.98, 0.98 * 1.05), 1.0),
        (Interval(1, 1.05**3), 3.0),
        (Interval(0.0, 1.2), math.inf),
        (Interval(1.1, math.inf), math.inf),
        (None, math.inf),
    ],
)
def test_the_width_of_an_interval_relative_to_the_margin(interval: Interval | None, expected: float) -> None:
    assert width(interval, 0.05) == pytest.approx(expected)
