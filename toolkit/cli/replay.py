"""`nettool replay`: a campaign, or one trial of it, again from its records."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from toolkit.cli.common import emit, emit_json
from toolkit.cli.options import Json, reported
from toolkit.compare.campaign import run
from toolkit.compare.comparison import summarise
from toolkit.compare.records import Trial, Writer, read
from toolkit.compare.replay import rerun, trial_of
from toolkit.compare.scenario import plan_of_record
from toolkit.errors import TransferError, printable
from toolkit.report.text import report_text
from toolkit.units import format_rate, format_seconds


@reported
def replay(
    records: Annotated[Path, typer.Argument(metavar="RESULT", help="Records of nettool bench.")],
    trial: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="This trial only, by its number. [default: all]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of the new records. [default: results/replay-DATE-TIME.jsonl]")
    ] = None,
    json: Json = False,
) -> int:
    """Run a campaign again from its records, or one trial of it: same bytes, same links, same seeds.

    \b
    nettool replay results/link.jsonl
    nettool replay results/link.jsonl --trial 12
    """
    results = read(records)
    if trial is not None:
        before = trial_of(results, trial)
        after = rerun(results, before)
        _show(before, after, json)
        return 0 if after.verified else TransferError.exit_code
    path = output or Path("results") / time.strftime("replay-%Y%m%d-%H%M%S.jsonl")
    writer = Writer(path)
    try:
        again = run(plan_of_record(results.campaign), writer.write)
    finally:
        writer.close()
    if json:
        emit_json("replay", {"records": str(path), "trials": [asdict(one) for one in again.trials]})
    else:
        emit(report_text([summarise(again)]))
        emit(f"Records: {path}; what changed: nettool diff {printable(str(records))} {path}")
    return 0 if all(one.verified for one in again.trials) else TransferError.exit_code


def _show(before: Trial, after: Trial, json: bool) -> None:
    if json:
        emit_json("replay", {"before": asdict(before), "after": asdict(after)})
        return
    rows = [(name, *(_told(one)[number] for one in (before, after))) for number, name in enumerate(_NAMES)]
    emit(f"{printable(before.path)}, {printable(before.transport)}, link seed {before.link_seed}\n")
    emit(tabulate(rows, ["", "recorded", "now"], disable_numparse=True))
    emit(f"\nNow: {after.error or after.why}")


_NAMES = ("time", "goodput", "resent", "lost by the link", "marks")


def _told(trial: Trial) -> list[str]:
    return [
        format_seconds(trial.seconds) if trial.seconds is not None else "failed",
        format_rate(trial.goodput_bps) if trial.goodput_bps is not None else "-",
        str(trial.retransmitted_packets) if trial.retransmitted_packets is not None else "-",
        str(trial.ledger["lost_by_link"]) if trial.ledger is not None else "-",
        ", ".join(trial.marks) or "none",
    ]
