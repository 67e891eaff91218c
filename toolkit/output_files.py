"""Output files that an option names: nettool replaces only what it wrote itself.

A name given to the wrong option must not cost a user a file: `--qlog a.mkv b.mkv HOST`, or `--html *.jsonl` with the
name of the page forgotten. A file that exists is therefore replaced only if it is empty, or if its beginning shows that
nettool wrote it: each kind of output has a mark that is within its first HEAD_BYTES. Devices and pipes are written to.
"""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import UsageError, printable

HEAD_BYTES = 1024

_FLAGS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # without O_NONBLOCK, opening a FIFO waits for its reader


def check_output(path: Path, option: str, mark: bytes, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Check before a command begins that `path` may be written, as far as can be seen without changing anything.

    option: the option that names it, for the message
    mark:   bytes within the first HEAD_BYTES of every file of this kind that nettool writes
    inputs: files that the command reads; `path` may be none of them, even if nettool wrote it

    Raises UsageError.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # it does not exist yet, or opening it will say what is wrong
        return
    for other in inputs:
        try:
            is_same = os.path.samestat(status, os.stat(other))
        except (OSError, ValueError):
            continue
        if is_same:
            raise UsageError(f"{option} {_shown(path)} would overwrite a file that this command reads: {_ADVICE}")
    _check_kind(path, option, status)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        try:
            with path.open("rb") as file:
                _check_head(path, option, mark, file.read(HEAD_BYTES))
        except OSError as error:
            raise _cannot_write(path, option, error) from None


def open_output(path: Path, option: str, mark: bytes) -> BinaryIO:
    """Open `path` for writing from its beginning, and create it if it does not exist.

    The arguments are those of `check_output`. Raises UsageError if it cannot be opened, is a FIFO without a reader, or
    is a file that nettool did not write.
    """
    try:
        descriptor = os.open(path, (os.O_WRONLY if _is_special(path) else os.O_RDWR | os.O_CREAT) | _FLAGS, 0o666)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, option, error) from None
    try:
        status = os.fstat(descriptor)
        _check_kind(path, option, status)
        if stat.S_ISREG(status.st_mode):
            if status.st_size:
                _check_head(path, option, mark, os.pread(descriptor, HEAD_BYTES, 0))
            os.ftruncate(descriptor, 0)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "wb")
    except OSError as error:
        os.close(descriptor)
        raise _cannot_write(path, option, error) from None
    except BaseException:
        os.close(descriptor)
        raise


_ADVICE = "name another file"


def _is_special(path: Path) -> bool:
    """Whether it is a FIFO or a device: open for reading too, a FIFO would never report its missing reader."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _check_kind(path: Path, option: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode) or stat.S_ISBLK(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no file"
        raise UsageError(f"{option} {_shown(path)} is {kind}: {_ADVICE}")


def _check_head(path: Path, option: str, mark: bytes, head: bytes) -> None:
    if mark not in head:
        raise UsageError(
            f"{option} {_shown(path)} exists and nettool did not write it, so it is not replaced: {_ADVICE}"
        )


def _cannot_write(path: Path, option: str, error: Exception) -> UsageError:
    if isinstance(error, OSError) and error.errno == errno.ENXIO:  # open(2) of a FIFO
        return UsageError(f"{option} {_shown(path)}: no program reads from it; start that program first")
    reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "not a valid file name"
    return UsageError(f"cannot write {_shown(path)}: {reason}; choose another file with {option}")


def _shown(path: Path) -> str:
    return printable(os.fspath(path), 80)
