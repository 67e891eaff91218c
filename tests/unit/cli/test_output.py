"""Results on a standard output that cannot be written."""

import errno
import io
import os
from pathlib import Path

import pytest

from toolkit.cli.output import print_result
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
