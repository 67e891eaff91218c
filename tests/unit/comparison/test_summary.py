"""Verdicts on synthetic campaigns, whose truth is known."""

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.support.repetitions import first_then_long, long
from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.conditions import TrialConditions
from toolkit.comparison.findings import UNCHECKED
from toolkit.comparison.machine_load import MachineLoad
from toolkit.comparison.paths import REMOTE
from toolkit.comparison.records import BUSY_MACHINE, CPU_BOUND, EMULATOR_LATE, DelaySummary, Results
from toolkit.comparison.rows import Row
from toolkit.comparison.summary import plain, summarise
from toolkit.comparison.verdict import EQUIVALENT, FASTER, INCONCLUSIVE, NO_CLAIM, SLOWER, TOO_FEW
from toolkit.report.text import report_text

CAMPAIGNS = 100


def truth(factor: float, repeats: int = 10, disturbed: float = 0.05, noise: float = 0.03) -> Truth:
    """UDP at `factor` of TCP's goodput, with the noise of a quiet machine: 3% a trial, 10% a block."""
    goodputs = {("tcp-cubic", "a"): 90e6, ("udp-bbr", "a"): factor * 90e6}
    return Truth(goodputs, repeats=repeats, noise=noise, drift=0.10, disturbed=disturbed)


def verdicts(planted: Truth) -> list[str]:
    return [row_of(make_results(planted, seed)).verdict for seed in range(CAMPAIGNS)]


def row_of(results: Results, transport: str = "udp-bbr") -> Row:
    return next(row for row in summarise(results).rows if row.transport == transport)


FAILED: dict[str, Any] = {"verified": False, "seconds": None, "goodput_bps": None, "error": "the peer disappeared"}


def change(results: Results, count: int, transport: str = "udp-bbr", **changed: Any) -> Results:
    """The results with the trials of one transport in the first blocks changed."""
    trials = [replace(t, **changed) if t.transport == transport and 0 <= t.block < count else t for t in results.trials]
    return replace(results, trials=trials)


@pytest.mark.parametrize("disturbed", first_then_long([0.0, 0.05]))
def test_identical_transports_are_hardly_ever_found_to_differ(disturbed: float) -> None:
    found = verdicts(truth(1.0, disturbed=disturbed))
    assert found.count(EQUIVALENT) + found.count(INCONCLUSIVE) >= 95


@pytest.mark.parametrize(("factor", "named"), [(0.9, SLOWER), long(1 / 0.9, FASTER)])
def test_a_difference_of_ten_per_cent_is_found(factor: float, named: str) -> None:
    assert verdicts(truth(factor, disturbed=0.0)).count(named) >= 90


@pytest.mark.parametrize(("factor", "named"), [long(0.9, SLOWER), (1 / 0.9, FASTER)])
def test_a_difference_of_ten_per_cent_is_found_or_inconclusive_on_a_disturbed_machine(
    factor: float, named: str
) -> None:
    found = verdicts(truth(factor))
    assert found.count(named) >= 70
    assert found.count(named) + found.count(INCONCLUSIVE) >= 95


def test_a_wide_interval_is_inconclusive_and_not_equality() -> None:
    """`no difference (0.53 x, 95% interval 0.16 to 1.51)` once said what was not known."""
    results = make_results(truth(0.53, repeats=6, noise=0.6), 7)
    row = row_of(results)
    assert row.ratio is not None
    assert row.ratio.interval is not None
    assert row.ratio.interval.low < 0.3 < 1.3 < row.ratio.interval.high
    assert row.verdict == INCONCLUSIVE
    assert row.more_blocks
    (text,) = summarise(results).headline
    assert "udp-bbr against tcp-cubic is inconclusive" in text
    assert f"about {row.more_blocks} more blocks would settle it" in text
    assert not summarise(results).verdicts[0].is_claim
    assert "no difference" not in text
    assert "equivalent" not in text
    unchecked = make_results(replace(truth(0.53, repeats=6, noise=0.6), with_control=False), 1)
    assert "these trials cannot tell which is faster" in summarise(unchecked).headline[0]


def test_a_reliable_difference_of_less_than_one_per_cent_is_negligible_and_not_none() -> None:
    """`no difference (0.99 to 0.99)` was once said of what was reliably 0.8% slower."""
    results = make_results(truth(0.992, repeats=6, disturbed=0.0, noise=0.0005), 1)
    row = row_of(results)
    assert (row.verdict, row.is_negligible) == (SLOWER, True)
    (text,) = summarise(results).headline
    assert text.startswith("a, 95.37 MiB: udp-bbr is slower than tcp-cubic by 0.8%, which is negligible (0.992 x ")
    assert "no difference" not in text


def test_equivalent_transports_are_called_so_with_the_margin() -> None:
    results = make_results(truth(1.0, disturbed=0.0, noise=0.01), 1)
    assert row_of(results).verdict == EQUIVALENT
    (text,) = summarise(results).headline
    assert "udp-bbr and tcp-cubic are equivalent within 5% (" in text
    strict = replace(results, campaign=replace(results.campaign, margin=0.001))
    assert row_of(strict).verdict == INCONCLUSIVE
    assert row_of(strict).margin == 0.001


def test_what_the_control_cannot_resolve_is_inconclusive() -> None:
    results = make_results(truth(0.9, disturbed=0.0), 1)
    assert row_of(results).verdict == SLOWER
    off = [
        replace(t, goodput_bps=0.85 * t.goodput_bps) if t.transport == "tcp-cubic#2" and t.goodput_bps else t
        for t in results.trials
    ]
    doubted = row_of(replace(results, trials=off))
    assert doubted.verdict == INCONCLUSIVE
    assert doubted.reach == pytest.approx(1 / 0.85, abs=0.07)
    (text,) = summarise(replace(results, trials=off)).headline
    assert f"the A/A control may differ from itself by {doubted.reach - 1:.0%}" in text
    assert "this machine resolves nothing finer" in text


def test_without_a_control_the_sentence_says_that_nothing_checked_the_machine() -> None:
    controlled = make_results(truth(0.5), 1)
    results = make_results(replace(truth(0.5), with_control=False), 1)
    assert row_of(results).reach is None
    assert UNCHECKED in summarise(results).headline[0]
    assert UNCHECKED not in summarise(controlled).headline[0]


def test_a_campaign_of_many_comparisons_needs_more_blocks_than_one_comparison() -> None:
    paths = [str(number) for number in range(8)]
    goodputs = {(name, path): bps for name, bps in (("tcp-cubic", 90e6), ("udp-bbr", 45e6)) for path in paths}

    def found(blocks: int, count: int) -> set[str]:
        chosen = {key: bps for key, bps in goodputs.items() if int(key[1]) < count}
        rows = summarise(make_results(Truth(chosen, repeats=blocks), 1)).rows
        return {row.verdict for row in rows if row.transport == "udp-bbr"}

    assert found(8, 6) == found(6, 1) == {SLOWER}
    assert found(8, 8) == found(6, 2) == {INCONCLUSIVE}


def late_trials(steal_share: float, patience_s: float, count: int = 8) -> Results:
    """Eight blocks in which the emulator was late for UDP; with patience, half a second of it before each trial."""
    results = change(make_results(truth(0.5, repeats=8), 1), count, marks=[EMULATOR_LATE])
    conditions = TrialConditions(load=MachineLoad(foreign_share=0.0, steal_share=steal_share))
    trials = [replace(each, conditions=conditions, waited_s=0.5 if patience_s else 0.0) for each in results.trials]
    return Results(replace(results.campaign, patience_s=patience_s), trials)


@pytest.mark.parametrize(
    ("patience_s", "advice"),
    [
        (0.0, ": a campaign with patience waits for quieter moments."),
        (14.0, ", and the patience of 14 s did not suffice: with more, more trials are measured in quieter moments."),
        (20.0, ", although it was quiet before them."),
    ],
)
def test_a_note_says_whether_patience_may_help(patience_s: float, advice: str) -> None:
    start = "Other programs or the hypervisor took processors in 8 of 8 marked trials"
    assert f"{start}{advice}" in summarise(late_trials(0.05, patience_s)).notes


def test_a_note_counts_the_repeats_of_each_transport() -> None:
    results = make_results(truth(0.5, repeats=8), 1)
    disturbed = [replace(each, is_repeated=True) for each in results.trials if each.transport == "udp-bbr"]
    noted = summarise(replace(results, repeated=[*disturbed[:5], replace(results.trials[0], is_repeated=True)]))
    start = "The hypervisor took more than 2% of the processors during trials that were repeated: "
    assert f"{start}{results.trials[0].transport} 1, udp-bbr 5." in noted.notes
    assert noted.rows == summarise(results).rows
    failed = replace(disturbed[0], verified=False, seconds=None, goodput_bps=None, error="lost")
    assert (
        f"{start}udp-bbr 2; 1 of them had failed." in summarise(replace(results, repeated=[disturbed[1], failed])).notes
    )


def test_a_note_says_that_a_timed_trial_could_not_be_repeated_any_more() -> None:
    """Patience that is left may be too little for a long trial."""
    late = late_trials(0.05, 20.0)
    timed = replace(late, campaign=replace(late.campaign, time_s=5.0))
    assert any("the patience of 20 s did not suffice" in note for note in summarise(timed).notes)


def test_what_nettool_itself_uses_or_what_costs_no_claim_is_no_reason_to_wait() -> None:
    results = late_trials(0.05, 0.0)
    remote = replace(results.campaign.paths["a"], kind=REMOTE)
    far = Results(replace(results.campaign, paths={"a": remote}), results.trials)
    for silent in (late_trials(0.01, 0.0), late_trials(0.05, 0.0, count=1), far):
        assert "processors" not in " ".join(summarise(silent).notes)


@pytest.mark.parametrize("repeats", [1, 5])
def test_few_trials_make_no_claim(repeats: int) -> None:
    row = row_of(make_results(truth(0.3, repeats=repeats), 1))
    assert (row.verdict, row.because) == (NO_CLAIM, TOO_FEW)
    assert row.ratio is not None
    assert row.ratio.interval is None


@pytest.mark.parametrize("marked", ["udp-bbr", "tcp-cubic"])
def test_no_claim_if_more_than_a_fifth_are_marked(marked: str) -> None:
    results = make_results(truth(0.5), 1)

    def row(count: int) -> Row:
        return row_of(change(results, count, marked, marks=[EMULATOR_LATE]))

    assert row(2).verdict == SLOWER
    assert row(3).verdict == row(10).verdict == NO_CLAIM
    whose = "of the baseline's" if marked == "tcp-cubic" else "of"
    assert row(3).because == f"3 {whose} 10 trials marked emulator-late"
    if marked == "udp-bbr":
        assert (row(10).verified, row(10).unmarked, row(10).marks) == (10, 0, ("emulator-late",))
        assert row(10).goodput_bps is not None


@pytest.mark.parametrize(
    ("ratio", "marked", "expected"),
    [
        (2.0, ["udp-bbr"], FASTER),
        (0.5, ["udp-bbr"], NO_CLAIM),
        (1.0, ["udp-bbr"], NO_CLAIM),
        (0.5, ["tcp-cubic"], SLOWER),
        (2.0, ["tcp-cubic"], NO_CLAIM),
        (2.0, ["udp-bbr", "tcp-cubic"], NO_CLAIM),
    ],
)
def test_a_side_that_lacked_processors_may_still_be_called_faster(
    ratio: float, marked: list[str], expected: str
) -> None:
    results = make_results(truth(ratio), 1)
    for label in marked:
        results = change(results, 10, label, marks=[CPU_BOUND])
    row = row_of(results)
    assert row.verdict == expected
    if expected == NO_CLAIM:
        assert "10 trials marked cpu-bound" in row.because
    elif expected == FASTER:
        (text,) = summarise(results).headline
        assert "10 of 10 trials are marked cpu-bound: with more processor time it would have been faster still." in text


def test_a_side_that_has_another_mark_too_is_not_called_faster() -> None:
    assert row_of(change(make_results(truth(2.0), 1), 10, marks=[CPU_BOUND, EMULATOR_LATE])).verdict == NO_CLAIM
    both = change(make_results(truth(2.0), 1), 10, marks=[CPU_BOUND, BUSY_MACHINE])
    assert row_of(both).verdict == FASTER
    assert row_of(change(both, 3, "tcp-cubic", marks=[EMULATOR_LATE])).verdict == NO_CLAIM


def test_how_much_faster_a_side_that_lacked_processors_is_remains_open() -> None:
    """It would have been faster still, so that the difference may exceed the margin."""
    results = make_results(truth(1.01, repeats=6, disturbed=0.0, noise=0.0005), 1)
    assert row_of(results).is_negligible
    row = row_of(change(results, 6, marks=[CPU_BOUND]))
    assert (row.verdict, row.is_negligible) == (FASTER, False)


def test_marks_do_not_hide_slow_trials() -> None:
    results = make_results(truth(1.1, disturbed=0.0), 1)
    slow = change(results, 5, marks=[CPU_BOUND], goodput_bps=45e6)
    assert row_of(slow).verdict == NO_CLAIM
    few = change(results, 2, marks=[CPU_BOUND], goodput_bps=45e6)
    row = row_of(few)
    assert row.ratio == row_of(change(results, 2, goodput_bps=45e6)).ratio  # marked trials count as measured
    (text,) = summarise(few).headline
    assert "udp-bbr: 2 of 10 trials are marked cpu-bound." in text


@pytest.mark.parametrize(
    ("failures", "factor", "expected"),
    [
        (1, 1.2, FASTER),
        (3, 1.2, INCONCLUSIVE),
        (5, 1.2, INCONCLUSIVE),
        (9, 1.2, SLOWER),
        (1, 0.8, SLOWER),
        (5, 0.8, SLOWER),
        (2, 1.0, INCONCLUSIVE),
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
    without = change(make_results(replace(truth(0.8, disturbed=0.0), with_control=False), 1), 9, "tcp-cubic", **FAILED)
    assert row_of(without).verdict == FASTER
    assert plain(row_of(without))["ratio"] == (None, (None, None))
    (text,) = summarise(without).headline
    assert "udp-bbr is faster than tcp-cubic (∞ x its goodput in 10 pairs" in text
    assert "tcp-cubic: 9 of 10 transfers failed and count as 0" in text
    assert "Infinity" not in report_text([summarise(without)], (), "json")
    assert "too few transfers of the A/A control" in row_of(results).because


def test_a_pair_in_which_both_failed_says_nothing() -> None:
    results = make_results(truth(0.5, disturbed=0.0), 1)
    both = results
    for transport in ("udp-bbr", "tcp-cubic", "tcp-cubic#2"):
        both = change(both, 4, transport, **FAILED)
    row = row_of(both)
    assert (row.verdict, row.pairs, row.censored) == (SLOWER, 6, 4)
    last = [trial for trial in results.trials if trial.block >= 4]
    assert row.ratio == row_of(replace(results, trials=last)).ratio
    assert "in 6 of 10 pairs" in summarise(both).headline[0]
    assert "4 more pairs, in which both transfers failed, say nothing" in summarise(both).headline[0]
    fewer = both
    for transport in ("udp-bbr", "tcp-cubic", "tcp-cubic#2"):
        fewer = change(fewer, 5, transport, **FAILED)
    assert (row_of(fewer).verdict, row_of(fewer).because) == (NO_CLAIM, TOO_FEW)


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
    assert row_of(failed).because == f"no transfer {whose}was verified"
    assert "No claim on udp-bbr: " in summarise(failed).headline[0]


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


def test_the_headline_names_both_and_the_interval() -> None:
    (text,) = summarise(make_results(truth(0.5), 1)).headline
    assert "udp-bbr is slower than tcp-cubic (0.5" in text
    assert "95% interval" in text
    assert "tcp-cubic#2" not in text


def test_processor_time_stands_beside_what_was_moved_where_that_differs() -> None:
    """In a timed trial the faster one moves more, and uses more processor time for that alone."""
    results = make_results(Truth({("tcp-cubic", "a"): 9e6, ("udp-bbr", "a"): 90e6}, repeats=9), 1)
    assert "udp-bbr spent 90 ms of processor time at both ends (tcp-cubic: 90 ms)" in summarise(results).headline[0]
    trials = []
    for trial in results.trials:
        moved = round((trial.goodput_bps or 0.0) / 8)
        cost = replace(trial.cost, cpu_seconds_sender=moved * 4e-10, cpu_seconds_receiver=moved * 4e-10)
        sender = replace(trial.sender, size_bytes=moved)
        trials.append(replace(trial, payload_bytes=0, sender=sender, cost=cost))
    timed = replace(results, trials=trials, campaign=replace(results.campaign, sizes=[0], time_s=1.0))
    says = r"udp-bbr spent (\S+) ms of processor time at both ends for (\S+) MiB \(tcp-cubic: \S+ us for (\S+) MiB\)"
    ((spent_ms, moved, other_moved),) = re.findall(says, summarise(timed).headline[0])
    assert float(moved) == pytest.approx(10 * float(other_moved), rel=0.1)
    assert float(spent_ms) == pytest.approx(float(moved) * 1.048576 * 0.8, rel=0.01)


def test_a_queue_that_is_shorter_than_the_link_holds_packets_is_no_figure() -> None:
    results = make_results(Truth({("tcp-cubic", "a"): 9e6, ("udp-bbr", "a"): 90e6}, repeats=9), 1)
    trials = [replace(trial, delay=DelaySummary(40.0, 40.03, 40.2)) for trial in results.trials]
    (text,) = summarise(replace(results, trials=trials)).headline
    assert "added less than 500 us of queueing delay (tcp-cubic: less than 500 us)" in text


def test_marks_are_counted_among_the_transfers_that_arrived() -> None:
    results = make_results(truth(0.8), 3)
    results = change(change(results, 8, marks=[CPU_BOUND, BUSY_MACHINE]), 1, **FAILED, marks=[BUSY_MACHINE])
    results = change(results, 4, "tcp-cubic", marks=[BUSY_MACHINE])
    row = row_of(results)
    assert (row.marks, row.mark_counts) == ((BUSY_MACHINE, CPU_BOUND), (7, 7))
    (text,) = summarise(change(make_results(truth(0.8), 3), 4, "tcp-cubic", marks=[BUSY_MACHINE])).headline
    assert "tcp-cubic: 4 of 10 trials are marked busy-machine." in text
