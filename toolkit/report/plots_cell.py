"""Pictures of one path at one size."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from toolkit.compare.comparison import Row
from toolkit.compare.records import Trial
from toolkit.report.axes import rate_axis, size_axis, time_axis
from toolkit.report.drawing import SURFACE, Style, legend, legend_inches, text_inches
from toolkit.report.labels import REASONS, short_label
from toolkit.units import format_rate, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SERIES = {"delivered_bytes": "arrived", "congestion_window_bytes": "congestion window", "rtt_ms": "RTT"}
_MARKED_POINTS = 7
_REASON_STYLES = {
    "handshake_s": ("#7f5fd0", "///"),
    "ramp_up_s": ("#b5862a", "--"),
    "recovery_s": ("#c44a4a", "xx"),
    "window_limited_s": ("#b8489a", "\\\\\\"),
    "cpu_bound_s": ("#8a5a3c", "++"),
    "steady_s": ("#8fa3b5", ""),
    "tail_s": ("#4f6d8f", "||"),
}
"""Other colours than those of the transports; the kind that is most of a good transfer is the quietest."""


def goodput(figure: "Figure", rows: Sequence[Row], styles: Mapping[str, Style]) -> None:
    """A point with its interval for each transport, and the figure beside it."""
    axes = _bars_axes(figure, rows, bottom=0.5)
    for y, row in enumerate(rows):
        look = styles[row.transport]
        if row.goodput_bps is None:
            axes.text(0.01, y, "failed", transform=axes.get_yaxis_transform(), va="center")
            continue
        value, interval = row.goodput_bps
        if interval:
            axes.plot([interval.low, interval.high], [y, y], color=look.color, linewidth=2.5, solid_capstyle="butt")
            axes.plot([interval.low, interval.high], [y, y], "|", color=look.color, markersize=9, markeredgewidth=1.5)
        face = look.color if row.unmarked else SURFACE
        axes.plot([value], [y], look.marker, color=look.color, markerfacecolor=face, markersize=8)
        axes.text(1.02, y, format_rate(value), transform=axes.get_yaxis_transform(), va="center")
    ends = [row.goodput_bps.interval.high if row.goodput_bps.interval else 0.0 for row in rows if row.goodput_bps]
    rate_axis(axes, "x", [*ends, *(row.goodput_bps.value for row in rows if row.goodput_bps)])


def time_split(figure: "Figure", rows: Sequence[Row]) -> None:
    """The whole width is the whole time; the time itself stands beside it."""
    axes = _bars_axes(figure, rows, bottom=0.35 + reasons_inches(rows))
    used = _used(rows)
    for y, row in enumerate(rows):
        reasons = row.reasons or {}
        total, left = sum(reasons.values()) or 1.0, 0.0
        for key in used:
            color, hatch = _REASON_STYLES[key]
            share = reasons.get(key, 0.0) / total
            name = REASONS[key] if y == 0 else None
            axes.barh(y, share, 0.62, left, color=color, hatch=hatch, edgecolor=SURFACE, linewidth=0.6, label=name)
            left += share
        axes.text(1.02, y, format_seconds(total), transform=axes.get_yaxis_transform(), va="center")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    legend(figure, axes, "lower center")


def reasons_inches(rows: Sequence[Row]) -> float:
    """The height of the legend of `time_split`."""
    return legend_inches([REASONS[key] for key in _used(rows)])


def panels(trials: Sequence[Trial]) -> int:
    """How many of the series any trial has."""
    return len(_told(trials))


def course(figure: "Figure", trials: Sequence[Trial], styles: Mapping[str, Style]) -> None:
    """The time-sequence picture, the congestion window and the RTT over one axis of time."""
    told = _told(trials)
    width, height = figure.get_size_inches()
    names = [short_label(trial.transport) for trial in trials]
    top, bottom = legend_inches(names), 0.5
    each = (height - top - bottom) / len(told)
    ends = [max(t for t in (trial.series or {})["t_s"] if t is not None) for trial in trials]
    for number, key in enumerate(told):
        place = (0.92 / width, (bottom + each * (len(told) - 1 - number) + 0.09) / height)
        axes = figure.add_axes((*place, 1 - 1.05 / width, (each - 0.18) / height))
        for trial in trials:
            series, look = trial.series or {}, styles[trial.transport]
            points = _points(series, key)
            if points:
                every = max(1, len(points) // _MARKED_POINTS)
                axes.plot(
                    *zip(*points, strict=True),
                    color=look.color,
                    linestyle=look.dash,
                    marker=look.marker,
                    markevery=every,
                    linewidth=1.4,
                    markersize=4.5,
                    label=short_label(trial.transport),
                )
        highest = max(value for trial in trials for _, value in _points(trial.series or {}, key))
        axes.set_ylim(0, 1.08 * highest or 1.0)
        if key == "rtt_ms":
            axes.set_ylabel("RTT (ms)")
        else:
            size_axis(axes, "y", _SERIES[key])
        time_axis(axes, "x", [end / 50 for end in ends] + ends if max(ends) > 8 * min(ends) else ends)
        if number == 0:
            legend(figure, axes, "upper center")
        if number < len(told) - 1:
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
        axes.yaxis.set_label_coords(-0.74 / (width - 1.05), 0.5)


def completion(figure: "Figure", trials: Sequence[Trial], styles: Mapping[str, Style]) -> None:
    """The empirical distribution of the time that a transfer takes."""
    names = [name for name in styles if any(trial.transport == name for trial in trials)]
    axes = _legend_axes(figure, [short_label(name) for name in names])
    every = [trial.seconds for trial in trials if trial.seconds is not None]
    time_axis(axes, "x", every)
    low, high = axes.get_xlim()
    for name in names:
        look = styles[name]
        times = sorted(trial.seconds for trial in trials if trial.transport == name and trial.seconds is not None)
        shares = [(number + 1) / len(times) for number in range(len(times))]
        axes.step(
            [low, *times, high], [0, *shares, 1], where="post", color=look.color, linestyle=look.dash, linewidth=1.4
        )
        axes.plot(times, shares, look.marker, color=look.color, markersize=4.5)
        axes.plot([], [], look.marker, color=look.color, linestyle=look.dash, label=short_label(name))
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_ylabel("transfers that are done")
    legend(figure, axes, "upper center")


def goodput_against_delay(figure: "Figure", rows: Sequence[Row], styles: Mapping[str, Style]) -> None:
    """One point a transport, with the interval of its goodput."""
    axes = _legend_axes(figure, [short_label(row.transport) for row in rows])
    values: list[float] = []
    delays_s: list[float] = []
    for row in rows:
        look = styles[row.transport]
        assert row.goodput_bps is not None
        assert row.delay_ms is not None
        delay_s, (value, interval) = row.delay_ms["p95"] / 1e3, row.goodput_bps
        delays_s.append(delay_s)
        values.append(value)
        if interval:
            values += interval
            axes.plot([delay_s] * 2, list(interval), color=look.color, linewidth=1.2)
        face = look.color if row.unmarked else SURFACE
        axes.plot(
            [delay_s],
            [value],
            look.marker,
            color=look.color,
            markerfacecolor=face,
            markersize=8,
            label=short_label(row.transport),
        )
    time_axis(axes, "x", delays_s, "RTT beside the transfer, 95th percentile")
    rate_axis(axes, "y", values)
    legend(figure, axes, "upper center")


def _used(rows: Sequence[Row]) -> list[str]:
    return [key for key in REASONS if any((row.reasons or {}).get(key) for row in rows)]


def _bars_axes(figure: "Figure", rows: Sequence[Row], bottom: float) -> "Axes":
    """A line for each transport, named at the left, the first at the top; `bottom` inches are left under them."""
    width, height = figure.get_size_inches()
    left = 0.2 + text_inches([short_label(row.transport) for row in rows])
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + 1.05) / width, 1 - (bottom + 0.1) / height))
    axes.set_yticks(range(len(rows)), [short_label(row.transport) for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return axes


def _legend_axes(figure: "Figure", names: Sequence[str]) -> "Axes":
    width, height = figure.get_size_inches()
    top = legend_inches(names)
    return figure.add_axes((1.02 / width, 0.5 / height, 1 - 1.22 / width, 1 - (top + 0.55) / height))


def _told(trials: Sequence[Trial]) -> list[str]:
    return [key for key in _SERIES if any(_points(trial.series or {}, key) for trial in trials)]


def _points(series: Mapping[str, Sequence[float | None]], key: str) -> list[tuple[float, float]]:
    pairs = zip(series.get("t_s") or (), series.get(key) or (), strict=False)
    return [(t, value) for t, value in pairs if t is not None and value is not None]
