"""The Python processes that nettool starts, forked from a process that has their modules imported already.

A trial starts two workers, and a link starts its emulator. Starting Python and importing their modules takes up to half
a second of processor time, and the tests do it hundreds of times. Inside `warm_starts`, such a process is a fork that
calls `main` of its module, with the descriptors, environment, signals and exit code of an executed program. Tests of
the start itself, and those that change what Python does when it starts, leave it off.
"""

import ctypes
import faulthandler
import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn

FRESH = "NETTOOL_TESTS_FRESH"
"""An environment variable: modules whose names begin with its value start Python anew."""

_PR_SET_DUMPABLE = 4
_MODULES = (
    "toolkit.cli.main",
    "toolkit.comparison.peers.iperf3",
    "toolkit.comparison.peers.quic",
    "toolkit.comparison.worker",
    "toolkit.emulator.start",
)


class WarmPopen(subprocess.Popen[Any]):
    """`subprocess.Popen` that forks where it would start Python with one of `_MODULES`."""

    def __init__(self, args: Any, *more: Any, **options: Any) -> None:
        if not more and _is_warm(args):
            _, _, module, *arguments = args
            options["preexec_fn"] = _Successor(module, arguments, options)
        super().__init__(args, *more, **options)


@contextmanager
def warm_starts() -> Iterator[None]:
    """Until the end of the block, fork instead of starting Python with one of the modules."""
    import_module("tests.support.preloaded_cli")
    before = subprocess.Popen
    subprocess.Popen = WarmPopen  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = before  # type: ignore[misc]


def _is_warm(command: Any) -> bool:
    match command:
        case [sys.executable, "-m", str(module), *_] if module in _MODULES:
            return FRESH not in os.environ or not module.startswith(os.environ[FRESH])
    return False


class _Successor:
    """What a new process calls just before it would execute Python: it becomes the module's `main` instead."""

    def __init__(self, module: str, arguments: Sequence[str], options: Mapping[str, Any]) -> None:
        self._module, self._arguments = module, arguments
        self._before: Callable[[], None] | None = options.get("preexec_fn")
        self._environment: Mapping[str, str] | None = options.get("env")
        self._kept = sorted({0, 1, 2, *options.get("pass_fds", ())})

    def __call__(self) -> NoReturn:
        code = 1
        try:
            if self._before is not None:
                self._before()
            self._forget_the_parent()
            import_module(self._module).main()
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and not thread.daemon:
                    thread.join()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
            os._exit(code)

    def _forget_the_parent(self) -> None:
        # As an execution does: a process that has changed its user may write to its own files in /proc.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
        for first, end in zip(self._kept, [*self._kept[1:], 1 << 20], strict=True):
            os.closerange(first + 1, end)  # with it the pipe on which the parent waits for the execution
        signal.set_wakeup_fd(-1)
        gc.freeze()  # never collect an object of the parent: it may own a descriptor
        gc.enable()
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        warnings.resetwarnings()
        if self._environment is not None:
            os.environ.clear()
            os.environ.update(self._environment)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = [self._module, *self._arguments]
        faulthandler.enable(sys.stderr)  # SIGABRT shows where a process hangs
