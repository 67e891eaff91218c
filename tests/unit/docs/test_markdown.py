"""The tables and the lines of the Markdown documents are well-formed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = [ROOT / "README.md", ROOT / "README.ko.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_COLUMNS = 120
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_LINK_TARGET = re.compile(r"\]\([^)]*\)")


def lines_outside_code(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and lines, without fenced and indented code."""
    fence = ""
    previous, is_code = "", False
    for number, line in enumerate(text.splitlines(), 1):
        opening = re.match(r" *(```+|~~~+)", line)
        if opening and not fence:
            fence = opening[1]
        elif fence:
            fence = "" if line.strip() == fence else fence
        else:
            is_code = line.startswith("    ") and (is_code or not previous.strip())
            if not is_code:
                yield number, line
        previous = line


def cells_of(row: str) -> int:
    """The number of cells of a table row. Pipes in code spans and escaped pipes separate nothing."""
    return _CODE_SPAN.sub("code", row).replace(r"\|", "").strip().strip("|").count("|") + 1


def faults_of(text: str) -> list[str]:
    """What is wrong with the tables and the long lines of a document."""
    faults = []
    header = 0
    for number, line in lines_outside_code(text):
        if line.startswith("|"):
            if not line.rstrip().endswith("|"):
                faults.append(f"line {number}: a table row without an end")
            header = header or cells_of(line)
            if cells_of(line) != header:
                faults.append(f"line {number}: {cells_of(line)} cells under a header of {header}")
            continue
        header = 0
        if "| |" in _CODE_SPAN.sub("code", line):
            faults.append(f"line {number}: a table row in running text")
        if len(_LINK_TARGET.sub("]", line)) > MAX_COLUMNS:
            faults.append(f"line {number}: {len(line)} columns")
    return faults


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_well_formed_and_lines_are_short(path: Path) -> None:
    assert faults_of(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("| a | b |\n|---|---|\n| `x|y` | a \\| b |\n| | 2 |\n", None),
        ("| a | b |\n|---|---|\n| 1 | 2 | 3 |\n", "line 3: 3 cells under a header of 2"),
        ("| a | b |\n|---|---|\n| 1 | two\nwords | | 3 | 4 |\n", "line 3: a table row without an end"),
        ("words | | 3 | 4 |\n", "line 1: a table row in running text"),
        ("```\na | | b\n```\n\n    a | | b\n", None),
        ("word " * 25, "line 1: 125 columns"),
        (f"[{'word ' * 10}]({'path/' * 30})\n", None),
    ],
)
def test_a_fault_is_found(text: str, fault: str | None) -> None:
    assert faults_of(text)[:1] == ([] if fault is None else [fault])
