"""A progress bar on stderr, with rate and time left; nothing where stderr is no terminal.

rich takes a tenth of a second to import, so it is imported when there is something to draw on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toolkit.cli.common import is_terminal
from toolkit.errors import printable
from toolkit.units import format_rate, format_size

if TYPE_CHECKING:
    from rich.progress import Progress, Task

Progressed = Callable[[int, int | None], None]
"""(bytes done so far, bytes in all or None where that is not known yet)"""

_REFRESHES_PER_S = 5  # each redraw takes the interpreter's lock from the transfer


class Bars:
    """One bar a transfer; safe for several threads. Silent without a terminal, or when asked to be."""

    def __init__(self, progress: "Progress | None") -> None:
        self._progress = progress

    @contextmanager
    def bar(self, name: str) -> Iterator[Progressed]:
        """A bar for as long as the block runs, and what to call as the transfer goes on."""
        if self._progress is None:
            yield lambda _done, _total: None
            return
        progress = self._progress
        task = progress.add_task(printable(name, 40), total=None)
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total)
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
        refresh_per_second=_REFRESHES_PER_S,
    )
