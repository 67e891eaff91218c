"""Progress bars on stderr, with rate and time left; silent if stderr is not a terminal.

Each transfer has two lines: the current file, and the whole. rich takes a tenth of a second to import, so it is
imported only when there is a bar to draw.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final, TextIO, cast

from toolkit.cli.output import stderr_is_terminal
from toolkit.cli.watch import History, Statistics
from toolkit.errors import printable
from toolkit.transfer import Progress as TransferProgress
from toolkit.transfer import ProgressCallback
from toolkit.units import format_rate, format_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task

REFRESHES_PER_S: Final = 5
"""Each redraw takes the interpreter lock away from the transfer."""
STALLED_AFTER_S: Final = 2.0
"""Long paths and slow rates acknowledge less often than a bar is drawn."""
_RATE_PERIOD_S: Final = 5.0


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

    def __init__(self, progress: "Progress | None", is_watched: bool = False) -> None:
        """`progress` is None if nothing is to be drawn; is_watched: whether there are charts, too."""
        self._progress = progress
        self._is_watched = is_watched

    @property
    def are_shown(self) -> bool:
        """Whether anything is drawn."""
        return self._progress is not None

    @contextmanager
    def bar(
        self, name: str, prefix: str = "", statistics: Statistics | None = None
    ) -> Iterator[ProgressCallback | None]:
        """Show a bar while the block runs, and yield the callback that moves it; None if nothing is drawn.

        name:       what to show until a file has begun
        prefix:     what to show before each file, for example its sender
        statistics: those of the channel, for the charts
        """
        if self._progress is None:
            yield None
            return
        progress = self._progress
        history = History(statistics) if self._is_watched and statistics is not None else None
        task = progress.add_task(
            printable(prefix + name), total=None, moved_s=time.monotonic(), is_idle=False, history=history
        )
        arrived_bytes, moved_s = 0, time.monotonic()

        def update(now: TransferProgress) -> None:
            nonlocal arrived_bytes, moved_s
            if now.size_bytes != arrived_bytes:
                arrived_bytes, moved_s = now.size_bytes, time.monotonic()
            progress.update(
                task,
                description=printable(prefix) + _file_line(now, name),
                completed=now.size_bytes,
                total=now.total_bytes,
                is_idle=now.is_idle,
                moved_s=moved_s,
            )

        try:
            yield update
        finally:
            progress.remove_task(task)


def _file_line(now: TransferProgress, name: str) -> str:
    """Return how far the current file has got, and which it is: `IMG_1.jpg, 2 of 4 MiB (3 of 120 files done)`.

    A name too long for the line loses its middle, because its end tells files apart.
    """
    line = _shortened(printable(now.name or name, 1 << 10))
    is_only = now.total_files == 1
    if is_only or not now.name:
        return line
    if now.file_total_bytes is not None:
        line += f", {_of(now.file_bytes, now.file_total_bytes)}"
    elif now.file_bytes:
        line += f", {format_size(now.file_bytes)}"
    count = now.files if now.total_files is None else f"{now.files} of {now.total_files}"
    return f"{line} ({count} files done)"


def _shortened(name: str, limit: int = 32) -> str:
    if len(name) <= limit:
        return name
    tail = limit * 2 // 3
    return f"{name[: limit - tail - 1]}…{name[-tail:]}"


def _of(done_bytes: float, total_bytes: float) -> str:
    """Format two sizes, with one unit if they share it: `3.2 of 4 MiB`."""
    done, total = format_size(done_bytes), format_size(total_bytes)
    unit = total.partition(" ")[2]
    return f"{done.removesuffix(f' {unit}')} of {total}"


def status_of(
    completed: float, total: float | None, speed_bytes_s: float | None, silent_s: float, is_idle: bool
) -> str:
    """Return the rate in bits per second over the last seconds, or why nothing arrives.

    silent_s: how long ago content arrived; is_idle: whether there is nothing more that could arrive
    """
    if total is not None and completed >= total > 0:
        return "verifying"
    if silent_s >= STALLED_AFTER_S:
        return "waiting for input" if is_idle else f"stalled {silent_s:.0f} s"
    return "" if speed_bytes_s is None else format_rate(speed_bytes_s * 8)


@contextmanager
def progress_bars(quiet: bool, is_watched: bool = False) -> Iterator[ProgressBars]:
    """Reserve the bottom of the terminal for bars, and clear it at the end of the block.

    is_watched: whether charts of the newest transfer stand above the bars, where the terminal has room for them
    """
    if quiet or not stderr_is_terminal():
        yield ProgressBars(None)
        return
    with _rich_progress() as progress:
        yield ProgressBars(progress, is_watched)


@contextmanager
def counting_bar(what: str, total: int, done: int = 0, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Show how many of `total` things are done while the block runs, and yield what counts one more.

    done: how many were done before
    """
    if quiet or not stderr_is_terminal():
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = patient_console()
    columns = (BarColumn(bar_width=26), MofNCompleteColumn(), what, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda: progress.advance(task)


def _silent_s(task: "Task") -> float:
    return time.monotonic() - float(task.fields["moved_s"])


def patient_console() -> "Console":
    """Return a console on stderr that ignores a terminal which has gone."""
    from rich.console import Console

    return Console(file=cast("IO[str]", _PatientStream(sys.stderr)))


def _rich_progress() -> "Progress":
    from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TimeRemainingColumn
    from rich.text import Text

    console = patient_console()

    class SizeColumn(ProgressColumn):
        """Bytes that have arrived, and the total if it is known."""

        def render(self, task: "Task") -> Text:
            done = format_size(task.completed) if task.total is None else _of(task.completed, task.total)
            return Text(done, no_wrap=True)

    class StatusColumn(ProgressColumn):
        """See status_of."""

        def render(self, task: "Task") -> Text:
            is_idle = bool(task.fields["is_idle"])
            text = status_of(task.completed, task.total, task.speed, _silent_s(task), is_idle)
            return Text(text, no_wrap=True)

    class TimeLeftColumn(TimeRemainingColumn):
        """Nothing while the end of a transfer is not foreseeable."""

        max_refresh = 0.0  # otherwise a stalled transfer shows its last estimate

        def render(self, task: "Task") -> Text:
            is_moving = task.total is not None and _silent_s(task) < STALLED_AFTER_S and not task.finished
            return super().render(task) if is_moving else Text("")

    class TwoLines(Progress):
        """The current file above the bar, its size, and so on; charts above all of them if there is a history."""

        def get_renderables(self) -> Iterator[Any]:
            watched = [task for task in self.tasks if task.fields["history"] is not None]
            if watched:
                task, lines = watched[-1], console.size.height - 2 * len(self.tasks) - 1
                if drawing := task.fields["history"].drawing(int(task.completed), console.size.width, lines):
                    yield Text.from_ansi(drawing, no_wrap=True)
            for task in self.tasks:
                yield Text(task.description, no_wrap=True, overflow="ellipsis")
                yield self.make_tasks_table([task])

    return TwoLines(
        BarColumn(bar_width=26),
        TaskProgressColumn(),
        SizeColumn(),
        StatusColumn(),
        TimeLeftColumn(compact=True),
        console=console,
        transient=True,
        redirect_stdout=False,  # rich would redirect it to stderr, and --json needs stdout
        refresh_per_second=REFRESHES_PER_S,
        speed_estimate_period=_RATE_PERIOD_S,
    )
