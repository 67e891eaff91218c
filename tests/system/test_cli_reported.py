"""With --json a command that fails says so on stdout as well, whatever it has failed of."""

import json
from pathlib import Path

import pytest

from tests.support.cli_process import complaint, nettool_here
from toolkit.cli.options import reported
from toolkit.errors import NettoolError, PeerClosedError, RefusedError, TransferError


@reported
def failing(error: Exception, **_options: bool) -> None:
    """Whatever `error` is."""
    raise error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (RefusedError("not today"), 3, "not today"),
        (KeyError("surprise"), 4, "unexpected KeyError"),
        (BrokenPipeError(32, "Broken pipe"), 4, "closed early"),
    ],
)
def test_what_went_wrong_is_an_object_with_the_exit_code(
    error: Exception, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NettoolError, match=says) as raised:
        failing(error, json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["error"], told["exit_code"]) == ("error", str(raised.value), code)
    assert raised.value.exit_code == code


def test_without_json_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TransferError, match="unexpected KeyError"):
        failing(KeyError("surprise"))
    assert capsys.readouterr().out == ""


def test_an_error_of_the_family_passes_as_it_is() -> None:
    error = PeerClosedError("gone")
    with pytest.raises(PeerClosedError) as raised:
        failing(error)
    assert raised.value is error


@pytest.mark.parametrize("target", ["a b" * 200, "x" * 5000 + "/"])
def test_a_target_longer_than_any_name_is_wrong_usage(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = nettool_here("tcp-send", "--json", "file", target, cwd=tmp_path)
    assert ended.code == ended.object["exit_code"] == 2
    assert complaint(ended) == f"nettool: {ended.object['error']}"


@pytest.mark.parametrize("error", [KeyError("surprise"), RefusedError("not today")])
def test_where_it_happened_is_told_once_to_those_who_ask(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETTOOL_TRACEBACK", "1")
    monkeypatch.setattr("toolkit.cli.app.invoke", lambda _arguments: failing(error, json=True))
    ended = nettool_here("anything")
    assert ended.code == ended.object["exit_code"]
    assert ended.stderr.count("in failing") == 1
