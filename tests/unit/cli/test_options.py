"""Options that commands share are a dataclass, and typer is shown its fields."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from toolkit.cli.options import Directory, Json, reported, spread


@dataclass(frozen=True, slots=True)
class Shared:
    """Two options, the one without a default."""

    directory: Directory
    json: Json = False


@reported
@spread
def command(*, speed: Annotated[int, typer.Option(min=1)] = 3, shared: Shared) -> None:
    """Say what was asked for."""
    typer.echo(f"{speed} {shared}")


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return app


def test_each_field_is_an_option(app: typer.Typer) -> None:
    ended = CliRunner().invoke(app, ["--dir", "here", "--json"])
    assert ended.stdout == f"3 {Shared(Path('here'), True)}\n"


def test_what_is_wrong_is_told_by_the_options_name(app: typer.Typer) -> None:
    assert "--dir" in CliRunner().invoke(app, []).output
    assert "--speed" in CliRunner().invoke(app, ["--dir", "x", "--speed", "0"]).output


def test_help_shows_them_in_their_order(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert "Say what was asked for." in shown
    places = [shown.index(option) for option in ("--speed", "--dir", "--json")]
    assert places == sorted(places)
