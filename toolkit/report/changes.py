"""What `nettool diff` shows: a table of changes, and sentences below it."""

from collections.abc import Mapping, Sequence

from toolkit.comparison.diff import ONLY_NEW, ONLY_OLD, CellChange
from toolkit.comparison.summary import plain
from toolkit.comparison.verdict import FASTER, INCONCLUSIVE, NO_CLAIM, SLOWER, to_settle
from toolkit.errors import printable
from toolkit.report.cells import Cell, Column, Table
from toolkit.report.labels import MAX_COLUMNS, NOTHING, content_words, judged, label, path_label, ratio_with_interval
from toolkit.report.terminal import fitted, wrapped
from toolkit.units import format_rate

MISSING = "missing"
CONDITIONS = (SLOWER, FASTER, INCONCLUSIVE, NO_CLAIM.replace(" ", "-"), MISSING)
"""What `--fail-if` may name."""

_COLUMNS = (
    Column("path"),
    Column("size"),
    Column("transport"),
    Column("old", is_figure=True),
    Column("new", is_figure=True),
    Column("ratio [95% interval]", is_figure=True),
    Column("verdict"),
)


def changes_text(changes: Sequence[CellChange], hosts: Sequence[str], width: int = MAX_COLUMNS) -> str:
    """The changes as a table of at most `width` columns, and what it does not say as sentences."""
    rows = [[Cell(text, text) for text in _row(change)] for change in changes]
    parts = [fitted(Table("changes", "", "", _COLUMNS, rows), "simple", width)] if rows else []
    parts += [wrapped(line, width) for line in _remarks(changes, hosts)]
    return "\n".join(parts)


def applies(change: CellChange, conditions: Sequence[str]) -> bool:
    """Whether one of CONDITIONS holds for a change. A transport whose transfers all fail now has become slower."""
    is_dead = change.arrived == (True, False) and change.verdict != ONLY_OLD
    words = {
        SLOWER: (change.verdict == SLOWER and not change.is_negligible) or is_dead,
        FASTER: change.verdict == FASTER and not change.is_negligible,
        INCONCLUSIVE: change.verdict == INCONCLUSIVE,
        NO_CLAIM.replace(" ", "-"): change.verdict == NO_CLAIM,
        MISSING: change.verdict in (ONLY_OLD, ONLY_NEW),
    }
    return any(words[condition] for condition in conditions)


def flat_change(change: CellChange) -> Mapping[str, object]:
    """A change as plain values: the ratio becomes `ratio`, `ratio_low` and `ratio_high`."""
    fields = plain(change)
    ratio, arrived = fields.pop("ratio"), fields.pop("arrived")
    value, interval = ratio if isinstance(ratio, tuple) else (None, None)
    low, high = interval or (None, None)
    assert isinstance(arrived, tuple)
    more = {"ratio": value, "ratio_low": low, "ratio_high": high, "old_arrived": arrived[0], "new_arrived": arrived[1]}
    return {**fields, **more}


def _row(change: CellChange) -> list[str]:
    return [
        path_label(change.path),
        content_words(change.payload_bytes),
        label(change.transport),
        _goodput(change.old_bps, change.verdict == ONLY_NEW),
        _goodput(change.new_bps, change.verdict == ONLY_OLD),
        ratio_with_interval(change.ratio),
        judged(change.verdict, change.is_negligible),
    ]


def _goodput(rate_bps: float | None, is_absent: bool) -> str:
    if rate_bps is not None:
        return format_rate(rate_bps)
    return NOTHING if is_absent else "failed"


def _remarks(changes: Sequence[CellChange], hosts: Sequence[str]) -> list[str]:
    lines = []
    if hosts:
        lines.append(f"The two campaigns differ: {printable('; '.join(hosts), 400)}.")
    if any(change.pairs for change in changes):
        lines.append(f"Compared in pairs, with the same losses on the link: {_cells(changes, is_paired=True)}.")
    for change in changes:
        if change.verdict in (INCONCLUSIVE, NO_CLAIM):
            lines.append(f"{_cell(change)}: {_why(change)}.")
    return list(dict.fromkeys(lines))


def _cells(changes: Sequence[CellChange], is_paired: bool) -> str:
    chosen = [change for change in changes if bool(change.pairs) == is_paired]
    return "all cells" if len(chosen) == len(changes) else "; ".join(map(_cell, chosen))


def _cell(change: CellChange) -> str:
    return f"{path_label(change.path)}, {content_words(change.payload_bytes)}, {label(change.transport)}"


def _why(change: CellChange) -> str:
    if change.verdict == NO_CLAIM:
        return printable(change.because)
    reason = change.because or "the interval is too wide"
    return f"{printable(reason)}; in each campaign, {to_settle(change.more_blocks)}"
