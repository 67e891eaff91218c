"""Progress bars on stderr, with rate and time left; silent if stderr is not a terminal.

rich takes a tenth of a second to import, so it is imported only when there is a bar to draw.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from toolkit.cli.output import stderr_is_terminal
from toolkit.errors import printable
from toolkit.transfer import ProgressCallback
from toolkit.units import format_rate, format_size

if TYPE_CHECKING:
    from rich.progress import Progress, Task

_NAME_LIMIT = 40
_REFRESHES_PER_S = 5  # each redraw takes the interpreter lock away from the transfer


class _PatientStream:
    """stderr, for bars: what it does not take is lost, because a terminal that has gone must not end a transfer."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class ProgressBars:
    """Draws one bar for each transfer. Safe for use by several threads."""

    def __init__(self, progress: "Progress | None") -> None:
        """`progress` is None if nothing is to be drawn."""
        self._progress = progress

    @contextmanager
    def bar(self, name: str) -> Iterator[ProgressCallback | None]:
        """Show a bar while the block runs, and yield the callback that moves it; None if nothing is drawn."""
        if self._progress is None:
            yield None
            return
        progress = self._progress
        task = progress.add_task(printable(name, _NAME_LIMIT), total=None)
        try:
            yield lambda now: progress.update(
                task,
                description=printable(now.name or name, _NAME_LIMIT),
                completed=now.size_bytes,
                total=now.total_bytes,
            )
        finally:
            progress.remove_task(task)


@contextmanager
def progress_bars(quiet: bool) -> Iterator[ProgressBars]:
    """Reserve the bottom of the terminal for bars, and clear it at the end of the block."""
    if quiet or not stderr_is_terminal():
        yield ProgressBars(None)
        return
    with _rich_progress() as progress:
        yield ProgressBars(progress)


def _rich_progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class SizeColumn(ProgressColumn):
        """Bytes that have arrived, and the total if it is known."""

        def render(self, task: "Task") -> Text:
            done = format_size(task.completed)
            return Text(done if task.total is None else f"{done} of {format_size(task.total)}")

    class RateColumn(ProgressColumn):
        """Payload bits per second over the last moments."""

        def render(self, task: "Task") -> Text:
            return Text("" if task.speed is None else format_rate(task.speed * 8))

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        SizeColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        console=Console(file=cast("IO[str]", _PatientStream(sys.stderr))),
        transient=True,
        redirect_stdout=False,  # rich would redirect it to stderr, and --json needs stdout
        refresh_per_second=_REFRESHES_PER_S,
    )
