"""The `command` decorator: option groups become options, and failures are reported in one way."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from toolkit.cli.command import GroupDisplay, command, number, option
from toolkit.cli.help import SectionedCommand
from toolkit.cli.options import Json
from toolkit.errors import NettoolError, PeerClosedError, RefusedError, TransferError


@dataclass(frozen=True, slots=True)
class SharedArguments:
    """Three options, the first of them required."""

    PANEL: ClassVar[str] = "Shared"

    directory: Annotated[Path, option("--dir", metavar="DIR", text="Directory to write to.")]
    rate: Annotated[str | None, option("--rate", metavar="RATE", text="Rate to send at.")] = None
    json: Json = False


@command
def example(
    *,
    speed: Annotated[int, number("--speed", low=1, high=9, text="Speed of the example.")] = 3,
    shared: Annotated[SharedArguments, GroupDisplay(lists=frozenset({"rate"}), defaults={"rate": "1Mbit"})],
) -> None:
    """Print the arguments."""
    typer.echo(f"{speed} {shared}")


@command
def failing(error: Exception, **_options: bool) -> None:
    """Raise `error`."""
    raise error


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=SectionedCommand)(example)
    return app


def test_each_field_of_a_group_is_an_option(app: typer.Typer) -> None:
    ended = CliRunner().invoke(app, ["--dir", "here", "--json"])
    assert ended.stdout == f"3 {SharedArguments(Path('here'), None, True)}\n"


def test_an_error_names_the_option(app: typer.Typer) -> None:
    assert "--dir" in CliRunner().invoke(app, []).output
    assert "--speed" in CliRunner().invoke(app, ["--dir", "x", "--speed", "0"]).output


@pytest.mark.parametrize("value", ["0", "10"])
def test_a_number_has_limits(app: typer.Typer, value: str) -> None:
    ended = CliRunner().invoke(app, ["--dir", "x", "--speed", value])
    assert ended.exit_code == 2
    assert f"'--speed': {value} is out of range: use 1 to 9" in ended.output


def test_help_shows_options_in_order_under_the_heading_of_their_group(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert "Print the arguments." in shown
    places = [shown.index(word) for word in ("Options:", "--speed", "Shared:", "--dir", "General:", "--json", "--help")]
    assert places == sorted(places)


def test_help_shows_how_this_command_uses_the_group(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert "--rate RATE[,...]" in shown
    assert "Rate to send at.  [default: 1Mbit]" in shown


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RefusedError("not today"), 3, "not today"),
        (KeyError("surprise"), 4, "unexpected KeyError"),
        (BrokenPipeError(32, "Broken pipe"), 4, "closed early"),
    ],
)
def test_with_json_a_failure_prints_an_object_with_the_exit_code(
    error: Exception, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NettoolError, match=message) as raised:
        failing(error=error, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert (printed["kind"], printed["error"], printed["exit_code"]) == ("error", str(raised.value), code)
    assert raised.value.exit_code == code


def test_without_json_a_failure_prints_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TransferError, match="unexpected KeyError"):
        failing(error=KeyError("surprise"))
    assert capsys.readouterr().out == ""


def test_a_nettool_error_passes_unchanged() -> None:
    error = PeerClosedError("gone")
    with pytest.raises(PeerClosedError) as raised:
        failing(error=error)
    assert raised.value is error
