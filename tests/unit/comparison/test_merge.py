"""Several campaigns as one result: runs are the samples, and their variance counts."""

import math
import random
from dataclasses import replace

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.merge import MergedRow, mean_interval, merge, student_quantile
from toolkit.comparison.records import CPU_BOUND, Results
from toolkit.comparison.summary import plain
from toolkit.errors import UsageError
from toolkit.report.merged import flat_merged, merged_text


def run(ratio: float, seed: int) -> Results:
    """A campaign in which the true ratio is `ratio`."""
    speeds = {("tcp-cubic", "a"): 90e6, ("udp-bbr", "a"): ratio * 90e6}
    results = make_results(Truth(speeds, repeats=9, noise=0.01), seed)
    return replace(results, campaign=replace(results.campaign, started_unix_s=float(seed)))


def rival(rows: list[MergedRow]) -> MergedRow:
    return next(row for row in rows if row.transport == "udp-bbr")


@pytest.mark.parametrize(
    ("degrees", "error", "expected"),
    [(1, 0.05, 12.706), (2, 0.05, 4.303), (5, 0.05, 2.571), (30, 0.05, 2.042), (3, 0.01, 5.841), (9, 0.001, 4.781)],
)
def test_the_quantiles_are_those_of_the_tables(degrees: int, error: float, expected: float) -> None:
    assert student_quantile(degrees, error) == pytest.approx(expected, abs=5e-4)


def test_runs_that_agree_give_a_verdict() -> None:
    row = rival(merge([run(0.5, seed) for seed in range(1, 7)]))
    assert (row.runs, row.verdict) == (6, "slower")
    assert row.ratio is not None
    assert row.ratio.value == pytest.approx(0.5, abs=0.02)
    assert row.between == pytest.approx(1.0, abs=0.02)


def test_what_differs_from_run_to_run_widens_the_interval() -> None:
    """Each campaign alone is certain; together they are not."""
    ratios = (0.6, 1.4, 0.8, 1.7)
    row = rival(merge([run(ratio, seed) for seed, ratio in enumerate(ratios, 1)]))
    assert row.verdict == "inconclusive"
    assert row.ratio is not None
    assert row.ratio.interval is not None
    assert row.ratio.interval.low < 1 < row.ratio.interval.high
    assert row.between is not None
    assert row.between > 1.3
    assert row.more_runs is None or row.more_runs > 0


def test_noise_within_campaigns_does_not_hide_what_differs_between_them() -> None:
    """Budgets end many campaigns at eight blocks, whose 95% intervals are far wider than the noise of their medians."""
    found = []
    for first in range(0, 200, 10):
        generator = random.Random(first)
        campaigns = []
        for seed in range(first, first + 10):
            speeds = {("tcp-cubic", "a"): 90e6, ("udp-bbr", "a"): 90e6 * math.exp(generator.gauss(0, 0.03))}
            results = make_results(Truth(speeds, repeats=8, noise=0.035, with_control=False), seed)
            pilot = replace(results.campaign, started_unix_s=float(seed), budget_s=360.0)
            campaigns.append(replace(results, campaign=pilot))
        between = rival(merge(campaigns)).between
        assert between is not None
        found.append(math.log(between))
    assert 0.02 < sorted(found)[10] < 0.04


def test_the_interval_holds_the_mean_of_normal_runs_in_95_of_100() -> None:
    generator = random.Random(1)
    for count in (2, 4, 8):
        held = 0
        for _ in range(2000):
            interval = mean_interval([generator.gauss(0.2, 0.3) for _ in range(count)])
            assert interval is not None
            held += interval.low <= math.exp(0.2) <= interval.high
        assert 0.935 <= held / 2000 <= 0.965


def test_a_run_without_its_baseline_has_no_ratio() -> None:
    cut = run(2.0, 2)
    cut = replace(cut, trials=[trial for trial in cut.trials if trial.transport != "tcp-cubic"])
    row = rival(merge([run(2.0, 1), cut, run(2.0, 3)]))
    assert (row.runs, row.left_out) == (2, ("campaign 2: the baseline was not run",))


def test_a_run_whose_transfers_all_failed_is_not_left_out() -> None:
    failed = run(1.0, 2)
    trials = [
        replace(t, verified=False, seconds=None, goodput_bps=None) if t.transport == "udp-bbr" else t
        for t in failed.trials
    ]
    row = rival(merge([run(2.0, 1), replace(failed, trials=trials), run(2.0, 3)]))
    assert (row.runs, row.ratios[1], row.verdict, row.ratio) == (3, 0.0, "no claim", None)
    assert "most transfers of one side failed" in row.because
    assert plain(row)["ratios"] == row.ratios


def test_marked_runs_are_left_out_and_named() -> None:
    marked = run(1.0, 2)
    trials = [replace(t, marks=[CPU_BOUND]) if t.transport == "udp-bbr" else t for t in marked.trials]
    row = rival(merge([run(0.5, 1), replace(marked, trials=trials), run(0.5, 3)]))
    assert row.runs == 2
    assert row.left_out == ("campaign 2: 9 of 9 trials marked cpu-bound",)


def test_campaigns_that_cannot_be_merged() -> None:
    with pytest.raises(UsageError, match="two files"):
        merge([run(1.0, 1)])
    with pytest.raises(UsageError, match="a campaign twice"):
        merge([run(1.0, 1), run(1.0, 1)])
    other = run(1.0, 2)
    with pytest.raises(UsageError, match="one baseline"):
        merge([run(1.0, 1), replace(other, campaign=replace(other.campaign, baseline="udp-bbr"))])


def test_campaigns_with_different_questions_are_not_merged() -> None:
    one, two = run(0.5, 1), run(0.5, 2)
    flow = two.campaign.transports["udp-bbr"]
    encrypted = {**two.campaign.transports, "udp-bbr": replace(flow, is_encrypted=not flow.is_encrypted)}
    for change, message in (
        ({"time_s": 5.0, "sizes": [0]}, "the same --time"),
        ({"competitor": flow}, "the same background flow"),
        ({"transports": encrypted}, "udp-bbr has other settings"),
    ):
        with pytest.raises(UsageError, match=message):
            merge([one, replace(two, campaign=replace(two.campaign, **change))])


def test_timed_trials_have_no_size() -> None:
    campaigns = []
    for seed in (1, 2):
        results = run(0.5, seed)
        trials = [replace(trial, payload_bytes=0) for trial in results.trials]
        campaigns.append(Results(replace(results.campaign, time_s=5.0, sizes=[0]), trials))
    text = merged_text(merge(campaigns), [])
    assert "timed" in text
    assert "0 B" not in text


def test_one_run_of_a_path_says_nothing_of_others() -> None:
    row = rival(merge([run(0.5, 1), make_other_path()]))
    assert (row.runs, row.verdict, row.because) == (1, "no claim", "a single campaign says nothing of others")


def make_other_path() -> Results:
    results = make_results(Truth({("tcp-cubic", "b"): 9e7, ("udp-bbr", "b"): 9e7}, repeats=9), 9)
    return replace(results, campaign=replace(results.campaign, started_unix_s=9.0))


def test_the_text_fits_and_says_what_the_figures_guarantee() -> None:
    from toolkit.comparison.summary import summarise

    campaigns = [run(0.5, seed) for seed in range(1, 4)]
    campaigns[1] = replace(campaigns[1], campaign=replace(campaigns[1].campaign, patience_s=120.0))
    rows = merge(campaigns)
    text = merged_text(rows, [summarise(results) for results in campaigns], 80)
    assert max(map(len, text.split("\n"))) <= 80
    assert "random sample" in " ".join(text.split())
    assert "A/A control: " in text
    assert "Link 2: 1970-01-01 00:00 UTC, seed 2, patience 2 min, A Processor" in " ".join(text.split())
    assert "Link 3: 1970-01-01 00:00 UTC, seed 3, A Processor, 6.1, 0.1.0." in text
    assert all(value is None or isinstance(value, str | int | float) for value in flat_merged(rows[0]).values())
