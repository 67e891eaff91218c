"""Prints lines in a thread of its own: whoever reads them slowly, or not at all, delays nothing else."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from toolkit.errors import NettoolError

_MAX_QUEUED_LINES = 500
_CHECK_S = 0.25
_GRACE_S = 0.3
"""How long an interrupted command waits for a reader that takes nothing."""


class LinePrinter:
    """Calls `show` with one line after another.

    show:         may wait for a reader for ever
    is_cancelled: asked several times a second while there is no room for another line
    """

    def __init__(self, show: Callable[[str], object], is_cancelled: Callable[[], bool] = lambda: False) -> None:
        self._show, self._is_cancelled = show, is_cancelled
        self._lines: queue.Queue[str | None] = queue.Queue(_MAX_QUEUED_LINES)
        self._failure: NettoolError | None = None
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def put(self, line: str | None) -> None:
        """Print a line soon; None ends the printing. Waits while there is no room, unless it is cancelled."""
        while not self._is_cancelled():
            try:
                self._lines.put(line, timeout=_CHECK_S)
                return
            except queue.Full:
                pass

    def end(self) -> None:
        """Wait until every line is printed, unless it is cancelled. Raises what printing has raised."""
        self.put(None)
        while self._thread.is_alive() and not self._is_cancelled():
            self._thread.join(_CHECK_S)
        if self._failure is not None:
            raise self._failure

    def give_up(self) -> bool:
        """Wait a moment for the reader; return whether lines are left that it does not take."""
        try:
            self._lines.put(None, timeout=_GRACE_S)
        except queue.Full:
            return True
        self._thread.join(_GRACE_S)
        return self._thread.is_alive()

    def _print(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._show(line)
            except NettoolError as error:  # a full disk: the conversation goes on, and ends with this error
                self._failure = self._failure or error


@contextmanager
def printing_lines(
    show: Callable[[str], object], is_cancelled: Callable[[], bool], on_stuck: Callable[[], object]
) -> Iterator[Callable[[str], None]]:
    """Yield what prints a line. At the end, all are printed first, unless the user has interrupted.

    on_stuck: called if the reader has stopped and the lines are given up

    Raises at the end what printing has raised.
    """
    printer = LinePrinter(show, is_cancelled)
    try:
        try:
            yield printer.put
        except NettoolError:
            printer.end()
            raise
        printer.end()
    finally:
        if printer.give_up():
            on_stuck()
