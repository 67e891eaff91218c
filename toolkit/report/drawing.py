"""What the figures share: one style, axes with units, legends, and rendering that gives the same bytes each time.

No meaning depends on colour alone. Each transport has its own colour, marker and line style, the same in all campaigns,
and is named in words; areas differ in hatching too. Colours have a contrast of at least 3:1 with white and
with the page's dark background (WCAG 2.2, 1.4.11).

Output is reproducible because nothing depends on the machine: matplotlib's own defaults replace the user's, the font
ships with matplotlib, files have no date or version, ids come from a fixed salt, and axes have fixed positions.
"""

import html
import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import UsageError
from toolkit.units import format_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, SURFACE = "#1b1f26", "#5d6674", "#d6dae1", "#fefeff"
FIXED_INK = "#14171c"
"""Text on a background that stays the same on a dark page."""
TCP_TINT, UDP_TINT = "#f0b27a", "#8fc1ea"
MARGIN_TINT = "#dff0e5"

MARK = b"Made by nettool"
"""In the head of every picture; see `toolkit.output_files`."""
_ON_PAGE = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    SURFACE: "var(--surface)",
    MARGIN_TINT: "var(--band)",
}
_DPI = 160
WIDTH = 5.0
"""Inches; at this width the text is still legible on a small phone."""
HANDLE_EMS = 2.8
_EM, _CHARACTER = 9 / 72, 0.079
"""Inches, for text of 9 points; the second is the width of a wide character."""
LOG_FROM = 8
"""A scale is logarithmic if the largest value is at least this many times the smallest."""
_TICK_STEPS = (1, 2, 5)
_RC: dict[str, Any] = {
    "svg.hashsalt": "nettool",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": SURFACE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "figure.facecolor": SURFACE,
    "savefig.facecolor": SURFACE,
    "hatch.linewidth": 1.1,
    "legend.frameon": False,
    "legend.handlelength": HANDLE_EMS,
    "legend.fontsize": 9,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True, slots=True)
class Style:
    """How one transport is drawn."""

    color: str
    marker: str
    dash: Any


STYLES: Sequence[Style] = (
    Style("#c8660a", "o", "-"),
    Style("#2878cc", "s", (0, (6, 1.5))),
    Style("#15906a", "^", (0, (1.5, 1.2))),
    Style("#b8489a", "D", (0, (6, 1.5, 1.5, 1.5))),
    Style("#7f5fd0", "v", (0, (3, 1.5))),
    Style("#0d8a9c", "P", (0, (8, 1.5, 1.5, 1.5, 1.5, 1.5))),
    Style("#d04545", "X", (0, (4, 1, 1, 1))),
    Style("#85800f", "*", (0, (1, 2.5))),
    Style("#6b7686", "<", (0, (10, 2))),
    Style("#9a5b3a", ">", (0, (2, 2))),
    Style("#4f74c9", "p", (0, (7, 1, 2, 1))),
    Style("#a06f12", "h", (0, (5, 3))),
)


_USUAL = (
    "tcp-cubic",
    "udp-bbr",
    "tcp-bbr",
    "udp-cubic",
    "quic",
    "iperf3-tcp",
    "cp",
    "tcp-reno",
    "udp-newreno",
    "iperf3-udp",
    "tcp-cubic+plaintext",
    "udp-bbr+plaintext",
)
"""Transports that have the style of their position here in every campaign."""


def styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for each transport. A usual one has the same in every campaign.

    Others have one that follows from their name, or the next that is free; with more names than styles, styles repeat.
    """
    chosen = {name: STYLES[_USUAL.index(name)] for name in names if name in _USUAL}
    for name in dict.fromkeys(names):
        if name not in chosen:
            first = zlib.crc32(name.encode()) % len(STYLES)
            turns = [*STYLES[first:], *STYLES[:first]]
            chosen[name] = next((look for look in turns if look not in chosen.values()), turns[0])
    return {name: chosen[name] for name in names}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that can be drawn any number of times.

    name:           file name without suffix
    group:          the path and size that it shows, or "" for a picture across paths
    title, caption: what it shows, and how to read it
    size:           width and height in inches
    draw:           draws onto an empty figure
    data:           what it shows as rows of text, the first with the headings: for those who cannot see it
    """

    name: str
    group: str
    title: str
    caption: str
    size: tuple[float, float]
    draw: Callable[["Figure"], None]
    data: Sequence[Sequence[str]] = ()


def is_available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def render(picture: Picture, file_format: str) -> bytes:
    """The picture as a "png" or "svg" file. Raises UsageError without matplotlib."""
    if not is_available():
        raise UsageError("pictures need matplotlib: pip install 'nettool[report]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _settings():
        figure = Figure(figsize=picture.size)
        FigureCanvasAgg(figure)
        picture.draw(figure)
        stream = io.BytesIO()
        made_by: dict[str, Any] = (
            {"Software": MARK.decode()} if file_format == "png" else {"Date": None, "Creator": None}
        )
        figure.savefig(stream, format=file_format, dpi=_DPI if file_format == "png" else 72, metadata=made_by)
    content = stream.getvalue()
    return content if file_format == "png" else content.replace(b"?>\n", b"?>\n<!-- " + MARK + b" -->\n", 1)


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib warns of missing glyphs, which it draws as boxes
        matplotlib.rcdefaults()
        settings: dict[Any, Any] = matplotlib.rcParams
        settings.update(_RC)
        yield


def inline(picture: Picture, prefix: str) -> str:
    """The picture as an SVG element for a page, with `prefix` before its ids and the colours of the page's theme."""
    text = render(picture, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{prefix}", text)
    for color, variable in _ON_PAGE.items():
        text = text.replace(color, variable)
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    rest = text[text.index(">") + 1 :]
    links = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    alt = html.escape(f"{picture.title}. {picture.caption}")
    head = f'<svg {box[0]} role="img" aria-label="{alt}" xmlns="http://www.w3.org/2000/svg" {links}>'
    return re.sub(r"\n\s*\n+", "\n", head + rest).strip()


Which = Literal["x", "y"]


_RATE_UNITS = ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1.0, "bit/s"))
_TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def rate_axis(axes: "Axes", which: Which, values_bps: Sequence[float]) -> None:
    """Scale and label an axis for goodput. A linear scale starts at 0."""
    _scale(axes, which, values_bps, "goodput", _RATE_UNITS)


def time_axis(axes: "Axes", which: Which, values_s: Sequence[float], name: str = "time") -> None:
    """Scale and label an axis for durations."""
    _scale(axes, which, values_s, name, _TIME_UNITS)


def size_axis(axes: "Axes", which: Which, name: str) -> None:
    """Label an axis of bytes, with ticks at powers of two; its limits must be set."""
    from matplotlib.ticker import FuncFormatter

    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    step = 1.0
    while step * 4 < high - low:
        step *= 2
    axis.set_ticks([step * n for n in range(int(high // step) + 1)])
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_size(value)))
    _name(axes, which, name)


def _scale(axes: "Axes", which: Which, values: Sequence[float], name: str, units: Sequence[tuple[float, str]]) -> None:
    """Set limits, ticks and the name of an axis, with one unit for all ticks: units beside each would collide."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    axis = axes.yaxis if which == "y" else axes.xaxis
    set_limits = axes.set_ylim if which == "y" else axes.set_xlim
    is_log = high / low >= LOG_FROM
    if is_log:
        if which == "y":
            axes.set_yscale("log")
        else:
            axes.set_xscale("log")
        set_limits(low / 1.4, high * 1.4)
        axis.set_major_locator(FixedLocator(_log_ticks(low / 1.4, high * 1.4)))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        set_limits(0, high * 1.12)
        if which == "x":
            axis.set_major_locator(FixedLocator(_linear_ticks(high * 1.12)))
    factor, unit = next((pair for pair in units if high >= pair[0]), units[-1])
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / factor:.6g}"))
    _name(axes, which, f"{name} ({unit}, logarithmic)" if is_log else f"{name} ({unit})")


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 in each decade, or fewer if there would be more than six ticks."""
    for steps in (_TICK_STEPS, (1, 3), (1,)):
        exponents = range(-12, 16)
        ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
        kept = [tick for tick in ticks if low <= tick <= high]
        if len(kept) <= 6:
            break
    return kept


def _linear_ticks(high: float) -> list[float]:
    """At most six ticks, because labels with units are wide."""
    step = next(
        step * 10.0**exponent
        for exponent in range(-12, 16)
        for step in _TICK_STEPS
        if high / (step * 10.0**exponent) <= 5
    )
    return [step * n for n in range(int(high / step) + 1)]


def _name(axes: "Axes", which: Which, name: str) -> None:
    if which == "y":
        axes.set_ylabel(name)
    else:
        axes.set_xlabel(name)


def text_inches(names: Sequence[str]) -> float:
    """Upper bound on the width of the longest name."""
    return _CHARACTER * max((len(name) for name in names), default=0)


def legend_columns(names: Sequence[str]) -> int:
    """Number of columns of a legend of these names."""
    each = (HANDLE_EMS + 2.4) * _EM + text_inches(names)
    return max(1, min(len(names), int((WIDTH - 0.1) / each)))


def legend_inches(names: Sequence[str]) -> float:
    """Height of a legend of these names."""
    return 0.12 + 0.2 * -(-len(names) // legend_columns(names)) if names else 0.0


def legend(figure: "Figure", axes: "Axes", where: Literal["upper center", "lower center"]) -> None:
    """Add a legend of the labelled artists above or below the axes."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc=where, ncols=legend_columns(names), borderaxespad=0.3)


def direct_labels(axes: "Axes", labels: Sequence[tuple[float, float, str, str]], gap: float = 0.062) -> None:
    """Label points at the right edge of the axes, one for each (x, y, text, color), without overlap.

    The limits of the axes must be final. `gap` is the minimum distance between labels, as a share of the height.
    """
    points: list[tuple[float, float, str, str]] = []
    for x, y, text, color in labels:
        left, height = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        points.append((float(height), float(left), text, color))
    points.sort(key=lambda point: point[0])
    positions = spread([point[0] for point in points], gap)
    for (height, left, text, color), position in zip(points, positions, strict=True):
        axes.plot(
            [left, 1.015, 1.04],
            [height, position, position],
            color=color,
            linewidth=0.7,
            transform=axes.transAxes,
            clip_on=False,
            zorder=1,
        )
        axes.text(1.05, position, text, transform=axes.transAxes, va="center", ha="left", fontsize=9)


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move ascending positions between 0 and 1 apart until each is at least `gap` from the next.

    If they do not all fit, they are spaced evenly.
    """
    if len(positions) * gap > 1:
        gap = 1 / len(positions)
    moved: list[float] = []
    for position in positions:
        moved.append(max(position, moved[-1] + gap) if moved else max(position, 0.0))
    limit = 1.0
    for number in range(len(moved) - 1, -1, -1):
        moved[number] = min(moved[number], limit)
        limit = moved[number] - gap
    return moved
