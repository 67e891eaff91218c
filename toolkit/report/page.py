"""The report page: one HTML file that needs no other file, no network, and only a browser.

The verdicts come first. For each campaign, its tables, pictures, method and host follow, with the records as a
download. Labels and errors come from files and are untrusted, so a content security policy in the page forbids every
request and every script but the page's own. The same records give the same page, byte for byte.

Read: Content Security Policy Level 3 (https://www.w3.org/TR/CSP3/), sections 6.1 and 8.4.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from time import gmtime, strftime
from typing import Any, NamedTuple

from toolkit.comparison.findings import PathVerdict
from toolkit.comparison.json_codec import encode
from toolkit.comparison.merge import MergedRow
from toolkit.comparison.record_file import Record, line
from toolkit.comparison.records import CONTROL_SUFFIX, Campaign, Results
from toolkit.comparison.rows import Row
from toolkit.comparison.summary import Summary, judging
from toolkit.errors import printable
from toolkit.report import drawing, text
from toolkit.report.cells import Cell, Column, Table
from toolkit.report.drawing import Picture
from toolkit.report.forest import SIGNS, forest, merged_forest
from toolkit.report.html import Html, element, join, write_html
from toolkit.report.labels import label, path_label
from toolkit.report.merged import GUARANTEE, between_runs, merged_remarks
from toolkit.report.plots import pictures
from toolkit.report.tables import imported_tables, tables
from toolkit.units import format_size

_MAX_NOTE = 10_000
_DOTS = (
    "Each dot is one block, the first at the top: the goodput of a transport divided by that of the baseline in the "
    "same block, on a logarithmic scale. A dot beyond the end of the scale is a transfer that failed."
)
_INTERVAL = (
    "Below the dots are the median and its 95% interval. The interval decides: on one side of 1 it shows a difference, "
    "within the coloured band, the margin, that the two are equivalent, and otherwise nothing."
)
_CONTROL = "The A/A control is the baseline against itself: this machine resolves nothing finer than its interval."
_RUNS = (
    "Each dot is a run, the first at the top. The thick bar is the interval of the mean. The thin one holds the true "
    "ratio of about 19 of 20 runs, as far as these show it: another run may well differ by as much."
)
_ROW_HEADER = "transport"
_MAX_SENTENCE = 2000
_SHORT_TITLE = 14
"""Longest title of a column that is not broken into lines: a name like tcp-bbr would be, at its hyphen."""
_MAX_OPEN_GROUPS = 6
"""How many groups of pictures are expanded at first; a large matrix has too many to scroll past."""


class Heading(NamedTuple):
    """What the user says of a page: its title, and a note, whose paragraphs are separated by empty lines."""

    title: str = "TCP and UDP compared"
    note: str = ""


_HEADING = Heading()


def write_page(
    summaries: Sequence[Summary],
    path: Path,
    imported: Sequence[Row] = (),
    merged: Sequence[MergedRow] = (),
    heading: Heading = _HEADING,
) -> None:
    """Write one page of campaigns and of other programs' runs. Without matplotlib, it has a note instead of pictures.

    merged: the campaigns as one result, which then comes first

    Raises what `write_html` raises.
    """
    write_html(page(summaries, imported, merged, heading), path)


def page(
    summaries: Sequence[Summary],
    imported: Sequence[Row] = (),
    merged: Sequence[MergedRow] = (),
    heading: Heading = _HEADING,
) -> str:
    """The page as text."""
    names = text.names(summaries)
    main = element(
        "main",
        element(
            "details",
            element("summary", "How to read the plots"),
            *(element("p", line) for line in (_DOTS, _INTERVAL, _CONTROL)),
        ),
        _merged(merged, summaries),
        *(_verdicts(summary, name) for summary, name in zip(summaries, names, strict=True)),
        *(
            _campaign(summary, name, f"campaign-{number}")
            for number, (summary, name) in enumerate(zip(summaries, names, strict=True), 1)
        ),
        _imported(imported),
        id="main",
    )
    return document(heading.title, _header(names, bool(imported), heading), main)


def document(title: str, header: Html, main: Html) -> str:
    """A whole page of these parts; the id of `main` is "main"."""
    script = _asset("page.js")
    body = element(
        "body",
        element("a", "Skip to the verdicts", class_="skip", href="#main"),
        header,
        main,
        element("footer", element("p", "Made by nettool from the records that this page contains.")),
        element("script", Html(script)),
    )
    return join(Html("<!doctype html>\n"), element("html", _head(script, title), body, lang="en"), Html("\n"))


def page_header(title: str) -> Html:
    """The head of a page that has only a title."""
    return _header([], False, Heading(title))


def _head(script: str, title: str) -> Html:
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("title", f"nettool: {printable(title, _MAX_SENTENCE)}"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("style", Html(_asset("page.css"))),
    )


def _header(names: Sequence[str], has_imported: bool, heading: Heading) -> Html:
    links = [element("a", name, href=f"#campaign-{number}") for number, name in enumerate(names, 1)]
    if has_imported:
        links.append(element("a", "Runs of other programs", href="#imported"))
    return element(
        "header",
        element("h1", printable(heading.title, _MAX_SENTENCE)),
        *(
            element("p", printable(" ".join(each.split()), _MAX_NOTE))
            for each in heading.note.split("\n\n")
            if each.strip()
        ),
        element("nav", *links, aria_label="On this page") if len(links) > 1 else Html(""),
    )


def _merged(rows: Sequence[MergedRow], summaries: Sequence[Summary]) -> Html:
    """A card for each path and size, over all campaigns."""
    if not rows:
        return Html("")
    campaign = summaries[0].results.campaign
    margin = min(summary.results.campaign.margin for summary in summaries)
    cards = []
    for path, size in dict.fromkeys((row.path, row.payload_bytes) for row in rows):
        of_cell = [row for row in rows if (row.path, row.payload_bytes) == (path, size)]
        title = element("h3", f"{path_label(path)}, {campaign.content_text(size)}")
        lines = [printable(line, _MAX_SENTENCE) for line in (*between_runs(of_cell), *merged_remarks(of_cell))]
        remarks = element("ul", *(element("li", line) for line in lines), class_="remarks")
        cards.append(element("li", title, merged_forest(of_cell, campaign.baseline, margin), remarks))
    return element(
        "section",
        element("h2", f"{len(summaries)} runs as one result"),
        element("ol", *cards, class_="verdicts"),
        element("p", _RUNS, class_="note"),
        element("p", GUARANTEE, class_="note"),
    )


def _verdicts(summary: Summary, name: str) -> Html:
    """A card for each path and size."""
    cards = [_card(verdict, summary.results.campaign) for verdict in summary.verdicts]
    title = element("h2", f"{name}: which transport is faster, and how certain that is")
    notes = [element("p", printable(note, _MAX_SENTENCE), class_="note") for note in summary.notes]
    return element("section", title, element("ol", *cards, class_="verdicts"), *notes)


def _card(verdict: PathVerdict, campaign: Campaign) -> Html:
    remarks = (*verdict.effects_in_doubt, *verdict.details)
    return element(
        "li",
        element("h3", printable(verdict.where)),
        forest(verdict, campaign.baseline, campaign.margin),
        element("ul", *(element("li", printable(line, _MAX_SENTENCE)) for line in remarks), class_="remarks"),
    )


def _campaign(summary: Summary, name: str, anchor: str) -> Html:
    campaign = summary.results.campaign
    speed, *others = tables(summary)
    return element(
        "section",
        element("h2", f"{name}, {text.started_text(campaign)}"),
        element("p", " ".join(text.caption(summary.results)), class_="note"),
        sortable_table(speed.without_prose),
        _pictures(summary, anchor),
        *(sortable_table(table) for table in others),
        _provenance(summary.results),
        id=anchor,
    )


def _imported(imported: Sequence[Row]) -> Html:
    if not imported:
        return Html("")
    shown = [sortable_table(table) for table in imported_tables(imported)]
    return element("section", element("h2", "Runs of other programs"), *shown, id="imported")


def sortable_table(table: Table) -> Html:
    """A sortable table. Prose has a row of its own below its data row; sorting moves the two together."""
    shown = [n for n, column in enumerate(table.columns) if not column.is_prose]
    is_grouped = len({row[0].text for row in table.rows}) < len(table.rows)
    lines = []
    for number, row in enumerate(table.rows):
        is_first = is_grouped and number and row[0].text != table.rows[number - 1][0].text
        cells = [_cell(table.columns[n], row[n]) for n in shown]
        lines.append(element("tr", *cells, class_="first" if is_first else None))
        prose = [row[n].text for n in range(len(row)) if n not in shown and row[n].value is not None]
        if prose:
            sentence = element("div", " ".join(prose))
            lines.append(element("tr", element("td", sentence, colspan=str(len(shown))), class_="prose"))
    caption = element("caption", element("div", table.note))
    header = element("tr", *(_heading(table.columns[n]) for n in shown))
    body = element("table", caption, element("thead", header), element("tbody", *lines), class_="sortable")
    return element(
        "section",
        element("h3", table.title),
        element("div", body, class_="scroll", role="region", tabindex="0", aria_label=table.title),
        class_="table",
    )


def _heading(column: Column) -> Html:
    short = "short" if len(column.title) <= _SHORT_TITLE else ""
    return element("th", column.title, scope="col", class_=_column_classes(column, short))


def _cell(column: Column, cell: Cell) -> Html:
    is_header = column.title == _ROW_HEADER
    text, ends = cell.text, cell.text.split(" to ")
    is_range = column.is_figure and len(ends) > 1
    if is_range:  # may only break before its upper end
        text = " ".join("\u00a0".join(end.split()) for end in (f"{ends[0]} to", *ends[1:]))
    key = "" if cell.value is None else cell.value if isinstance(cell.value, str) else repr(cell.value)
    return element(
        "th" if is_header else "td",
        f"{SIGNS[cell.verdict]} {text}" if cell.verdict else text,
        scope="row" if is_header else None,
        class_=_column_classes(column, _verdict_class(cell.verdict), "range" if is_range else ""),
        data_v=None if key == cell.text else key,
    )


def _column_classes(column: Column, *more: str) -> str | None:
    classes = ["figure" if column.is_figure else "", "key" if column.title == _ROW_HEADER else "", *more]
    return " ".join(filter(None, classes)) or None


def _pictures(summary: Summary, anchor: str) -> Html:
    if not drawing.is_available():
        return element(
            "p", "There are no pictures: they need matplotlib, pip install 'nettool[report]'.", class_="note"
        )
    groups: dict[str, list[Html]] = {}
    for number, picture in enumerate(pictures(summary), 1):
        groups.setdefault(picture.group, []).append(_figure(picture, f"{anchor}-{number}-"))
    sections = []
    for position, (group, elements) in enumerate(groups.items()):
        shown = element("div", *elements, class_="pictures")
        if group:
            title = element("summary", element("h3", group))
            sections.append(element("details", title, shown, class_="group", open=position < _MAX_OPEN_GROUPS))
        else:
            sections.append(element("section", element("h3", "All paths"), shown))
    return join(*sections)


def _figure(picture: Picture, prefix: str) -> Html:
    return element(
        "figure",
        Html(drawing.inline(picture, prefix)),
        element("figcaption", element("strong", f"{picture.title}."), " ", picture.caption),
        _data(picture),
    )


def _data(picture: Picture) -> Html:
    """What the picture shows as a table, for those who cannot see it."""
    heading, *rows = picture.data
    head = element("tr", *(element("th", text, scope="col") for text in heading))
    body = [element("tr", *(element("td", text) for text in row)) for row in rows]
    caption = element("caption", element("div", f"Data of the picture: {picture.title}"))
    shown = element("table", caption, element("thead", head), element("tbody", *body), class_="data")
    region = element("div", shown, class_="scroll", role="region", tabindex="0", aria_label=picture.title)
    return element("details", element("summary", "Data"), region, class_="data")


def _provenance(results: Results) -> Html:
    """How and where the campaign was measured, and its records."""
    campaign = results.campaign
    lines = [element("li", printable(str(text), 1000)) for text in (*campaign.method, *judging(campaign))]
    method = element("ul", *lines)
    command = " ".join(str(word) for word in campaign.command)
    started_by = element("p", "Command: ", element("code", printable(command, 1000))) if command else Html("")
    paths = [
        (path_label(path), printable(str(settings.text or "not emulated"), 400))
        for path, settings in campaign.paths.items()
    ]
    return join(
        element("details", element("summary", "Method"), method, started_by, _control_note(campaign)),
        element("details", element("summary", "Paths"), _definitions(paths)),
        element("details", element("summary", "Host"), _definitions(_facts(encode(campaign.host)))),
        records_link(results),
    )


def _definitions(pairs: Sequence[tuple[str, str]]) -> Html:
    return element("dl", *(join(element("dt", term), element("dd", text)) for term, text in pairs))


def _control_note(campaign: Campaign) -> Html:
    control = campaign.baseline + CONTROL_SUFFIX
    if control not in campaign.transports:
        return Html("")
    return element(
        "p",
        f"{label(control)} is {label(campaign.baseline)} a second time: any difference between the two is noise, and "
        "differences between transports that are no larger are not claimed.",
    )


def _facts(host: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The record of the host as names and texts; names of nested fields are joined."""
    facts: list[tuple[str, str]] = []
    for key, value in host.items():
        if value is None:
            continue
        name = f"{prefix}{label(key)}"
        if isinstance(value, Mapping):
            facts += _facts(value, f"{name} ")
        elif str(key).endswith("_bytes") and isinstance(value, int):
            facts.append((name.removesuffix("_bytes"), format_size(value)))
        else:
            facts.append((name, printable(value if isinstance(value, str) else json.dumps(value), 200)))
    return facts


def records_link(results: Results) -> Html:
    """A link that contains the records as in their file, compressed."""
    campaign = results.campaign
    records: list[Record] = [campaign, *results.probes, *results.attempts, *results.outages]
    packed = gzip.compress("".join(line(record) + "\n" for record in records).encode(), mtime=0)
    name = f"{label(campaign.name)}{strftime('-%Y%m%d-%H%M%S', gmtime(campaign.started_unix_s))}.jsonl.gz"
    address = f"data:application/gzip;base64,{base64.b64encode(packed).decode()}"
    link = element("a", f"Download the records: {name}", download=name, href=address)
    size = f" ({len(results.trials)} trials, {format_size(len(packed))}, JSON lines, compressed)"
    return element("p", link, size, class_="download")


def _verdict_class(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _asset(name: str) -> str:
    return package_files("toolkit.report").joinpath(name).read_text(encoding="utf-8")
