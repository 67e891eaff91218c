"""The 2 x 2 design on campaigns with planted effects."""

import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.conditions import TrialConditions
from toolkit.comparison.factorial import Arm, Factorial, decompose, designs, factorial_text, judged_effects
from toolkit.comparison.machine_load import MachineLoad
from toolkit.comparison.records import CONTROL_SUFFIX, CPU_BOUND, Results
from toolkit.comparison.stats import median_interval
from toolkit.comparison.summary import judging, plain, summarise
from toolkit.comparison.verdict import DEFAULT_MARGIN, EQUIVALENT, FASTER, INCONCLUSIVE, SLOWER

ARMS: tuple[Arm, ...] = (("tcp", "cubic"), ("tcp", "bbr"), ("udp", "cubic"), ("udp", "bbr"))
CONTROLS = ("cubic", "bbr")


def blocks(
    transport: float, control: float, interaction: float, count: int = 9, noise: float = 0.03, seed: int = 1
) -> Mapping[Arm, Mapping[int, float]]:
    """Goodputs with these planted ratios; what a block shares is a factor of two."""
    generator = random.Random(seed)
    shared = [2 ** generator.uniform(-1, 1) for _ in range(count)]
    sign = {"tcp": -0.5, "udp": 0.5, "cubic": -0.5, "bbr": 0.5}

    def goodput(arm: Arm, block: int) -> float:
        a, b = (sign[word] for word in arm)
        exponent = a * math.log(transport) + b * math.log(control) + a * b * math.log(interaction)
        return 50e6 * shared[block] * math.exp(exponent + generator.gauss(0, noise))

    return {arm: {block: goodput(arm, block) for block in range(count)} for arm in ARMS}


def judged(*campaign: Mapping[Arm, Mapping[int, float]]) -> Factorial:
    """The effects on the first path and size of a campaign, without an A/A control."""
    return judged_effects([decompose(goodputs, CONTROLS) for goodputs in campaign], DEFAULT_MARGIN)[0]


def value_of(found: Factorial, name: str) -> float:
    estimate = getattr(found, name)
    return float(estimate.value)


@pytest.mark.parametrize("interaction", [1.0, 2.0])
def test_planted_effects_are_found(interaction: float) -> None:
    found = judged(blocks(1.04, 31.0, interaction))
    assert value_of(found, "transport") == pytest.approx(1.04, rel=0.05)
    assert value_of(found, "control") == pytest.approx(31.0, rel=0.05)
    assert value_of(found, "interaction") == pytest.approx(interaction, rel=0.08)
    assert found.interacts == (interaction != 1.0)
    text = factorial_text(found)
    assert text.startswith("same congestion control, UDP instead of TCP: 1.0")
    assert "same transport, BBR instead of CUBIC: 3" in text
    assert ("the two interact" in text) == found.interacts
    if found.interacts:  # main effects are averages: an interaction says over which transport the control gains more
        assert found.by_transport["udp"].value / found.by_transport["tcp"].value == pytest.approx(2, rel=0.1)
        assert "x (" in text.partition("BBR gains")[2]


def test_intervals_hold_and_interactions_are_seldom_made_up() -> None:
    campaigns = [judged(blocks(0.9, 3.0, 1.0, noise=0.1, seed=seed)) for seed in range(200)]
    for name, truth in (("transport", 0.9), ("control", 3.0)):
        intervals = [getattr(found, name).interval for found in campaigns]
        assert sum(each.low <= truth <= each.high for each in intervals) >= 185
    assert sum(found.interacts for found in campaigns) <= 15


def test_more_interactions_need_more_evidence() -> None:
    interacting, others = blocks(1.0, 3.0, 1.3, count=8), [blocks(1.0, 3.0, 1.0, count=8)] * 6
    assert judged(interacting).interacts
    assert not judged(interacting, *others).interacts  # eight blocks cannot show an interaction among seven


def test_a_missing_combination_leaves_the_effects_that_it_does_not_belong_to() -> None:
    goodputs = blocks(1.5, 20.0, 1.0)
    found = judged({arm: each for arm, each in goodputs.items() if arm != ("tcp", "bbr")})
    assert value_of(found, "transport") == pytest.approx(1.5, rel=0.05)
    assert value_of(found, "control") == pytest.approx(20.0, rel=0.05)
    assert found.interaction is None
    text = factorial_text(found)
    assert text.startswith("same congestion control (only CUBIC), UDP instead of TCP: ")
    assert "; same transport (only UDP), BBR instead of CUBIC: " in text
    assert "only" not in factorial_text(judged(goodputs))
    dead = {arm: dict.fromkeys(each, 0.0) if arm == ("tcp", "bbr") else each for arm, each in goodputs.items()}
    assert "contribute is unknown, because in no block did all transfers arrive" in factorial_text(judged(dead))
    del dead["udp", "bbr"]
    assert factorial_text(judged(dead)).endswith("unknown, because in no block did all of its transfers arrive")


def test_failures_widen_an_interval_instead_of_disappearing() -> None:
    goodputs = {arm: dict(each) for arm, each in blocks(1.0, 10.0, 1.0, noise=0.0).items()}
    goodputs["udp", "bbr"][0] = goodputs["tcp", "bbr"][0] = 0.0  # undecided for the transport, and 0 for the control
    goodputs["udp", "bbr"][1] = goodputs["tcp", "bbr"][1] = 0.0
    found = judged(goodputs)
    assert found.transport is not None
    assert found.transport.interval == (0.0, math.inf)
    assert found.control is not None
    assert found.control.interval is not None
    assert found.control.interval.low == 0.0
    assert value_of(found, "control") == pytest.approx(10.0)
    nothing = judged({arm: dict.fromkeys(each, 0.0) for arm, each in goodputs.items()})
    assert (nothing.transport, nothing.control, nothing.interacts) == (None, None, False)
    reason = "what transport and congestion control contribute is unknown, because in no block did all transfers arrive"
    assert factorial_text(nothing) == reason
    few = judged({arm: {0: 1e6} for arm in ARMS})
    assert "1.000 x (too few blocks for an interval)" in factorial_text(few)


def campaign(*labels: str, interaction: float = 1.0, baseline: str = "tcp-cubic") -> Results:
    goodputs = {"tcp-cubic": 3e6, "tcp-bbr": 90e6, "udp-cubic": 3e6, "udp-bbr": 90e6 * interaction, "tcp-reno": 2e6}
    truth = Truth({(label, "5% loss"): goodputs[label] for label in labels}, baseline, repeats=9)
    return make_results(truth, 1)


def test_the_headline_separates_transport_and_control() -> None:
    summary = summarise(campaign("tcp-cubic", "tcp-bbr", "udp-cubic", "udp-bbr"))
    (text,) = summary.headline
    assert text.startswith("5% loss, 95.37 MiB: Same congestion control, UDP instead of TCP: ")
    assert text.index("BBR instead of CUBIC: 3") < text.index("udp-bbr is faster than tcp-cubic")
    assert summary.notes == []
    assert "2 x 2" in judging(summary.results.campaign)[-1]


def test_a_comparison_of_two_changes_at_once_says_so() -> None:
    summary = summarise(campaign("tcp-cubic", "udp-bbr"))
    assert summary.verdicts[0].factorials == []
    (note,) = summary.notes
    assert note.startswith("udp-bbr differs from tcp-cubic in both transport and congestion control")
    both = Truth({(name, "a"): 90e6 for name in ("tcp-cubic", "udp-bbr", "udp-newreno")}, with_control=False)
    note = next(note for note in summarise(make_results(both, 1)).notes if "differ" in note)
    assert note.startswith("udp-bbr and udp-newreno differ from tcp-cubic in both")
    assert "2 x 2" not in judging(summary.results.campaign)[-1]
    assert summarise(campaign("tcp-cubic", "udp-cubic")).notes == []


def test_what_was_left_out_is_said() -> None:
    results = campaign("tcp-cubic", "udp-cubic", "udp-bbr")
    left_out = {"tcp-bbr": "this kernel offers no bbr"}
    summary = summarise(replace(results, campaign=replace(results.campaign, left_out=left_out)))
    assert summary.notes == ["tcp-bbr was left out: this kernel offers no bbr."]
    (found,) = summary.verdicts[0].factorials
    assert found.transport is not None
    assert found.control is not None


@pytest.mark.parametrize(
    ("labels", "arms"),
    [
        (["tcp-cubic", "tcp-bbr", "tcp-reno", "udp-bbr", "udp-cubic"], [4]),
        (["tcp-cubic", "tcp-reno", "udp-bbr", "udp-cubic"], [3, 3]),
        (["tcp-cubic", "udp-cubic"], []),
        (["tcp-cubic", "tcp-bbr"], []),
    ],
)
def test_which_designs_a_campaign_has(labels: list[str], arms: list[int]) -> None:
    assert [len(design) for design in designs(campaign(*labels).campaign)] == arms


def test_marked_trials_allow_no_claim_on_the_effects() -> None:
    results = campaign("tcp-cubic", "tcp-bbr", "udp-cubic", "udp-bbr")
    trials = [replace(t, marks=[CPU_BOUND]) if t.transport == "tcp-bbr" else t for t in results.trials]
    (text,) = summarise(replace(results, trials=trials)).headline
    assert "No claim on what transport and congestion control contribute (too many marked trials: tcp-bbr)." in text


def effects(transport: float, seed: int, control_noise: float) -> tuple[str, str]:
    """The verdicts on transport and control of a campaign of 20 blocks, whose A/A control has this noise."""
    goodputs = blocks(transport, 3.0, 1.0, count=20, noise=0.01, seed=seed)
    generator = random.Random(seed)
    control = [math.exp(generator.gauss(0, control_noise)) for _ in range(20)]
    found = decompose(goodputs, CONTROLS)
    gated = partial(replace, control=partial(median_interval, control))
    effects = replace(found, transport=gated(found.transport), control=gated(found.control))
    of_transport, of_control = judged_effects([effects], DEFAULT_MARGIN)[0].verdicts
    assert of_transport is not None
    assert of_control is not None
    return of_transport.word, of_control.word


def test_an_effect_that_the_control_does_not_resolve_is_not_claimed() -> None:
    noisy = [effects(1.1, seed, control_noise=0.3) for seed in range(40)]
    assert all(transport == INCONCLUSIVE for transport, _ in noisy)
    assert all(control == FASTER for _, control in noisy)  # a factor of three is more than any noise here
    quiet = [effects(1.1, seed, control_noise=0.01) for seed in range(40)]
    assert all(words == (FASTER, FASTER) for words in quiet)


def test_identical_transports_have_an_effect_in_at_most_5_of_100_campaigns() -> None:
    words = [effects(1.0, seed, control_noise=0.01)[0] for seed in range(200)]
    assert sum(word in (FASTER, SLOWER) for word in words) <= 10
    assert words.count(EQUIVALENT) >= 180


def with_noisy_control(results: Results, deviation: float) -> Results:
    factors = random.Random(3)
    trials = [
        replace(t, goodput_bps=t.goodput_bps * math.exp(factors.gauss(0, deviation)))
        if t.transport.endswith(CONTROL_SUFFIX) and t.goodput_bps
        else t
        for t in results.trials
    ]
    return replace(results, trials=trials)


@pytest.mark.parametrize(("deviation", "is_named"), [(0.0, True), (0.5, False)])
def test_an_interaction_that_the_control_does_not_resolve_is_not_named(deviation: float, is_named: bool) -> None:
    results = campaign("tcp-cubic", "tcp-bbr", "udp-cubic", "udp-bbr", interaction=1.3)
    (text,) = summarise(with_noisy_control(results, deviation)).headline
    assert ("the two interact by 1." in text) == is_named


def test_an_interaction_has_to_exceed_the_square_of_what_one_ratio_may_be_off() -> None:
    """An unequal load of 5% of two processors explains 11% of one ratio, and 23% of the quotient of two."""
    labels = ("tcp-cubic", "tcp-bbr", "udp-cubic", "udp-bbr")
    assert "interact" in summarise(with_load(campaign(*labels, interaction=1.22), {"udp-bbr": 0.0})).headline[0]
    assert "interact" not in summarise(with_load(campaign(*labels, interaction=1.22), {"udp-bbr": 0.05})).headline[0]
    assert "interact" in summarise(with_load(campaign(*labels, interaction=1.4), {"udp-bbr": 0.05})).headline[0]


def test_an_effect_has_to_exceed_what_loads_on_both_sides_of_the_baseline_explain() -> None:
    """4% of two processors explain 8.7% between either transport and the baseline, and 18% between the two."""
    results = campaign("tcp-cubic", "tcp-bbr", "udp-bbr", interaction=1.14)
    even, base = {"udp-bbr": 0.04, "tcp-bbr": 0.04}, {"tcp-cubic": 0.04, "tcp-cubic#2": 0.04}
    alike, apart = (
        summarise(with_load(results, {**base, **loads})).headline[0].partition(";")[0]
        for loads in (even, {"udp-bbr": 0.08})
    )
    assert alike.endswith(", faster")
    assert "inconclusive because other work did not disturb both sides alike" in apart


def with_load(results: Results, shares: Mapping[str, float]) -> Results:
    """Other work takes these shares of all processors beside transports, and none beside others."""
    trials = [
        replace(trial, conditions=TrialConditions(load=MachineLoad(shares.get(trial.transport, 0.0), 0.0)))
        for trial in results.trials
    ]
    return replace(results, trials=trials)


def test_the_effects_and_their_verdicts_have_a_json_form() -> None:
    summary = summarise(campaign("tcp-cubic", "tcp-bbr", "udp-cubic", "udp-bbr", interaction=1.3))
    written = json.loads(json.dumps(plain(summary.verdicts[0].factorials[0]), allow_nan=False))
    assert [verdict["word"] for verdict in written["verdicts"]] == [FASTER, FASTER]
    assert written["interacts"] is True


def test_the_headline_says_why_an_effect_is_not_claimed() -> None:
    results = campaign("tcp-cubic", "tcp-bbr", "udp-cubic", "udp-bbr", interaction=1.15)
    (text,) = summarise(with_noisy_control(results, 0.5)).headline
    assert "inconclusive because the A/A control may differ from itself by" in text.partition("; same transport")[0]
    assert text.partition("; same transport")[2].partition(". ")[0].endswith(", faster")
