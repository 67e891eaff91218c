"""`nettool diff`: show what changed between two files of records."""

from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer
from tabulate import tabulate

from toolkit.cli.command import command
from toolkit.cli.options import Json
from toolkit.cli.output import print_json, print_result
from toolkit.compare.comparison import plain
from toolkit.compare.diff import MIN_TRIALS, CellChange, compare, differences_of_hosts
from toolkit.compare.record_file import read
from toolkit.compare.verdict import INCONCLUSIVE, to_settle
from toolkit.errors import printable
from toolkit.report.labels import MAX_COLUMNS, NOTHING, ratio_interval
from toolkit.units import format_rate, format_ratio, format_size

_HEADERS = ("path", "size", "transport", "old", "new", "new / old", "95% interval", "verdict")


@command
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Records of the earlier campaign.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Records of the later campaign.")],
    json: Json = False,
) -> int:
    """Show what changed between two campaigns of nettool bench.

    Each transport on each path gets the ratio of its two median goodputs, with a 95% interval and a verdict.

    \b
    Examples:
      nettool diff results/before.jsonl results/after.jsonl
      nettool diff results/lab.jsonl results/office.jsonl --json
    """
    before, after = read(old), read(new)
    changes = compare(before, after)
    hosts = differences_of_hosts(before, after)
    if json:
        print_json("diff", {"changes": [plain(change) for change in changes], "hosts": hosts})
        return 0
    print_result(tabulate([_row(change) for change in changes], _HEADERS, disable_numparse=True))
    if hosts:
        print_result(f"\nThe two hosts differ: {printable('; '.join(hosts), 400)}.")
    if any(change.ratio is not None and change.ratio.interval is None for change in changes):
        print_result(f"\nA verdict needs at least {MIN_TRIALS} trials in each campaign: --repeat {MIN_TRIALS} or more.")
    for change in changes:
        if change.verdict == INCONCLUSIVE:
            print_result(fill(_inconclusive(change), MAX_COLUMNS, subsequent_indent="    "))
    return 0


def _row(change: CellChange) -> list[str]:
    return [
        printable(change.path),
        format_size(change.payload_bytes),
        printable(change.transport),
        format_rate(change.old_bps) if change.old_bps is not None else NOTHING,
        format_rate(change.new_bps) if change.new_bps is not None else NOTHING,
        format_ratio(change.ratio.value) if change.ratio is not None else NOTHING,
        ratio_interval(change.ratio),
        f"{change.verdict}, negligible" if change.is_negligible else change.verdict,
    ]


def _inconclusive(change: CellChange) -> str:
    """Why a change is inconclusive, below the table."""
    cell = f"{printable(change.path)}, {format_size(change.payload_bytes)}, {printable(change.transport)}"
    return f"{cell}: {change.because or 'the interval is too wide'}; in each campaign, {to_settle(change.more_blocks)}"
