"""Which pictures a campaign has, and their files. Like the tables they are made from the records and nothing else.

Over all paths: goodput against loss, and the ratio over RTT and loss, where paths differ in those and in
nothing else. For one path at one size: goodput with its interval, where the time went, how the transfer ran,
completion times, and goodput against delay. The A/A control is left out, for it is the baseline.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from toolkit.compare.comparison import Row, summarise
from toolkit.compare.records import CONTROL_SUFFIX, Campaign, Results, Trial
from toolkit.errors import TransferError, printable
from toolkit.report import plots_cell, plots_grid
from toolkit.report.drawing import WIDTH, Picture, Style, legend_inches, render, style
from toolkit.report.labels import label, short_label
from toolkit.units import format_size

_OWN_TO_A_PATH = ("text", "seed", "ideal_bps", "link", "loss")
_WIDE = (WIDTH, 3.4)


def pictures(results: Results) -> list[Picture]:
    """Those that the campaign has figures for, the ones over all paths first."""
    campaign = results.campaign
    rows = [row for row in summarise(results).rows if not row.is_control]
    names = [name for name in campaign.transports if not name.endswith(CONTROL_SUFFIX)]
    styles = {name: style(number) for number, name in enumerate(names)}
    made = _over_loss(campaign, rows, styles)
    covered = {(path, size) for _, cells in made for path, size in cells}
    drawn = [picture for picture, _ in made]
    drawn += _over_rtt_and_loss(campaign, rows)
    for path in campaign.paths:
        for size in campaign.sizes:
            cell = [row for row in rows if (row.path, row.payload_bytes) == (path, size)]
            trials = [
                trial
                for trial in results.trials
                if (trial.path, trial.payload_bytes) == (path, size) and trial.is_counted and trial.transport in styles
            ]
            drawn += _of_one_cell(cell, trials, styles, (path, size) in covered)
    return _named(campaign.name, drawn)


def write_pictures(files: Sequence[Results], folder: Path) -> list[Path]:
    """Each picture as PNG and as SVG; the paths of the files. Raises UsageError without matplotlib.

    Raises TransferError where the folder does not take them.
    """
    drawn = [picture for results in files for picture in pictures(results)]
    taken: set[str] = set()
    paths = []
    for picture in drawn:
        stem = _free(picture.name, taken)
        for file_format in ("png", "svg"):
            path = folder / f"{stem}.{file_format}"
            content = render(picture, file_format)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except OSError as error:
                raise TransferError(
                    f"cannot write {printable(str(path))}: {error.strerror}; choose another folder"
                ) from None
            paths.append(path)
    return paths


def _over_loss(
    campaign: Campaign, rows: Sequence[Row], styles: Mapping[str, Style]
) -> list[tuple[Picture, list[tuple[str, int]]]]:
    """With the cells that each shows."""
    made = []
    for paths in _alike(campaign, _OWN_TO_A_PATH):
        losses = {campaign.paths[path]["loss"]: path for path in reversed(paths)}
        if len(losses) < 2:
            continue
        for size in campaign.sizes:
            chosen = [row for row in rows if row.path in losses.values() and row.payload_bytes == size]
            if not any(row.goodput_bps for row in chosen):
                continue
            where = _where(campaign, paths[0], size)
            picture = Picture(
                name="goodput-against-loss",
                group="",
                title=f"Goodput against loss, {where}",
                caption=(
                    "Median goodput of each transport at each rate of loss; the band is the 95% interval. "
                    "Hollow points are marked, and have no verdict. The dotted line is what the path carries."
                ),
                size=_WIDE,
                draw=_bound(plots_grid.goodput_against_loss, campaign, chosen, styles),
            )
            made.append((picture, [(path, size) for path in losses.values()]))
    return made


def _over_rtt_and_loss(campaign: Campaign, rows: Sequence[Row]) -> list[Picture]:
    made = []
    rivals = [
        name
        for name, settings in campaign.transports.items()
        if settings.get("transport") == "udp" and name != campaign.baseline and not name.endswith(CONTROL_SUFFIX)
    ]
    for paths in _grids(campaign):
        kinds = [campaign.paths[path] for path in paths]
        if len({kind["loss"] for kind in kinds}) < 2 or len({kind.get("rtt_ms") for kind in kinds} - {None}) < 2:
            continue
        for size in campaign.sizes:
            for rival in rivals:
                chosen = [r for r in rows if r.path in paths and r.payload_bytes == size and r.transport == rival]
                if not any(row.ratio for row in chosen):
                    continue
                names = f"{label(rival)} / {label(campaign.baseline)}"
                made.append(
                    Picture(
                        name=f"ratio-{_slug(rival)}",
                        group="",
                        title=f"{names} over RTT and loss, {format_size(size)}",
                        caption=(
                            f"The ratio of goodputs: above 1, {label(rival)} is the faster one. "
                            "The thick line is the crossover, where both are alike; hatched: a verdict of faster; "
                            "in brackets: no claim."
                        ),
                        size=_WIDE,
                        draw=_bound(plots_grid.ratio_heat_map, campaign, chosen),
                    )
                )
    return made


def _of_one_cell(
    cell: Sequence[Row],
    trials: Sequence[Trial],
    styles: Mapping[str, Style],
    is_covered: bool,
) -> list[Picture]:
    if not any(row.goodput_bps for row in cell):
        return []
    group = f"{label(cell[0].path)}, {format_size(cell[0].payload_bytes)}"
    timed = [row for row in cell if row.reasons]
    middles = [trial for row in cell if (trial := _middle(trials, row.transport)) and (trial.series or {}).get("t_s")]
    many = [trial for trial in trials if sum(other.transport == trial.transport for other in trials) > 1]
    delayed = [row for row in cell if row.delay_ms and row.goodput_bps]
    spaced = 1.0 + 0.42 * len(cell)
    above = legend_inches([short_label(row.transport) for row in cell])
    made = []
    if not is_covered:
        made.append(
            Picture(
                "goodput",
                group,
                "Goodput",
                "Median and 95% interval. Hollow points are marked, and have no verdict.",
                (WIDTH, spaced),
                _bound(plots_cell.goodput, cell, styles),
            )
        )
    if timed:
        made.append(
            Picture(
                "time",
                group,
                "Where the time went",
                "The median transfer of each transport, from the first connect to the verified digest.",
                (WIDTH, 0.55 + plots_cell.reasons_inches(timed) + 0.42 * len(timed)),
                _bound(plots_cell.time_split, timed),
            )
        )
    if middles:
        made.append(
            Picture(
                "course",
                group,
                "How the transfer ran",
                "The median transfer of each transport: what had arrived, the congestion window, and the RTT.",
                (WIDTH, 0.6 + above + 1.5 * plots_cell.panels(middles)),
                _bound(plots_cell.course, middles, styles),
            )
        )
    if many:
        made.append(
            Picture(
                "completion",
                group,
                "Completion times",
                "The share of transfers that were done by then; further left is better, steeper is steadier.",
                (WIDTH, 2.9 + above),
                _bound(plots_cell.completion, many, styles),
            )
        )
    if delayed:
        made.append(
            Picture(
                "delay",
                group,
                "Goodput against delay",
                "The 95th percentile of a ping beside the transfer; up and to the left is better.",
                (WIDTH, 2.9 + above),
                _bound(plots_cell.goodput_against_delay, delayed, styles),
            )
        )
    return made


def _middle(trials: Sequence[Trial], transport: str) -> Trial | None:
    """The trial with the median time, of those without marks where there are such."""
    own = [trial for trial in trials if trial.transport == transport]
    own = [trial for trial in own if not trial.marks] or own
    ordered = sorted(own, key=lambda trial: (trial.seconds or 0.0, trial.block))
    return ordered[len(ordered) // 2] if ordered else None


def _alike(campaign: Campaign, except_for: Sequence[str]) -> list[list[str]]:
    """Labels of paths that differ in nothing but that, and have a rate of loss."""
    groups: dict[str, list[str]] = {}
    for path, settings in campaign.paths.items():
        if isinstance(settings.get("loss"), int | float):
            key = repr(sorted((name, repr(value)) for name, value in settings.items() if name not in except_for))
            groups.setdefault(key, []).append(path)
    return list(groups.values())


def _grids(campaign: Campaign) -> list[list[str]]:
    """Labels of paths that differ in RTT and loss, and in the queue only where that goes with the RTT."""
    grids = []
    for paths in _alike(campaign, (*_OWN_TO_A_PATH, "rtt_ms", "queue")):
        points = {(campaign.paths[path].get("rtt_ms"), campaign.paths[path]["loss"]) for path in paths}
        if len(points) == len(paths):
            grids.append(paths)
        else:
            queues = {repr(campaign.paths[path].get("queue")): None for path in paths}
            grids += [[p for p in paths if repr(campaign.paths[p].get("queue")) == queue] for queue in queues]
    return grids


def _where(campaign: Campaign, path: str, size: int) -> str:
    settings = campaign.paths[path]
    parts = []
    if isinstance(settings.get("rtt_ms"), int | float):
        parts.append(f"{settings['rtt_ms']:g} ms")
    return ", ".join([*parts, format_size(size)])


def _bound(draw: Callable[..., None], *arguments: Any) -> Callable[[Any], None]:
    return lambda figure: draw(figure, *arguments)


def _named(campaign_name: str, drawn: Sequence[Picture]) -> list[Picture]:
    """Each under a name of its own, made of the campaign's, the group's and the picture's."""
    taken: set[str] = set()
    named = []
    for picture in drawn:
        name = "-".join(part for part in (_slug(campaign_name), _slug(picture.group), picture.name) if part)
        named.append(replace(picture, name=_free(name, taken)))
    return named


def _free(name: str, taken: set[str]) -> str:
    """`name`, or with the first number from 2 on that makes it one that is not taken; it is from now on."""
    numbered = (f"{name}-{number}" for number in count(2))
    free = next(one for one in chain([name], numbered) if one not in taken)
    taken.add(free)
    return free


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60]
