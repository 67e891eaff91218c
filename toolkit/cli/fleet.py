"""`nettool fleet run`: comparisons between every two of many hosts."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn

import typer

from toolkit.cli.command import command, flag, number, option
from toolkit.cli.options import Json, Quiet, Scheduler
from toolkit.cli.output import print_json, print_result, print_status, stderr_is_terminal
from toolkit.cli.progress import counting_bar
from toolkit.comparison.record_file import Record, Writer, read
from toolkit.comparison.records import Outage, Results, Trial
from toolkit.comparison.verdict import least_blocks
from toolkit.errors import ExitCode, NettoolError, UnreachableError, UsageError, printable_path
from toolkit.fleet.dask_client import check_scheduler, client_of, distributed
from toolkit.fleet.mesh import MAX_HOSTS, FleetHost, Mesh, read_mesh
from toolkit.units import format_seconds, format_size

_SHOWN_PAIRS = 20


@dataclass(frozen=True, slots=True)
class FleetArguments:
    """Where the workers of `fleet run` are, and where its records go."""

    PANEL: ClassVar[str] = "Workers and records"

    scheduler: Scheduler = None
    local: Annotated[
        int | None,
        number("--local", low=2, high=MAX_HOSTS, text="Try it: let this machine stand for the first N hosts."),
    ] = None
    output: Annotated[
        Path | None, option("--output", metavar="FILE", text="File for the records.", default="a new file in results/")
    ] = None
    resume: Annotated[
        Path | None, option("--resume", metavar="FILE", text="Continue the interrupted run in this file.")
    ] = None
    dry_run: Annotated[bool, flag("--dry-run", text="Print what would be measured, then exit.")] = False


@command
def fleet_run(
    mesh: Annotated[Path, typer.Argument(metavar="MESH", help="TOML file with the hosts (docs/fleet.md).")],
    workers: FleetArguments,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Compare TCP and UDP between every two of many hosts.

    Starts a worker of dask.distributed on each host over SSH, or uses those of a scheduler, and runs the trials so that
    no host takes part in two at once. A host that is missing costs only its own pairs. Needs nettool[fleet] everywhere.

    \b
    Examples:
      nettool fleet run bench/fleet/mesh.toml --local 3
      nettool fleet run bench/fleet/mesh.toml --output results/monday.jsonl
      nettool fleet run bench/fleet/mesh.toml --scheduler tcp://192.0.2.7:8786
    """
    asked = read_mesh(mesh)
    if workers.scheduler is not None and workers.local is not None:
        raise UsageError("--local starts workers here, and --scheduler uses others: give one of them")
    if workers.resume is not None and workers.output is not None:
        raise UsageError("--resume appends to the records of an interrupted run: leave out --output")
    if workers.scheduler is not None:
        check_scheduler(workers.scheduler)
    if workers.local is not None:
        asked = _on_this_machine(asked, workers.local)
    if workers.dry_run:
        _print_plan(asked, json=json)
        return ExitCode.OK
    distributed()
    chosen = workers.resume or workers.output
    if asked.every_s is None:
        return _run_once(asked, workers, chosen or _default_output(), json=json, quiet=quiet)
    if chosen is not None:
        raise UsageError("a mesh with 'every' makes a new file for each run: leave out --output and --resume")
    return _repeat(asked, workers, asked.every_s, json=json, quiet=quiet)


def _repeat(mesh: Mesh, workers: FleetArguments, every_s: float, *, json: bool, quiet: bool) -> NoReturn:
    """Run the mesh again and again. Each run is due `every_s` after the one before, and begins up to `slip_s` later."""
    due_s = time.monotonic()
    while True:
        _sleep_until(due_s + random.uniform(0.0, mesh.slip_s), quiet=quiet)
        try:
            _run_once(mesh, workers, _default_output(), json=json, quiet=quiet)
        except NettoolError as error:  # the next run may find what this one missed
            print_status(f"nettool: {error}")
        due_s = max(due_s + every_s, time.monotonic())


def _run_once(mesh: Mesh, workers: FleetArguments, path: Path, *, json: bool, quiet: bool) -> int:
    from toolkit.fleet.run import FleetRun, check_resumed

    done: Results | None = None
    if workers.resume is not None:
        done = read(workers.resume)
        check_resumed(mesh, done)
    writer = Writer(path, is_resumed=done is not None)
    count, outages = len(done.trials) if done is not None else 0, list[Outage]()
    total = len(mesh.pairs) * len(mesh.plan.all_settings) * len(mesh.plan.sizes) * mesh.plan.repeats
    try:
        with (
            _client(mesh, workers, quiet=quiet) as client,
            counting_bar("trials", total, count, quiet=quiet) as advance,
        ):

            def write(record: Record) -> None:
                nonlocal count
                writer.write(record)
                if isinstance(record, Trial):
                    count += 1
                    advance()
                elif isinstance(record, Outage):
                    outages.append(record)
                    if not quiet:
                        print_status(_outage_line(record))

            FleetRun(client, mesh, write, done).run()
    except KeyboardInterrupt:
        shown = printable_path(path)
        goes_on = f"{count} of {total} trials are in {shown}, and --resume {shown} continues"
        print_status(f"interrupted: {goes_on if path.exists() else 'nothing had been measured'}")
        raise
    finally:
        writer.close()
    given_up = sorted({each.path for each in outages if each.is_final})
    if json:
        print_json(
            "fleet", {"file": str(path), "trials": count, "of": total, "outages": len(outages), "missing": given_up}
        )
    else:
        print_result(f"{count} of {total} trials: {printable_path(path)}")
        if given_up:
            more = f" and {len(given_up) - _SHOWN_PAIRS} more" if len(given_up) > _SHOWN_PAIRS else ""
            print_result(f"Incomplete: {', '.join(given_up[:_SHOWN_PAIRS])}{more}")
    return ExitCode.FAILED if given_up else ExitCode.OK


@contextmanager
def _client(mesh: Mesh, workers: FleetArguments, *, quiet: bool) -> Iterator[Any]:
    """A client of the workers, after a line that says where dask's dashboard is."""
    from toolkit.fleet.deploy import dashboard_of, local_workers, ssh_failures, ssh_workers

    hosts = dict(mesh.hosts)
    if workers.scheduler is not None:
        connection = client_of(workers.scheduler)
    elif workers.local is not None:
        connection = local_workers(hosts)
    else:
        failures = ssh_failures(hosts)
        for name, reason in failures.items():
            print_status(f"nettool: {name}: {reason}")
            del hosts[name]
        if len(hosts) < 2:
            raise UnreachableError("fewer than two hosts can be reached over ssh; see the lines above")
        connection = ssh_workers(hosts)
    with connection as client:
        dashboard = dashboard_of(client)
        if dashboard and not quiet:
            print_status(f"dashboard of dask: {dashboard}")
        yield client


def _on_this_machine(mesh: Mesh, count: int) -> Mesh:
    """The first hosts of the mesh, all of them this machine, which runs one trial at a time."""
    names = list(mesh.hosts)[:count]
    if len(names) < count:
        raise UsageError(f"the mesh has {len(names)} hosts: --local takes at most so many")
    pairs = [pair for pair in mesh.pairs if set(pair) <= set(names)]
    if not pairs:
        raise UsageError("no two of these hosts are a pair of the mesh: raise --local")
    hosts = {name: FleetHost(name, f"127.0.{place // 250}.{place % 250 + 1}", "") for place, name in enumerate(names)}
    labels = {f"{sender} to {receiver}" for sender, receiver in pairs}
    plan = replace(mesh.plan, paths=[path for path in mesh.plan.paths if path.label in labels])
    return replace(mesh, hosts=hosts, pairs=pairs, plan=plan, at_once=1)


def _print_plan(mesh: Mesh, *, json: bool) -> None:
    plan = mesh.plan
    trials = len(mesh.pairs) * len(plan.all_settings) * len(plan.sizes) * plan.repeats
    at_once = min(mesh.at_once or len(mesh.hosts), len(mesh.hosts) // 2)
    busiest = Counter(name for pair in mesh.pairs for name in pair).most_common(1)[0][1] / len(mesh.pairs)
    seconds = trials * max(1 / at_once, busiest) * ((plan.time_s or 5.0) + 2.0)  # of a star, one at a time
    seconds = min(seconds, mesh.budget_s or seconds)
    if json:
        fields = {"hosts": list(mesh.hosts), "pairs": [list(pair) for pair in mesh.pairs], "trials": trials}
        print_json("mesh", {**fields, "at_once": at_once, "seconds": seconds})
        return
    what = (
        format_seconds(plan.time_s) if plan.time_s is not None else ", ".join(format_size(size) for size in plan.sizes)
    )
    print_result(f"hosts:      {', '.join(mesh.hosts)}")
    print_result(f"pairs:      {len(mesh.pairs)}, each with its direction")
    print_result(f"transports: {', '.join(setting.label for setting in plan.all_settings)}, {what}")
    least = least_blocks(plan.comparison_count)
    if plan.repeats < least:
        print_result(
            f"{plan.comparison_count} comparisons need {least} blocks or more to find a difference: raise 'repeats'"
        )
    print_result(
        f"{trials} trials in {plan.repeats} blocks, at most {at_once} at once: about {format_seconds(seconds)}"
    )


def _outage_line(record: Outage) -> str:
    what = "given up" if record.is_final else "will be tried again"
    return f"nettool: {record.path}: {record.host}: {record.reason}; {what}"


def _default_output() -> Path:
    return Path("results") / time.strftime("fleet-%Y%m%d-%H%M%S.jsonl")


def _sleep_until(time_s: float, *, quiet: bool) -> None:
    left_s = time_s - time.monotonic()
    if left_s > 0:
        if not quiet and stderr_is_terminal():
            print_status(f"the next run begins in {format_seconds(round(left_s))}")
        time.sleep(left_s)
