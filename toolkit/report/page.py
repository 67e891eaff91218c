"""The page: one HTML file that needs nothing beside it, no network, and no program but a browser.

The verdicts come first, then for each campaign its tables, pictures, method and host, and the records
themselves as a download. A policy in the page forbids every request and every script but its own, for the
labels and errors in it are whatever a file says. The same records give the same page, byte for byte.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from time import gmtime, strftime
from typing import Any

from toolkit.compare.comparison import BASELINE, FASTER, NO_CLAIM, NO_DIFFERENCE, SLOWER, Row, summarise
from toolkit.compare.records import CONTROL_SUFFIX, Campaign, Probe, Results, Trial, line
from toolkit.errors import TransferError, printable
from toolkit.report import drawing
from toolkit.report.drawing import Picture
from toolkit.report.html import Html, element, join
from toolkit.report.labels import label, ratio, verdict_words
from toolkit.report.plots import pictures
from toolkit.report.tables import Cell, Column, Table, imported_tables, tables
from toolkit.report.text import caption, started_text
from toolkit.units import format_size

_TITLE = "TCP and UDP compared"
_SIGNS = {FASTER: "▲", SLOWER: "▼", NO_DIFFERENCE: "=", NO_CLAIM: "?", BASELINE: "·"}
_ROW_HEADER = "transport"
_OPEN_GROUPS = 6
"""So many groups of pictures are open from the start; of a large matrix the rest would be a long way to scroll."""


def write_page(files: Sequence[Results], path: Path, imported: Sequence[Row] = ()) -> None:
    """One page of these campaigns, and of other programs' runs beside them. Raises TransferError.

    Without matplotlib it has no pictures, and says so.
    """
    content = page(files, imported).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise TransferError(f"cannot write {printable(str(path))}: {error.strerror}; choose another place") from None


def page(files: Sequence[Results], imported: Sequence[Row] = ()) -> str:
    """The page as text."""
    script = _asset("page.js")
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"nettool: {_TITLE}"),
        element("link", rel="icon", href="data:,"),
        element("style", Html(_asset("page.css"))),
    )
    names = _names(files)
    main = element(
        "main",
        *(_verdicts(results, name) for results, name in zip(files, names, strict=True)),
        *(_campaign(results, name, number) for number, (results, name) in enumerate(zip(files, names, strict=True), 1)),
        _imported(imported),
        id="main",
    )
    body = element(
        "body",
        element("a", "Skip to the verdicts", class_="skip", href="#main"),
        _header(names, bool(imported)),
        main,
        element("footer", element("p", "Made by nettool from the records that this page carries.")),
        element("script", Html(script)),
    )
    return join(Html("<!doctype html>\n"), element("html", head, body, lang="en"), Html("\n"))


def _header(names: Sequence[str], has_imported: bool) -> Html:
    links = [element("a", name, href=f"#campaign-{number}") for number, name in enumerate(names, 1)]
    if has_imported:
        links.append(element("a", "Other programs' runs", href="#imported"))
    return element(
        "header",
        element("h1", _TITLE),
        element("nav", *links, aria_label="On this page") if len(links) > 1 else Html(""),
    )


def _names(files: Sequence[Results]) -> list[str]:
    """The campaigns' names; those of a kind are numbered."""
    kinds = [_capital(label(results.campaign.name)) for results in files]
    return [
        f"{kind} {kinds[: number + 1].count(kind)}" if kinds.count(kind) > 1 else kind
        for number, kind in enumerate(kinds)
    ]


def _verdicts(results: Results, name: str) -> Html:
    """A card for each path and size: what was found, who did how well, and the sentence."""
    campaign = results.campaign
    cards = []
    for verdict in summarise(results).verdicts:
        chips = [_chip(row) for row in verdict.rows if row.verdict != BASELINE and not row.is_control]
        cards.append(
            element(
                "li",
                element("h3", printable(verdict.where)),
                element("p", printable(verdict.sentence, 2000), class_="sentence"),
                element("ul", *chips, class_="chips", aria_label=f"Compared with {label(campaign.baseline)}"),
            )
        )
    title = element("h2", f"{name}: which is better, and how sure that is")
    return element("section", title, element("ol", *cards, class_="verdicts"))


def _chip(row: Row) -> Html:
    text = f"{_SIGNS[row.verdict]} {label(row.transport)}: {row.verdict}"
    if row.ratio is not None and row.verdict != NO_CLAIM:
        text += f", {ratio(row.ratio.value)} ×"
    return element("li", text, class_=f"chip {_class(row.verdict)}")


def _campaign(results: Results, name: str, number: int) -> Html:
    campaign = results.campaign
    children = [
        element("h2", f"{name}, {started_text(campaign)}"),
        element("p", " ".join(caption(results)), class_="note"),
    ]
    verdicts = {verdict_words(row): row.verdict for row in summarise(results).rows}
    made = tables(results)
    children.append(_table(made[0], verdicts) if made else Html(""))
    children.append(_pictures(results, f"campaign-{number}"))
    children += [_table(table, verdicts) for table in made[1:]]
    children.append(_provenance(results))
    return element("section", *children, id=f"campaign-{number}")


def _imported(imported: Sequence[Row]) -> Html:
    if not imported:
        return Html("")
    verdicts = {verdict_words(row): row.verdict for row in imported}
    return element(
        "section",
        element("h2", "Other programs' runs"),
        *(_table(table, verdicts) for table in imported_tables(imported)),
        id="imported",
    )


def _table(table: Table, verdicts: Mapping[str, str]) -> Html:
    """Sentences have a line of their own under their row, as wide as the table; sorting keeps the two together."""
    shown = [n for n, column in enumerate(table.columns) if not column.is_prose]
    is_grouped = len({row[0].text for row in table.rows}) < len(table.rows)
    lines = []
    for number, row in enumerate(table.rows):
        is_first = is_grouped and number and row[0].text != table.rows[number - 1][0].text
        cells = [_cell(table.columns[n], row[n], verdicts) for n in shown]
        lines.append(element("tr", *cells, class_="first" if is_first else None))
        said = [row[n].text for n in range(len(row)) if n not in shown and row[n].value is not None]
        if said:
            sentence = element("div", " ".join(said))
            lines.append(element("tr", element("td", sentence, colspan=str(len(shown))), class_="prose"))
    header = element("tr", *(_heading(table.columns[n]) for n in shown))
    body = element("table", element("thead", header), element("tbody", *lines), class_="sortable")
    return element(
        "section",
        element("h3", table.title),
        element("div", body, class_="scroll", role="region", tabindex="0", aria_label=table.title),
        element("p", table.note, class_="note"),
        class_="table",
    )


def _heading(column: Column) -> Html:
    kinds = {"figure": column.is_figure, "key": column.title == _ROW_HEADER}
    return element("th", column.title, scope="col", class_=_classes(kinds))


def _cell(column: Column, cell: Cell, verdicts: Mapping[str, str]) -> Html:
    value = None if cell.value is None else (cell.value if isinstance(cell.value, str) else repr(cell.value))
    verdict = verdicts.get(cell.text, "") if column.title == "verdict" else ""
    text = f"{_SIGNS[verdict]} {cell.text}" if verdict else cell.text
    kinds = {"figure": column.is_figure, "key": column.title == _ROW_HEADER}
    if verdict:
        kinds[_class(verdict)] = True
    is_header = column.title == _ROW_HEADER
    return element(
        "th" if is_header else "td",
        text,
        scope="row" if is_header else None,
        class_=_classes(kinds),
        data_v=None if value == cell.text else "" if value is None else value,
    )


def _pictures(results: Results, name: str) -> Html:
    if not drawing.is_available():
        return element(
            "p", "Pictures are left out: they need matplotlib, pip install 'nettool[report]'.", class_="note"
        )
    groups: dict[str, list[Html]] = {}
    for number, picture in enumerate(pictures(results), 1):
        groups.setdefault(picture.group, []).append(_figure(picture, f"{name}-{number}-"))
    sections = []
    for position, (group, figures) in enumerate(groups.items()):
        shown = element("div", *figures, class_="pictures")
        if group:
            summary = element("summary", element("h3", group))
            sections.append(element("details", summary, shown, class_="group", open=position < _OPEN_GROUPS))
        else:
            sections.append(element("section", element("h3", "Over all paths"), shown))
    return join(*sections)


def _figure(picture: Picture, prefix: str) -> Html:
    return element(
        "figure",
        Html(drawing.inline(picture, prefix)),
        element("figcaption", element("strong", f"{picture.title}."), " ", picture.caption),
    )


def _provenance(results: Results) -> Html:
    """How it was measured, on what, and the records."""
    campaign = results.campaign
    lines = [element("li", printable(str(text), 1000)) for text in campaign.method]
    method = element("ul", *lines) if lines else element("p", "The record does not say.")
    command = " ".join(str(word) for word in campaign.command)
    asked = element("p", "Asked for by ", element("code", printable(command, 1000))) if command else Html("")
    facts = [*_facts(campaign.host)]
    host = element("dl", *(join(element("dt", key), element("dd", value)) for key, value in facts))
    paths = [
        join(element("dt", label(path)), element("dd", printable(str(settings.get("text") or "as it is"), 400)))
        for path, settings in campaign.paths.items()
    ]
    return join(
        element("details", element("summary", "Method"), method, asked, _control_note(results)),
        element("details", element("summary", "Paths"), element("dl", *paths)),
        element("details", element("summary", "Host"), host),
        _download(results),
    )


def _control_note(results: Results) -> Html:
    campaign = results.campaign
    control = campaign.baseline + CONTROL_SUFFIX
    if control not in campaign.transports:
        return Html("")
    text = f"{label(control)} is {label(campaign.baseline)} once more: what differs between the two is noise."
    return element("p", text)


def _facts(host: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for key, value in host.items():
        name = f"{prefix}{label(key)}"
        if isinstance(value, Mapping):
            facts += _facts(value, f"{name} ")
        elif str(key).endswith("_bytes") and isinstance(value, int):
            facts.append((name.removesuffix("_bytes"), format_size(value)))
        else:
            facts.append((name, printable(value if isinstance(value, str) else json.dumps(value), 200)))
    return facts


def _download(results: Results) -> Html:
    """The records as they stand in the file, compressed, inside the link."""
    records: list[Campaign | Probe | Trial] = [results.campaign, *results.probes, *results.trials]
    content = "".join(line(record) + "\n" for record in records).encode()
    packed = gzip.compress(content, mtime=0)
    name = (
        f"{label(results.campaign.name)}{strftime('-%Y%m%d-%H%M%S', gmtime(results.campaign.started_unix_s))}.jsonl.gz"
    )
    link = element(
        "a",
        f"The records: {name}",
        download=name,
        href=f"data:application/gzip;base64,{base64.b64encode(packed).decode()}",
    )
    size = f" ({len(results.trials)} trials, {format_size(len(packed))} of JSON lines, compressed)"
    return element("p", link, size, class_="download")


def _classes(kinds: Mapping[str, bool]) -> str | None:
    return " ".join(kind for kind, is_so in kinds.items() if is_so) or None


def _class(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _asset(name: str) -> str:
    return package_files("toolkit.report").joinpath(name).read_text(encoding="utf-8")
