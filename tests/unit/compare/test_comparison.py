"""Verdicts on synthetic campaigns, whose truth is known."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.compare import comparison
from toolkit.compare.comparison import Row, plain, summarise, verdict_of
from toolkit.compare.records import CPU_BOUND, Results
from toolkit.compare.stats import Estimate, Interval
from toolkit.report.text import report_text

CAMPAIGNS = 100


def truth(factor: float, repeats: int = 10, disturbed: float = 0.05) -> Truth:
    """UDP at `factor` of TCP's goodput, with the noise of a quiet machine: 3% a trial, 10% a block."""
    goodputs = {("tcp-cubic", "a"): 90e6, ("udp-bbr", "a"): factor * 90e6}
    return Truth(goodputs, repeats=repeats, noise=0.03, drift=0.10, disturbed=disturbed)


def verdicts(planted: Truth) -> list[str]:
    return [row_of(make_results(planted, seed)).verdict for seed in range(CAMPAIGNS)]


def row_of(results: Results, transport: str = "udp-bbr") -> Row:
    return next(row for row in summarise(results).rows if row.transport == transport)


FAILED: dict[str, Any] = {"verified": False, "seconds": None, "goodput_bps": None, "error": "the peer disappeared"}


def change(results: Results, count: int, transport: str = "udp-bbr", **changed: Any) -> Results:
    """The results with the trials of one transport in the first blocks changed."""
    trials = [replace(t, **changed) if t.transport == transport and 0 <= t.block < count else t for t in results.trials]
    return replace(results, trials=trials)


@pytest.mark.parametrize("disturbed", [0.0, 0.05])
def test_identical_transports_show_no_difference(disturbed: float) -> None:
    assert verdicts(truth(1.0, disturbed=disturbed)).count(comparison.NO_DIFFERENCE) >= 95


@pytest.mark.parametrize(("factor", "named"), [(0.9, comparison.SLOWER), (1 / 0.9, comparison.FASTER)])
@pytest.mark.parametrize("disturbed", [0.0, 0.05])
def test_a_difference_of_ten_per_cent_is_found(factor: float, named: str, disturbed: float) -> None:
    assert verdicts(truth(factor, disturbed=disturbed)).count(named) >= 90


def test_a_difference_of_the_control_widens_the_margin() -> None:
    results = make_results(truth(0.9, disturbed=0.0), 1)
    assert row_of(results).verdict == comparison.SLOWER
    off = [
        replace(t, goodput_bps=0.85 * t.goodput_bps) if t.transport == "tcp-cubic#2" and t.goodput_bps else t
        for t in results.trials
    ]
    doubted = row_of(replace(results, trials=off))
    assert doubted.verdict == comparison.NO_DIFFERENCE
    assert doubted.margin == pytest.approx(1 / 0.85 - 1, abs=0.03)


@pytest.mark.parametrize("repeats", [1, 5])
def test_few_trials_make_no_claim(repeats: int) -> None:
    row = row_of(make_results(truth(0.3, repeats=repeats), 1))
    assert (row.verdict, row.no_claim_because) == (comparison.NO_CLAIM, "too few pairs of trials for an interval")
    assert row.ratio is not None
    assert row.ratio.interval is None


@pytest.mark.parametrize("marked", ["udp-bbr", "tcp-cubic"])
def test_no_claim_if_more_than_a_fifth_are_marked(marked: str) -> None:
    results = make_results(truth(0.5), 1)

    def row(count: int) -> Row:
        return row_of(change(results, count, marked, marks=[CPU_BOUND]))

    assert row(2).verdict == comparison.SLOWER
    assert row(3).verdict == row(10).verdict == comparison.NO_CLAIM
    whose = "of the baseline's" if marked == "tcp-cubic" else "of"
    assert row(3).no_claim_because == f"3 {whose} 10 trials marked cpu-bound"
    if marked == "udp-bbr":
        assert (row(10).verified, row(10).unmarked, row(10).marks) == (10, 0, ("cpu-bound",))
        assert row(10).goodput_bps is not None


def test_marks_do_not_hide_slow_trials() -> None:
    results = make_results(truth(1.1, disturbed=0.0), 1)
    slow = change(results, 5, marks=[CPU_BOUND], goodput_bps=45e6)
    assert row_of(slow).verdict == comparison.NO_CLAIM
    few = change(results, 2, marks=[CPU_BOUND], goodput_bps=45e6)
    row = row_of(few)
    assert row.ratio == row_of(change(results, 2, goodput_bps=45e6)).ratio  # marked trials count as measured
    (text,) = summarise(few).headline
    assert "2 of 10 by udp-bbr are marked" in text


@pytest.mark.parametrize(
    ("failures", "factor", "expected"),
    [
        (1, 1.2, comparison.FASTER),
        (3, 1.2, comparison.NO_CLAIM),
        (5, 1.2, comparison.NO_CLAIM),
        (9, 1.2, comparison.SLOWER),
        (1, 0.8, comparison.SLOWER),
        (5, 0.8, comparison.SLOWER),
        (1, 1.0, comparison.NO_DIFFERENCE),
    ],
)
def test_a_failed_transfer_counts_as_zero(failures: int, factor: float, expected: str) -> None:
    failed = change(make_results(truth(factor, disturbed=0.0), 1), failures, **FAILED)
    assert (row_of(failed).verdict, row_of(failed).pairs) == (expected, 10)
    (text,) = summarise(failed).headline
    assert f"{failures} of " in text
    assert "failed" in text


def test_a_failing_baseline_is_slower() -> None:
    results = change(make_results(truth(0.8, disturbed=0.0), 1), 9, "tcp-cubic", **FAILED)
    without = replace(results, trials=[trial for trial in results.trials if trial.transport != "tcp-cubic#2"])
    assert row_of(without).verdict == comparison.FASTER
    assert plain(row_of(without))["ratio"] == (None, (None, None))
    (text,) = summarise(without).headline
    assert "udp-bbr is faster than tcp-cubic (∞ x its goodput in 10 pairs" in text
    assert "9 of 10 by tcp-cubic failed and count as 0" in text
    assert "Infinity" not in report_text([summarise(without)], (), "json")
    assert row_of(results).no_claim_because == "the A/A control failed"  # it failed along with the baseline


def test_neither_is_better_if_both_fail() -> None:
    results = make_results(truth(1.0, disturbed=0.0), 1)
    both = change(change(results, 4, **FAILED), 4, "tcp-cubic", **FAILED)
    assert row_of(change(both, 4, "tcp-cubic#2", **FAILED)).verdict == comparison.NO_DIFFERENCE


def test_only_trials_that_were_not_run_are_left_out() -> None:
    results = make_results(truth(0.5), 1)
    cut = replace(results, trials=[t for t in results.trials if t.block < 7 or t.transport != "udp-bbr"])
    assert row_of(cut).pairs == 7
    assert "in 7 of 10 pairs" in summarise(cut).headline[0]


@pytest.mark.parametrize("transport", ["udp-bbr", "tcp-cubic"])
def test_no_claim_on_a_transport_that_never_arrives(transport: str) -> None:
    failed = change(make_results(truth(1.0), 1), 10, transport, **FAILED)
    row = row_of(failed, transport)
    assert (row.verified, row.goodput_bps, row.ratio, row.why) == (0, None, None, "the peer disappeared")
    whose = "of the baseline " if transport == "tcp-cubic" else ""
    assert row_of(failed).no_claim_because == f"no transfer {whose}was verified"
    assert "no claim" in summarise(failed).headline[0]


def test_the_warm_up_does_not_count() -> None:
    results = make_results(truth(0.9), 1)
    cold = [replace(t, goodput_bps=1e3, seconds=1e4) if t.block < 0 else t for t in results.trials]
    assert summarise(replace(results, trials=cold)).rows == summarise(results).rows


def test_each_size_is_judged_separately() -> None:
    planted = replace(truth(0.5), sizes=(10_000, 50_000_000))
    rows = [row for row in summarise(make_results(planted, 1)).rows if row.transport == "udp-bbr"]
    assert [(row.payload_bytes, row.regime) for row in rows] == [(10_000, "short"), (50_000_000, "steady")]
    lines = summarise(make_results(planted, 1)).headline
    assert any(" ms against " in text for text in lines)
    assert any("Mbit/s against" in text for text in lines)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.80, 0.95, comparison.SLOWER),
        (0.80, 0.985, comparison.NO_DIFFERENCE),
        (0.95, 1.05, comparison.NO_DIFFERENCE),
        (1.01, 1.20, comparison.NO_DIFFERENCE),
        (1.03, 1.20, comparison.FASTER),
    ],
)
def test_an_interval_must_lie_beyond_the_margin(low: float, high: float, expected: str) -> None:
    assert verdict_of(Estimate((low + high) / 2, Interval(low, high)), comparison.MIN_DIFFERENCE) == expected


def test_the_headline_names_both_and_the_interval() -> None:
    (text,) = summarise(make_results(truth(0.5), 1)).headline
    assert "udp-bbr is slower than tcp-cubic (0.5" in text
    assert "95% interval" in text
    assert "tcp-cubic#2" not in text
