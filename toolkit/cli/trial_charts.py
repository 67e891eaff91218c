"""The charts of `nettool bench --watch`: the trial that has just ended.

They are drawn between two trials, so that drawing takes nothing from what is measured.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from toolkit.cli.output import stderr_is_terminal
from toolkit.cli.progress import patient_console
from toolkit.cli.watch import Series, charts, format_ms, has_room, slopes
from toolkit.comparison.records import Trial
from toolkit.units import format_rate, format_size

_MAX_LINES = 24
_LINES_AROUND = 3
"""What stays free for the lines that tell of each trial."""
_RATE_SHARE = 20
"""A rate is an average over this part of a trial."""


@contextmanager
def trial_charts(is_watched: bool) -> Iterator[Callable[[Trial], None]]:
    """Yield what draws a trial below the lines that are printed meanwhile; nothing where it cannot be drawn."""
    if not is_watched or not stderr_is_terminal():
        yield lambda _trial: None
        return
    from rich.live import Live
    from rich.text import Text

    console, charted = patient_console(), TrialCharts()
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:

        def draw(trial: Trial) -> None:
            columns, lines = console.size.width, min(console.size.height - _LINES_AROUND, _MAX_LINES)
            if (series := charted.add(trial)) and has_room(columns, lines):
                live.update(Text.from_ansi(charts(series, columns, lines), no_wrap=True), refresh=True)

        yield draw


class TrialCharts:
    """The charts of one trial after another: its course, and what the trials of its kind have sent again so far."""

    def __init__(self) -> None:
        self._resent: defaultdict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)

    def add(self, trial: Trial) -> list[Series]:
        """Return the four charts of a trial; none if its course is not known. Its packets sent again are remembered."""
        course = trial.series
        if course is None or len(course.t_s) < 2:
            return []
        resent = self._resent[trial.path, trial.transport, trial.payload_bytes]
        resent.append((trial.elapsed_s or 0.0, float(trial.retransmitted_packets or 0)))
        delivered = _known(course.t_s, course.delivered_bytes)
        rates_bps = slopes([(t_s, value * 8) for t_s, value in delivered], max(1, len(delivered) // _RATE_SHARE))
        goodput = _series(
            f"{trial.transport}: goodput",
            list(zip([t_s for t_s, _ in delivered[1:]], rates_bps, strict=True)),
            format_rate,
            course.t_s[-1],
        )
        of_trial = "" if trial.goodput_bps is None else format_rate(trial.goodput_bps)
        return [
            replace(goodput, newest=of_trial),
            _series("round trip", _known(course.t_s, course.rtt_ms), format_ms, course.t_s[-1]),
            _series(
                "congestion window", _known(course.t_s, course.congestion_window_bytes), format_size, course.t_s[-1]
            ),
            _series("packets sent again", resent, lambda count: f"{count:.0f}"),
        ]


def _known(times_s: Sequence[float], values: Sequence[float | None]) -> list[tuple[float, float]]:
    """Return the points of a column whose value is known."""
    return [(t_s, value) for t_s, value in zip(times_s, values, strict=True) if value is not None]


def _series(
    name: str, points: Sequence[tuple[float, float]], write: Callable[[float], str], to_s: float | None = None
) -> Series:
    """Return a chart of these points, from 0 to `to_s`, or else over what they cover."""
    points = points or [(0.0, 0.0)]
    times_s, values = [t_s for t_s, _ in points], [value for _, value in points]
    span_s = (times_s[0], max(times_s[-1], times_s[0] + 1.0)) if to_s is None else (0.0, to_s)
    return Series.of(name, times_s, values, write, span_s)
