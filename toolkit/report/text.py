"""A campaign as text: the verdicts, the tables, how to read them, and what they were measured on.

Everything comes from the records. For people there are tabulate's formats, with the text around them
escaped as each needs it; for programs CSV and JSON, where a row has plain numbers in bytes, bits per
second, seconds and milliseconds under the names that docs/data-format.md and `toolkit.compare.comparison.Row` use.
"""

import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from time import gmtime, strftime
from typing import Any

from tabulate import tabulate

from toolkit.compare.comparison import Row, plain, summarise
from toolkit.compare.records import CONTROL_SUFFIX, Campaign, Results
from toolkit.compare.stats import MIN_SAMPLES
from toolkit.errors import printable
from toolkit.report.labels import NOTHING, label
from toolkit.report.tables import COST, SPEED, TROUBLE, Table, imported_tables, tables
from toolkit.units import format_size

MARKUP = ("github", "latex", "html")
TERMINAL = ("simple", "plain", "grid")
PROGRAMS = ("csv", "json")
IN_TERMINAL = (SPEED, COST, TROUBLE)
IMPORTED = "imported"
FORMATS = (*TERMINAL, *MARKUP, *PROGRAMS)

_MAX_LINE = 2000
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}


def comparison(results: Results, table_format: str = "simple") -> str:
    """A campaign in one of FORMATS. A terminal's hold the tables of IN_TERMINAL only; the page has them all."""
    return comparisons([results], (), table_format)


def comparisons(files: Sequence[Results], imported: Sequence[Row], table_format: str = "simple") -> str:
    """Several campaigns, one after the other, and other programs' runs beside them; for programs, in one list."""
    if table_format == "csv":
        return _csv(_flat_rows(files, imported))
    if table_format == "json":
        return json.dumps(as_object(files, imported), indent=1, allow_nan=False)
    parts = [_for_people(results, table_format) for results in files]
    parts += _shown(imported_tables(imported), table_format)
    return "\n\n".join(parts)


def as_object(files: Sequence[Results], imported: Sequence[Row]) -> dict[str, Any]:
    """`headline`, the verdicts as sentences, and `rows`, plain figures."""
    return {
        "headline": [line for file in files for line in summarise(file).headline],
        "rows": _flat_rows(files, imported),
    }


def _flat_rows(files: Sequence[Results], imported: Sequence[Row]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in files:
        source = {"campaign": file.campaign.name, "started_unix_s": file.campaign.started_unix_s}
        rows += [{**source, **flat(row)} for row in summarise(file).rows]
    return rows + [{"campaign": IMPORTED, "started_unix_s": None, **flat(row)} for row in imported]


def _for_people(results: Results, table_format: str) -> str:
    parts = [_lines(summarise(results).headline, table_format)]
    parts += _shown(tables(results), table_format, results.campaign.baseline + CONTROL_SUFFIX)
    parts.append(_lines(caption(results), table_format))
    return "\n\n".join(part for part in parts if part)


def _shown(made: Sequence[Table], table_format: str, control: str = "") -> list[str]:
    escape = _ESCAPES.get(table_format, _as_it_is)
    parts: list[str] = []
    for table in made:
        if table.name not in IN_TERMINAL and table_format in TERMINAL:
            continue
        parts += [escape(f"{table.title}."), as_text(table, table_format)]
        if table.name == SPEED and table_format in TERMINAL:
            parts.append("\n".join(_reasons(table, control)))
    return [part for part in parts if part]


def as_text(table: Table, table_format: str = "simple") -> str:
    """One table in one of the formats for people. Prose has no room in a terminal, and is left out there."""
    is_wide = table_format in MARKUP
    kept = [n for n, column in enumerate(table.columns) if is_wide or not column.is_prose or table.name != SPEED]
    headers = [table.columns[n].title for n in kept]
    cells = [[row[n].text for n in kept] for row in table.rows]
    if table_format in TERMINAL:
        headers = [_narrow(header) for header in headers]
        _blank_repeats(cells)
    if table_format == "github":
        headers = [_github(header) for header in headers]
        cells = [[_github(text) for text in row] for row in cells]
    align = ["right" if table.columns[n].is_figure else "left" for n in kept]
    widths = [60 if table.columns[n].is_prose and not is_wide else None for n in kept]
    return tabulate(
        cells,
        headers,
        tablefmt=table_format,
        disable_numparse=True,
        colalign=align,
        maxcolwidths=widths if cells else None,
    )


def caption(results: Results) -> list[str]:
    """What was measured, on what, and what a reader has to be warned of; a sentence each."""
    campaign = results.campaign
    host: Mapping[str, Any] = campaign.host
    sizes = ", ".join(format_size(size) for size in campaign.sizes)
    started = started_text(campaign)
    lines = [
        f"{label(campaign.name)}: one file of {sizes} in {label(campaign.storage)}.",
        f"{campaign.repeats} blocks in random order (seed {campaign.seed}), after a warm-up of each.",
        f"{_known(host, 'cores')} cores of {_known(host, 'cpu')}, {_known(host, 'system')} {_known(host, 'kernel')}.",
        f"nettool {_known(host, 'nettool')}, Python {_known(host, 'python')}, {started}.",
    ]
    load, cores = host.get("load_1min"), host.get("cores")
    if isinstance(load, int | float) and isinstance(cores, int) and load > cores / 2:
        lines.append(f"The machine was busy when this began (load {load}): expect lower figures, and more spread.")
    if campaign.repeats < MIN_SAMPLES:
        lines.append(f"Fewer than {MIN_SAMPLES} pairs hold no 95% interval; --repeat {MIN_SAMPLES} or more gives one.")
    return lines


def started_text(campaign: Campaign) -> str:
    """When it began, in UTC."""
    return strftime("%Y-%m-%d %H:%M UTC", gmtime(campaign.started_unix_s))


def flat(row: Row) -> dict[str, Any]:
    """A row with one plain value a name: an estimate as its value and `_low`, `_high`, and nested names joined."""
    fields: dict[str, Any] = {}
    for name, value in plain(row).items():
        if name in ("goodput_bps", "seconds", "ratio"):
            middle, interval = value or (None, None)
            low, high = interval or (None, None)
            fields |= {name: middle, f"{name}_low": low, f"{name}_high": high}
        elif name in _NESTED:
            nested = value or {}
            fields |= {f"{prefix}{key}": nested.get(key) for prefix, key in _NESTED[name]}
        elif name == "marks":
            fields[name] = " ".join(value)
        else:
            fields[name] = value
    return fields


_NESTED: Mapping[str, Sequence[tuple[str, str]]] = {
    "reasons": [
        ("", f"{key}_s")
        for key in ("handshake", "ramp_up", "recovery", "window_limited", "cpu_bound", "steady", "tail")
    ],
    "delay_ms": [("delay_ms_", key) for key in ("base", "median", "p95")],
    "competition": [("competition_", key) for key in ("goodput_bps_alone", "goodput_bps_beside", "jain")],
}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: printable(v, _MAX_LINE) if isinstance(v, str) else v for name, v in row.items()})
    return stream.getvalue().rstrip("\n")


def _reasons(table: Table, control: str) -> list[str]:
    """The sentences that the terminal's table has no room for, each after the row that it is of."""
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
    """A path is named in the first of its rows, which makes groups of them."""
    last = None
    for row in cells:
        last, row[0] = row[0], "" if row[0] == last else row[0]


def _narrow(header: str) -> str:
    """A heading on two lines where it is long."""
    if len(header) < 12 or " " not in header:
        return header
    middle = min((n for n, c in enumerate(header) if c == " "), key=lambda n: abs(n - len(header) / 2))
    return f"{header[:middle]}\n{header[middle + 1 :]}"


def _lines(lines: Sequence[str], table_format: str) -> str:
    """Sentences, each on its own, escaped for the format."""
    escape = _ESCAPES.get(table_format, _as_it_is)
    shown = [escape(printable(line, _MAX_LINE)) for line in lines]
    if table_format == "github":
        return "\n".join(f"- {line}" for line in shown)
    return ("\n\n" if table_format == "latex" else "\n").join(shown)


def _known(host: Mapping[str, Any], name: str) -> str:
    return label(host.get(name, "unknown"))


def _as_it_is(text: str) -> str:
    return text


def _github(text: str) -> str:
    return "".join("\\" + c if c in "\\`*|[<" else c for c in text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def _html(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


_ESCAPES: Mapping[str, Callable[[str], str]] = {"github": _github, "latex": _latex, "html": _html}
