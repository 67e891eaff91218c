"""The examples of docs/api.md and of the docstrings run, and the page names what programs can import."""

import asyncio
import doctest
import re
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import toolkit
from toolkit.comparison.plan import Plan
from toolkit.errors import TransferError

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRELUDE, *SECTIONS = PAGE.split("\n## ")


def examples_of(text: str) -> str:
    """What stands in the fences of a part of the page."""
    return "\n".join(match[1] for match in FENCE.finditer(text) if ">>>" in match[1])


def docstring_examples() -> dict[str, doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = {"asyncio": asyncio, "toolkit": toolkit, "threading": threading}
    found = [
        example
        for module in ("toolkit.api.sending", "toolkit.api.receiving", "toolkit.api.comparing")
        for example in finder.find(import_module(module), extraglobs=names)
    ]
    found += finder.find(toolkit.aio.Receiver, "toolkit.aio.Receiver", extraglobs=names)
    return {example.name: example for example in found if example.examples}


def page_examples() -> dict[str, doctest.DocTest]:
    """The examples of each section, each after those that the page begins with."""
    parser = doctest.DocTestParser()
    sections = {section.partition("\n")[0]: examples_of(section) for section in SECTIONS}
    return {
        title: parser.get_doctest(f"{examples_of(PRELUDE)}\n{text}", {}, title, "docs/api.md", 0)
        for title, text in sections.items()
        if text
    }


EXAMPLES = {**docstring_examples(), **page_examples()}
CAMPAIGNS = ("Comparing", "toolkit.api.comparing.compare")
"""Examples that measure: some twenty processes each."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in CAMPAIGNS else ()) for name in EXAMPLES]
)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report: list[str] = []
    outcome = doctest.DocTestRunner().run(EXAMPLES[name], out=report.append)
    assert outcome.attempted > 0
    assert outcome.failed == 0, "".join(report)


@pytest.mark.long  # it measures
def test_the_three_functions_take_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    script = next(match[1] for match in FENCE.finditer(PAGE) if ">>>" not in match[1])
    assert len([line for line in script.splitlines() if line]) <= 10
    names: dict[str, Any] = {}
    exec(compile(script, "docs/api.md", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.startswith("1 {'notes.txt': b'hello'}\n")
    assert re.search(r"^ +udp-\w+ .* no claim$", printed, re.MULTILINE)


def test_the_example_in_the_readme_runs_up_to_its_campaign(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_plan(plan: Plan, *_: object) -> None:
        raise TransferError(f"planned {len(plan.paths)} paths")

    monkeypatch.setattr("toolkit.api.comparing.run", only_plan)
    script = next(FENCE.finditer((ROOT / "README.md").read_text("utf-8")))[1]
    with pytest.raises(TransferError, match="planned 2 paths"):
        exec(compile(script, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("{'notes.txt': b'hello'} udp ")


def test_the_example_in_the_korean_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    script = next(FENCE.finditer((ROOT / "README.ko.md").read_text("utf-8")))[1]
    exec(compile(script, "README.ko.md", "exec"), {})
    assert capsys.readouterr().out == "안녕\n"


def test_the_page_names_what_programs_can_import() -> None:
    _, _, table = PAGE.partition("## Stable names")
    named = set(re.findall(r"`toolkit\.(\w+)`", table))
    assert named == set(toolkit.__all__)
    assert all(getattr(toolkit, name) is not None for name in named)


def test_every_event_is_described() -> None:
    kinds = {kind.__name__ for kind in toolkit.events.Event.__args__}
    assert kinds <= set(re.findall(r"`(\w+)`", PAGE))


def test_importing_the_package_imports_nothing_else() -> None:
    script = "import sys, toolkit; print([name for name in sys.modules if name.startswith('toolkit.')])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_a_name_is_the_same_whatever_was_imported_before() -> None:
    script = "import toolkit.comparison.summary, toolkit.aio; from toolkit import compare; print(compare.__module__)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "toolkit.api.comparing\n"


def test_an_unknown_name_is_an_error_of_its_own() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = toolkit.nothing
