"""Campaigns as text for people and for programs."""

import csv
import io
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.support.report_samples import HOSTILE, LOSSES, lossy, one_path, save, troubled
from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.host_info import HostInfo
from toolkit.comparison.record_file import read
from toolkit.comparison.records import Results, TimeSplit
from toolkit.comparison.summary import Summary, summarise
from toolkit.report.labels import MAX_COLUMNS
from toolkit.report.text import FORMATS, TERMINAL, flat_row, report_text
from toolkit.units import format_rate, format_ratio


def comparison(results: Results, table_format: str = "simple") -> str:
    return report_text([summarise(results)], (), table_format)


def sentences(results: Results) -> list[str]:
    return summarise(results).headline


@pytest.mark.parametrize("make", [lossy, troubled])
def test_the_same_records_give_the_same_text(tmp_path: Path, make: object) -> None:
    assert callable(make)
    results: Results = make()
    again = summarise(read(save(results, tmp_path / "results.jsonl")))
    first = summarise(results)
    for table_format in FORMATS:
        assert report_text([again], (), table_format) == report_text([first], (), table_format), table_format


def test_each_cell_is_one_line_with_goodput_ratio_and_verdict() -> None:
    results = lossy()
    _, verdicts, *_ = comparison(results).split("\n\n")
    lines = verdicts.split("\n")[3:]
    for line, row in zip(lines, summarise(results).rows, strict=True):
        assert row.transport in line
        assert format_rate(row.goodput_bps.value if row.goodput_bps else 0.0) in line
        if row.ratio is not None and row.ratio.interval is not None:
            low, high = map(format_ratio, row.ratio.interval)
            assert f" {format_ratio(row.ratio.value)} [{low}, {high}] " in line
        assert line.endswith(f"A/A control: {row.verdict}" if row.is_control else row.verdict)


@cache
def campaigns() -> list[Summary]:
    long = "100 Mbit/s, 40 ms, 0.1% loss, bursts of 20 ms"
    results = one_path()
    path = next(iter(results.campaign.paths.values()))
    wide = replace(results.campaign, paths={long: path})
    return [
        *map(summarise, (lossy(), troubled(), one_path(repeats=3), one_path())),
        summarise(Results(wide, [replace(trial, path=long) for trial in results.trials])),
    ]


@pytest.mark.parametrize("table_format", TERMINAL)
@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_no_line_is_wider_than_the_terminal(table_format: str, width: int) -> None:
    text = report_text(campaigns(), (), table_format, width)
    assert max(map(len, text.split("\n"))) <= width


def test_a_path_that_takes_too_much_room_becomes_a_heading() -> None:
    text = report_text([campaigns()[-1]], (), "simple", 80)
    lines = text.split("\n")
    heading = lines.index("100 Mbit/s, 40 ms, 0.1% loss, bursts of 20 ms")
    assert lines[heading + 1].startswith("  tcp-cubic ")
    assert lines[heading + 2].endswith(" slower")


def test_no_sentence_appears_twice() -> None:
    text = report_text(campaigns()[:4], (), "simple")
    joined = re.sub(r"\n +", " ", text)
    said = [line.strip() for line in joined.split("\n") if line.rstrip().endswith(".")]
    assert len(said) > 10
    assert len(set(said)) == len(said)
    assert joined.count("2 cores of A Processor") == 1


def test_remarks_stand_under_their_path_and_the_control_has_none() -> None:
    text = comparison(lossy())
    remarks = text[text.index("loss 5%, 19.07 MiB\n") :]
    assert re.search(r"\n  tcp-cubic: It reached ", remarks)
    assert "tcp-cubic#2: It" not in text
    assert "udp-bbr spent " in remarks  # what the winner cost


def test_an_error_that_all_transfers_have_is_said_once() -> None:
    results = lossy(LOSSES[:2])
    error = "Connection refused: nobody listens on port 9000"
    failed = {"verified": False, "seconds": None, "goodput_bps": None, "error": error, "why": ""}
    trials = [replace(trial, **failed) for trial in results.trials]
    above = comparison(replace(results, trials=trials)).partition("Failed or marked trials")[0]
    assert above.count("Connection refused") == 1
    assert "tcp-cubic, udp-bbr: Connection refused" in above
    assert above.count("No claim on") == 1


def test_no_format_contains_control_characters() -> None:
    for table_format in FORMATS:
        shown = comparison(troubled(), table_format)
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert all(c.isprintable() or c == "\n" for c in shown)


def test_github_markup_in_labels_is_escaped() -> None:
    results = one_path()
    hostile = replace(results.campaign, paths={"a|b *c*": next(iter(results.campaign.paths.values()))})
    text = comparison(Results(hostile, [replace(trial, path="a|b *c*") for trial in results.trials]), "github")
    rows = [line for line in text.split("\n") if line.startswith("| a")]
    assert rows
    assert all(line.startswith("| a\\|b \\*c\\*") for line in rows)
    assert len({line.replace("\\|", "").count("|") for line in rows[:3]}) == 1


def test_html_and_latex_markup_in_labels_is_escaped() -> None:
    assert "<script>" not in comparison(troubled(), "html")
    assert "&lt;script&gt;" in comparison(troubled(), "html")
    latex = comparison(troubled(), "latex")
    assert "\\$x\\_1\\$" in latex
    assert HOSTILE[:8] in latex  # < and > are no markup in LaTeX


def test_csv_has_the_figures_of_the_summary() -> None:
    results = lossy()
    rows = list(csv.DictReader(io.StringIO(comparison(results, "csv"))))
    summary = summarise(results).rows
    assert [row["transport"] for row in rows] == [row.transport for row in summary]
    for text, row in zip(rows, summary, strict=True):
        assert row.goodput_bps is not None
        assert float(text["goodput_bps"]) == row.goodput_bps.value
        assert float(text["steady_s"]) == (row.time_split or TimeSplit()).steady_s
        assert text["campaign"] == "link"


def test_json_is_one_object_with_headline_and_flat_rows() -> None:
    results = [lossy(), one_path()]
    shown = json.loads(report_text([summarise(one) for one in results], (), "json"))
    assert shown["headline"] == [*sentences(results[0]), *sentences(results[1])]
    assert len(shown["rows"]) == 12 + 3
    assert {row["campaign"] for row in shown["rows"]} == {"link", "loopback"}
    assert shown["rows"][1]["ratio_low"] < shown["rows"][1]["ratio"] < shown["rows"][1]["ratio_high"]


def test_every_flat_row_has_the_same_fields() -> None:
    names = {tuple(flat_row(row)) for results in (lossy(), troubled()) for row in summarise(results).rows}
    assert len(names) == 1


def test_the_caption_warns_of_a_busy_machine_and_too_few_pairs() -> None:
    results = one_path()
    busy = replace(results.campaign, host=replace(results.campaign.host, load_1min=1.5))
    assert "busy at the start (load 1.5)" in comparison(Results(busy, results.trials))
    assert "busy" not in comparison(results)
    few = comparison(one_path(repeats=3))
    assert "run 6 blocks or more" in few
    assert "No claim on udp-bbr: too few pairs" in few
    assert "blocks or more" not in comparison(results)


@pytest.mark.parametrize("budget_s", [None, 360.0])
def test_the_caption_counts_the_blocks_that_ran(budget_s: float | None) -> None:
    results = one_path()
    planned = replace(results.campaign, budget_s=budget_s)
    budget = " (a budget of 6 min)" if budget_s else ""
    repeats = planned.repeats

    def shown(least: int, rest: int = 0) -> str:
        """The text if as many blocks ran whole, and so many trials of the next."""
        ran = [trial for trial in results.trials if trial.block < least]
        ran += [trial for trial in results.trials if trial.block == least][:rest]
        return re.sub(r"\s+", " ", comparison(replace(results, campaign=planned, trials=ran)))

    assert f" {repeats} blocks{budget} in random order" in shown(repeats)
    of = f"of at least {repeats}" if budget_s else f"of {repeats}"
    assert f" 3 {of} planned blocks{budget} in random order" in shown(3)
    assert f" 3 {of} planned blocks{budget} in random order" in shown(3, 2)
    assert f" 0 {of} planned blocks{budget} in random order" in shown(0)


def test_a_baseline_that_was_not_run_did_not_fail() -> None:
    results = one_path()
    baseline = results.campaign.baseline
    cut = replace(results, trials=[t for t in results.trials if t.transport != baseline])
    assert "the baseline was not run" in comparison(cut)
    assert "no transfer of the baseline" not in comparison(cut)


def test_an_empty_host_record_is_shown_as_unknown() -> None:
    results = one_path()
    assert "unknown" in comparison(replace(results, campaign=replace(results.campaign, host=HostInfo())))


def test_long_paths_differ_in_the_terminal_and_no_line_is_too_long() -> None:
    where = [f"1.25 Gbit/s, 160 ms, 12.5% loss, both ways, queue {queue} ms" for queue in (5, 250)]
    labels = ("tcp-cubic", "tcp-cubic+plaintext", "quic-cubic", "udp-newreno+plaintext=125Mbit")
    results = make_results(Truth({(each, path): 5e7 for each in labels for path in where}, repeats=8), 1)
    lines = report_text([summarise(results)]).splitlines()
    assert max(map(len, lines)) <= MAX_COLUMNS
    assert {path for path in where if path in lines} == set(where)
