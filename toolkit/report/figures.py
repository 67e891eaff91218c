"""The figures themselves: each function draws one picture onto an empty matplotlib figure.

`plots` decides which are drawn and from what; `drawing` holds the style, axes, legends and labels that they share.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from toolkit.comparison.pairs import goodput_bps
from toolkit.comparison.records import Campaign, Trial
from toolkit.comparison.rows import Row
from toolkit.comparison.verdict import CLAIMS, FASTER
from toolkit.report.drawing import (
    FIXED_INK,
    INK,
    MARGIN_TINT,
    MUTED,
    SURFACE,
    TCP_TINT,
    UDP_TINT,
    WIDTH,
    Style,
    direct_labels,
    legend,
    legend_inches,
    rate_axis,
    size_axis,
    text_inches,
    time_axis,
)
from toolkit.report.forest import Scale, format_tick, scale_for
from toolkit.report.labels import REASONS, label, short_label
from toolkit.units import format_fraction, format_rate, format_ratio, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_LOG2 = 4
"""The heat map has its strongest colours at a ratio of 2^4 and above."""
_SERIES = {"delivered_bytes": "delivered", "congestion_window_bytes": "congestion window", "rtt_ms": "RTT"}
_MARKED_POINTS = 7
_RATIO_ROW = 0.3
_REASON_STYLES = {
    "handshake_s": ("#7f5fd0", "///"),
    "ramp_up_s": ("#b5862a", "..."),
    "recovery_s": ("#c44a4a", "xx"),
    "window_limited_s": ("#b8489a", "\\\\\\"),
    "cpu_bound_s": ("#8a5a3c", "++"),
    "waiting_s": ("#a98467", "oo"),
    "congestion_limited_s": ("#d98a3d", "//"),
    "steady_s": ("#8fa3b5", ""),
    "tail_s": ("#4f6d8f", "||"),
}
"""Colour and hatching of each kind of time; none is a transport's colour, and the steady kind is the quietest."""


def ratio_inches(rows: Sequence[Row]) -> float:
    """Height of the rows of `ratios`: those of a path and size stand below their name."""
    return _RATIO_ROW * (len(rows) + len({(row.path, row.payload_bytes) for row in rows}))


def ratios(figure: "Figure", rows: Sequence[Row], styles: Mapping[str, Style]) -> None:
    """For each row a dot a block, and the median with its interval, on one logarithmic scale with the margin."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    width, height = figure.get_size_inches()
    left = 0.2 + text_inches([_ratio_name(row) for row in rows])
    axes = figure.add_axes((left / width, 0.5 / height, 1 - (left + 0.15) / width, 1 - 0.6 / height))
    margin = max(row.margin for row in rows)
    values = [end for row in rows for end in (*row.block_ratios, *(row.ratio.interval or () if row.ratio else ()))]
    scale = scale_for(values, margin)
    axes.set_xscale("log")
    axes.set_xlim(scale.low, scale.high)
    axes.axvspan(1 / (1 + margin), 1 + margin, color=MARGIN_TINT, linewidth=0, zorder=0)
    axes.axvline(1.0, color=MUTED, linewidth=1.2, zorder=1)
    places: list[float] = []
    names: list[str] = []
    y, last = -1.0, None
    for row in rows:
        cell = (row.path, row.payload_bytes)
        if cell != last:
            y, last = y + 1, cell
            heading = f"{label(row.path)}, {row.content}"
            ground = {"facecolor": SURFACE, "edgecolor": "none", "pad": 1.0}  # the line at 1 would cross the words
            axes.text(scale.low, y + 0.15, heading, va="center", fontsize=8.5, color=INK, bbox=ground)
        y += 1
        _ratio_row(axes, row, y, MUTED if row.is_control else styles[row.transport].color, scale)
        places.append(y)
        names.append(_ratio_name(row))
    axes.set_ylim(y + 0.6, -0.5)
    axes.set_yticks(places, names)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(FixedLocator(scale.ticks()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
    axes.set_xlabel("ratio of goodputs")


def _ratio_name(row: Row) -> str:
    return "A/A control" if row.is_control else short_label(row.transport)


def _ratio_row(axes: "Axes", row: Row, y: float, color: str, scale: Scale) -> None:
    shown = [min(max(ratio, scale.low), scale.high) for ratio in row.block_ratios]
    axes.plot(shown, [y - 0.2] * len(shown), "o", color=color, alpha=0.5, markersize=4, markeredgewidth=0)
    if row.ratio is None:
        return
    if row.ratio.interval is not None:
        ends = [min(max(end, scale.low), scale.high) for end in row.ratio.interval]
        axes.plot(ends, [y + 0.2] * 2, color=color, linewidth=3, solid_capstyle="butt")
    axes.plot([min(max(row.ratio.value, scale.low), scale.high)], [y + 0.2], "|", color=color, markersize=9)


def goodput(figure: "Figure", rows: Sequence[Row], styles: Mapping[str, Style]) -> None:
    """Median and interval of each transport, with the median in words at the right."""
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
    """A bar for each transport, divided by kind of time; the total time is at the right."""
    axes = _bars_axes(figure, rows, bottom=0.35 + reasons_inches(rows))
    used = _used(rows)
    for y, row in enumerate(rows):
        time_split = row.time_split.by_kind() if row.time_split is not None else {}
        total, left = sum(time_split.values()) or 1.0, 0.0
        for key in used:
            color, hatch = _REASON_STYLES[key]
            share = time_split.get(key, 0.0) / total
            name = REASONS[key] if y == 0 else None
            axes.barh(y, share, 0.62, left, color=color, hatch=hatch, edgecolor=SURFACE, linewidth=0.6, label=name)
            left += share
        axes.text(1.02, y, format_seconds(total), transform=axes.get_yaxis_transform(), va="center")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    legend(figure, axes, "lower center")


def reasons_inches(rows: Sequence[Row]) -> float:
    """Height of the legend of `time_split`."""
    return legend_inches([REASONS[key] for key in _used(rows)])


def panel_count(trials: Sequence[Trial]) -> int:
    """Number of panels that `course` draws: one for each series that some trial has."""
    return len(_available_series(trials))


def course(figure: "Figure", trials: Sequence[Trial], styles: Mapping[str, Style]) -> None:
    """Bytes delivered, congestion window and RTT, in panels that share the time axis."""
    shown = _available_series(trials)
    width, height = figure.get_size_inches()
    names = [short_label(trial.transport) for trial in trials]
    top, bottom = legend_inches(names), 0.5
    each = (height - top - bottom) / len(shown)
    ends = [max(trial.series.t_s) for trial in trials if trial.series is not None]
    for number, key in enumerate(shown):
        corner = (0.92 / width, (bottom + each * (len(shown) - 1 - number) + 0.09) / height)
        axes = figure.add_axes((*corner, 1 - 1.05 / width, (each - 0.18) / height))
        for trial in trials:
            look, points = styles[trial.transport], _points(trial, key)
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
        highest = max(value for trial in trials for _, value in _points(trial, key))
        axes.set_ylim(0, 1.08 * highest or 1.0)
        if key == "rtt_ms":
            axes.set_ylabel("RTT (ms)")
        else:
            size_axis(axes, "y", _SERIES[key])
        time_axis(axes, "x", [end / 50 for end in ends] + ends if max(ends) > 8 * min(ends) else ends)
        if number == 0:
            legend(figure, axes, "upper center")
        if number < len(shown) - 1:
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
        axes.yaxis.set_label_coords(-0.74 / (width - 1.05), 0.5)


def completion(figure: "Figure", trials: Sequence[Trial], styles: Mapping[str, Style]) -> None:
    """Empirical distribution of completion times."""
    names = [name for name in styles if any(trial.transport == name for trial in trials)]
    axes = _legend_axes(figure, [short_label(name) for name in names])
    every = [trial.seconds for trial in trials if trial.is_counted and trial.seconds is not None]
    time_axis(axes, "x", every)
    low, high = axes.get_xlim()
    for name in names:
        look = styles[name]
        own = [trial for trial in trials if trial.transport == name]
        times = sorted(trial.seconds for trial in own if trial.is_counted and trial.seconds is not None)
        shares = [(number + 1) / len(own) for number in range(len(times))]  # one that failed never completes
        ends = [0, *shares, shares[-1] if shares else 0]
        axes.step([low, *times, high], ends, where="post", color=look.color, linestyle=look.dash, linewidth=1.4)
        axes.plot(times, shares, look.marker, color=look.color, markersize=4.5)
        axes.plot([], [], look.marker, color=look.color, linestyle=look.dash, label=short_label(name))
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_ylabel("transfers completed")
    legend(figure, axes, "upper center")


def goodput_against_delay(figure: "Figure", rows: Sequence[Row], styles: Mapping[str, Style]) -> None:
    """A point for each transport, with the interval of its goodput."""
    axes = _legend_axes(figure, [short_label(row.transport) for row in rows])
    values: list[float] = []
    delays_s: list[float] = []
    for row in rows:
        look = styles[row.transport]
        assert row.goodput_bps is not None
        assert row.delay_ms is not None
        delay_s, (value, interval) = row.delay_ms.p95 / 1e3, row.goodput_bps
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
    time_axis(axes, "x", delays_s, "RTT during the transfer, 95th percentile")
    rate_axis(axes, "y", values)
    legend(figure, axes, "upper center")


def goodput_against_loss(
    figure: "Figure", campaign: Campaign, rows: Sequence[Row], styles: Mapping[str, Style]
) -> None:
    """Loss rates are equally spaced, which keeps 0 and 0.1% apart."""
    shown = [short_label(row.transport) for row in rows]
    right = min(0.4 + text_inches(shown), 0.4 * WIDTH) / WIDTH
    axes = figure.add_axes((0.205, 0.15, 0.795 - right, 0.81))
    losses = sorted({campaign.paths[row.path].loss or 0.0 for row in rows})
    values = [row.goodput_bps.value for row in rows if row.goodput_bps]
    ideal = {campaign.paths[row.path].loss or 0.0: campaign.paths[row.path].ideal_bps for row in rows}
    ideals = [(losses.index(loss), bps) for loss, bps in sorted(ideal.items()) if bps]
    names = []
    if ideals:
        axes.plot(*zip(*ideals, strict=True), color=MUTED, linestyle=(0, (1, 1.5)), linewidth=1.2)
        names.append((*ideals[-1], "the path", MUTED))
    for name, look in styles.items():
        own = [(losses.index(campaign.paths[row.path].loss or 0.0), row) for row in rows if row.transport == name]
        own.sort(key=lambda point: point[0])
        points = [(x, row, row.goodput_bps) for x, row in own if row.goodput_bps]
        if not points:
            continue
        xs, ys = [x for x, _, _ in points], [estimate.value for _, _, estimate in points]
        axes.plot(xs, ys, color=look.color, linestyle=look.dash)
        for x, row, estimate in points:
            face = look.color if row.unmarked else SURFACE
            axes.plot([x], [estimate.value], look.marker, color=look.color, markerfacecolor=face)
        bands = [(x, e.interval) for x, _, e in points if e.interval]
        if bands:
            lows, highs = [i.low for _, i in bands], [i.high for _, i in bands]
            axes.fill_between([x for x, _ in bands], lows, highs, color=look.color, alpha=0.2, linewidth=0)
        names.append((xs[-1], ys[-1], short_label(name), look.color))
    rate_axis(axes, "y", [*values, *(bps for _, bps in ideals)])
    axes.set_xticks(range(len(losses)), [format_fraction(loss) for loss in losses])
    axes.set_xlim(-0.15, len(losses) - 0.85)
    axes.set_xlabel("loss")
    direct_labels(axes, names)


def ratio_heat_map(figure: "Figure", campaign: Campaign, rows: Sequence[Row]) -> None:
    """A cell for each RTT and loss rate. The crossover is interpolated linearly in the logarithm of the ratio."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    axes = figure.add_axes((0.14, 0.15, 0.84, 0.81))
    cells = [(row, row.ratio, campaign.paths[row.path]) for row in rows if row.ratio]
    rtts = sorted({path.rtt_ms or 0.0 for _, _, path in cells})
    losses = sorted({path.loss or 0.0 for _, _, path in cells})
    grid = [[math.nan] * len(rtts) for _ in losses]
    colors = LinearSegmentedColormap.from_list("tcp-udp", [TCP_TINT, "#f7f7f5", UDP_TINT])
    for row, estimate, path in cells:
        x, y = rtts.index(path.rtt_ms or 0.0), losses.index(path.loss or 0.0)
        grid[y][x] = math.log2(min(max(estimate.value, 1e-9), 1e9))
        share = 0.5 + max(-1.0, min(1.0, grid[y][x] / _MAX_LOG2)) / 2
        hatch = "////" if row.verdict == FASTER else None
        cell = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colors(share), edgecolor="#ffffff", linewidth=1.5)
        axes.add_patch(cell)
        if hatch:
            axes.add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#5b87ad", linewidth=0, hatch=hatch, alpha=0.6
                )
            )
        text = f"({format_ratio(estimate.value)})" if row.verdict not in CLAIMS else format_ratio(estimate.value)
        ground = {"facecolor": colors(share), "edgecolor": "none", "pad": 1.5}  # covers the crossover line
        axes.text(
            x, y, text, ha="center", va="center", color=FIXED_INK, fontsize=10, weight="bold", bbox=ground, zorder=4
        )
    known = [value for line in grid for value in line if not math.isnan(value)]
    if min(len(rtts), len(losses)) > 1 and min(known) < 0 < max(known) and len(known) == len(rtts) * len(losses):
        axes.contour(range(len(rtts)), range(len(losses)), grid, levels=[0], colors=[FIXED_INK], linewidths=3)
    axes.set_xticks(range(len(rtts)), [f"{rtt:g} ms" for rtt in rtts])
    axes.set_yticks(range(len(losses)), [format_fraction(loss) for loss in losses])
    axes.set_xlim(-0.5, len(rtts) - 0.5)
    axes.set_ylim(-0.5, len(losses) - 0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xlabel("RTT")
    axes.set_ylabel("loss")


def run_order(figure: "Figure", trials: Sequence[Trial], styles: Mapping[str, Style]) -> None:
    """The goodput of each trial over its number, as in the tables."""
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(trial.transport for trial in trials))
    axes = _legend_axes(figure, [short_label(name) for name in names])
    for name in names:
        look = styles[name]
        own = sorted((trial for trial in trials if trial.transport == name), key=lambda trial: trial.position)
        points = [(trial.position + 1, goodput_bps(trial)) for trial in own]
        axes.plot(*zip(*points, strict=True), color=look.color, linestyle=look.dash, linewidth=0.7, alpha=0.6)
        axes.plot(*zip(*points, strict=True), look.marker, color=look.color, label=short_label(name))
        marked = [point for point, trial in zip(points, own, strict=True) if trial.marks]
        if marked:
            axes.plot(*zip(*marked, strict=True), look.marker, color=look.color, markerfacecolor=SURFACE)
    rate_axis(axes, "y", [goodput_bps(trial) for trial in trials])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("number of the trial")
    legend(figure, axes, "upper center")


def _used(rows: Sequence[Row]) -> list[str]:
    return [key for key in REASONS if any(row.time_split is not None and row.time_split.by_kind()[key] for row in rows)]


def _bars_axes(figure: "Figure", rows: Sequence[Row], bottom: float) -> "Axes":
    """Axes with a line for each transport, the first at the top, and a margin of `bottom` inches below."""
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


def _available_series(trials: Sequence[Trial]) -> list[str]:
    return [key for key in _SERIES if any(_points(trial, key) for trial in trials)]


def _points(trial: Trial, key: str) -> list[tuple[float, float]]:
    if trial.series is None:
        return []
    values: Sequence[float | None] = getattr(trial.series, key)
    return [(t, value) for t, value in zip(trial.series.t_s, values, strict=False) if value is not None]
