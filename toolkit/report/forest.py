"""Forest plots of ratios: for each transport one dot a block, the interval of the median, the margin, and A/A beside.

These plots decide, so they need no matplotlib and stand first on the page. They are SVG with horizontal positions in
per cent and text in HTML beside it, so that they are legible at any width. The scale is logarithmic, which gives twice
as fast and half as fast the same distance from 1, and each plot has its own. Every strip has a text alternative with
all of its figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.comparison.factorial import Factorial, effect_names
from toolkit.comparison.findings import PathVerdict
from toolkit.comparison.merge import MergedRow
from toolkit.comparison.rows import BASELINE, YARDSTICK, Row
from toolkit.comparison.stats import Estimate, Interval
from toolkit.comparison.verdict import EQUIVALENT, FASTER, INCONCLUSIVE, NO_CLAIM, SLOWER, Verdict
from toolkit.errors import printable
from toolkit.report.html import Html, element
from toolkit.report.labels import judged, label
from toolkit.units import format_ratio

SIGNS = {FASTER: "▲", SLOWER: "▼", EQUIVALENT: "=", INCONCLUSIVE: "~", NO_CLAIM: "?", BASELINE: "·", YARDSTICK: "·"}
_HEIGHT, _DOTS_TOP, _DOTS_BOTTOM, _BAR = 40, 6, 24, 33
"""Of a strip, in pixels: the dots of the first and the last block, and the interval below them."""
_LEFT, _RIGHT = 3.0, 97.0
"""Ends of the scale in per cent of the width; ratios of 0 and infinity stand outside."""
_TWO_SIDED = 1.96
"""How many standard deviations hold 95% of a normal distribution."""
_MAX_TICKS = 6
_WIDE = 2.5
"""A scale over a larger factor has the same ticks in each decade; a smaller one has them at equal distances."""
_STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True, slots=True)
class _Strip:
    """One line of a plot.

    kind, chip: classes of the style sheet: a verdict, "control" or "effect"
    dots:       ratios in order of time, each of a block, or of a run (`dot_name`)
    spread:     about 19 of 20 runs have their true ratio in it; None for one campaign
    """

    name: str
    words: str
    chip: str
    kind: str
    estimate: Estimate | None
    dots: Sequence[float]
    dot_name: str = "blocks"
    spread: Interval | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic scale of ratios."""

    low: float
    high: float

    def position(self, ratio: float) -> float:
        """Per cent of the width. Ratios of 0 and infinity get a place outside the scale."""
        if not ratio or math.isinf(ratio):
            return 99.0 if ratio else 1.0
        share = math.log(ratio / self.low) / math.log(self.high / self.low)
        return round(_LEFT + (_RIGHT - _LEFT) * min(max(share, 0.0), 1.0), 2)

    def ticks(self) -> list[float]:
        """At most _MAX_TICKS round ratios, 1 among them."""
        if self.high / self.low > _WIDE:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
                ticks = [d * 10.0**e for e in exponents for d in digits if self.low <= d * 10.0**e <= self.high]
                if len(ticks) <= _MAX_TICKS:
                    return ticks
            return ticks[:: math.ceil(len(ticks) / _MAX_TICKS)]
        step = next((s for s in _STEPS if (self.high - self.low) / s <= _MAX_TICKS), _STEPS[-1])
        return [round(n * step, 4) for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def forest(verdict: PathVerdict, baseline: str, margin: float) -> Html:
    """The plot of one path and size; empty if there is nothing to compare."""
    return _plot(_strips(verdict), baseline, margin)


def merged_forest(rows: Sequence[MergedRow], baseline: str, margin: float) -> Html:
    """The plot of several campaigns on one path at one size: a dot a run, and how much the runs differ."""
    ordered = sorted(rows, key=lambda row: row.is_control)
    return _plot([_of_merged(row) for row in ordered], baseline, margin)


def _plot(strips: Sequence[_Strip], baseline: str, margin: float) -> Html:
    if not strips:
        return Html("")
    scale = scale_for([ratio for strip in strips for ratio in _ratios(strip)], margin)
    lines = [_line(strip, scale, baseline, margin) for strip in strips]
    if not any(strip.estimate for strip in strips):
        return element("div", *lines, class_="forest")
    return element("div", *lines, _axis(scale, baseline), class_="forest")


def scale_for(ratios: Sequence[float], margin: float) -> Scale:
    """A scale that shows all these ratios, 1, and the margin with some room on both sides."""
    shown = [ratio for ratio in ratios if ratio and not math.isinf(ratio)]
    low, high = min([*shown, 1 / (1 + 1.6 * margin)]), max([*shown, 1 + 1.6 * margin])
    room = (high / low) ** 0.03
    return Scale(low / room, high * room)


def _strips(verdict: PathVerdict) -> list[_Strip]:
    strips = [
        _Strip(name, *_chip(verdict_on), "effect", estimate, ())
        for found in verdict.factorials
        if not found.doubt
        for name, estimate, verdict_on in zip(effect_names(found), _effects(found), found.verdicts, strict=True)
        if estimate is not None
    ]
    rows = [row for row in verdict.rows if row.verdict not in (BASELINE, YARDSTICK) and not row.is_control]
    controls = [row for row in verdict.rows if row.is_control]
    return strips + [_of_row(row) for row in (*rows, *controls)] if rows else []


def _effects(found: Factorial) -> tuple[Estimate | None, Estimate | None]:
    return found.transport, found.control


def _of_row(row: Row) -> _Strip:
    return _Strip(*_heading(row), row.ratio, row.block_ratios)


def _of_merged(row: MergedRow) -> _Strip:
    spread = None
    if row.ratio is not None and row.between is not None:
        factor = row.between**_TWO_SIDED
        spread = Interval(row.ratio.value / factor, row.ratio.value * factor)
    return _Strip(*_heading(row), row.ratio, row.ratios, "runs", spread)


def _heading(row: Row | MergedRow) -> tuple[str, str, str, str]:
    """Name, words, chip and kind of a strip."""
    words, chip = _chip(row)
    if row.is_control:
        return "A/A control", words, "control", "control"
    return label(row.transport), words, chip, chip


def _chip(found: Row | MergedRow | Verdict | None) -> tuple[str, str]:
    """A verdict in words, and its class of the style sheet."""
    if found is None:
        return "", ""
    word = found.word if isinstance(found, Verdict) else found.verdict
    return f"{SIGNS[word]} {judged(word, found.is_negligible)}", word.replace(" ", "-")


def _ratios(strip: _Strip) -> list[float]:
    if strip.estimate is None:
        return list(strip.dots)
    return [strip.estimate.value, *(strip.estimate.interval or ()), *(strip.spread or ()), *strip.dots]


def _line(strip: _Strip, scale: Scale, baseline: str, margin: float) -> Html:
    name = element("span", strip.name, class_="name")
    chip = element("span", strip.words, class_=f"chip {strip.chip}") if strip.words else Html("")
    figures = element("span", _figures(strip.estimate), class_="ratio")
    drawn = _drawn(strip, scale, baseline, margin) if strip.estimate is not None else Html("")
    return element("div", element("div", name, " ", chip, " ", figures, class_="about"), drawn, class_="strip")


def _figures(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.interval is None:
        return f"{format_ratio(estimate.value)} × (no interval)"
    low, high = estimate.interval
    return f"{format_ratio(estimate.value)} × [{format_ratio(low)}, {format_ratio(high)}]"


def _drawn(strip: _Strip, scale: Scale, baseline: str, margin: float) -> Html:
    assert strip.estimate is not None
    left, right = scale.position(1 / (1 + margin)), scale.position(1 + margin)
    parts = [
        _svg("rect", class_="margin", x=f"{left}%", y="0", width=f"{round(right - left, 2)}%", height="100%"),
        *(_svg("line", class_="grid", **_vertical(scale.position(tick))) for tick in scale.ticks()),
        _svg("line", class_="one", **_vertical(scale.position(1.0))),
    ]
    for number, ratio in enumerate(strip.dots):
        share = number / max(1, len(strip.dots) - 1)
        y = f"{_DOTS_TOP + (_DOTS_BOTTOM - _DOTS_TOP) * share:.1f}"
        parts.append(_svg("circle", class_="dot", cx=f"{scale.position(ratio)}%", cy=y, r="3"))
    if strip.spread is not None:
        low, high = (f"{scale.position(end)}%" for end in strip.spread)
        parts.append(_svg("line", class_="spread", x1=low, x2=high, y1=str(_BAR), y2=str(_BAR)))
    if strip.estimate.interval is not None:
        low, high = (f"{scale.position(end)}%" for end in strip.estimate.interval)
        parts.append(_svg("line", class_="interval", x1=low, x2=high, y1=str(_BAR), y2=str(_BAR)))
    middle = f"{scale.position(strip.estimate.value)}%"
    parts.append(_svg("line", class_="median", x1=middle, x2=middle, y1=str(_BAR - 6), y2=str(_BAR + 6)))
    return element(
        "svg",
        *parts,
        class_=f"plot {strip.kind}",
        role="img",
        aria_label=_alternative(strip, baseline),
        width="100%",
        height=str(_HEIGHT),
    )


def _alternative(strip: _Strip, baseline: str) -> str:
    assert strip.estimate is not None
    about = strip.name if strip.kind == "effect" else f"{strip.name} relative to {baseline}"
    text = f"{printable(about)}: {_figures(strip.estimate)}"
    if strip.spread is not None:
        text += f"; run to run about {format_ratio(strip.spread.low)} to {format_ratio(strip.spread.high)}"
    dots = ", ".join(format_ratio(ratio) for ratio in strip.dots)
    return f"{text}; {strip.dot_name} in order of time: {dots}" if dots else text


def _axis(scale: Scale, baseline: str) -> Html:
    shown = [
        element("span", format_tick(tick), class_="tick", style=f"left:{scale.position(tick)}%")
        for tick in scale.ticks()
    ]
    ticks = element("div", *shown, class_="ticks", aria_hidden="true")
    return element(
        "div",
        element("div", f"goodput / that of {label(baseline)}", class_="about axis-name"),
        ticks,
        class_="strip axis",
    )


def format_tick(ratio: float) -> str:
    """A round ratio without needless digits: `0.95`, `1`, `20`."""
    return f"{ratio:.10g}"


def _vertical(position: float) -> dict[str, str]:
    return {"x1": f"{position}%", "x2": f"{position}%", "y1": "0", "y2": "100%"}


def _svg(name: str, /, **attributes: str) -> Html:
    return element(name, **attributes)
