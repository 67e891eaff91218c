"""Campaigns as text for people and for programs."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.report_samples import HOSTILE, lossy, one_path, save, troubled
from toolkit.compare.comparison import summarise
from toolkit.compare.host_info import HostInfo
from toolkit.compare.record_file import read
from toolkit.compare.records import Results, TimeSplit
from toolkit.report.text import FORMATS, TERMINAL, flat_row, report_text


def comparison(results: Results, table_format: str = "simple") -> str:
    return report_text([summarise(results)], (), table_format)


def sentences(results: Results) -> list[str]:
    return summarise(results).headline


@pytest.mark.parametrize("make", [lossy, troubled])
def test_the_same_records_give_the_same_text(tmp_path: Path, make: object) -> None:
    assert callable(make)
    results: Results = make()
    path = save(results, tmp_path / "results.jsonl")
    for table_format in FORMATS:
        assert comparison(read(path), table_format) == comparison(results, table_format), table_format


@pytest.mark.parametrize("table_format", TERMINAL)
def test_the_verdicts_come_first(table_format: str) -> None:
    results = lossy()
    first, *_ = comparison(results, table_format).split("\n\n")
    assert re.sub(r"\n +", " ", first).split("\n") == sentences(results)
    assert max(map(len, first.split("\n"))) <= 100


def test_explanations_follow_the_table_but_not_for_the_control() -> None:
    text = comparison(lossy())
    assert "loss 5%, udp-bbr: It ran at " in text
    assert "loss 5%, tcp-cubic#2: It ran" not in text


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
        assert float(text["steady_s"]) == (row.reasons or TimeSplit()).steady_s
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
    assert "--repeat 6" in few
    assert "no claim: too few pairs" in few
    assert "--repeat" not in comparison(results)


def test_an_empty_host_record_is_shown_as_unknown() -> None:
    results = one_path()
    assert "unknown" in comparison(replace(results, campaign=replace(results.campaign, host=HostInfo())))
