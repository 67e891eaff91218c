"""`nettool report`: tables, pictures and a page from saved records."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from toolkit.cli.command import command, flag, option
from toolkit.cli.export import check_export, export
from toolkit.cli.option_names import with_options
from toolkit.cli.options import Json
from toolkit.cli.output import print_json, print_result, print_status, result_width
from toolkit.comparison.merge import merge
from toolkit.comparison.record_file import read
from toolkit.comparison.rows import Row
from toolkit.comparison.summary import plain, summarise
from toolkit.errors import UsageError, printable, printable_path
from toolkit.output_files import check_output
from toolkit.report import iperf3, page
from toolkit.report.html import PAGE_MARK, PAGE_OPTION
from toolkit.report.labels import MAX_COLUMNS
from toolkit.report.merged import flat_merged, merged_text
from toolkit.report.plots import write_pictures
from toolkit.report.text import FORMATS, flat_rows, report_object, report_text


@dataclass(frozen=True, slots=True)
class PageArguments:
    """The page, and what its author says on it."""

    PANEL: ClassVar[str] = "Page"

    html: Annotated[Path | None, option("--html", metavar="FILE", text="Write a self-contained HTML page to FILE.")] = (
        None
    )
    title: Annotated[
        str | None, option("--title", metavar="TEXT", text="Title of the page.", default="TCP and UDP compared")
    ] = None
    note: Annotated[str | None, option("--note", metavar="TEXT", text="Paragraphs under the title of the page.")] = None

    def check(self, inputs: Sequence[Path]) -> None:
        """Raise UsageError if the page would replace another file, or there is no page to say something on."""
        if self.html is not None:
            check_output(self.html, PAGE_OPTION, PAGE_MARK, inputs)
        elif self.title is not None or self.note is not None:
            raise UsageError("--title and --note stand on the page: give --html FILE, too")


@command
def report(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE...]", help="Records that nettool bench wrote, for example results/*.jsonl."),
    ] = None,
    pictures: Annotated[
        Path | None, option("--pictures", metavar="DIR", text="Write every picture to DIR, as PNG and SVG.")
    ] = None,
    table_format: Annotated[
        str, option("--format", metavar="NAME", text=f"Format of the tables on stdout: {', '.join(FORMATS)}.")
    ] = "simple",
    is_merged: Annotated[
        bool, flag("--merge", text="Combine the campaigns: runs, seeds and hosts as samples, with their variance.")
    ] = False,
    exported: Annotated[
        Path | None, option("--export", metavar="FILE", text="Write the figures to FILE, as .csv or .json.")
    ] = None,
    imported: Annotated[
        list[Path] | None,
        option("--import", metavar="FILE", text="Add runs of 'iperf3 -J' or '--json-stream'. Repeatable."),
    ] = None,
    *,
    on_page: PageArguments,
    json: Json = False,
) -> None:
    """Show the results of campaigns: verdicts, tables, pictures.

    Campaigns come in the order in which they were measured. The same records always give the same output. Pictures
    need matplotlib: pip install 'nettool[report]'.

    \b
    Examples:
      nettool report results/link.jsonl
      nettool report results/*.jsonl --html out.html --pictures pictures
      nettool report results/link.jsonl --format github --import iperf3.json
      nettool report monday.jsonl tuesday.jsonl other-host.jsonl --merge
    """
    if table_format not in FORMATS:
        raise UsageError(f"unknown format '{printable(table_format, 40)}': use one of {', '.join(FORMATS)}")
    _check_files(on_page, exported, [*(files or ()), *(imported or ())])
    saved = sorted((read(path) for path in files or ()), key=lambda results: results.campaign.started_unix_s)
    merged = merge(saved) if is_merged else None
    campaigns = [summarise(results) for results in saved]
    runs = _imported(imported or ())
    if pictures:
        written = write_pictures(campaigns, pictures)
        print_status(f"Pictures: {len(written)} files in {printable(str(pictures))}")
    if on_page.html is not None:
        heading = page.Heading(on_page.title or page.Heading().title, on_page.note or "")
        page.write_page(campaigns, on_page.html, runs, merged or (), heading)
        print_status(f"Page: {printable(str(on_page.html))}")
    if exported is not None:
        export(exported, flat_rows(campaigns, runs) if merged is None else [flat_merged(row) for row in merged])
    if json:
        more = {} if merged is None else {"merged": [plain(row) for row in merged]}
        print_json("report", {**report_object(campaigns, runs), **more})
    elif merged is not None:
        print_result(with_options(merged_text(merged, campaigns, result_width(MAX_COLUMNS))))
    else:
        print_result(with_options(report_text(campaigns, runs, table_format, result_width(MAX_COLUMNS))))


def _check_files(on_page: PageArguments, exported: Path | None, inputs: Sequence[Path]) -> None:
    """Raise UsageError, before the work, if there is no input, or an output would replace another file."""
    if not inputs:
        raise UsageError("no records given: name files that nettool bench wrote, for example results/*.jsonl")
    if exported is not None:
        check_export(exported, inputs)
    on_page.check(inputs)


def _imported(paths: Sequence[Path]) -> list[Row]:
    """Read the runs of other programs, and report what is left out."""
    runs: list[Row] = []
    for path in paths:
        found = iperf3.read(path)
        runs += found.rows
        for reason in found.left_out:
            print_status(f"nettool: {printable_path(path)}: left out: {reason}")
    return runs
