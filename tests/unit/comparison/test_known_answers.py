"""Comparisons whose answers are known, with recorded conditions; bench/known_answers.py runs them live."""

import random
from dataclasses import replace

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.conditions import TrialConditions
from toolkit.comparison.machine_load import MachineLoad
from toolkit.comparison.pairs import PairedTrials
from toolkit.comparison.records import Results, Trial
from toolkit.comparison.summary import Summary, summarise
from toolkit.comparison.verdict import FASTER, INCONCLUSIVE, NO_CLAIM, SLOWER

ROBBED = "tcp-robbed"


def with_load(results: Results, stolen: float, elsewhere: float = 0.0) -> Results:
    """The results of a machine where other work takes `stolen` beside one transport, and `elsewhere` beside all."""
    generator = random.Random(results.campaign.seed)

    def loaded(trial: Trial) -> Trial:
        at_random = elsewhere * generator.random()
        share = at_random + (stolen + generator.uniform(-0.005, 0.005) if trial.transport == ROBBED else 0.0)
        return replace(trial, conditions=TrialConditions(load=MachineLoad(share, 0.0)))

    return replace(results, trials=[loaded(trial) for trial in results.trials])


def robbed_trials(factor: float, seed: int = 1) -> Results:
    """tcp-bbr against itself, at `factor` of its goodput."""
    speeds = {("tcp-bbr", "loopback"): 5e9, (ROBBED, "loopback"): factor * 5e9}
    return make_results(Truth(speeds, baseline="tcp-bbr", repeats=20, noise=0.005), seed)


def robbed(factor: float, stolen: float) -> Summary:
    return summarise(with_load(robbed_trials(factor), stolen))


def verdict_on(summary: Summary, transport: str = ROBBED) -> str:
    return next(row.verdict for row in summary.rows if row.transport == transport)


def test_a_difference_that_stolen_processor_time_explains_is_not_claimed() -> None:
    summary = robbed(0.95, stolen=0.05)
    (text,) = summary.headline
    assert verdict_on(summary) == INCONCLUSIVE
    assert "other work did not disturb both sides alike, which may change their ratio by 11%" in text
    assert "it took 5" in text
    assert "of all processors during its trials, and 0% during those of tcp-bbr" in text


def test_equality_that_stolen_processor_time_may_hide_is_not_claimed() -> None:
    assert verdict_on(robbed(1.0, stolen=0.05)) == INCONCLUSIVE


def test_a_difference_beyond_what_was_stolen_is_claimed_and_the_theft_named() -> None:
    summary = robbed(0.5, stolen=0.05)
    assert verdict_on(summary) == SLOWER
    assert "other work did not disturb both sides alike: in the median" in summary.headline[0]


def test_work_that_comes_at_random_disturbs_both_sides_alike() -> None:
    campaigns = [with_load(robbed_trials(1.0, seed), 0.0, elsewhere=0.4) for seed in range(60)]
    (path,) = campaigns[0].campaign.paths
    (size,) = campaigns[0].campaign.sizes
    unequal = [PairedTrials(each, path, size).unequal_load(ROBBED) for each in campaigns]
    assert sum(each is not None for each in unequal) <= 7  # of 100, 5 by chance


@pytest.mark.parametrize(("lost", "is_named"), [(1, False), (2, True)])
def test_a_link_that_lost_more_than_it_was_asked_to_is_named(lost: int, is_named: bool) -> None:
    """The path is asked to lose 1%; one side lost `lost` per cent, of 3,000 packets in a trial."""
    truth = Truth({("tcp-cubic", "1%"): 3e6, ("tcp-worse", "1%"): 2e6}, repeats=9)
    results = make_results(truth, 1)
    paths = {name: replace(path, loss=0.01) for name, path in results.campaign.paths.items()}

    def counted(trial: Trial) -> Trial:
        assert trial.ledger is not None
        share = lost if trial.transport == "tcp-worse" else 1
        forward = replace(trial.ledger.forward, offered=3000, lost_by_link=30 * share)
        return replace(trial, ledger=replace(trial.ledger, forward=forward))

    trials = [counted(trial) for trial in results.trials]
    summary = summarise(replace(results, campaign=replace(results.campaign, paths=paths), trials=trials))
    (text,) = summary.headline
    assert ("the link lost 2% of its packets, and 1% of the baseline's: they had different paths" in text) == is_named
    assert verdict_on(summary, "tcp-worse") == (NO_CLAIM if is_named else SLOWER)
    assert "tcp-cubic: the link lost" not in text


@pytest.mark.parametrize("bbr_bps", [6e6, 90e6])
def test_the_effect_of_the_congestion_control_is_not_given_to_the_transport(bbr_bps: float) -> None:
    speeds = {"tcp-cubic": 3e6, "tcp-bbr": bbr_bps, "udp-cubic": 3e6, "udp-bbr": bbr_bps}
    results = make_results(Truth({(label, "1%"): bps for label, bps in speeds.items()}, repeats=12), 1)
    (found,) = summarise(results).verdicts[0].factorials
    transport, control = found.verdicts
    assert transport is not None
    assert control is not None
    assert transport.word not in (FASTER, SLOWER)
    assert control.word == FASTER
