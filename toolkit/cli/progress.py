"""A progress bar on stderr, with rate and time left; nothing where stderr is no terminal.

rich takes a tenth of a second to import, so it is imported when there is something to draw on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toolkit.cli.common import is_terminal
from toolkit.errors import printable
from toolkit.transfer import ProgressCallback
from toolkit.units import format_rate, format_size

if TYPE_CHECKING:
    from rich.progress import Progress, Task

_NAME_LIMIT = 40
_REFRESHES_PER_S = 5  # each redraw takes the interpreter's lock from the transfer


class Bars:
    """One bar a transfer; safe for several threads. Silent without a terminal, or when asked to be."""

    def __init__(self, progress: "Progress | None") -> None:
        self._progress = progress

    @contextmanager
    def bar(self, name: str) -> Iterator[ProgressCallback | None]:
        """A bar for as long as the block runs, and what a session calls as it goes on; None where none is drawn."""
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
def bars(quiet: bool) -> Iterator[Bars]:
    """Room for bars at the bottom of the terminal, cleared away at the end."""
    if quiet or not is_terminal():
        yield Bars(None)
        return
    with _drawn() as progress:
        yield Bars(progress)


def _drawn() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Amount(ProgressColumn):
        """How much has arrived, of how much."""

        def render(self, task: "Task") -> Text:
            done = format_size(task.completed)
            return Text(done if task.total is None else f"{done} of {format_size(task.total)}")

    class Rate(ProgressColumn):
        """Bits per second of payload, over the last moments."""

        def render(self, task: "Task") -> Text:
            return Text("" if task.speed is None else format_rate(task.speed * 8))

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Amount(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # to stderr, which --json must not have
        refresh_per_second=_REFRESHES_PER_S,
    )
