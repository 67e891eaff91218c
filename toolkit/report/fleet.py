"""The report of a fleet: N x N maps, a row for each pair with its reason, and changes, as a page and as text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.comparison.diff import CellChange
from toolkit.comparison.rows import Row
from toolkit.comparison.summary import Summary
from toolkit.comparison.verdict import FASTER, NO_CLAIM, SLOWER
from toolkit.errors import printable
from toolkit.report.cells import Cell, Column, Table
from toolkit.report.forest import SIGNS
from toolkit.report.html import Html, element
from toolkit.report.labels import MAX_COLUMNS, NOTHING, judged, label, path_label, ratio_with_interval
from toolkit.report.matrix import PairFigures, hosts_of, pair_figures, stand_outs
from toolkit.report.page import document, page_header, records_link, sortable_table
from toolkit.report.terminal import fitted, wrapped
from toolkit.report.text import flat_row, started_text
from toolkit.units import format_duration_ns, format_fraction, format_rate, format_ratio

_DENSE_HOSTS = 12
"""From so many hosts on, the cells of a map are narrow and its headings stand upright."""
_MAX_SENTENCE = 2000
_NO_CHANGES = "Nothing has changed that these records can show."


@dataclass(frozen=True, slots=True)
class _MapCell:
    """One cell: a short text, the same as a sentence, how dark it is (0 to 1), and a class for its colours."""

    text: str
    sentence: str
    shade: float = 0.0
    kind: str = ""


_Cells = Mapping[tuple[str, str], _MapCell]


def fleet_page(summary: Summary, changes: Sequence[CellChange] | None = None) -> str:
    """The page as text. changes: since an earlier run; None without one. Raises UsageError without a fleet."""
    hosts, pairs = hosts_of(summary), pair_figures(summary)
    campaign = summary.results.campaign
    found = stand_outs(pairs)
    main = element(
        "main",
        element(
            "section",
            element("h2", "What stands out"),
            element("ul", *(element("li", printable(line, _MAX_SENTENCE)) for line in found or ["Nothing."])),
            *([] if changes is None else _changed(changes)),
        ),
        *_maps(hosts, pairs),
        sortable_table(pair_table(pairs)),
        element("p", *(element("span", f"{line} ") for line in campaign.method), class_="note"),
        records_link(summary.results),
        id="main",
    )
    title = f"{len(hosts)} hosts, {len(campaign.paths)} pairs"
    return document(title, page_header(f"{title}, {started_text(campaign)}"), main)


def fleet_text(summary: Summary, changes: Sequence[CellChange] | None, width: int = MAX_COLUMNS) -> str:
    """What stands out, the pairs, and the changes, in lines of at most `width` columns."""
    pairs = pair_figures(summary)
    lines = [fitted(pair_table(pairs).without_prose, "simple", width), ""]
    reasons = [f"{pair.sender} to {pair.receiver}: {pair.reason}" for pair in pairs if pair.reason]
    lines += [wrapped(printable(line, _MAX_SENTENCE), width, "  ") for line in reasons]
    lines += ["", *(wrapped(line, width) for line in stand_outs(pairs))]
    if changes is not None:
        lines += [
            "",
            "Since the earlier run:",
            *(wrapped(line, width) for line in change_lines(changes) or [_NO_CHANGES]),
        ]
    return "\n".join(lines)


def flat_pairs(summary: Summary) -> list[dict[str, Any]]:
    """A flat row for each pair, size and transport: the fields of `flat_row`, and those of the pair."""
    rows = []
    for pair in pair_figures(summary):
        for name, row in pair.rows.items():
            own = {"sender": pair.sender, "receiver": pair.receiver, "rtt_ms": pair.rtt_ms}
            missing = None if pair.outage is None else pair.outage.reason
            rows.append({**flat_row(row), **own, "resent_share": pair.resent.get(name), "outage": missing})
    return rows


def change_lines(changes: Sequence[CellChange]) -> list[str]:
    """The changes that are certain and not negligible, as sentences."""
    lines = []
    for change in changes:
        where = f"{path_label(change.path)}, {label(change.transport)}"
        if change.arrived == (True, False):
            lines.append(f"{where}: no transfer arrives any more.")
        elif change.arrived == (False, True):
            lines.append(f"{where}: transfers arrive again.")
        elif change.verdict in (FASTER, SLOWER) and not change.is_negligible:
            lines.append(f"{where}: {change.verdict} than before, {ratio_with_interval(change.ratio)}.")
    return lines


def pair_table(pairs: Sequence[PairFigures]) -> Table:
    """A row for each pair and compared transport, with the reason as prose."""
    sizes = len({pair.payload_bytes for pair in pairs}) > 1
    columns = [Column("from"), Column("to"), *([Column("size")] if sizes else []), Column("round trip", is_figure=True)]
    rivals = list(dict.fromkeys(row.transport for pair in pairs for row in pair.rivals))
    is_one = len(rivals) == 1  # whose name then stands above its goodput
    columns += [Column("baseline", is_figure=True), *([] if is_one else [Column("transport")])]
    columns += [Column(label(rivals[0]) if is_one else "goodput", is_figure=True), Column("resent", is_figure=True)]
    columns += [Column("ratio [95% interval]", is_figure=True), Column("verdict")]
    rows = []
    for pair in pairs:
        base = next((row for row in pair.rows.values() if row not in pair.rivals), None)
        for row in pair.rivals or list(pair.rows.values()):
            cells = [_text(label(pair.sender)), _text(label(pair.receiver)), *([_text(pair.content)] if sizes else [])]
            cells.append(_figure(pair.rtt_ms, _milliseconds))
            cells.append(_figure(_value(base), format_rate))
            cells += [*([] if is_one else [_text(label(row.transport))]), _figure(_value(row), format_rate)]
            resent = pair.resent.get(row.transport)
            cells.append(_figure(resent, _percent))
            cells.append(Cell(ratio_with_interval(row.ratio), row.ratio.value if row.ratio is not None else None))
            word = judged(row.verdict, row.is_negligible)
            cells.append(Cell(word, word, row.verdict))
            rows.append([*cells, Cell(pair.reason or NOTHING, pair.reason or None)])
    note = "resent: the share of its packets that a transport sent again; the ratio is to the baseline."
    return Table("pairs", "Pairs", note, [*columns, Column("reason", is_prose=True)], rows)


def _maps(hosts: Sequence[str], pairs: Sequence[PairFigures]) -> list[Html]:
    """The heat maps, for each size: ratios with verdicts first, then goodput by transport, loss and round trip."""
    sections = []
    for size in dict.fromkeys(pair.payload_bytes for pair in pairs):
        these = [pair for pair in pairs if pair.payload_bytes == size]
        content = these[0].content
        names = list(dict.fromkeys(name for pair in these for name in pair.rows))
        rivals = list(dict.fromkeys(row.transport for pair in these for row in pair.rivals))
        for name in rivals:
            note = "Goodput relative to the baseline, with the verdict: " + ", ".join(
                f"{SIGNS[word]} {word}" for word in SIGNS if word in {row.verdict for p in these for row in p.rivals}
            )
            sections.append(
                _map(
                    f"{label(name)}: ratio and verdict, {content}",
                    note,
                    hosts,
                    _ratios(these, name, len(hosts) >= _DENSE_HOSTS),
                )
            )
        for name in names:
            goodputs = {pair: _value(pair.rows.get(name)) for pair in these}
            cells = _shaded(goodputs, lambda bps: f"{bps / 1e6:.3g}", format_rate)
            sections.append(_map(f"{label(name)}: goodput, {content}", "In Mbit/s.", hosts, cells))
        for name in names:
            cells = _shaded({pair: pair.resent.get(name) for pair in these}, lambda each: f"{100 * each:.2g}", _percent)
            sections.append(_map(f"{label(name)}: packets sent again, {content}", "In per cent.", hosts, cells))
        cells = _shaded({pair: pair.rtt_ms for pair in these}, lambda ms: f"{ms:.3g}", _milliseconds)
        sections.append(_map(f"Round trip, {content}", "In milliseconds: the smallest of a transfer.", hosts, cells))
    return sections


def _map(title: str, note: str, hosts: Sequence[str], cells: _Cells) -> Html:
    """A table of senders (rows) by receivers (columns)."""
    header = element("tr", element("td", "from \\ to", class_="key"), *(_heading(name) for name in hosts))
    lines = []
    for sender in hosts:
        of_row = [_map_cell(cells.get((sender, receiver)), sender == receiver) for receiver in hosts]
        lines.append(element("tr", element("th", label(sender), scope="row", class_="key"), *of_row))
    caption = element("caption", element("div", note))
    shown = element("table", caption, element("thead", header), element("tbody", *lines))
    dense = " dense" if len(hosts) >= _DENSE_HOSTS else ""
    region = element("div", shown, class_=f"scroll map{dense}", role="region", tabindex="0", aria_label=title)
    return element("section", element("h3", title), region)


def _heading(name: str) -> Html:
    return element("th", element("span", label(name)), scope="col")


def _map_cell(cell: _MapCell | None, is_self: bool) -> Html:
    if cell is None:
        return element("td", "", class_="self" if is_self else None)
    style = f"--shade: {round(100 * cell.shade)}%" if not cell.kind else None
    return element("td", cell.text, title=cell.sentence, class_=cell.kind or "shaded", style=style)


def _ratios(pairs: Sequence[PairFigures], name: str, is_dense: bool) -> dict[tuple[str, str], _MapCell]:
    cells = {}
    for pair in pairs:
        row = pair.rows.get(name)
        if row is None:
            continue
        value = "" if row.ratio is None else f"{row.ratio.value:.2g}" if is_dense else format_ratio(row.ratio.value)
        word = judged(row.verdict, row.is_negligible)
        sentence = f"{pair.sender} to {pair.receiver}: {word}, {ratio_with_interval(row.ratio)}. {pair.reason}"
        kind = (row.verdict if row.verdict in SIGNS else NO_CLAIM).replace(" ", "-")
        text = f"{SIGNS.get(row.verdict, '')}{'' if is_dense else ' '}{value}".strip()
        cells[pair.sender, pair.receiver] = _MapCell(text, printable(sentence, _MAX_SENTENCE), kind=kind)
    return cells


def _value(row: Row | None) -> float | None:
    return row.goodput_bps.value if row is not None and row.goodput_bps is not None else None


def _percent(share: float) -> str:
    return format_fraction(round(share, 4))


def _milliseconds(milliseconds: float) -> str:
    return format_duration_ns(milliseconds * 1e6)


def _shaded(
    values: Mapping[PairFigures, float | None], short: Callable[[float], str], long: Callable[[float], str]
) -> dict[tuple[str, str], _MapCell]:
    """Cells as dark as their value is large; a cross where there is none."""
    most = max((value for value in values.values() if value is not None), default=0.0)
    cells = {}
    for pair, value in values.items():
        where = f"{pair.sender} to {pair.receiver}"
        if value is None:
            sentence = printable(f"{where}: nothing. {pair.reason}", _MAX_SENTENCE)
            cells[pair.sender, pair.receiver] = _MapCell("×", sentence, kind="no-claim")
        else:
            shade = value / most if most else 0.0
            cells[pair.sender, pair.receiver] = _MapCell(short(value), f"{where}: {long(value)}", shade)
    return cells


def _changed(changes: Sequence[CellChange]) -> list[Html]:
    lines = [element("li", line) for line in change_lines(changes) or [_NO_CHANGES]]
    return [element("h2", "Since the earlier run"), element("ul", *lines)]


def _text(text: str) -> Cell:
    return Cell(text, text)


def _figure(value: float | None, form: Callable[[float], str]) -> Cell:
    return Cell(NOTHING if value is None else form(value), value)
