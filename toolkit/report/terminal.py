"""Tables and sentences for a terminal: no line is longer than the width.

A table that is too wide gives up its first columns, path and size, which become a heading above its rows. One that is
still too wide becomes a list. A row stays one line wherever the width allows it.
"""

from collections.abc import Sequence
from itertools import groupby
from textwrap import fill

from tabulate import tabulate

from toolkit.report.cells import Table
from toolkit.report.labels import NOTHING

LINED = ("simple", "plain")
"""Formats in which each row is one line, below the lines of the header."""
_INDENT = "    "
_MAX_HEADER_WIDTH = 10
_MIN_PROSE_WIDTH, _MAX_PROSE_WIDTH = 24, 60


def fitted(table: Table, table_format: str, width: int) -> str:
    """The table, which has columns and rows, in a format of tabulate; at most `width` columns wide if that can be."""
    headers = [_two_lines(column.title) for column in table.columns]
    cells = [[cell.text for cell in row] for row in table.rows]
    for shape in (_whole, _under_headings):
        for prose_width in (_MAX_PROSE_WIDTH, _MIN_PROSE_WIDTH):
            text = shape(table, headers, cells, table_format, prose_width)
            if _width(text) <= width:
                return text
    return _listed(table, width)


def wrapped(line: str, width: int, indent: str = "") -> str:
    """A sentence on as many lines as it takes; further lines are indented."""
    return fill(
        line,
        width,
        initial_indent=indent,
        subsequent_indent=indent + _INDENT,
        break_on_hyphens=False,
        break_long_words=True,
    )


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))


def _whole(
    table: Table, headers: Sequence[str], cells: Sequence[Sequence[str]], table_format: str, prose_width: int
) -> str:
    shown = []
    last = None
    for row in cells:  # a path is shown only in the first of its rows, which groups them
        shown.append(["" if row[0] == last else row[0], *row[1:]])
        last = row[0]
    return _tabulated(table, headers, shown, table_format, prose_width, 0)


def _under_headings(
    table: Table, headers: Sequence[str], cells: Sequence[Sequence[str]], table_format: str, prose_width: int
) -> str:
    keys = 1 + (len(table.columns) > 1 and table.columns[1].title == "size")
    groups = [(heading, len(list(rows))) for heading, rows in groupby(", ".join(row[:keys]) for row in cells)]
    is_prose = any(column.is_prose for column in table.columns)
    if table_format in LINED and not is_prose:
        text = _tabulated(table, headers[keys:], [row[keys:] for row in cells], table_format, prose_width, keys)
        lines = [f"  {line}".rstrip() for line in text.split("\n")]
        shown, rows = lines[: -len(cells)], lines[-len(cells) :]
        for heading, count in groups:
            shown += [heading, *rows[:count]]
            rows = rows[count:]
        return "\n".join(shown)
    parts = []
    left = [row[keys:] for row in cells]
    for heading, count in groups:
        parts.append(f"{heading}\n{_tabulated(table, headers[keys:], left[:count], table_format, prose_width, keys)}")
        left = left[count:]
    return "\n".join(parts)


def _tabulated(
    table: Table,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    table_format: str,
    prose_width: int,
    first: int,
) -> str:
    """The columns from `first` on."""
    columns = table.columns[first:]
    return tabulate(
        rows,
        headers,
        tablefmt=table_format,
        disable_numparse=True,
        colalign=["right" if column.is_figure else "left" for column in columns],
        maxcolwidths=[prose_width if column.is_prose else None for column in columns],
    )


def _listed(table: Table, width: int) -> str:
    """A paragraph for each row: its first two cells, then the others with the titles of their columns."""
    lines = []
    for row in table.rows:
        pairs = zip(table.columns[2:], row[2:], strict=True)
        figures = [f"{column.title} {cell.text}" for column, cell in pairs if cell.text != NOTHING]
        lines.append(wrapped(f"{row[0].text}, {row[1].text}: {'; '.join(figures)}", width))
    return "\n".join(lines)


def _two_lines(header: str) -> str:
    """Break a long header into two lines, near its middle."""
    if len(header) < _MAX_HEADER_WIDTH or " " not in header:
        return header
    middle = min((n for n, c in enumerate(header) if c == " "), key=lambda n: abs(n - len(header) / 2))
    return f"{header[:middle]}\n{header[middle + 1 :]}"
