"""The help texts: complete, readable in 80 columns, and quick to print because heavy modules are loaded later."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli_process import NETTOOL, complaint, nettool_here
from toolkit import __version__
from toolkit.cli.app import COMMANDS, GROUPS

HEAVY = (
    "numpy",
    "rich",
    "tabulate",
    "xxhash",
    "blake3",
    "pyroute2",
    "toolkit.transfer",
    "toolkit.rudp.connection",
)
COLUMNS = 80
PREPOSITION = re.compile(
    r"(about|above|across|after|against|along|among|as|at|before|behind|below|beside|between|beyond|by|during|except|for|"
    r"from|in|inside|into|like|near|of|off|on|onto|out|over|per|since|than|through|to|toward|under|until|up|upon|via|with|"
    r"within|without)\b",
    re.IGNORECASE,
)


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", *NETTOOL[1:], "--help"], capture_output=True, text=True, check=True
    )
    for path in COMMANDS:
        assert path.split()[0] in ended.stdout
    assert "130 interrupted" in ended.stdout
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("path", ["", *GROUPS, *COMMANDS])
def test_help_fits_80_columns_and_explains_every_option(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    ended = nettool_here(*path.split(), "--help")
    assert (ended.code, ended.stderr) == (0, "")
    assert [line for line in ended.stdout.splitlines() if len(line) > COLUMNS] == []
    rows = rows_of(ended.stdout)
    assert "-h, --help" in rows
    for name, text in rows.items():
        assert re.match(r"[A-Za-z]", text), f"{name} has no help text"
        assert not PREPOSITION.match(text), f"{name}: {text}"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_help_with_examples(path: str) -> None:
    shown = nettool_here(*path.split(), "--help").stdout
    examples = [line for line in shown.splitlines() if f"nettool {path} " in line + " "]
    assert len(examples) >= 2
    assert "--json" in shown


def test_without_arguments_nettool_prints_its_help() -> None:
    assert nettool_here().stdout == nettool_here("--help").stdout


def test_version() -> None:
    shown = subprocess.run([*NETTOOL, "--version"], capture_output=True, text=True, check=True).stdout
    assert shown == f"nettool {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tcp-sned"], "Did you mean 'tcp-send'"),
        (["\x1b[31m"], "No such command"),
        (["bench"], "Missing command"),
        (["bench", "loopbak"], "No such command"),
        (["--nonsense"], "--nonsense"),
        (["recv", "--port", "many"], "nettool recv --help"),
        (["recv", "incoming"], "name the directory for received files with --dir"),
        (["send", "film", "far", "--port", "9001"], "the port follows its host after a colon"),
        (["ping", "-p", "9001", "far"], "the port follows its host after a colon"),
    ],
)
def test_wrong_usage_points_to_the_help(arguments: list[str], message: str) -> None:
    ended = nettool_here(*arguments)
    assert ended.code == 2
    assert message in complaint(ended)


def test_a_name_that_looks_like_options_gets_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "No such option" in complaint(nettool_here("send", "-odd", "far"))
    (tmp_path / "-odd").touch()
    assert complaint(nettool_here("send", "-odd", "far")).startswith("nettool: -odd is taken for options: write ./-odd")


def rows_of(text: str) -> dict[str, str]:
    """Parse the tables of a help text: option, argument or command -> its text, joined to one line."""
    rows: dict[str, str] = {}
    table = re.split(r"^\S.*:$", text.partition("Usage:")[2], flags=re.MULTILINE)[1:]
    for line in "\n".join(table).splitlines():
        if row := re.match(r"  (\S(?:.*?\S)?)(?:\s{2,}(\S.*))?$", line):
            name = row[1]
            rows[name] = row[2] or ""
        elif line.strip():
            rows[name] = f"{rows[name]} {line.strip()}".strip()
    return rows
