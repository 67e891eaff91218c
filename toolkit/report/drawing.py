"""How a picture is drawn: one style, two file formats, and the same bytes each time.

No meaning hangs on colour alone: a transport has a colour, a marker and a line style of its own, in the order
of the campaign, and is named in words; areas are told apart by their hatching, too. Colours have a contrast of
3:1 or more to white and to the page's dark ground (WCAG 2.2, 1.4.11).

Pictures are the same byte for byte because nothing of the place comes in: matplotlib's own defaults and not
the user's, its own font, no date and no version in the file, ids from a fixed salt, and axes at fixed places.
"""

import html
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, SURFACE = "#1b1f26", "#5d6674", "#d6dae1", "#fefeff"
FIXED_INK = "#14171c"
"""Text on a ground of its own, which is the same on a dark page."""
TCP_TINT, UDP_TINT = "#f0b27a", "#8fc1ea"

_ON_PAGE = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", SURFACE: "var(--surface)"}
_DPI = 160
WIDTH = 5.0
"""Inches; on a small phone its text is just large enough then."""
HANDLE_EMS = 2.8
_EM, _CHARACTER = 9 / 72, 0.079
"""Inches, of the font's widest usual text at 9 points."""
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
    "hatch.linewidth": 0.8,
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


def style(position: int) -> Style:
    """Of the transport at that position of the campaign; they come again after the twelfth."""
    return STYLES[position % len(STYLES)]


@dataclass(frozen=True, slots=True)
class Picture:
    """What can be drawn, again and again.

    name:    of the file, without its ending
    group:   path and size as text where it is of those only, else ""
    title, caption: for people; the caption says how to read it
    size:    width and height, in inches
    draw:    onto an empty figure
    """

    name: str
    group: str
    title: str
    caption: str
    size: tuple[float, float]
    draw: Callable[["Figure"], None]


def is_available() -> bool:
    """Whether pictures can be drawn here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def render(picture: Picture, file_format: str) -> bytes:
    """The picture as "png" or "svg". Raises UsageError without matplotlib."""
    if not is_available():
        raise UsageError("pictures need matplotlib: pip install 'nettool[report]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _settings():
        figure = Figure(figsize=picture.size)
        FigureCanvasAgg(figure)
        picture.draw(figure)
        stream = io.BytesIO()
        metadata: dict[str, Any] = {"Software": None} if file_format == "png" else {"Date": None, "Creator": None}
        figure.savefig(stream, format=file_format, dpi=_DPI if file_format == "png" else 72, metadata=metadata)
    return stream.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that the font lacks is drawn as a box
        matplotlib.rcdefaults()
        settings: dict[Any, Any] = matplotlib.rcParams
        settings.update(_RC)
        yield


def inline(picture: Picture, prefix: str) -> str:
    """The picture as an SVG element for a page: its ids under `prefix`, its inks those of the page's theme."""
    text = render(picture, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{prefix}", text)
    for color, variable in _ON_PAGE.items():
        text = text.replace(color, variable)
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None, "matplotlib writes a viewBox"
    rest = text[text.index(">") + 1 :]
    links = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    alt = html.escape(f"{picture.title}. {picture.caption}")
    head = f'<svg {box[0]} role="img" aria-label="{alt}" xmlns="http://www.w3.org/2000/svg" {links}>'
    return re.sub(r"\n\s*\n+", "\n", head + rest).strip()


def text_inches(names: Sequence[str]) -> float:
    """How much room the longest of them takes, at most."""
    return _CHARACTER * max((len(name) for name in names), default=0)


def legend_columns(names: Sequence[str]) -> int:
    """As many as fit side by side."""
    each = (HANDLE_EMS + 2.4) * _EM + text_inches(names)
    return max(1, min(len(names), int((WIDTH - 0.1) / each)))


def legend_inches(names: Sequence[str]) -> float:
    """The height of a legend of these names."""
    return 0.12 + 0.2 * -(-len(names) // legend_columns(names)) if names else 0.0


def legend(figure: "Figure", axes: "Axes", place: Literal["upper center", "lower center"]) -> None:
    """What the axes have named, outside of them, above or below."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc=place, ncols=legend_columns(names), borderaxespad=0.3)


def direct_labels(axes: "Axes", labels: Sequence[tuple[float, float, str, str]], gap: float = 0.062) -> None:
    """Names at the right edge, one for each (x, y, text, color), moved apart where they would overlap.

    The limits of the axes must be final. `gap` is the least distance, as a share of the height.
    """
    points: list[tuple[float, float, str, str]] = []
    for x, y, text, color in labels:
        left, height = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        points.append((float(height), float(left), text, color))
    points.sort(key=lambda point: point[0])
    places = spread([point[0] for point in points], gap)
    for (height, left, text, color), place in zip(points, places, strict=True):
        axes.plot(
            [left, 1.015, 1.04],
            [height, place, place],
            color=color,
            linewidth=0.7,
            transform=axes.transAxes,
            clip_on=False,
            zorder=1,
        )
        axes.text(1.05, place, text, transform=axes.transAxes, va="center", ha="left", fontsize=9)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places from 0 to 1, moved as little as may be until each is `gap` from the next."""
    if len(places) * gap > 1:
        gap = 1 / len(places)
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else max(place, 0.0))
    limit = 1.0
    for number in range(len(moved) - 1, -1, -1):
        moved[number] = min(moved[number], limit)
        limit = moved[number] - gap
    return moved
