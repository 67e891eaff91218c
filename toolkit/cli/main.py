"""The entry point: from command-line arguments to an exit code.

The exit codes are `toolkit.errors.ExitCode`; each error class carries its own. An error is one line on stderr. The
first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt in the main thread, and the code that unwinds cleans up.
Further signals do nothing, so that they cannot interrupt the cleanup; but see `interrupts`, which ends a cleanup that
takes long.

This module imports almost nothing: signals are handled before the commands and their dependencies are loaded.
"""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from toolkit.cli.interrupts import SIGNALS
from toolkit.errors import ExitCode


def main() -> NoReturn:
    """Run the installed `nettool` command."""
    # Imports create tens of thousands of objects that live until the end. Scanning them for cycles again and again
    # would take as long as the imports themselves.
    gc.set_threshold(50_000, 20, 20)
    # nettool uses numpy for columns, never for matrices, so the threads of its BLAS library would only cost time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _fill_standard_descriptors()
    try:
        code = run(sys.argv[1:])
        _end_on_signals()
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` and return the exit code. Never raises an Exception."""
    try:
        _catch_signals()
        from toolkit.cli.app import invoke

        code = invoke(arguments)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception as error:
        code = _report(error)
    return code if _flushed() else code or ExitCode.FAILED


def _fill_standard_descriptors() -> None:
    """Open /dev/null in place of standard descriptors that are closed.

    Otherwise the next file or socket would get the number, and be read as standard input or written as an error. The
    modes are wrong on purpose (as glibc does for set-user-ID programs): using the descriptor is an error.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # gets the lowest free number, which is this one


def _catch_signals() -> None:
    """Handle the signals, except those that the parent set to be ignored (nohup, a background job of a script)."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Not SIG_IGN: Python prints an error for a signal that arrived just before it was set to be ignored.
    for number in SIGNALS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, _do_nothing)
    raise KeyboardInterrupt


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _end_on_signals() -> None:
    """Let a signal end the process from here on: nothing is left to clean up.

    The signals are blocked meanwhile, because Python prints an error for one that arrives just before its handler is
    replaced by the default.
    """
    handled = [number for number in SIGNALS if signal.getsignal(number) is _interrupt]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _report(error: Exception) -> int:
    from toolkit.cli.output import as_nettool_error, print_status, print_traceback_if_requested

    print_traceback_if_requested(error)
    failure = as_nettool_error(error)
    print_status(f"nettool: {failure}")
    return failure.exit_code


def _flushed() -> bool:
    """Return whether stdout accepted everything. A reader that has gone away does not count as a failure."""
    if sys.stdout is None:
        return True
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None  # otherwise the interpreter flushes again at exit, and prints an error
    except OSError:
        sys.stdout = None
        return False
    return True


if __name__ == "__main__":
    main()
