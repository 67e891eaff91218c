"""`nettool report` as a command: tables, pages, pictures, and the errors of wrong usage."""

import json
from pathlib import Path

import pytest

from tests.support.cli_process import complaint, nettool_here
from tests.support.report_samples import lossy, one_path, save
from toolkit.compare.comparison import summarise
from toolkit.report.page import page
from toolkit.report.text import FORMATS, report_text


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("records")
    return [save(lossy(), folder / "link.jsonl"), save(one_path(), folder / "loopback.jsonl")]


@pytest.mark.parametrize("table_format", FORMATS)
def test_tables_are_those_of_the_records(records: list[Path], table_format: str) -> None:
    ended = nettool_here("report", *records, "--format", table_format)
    assert (ended.code, ended.stderr) == (0, "")
    expected = report_text([summarise(lossy()), summarise(one_path())], (), table_format)
    assert ended.stdout == f"{expected}\n"


def test_a_page_and_pictures_are_written(records: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'nettool[report]'")
    written = tmp_path / "new" / "out.html"
    ended = nettool_here("report", records[1], "--html", written, "--pictures", tmp_path / "pictures")
    assert ended.code == 0, ended
    assert "Page: " in ended.stderr
    assert written.read_text() == page([summarise(one_path())])
    starts = {".png": b"\x89PNG", ".svg": b"<?xml"}
    made = sorted((tmp_path / "pictures").iterdir())
    assert [path.suffix for path in made] == [".png", ".svg"] * 3
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
    assert ended.object["headline"] == [
        sentence for results in (lossy(), one_path()) for sentence in summarise(results).headline
    ]
    assert len(ended.object["rows"]) == 15


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
