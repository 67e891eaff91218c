"""A planted truth is found: campaigns that were made up, so that what they should come to is known."""

from dataclasses import replace

import pytest

from toolkit.bench import verdict
from toolkit.bench.record import CPU_BOUND, Results
from toolkit.bench.stats import Estimate, Interval
from toolkit.bench.synthetic import Truth, make_results
from toolkit.bench.verdict import Row, headline, summarise, verdict_of

CAMPAIGNS = 100


def truth(factor: float, repeats: int = 10, disturbed: float = 0.05) -> Truth:
    """UDP at `factor` of TCP's goodput, with the noise of a quiet machine: 3% a trial, 10% a block."""
    goodputs = {("tcp-cubic", "a"): 90e6, ("udp-bbr", "a"): factor * 90e6}
    return Truth(goodputs, repeats=repeats, noise=0.03, drift=0.10, disturbed=disturbed)


def verdicts(planted: Truth) -> list[str]:
    return [row_of(make_results(planted, seed)).verdict for seed in range(CAMPAIGNS)]


def row_of(results: Results, transport: str = "udp-bbr") -> Row:
    return next(row for row in summarise(results) if row.transport == transport)


@pytest.mark.parametrize("disturbed", [0.0, 0.05])
def test_two_identical_transports_show_no_difference(disturbed: float) -> None:
    assert verdicts(truth(1.0, disturbed=disturbed)).count(verdict.NO_DIFFERENCE) >= 94


@pytest.mark.parametrize(("factor", "named"), [(0.9, verdict.SLOWER), (1 / 0.9, verdict.FASTER)])
@pytest.mark.parametrize("disturbed", [0.0, 0.05])
def test_ten_per_cent_are_named(factor: float, named: str, disturbed: float) -> None:
    assert verdicts(truth(factor, disturbed=disturbed)).count(named) >= 90


def test_a_control_that_differs_forbids_claims_of_that_size() -> None:
    results = make_results(truth(0.9, disturbed=0.0), 1)
    assert row_of(results).verdict == verdict.SLOWER
    off = [
        replace(t, goodput_bps=0.85 * t.goodput_bps) if t.transport == "tcp-cubic#2" and t.goodput_bps else t
        for t in results.trials
    ]
    doubted = row_of(replace(results, trials=off))
    assert doubted.verdict == verdict.NO_DIFFERENCE
    assert doubted.margin == pytest.approx(0.15, abs=0.03)


@pytest.mark.parametrize("repeats", [1, 4])
def test_few_trials_make_no_claim(repeats: int) -> None:
    row = row_of(make_results(truth(0.3, repeats=repeats), 1))
    assert (row.verdict, row.no_claim_because) == (verdict.NO_CLAIM, "too few pairs of trials for an interval")
    assert row.ratio is not None
    assert row.ratio.interval is None


def test_marked_trials_are_shown_and_count_in_no_verdict() -> None:
    results = make_results(truth(0.5), 1)
    marked = [replace(t, marks=[CPU_BOUND]) if t.transport == "udp-bbr" else t for t in results.trials]
    row = row_of(replace(results, trials=marked))
    assert (row.verdict, row.no_claim_because) == (verdict.NO_CLAIM, "marked cpu-bound")
    assert (row.verified, row.unmarked, row.marks) == (10, 0, ("cpu-bound",))
    assert row.goodput_bps is not None
    few = [replace(t, marks=[CPU_BOUND]) if t.block < 4 else t for t in results.trials]
    assert row_of(replace(results, trials=few)).verdict == verdict.SLOWER


def test_what_never_arrives_has_no_figures() -> None:
    results = make_results(truth(1.0), 1)
    failed = [
        replace(t, verified=False, seconds=None, goodput_bps=None, error="it went away")
        if t.transport == "udp-bbr"
        else t
        for t in results.trials
    ]
    row = row_of(replace(results, trials=failed))
    assert (row.verified, row.goodput_bps, row.ratio, row.why) == (0, None, None, "it went away")
    assert row.no_claim_because == "no transfer was verified"
    assert "no claim" in headline(replace(results, trials=failed))[0]


def test_the_warm_up_counts_in_nothing() -> None:
    results = make_results(truth(0.9), 1)
    cold = [replace(t, goodput_bps=1e3, seconds=1e4) if t.block < 0 else t for t in results.trials]
    assert summarise(replace(results, trials=cold)) == summarise(results)


def test_sizes_are_results_of_their_own() -> None:
    planted = replace(truth(0.5), sizes=(10_000, 50_000_000))
    rows = [row for row in summarise(make_results(planted, 1)) if row.transport == "udp-bbr"]
    assert [(row.payload_bytes, row.regime) for row in rows] == [(10_000, "short"), (50_000_000, "steady")]
    lines = headline(make_results(planted, 1))
    assert any(" ms against " in text for text in lines)
    assert any("Mbit/s against" in text for text in lines)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.80, 0.95, verdict.SLOWER),
        (0.80, 0.985, verdict.NO_DIFFERENCE),
        (0.95, 1.05, verdict.NO_DIFFERENCE),
        (1.01, 1.20, verdict.NO_DIFFERENCE),
        (1.03, 1.20, verdict.FASTER),
    ],
)
def test_an_interval_must_lie_beyond_the_margin(low: float, high: float, expected: str) -> None:
    assert verdict_of(Estimate((low + high) / 2, Interval(low, high)), verdict.MIN_DIFFERENCE) == expected


def test_the_headline_names_both_and_the_interval() -> None:
    (text,) = headline(make_results(truth(0.5), 1))
    assert "udp-bbr is slower than tcp-cubic (0.5" in text
    assert "95% interval" in text
    assert "tcp-cubic#2" not in text
