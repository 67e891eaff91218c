"""The wording of figures, verdicts and marks, shared by the tables, the page and the terminal."""

from toolkit.comparison import records, verdict
from toolkit.comparison.rows import Row
from toolkit.comparison.stats import Estimate, Interval
from toolkit.errors import printable
from toolkit.units import format_rate, format_ratio, format_seconds, format_size

NOTHING = "-"
MAX_LABEL = 48
"""Labels come from users and files; longer ones are cut because they would break the layout."""

MAX_PATH_LABEL = 80
"""Paths are told apart by the options that stand last."""

MAX_SHORT_LABEL = 24
MAX_COLUMNS = 100
"""No line in a terminal is longer."""

REASONS = {
    "handshake_s": "handshake",
    "ramp_up_s": "ramp-up",
    "recovery_s": "recovery",
    "window_limited_s": "window-limited",
    "cpu_bound_s": "CPU-bound",
    "waiting_s": "waiting for CPU",
    "congestion_limited_s": "congestion-limited",
    "steady_s": "steady",
    "tail_s": "tail",
}
"""Field of `Trial.time_split` -> display name, roughly in the order in which a transfer passes through them."""

MARKS = {
    records.CPU_BOUND: "a processor, not the path, was the limit",
    records.EMULATOR_LATE: "the emulated link missed its own schedule",
    records.LEDGER_OFF: "the packet accounts do not balance",
    records.PROBE_OFF: "before the campaign, the link did not measure as specified",
    records.HOST_DROPS: "an endpoint, not the path, dropped packets",
    records.SELF_LOSS: "the sender's own host dropped packets before they were sent",
    records.UNRELIABLE: "the program does not guarantee delivery",
    records.PARTIAL: "the program counted only a part of the content, whose rate it reports",
    records.BUSY_MACHINE: "other work took over a tenth of the processors, and slows most what needs most of them",
}


def label(text: object) -> str:
    """Untrusted text as one printable line of at most MAX_LABEL characters."""
    return printable(str(text), MAX_LABEL)


def path_label(text: object) -> str:
    """As `label`, cut to MAX_PATH_LABEL characters: tables in a terminal put long ones on a line of their own."""
    return printable(str(text), MAX_PATH_LABEL)


def short_label(text: object) -> str:
    """As `label`, cut to MAX_SHORT_LABEL characters for use in pictures."""
    return printable(str(text), MAX_SHORT_LABEL)


def mark_meaning(mark: str) -> str:
    """The explanation of a mark, including marks that this version does not know."""
    return MARKS.get(mark, "a mark of another version of nettool")


def verdict_words(row: Row) -> str:
    """The verdict; for NO_CLAIM with the reason."""
    if row.verdict == verdict.NO_CLAIM:
        return f"no claim: {printable(row.because)}"
    word = judged(row.verdict, row.is_negligible)
    return f"{word} (A/A control)" if row.is_control else word


def short_verdict(row: Row) -> str:
    """The verdict without its reason, for a narrow column."""
    word = judged(row.verdict, row.is_negligible)
    return f"A/A control: {word}" if row.is_control else word


def judged(word: str, is_negligible: bool) -> str:
    """A verdict, with the word that it needs if the difference is within the margin."""
    return f"{word}, negligible" if is_negligible else word


def content_words(payload_bytes: int) -> str:
    """The size of the file, or that the trials were timed: those that are shown together last equally long."""
    return format_size(payload_bytes) if payload_bytes else "timed"


def rate_interval(interval: Interval | None) -> str:
    """`93.8 to 94.5 Mbit/s`: a shared unit appears once."""
    if interval is None:
        return NOTHING
    return _range(format_rate(interval.low), format_rate(interval.high))


def seconds_interval(interval: Interval | None) -> str:
    """As `rate_interval`, for durations."""
    if interval is None:
        return NOTHING
    return _range(format_seconds(interval.low), format_seconds(interval.high))


def ratio_interval(estimate: Estimate | None) -> str:
    """`0.91 to 0.95`."""
    if estimate is None or estimate.interval is None:
        return NOTHING
    return f"{format_ratio(estimate.interval.low)} to {format_ratio(estimate.interval.high)}"


def ratio_with_interval(estimate: Estimate | None) -> str:
    """`0.93 [0.91, 0.95]`."""
    if estimate is None:
        return NOTHING
    interval = estimate.interval
    ends = f" [{format_ratio(interval.low)}, {format_ratio(interval.high)}]" if interval is not None else ""
    return format_ratio(estimate.value) + ends


def _range(low: str, high: str) -> str:
    number, _, unit = low.partition(" ")
    return f"{number} to {high}" if unit == high.partition(" ")[2] else f"{low} to {high}"
