"""The two output streams of every command, and how an error is worded.

Results go to stdout and everything else goes to stderr. With `--json`, stdout therefore holds JSON objects only.
"""

import errno
import json
import os
import select
import shutil
import stat
import sys
import textwrap
import traceback
from collections.abc import Mapping
from typing import Any

from toolkit import __version__
from toolkit.cli.option_names import with_options
from toolkit.errors import NettoolError, TransferError, printable

JSON_SCHEMA = 1
_USUAL_COLUMNS = 80
_STDOUT = 1


def print_status(line: str) -> None:
    """Write one line for the user to stderr and flush it. If stderr cannot be written, the line is lost silently.

    Options take the place of the parameters that it names.
    """
    line = with_options(line)
    _write_status(
        "\n".join(in_columns(each, stderr_columns()) for each in line.split("\n")) if stderr_is_terminal() else line
    )


def _write_status(text: str) -> None:
    if sys.stderr is None:  # the parent closed it; print() would fall back to stdout
        return
    try:
        sys.stderr.write(text + "\n")  # one write, because sessions print from their own threads
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = None


def in_columns(line: str, columns: int) -> str:
    """Return a sentence in lines that fit a terminal; a command, which is indented, and a table stay as they are."""
    if len(line) <= columns or line.startswith(" "):
        return line
    wrapped = textwrap.wrap(line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrapped)


def stderr_columns() -> int:
    """Return the width of the terminal that stderr is, or 80.

    `shutil.get_terminal_size` would ask stdout, which may be a pipe.
    """
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    except (OSError, ValueError, AttributeError):  # not a terminal; without a descriptor; closed by the parent
        return _USUAL_COLUMNS


def print_warning(line: str) -> None:
    """Write one line for the user to stderr, in red on a terminal that shows colours."""
    if not stderr_is_terminal():
        print_status(line)
        return
    from rich.console import Console  # takes a tenth of a second, and warnings are rare

    console = Console(file=sys.stderr, highlight=False)
    with console.capture() as capture:
        console.print(in_columns(line, stderr_columns()), style="bold red", markup=False, soft_wrap=True, end="")
    _write_status(capture.get())


def print_result(text: str) -> None:
    """Write a result to stdout. Ignores a reader or terminal that has gone. Raises TransferError for a full disk."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None
    except OSError as error:
        is_terminal = stat.S_ISCHR(os.fstat(sys.stdout.fileno()).st_mode)  # isatty() is false after a hangup
        sys.stdout = None
        if not (is_terminal and error.errno == errno.EIO):
            raise stdout_error(error) from None


def print_sentences(text: str) -> None:
    """Write lines of prose as a result: on a terminal, they break between words. Raises as print_result does."""
    columns = result_width(sys.maxsize)
    print_result("\n".join(in_columns(line, columns) for line in text.split("\n")))


def has_reader_gone() -> bool:
    """Return whether standard output is a pipe or socket that nobody reads any more, as behind `| head -1`.

    For a command that may have nothing to print for a long time: `print_result` notices only when it writes.
    """
    poll = select.poll()
    poll.register(_STDOUT, 0)  # errors and hang-ups are reported without being asked for
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def stdout_error(error: OSError) -> TransferError:
    """Return the error for a standard output that cannot be written."""
    remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "redirect it to a file"
    return TransferError(f"cannot write to standard output: {error.strerror}; {remedy}")


def print_json(kind: str, fields: Mapping[str, Any]) -> None:
    """Write one JSON object, on one line, with its kind, schema and version (docs/data-format.md)."""
    print_result(json.dumps({"schema": JSON_SCHEMA, "kind": kind, "version": __version__, **fields}, allow_nan=False))


def result_width(most: int) -> int:
    """Return how wide a result may be: the width of the terminal that shows it, and at most `most` columns."""
    if sys.stdout is None or not sys.stdout.isatty():
        return most
    return min(most, shutil.get_terminal_size((most, 24)).columns)


def stderr_is_terminal() -> bool:
    """Return whether anybody can see a progress bar."""
    return sys.stderr is not None and sys.stderr.isatty()


def as_nettool_error(error: Exception) -> NettoolError:
    """Return `error` itself if it is a NettoolError, otherwise a TransferError that describes it in one line."""
    if isinstance(error, NettoolError):
        return error
    if isinstance(error, BrokenPipeError):  # not from stdout: `print_result` handles that one
        return TransferError("a connection or pipe closed early; run the command again")
    return TransferError(
        f"unexpected {type(error).__name__}: {printable(str(error))} "
        "(please report this with the traceback that NETTOOL_TRACEBACK=1 prints)"
    )


def print_traceback_if_requested(error: Exception) -> None:
    """Print the traceback of `error` to stderr if NETTOOL_TRACEBACK is set."""
    if os.environ.get("NETTOOL_TRACEBACK") and sys.stderr is not None:
        traceback.print_exception(error)
