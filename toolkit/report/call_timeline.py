"""The system calls of both ends of a transfer, side by side in the order of time, as text and as an HTML page.

The calls come from files that `--trace-file` has written on one machine: their clocks are the same.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from toolkit.comparison.json_codec import decode
from toolkit.errors import UsageError, printable, printable_path
from toolkit.report.html import Html, element, join, write_html
from toolkit.tracing.call import Call
from toolkit.tracing.listing import Condenser

_TIME_COLUMNS: Final = 9
_GAP: Final = 2
_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid #8884; }
th { position: sticky; top: 0; background: Canvas; }
th:first-child, td:first-child { width: 5.5rem; text-align: right; color: GrayText; }
code { font: .9em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
small { display: block; color: GrayText; }
.remark { font-weight: 600; }
.data { background: #2a78d614; }
"""


@dataclass(frozen=True, slots=True)
class EndTrace:
    """The calls of one end.

    command: such as "tcp-send"
    """

    command: str
    pid: int
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """What one end did. end: 0 or 1, the column; time_ms: since the first call of both"""

    time_ms: float
    end: int
    call: Call


def read_trace(path: Path) -> EndTrace:
    """Read a file of `--trace-file`. Raises UsageError if it is none."""
    shown = printable_path(path)
    try:
        head, *lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if head["kind"] != "calls":
            raise ValueError("the first line is of another kind")
        return EndTrace(str(head["command"]), int(head["pid"]), tuple(decode(Call, one) for one in lines))
    except OSError as error:
        raise UsageError(f"{shown}: {(error.strerror or 'cannot be read').lower()}") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{shown} holds no calls ({printable(str(error))}): --trace-file writes them") from None


def timeline(ends: Sequence[EndTrace]) -> list[TimelineRow]:
    """Return the rows of all ends in the order of time; repeated calls are counted (`Condenser`)."""
    found: list[tuple[float, int, Call]] = []
    for number, end in enumerate(ends):
        shown: list[Call] = []
        condenser = Condenser(shown.append)
        for call in end.calls:
            condenser.add(call)
        if end.calls:
            condenser.end(end.calls[-1].time_s)
        found += [(call.time_s, number, call) for call in shown]
    found.sort(key=lambda one: one[:2])
    return [TimelineRow((time_s - found[0][0]) * 1e3, number, call) for time_s, number, call in found]


def text_of(ends: Sequence[EndTrace], columns: int) -> str:
    """Return the timeline as text of at most `columns` characters a line."""
    width = max((columns - _TIME_COLUMNS - _GAP * len(ends)) // len(ends), 24)
    gap = " " * _GAP
    heads = [f"{end.command} (process {end.pid})".ljust(width) for end in ends]
    lines = [f"{'ms':>{_TIME_COLUMNS}}{gap}{gap.join(heads)}".rstrip()]
    for row in timeline(ends):
        pieces = list(_pieces(row.call, width))
        times = [f"{row.time_ms:{_TIME_COLUMNS}.2f}"]
        for time, piece in zip_longest(times, pieces, fillvalue=" " * _TIME_COLUMNS):
            lines.append(f"{time}{gap}{' ' * (row.end * (width + _GAP))}{piece}")
    return "\n".join(lines)


def _pieces(call: Call, width: int) -> Iterator[str]:
    if call.name:
        yield from wrap(call.text, width, subsequent_indent="  ")
    else:
        text = call.meaning if call.meaning.startswith("...") else f"# {call.meaning}"
        yield from wrap(text, width, subsequent_indent="  ")


def write_timeline_page(ends: Sequence[EndTrace], title: str, path: Path) -> None:
    """Write the timeline as one HTML file that needs no other. Raises what `write_html` raises."""
    heads = [element("th", f"{end.command} (process {end.pid})") for end in ends]
    rows = [_table_row(row, len(ends)) for row in timeline(ends)]
    head = element("thead", element("tr", element("th", "ms"), *heads))
    intro = "Every row is a call that was made, in the order of time; the text below it says what it means."
    page = Html("<!doctype html>\n") + element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name_="viewport", content="width=device-width"),
            element("title", f"nettool: {title}"),
            element("style", Html(_STYLE)),
        ),
        element("body", element("h1", title), element("p", intro), element("table", head, element("tbody", *rows))),
        lang="en",
    )
    write_html(page, path)


def _table_row(row: TimelineRow, ends: int) -> Html:
    call = row.call
    if call.name:
        content = join(element("code", call.text), element("small", call.meaning) if call.meaning else Html(""))
    else:
        content = element("span", call.meaning, class_="remark")
    class_ = "data" if call.size_bytes is not None else None
    cells: list[Any] = [element("td", class_=None) for _ in range(ends)]
    cells[row.end] = element("td", content, class_=class_)
    return element("tr", element("td", f"{row.time_ms:.2f}"), *cells)
