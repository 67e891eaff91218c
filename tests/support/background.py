"""Calls in other threads, and commands in other processes, for tests whose two ends have to run at the same time."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

PATIENCE_S = 60.0
"""How long a test waits for an event before it fails: long enough for a busy machine, and a hang still ends."""

T = TypeVar("T")


class Background(Generic[T]):
    """A call that runs in another thread; `outcome` returns its result or raises its exception."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._results: list[T] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self.error = error

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait until the call has ended, at most `timeout_s`."""
        self._thread.join(timeout_s)

    def outcome(self, timeout_s: float = PATIENCE_S) -> T:
        self._thread.join(timeout_s)
        assert not self.is_alive(), f"the call is still running after {timeout_s:g} s"
        if self.error is not None:
            raise self.error
        return self._results[0]


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run each call in a thread of its own. Returns the results in order, or raises the first error.

    An error ends the wait at once: the other calls may wait for the one that failed.
    """
    running = [Background(call) for call in calls]
    deadline_s = time.monotonic() + PATIENCE_S
    while any(call.is_alive() for call in running) and time.monotonic() < deadline_s:
        for call in running:
            call.join(0.01)
            if call.error is not None:
                raise call.error
    return [call.outcome(0) for call in running]


@contextmanager
def running(command: Sequence[str | os.PathLike[str]], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Start a process, with the options of Popen; kill it, if it still runs, and reap it when the block ends.

    The block of a Popen alone waits for the process: after a failed assertion that may take for ever.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until the condition holds; fails after PATIENCE_S and names `what` was awaited."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {PATIENCE_S:g} s"
        time.sleep(0.001)
