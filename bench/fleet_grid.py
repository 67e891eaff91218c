"""A grid of simulated paths on 1, 2 and 20 workers: how much faster, is the file the same, and how much memory?

    python bench/fleet_grid.py [--grid bench/fleet/simulated.toml] [--workers 1,2,20] [--kill]

Prints the time of each run from the first result to the last (starting workers takes seconds, whatever the size of the
grid), the largest memory of nettool with its scheduler and of a worker, and whether all files are the same to the byte.
With --kill, one worker of each run is killed (-9) when a tenth of the cells are done.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from tabulate import tabulate

from toolkit.fleet.grid import read_grid
from toolkit.units import format_seconds, format_size


def lines(path: Path) -> int:
    """The number of results in the file so far."""
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    return [each for each in process.children(recursive=True) if "spawn_main" in " ".join(each.cmdline())]


def measure(grid: Path, workers: int, output: Path, *, kill: bool) -> list[str]:
    """One run; its row of the table."""
    command = [sys.executable, "-m", "toolkit.cli.main", "sim", "--grid", str(grid), "--output", str(output)]
    size = read_grid(grid).size
    first_s, killed, memory_bytes, worker_bytes = 0.0, "", 0, 0
    with subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.DEVNULL) as process:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            done = lines(output)
            if done and not first_s:
                first_s = time.monotonic()
            try:
                memory_bytes = max(memory_bytes, parent.memory_info().rss)
                ours = workers_of(parent)
                worker_bytes = max([worker_bytes, *(each.memory_info().rss for each in ours)])
                if kill and not killed and done >= size / 10 and ours:
                    ours[0].kill()
                    killed = f"killed at {done}"
            except psutil.Error:
                pass
            time.sleep(0.1)
    seconds = format_seconds(time.monotonic() - first_s)
    return [str(workers), str(lines(output)), seconds, format_size(memory_bytes), format_size(worker_bytes), killed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=Path, default=Path("bench/fleet/simulated.toml"))
    parser.add_argument("--workers", default="1,2,20")
    parser.add_argument("--kill", action="store_true")
    arguments = parser.parse_args()
    counts = [int(word) for word in arguments.workers.split(",")]
    with tempfile.TemporaryDirectory(prefix="nettool-grid-") as folder:
        outputs = [Path(folder) / f"{count}.jsonl" for count in counts]
        rows = [measure(arguments.grid, *each, kill=arguments.kill) for each in zip(counts, outputs, strict=True)]
        is_same = len({output.read_bytes() for output in outputs}) == 1
    print(tabulate(rows, ["workers", "cells", "time", "nettool", "a worker", ""], disable_numparse=True))
    print("the same to the byte:", is_same)


if __name__ == "__main__":
    main()
