"""`nettool bench`: ask for a campaign, keep its records, print its table."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from toolkit.bench.campaign import TCP_DEFAULT, Plan, parse_cells, run_loopback
from toolkit.bench.record import Campaign, Trial, Writer
from toolkit.cli.common import emit, emit_json, is_terminal, say
from toolkit.cli.options import Json, Quiet, reported
from toolkit.errors import TransferError
from toolkit.report.summary import summarise
from toolkit.report.tables import comparison
from toolkit.units import format_rate, parse_size


@reported
def loopback(
    size: Annotated[str, typer.Option(metavar="SIZE", help="The file's size, like 256MiB or 1G.")] = "256MiB",
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="How often each transport has its turn.")] = 5,
    transports: Annotated[
        str,
        typer.Option(metavar="LIST", help="What to compare: tcp, udp, or with a congestion control, like tcp-bbr."),
    ] = "tcp,udp",
    cc: Annotated[str, typer.Option(metavar="NAME", help="The congestion control of a plain tcp.")] = TCP_DEFAULT,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the order, the payload and the intervals.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the records go. [default: results/loopback-DATE-TIME.jsonl]"),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir", metavar="DIR", help="Where the files lie meanwhile. [default: in memory, where they fit]"
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Compare TCP and UDP on this machine alone, a process at each end.

    The transports take turns in a random order, and each trial counts from the first connect to the
    receiver's verified digest. Every record is kept as a line of JSON (docs/data-format.md).

    \b
    nettool bench loopback
    nettool bench loopback --size 1GiB --repeat 10
    nettool bench loopback --transports tcp-cubic,tcp-bbr,udp-bbr,udp-cubic
    """
    plan = Plan(parse_cells(transports, cc), parse_size(size), repeat, seed, folder)
    path = output or Path("results") / time.strftime("loopback-%Y%m%d-%H%M%S.jsonl")
    writer = Writer(path)
    turns = len(plan.cells) * (repeat + 1)

    def write(record: Campaign | Trial) -> None:
        writer.write(record)
        if isinstance(record, Trial) and not quiet and (is_terminal() or record.error):
            say(f"{record.position + 1}/{turns}  {record.cell}: {_outcome(record)}")

    try:
        results = run_loopback(plan, write)
    finally:
        writer.close()
    if json:
        emit_json(
            "comparison",
            {
                "campaign": asdict(results.campaign),
                "trials": [asdict(trial) for trial in results.trials],
                "summary": [asdict(summary) for summary in summarise(results)],
            },
        )
    else:
        emit(comparison(results))
        emit(f"Records: {path}")
    failed = sum(not trial.verified for trial in results.trials)
    if failed:
        say(f"nettool: {failed} of {turns} trials failed; the records say why: {path}")
    return TransferError.exit_code if failed else 0


def _outcome(trial: Trial) -> str:
    if trial.error:
        return trial.error
    warm_up = " (warm-up)" if trial.block < 0 else ""
    return format_rate(trial.sender["goodput_bps"]) + warm_up
