"""Campaigns as text: tables, what they do not say in sentences, and a caption with what was measured and where.

For people there are the table formats of tabulate, with the surrounding text escaped to match. No sentence appears
twice: what holds for several paths or campaigns is said once. For programs there are CSV and JSON: one flat row for
each path, size and transport, in bytes, bits per second, seconds and milliseconds, under the field names of
`toolkit.comparison.rows.Row` (docs/data-format.md).
"""

import csv
import html
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import gmtime, strftime
from typing import Any

from tabulate import tabulate

from toolkit.comparison.findings import PathVerdict
from toolkit.comparison.pairs import whole_blocks
from toolkit.comparison.records import Campaign, Results
from toolkit.comparison.rows import Row
from toolkit.comparison.stats import MIN_SAMPLES
from toolkit.comparison.summary import Summary, plain
from toolkit.comparison.verdict import least_blocks
from toolkit.errors import printable
from toolkit.report.cells import Table
from toolkit.report.labels import MAX_COLUMNS, REASONS, label
from toolkit.report.tables import COST, SPEED, TROUBLE, imported_tables, tables, verdict_table
from toolkit.report.terminal import fitted, wrapped
from toolkit.units import format_seconds, format_size

MARKUP = ("github", "latex", "html")
TERMINAL = ("simple", "plain", "grid")
PROGRAMS = ("csv", "json")
FORMATS = (*TERMINAL, *MARKUP, *PROGRAMS)
IN_TERMINAL = (SPEED, COST, TROUBLE)
IMPORTED = "imported"

_MAX_LINE = 2000
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}
_NESTED: Mapping[str, Mapping[str, str]] = {
    "time_split": {key: key for key in REASONS},
    "delay_ms": {key: f"delay_ms_{key}" for key in ("base", "median", "p95")},
    "competition": {key: f"competition_{key}" for key in ("goodput_bps_alone", "goodput_bps_beside", "jain")},
}
"""Field of a row that is a mapping -> its keys with their names in a flat row."""


def report_text(
    summaries: Sequence[Summary],
    imported: Sequence[Row] = (),
    table_format: str = "simple",
    width: int = MAX_COLUMNS,
) -> str:
    """Campaigns, followed by the runs of other programs, in one of FORMATS.

    The formats of TERMINAL show only the tables IN_TERMINAL, in at most `width` columns; the page shows all of them.
    """
    if table_format == "csv":
        return csv_text(flat_rows(summaries, imported)).rstrip("\n")
    if table_format == "json":
        return json.dumps(report_object(summaries, imported), indent=1, allow_nan=False)
    parts = [part for summary in summaries for part in _campaign(summary, table_format, width)]
    parts += _tables(imported_tables(imported), table_format, width)
    parts.append(_sentences(_captions(summaries), table_format, width))
    return "\n\n".join(part for part in parts if part)


def report_object(summaries: Sequence[Summary], imported: Sequence[Row]) -> dict[str, Any]:
    """A JSON object with `headline`, the verdicts as sentences, `notes`, and `rows`, the flat rows."""
    sentences = [sentence for summary in summaries for sentence in summary.headline]
    notes = [note for summary in summaries for note in summary.notes]
    return {"headline": sentences, "notes": notes, "rows": flat_rows(summaries, imported)}


def caption(results: Results) -> list[str]:
    """Sentences that say what was measured, on which machine, and what to be careful about."""
    campaign, host = results.campaign, results.campaign.host

    def known(value: object) -> str:
        return "unknown" if value is None else label(value)

    sizes = ", ".join(format_size(size) for size in campaign.sizes)
    content = f"One file of {sizes}" if campaign.time_s is None else f"Content for {format_seconds(campaign.time_s)}"
    lines = [
        f"{content} in {label(campaign.storage)}.",
        f"{_blocks_text(results)} in random order (seed {campaign.seed}), after one warm-up of each transport.",
        f"{known(host.cores)} cores of {known(host.cpu)}, {known(host.system)} {known(host.kernel)}.",
        f"nettool {known(host.nettool)}, Python {known(host.python)}.",
    ]
    if host.load_1min is not None and host.cores is not None and host.load_1min > host.cores / 2:
        lines.append(f"The machine was busy at the start (load {host.load_1min}): figures are lower and vary more.")
    least = least_blocks(campaign.comparison_count)
    if campaign.repeats < MIN_SAMPLES:
        lines.append(f"A 95% interval needs {MIN_SAMPLES} pairs of trials: run {least} blocks or more.")
    elif campaign.first_look is None and campaign.repeats < least:
        lines.append(
            f"{campaign.repeats} blocks cannot find a difference among {campaign.comparison_count} comparisons: run "
            f"{least} or more."
        )
    return lines


def _blocks_text(results: Results) -> str:
    """How many blocks ran, and of how many where the campaign was not finished."""
    campaign, (fewest, most) = results.campaign, whole_blocks(results)
    budget = "" if campaign.budget_s is None else f" (a budget of {format_seconds(campaign.budget_s)})"
    ran = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    if fewest >= campaign.repeats:
        return f"{ran} block{'s' * (most > 1)}{budget}"
    planned = f"{campaign.repeats} planned" if campaign.budget_s is None else f"at least {campaign.repeats} planned"
    return f"{ran} of {planned} block{'s' * (campaign.repeats > 1)}{budget}"


def started_text(campaign: Campaign) -> str:
    """The start of the campaign in UTC, to the minute."""
    return strftime("%Y-%m-%d %H:%M UTC", gmtime(campaign.started_unix_s))


def names(summaries: Sequence[Summary]) -> list[str]:
    """The names of the campaigns, numbered where they are equal."""
    kinds = [label(summary.results.campaign.name).capitalize() for summary in summaries]
    return [
        f"{kind} {kinds[: number + 1].count(kind)}" if kinds.count(kind) > 1 else kind
        for number, kind in enumerate(kinds)
    ]


def flat_row(row: Row) -> dict[str, object]:
    """A row as plain values.

    An estimate becomes its value and the fields `_low` and `_high`; a mapping becomes one field for each key; a list
    becomes words. Every row has the same fields.
    """
    fields: dict[str, object] = {}
    for name, value in plain(row).items():
        if name in ("goodput_bps", "seconds", "ratio", "link_loss"):
            middle, interval = value if isinstance(value, tuple) else (None, None)
            low, high = interval or (None, None)
            fields |= {name: middle, f"{name}_low": low, f"{name}_high": high}
        elif name in _NESTED:
            nested = value if isinstance(value, dict) else {}
            fields |= {flat_name: nested.get(key) for key, flat_name in _NESTED[name].items()}
        elif isinstance(value, tuple):
            fields[name] = " ".join("inf" if each is None else str(each) for each in value)
        else:
            fields[name] = value
    return fields


def flat_rows(summaries: Sequence[Summary], imported: Sequence[Row]) -> list[dict[str, Any]]:
    """The flat rows of campaigns and of other programs' runs, each with `campaign` and `started_unix_s`."""
    rows: list[dict[str, Any]] = []
    for summary in summaries:
        campaign = summary.results.campaign
        source = {"campaign": campaign.name, "started_unix_s": campaign.started_unix_s}
        rows += [{**source, **flat_row(row)} for row in summary.rows]
    return rows + [{"campaign": IMPORTED, "started_unix_s": None, **flat_row(row)} for row in imported]


def csv_text(rows: Sequence[Mapping[str, object]], first: Sequence[str] = ()) -> str:
    """Rows that have the same fields, as CSV with a header; the fields `first` come first, and are always there."""
    names = [*first, *(name for name in (rows[0] if rows else {}) if name not in first)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: printable(v, _MAX_LINE) if isinstance(v, str) else v for name, v in row.items()})
    return stream.getvalue()


def _campaign(summary: Summary, table_format: str, width: int) -> list[str]:
    campaign = summary.results.campaign
    title = f"{label(campaign.name).capitalize()}, {started_text(campaign)}"
    if table_format not in TERMINAL:
        speed, *others = tables(summary)
        sentences = _sentences(summary.headline, table_format, width)
        return [_escape(table_format)(title), sentences, *_tables([speed, *others], table_format, width)]
    others = [table for table in tables(summary) if table.name in IN_TERMINAL and table.name != SPEED]
    decides = _table(verdict_table(summary), table_format, width)
    return [title, decides, _remarks(summary.verdicts, width), *_tables(others, table_format, width)]


def _captions(summaries: Sequence[Summary]) -> list[str]:
    """The notes and captions of the campaigns; a sentence that holds for several appears once, with their names."""
    by_line: dict[str, list[str]] = {}
    for summary, name in zip(summaries, names(summaries), strict=True):
        for line in (*summary.notes, *caption(summary.results)):
            by_line.setdefault(line, []).append(name)
    return [_about(where, line, len(summaries)) for line, where in by_line.items()]


def _remarks(verdicts: Sequence[PathVerdict], width: int) -> str:
    """What the table does not say, under the path and size that it is about; what holds for several comes last."""
    by_line: dict[str, list[str]] = {}
    for verdict in verdicts:
        for line in (*verdict.effects, *verdict.details):
            by_line.setdefault(line, []).append(verdict.where)
    shown = []
    for verdict in verdicts:
        own = [line for line, where in by_line.items() if where == [verdict.where]]
        if own:
            shown.append(printable(verdict.where, width))
            shown += [wrapped(printable(line, _MAX_LINE), width, "  ") for line in own]
    shared = [_about(where, line, len(verdicts)) for line, where in by_line.items() if len(where) > 1]
    return "\n".join([*shown, *(wrapped(printable(line, _MAX_LINE), width) for line in shared)])


def _about(where: Sequence[str], line: str, count: int) -> str:
    """A sentence with what it is about in front, unless that is everything."""
    return line if len(where) == count else f"{'; '.join(where)}: {line}"


def _tables(made: Iterable[Table], table_format: str, width: int) -> list[str]:
    escape = _escape(table_format)
    return [f"{escape(table.title)}\n\n{_table(table, table_format, width)}" for table in made]


def _table(table: Table, table_format: str, width: int) -> str:
    if table_format in TERMINAL:
        return fitted(table, table_format, width)
    headers = [column.title for column in table.columns]
    cells = [[cell.text for cell in row] for row in table.rows]
    if table_format == "github":
        headers = [_github(header) for header in headers]
        cells = [[_github(text) for text in row] for row in cells]
    align = ["right" if column.is_figure else "left" for column in table.columns]
    return tabulate(cells, headers, tablefmt=table_format, disable_numparse=True, colalign=align)


def _sentences(lines: Sequence[str], table_format: str, width: int) -> str:
    """Each sentence on lines of its own, or in a paragraph or list item where the format needs one."""
    escape = _escape(table_format)
    shown = [escape(printable(line, _MAX_LINE)) for line in lines]
    if table_format in TERMINAL:
        shown = [wrapped(line, width) for line in shown]
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
