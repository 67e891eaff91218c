"""The pictures of a campaign: which there are, what they are called, and their files.

Across paths there are the ratios with their intervals, goodput against loss, and the ratio over RTT and loss; the last
two need paths that differ in those settings only. For one path and size there are goodput with its interval, where the
time went, the course of a transfer, completion times, goodput against delay, and goodput in the order of the trials. A
picture that would show next to nothing is not made: two points, or the course of a transfer of which there are a few
samples. Only the ratios show the A/A control, which repeats the baseline.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path

from toolkit.comparison.diagnosis import MIN_SAMPLES
from toolkit.comparison.records import CONTROL_SUFFIX, Campaign, Trial
from toolkit.comparison.rows import Row, median_trial
from toolkit.comparison.summary import Summary
from toolkit.errors import TransferError, printable_path
from toolkit.output_files import open_output
from toolkit.report import figures, picture_data
from toolkit.report.drawing import MARK, WIDTH, Picture, Style, legend_inches, render, styles
from toolkit.report.labels import label, path_label, short_label

OPTION = "--pictures"
"""The option that names the folder of the pictures."""
_AXES = ("rate", "rtt", "loss")
"""Options of a link that other settings of its path repeat."""
_IGNORED_SETTINGS = ("text", "seed", "ideal_bps", "link", "loss")
"""Settings of a path that may differ between the points of one picture over loss."""
_MIN_CELLS, _MIN_POINTS, _MIN_TRIALS = 2, 3, 6
"""A picture has that many cells, points, or trials of each transport, or it is not made."""
_ACROSS_PATHS_SIZE = (WIDTH, 3.4)
_ROW_INCHES = 0.42
_PLOT_INCHES = 2.9

_CellKey = tuple[str, int]
"""Path and size."""


def pictures(summary: Summary) -> list[Picture]:
    """All pictures that the campaign has figures for; those across paths come first."""
    campaign = summary.results.campaign
    rows = [row for row in summary.rows if not row.is_control]
    names = [name for name in campaign.transports if not name.endswith(CONTROL_SUFFIX)]
    looks = styles(names)
    over_loss, covered = _over_loss(campaign, rows, looks)
    made = [*_ratios(summary.rows, looks), *over_loss, *_over_rtt_and_loss(campaign, rows)]
    for path in campaign.paths:
        for size in campaign.sizes:
            trials = [
                trial
                for trial in summary.results.trials
                if (trial.path, trial.payload_bytes) == (path, size) and trial.block >= 0 and trial.transport in looks
            ]
            in_cell = [row for row in rows if (row.path, row.payload_bytes) == (path, size)]
            group = f"{path_label(path)}, {campaign.content_text(size)}"
            made += _of_one_cell(group, _Cell(in_cell, trials, looks), has_goodput=(path, size) not in covered)
    return _with_unique_names(campaign.name, made)


def write_pictures(summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """Write each picture as PNG and as SVG; return the paths of the files.

    Raises UsageError without matplotlib, or where a file has the name that nettool did not write; TransferError if a
    file cannot be written.
    """
    taken: set[str] = set()
    paths = []
    for picture in [picture for summary in summaries for picture in pictures(summary)]:
        stem = _claim_name(picture.name, taken)
        for file_format in ("png", "svg"):
            path = folder / f"{stem}.{file_format}"
            content = render(picture, file_format)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with open_output(path, OPTION, MARK) as file:
                    file.write(content)
            except OSError as error:
                raise TransferError(
                    f"cannot write {printable_path(path)}: {error.strerror}; choose another folder"
                ) from None
            paths.append(path)
    return paths


def _ratios(rows: Sequence[Row], looks: Mapping[str, Style]) -> list[Picture]:
    """The verdicts of several paths or sizes on one scale."""
    chosen = [row for row in rows if row.ratio is not None]
    if len({(row.path, row.payload_bytes) for row in chosen}) < _MIN_CELLS:
        return []
    return [
        Picture(
            name="ratios",
            group="",
            title="Ratio of goodputs on every path",
            caption=(
                "A dot for each block, and the median with its 95% interval. The band is the margin; grey is the A/A "
                "control, the baseline against itself."
            ),
            size=(WIDTH, 0.75 + figures.ratio_inches(chosen)),
            draw=partial(figures.ratios, rows=chosen, styles=looks),
            data=picture_data.of_ratios(chosen),
        )
    ]


def _over_loss(
    campaign: Campaign, rows: Sequence[Row], looks: Mapping[str, Style]
) -> tuple[list[Picture], set[_CellKey]]:
    """Goodput against loss, and the cells that these pictures show."""
    made: list[Picture] = []
    covered: set[_CellKey] = set()
    for paths in _alike(campaign, _IGNORED_SETTINGS):
        losses = {campaign.paths[path].loss: path for path in reversed(paths)}
        if len(losses) < 2:
            continue
        for size in campaign.sizes:
            chosen = [row for row in rows if row.path in losses.values() and row.payload_bytes == size]
            if not any(row.goodput_bps for row in chosen):
                continue
            covered |= {(path, size) for path in losses.values()}
            made.append(
                Picture(
                    name="goodput-against-loss",
                    group="",
                    title=f"Goodput against loss, {_rtt_and_size(campaign, paths[0], size)}",
                    caption=(
                        "Median goodput of each transport at each loss rate; the band is the 95% interval. "
                        "Where a point is hollow, every trial is marked. The dotted line is the path's capacity."
                    ),
                    size=_ACROSS_PATHS_SIZE,
                    draw=partial(figures.goodput_against_loss, campaign=campaign, rows=chosen, styles=looks),
                    data=picture_data.of_goodput(chosen),
                )
            )
    return made, covered


def _over_rtt_and_loss(campaign: Campaign, rows: Sequence[Row]) -> list[Picture]:
    """A heat map for each transport but the baseline."""
    made = []
    rivals = [
        name
        for name, settings in campaign.transports.items()
        if not settings.is_yardstick and name != campaign.baseline and not name.endswith(CONTROL_SUFFIX)
    ]
    for paths in _grids(campaign):
        settings = [campaign.paths[path] for path in paths]
        if len({one.loss for one in settings}) < 2 or len({one.rtt_ms for one in settings} - {None}) < 2:
            continue
        for size in campaign.sizes:
            for rival in rivals:
                chosen = [r for r in rows if r.path in paths and r.payload_bytes == size and r.transport == rival]
                if any(row.ratio for row in chosen):
                    made.append(_heat_map(campaign, chosen, rival, size))
    return made


def _heat_map(campaign: Campaign, rows: Sequence[Row], rival: str, size: int) -> Picture:
    return Picture(
        name=f"ratio-{_slug(rival)}",
        group="",
        title=f"{label(rival)} / {label(campaign.baseline)} over RTT and loss, {campaign.content_text(size)}",
        caption=(
            f"Ratio of goodputs: above 1, {label(rival)} is faster. The thick line is the crossover, where both are "
            "equal. Hatched cells have the verdict faster; ratios in brackets are inconclusive or no claim."
        ),
        size=_ACROSS_PATHS_SIZE,
        draw=partial(figures.ratio_heat_map, campaign=campaign, rows=rows),
        data=picture_data.of_ratios(rows),
    )


@dataclass(frozen=True, slots=True)
class _Cell:
    """What the pictures of one path and size are drawn from. `trials`: all of them, without the warm-up."""

    rows: Sequence[Row]
    trials: Sequence[Trial]
    styles: Mapping[str, Style]

    @property
    def legend_inches(self) -> float:
        return legend_inches([short_label(row.transport) for row in self.rows])


def _of_one_cell(group: str, cell: _Cell, has_goodput: bool) -> list[Picture]:
    if not any(row.goodput_bps for row in cell.rows):
        return []
    made = [
        _goodput(cell) if has_goodput and len(cell.rows) >= _MIN_POINTS else None,
        _time_split(cell),
        _course(cell),
        _completion(cell),
        _goodput_against_delay(cell),
        _run_order(cell),
    ]
    return [replace(picture, group=group) for picture in made if picture is not None]


def _goodput(cell: _Cell) -> Picture:
    return Picture(
        name="goodput",
        group="",
        title="Goodput",
        caption="Median and 95% interval. Where a point is hollow, every trial is marked.",
        size=(WIDTH, 1.0 + _ROW_INCHES * len(cell.rows)),
        draw=partial(figures.goodput, rows=cell.rows, styles=cell.styles),
        data=picture_data.of_goodput(cell.rows),
    )


def _time_split(cell: _Cell) -> Picture | None:
    rows = [row for row in cell.rows if row.time_split]
    if not rows:
        return None
    return Picture(
        name="time",
        group="",
        title="Where the time went",
        caption="Mean over the transfers of each transport, from the first connect to the verified digest.",
        size=(WIDTH, 0.55 + figures.reasons_inches(rows) + _ROW_INCHES * len(rows)),
        draw=partial(figures.time_split, rows=rows),
        data=picture_data.of_time(rows),
    )


def _course(cell: _Cell) -> Picture | None:
    medians = [
        median_trial([t for t in cell.trials if t.transport == row.transport and t.is_counted]) for row in cell.rows
    ]
    trials = [
        trial
        for trial in medians
        if trial is not None and trial.series is not None and len(trial.series.t_s) >= MIN_SAMPLES
    ]
    if not trials:
        return None
    return Picture(
        name="course",
        group="",
        title="Course of the transfer",
        caption="The median transfer of each transport: bytes delivered, congestion window, and RTT.",
        size=(WIDTH, 0.6 + cell.legend_inches + 1.5 * figures.panel_count(trials)),
        draw=partial(figures.course, trials=trials, styles=cell.styles),
        data=picture_data.of_course(trials),
    )


def _completion(cell: _Cell) -> Picture | None:
    names = [trial.transport for trial in cell.trials]
    trials = [trial for trial in cell.trials if names.count(trial.transport) >= _MIN_TRIALS]
    if not any(trial.is_counted and trial.payload_bytes for trial in trials):  # timed trials all take their time
        return None
    return Picture(
        name="completion",
        group="",
        title="Completion times",
        caption=(
            "Share of transfers completed by each time. Further left is faster; steeper is more consistent; where a "
            "line ends below 100%, transfers failed."
        ),
        size=(WIDTH, _PLOT_INCHES + cell.legend_inches),
        draw=partial(figures.completion, trials=trials, styles=cell.styles),
        data=picture_data.of_completion(trials),
    )


def _goodput_against_delay(cell: _Cell) -> Picture | None:
    rows = [row for row in cell.rows if row.delay_ms and row.goodput_bps]
    if len(rows) < _MIN_POINTS:
        return None
    return Picture(
        name="delay",
        group="",
        title="Goodput against delay",
        caption="The delay is the 95th percentile of a ping during the transfer. Up and to the left is better.",
        size=(WIDTH, _PLOT_INCHES + cell.legend_inches),
        draw=partial(figures.goodput_against_delay, rows=rows, styles=cell.styles),
        data=picture_data.of_delay(rows),
    )


def _run_order(cell: _Cell) -> Picture | None:
    names = [trial.transport for trial in cell.trials]
    trials = [t for t in cell.trials if t.is_counted and names.count(t.transport) >= _MIN_TRIALS]
    if not trials:
        return None
    return Picture(
        name="order",
        group="",
        title="In the order of the trials",
        caption="A trend is drift: the machine, not the transport, changed. Hollow points are marked.",
        size=(WIDTH, _PLOT_INCHES + cell.legend_inches),
        draw=partial(figures.run_order, trials=trials, styles=cell.styles),
        data=picture_data.of_order(trials),
    )


def _alike(campaign: Campaign, ignored: Sequence[str]) -> list[list[str]]:
    """Labels of the paths with a loss rate, grouped by all their settings but the ignored ones."""
    groups: dict[str, list[str]] = {}
    for path, settings in campaign.paths.items():
        if settings.loss is not None:
            options = sorted((name, str(value)) for name, value in settings.link.items() if name not in _AXES)
            rest = [(name, value) for name, value in asdict(settings).items() if name not in ignored]
            groups.setdefault(repr((options, rest)), []).append(path)
    return list(groups.values())


def _grids(campaign: Campaign) -> list[list[str]]:
    """Labels of the paths, grouped so that each group has one path for each RTT and loss rate.

    The queue may differ within a group if it depends on the RTT alone; otherwise each queue has a group of its own.
    """
    grids = []
    for paths in _alike(campaign, (*_IGNORED_SETTINGS, "rtt_ms", "queue")):
        points = {(campaign.paths[path].rtt_ms, campaign.paths[path].loss) for path in paths}
        if len(points) == len(paths):
            grids.append(paths)
        else:
            queues = {campaign.paths[path].queue: None for path in paths}
            grids += [[p for p in paths if campaign.paths[p].queue == queue] for queue in queues]
    return grids


def _rtt_and_size(campaign: Campaign, path: str, size: int) -> str:
    rtt_ms = campaign.paths[path].rtt_ms
    content = campaign.content_text(size)
    return f"{rtt_ms:g} ms, {content}" if rtt_ms is not None else content


def _with_unique_names(campaign_name: str, made: Sequence[Picture]) -> list[Picture]:
    """Each picture under the name of its campaign, its group and itself."""
    taken: set[str] = set()
    named = []
    for picture in made:
        name = "-".join(part for part in (_slug(campaign_name), _slug(picture.group), picture.name) if part)
        named.append(replace(picture, name=_claim_name(name, taken)))
    return named


def _claim_name(name: str, taken: set[str]) -> str:
    """`name`, or `name-2`, `name-3` and so on if it is taken. Adds the result to `taken`."""
    candidates = chain([name], (f"{name}-{number}" for number in count(2)))
    free = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(free)
    return free


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60]
