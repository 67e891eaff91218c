"""Campaigns as text: verdicts, tables, and a caption with what was measured and where.

For people there are the table formats of tabulate, with the surrounding text escaped to match. For programs there are
CSV and JSON: one flat row for each path, size and transport, in bytes, bits per second, seconds and milliseconds, under
the field names of `toolkit.compare.comparison.Row` (docs/data-format.md).
"""

import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from time import gmtime, strftime
from typing import Any

from tabulate import tabulate

from toolkit.compare.comparison import Row, Summary, plain
from toolkit.compare.records import CONTROL_SUFFIX, Campaign
from toolkit.compare.stats import MIN_SAMPLES
from toolkit.compare.verdict import least_blocks
from toolkit.errors import printable
from toolkit.report.labels import MAX_COLUMNS, NOTHING, REASONS, label
from toolkit.report.tables import COST, SPEED, TROUBLE, Table, imported_tables, tables
from toolkit.units import format_size

MARKUP = ("github", "latex", "html")
TERMINAL = ("simple", "plain", "grid")
PROGRAMS = ("csv", "json")
FORMATS = (*TERMINAL, *MARKUP, *PROGRAMS)
IN_TERMINAL = (SPEED, COST, TROUBLE)
IMPORTED = "imported"

_MAX_LINE = 2000
_INDENT = "    "
"""Of the further lines of a sentence in a terminal."""
_MAX_PROSE_WIDTH = 60
_MAX_HEADER_WIDTH = 12
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}
_NESTED: Mapping[str, Mapping[str, str]] = {
    "reasons": {key: key for key in REASONS},
    "delay_ms": {key: f"delay_ms_{key}" for key in ("base", "median", "p95")},
    "competition": {key: f"competition_{key}" for key in ("goodput_bps_alone", "goodput_bps_beside", "jain")},
}
"""Field of a row that is a mapping -> its keys with their names in a flat row."""


def report_text(summaries: Sequence[Summary], imported: Sequence[Row] = (), table_format: str = "simple") -> str:
    """Campaigns, followed by the runs of other programs, in one of FORMATS.

    The formats of TERMINAL show only the tables IN_TERMINAL; the page shows all of them.
    """
    if table_format == "csv":
        return _csv(_flat_rows(summaries, imported))
    if table_format == "json":
        return json.dumps(report_object(summaries, imported), indent=1, allow_nan=False)
    parts = [_campaign(summary, table_format) for summary in summaries]
    parts += _tables(imported_tables(imported), table_format)
    return "\n\n".join(parts)


def report_object(summaries: Sequence[Summary], imported: Sequence[Row]) -> dict[str, Any]:
    """A JSON object with `headline`, the verdicts as sentences, `notes`, and `rows`, the flat rows."""
    sentences = [sentence for summary in summaries for sentence in summary.headline]
    notes = [note for summary in summaries for note in summary.notes]
    return {"headline": sentences, "notes": notes, "rows": _flat_rows(summaries, imported)}


def caption(campaign: Campaign) -> list[str]:
    """Sentences that say what was measured, on which machine, and what to be careful about."""
    host = campaign.host

    def known(value: object) -> str:
        return "unknown" if value is None else label(value)

    sizes = ", ".join(format_size(size) for size in campaign.sizes)
    lines = [
        f"{label(campaign.name)}: one file of {sizes} in {label(campaign.storage)}.",
        f"{campaign.repeats} blocks in random order (seed {campaign.seed}), after one warm-up of each transport.",
        f"{known(host.cores)} cores of {known(host.cpu)}, {known(host.system)} {known(host.kernel)}.",
        f"nettool {known(host.nettool)}, Python {known(host.python)}, {started_text(campaign)}.",
    ]
    if host.load_1min is not None and host.cores is not None and host.load_1min > host.cores / 2:
        lines.append(f"The machine was busy at the start (load {host.load_1min}): figures are lower and vary more.")
    least = least_blocks(campaign.comparison_count)
    if campaign.repeats < MIN_SAMPLES:
        lines.append(f"A 95% interval needs {MIN_SAMPLES} pairs of trials: use --repeat {least} or more.")
    elif campaign.repeats < least:
        lines.append(
            f"{campaign.repeats} blocks cannot find a difference among {campaign.comparison_count} comparisons: use "
            f"--repeat {least} or more."
        )
    return lines


def started_text(campaign: Campaign) -> str:
    """The start of the campaign in UTC, to the minute."""
    return strftime("%Y-%m-%d %H:%M UTC", gmtime(campaign.started_unix_s))


def flat_row(row: Row) -> dict[str, object]:
    """A row as plain values.

    An estimate becomes its value and the fields `_low` and `_high`; a mapping becomes one field for each key. Every row
    has the same fields.
    """
    fields: dict[str, object] = {}
    for name, value in plain(row).items():
        if name in ("goodput_bps", "seconds", "ratio"):
            middle, interval = value if isinstance(value, tuple) else (None, None)
            low, high = interval or (None, None)
            fields |= {name: middle, f"{name}_low": low, f"{name}_high": high}
        elif name in _NESTED:
            nested = value if isinstance(value, dict) else {}
            fields |= {flat_name: nested.get(key) for key, flat_name in _NESTED[name].items()}
        elif isinstance(value, tuple):
            fields[name] = " ".join(value)
        else:
            fields[name] = value
    return fields


def _flat_rows(summaries: Sequence[Summary], imported: Sequence[Row]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for summary in summaries:
        campaign = summary.results.campaign
        source = {"campaign": campaign.name, "started_unix_s": campaign.started_unix_s}
        rows += [{**source, **flat_row(row)} for row in summary.rows]
    return rows + [{"campaign": IMPORTED, "started_unix_s": None, **flat_row(row)} for row in imported]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: printable(v, _MAX_LINE) if isinstance(v, str) else v for name, v in row.items()})
    return stream.getvalue().rstrip("\n")


def _campaign(summary: Summary, table_format: str) -> str:
    campaign = summary.results.campaign
    parts = [_sentences(summary.headline, table_format), _sentences(summary.notes, table_format)]
    parts += _tables(tables(summary), table_format, campaign.baseline + CONTROL_SUFFIX)
    parts.append(_sentences(caption(campaign), table_format))
    return "\n\n".join(part for part in parts if part)


def _tables(made: Sequence[Table], table_format: str, control: str = "") -> list[str]:
    escape = _escape(table_format)
    parts: list[str] = []
    for table in made:
        if table.name not in IN_TERMINAL and table_format in TERMINAL:
            continue
        parts += [escape(f"{table.title}."), _table(table, table_format)]
        if table.name == SPEED and table_format in TERMINAL:
            parts.append("\n".join(_explanations(table, control)))
    return [part for part in parts if part]


def _table(table: Table, table_format: str) -> str:
    """One table. A terminal has no room for the prose of SPEED; `_explanations` puts it below the table."""
    is_wide = table_format in MARKUP
    kept = [n for n, column in enumerate(table.columns) if is_wide or not column.is_prose or table.name != SPEED]
    headers = [table.columns[n].title for n in kept]
    cells = [[row[n].text for n in kept] for row in table.rows]
    if table_format in TERMINAL:
        headers = [_wrap_header(header) for header in headers]
        _blank_repeats(cells)
    if table_format == "github":
        headers = [_github(header) for header in headers]
        cells = [[_github(text) for text in row] for row in cells]
    align = ["right" if table.columns[n].is_figure else "left" for n in kept]
    widths = [_MAX_PROSE_WIDTH if table.columns[n].is_prose and not is_wide else None for n in kept]
    return tabulate(
        cells,
        headers,
        tablefmt=table_format,
        disable_numparse=True,
        colalign=align,
        maxcolwidths=widths if cells else None,
    )


def _explanations(table: Table, control: str) -> list[str]:
    """The prose of each row but those of the A/A control, each with the keys of its row."""
    prose = next((n for n, column in enumerate(table.columns) if column.is_prose), None)
    if prose is None:
        return []
    keys = [n for n, column in enumerate(table.columns) if column.title in ("path", "size", "transport")]
    return [
        f"{', '.join(row[n].text for n in keys)}: {row[prose].text}"
        for row in table.rows
        if row[prose].text != NOTHING and row[keys[-1]].text != label(control)
    ]


def _blank_repeats(cells: list[list[str]]) -> None:
    """Show a path only in the first of its rows, which groups the rows."""
    last = None
    for row in cells:
        last, row[0] = row[0], "" if row[0] == last else row[0]


def _wrap_header(header: str) -> str:
    """Break a long header into two lines, near its middle."""
    if len(header) < _MAX_HEADER_WIDTH or " " not in header:
        return header
    middle = min((n for n, c in enumerate(header) if c == " "), key=lambda n: abs(n - len(header) / 2))
    return f"{header[:middle]}\n{header[middle + 1 :]}"


def _sentences(lines: Sequence[str], table_format: str) -> str:
    """Each sentence on lines of its own, or in a paragraph or list item where the format needs one."""
    escape = _escape(table_format)
    shown = [escape(printable(line, _MAX_LINE)) for line in lines]
    if table_format in TERMINAL:
        shown = [fill(line, MAX_COLUMNS, subsequent_indent=_INDENT, break_on_hyphens=False) for line in shown]
    if table_format == "github":
        return "\n".join(f"- {line}" for line in shown)
    return ("\n\n" if table_format == "latex" else "\n").join(shown)


def _escape(table_format: str) -> Callable[[str], str]:
    return {"github": _github, "latex": _latex, "html": _html}.get(table_format, str)


def _github(text: str) -> str:
    return "".join("\\" + c if c in "\\`*|[<" else c for c in text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def _html(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
