"""Pictures over several paths: goodput against loss, and the ratio over RTT and loss."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from toolkit.compare.comparison import FASTER, NO_CLAIM, Row
from toolkit.compare.records import Campaign
from toolkit.report.axes import rate_axis
from toolkit.report.drawing import (
    FIXED_INK,
    MUTED,
    SURFACE,
    TCP_TINT,
    UDP_TINT,
    WIDTH,
    Style,
    direct_labels,
    text_inches,
)
from toolkit.report.labels import ratio, short_label
from toolkit.units import format_fraction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LOG2 = 4
"""Colours are at their strongest from 16 times on."""


def goodput_against_loss(
    figure: "Figure", campaign: Campaign, rows: Sequence[Row], styles: Mapping[str, Style]
) -> None:
    """Equal steps along x for each rate of loss, so that 0 and 0.1% are apart."""
    shown = [short_label(row.transport) for row in rows]
    right = min(0.4 + text_inches(shown), 0.4 * WIDTH) / WIDTH
    axes = figure.add_axes((0.205, 0.15, 0.795 - right, 0.81))
    losses = sorted({campaign.paths[row.path]["loss"] for row in rows})
    values = [row.goodput_bps.value for row in rows if row.goodput_bps]
    ideal = {campaign.paths[row.path]["loss"]: campaign.paths[row.path].get("ideal_bps") for row in rows}
    ideals = [(losses.index(loss), bps) for loss, bps in sorted(ideal.items()) if bps]
    names = []
    if ideals:
        axes.plot(*zip(*ideals, strict=True), color=MUTED, linestyle=(0, (1, 1.5)), linewidth=1.2)
        names.append((*ideals[-1], "the path", MUTED))
    for name, look in styles.items():
        own = [(losses.index(campaign.paths[row.path]["loss"]), row) for row in rows if row.transport == name]
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
    """A cell for each RTT and loss, with the ratio in it; the crossover by linear interpolation of its logarithm."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    axes = figure.add_axes((0.14, 0.15, 0.84, 0.81))
    told = [(row, row.ratio, campaign.paths[row.path]) for row in rows if row.ratio]
    rtts, losses = sorted({path["rtt_ms"] for _, _, path in told}), sorted({path["loss"] for _, _, path in told})
    grid = [[math.nan] * len(rtts) for _ in losses]
    colors = LinearSegmentedColormap.from_list("tcp-udp", [TCP_TINT, "#f7f7f5", UDP_TINT])
    for row, estimate, path in told:
        x, y = rtts.index(path["rtt_ms"]), losses.index(path["loss"])
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
        text = f"({ratio(estimate.value)})" if row.verdict == NO_CLAIM else ratio(estimate.value)
        ground = {"facecolor": colors(share), "edgecolor": "none", "pad": 1.5}  # the crossover passes beneath
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
