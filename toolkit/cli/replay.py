"""`nettool replay`: run a campaign, or one of its trials, again from its records."""

import time
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from toolkit.cli.command import command, number, option
from toolkit.cli.option_names import with_options
from toolkit.cli.options import Json
from toolkit.cli.output import print_json, print_result, result_width
from toolkit.cli.wait_status import WaitStatus
from toolkit.comparison.campaign import rerun, run, trial_of
from toolkit.comparison.json_codec import encode
from toolkit.comparison.record_file import Writer, read
from toolkit.comparison.records import Results, Trial
from toolkit.comparison.scenario import plan_of_record
from toolkit.comparison.summary import summarise
from toolkit.errors import ExitCode, printable
from toolkit.report.labels import MAX_COLUMNS
from toolkit.report.text import report_text
from toolkit.units import format_rate, format_seconds


@command
def replay(
    records: Annotated[Path, typer.Argument(metavar="RECORDS", help="Records that nettool bench wrote.")],
    trial: Annotated[
        int | None, number("--trial", low=1, text="Number of a single trial to run.", default="all")
    ] = None,
    output: Annotated[
        Path | None,
        option("--output", metavar="FILE", text="File for the records.", default="a new file in results/"),
    ] = None,
    json: Json = False,
) -> int:
    """Run a campaign, or one of its trials, again from its records.

    The new run uses the same content, the same links and the same seeds. A campaign has the patience of the recorded
    one (--patience); a single trial has none.

    \b
    Examples:
      nettool replay results/link.jsonl
      nettool replay results/link.jsonl --trial 12
    """
    results = read(records)
    if trial is not None:
        return _replay_trial(results, trial, json)
    path = output or Path("results") / time.strftime("replay-%Y%m%d-%H%M%S.jsonl")
    writer = Writer(path)
    try:
        again = run(plan_of_record(results.campaign), writer.write, on_wait=WaitStatus())
    finally:
        writer.close()
    if json:
        print_json("replay", {"records": str(path), "trials": [encode(one) for one in again.trials]})
    else:
        print_result(with_options(report_text([summarise(again)], width=result_width(MAX_COLUMNS))))
        print_result(f"Records: {path}. To compare: nettool diff {printable(str(records))} {path}")
    return ExitCode.OK if all(one.verified for one in again.trials) else ExitCode.FAILED


def _replay_trial(results: Results, number: int, json: bool) -> int:
    before = trial_of(results, number)
    after = rerun(results, before)
    if json:
        print_json("replay", {"before": encode(before), "after": encode(after)})
    else:
        then, now = _figures(before), _figures(after)
        print_result(f"{printable(before.path)}, {printable(before.transport)}, link seed {before.link_seed}\n")
        rows = [(name, then[name], now[name]) for name in then]
        print_result(tabulate(rows, ["", "recorded", "now"], disable_numparse=True))
        print_result(f"\nNow: {after.error or after.why}")
    return ExitCode.OK if after.verified else ExitCode.FAILED


def _figures(trial: Trial) -> dict[str, str]:
    resent = trial.retransmitted_packets
    return {
        "time": format_seconds(trial.seconds) if trial.seconds is not None else "failed",
        "goodput": format_rate(trial.goodput_bps) if trial.goodput_bps is not None else "-",
        "resent": str(resent) if resent is not None else "-",
        "lost by the link": str(trial.ledger.forward.lost_by_link) if trial.ledger is not None else "-",
        "marks": ", ".join(trial.marks) or "none",
    }
