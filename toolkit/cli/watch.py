"""Moving charts of a transfer in the terminal, for --watch: goodput, round trip, window, packets sent again."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from toolkit.channel import Statistic
from toolkit.units import format_rate, format_size

MIN_COLUMNS, MIN_LINES = 60, 16
"""Where there is less room, there are no charts."""
INTERVAL_S: Final = 0.5
"""Between two samples. A drawing takes some 20 ms, in which the transfer waits for the interpreter."""
PERIOD_S: Final = 60.0
"""How long the charts reach back."""
_LEAST_INTERVAL_S: Final = 1e-4
_RATE_INTERVALS: Final = 3
"""A rate is an average over so many intervals: acknowledgements and losses come in groups."""

Statistics = Callable[[], Mapping[str, Statistic]]


@dataclass(frozen=True, slots=True)
class Series:
    """A chart: seconds since the start, a value for each, and the text of the newest and of the highest value.

    from_s, to_s: what the chart shows
    """

    name: str
    times_s: Sequence[float]
    values: Sequence[float]
    newest: str
    highest: str
    from_s: float
    to_s: float

    @classmethod
    def of(
        cls,
        name: str,
        times_s: Sequence[float],
        values: Sequence[float],
        write: Callable[[float], str],
        span_s: tuple[float, float],
    ) -> "Series":
        """Return a chart of these values; `write` formats the newest and the highest one."""
        return cls(name, times_s, values, write(values[-1]), write(max(values)), *span_s)


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    arrived_bytes: int
    rtt_ms: float
    window_bytes: float
    resent_packets: float


class History:
    """What a transfer has done in the last minute.

    statistics: those of its channel, by their JSON names
    clock:      seconds, from any start
    """

    def __init__(self, statistics: Statistics, clock: Callable[[], float] = time.monotonic) -> None:
        self._statistics = statistics
        self._clock = clock
        self._started_s = clock()
        self._samples: deque[_Sample] = deque(maxlen=int(PERIOD_S / INTERVAL_S))
        self._drawing = ""

    def sample(self, arrived_bytes: int) -> bool:
        """Take a sample, unless the last one is too young. Returns whether it did."""
        now_s = self._clock() - self._started_s
        if self._samples and now_s - self._samples[-1].at_s < INTERVAL_S:
            return False
        numbers = {name: value for name, value in self._statistics().items() if isinstance(value, int | float)}
        rtt_ms, window_bytes, resent_packets = (
            float(numbers.get(name, 0)) for name in ("rtt_ms", "congestion_window_bytes", "packets_retransmitted")
        )
        self._samples.append(_Sample(now_s, arrived_bytes, rtt_ms, window_bytes, resent_packets))
        return True

    def drawing(self, arrived_bytes: int, columns: int, lines: int) -> str:
        """Take a sample, if it is time, and return the charts for a place of this size; "" if it is too small."""
        if not has_room(columns, lines):
            return ""
        if self.sample(arrived_bytes) and (series := self.series()):
            self._drawing = charts(series, columns, lines)
        return self._drawing

    def series(self) -> list[Series]:
        """Return the four charts; none before there are two samples."""
        samples = list(self._samples)
        if len(samples) < 2:
            return []
        goodputs_bps = slopes([(one.at_s, one.arrived_bytes * 8) for one in samples])
        resent_per_s = slopes([(one.at_s, one.resent_packets) for one in samples])
        later = samples[1:]
        columns = (
            ("goodput", goodputs_bps, format_rate),
            ("round trip", [one.rtt_ms for one in later], format_ms),
            ("congestion window", [one.window_bytes for one in later], format_size),
            ("packets sent again", resent_per_s, lambda count: f"{count:.0f} /s"),
        )
        times_s = [one.at_s for one in later]
        span_s = max(0.0, times_s[-1] - PERIOD_S), max(PERIOD_S, times_s[-1])
        return [Series.of(name, times_s, values, write, span_s) for name, values, write in columns]


def format_ms(milliseconds: float) -> str:
    """Return a round trip as the charts write it."""
    return f"{milliseconds:.3g} ms"


def slopes(points: Sequence[tuple[float, float]], intervals: int = _RATE_INTERVALS) -> list[float]:
    """Return how fast the second coordinate rises in the intervals before each point but the first."""
    found = []
    for number in range(1, len(points)):
        (from_s, low), (to_s, high) = points[max(0, number - intervals)], points[number]
        found.append(max(0.0, high - low) / max(to_s - from_s, _LEAST_INTERVAL_S))
    return found


def has_room(columns: int, lines: int) -> bool:
    """Whether a place is large enough for the charts."""
    return columns >= MIN_COLUMNS and lines >= MIN_LINES


def charts(series: Sequence[Series], columns: int, lines: int) -> str:
    """Return a drawing of four charts, two beside each other, with the control sequences of colours."""
    import plotext  # only --watch needs it

    plotext.terminal.limit(False, False)  # the caller knows how large the place is
    figure = plotext.figure
    figure.clear()
    figure.plot_size(columns, lines)
    figure.subplots(2, 2)
    for number, one in enumerate(series):
        chart = figure.subplot(number // 2 + 1, number % 2 + 1)
        chart.theme("simple")
        chart.title(f"{one.name}: {one.newest}")
        highest = max(one.values) or 1.0
        y_axis, x_axis = chart.ruler("y"), chart.ruler("x")
        y_axis.lim(0, highest * 1.05)
        y_axis.ticks([0, highest], ["0", one.highest])
        x_axis.lim(one.from_s, one.to_s)
        x_axis.ticks([one.times_s[0], one.times_s[-1]], [f"{one.times_s[0]:.3g} s", f"{one.times_s[-1]:.3g} s"])
        line = chart.signal(list(one.times_s), list(one.values), marker="braille")
        line.lines()
        chart.draw(line)
    return str(figure.build())
