"""Progress bars: what they say, and on a terminal that goes away."""

import errno
import io
import re
import threading

import pytest

from tests.support.background import PATIENCE_S
from toolkit.cli.progress import progress_bars, status_of
from toolkit.transfer import Progress
from toolkit.units import format_size


class GoneTerminal(io.StringIO):
    """A terminal whose window was closed: every write fails."""

    def isatty(self) -> bool:
        return True

    def write(self, _text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def flush(self) -> None:
        raise OSError(errno.EIO, "Input/output error")


def test_a_transfer_goes_on_without_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", GoneTerminal())
    with progress_bars(quiet=False) as bars, bars.bar("film") as progress:
        assert progress is not None
        progress(Progress("film", 0, 10, 1, 20))


def test_says_why_nothing_arrives() -> None:
    assert status_of(500, 1000, 12_500, silent_s=0.1, is_idle=False) == "100 kbit/s"
    assert status_of(500, 1000, 12_500, silent_s=8.3, is_idle=False) == "stalled 8 s"
    assert status_of(500, None, 12_500, silent_s=8.3, is_idle=True) == "waiting for input"
    assert status_of(1000, 1000, 12_500, silent_s=8.3, is_idle=True) == "verifying"
    assert status_of(0, None, None, silent_s=0.1, is_idle=False) == ""


class Screen(io.StringIO):
    """A terminal that takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self._written = threading.Condition()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._written:
            self._written.notify_all()
            return super().write(text)

    def wait_for(self, text: str) -> None:
        """Wait until the screen has shown this."""
        with self._written:
            assert self._written.wait_for(lambda: text in self.getvalue(), PATIENCE_S)


def shown(monkeypatch: pytest.MonkeyPatch, now: Progress) -> list[str]:
    """The lines that a terminal of 80 columns shows for this progress."""
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "80"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    with progress_bars(quiet=False) as bars, bars.bar("photos") as progress:
        assert progress is not None
        progress(now)
        screen.wait_for(format_size(now.size_bytes).split()[1])  # before, it shows 0 B
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).splitlines()]


def test_shows_the_current_file_and_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, Progress("photos/IMG_1.jpg", 2, 5 << 20, 40, 20 << 20, 1 << 19, 2 << 20))
    assert "photos/IMG_1.jpg, 512 KiB of 2 MiB (2 of 40 files done)" in lines
    assert any("25%" in line and "5 of 20 MiB" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_a_long_name_loses_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a very long folder name/with another one in it/the-end.jpg"
    lines = shown(monkeypatch, Progress(name, 1023, 10 << 40, 10_230, 1023 << 40, 1023 << 30, 1 << 42))
    first = next(line for line in lines if line.startswith("a very"))
    assert "the-end.jpg" in first
    assert len(first) <= 80


def test_an_unknown_total_is_not_shown_as_a_full_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, Progress("stdin", 0, 5 << 20, None, None))
    assert not any("%" in line and "100" in line for line in lines)
    assert any("5 MiB" in line for line in lines)
