"""The entry point: from the shell's arguments to an exit code, whatever happens in between.

0 done; 2 usage; 3 refused or unreachable; 4 the transfer failed; 5 verification failed; 130 interrupted. An
error is one line on stderr. The first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt in the main thread,
and what unwinds from there leaves nothing behind; further ones are ignored, so that they cannot break the
clearing up.

Imported first and fast: the signals are in hand before the commands, and what they need, are loaded.
"""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
_FAILED = 4
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> NoReturn:
    """What the installed `nettool` calls."""
    # Loading makes objects by the ten thousand that live to the end: looking through them for cycles, over and over,
    # would cost as much as what they are loaded for.
    gc.set_threshold(50_000, 20, 20)
    # numpy works on columns here and never on matrices: the threads that its BLAS would start only cost.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        code = run(sys.argv[1:])
        for number in _SIGNALS:  # nothing is left to clear up: from here on they simply end the process
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, signal.SIG_DFL)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Do what `arguments` ask for and return the exit code; never raises an Exception."""
    try:
        _catch_signals()
        from toolkit.cli.app import invoke

        code = invoke(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        code = _report(error)
    return code if _flushed() else code or _FAILED


def _catch_signals() -> None:
    """Those that our starter has set to be ignored stay so (nohup, a background job of a script)."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _report(error: Exception) -> int:
    from toolkit.cli.common import explained, say, say_where

    say_where(error)
    known = explained(error)
    say(f"nettool: {known}")
    return known.exit_code


def _flushed() -> bool:
    """Whether stdout took all that was written; a reader who has gone away is no error."""
    if sys.stdout is None:
        return True
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None  # or the interpreter tries again, and complains
    except OSError:
        sys.stdout = None
        return False
    return True


if __name__ == "__main__":
    main()
