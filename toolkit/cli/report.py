"""`nettool report`: tables, pictures and a page from saved records."""

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.common import emit, emit_json, say
from toolkit.cli.options import Json, reported
from toolkit.compare.comparison import summarise
from toolkit.compare.records import read
from toolkit.errors import UsageError, printable
from toolkit.report import iperf3
from toolkit.report.page import write_page
from toolkit.report.plots import write_pictures
from toolkit.report.text import FORMATS, report_object, report_text


@reported
def report(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help="What nettool bench wrote, like results/*.jsonl.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one page of HTML that needs nothing beside it.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the pictures there, each as PNG and as SVG.")
    ] = None,
    table_format: Annotated[
        str, typer.Option("--format", metavar="NAME", help=f"Of the tables on stdout: {', '.join(FORMATS)}.")
    ] = "simple",
    imported: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="Lay a run beside: what iperf3 -J printed. May be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what campaigns have found, from their records: the verdicts, the tables, the pictures.

    The same records give the same tables, pictures and page. Pictures need matplotlib:
    pip install 'nettool[report]'.

    \b
    nettool report results/link.jsonl
    nettool report results/*.jsonl --html out.html --pictures pictures
    nettool report results/link.jsonl --format github --import iperf3.json
    """
    if table_format not in FORMATS:
        raise UsageError(f"'{printable(table_format, 40)}' is not a format: write one of {', '.join(FORMATS)}")
    if not files and not imported:
        raise UsageError("say which records to show, like results/*.jsonl; nettool bench writes them")
    campaigns = [summarise(read(path)) for path in files or ()]
    runs = [row for path in imported or () for row in iperf3.read(path)]
    if pictures:
        written = write_pictures(campaigns, pictures)
        say(f"Pictures: {len(written)} files in {printable(str(pictures))}")
    if html:
        write_page(campaigns, html, runs)
        say(f"Page: {printable(str(html))}")
    if json:
        emit_json("report", report_object(campaigns, runs))
    else:
        emit(report_text(campaigns, runs, table_format))
