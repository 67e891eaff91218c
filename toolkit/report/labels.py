"""Figures and marks as words: what a reader meets in a table, on the page and in the terminal is said one way."""

import math

from toolkit.compare import comparison, records
from toolkit.compare.comparison import Row
from toolkit.compare.stats import Estimate, Interval
from toolkit.errors import printable
from toolkit.units import format_rate, format_seconds

NOTHING = "-"
MAX_LABEL = 48
"""A label is the user's or a file's own text; longer ones are cut, so that they break no layout."""

MAX_SHORT_LABEL = 20

REASONS = {
    "handshake_s": "handshake",
    "ramp_up_s": "ramp-up",
    "recovery_s": "recovery",
    "window_limited_s": "window-limited",
    "cpu_bound_s": "CPU-bound",
    "steady_s": "steady",
    "tail_s": "tail",
}
"""Where a transfer's time went, in the order in which it mostly goes."""

MARKS = {
    records.CPU_BOUND: "a processor, and not the path, was the limit",
    records.EMULATOR_LATE: "the emulated link did not keep its own times",
    records.LEDGER_OFF: "packets are missing, or too many, that nobody accounts for",
    records.PROBE_OFF: "the link, measured before, is not what was asked for",
    records.HOST_DROPS: "an end, and not the path, lost packets",
    records.UNRELIABLE: "the program does not see to it that everything arrives",
}


def label(text: object) -> str:
    """Anybody's text, fit for one line."""
    return printable(str(text), MAX_LABEL)


def short_label(text: object) -> str:
    """As `label`, for a picture, where there is less room."""
    return printable(str(text), MAX_SHORT_LABEL)


def mark_meaning(mark: str) -> str:
    """What a mark says; one that this version does not know is told apart all the same."""
    return MARKS.get(mark, "a mark of another version of nettool")


def verdict_words(row: Row) -> str:
    """The verdict with its reason where there is none."""
    if row.verdict == comparison.NO_CLAIM:
        return f"no claim: {printable(row.no_claim_because)}"
    return f"{row.verdict} (A/A control)" if row.is_control else row.verdict


def rate_interval(interval: Interval | None) -> str:
    """Both ends, the unit once where they share it."""
    if interval is None:
        return NOTHING
    return _joined(format_rate(interval.low), format_rate(interval.high))


def seconds_interval(interval: Interval | None) -> str:
    """As `rate_interval`."""
    if interval is None:
        return NOTHING
    return _joined(format_seconds(interval.low), format_seconds(interval.high))


def ratio(value: float) -> str:
    """Three digits: `0.93`, `16.2`, `0.012`; to what failed, `∞`."""
    if math.isinf(value):
        return "∞"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def ratio_interval(estimate: Estimate | None) -> str:
    """`0.91 to 0.95`."""
    if estimate is None or estimate.interval is None:
        return NOTHING
    return f"{ratio(estimate.interval.low)} to {ratio(estimate.interval.high)}"


def _joined(low: str, high: str) -> str:
    number, _, unit = low.partition(" ")
    return f"{number} to {high}" if unit == high.partition(" ")[2] else f"{low} to {high}"
