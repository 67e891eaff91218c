"""A command that fails reports it in one line on stderr and, with --json, as an object on stdout."""

from pathlib import Path

import pytest

from tests.support.cli_process import complaint, nettool_here
from toolkit.cli.command import command
from toolkit.errors import RefusedError


@command
def failing(error: Exception, **_options: bool) -> None:
    """Raise `error`."""
    raise error


@pytest.mark.parametrize("target", ["a b" * 200, "x" * 5000 + "/"])
def test_a_target_longer_than_any_name_is_wrong_usage(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = nettool_here("tcp-send", "--json", "file", target, cwd=tmp_path)
    assert ended.code == ended.object["exit_code"] == 2
    assert complaint(ended) == f"nettool: {ended.object['error']}"


@pytest.mark.parametrize("error", [KeyError("surprise"), RefusedError("not today")])
def test_the_traceback_is_printed_once_on_request(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETTOOL_TRACEBACK", "1")
    monkeypatch.setattr("toolkit.cli.app.invoke", lambda _arguments: failing(error=error, json=True))
    ended = nettool_here("anything")
    assert ended.code == ended.object["exit_code"]
    assert ended.stderr.count("in failing") == 1
