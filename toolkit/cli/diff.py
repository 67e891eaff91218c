"""`nettool diff`: show what changed between two files of records."""

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.command import command, option
from toolkit.cli.export import check_export, export
from toolkit.cli.options import Json
from toolkit.cli.output import print_json, print_result, print_status, result_width
from toolkit.comparison.diff import compare, differences_of_hosts
from toolkit.comparison.record_file import read
from toolkit.comparison.summary import plain
from toolkit.errors import ExitCode, UsageError, printable
from toolkit.report.changes import CONDITIONS, applies, changes_text, flat_change
from toolkit.report.labels import MAX_COLUMNS


@command
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Records of the earlier campaign.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Records of the later campaign.")],
    fail_if: Annotated[
        str | None,
        option(
            "--fail-if",
            metavar="WORD[,...]",
            text=f"Exit with 6 if this holds for any transport on any path: {', '.join(CONDITIONS)}.",
        ),
    ] = None,
    exported: Annotated[
        Path | None, option("--export", metavar="FILE", text="Write the changes to FILE, as .csv or .json.")
    ] = None,
    json: Json = False,
) -> int:
    """Show what changed between two campaigns of nettool bench.

    Each transport on each path gets the ratio of its goodputs, with a 95% interval and a verdict. Trials over the same
    emulated link with the same seed are compared in pairs. A difference within the margin does not count as slower or
    faster for --fail-if; transfers that arrived before and all fail now do count as slower.

    \b
    Examples:
      nettool diff results/old.jsonl results/new.jsonl
      nettool diff results/old.jsonl results/new.jsonl --fail-if slower,missing
      nettool diff results/lab.jsonl results/office.jsonl --json
    """
    conditions = _conditions(fail_if)
    if exported is not None:
        check_export(exported, (old, new))
    before, after = read(old), read(new)
    changes = compare(before, after)
    hosts = differences_of_hosts(before, after)
    found = [change for change in changes if applies(change, conditions)]
    if exported is not None:
        export(exported, [flat_change(change) for change in changes])
    if json:
        print_json("diff", {"changes": [plain(change) for change in changes], "hosts": hosts, "found": len(found)})
    else:
        print_result(changes_text(changes, hosts, result_width(MAX_COLUMNS)))
    if found:
        print_status(f"nettool: --fail-if {','.join(conditions)} holds for {len(found)} of {len(changes)} rows")
    return ExitCode.FOUND if found else ExitCode.OK


def _conditions(text: str | None) -> list[str]:
    words = [word.strip() for word in text.split(",")] if text is not None else []
    for word in words:
        if word not in CONDITIONS:
            raise UsageError(f"unknown condition '{printable(word, 40)}': use {', '.join(CONDITIONS)}")
    return words
