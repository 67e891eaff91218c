"""What changed between two campaigns, synthesised so that the change is known."""

from dataclasses import replace

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.diff import ONLY_NEW, ONLY_OLD, compare, differences_of_hosts
from toolkit.comparison.records import CPU_BOUND, Results, Trial
from toolkit.comparison.summary import plain


def campaign(tcp_bps: float, udp_bps: float, seed: int, repeats: int = 12) -> Results:
    goodputs = {("tcp-cubic", "a"): tcp_bps, ("udp-bbr", "a"): udp_bps}
    results = make_results(Truth(goodputs, repeats=repeats, noise=0.005, drift=0.005, with_control=False), seed)
    return replace(results, trials=[replace(trial, link_seed=None) for trial in results.trials])


NOISY = Truth({}, repeats=12, noise=0.02, drift=0.5, with_control=False)
PAIRS, TRIALS = "pairs of which anything arrived", "trials in one of the two campaigns"


def too_few(least: int, what: str) -> str:
    """Why there is no claim, and what would help."""
    return f"fewer than {least} {what}: run {least} blocks or more in each campaign"


def failed(trial: Trial) -> Trial:
    return replace(trial, verified=False, seconds=None, goodput_bps=None, error="the peer disappeared")


def test_only_the_transport_that_changed_gets_a_verdict() -> None:
    changes = compare(campaign(90e6, 90e6, 1), campaign(90e6, 72e6, 2))
    assert {change.pairs for change in changes} == {0}
    assert [(change.transport, change.verdict) for change in changes] == [
        ("tcp-cubic", "equivalent"),
        ("udp-bbr", "slower"),
    ]
    ratio = changes[1].ratio
    assert ratio is not None
    assert ratio.interval is not None
    assert ratio.interval.low < 0.8 < ratio.interval.high


def test_trials_with_the_same_losses_are_compared_in_pairs() -> None:
    """The two campaigns differ by a tenth in each block, and the blocks differ by far more."""
    old = make_results(replace(NOISY, goodput_bps={("tcp-cubic", "a"): 90e6}), 1)
    slower = [replace(t, goodput_bps=0.9 * t.goodput_bps) if t.goodput_bps else t for t in old.trials]
    (change,) = compare(old, replace(old, trials=slower))
    assert (change.pairs, change.verdict) == (12, "slower")
    assert change.ratio is not None
    assert change.ratio.interval == pytest.approx((0.9, 0.9))
    other_seeds = [replace(t, link_seed=(t.link_seed or 0) + 1) for t in slower]
    (unpaired,) = compare(old, replace(old, trials=other_seeds))
    assert (unpaired.pairs, unpaired.verdict) == (0, "inconclusive")


def test_what_could_be_pairs_asks_for_as_many_blocks_as_pairs_take() -> None:
    five = make_results(replace(NOISY, goodput_bps={("tcp-cubic", "a"): 90e6}, repeats=5), 1)
    (change,) = compare(five, five)
    assert (change.verdict, change.because) == ("no claim", too_few(6, PAIRS))
    six = make_results(replace(NOISY, goodput_bps={("tcp-cubic", "a"): 90e6}, repeats=6), 1)
    assert compare(six, six)[0].verdict == "equivalent"
    pilot = replace(five, campaign=replace(five.campaign, repeats=8, budget_s=360.0))
    assert compare(pilot, pilot)[0].because == too_few(8, PAIRS)


def test_a_cell_of_one_campaign_is_no_comparison() -> None:
    """It does not count where a difference has to persist among several: 7 trials show one, and not two."""
    slower, paths = {("tcp-cubic", "a"): 45e6}, [("tcp-cubic", "b"), ("tcp-cubic", "c")]
    plain_old = Truth({("tcp-cubic", "a"): 90e6, **dict.fromkeys(paths, 90e6)}, 7, noise=0.001, with_control=False)
    old, new = make_results(plain_old, 1), make_results(replace(plain_old, goodput_bps=slower), 2)
    assert [change.verdict for change in compare(old, new)] == ["slower", "only in the old", "only in the old"]


def test_pairs_in_which_both_failed_say_nothing() -> None:
    old = make_results(replace(NOISY, goodput_bps={("tcp-cubic", "a"): 90e6}), 1)
    both = replace(old, trials=[failed(t) if t.block < 4 else t for t in old.trials])
    (change,) = compare(both, both)
    assert (change.verdict, change.ratio and change.ratio.value) == ("equivalent", 1.0)
    most = replace(old, trials=[failed(t) if t.block < 8 else t for t in old.trials])
    (change,) = compare(most, most)
    assert (change.verdict, change.because, change.old_bps) == ("no claim", f"fewer than 6 {PAIRS}", None)


def test_a_wide_interval_is_inconclusive() -> None:
    (change, _) = compare(campaign(90e6, 90e6, 1, repeats=7), campaign(93.6e6, 72e6, 2, repeats=7))
    assert (change.verdict, change.is_negligible) == ("inconclusive", False)
    assert change.more_blocks is not None
    assert change.more_blocks > 0


def test_the_smaller_of_two_margins_decides() -> None:
    old, new = campaign(90e6, 90e6, 1), campaign(90e6, 90e6, 2)
    strict = replace(new, campaign=replace(new.campaign, margin=0.001))
    assert {change.verdict for change in compare(old, new)} == {"equivalent"}
    assert {change.verdict for change in compare(old, strict)} == {"inconclusive"}


@pytest.mark.parametrize("shift", [0, 1])
def test_the_interval_of_campaigns_with_a_budget_accounts_for_all_looks(shift: int) -> None:
    """36 samples: from the 12th smallest to the 12th largest, but the 11th if results decided about their number."""
    old = make_results(replace(NOISY, goodput_bps={("tcp-cubic", "a"): 90e6}, repeats=36), 1)
    new = make_results(replace(NOISY, goodput_bps={("tcp-cubic", "a"): 90e6}, repeats=36), 2)
    seeds = {trial.block: trial.link_seed for trial in old.trials}
    new = replace(new, trials=[replace(t, link_seed=(seeds[t.block] or 0) + shift) for t in new.trials])
    widths = []
    for budget_s in (None, 600.0):
        sides = [replace(each, campaign=replace(each.campaign, repeats=8, budget_s=budget_s)) for each in (old, new)]
        (change,) = compare(*sides)
        assert change.pairs == (0 if shift else 36)
        assert change.ratio is not None
        assert change.ratio.interval is not None
        widths.append(change.ratio.interval)
    assert widths[1].low < widths[0].low
    assert widths[1].high > widths[0].high


def test_few_trials_and_marked_trials_make_no_claim() -> None:
    few = compare(campaign(90e6, 90e6, 1, repeats=6), campaign(45e6, 45e6, 2, repeats=6))
    assert {(c.verdict, c.because) for c in few} == {("no claim", too_few(7, TRIALS))}
    old, new = campaign(90e6, 90e6, 1), campaign(90e6, 45e6, 2)
    marked = replace(new, trials=[replace(t, marks=[CPU_BOUND]) for t in new.trials])
    assert {change.verdict for change in compare(old, marked)} == {"no claim"}


def test_failed_trials_count_as_zero() -> None:
    old, new = campaign(90e6, 90e6, 1), campaign(90e6, 99e6, 2)
    mostly_failed = replace(new, trials=[failed(t) if t.block % 12 else t for t in new.trials])
    assert {(change.verdict, change.new_bps) for change in compare(old, mostly_failed)} == {("slower", None)}
    back = compare(mostly_failed, old)[1]
    ratio, (low, high) = plain(back)["ratio"]
    assert (back.verdict, ratio, low, high) == ("faster", None, None, None)
    all_failed = replace(new, trials=[failed(t) for t in new.trials])
    assert {(change.verdict, change.ratio) for change in compare(old, all_failed)} == {("no claim", None)}


def test_cells_of_one_campaign_only() -> None:
    old = campaign(90e6, 90e6, 1)
    new = replace(old, trials=[replace(t, path="b") for t in old.trials])
    assert [change.verdict for change in compare(old, new)] == [ONLY_OLD, ONLY_OLD, ONLY_NEW, ONLY_NEW]


def test_differences_of_hosts() -> None:
    old = campaign(90e6, 90e6, 1)
    assert differences_of_hosts(old, old) == []
    host = replace(old.campaign.host, kernel="6.9")
    other = replace(old, campaign=replace(old.campaign, host=host, storage="disk"))
    patient = Results(replace(old.campaign, patience_s=90.0), old.trials)
    assert differences_of_hosts(old, patient) == ["patience: none -> 90 s"]
    assert differences_of_hosts(old, other) == ["kernel: 6.1 -> 6.9", "files: /dev/shm (memory) -> disk"]


def test_a_transport_that_was_not_encrypted_before_is_a_difference() -> None:
    old = campaign(90e6, 90e6, 1)
    label, setting = next(iter(old.campaign.transports.items()))
    encrypted = {**old.campaign.transports, label: replace(setting, is_encrypted=True)}
    new = replace(old, campaign=replace(old.campaign, transports=encrypted))
    assert differences_of_hosts(old, new) == [f"{label} encrypted: no -> yes"]
