"""Errors name parameters as programs write them, and the command line shows its options in their place."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import toolkit
from toolkit.cli.main import run
from toolkit.cli.option_names import OPTIONS, with_options
from toolkit.errors import ExitCode, UsageError
from toolkit.netmodel.notation import LinkText
from toolkit.transfer.selection import Selection

ROOT = Path(__file__).parents[3]
PACKAGES = ("api", "channel.py", "comparison", "emulator", "netmodel", "rudp", "security", "transfer", "transports")
"""What `send`, `receive` and `compare` raise errors from."""
COMMANDS_ONLY = ("comparison/diff.py", "comparison/merge.py", "emulator/interfaces.py", "emulator/run.py")
"""What only commands call."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
IN_COMMANDS = ("nettool ", "--device /dev/net/tun", "--bind 0.0.0.0")
"""What is in a command that the user may have to type, here or at the peer."""
NO_ERRORS = ("--at", "--code", "--code=", "--code=...", "a veth pair, nothing emulated; --rate adds a bottleneck")


def test_a_parameter_becomes_an_option_and_other_backticks_stay() -> None:
    text = "choose fewer with `streams`, or start `nettool recv` there (its `max_streams`)"
    assert with_options(text) == "choose fewer with --streams, or start `nettool recv` there (its --max-streams)"


def test_every_option_exists() -> None:
    commands = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert [option for option in OPTIONS.values() if not re.search(rf"{option}\b", commands)] == []


def test_every_parameter_exists() -> None:
    kinds = (toolkit.TransportOptions, toolkit.SessionLimits, toolkit.ReceiveOptions, toolkit.SendOptions)
    named = {field.name for kind in (*kinds, toolkit.Scenario, LinkText, Selection) for field in fields(kind)}
    for function in (toolkit.send, toolkit.receive, toolkit.compare, toolkit.Receiver):
        named |= set(inspect.signature(function).parameters)
    assert set(OPTIONS) - named == {"exclude"}  # toolkit.transfer.selection.exclude


def test_the_api_names_the_parameter_and_the_command_line_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UsageError, match=r"choose from 1 to \d+ with `streams`$"):
        toolkit.send(tmp_path / "a", "127.0.0.1:9", transport="tcp", connection=toolkit.TransportOptions(streams=100))
    with pytest.raises(UsageError, match=r"^`repeats` fixes .* and `budget` lets"):
        toolkit.compare(repeats=1, budget="1min")
    assert run(["bench", "loopback", "--repeat", "1", "--budget", "1min"]) == ExitCode.USAGE
    assert "--repeat fixes the number of blocks, and --budget lets" in capsys.readouterr().err


def test_a_refusal_of_a_peer_has_the_name_of_each_end() -> None:
    options = toolkit.ReceiveOptions(limits=toolkit.SessionLimits(max_bytes=1))
    refused = pytest.raises(toolkit.errors.RefusedError, match=r"\(its `max_bytes`\)")
    with toolkit.Receiver({}, port=0, options=options) as receiver, refused as caught:
        toolkit.send({"a": b"large"}, receiver.address)
    assert "(its --max-bytes)" in with_options(str(caught.value))


def texts(path: Path) -> Iterator[str]:
    """The strings of a module that are no docstrings."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Expr):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.Constant) and isinstance(child.value, str):
                    yield child.value


@pytest.mark.parametrize("package", PACKAGES)
def test_no_error_that_a_program_gets_names_an_option(package: str) -> None:
    place = ROOT / "toolkit" / package
    found = {}
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        name = path.relative_to(ROOT / "toolkit").as_posix()
        named = [text for text in texts(path) if OPTION.search(text) and text not in NO_ERRORS]
        named = [text for text in named if not any(command in text for command in IN_COMMANDS)]
        if named and name not in COMMANDS_ONLY:
            found[name] = named
    assert found == {}
