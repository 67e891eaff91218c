"""A command that fails reports it in one line on stderr and, with --json, as an object on stdout."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cli_process import NETTOOL, complaint, nettool, nettool_here, receiver
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


@pytest.mark.parametrize("command", [["--help"], ["recv", "--help"], ["sim", "--list"]])
def test_a_full_standard_output_is_reported_as_such(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([*NETTOOL, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (
        4,
        "nettool: cannot write to standard output: No space left on device; free some space\n",
    )


def test_a_full_disk_ends_a_simulation_that_writes_a_trace() -> None:
    ended = nettool_here("sim", "--size", "64KiB", "--trace", "/dev/full")
    assert (ended.code, ended.stdout) == (4, "")
    assert complaint(ended) == "nettool: cannot write /dev/full: No space left on device; choose another file"


def test_a_closed_standard_input_is_no_file_to_send_and_no_socket(tmp_path: Path) -> None:
    """Descriptor 0 would otherwise be the first socket, whose datagrams would be read as standard input."""
    target = ("--connect-timeout", "1s", "127.0.0.1:9")
    closed = nettool("udp-send", "-", *target, before=lambda: os.close(0))
    assert (closed.code, "standard input, which is closed" in complaint(closed)) == (2, True)
    (tmp_path / "received").mkdir()
    with receiver(tmp_path / "received", "--once", before=lambda: os.close(0)) as receiving:
        assert os.readlink(f"/proc/{receiving.process.pid}/fd/0") == os.devnull


@pytest.mark.parametrize("error", [KeyError("surprise"), RefusedError("not today")])
def test_the_traceback_is_printed_once_on_request(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETTOOL_TRACEBACK", "1")
    monkeypatch.setattr("toolkit.cli.app.invoke", lambda _arguments: failing(error=error, json=True))
    ended = nettool_here("anything")
    assert ended.code == ended.object["exit_code"]
    assert ended.stderr.count("in failing") == 1


def test_clean_lists_and_removes_what_a_killed_receiver_left(tmp_path: Path) -> None:
    left = tmp_path / "incoming" / "d" / ".nettool-0123456789abcdef.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"hel")
    nothing_old = "no unfinished files older than 24h; --older-than 0s names newer ones too\n"
    assert nettool_here("clean", "incoming", cwd=tmp_path).stdout == nothing_old
    listed = nettool_here("clean", "--dry-run", "--older-than", "0s", "incoming", cwd=tmp_path)
    assert listed.stdout.startswith(f"found {left.relative_to(tmp_path)}, 3 B, unchanged for ")
    removed = nettool_here("clean", "--json", "--older-than", "0s", "incoming", cwd=tmp_path).object
    assert (removed["kind"], removed["removed"], len(removed["files"])) == ("leftovers", True, 1)
    assert not left.exists()
    nothing = nettool_here("clean", "--older-than", "0s", "incoming", cwd=tmp_path)
    assert nothing.stdout == "no unfinished files\n"
    assert nettool_here("clean", "missing", cwd=tmp_path).code == 2
