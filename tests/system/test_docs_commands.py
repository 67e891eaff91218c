"""The commands in README.md and docs/ are valid, and those that need no other machine and little time run.

A command counts if it starts a line of a code block. tests/system/test_readme.py runs the README's own examples.
"""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from tests.support.cli_process import nettool_here
from tests.support.report_samples import one_path, save
from toolkit.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
IPERF3_RUN = {
    "start": {"test_start": {"protocol": "TCP", "num_streams": 1}},
    "end": {"sum_sent": {"seconds": 1.0, "bytes": 10**9}, "sum_received": {"seconds": 1.0, "bytes": 10**9}},
}


def commands_in(page: Path) -> list[str]:
    """The commands that start a line of a code block, without the remark behind them."""
    text = re.sub(r"\s*\\\n\s*", " ", page.read_text("utf-8"))
    lines = [
        line
        for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in block.split("\n")
    ]
    lines += re.findall(r"^ {4}(nettool .*)$", text, re.MULTILINE)
    found = [re.split(r"\s{2,}|\s#", line)[0] for line in lines if line.startswith("nettool ")]
    return list(dict.fromkeys(found))


DOCUMENTED = [pytest.param(command, id=f"{page.name}: {command}") for page in PAGES for command in commands_in(page)]


def name_and_arguments(command: str) -> tuple[str, list[str]]:
    _, *words = shlex.split(command)
    length = next(length for length in (2, 1) if " ".join(words[:length]) in COMMANDS)
    return " ".join(words[:length]), words[length:]


def test_the_documents_have_commands() -> None:
    assert len(DOCUMENTED) > 20


@pytest.mark.parametrize("command", DOCUMENTED)
def test_documented_options_and_arguments_are_valid(command: str) -> None:
    name, arguments = name_and_arguments(command)
    module, _, function = COMMANDS[name][0].partition(":")
    app = typer.Typer()
    app.command(name)(getattr(import_module(module), function))
    get_command(app).make_context(name, arguments)


@pytest.mark.parametrize("command", [param for param in DOCUMENTED if "nettool bench" in str(param.values[0])])
def test_documented_campaigns_have_a_plan(command: str) -> None:
    name, arguments = name_and_arguments(command)
    ended = nettool_here(*name.split(), *arguments, *([] if "--dry-run" in arguments else ["--dry-run"]), cwd=ROOT)
    assert ended.code == 0, ended
    assert "trials in " in ended.stdout


@pytest.mark.parametrize("command", commands_in(ROOT / "docs" / "report.md"))
def test_documented_reports_are_made(command: str, tmp_path: Path) -> None:
    if "--pictures" in command:
        pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'nettool[report]'")
    (tmp_path / "results").mkdir()
    save(one_path(), tmp_path / "results" / "link.jsonl")
    (tmp_path / "iperf3.json").write_text(json.dumps(IPERF3_RUN))
    _, arguments = name_and_arguments(command.replace("results/*.jsonl", "results/link.jsonl"))
    ended = nettool_here("report", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended
