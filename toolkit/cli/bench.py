"""`nettool bench`: ask for a campaign, keep its records, print its tables."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.common import emit, emit_json, is_terminal, parse_target, say
from toolkit.cli.options import Json, Quiet, option, reported, spread
from toolkit.compare.campaign import Plan, Record, run
from toolkit.compare.comparison import plain, summarise
from toolkit.compare.paths import LAN_KIND, LINK, LOOPBACK, REMOTE
from toolkit.compare.records import Probe, Results, Trial, Writer, read
from toolkit.compare.scenario import Asked, plan_of_record, read_scenario
from toolkit.errors import TransferError, UsageError
from toolkit.report.text import report_text
from toolkit.units import format_rate, format_seconds, format_size

Rate = Annotated[str | None, option("--rate", metavar="LIST", text="Of the bottleneck.")]
Beside = Annotated[
    str | None, option("--competitor", metavar="NAME", text="A flow beside each transfer, like tcp-cubic.")
]


@dataclass(frozen=True, slots=True)
class Measuring:
    """What every campaign may be told."""

    size: Annotated[str | None, option("--size", metavar="LIST", text="The file's sizes, like 64KiB,256MiB.")] = None
    repeat: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Blocks: turns of each transport. [default: 6]")
    ] = None
    transports: Annotated[
        str | None,
        option(
            "--transports",
            metavar="LIST",
            text="Like tcp-cubic,tcp-bbr,udp-bbr,udp-rate=50Mbit,quic,iperf3-tcp. [default: tcp,udp]",
        ),
    ] = None
    cc: Annotated[str | None, option("--cc", metavar="NAME", text="The control of a plain tcp. [default: cubic]")] = (
        None
    )
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Of everything that is drawn. [default: 1]")] = (
        None
    )
    output: Annotated[
        Path | None, option("--output", metavar="FILE", text="Of the records. [default: results/KIND-DATE-TIME.jsonl]")
    ] = None
    folder: Annotated[
        Path | None, option("--dir", metavar="DIR", text="Where the files lie meanwhile. [default: in memory]")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and how long it takes.")] = False
    no_control: Annotated[bool, typer.Option("--no-control", help="Without the A/A control.")] = False
    limit: Annotated[str | None, option("--limit", metavar="TIME", text="For one transfer. [default: 5min]")] = None
    json: Json = False
    quiet: Quiet = False

    def asked(self, kind: str, **more: Any) -> Asked:
        """A campaign of that kind, and whatever else that kind may be told."""
        return Asked(
            kind=kind,
            transports=self.transports,
            tcp_congestion_control=self.cc,
            sizes=tuple(_listed(self.size)) if self.size else (),
            repeats=self.repeat,
            seed=self.seed,
            folder=self.folder,
            control=False if self.no_control else None,
            limit=self.limit,
            **more,
        )


@dataclass(frozen=True, slots=True)
class Local:
    """What a campaign on this machine alone may be told besides."""

    scenario: Annotated[
        Path | None, option("--scenario", metavar="FILE", text="A TOML file that says the rest (docs/method.md).")
    ] = None
    resume: Annotated[
        Path | None, option("--resume", metavar="FILE", text="Go on with these records, as they were asked for.")
    ] = None


@reported
@spread
def loopback(local: Local, how: Measuring) -> int:
    """Compare TCP and UDP on this machine alone, a process at each end.

    The transports take turns in a random order, and each trial counts from the first connect to the
    receiver's verified digest. Every record is kept as a line of JSON (docs/data-format.md).

    \b
    nettool bench loopback
    nettool bench loopback --size 1GiB --repeat 10
    nettool bench loopback --transports tcp-cubic,tcp-bbr,udp-bbr,udp-cubic,iperf3-tcp
    """
    return _bench(how.asked(LOOPBACK), how, local)


@reported
@spread
def lan(*, rate: Rate = None, competitor: Beside = None, local: Local, how: Measuring) -> int:
    """Compare TCP and UDP on a LAN of two network namespaces on this machine.

    A veth pair joins them; with --rate the kernel's tbf limits it. Needs root, or a machine that lets its user
    make user namespaces.

    \b
    nettool bench lan
    nettool bench lan --rate 1Gbit --size 64KiB,128MiB
    """
    return _bench(how.asked(LAN_KIND, competitor=competitor, link=_lists(rate=rate)), how, local)


@reported
@spread
def link(
    *,
    name: Annotated[
        str | None, option("--link", "--profile", metavar="LIST", text="Links by name (nettool link --list).")
    ] = None,
    rate: Annotated[str | None, option("--rate", metavar="LIST", text="Bottlenecks. [default: 100Mbit]")] = None,
    rtt: Annotated[str | None, option("--rtt", metavar="LIST", text="Round trips. [default: 40ms]")] = None,
    loss: Annotated[str | None, option("--loss", metavar="LIST", text="Shares lost. [default: 0%]")] = None,
    burst: Annotated[
        str | None, option("--burst", metavar="SHARE:TIME[:LOSS]", text="Bad periods, like 1%:20ms.")
    ] = None,
    jitter: Annotated[str | None, option("--jitter", metavar="TIME", text="Mean of a random delay on top.")] = None,
    reorder: Annotated[str | None, option("--reorder", metavar="SHARE", text="Packets held back by 5 ms.")] = None,
    queue: Annotated[
        str | None, option("--queue", metavar="QUEUE", text="500kB, 50ms, codel. [default: rate x rtt]")
    ] = None,
    at: Annotated[
        list[str] | None, option("--at", metavar="CHANGE", text="'5s rate 20Mbit' and its like; repeatable.")
    ] = None,
    both_ways: Annotated[bool, typer.Option("--both-ways", help="Harm the way back as well.")] = False,
    competitor: Beside = None,
    local: Local,
    how: Measuring,
) -> int:
    """Compare TCP and UDP over emulated links: every combination of the lists is a path.

    Each link is probed first, and each trial's packets are accounted for from end to end; what is not in order is
    marked, and where much is, nothing is claimed. Needs root, or a machine that lets its user make user namespaces.

    \b
    nettool bench link --loss 0%,0.1%,1%,5%
    nettool bench link --rate 50Mbit --rtt 10ms,100ms --loss 1% --transports tcp-cubic,tcp-bbr,udp-bbr
    nettool bench link --link starlink,lte --size 64KiB,16MiB --repeat 10
    nettool bench link --loss 1% --competitor tcp-cubic
    nettool bench link --scenario bench/lossy.toml --dry-run
    """
    single = {"burst": burst, "jitter": jitter, "reorder": reorder, "queue": queue, "both_ways": both_ways or None}
    paths = _lists(link=name, rate=rate, rtt=rtt, loss=loss)
    paths |= {key: [value] for key, value in single.items() if value is not None}
    if at:
        paths["changes"] = list(at)
    return _bench(how.asked(LINK, competitor=competitor, link=paths), how, local)


@reported
@spread
def remote(
    *,
    host: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Where `nettool serve` runs.")],
    wait: Annotated[str, option("--wait", metavar="TIME", text="How long HOST is waited for.")] = "30s",
    how: Measuring,
) -> int:
    """Compare TCP and UDP over a real network: `nettool serve` runs on the other machine, and writes no files.

    It may be started later, and may come back after it was gone: it is waited for.

    \b
    nettool bench remote 192.0.2.7
    nettool bench remote lab.example:9001 --size 1MiB,1GiB --repeat 10
    """
    return _bench(how.asked(REMOTE, address=parse_target(host), wait=wait), how, Local())


def _lists(**options: str | None) -> dict[str, list[Any]]:
    """Those that were given, each as the list that it is."""
    return {name: _listed(text) for name, text in options.items() if text}


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",")]


def _bench(asked: Asked, how: Measuring, local: Local) -> int:
    done: Results | None = None
    if local.resume is not None:
        done = read(local.resume)
        plan = plan_of_record(done.campaign, asked.folder)
        if plan.name != asked.kind:
            raise UsageError(f"those records are of 'nettool bench {plan.name}': resume them with that")
    else:
        plan = (asked.over(read_scenario(local.scenario)) if local.scenario is not None else asked).plan()
    if how.dry_run:
        _show_plan(plan, done, how.json)
        return 0
    path = local.resume or how.output or Path("results") / time.strftime(f"{asked.kind}-%Y%m%d-%H%M%S.jsonl")
    results = _run(plan, done, path, how.quiet)
    summary = summarise(results)
    if how.json:
        emit_json(
            "comparison",
            {
                "campaign": asdict(results.campaign),
                "probes": [asdict(probe) for probe in results.probes],
                "trials": [asdict(trial) for trial in results.trials],
                "summary": [plain(row) for row in summary.rows],
                "headline": summary.headline,
            },
        )
    else:
        emit(report_text([summary]))
        emit(f"Records: {path}")
    failed = sum(not trial.verified for trial in results.trials)
    if failed:
        say(f"nettool: {failed} of {plan.turns} trials failed; the records say why: {path}")
    return TransferError.exit_code if failed else 0


def _run(plan: Plan, done: Results | None, path: Path, quiet: bool) -> Results:
    writer = Writer(path, is_resumed=done is not None)
    count = len(done.trials) if done is not None else 0

    def write(record: Record) -> None:
        nonlocal count
        writer.write(record)
        if isinstance(record, Trial):
            count = min(count + 1, plan.turns)
            if not quiet and (is_terminal() or record.error):
                say(f"{count}/{plan.turns}  {record.path}, {record.transport}: {_outcome(record)}")
        elif isinstance(record, Probe) and not quiet and (is_terminal() or record.is_met is False):
            say(f"{record.path}: {record.text}")

    try:
        return run(plan, write, done)
    except KeyboardInterrupt:
        if not quiet and is_terminal():
            say(f"stopped; what is done is kept: {path}")
        raise
    finally:
        writer.close()


def _show_plan(plan: Plan, done: Results | None, json: bool) -> None:
    seconds = plan.expected_seconds()
    left = plan.turns - (len(done.trials) if done is not None else 0)
    if json:
        told = {"transports": [s.label for s in plan.all_settings], "paths": [p.label for p in plan.paths]}
        emit_json(
            "plan", {**told, "sizes": list(plan.sizes), "repeats": plan.repeats, "trials": left, "seconds": seconds}
        )
        return
    emit(f"transports: {', '.join(setting.label for setting in plan.all_settings)}")
    emit(f"paths:      {'; '.join(path.label for path in plan.paths)}")
    emit(f"sizes:      {', '.join(format_size(size) for size in plan.sizes)}")
    emit(f"{left} trials in {plan.repeats} blocks, a warm-up of each included: about {format_seconds(seconds)}.")


def _outcome(trial: Trial) -> str:
    if trial.error or trial.goodput_bps is None:
        return trial.error or "not verified"
    warm_up = " (warm-up)" if trial.block < 0 else ""
    marks = f" [{', '.join(trial.marks)}]" if trial.marks else ""
    return format_rate(trial.goodput_bps) + warm_up + marks
