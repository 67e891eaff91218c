"""Results on a standard output that cannot be written."""

import errno
import io
import os
from pathlib import Path

import pytest

from toolkit.cli.output import print_result, print_sentences, print_status, print_warning
from toolkit.errors import TransferError


class Unwritable(io.StringIO):
    """A stream over a real descriptor, each write to which fails."""

    def __init__(self, descriptor: int, number: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._number = number

    def fileno(self) -> int:
        return self._descriptor

    def write(self, _text: str) -> int:
        raise OSError(self._number, os.strerror(self._number))


def test_a_terminal_that_has_gone_fails_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    os.close(master)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Unwritable(slave, errno.EIO))
        print_result("sent 1 file")
    os.close(slave)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EIO, "redirect it to a file"), (errno.EBADF, "redirect it to a file")],
)
def test_a_file_that_cannot_be_written_is_an_error(
    number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("wb") as file, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Unwritable(file.fileno(), number))
        with pytest.raises(TransferError, match=f"; {remedy}$"):
            print_result("sent 1 file")


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_at_a_terminal_a_sentence_breaks_between_words_and_a_command_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "30")
    print_status("nettool: this sentence is longer than the terminal\n  nettool tcp-send a-long-name.mkv host.example")
    assert screen.getvalue().splitlines() == [
        "nettool: this sentence is",
        "  longer than the terminal",
        "  nettool tcp-send a-long-name.mkv host.example",
    ]


def test_a_result_in_prose_breaks_between_words_at_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "found incoming/.nettool-0123.part, 1.234 GiB, unchanged for 25.6 h"
    monkeypatch.setenv("COLUMNS", "40")
    for kind in (Screen, io.StringIO):
        stream = kind()
        monkeypatch.setattr("sys.stdout", stream)
        print_sentences(f"{line}\n  {line}")
        broken = "found incoming/.nettool-0123.part, 1.234\n  GiB, unchanged for 25.6 h" if kind is Screen else line
        assert stream.getvalue() == f"{broken}\n  {line}\n"


@pytest.mark.parametrize("environment", [{"TERM": "xterm-256color"}, {"NO_COLOR": "1"}])
def test_a_warning_breaks_where_its_words_end_whatever_its_colour(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"COLUMNS": "30", **environment}.items():
        monkeypatch.setenv(name, value)
    print_warning("warning: thirty columns' worth")
    shown = screen.getvalue()
    assert "warning: thirty columns' worth" in shown
    assert ("\x1b[1;31m" in shown) == ("NO_COLOR" not in environment)


def test_elsewhere_a_message_stays_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    print_status("word " * 100)
    assert stream.getvalue().count("\n") == 1
