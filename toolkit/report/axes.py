"""Axes with the units that tables use, and with logarithms where a scale would hide the small ones."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from toolkit.units import format_rate, format_seconds, format_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_FROM = 8
"""Where the largest is so many times the smallest, steps are multiples."""
_STEPS = (1, 2, 5)

Which = Literal["x", "y"]


def rate_axis(axes: "Axes", which: Which, values_bps: Sequence[float]) -> None:
    """Goodput; a linear scale begins at 0."""
    _scale(axes, which, values_bps, format_rate)
    _name(axes, which, "goodput")


def time_axis(axes: "Axes", which: Which, values_s: Sequence[float], name: str = "time") -> None:
    """Seconds."""
    is_log = _scale(axes, which, values_s, format_seconds)
    _name(axes, which, f"{name} (logarithmic)" if is_log else name)


def size_axis(axes: "Axes", which: Which, name: str) -> None:
    """Bytes, linear, at steps that are whole in binary units."""
    from matplotlib.ticker import FuncFormatter

    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    step = 1.0
    while step * 4 < high - low:
        step *= 2
    axis.set_ticks([step * n for n in range(int(high // step) + 1)])
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_size(value)))
    _name(axes, which, name)


def _scale(axes: "Axes", which: Which, values: Sequence[float], form: Callable[[float], str]) -> bool:
    """Set limits and ticks; whether the scale is logarithmic."""
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
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(round(value, 12)) if value else "0"))
    return is_log


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 in each decade, or 1 only where those would crowd."""
    for steps in (_STEPS, (1, 3), (1,)):
        exponents = range(-12, 16)
        ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
        kept = [tick for tick in ticks if low <= tick <= high]
        if len(kept) <= 6:
            break
    return kept


def _linear_ticks(high: float) -> list[float]:
    """Few enough that texts with units do not meet."""
    step = next(
        step * 10.0**exponent for exponent in range(-12, 16) for step in _STEPS if high / (step * 10.0**exponent) <= 5
    )
    return [step * n for n in range(int(high / step) + 1)]


def _name(axes: "Axes", which: Which, name: str) -> None:
    if which == "y":
        axes.set_ylabel(name)
    else:
        axes.set_xlabel(name)
