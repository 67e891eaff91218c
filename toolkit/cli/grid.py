"""`nettool sim --grid`: a grid of simulations, spread over processes or machines."""

import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from toolkit.cli.command import flag, number, option
from toolkit.cli.options import Scheduler
from toolkit.cli.output import print_json, print_result, print_status
from toolkit.cli.progress import counting_bar
from toolkit.errors import ExitCode, UsageError, printable
from toolkit.fleet.dask_client import check_scheduler, client_of, client_of_local, distributed
from toolkit.fleet.grid import Grid, read_grid
from toolkit.fleet.grid_file import GridFile
from toolkit.fleet.grid_run import run_grid
from toolkit.units import format_seconds

_MAX_WORKERS = 256
_SHOWN_FAILURES = 5


@dataclass(frozen=True, slots=True)
class GridArguments:
    """What `sim --grid` accepts."""

    PANEL: ClassVar[str] = "Grid"

    grid: Annotated[
        Path | None,
        option(
            "--grid", metavar="FILE", text="Simulate every cell of this TOML file (docs/fleet.md) on many processors."
        ),
    ] = None
    workers: Annotated[
        int | None,
        number(
            "--workers", low=1, high=_MAX_WORKERS, text="Worker processes on this machine.", default="one a processor"
        ),
    ] = None
    scheduler: Scheduler = None
    output: Annotated[
        Path | None, option("--output", metavar="FILE", text="File for the results of a grid, as JSON lines.")
    ] = None
    resume: Annotated[bool, flag("--resume", text="Continue an interrupted grid in --output.")] = False

    def check(self) -> Path:
        """Return the file for the results. Raises UsageError if the options do not fit each other."""
        if self.output is None:
            raise UsageError("--grid needs a file for its results: add --output results/grid.jsonl")
        if self.workers is not None and self.scheduler is not None:
            raise UsageError("--workers starts workers here, and --scheduler uses others: give one of them")
        if self.scheduler is not None:
            check_scheduler(self.scheduler)
        return self.output


def simulate_grid(arguments: GridArguments, is_alone: bool, json: bool) -> int:
    """Run the grid; the exit code. `is_alone`: no other option says what to simulate. Raises NettoolError."""
    assert arguments.grid is not None
    if not is_alone:
        raise UsageError("a grid says itself what is simulated: leave out the options for flows and paths, and --trace")
    output = arguments.check()
    grid = read_grid(arguments.grid)
    distributed()  # raises UsageError if it is missing, before the file is created
    started_s = time.monotonic()
    failed: dict[int, str] = {}
    with GridFile(output, grid.header(), grid.size, is_resumed=arguments.resume) as file:
        before = file.count
        if file.count < grid.size:
            with _client(arguments, grid) as client:
                failed = _run(client, grid, file, json=json)
        else:
            file.sort()
        done = file.count - before
    return _report(output, grid, done, before, failed, time.monotonic() - started_s, json=json)


def _client(arguments: GridArguments, grid: Grid) -> AbstractContextManager[Any]:
    if arguments.scheduler is not None:
        return client_of(arguments.scheduler)
    return client_of_local(arguments.workers or min(len(os.sched_getaffinity(0)), grid.size))


def _run(client: Any, grid: Grid, file: GridFile, *, json: bool) -> dict[int, str]:
    with counting_bar("cells", grid.size, file.count, quiet=json) as advance:
        try:
            return run_grid(client, grid, file, lambda _cell: advance())
        except KeyboardInterrupt:
            print_status(f"interrupted: {file.count} of {grid.size} cells are done, and --resume continues")
            raise


def _report(
    output: Path, grid: Grid, done: int, before: int, failed: dict[int, str], seconds: float, *, json: bool
) -> int:
    shown = printable(str(output), 200)
    if json:
        counts = {"cells": grid.size, "done": done, "resumed": before, "failed": len(failed)}
        print_json("grid", {"file": str(output), **counts, "seconds": seconds})
    else:
        resumed = f", {before} of them by earlier runs" if before else ""
        print_result(f"{before + done} of {grid.size} cells in {format_seconds(seconds)}{resumed}: {shown}")
    for cell, reason in sorted(failed.items())[:_SHOWN_FAILURES]:
        print_status(f"nettool: cell {cell} failed: {reason}")
    if len(failed) > _SHOWN_FAILURES:
        print_status(f"nettool: and {len(failed) - _SHOWN_FAILURES} more cells failed")
    return ExitCode.FAILED if failed else ExitCode.OK
