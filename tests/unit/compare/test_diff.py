"""What changed between two campaigns, made up so that it is known."""

from dataclasses import replace

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.compare.comparison import plain
from toolkit.compare.diff import ONLY_NEW, ONLY_OLD, compare, differences_of_hosts
from toolkit.compare.records import CPU_BOUND, Results, Trial
from toolkit.compare.replay import trial_of
from toolkit.errors import UsageError


def campaign(tcp_bps: float, udp_bps: float, seed: int, repeats: int = 12) -> Results:
    goodputs = {("tcp-cubic", "a"): tcp_bps, ("udp-bbr", "a"): udp_bps}
    return make_results(Truth(goodputs, repeats=repeats, drift=0.01, with_control=False), seed)


def fail(trial: Trial) -> Trial:
    return replace(trial, verified=False, seconds=None, goodput_bps=None, error="it went away")


def test_a_change_is_named_and_what_stayed_is_not() -> None:
    changes = compare(campaign(90e6, 90e6, 1), campaign(90e6, 72e6, 2))
    assert [(change.transport, change.verdict) for change in changes] == [
        ("tcp-cubic", "no difference"),
        ("udp-bbr", "slower"),
    ]
    ratio = changes[1].ratio
    assert ratio is not None
    assert ratio.interval is not None
    assert ratio.interval.low < 0.8 < ratio.interval.high


def test_few_trials_and_marked_ones_make_no_claim() -> None:
    few = compare(campaign(90e6, 90e6, 1, repeats=3), campaign(45e6, 45e6, 2, repeats=3))
    assert {change.verdict for change in few} == {"no claim"}
    old, new = campaign(90e6, 90e6, 1), campaign(90e6, 45e6, 2)
    marked = replace(new, trials=[replace(t, marks=[CPU_BOUND]) for t in new.trials])
    assert {change.verdict for change in compare(old, marked)} == {"no claim"}


def test_failures_count_in_a_change() -> None:
    old, new = campaign(90e6, 90e6, 1), campaign(90e6, 99e6, 2)
    failed = replace(new, trials=[fail(t) if t.block % 4 else t for t in new.trials])
    assert {(change.verdict, change.new_bps) for change in compare(old, failed)} == {("slower", 0.0)}
    back = compare(failed, old)[1]
    ratio, (low, high) = plain(back)["ratio"]
    assert (back.verdict, ratio, high) == ("faster", None, None)
    assert low > 1
    never = replace(new, trials=[fail(t) for t in new.trials])
    assert {(change.verdict, change.ratio) for change in compare(old, never)} == {("no claim", None)}


def test_cells_of_one_side_only() -> None:
    old = campaign(90e6, 90e6, 1)
    new = replace(old, trials=[replace(t, path="b") for t in old.trials])
    assert [change.verdict for change in compare(old, new)] == [ONLY_OLD, ONLY_OLD, ONLY_NEW, ONLY_NEW]


def test_hosts_are_compared() -> None:
    old = campaign(90e6, 90e6, 1)
    assert differences_of_hosts(old, old) == []
    other = replace(old, campaign=replace(old.campaign, host={**old.campaign.host, "kernel": "6.9"}, storage="disk"))
    assert differences_of_hosts(old, other) == ["kernel: 6.1 -> 6.9", "files: /dev/shm (memory) -> disk"]


def test_a_trial_by_its_number() -> None:
    results = campaign(90e6, 90e6, 1)
    assert trial_of(results, 3) == results.trials[2]
    with pytest.raises(UsageError, match="no trial 1000"):
        trial_of(results, 1000)
