"""`nettool report` as a command: tables, pages, pictures, and the errors of wrong usage."""

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.support.cli_process import complaint, nettool_here
from tests.support.report_samples import lossy, one_path, save
from toolkit.comparison.summary import summarise
from toolkit.report.page import page
from toolkit.report.text import FORMATS, report_text


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("records")
    return [save(lossy(), folder / "link.jsonl"), save(one_path(), folder / "loopback.jsonl")]


summaries = cache(lambda: [summarise(lossy()), summarise(one_path())])


@pytest.mark.parametrize("table_format", FORMATS)
def test_tables_are_those_of_the_records(records: list[Path], table_format: str) -> None:
    ended = nettool_here("report", *records, "--format", table_format)
    assert (ended.code, ended.stderr) == (0, "")
    expected = report_text(summaries(), (), table_format)
    assert ended.stdout == f"{expected}\n"


def test_a_page_and_pictures_are_written(records: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'nettool[report]'")
    written = tmp_path / "new" / "out.html"
    ended = nettool_here("report", records[1], "--html", written, "--pictures", tmp_path / "pictures")
    assert ended.code == 0, ended
    assert "Page: " in ended.stderr
    assert written.read_text() == page(summaries()[1:])
    starts = {".png": b"\x89PNG", ".svg": b"<?xml"}
    made = sorted((tmp_path / "pictures").iterdir())
    assert [path.suffix for path in made] == [".png", ".svg"] * 4
    assert all(path.read_bytes().startswith(starts[path.suffix]) for path in made)


def test_runs_of_iperf3_are_shown_beside_the_campaigns(records: list[Path], tmp_path: Path) -> None:
    run = {
        "start": {"test_start": {"protocol": "TCP", "num_streams": 1}},
        "end": {"sum_sent": {"seconds": 1.0, "bytes": 10**9}, "sum_received": {"seconds": 1.0, "bytes": 10**9}},
    }
    (tmp_path / "iperf.json").write_text(json.dumps(run))
    ended = nettool_here("report", records[1], "--import", tmp_path / "iperf.json", "--format", "json")
    assert ended.code == 0, ended
    rows = json.loads(ended.stdout)["rows"]
    assert [row["campaign"] for row in rows] == ["loopback"] * 3 + ["imported"]
    assert rows[-1]["goodput_bps"] == 8e9


def test_json_is_one_object_on_one_line(records: list[Path]) -> None:
    ended = nettool_here("report", *records, "--json")
    assert ended.object["kind"] == "report"
    assert ended.object["headline"] == [sentence for summary in summaries() for sentence in summary.headline]
    assert len(ended.object["rows"]) == 15


def test_figures_are_exported_as_csv_and_json(records: list[Path], tmp_path: Path) -> None:
    for suffix in ("csv", "json"):
        ended = nettool_here("report", *records, "--export", tmp_path / f"rows.{suffix}")
        assert ended.code == 0, ended
        again = nettool_here("report", *records, "--export", tmp_path / f"rows.{suffix}")
        assert again.code == 0, again  # it replaces its own
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    sheet = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert len(sheet) == len(rows) == 15
    assert [float(row["goodput_bps"]) for row in sheet] == [row["goodput_bps"] for row in rows]
    refused = nettool_here("report", *records, "--export", tmp_path / "rows.xls")
    assert refused.code == 2
    assert "end the name in .csv or .json" in complaint(refused)


def test_diff_has_an_exit_code_for_continuous_integration(records: list[Path], tmp_path: Path) -> None:
    old = one_path()
    slower = [replace(t, goodput_bps=t.goodput_bps / 2) if t.goodput_bps else t for t in old.trials]
    new = save(replace(old, trials=slower), tmp_path / "new.jsonl")
    assert nettool_here("diff", records[1], new).code == 0
    ended = nettool_here("diff", records[1], new, "--fail-if", "slower", "--export", tmp_path / "changes.csv")
    assert ended.code == 6
    assert "--fail-if slower holds for 3 of 3 rows" in complaint(ended)
    assert len((tmp_path / "changes.csv").read_text().splitlines()) == 1 + 3
    assert nettool_here("diff", records[1], records[1], "--fail-if", "slower,missing").code == 0
    assert nettool_here("diff", records[1], new, "--fail-if", "worse").code == 2
    assert nettool_here("diff", records[1], new, "--json", "--fail-if", "slower").object["found"] == 3


def test_a_page_never_replaces_records(records: list[Path], tmp_path: Path) -> None:
    first = save(one_path(), tmp_path / "a.jsonl")
    before = first.read_bytes()
    ended = nettool_here("report", "--html", first, records[1])  # --html *.jsonl, with the name forgotten
    assert (ended.code, ended.stdout) == (2, "")
    assert "nettool did not write it" in complaint(ended)
    assert first.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no records given"),
        (["missing.jsonl"], "cannot read missing.jsonl"),
        (["--format", "word", "x"], "unknown format 'word'"),
        (["--import", "missing.json"], "cannot read missing.json"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, tmp_path: Path) -> None:
    ended = nettool_here("report", *arguments, cwd=tmp_path)
    assert ended.code == 2
    assert ended.stdout == ""
    assert message in complaint(ended)
