"""`nettool fleet report`: the maps and figures of a fleet's records."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.command import command, option
from toolkit.cli.export import check_export, export
from toolkit.cli.options import Json
from toolkit.cli.output import print_json, print_result, print_status, result_width
from toolkit.comparison.diff import compare
from toolkit.comparison.record_file import read
from toolkit.comparison.summary import plain, summarise
from toolkit.errors import UsageError, printable
from toolkit.output_files import check_output
from toolkit.report.fleet import flat_pairs, fleet_page, fleet_text
from toolkit.report.html import PAGE_MARK, PAGE_OPTION, write_html
from toolkit.report.labels import MAX_COLUMNS
from toolkit.report.matrix import hosts_of, pair_figures, stand_outs

_PROMETHEUS, _PROMETHEUS_MARK = "--prometheus", b"# HELP nettool_"


@command
def fleet_report(
    records: Annotated[Path, typer.Argument(metavar="FILE", help="Records that 'nettool fleet run' wrote.")],
    html: Annotated[
        Path | None, option("--html", metavar="FILE", text="Write a self-contained HTML page with the maps to FILE.")
    ] = None,
    since: Annotated[
        Path | None, option("--since", metavar="FILE", text="Show what has changed since the run in this file.")
    ] = None,
    exported: Annotated[
        Path | None, option("--export", metavar="FILE", text="Write the figures to FILE, as .csv or .json.")
    ] = None,
    prometheus: Annotated[
        Path | None,
        option(_PROMETHEUS, metavar="FILE", text="Write the figures for the textfile collector of node_exporter."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what a fleet's records say of each pair: goodput, verdict, loss, round trip, and why.

    \b
    Examples:
      nettool fleet report results/monday.jsonl --html monday.html
      nettool fleet report results/tuesday.jsonl --since results/monday.jsonl
      nettool fleet report monday.jsonl --export mon.csv --prometheus mon.prom
    """
    inputs = [records, *([since] if since is not None else [])]
    if html is not None:
        check_output(html, PAGE_OPTION, PAGE_MARK, inputs)
    if exported is not None:
        check_export(exported, inputs)
    if prometheus is not None:
        if find_spec("prometheus_client") is None:
            raise UsageError(
                "--prometheus needs prometheus-client, which is not installed: pip install 'nettool[fleet]'"
            )
        check_output(prometheus, _PROMETHEUS, _PROMETHEUS_MARK, inputs)
    results = read(records)
    summary = summarise(results)
    hosts_of(summary)  # raises UsageError if the records are not of a fleet
    changes = None if since is None else compare(read(since), results)
    if html is not None:
        write_html(fleet_page(summary, changes), html)
        print_status(f"Page: {printable(str(html))}")
    if exported is not None:
        export(exported, flat_pairs(summary))
    if prometheus is not None:
        from toolkit.report.prometheus import write_prometheus

        write_prometheus(summary, prometheus)
    if json:
        changed = {} if changes is None else {"changes": [plain(change) for change in changes]}
        found = stand_outs(pair_figures(summary))
        print_json("fleet-report", {"stands_out": found, "rows": flat_pairs(summary), **changed})
    else:
        print_result(fleet_text(summary, changes, result_width(MAX_COLUMNS)))
