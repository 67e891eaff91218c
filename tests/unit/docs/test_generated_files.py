"""The documents that are generated as a whole match the code."""

import re
from pathlib import Path

import pytest

from docs import generate
from docs.command_pages import manual_page
from toolkit.cli.app import COMMANDS
from toolkit.errors import ExitCode


@pytest.mark.parametrize("path", generate.whole_files(), ids=lambda path: path.name)
def test_documents_are_up_to_date(path: Path) -> None:
    """If this fails, run `python docs/generate.py`."""
    assert path.read_text("utf-8") == generate.whole_files()[path]


def test_the_manual_page_has_every_command_and_every_exit_code() -> None:
    lines = manual_page().splitlines()
    assert [line for line in lines if line.startswith(".SS nettool ") and "COMMAND" not in line] == [
        f".SS nettool {path}" for path in COMMANDS
    ]
    _, _, status = manual_page().partition(".SH EXIT STATUS\n")
    assert [f".B {code.value}" in status.splitlines() for code in ExitCode] == [True] * len(ExitCode)


def test_the_manual_page_has_no_line_that_roff_would_take_for_a_request() -> None:
    known = (".TH", ".SH", ".SS", ".PP", ".TP", ".B ", ".I ", ".nf", ".fi", ".ad", ".nh")
    assert [line for line in manual_page().splitlines() if line.startswith((".", "'")) and line[:3] not in known] == []


def test_the_site_lists_every_document() -> None:
    folder = Path(generate.__file__).parent
    listed = set(re.findall(r"docs/([\w.-]+)", (folder / "site" / "contents.txt").read_text("utf-8")))
    assert {path.stem for path in folder.glob("*.md")} == listed
