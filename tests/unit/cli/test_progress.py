"""Progress bars on a terminal that goes away."""

import errno
import io

import pytest

from toolkit.cli.progress import progress_bars
from toolkit.transfer import Progress


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
