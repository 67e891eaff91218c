"""Eight hosts on one bridge: does a fleet name every planted truth, and survive every planted fault?

    sudo python bench/fleet_hosts.py [--faults] [--time 3s] [--repeats 2] [--at-once 2] [--folder DIR]

Each host is a network namespace with its own dask worker; the scheduler has one too. Planted: h2 and h3 have links of
20 Mbit/s, h4 loses packets at a short queue, what h5 sends is limited to 10 Mbit/s and what it receives is not, and
nothing that h6 sends to h7 over UDP arrives. All other links have 100 Mbit/s. Prints what the report says, and whether
any host was ever in two trials at once, from the records.

With --faults, h8 never starts; the worker of h1 is killed (-9) in the middle of a trial, h3's is stopped for good, and
the scheduler is cut off for 10 seconds. Prints which pairs are complete and what the run says is missing.

Needs root, tbf (sch_tbf), and nettool[fleet].
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, permutations
from pathlib import Path

import psutil

from toolkit.comparison.record_file import read
from toolkit.comparison.records import Results
from toolkit.comparison.summary import summarise
from toolkit.report.matrix import pair_figures, stand_outs

HOSTS = [f"h{number}" for number in range(1, 9)]
PREFIX, SCHEDULER = "nettool-fleet-", "tcp://10.77.0.100:8786"
LIMIT_S = 1800.0
ADDRESSES = {name: f"10.77.0.{place}" for place, name in enumerate(HOSTS, 1)} | {"scheduler": "10.77.0.100"}


def ip(*words: str, tool: str = "ip") -> None:
    subprocess.run([tool, *words], check=True)


def shape(host: str, rate: str, *, limit: str = "200kb", is_received: bool) -> None:
    """Limit what a host sends, or receives."""
    where = ["-n", f"{PREFIX}bridge", "qdisc", "add", "dev", host] if is_received else [
        "-n", PREFIX + host, "qdisc", "add", "dev", "eth0"
    ]  # fmt: skip
    ip(*where, "root", "tbf", "rate", rate, "burst", "8kb", "limit", limit, tool="tc")


@contextlib.contextmanager
def network() -> Iterator[None]:
    """Namespaces for the hosts and the scheduler, on a bridge in one of its own."""
    names = ["bridge", *ADDRESSES]
    try:
        for name in names:
            ip("netns", "add", PREFIX + name)
            ip("-n", PREFIX + name, "link", "set", "lo", "up")
        ip("-n", f"{PREFIX}bridge", "link", "add", "br0", "type", "bridge")
        ip("-n", f"{PREFIX}bridge", "link", "set", "br0", "up")
        for name, address in ADDRESSES.items():
            far = ["peer", "name", "eth0", "netns", PREFIX + name]
            ip("-n", f"{PREFIX}bridge", "link", "add", name, "type", "veth", *far)
            ip("-n", f"{PREFIX}bridge", "link", "set", name, "master", "br0", "up")
            ip("-n", PREFIX + name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", PREFIX + name, "link", "set", "eth0", "up")
        for host in HOSTS:
            rates = {"h2": ("20mbit", "20mbit"), "h3": ("20mbit", "20mbit"), "h5": ("10mbit", "100mbit")}
            sent, received = rates.get(host, ("100mbit", "100mbit"))
            shape(host, sent, is_received=False, limit="14kb" if host == "h4" else "200kb")
            shape(host, received, is_received=True)
        ip("-n", f"{PREFIX}h6", "rule", "add", "to", ADDRESSES["h7"], "ipproto", "udp", "blackhole")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", PREFIX + name], stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def started(name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program in a namespace; it and its children are killed at the end."""
    command = ["ip", "netns", "exec", PREFIX + name, sys.executable, "-m", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
                    each.kill()


def worker_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """The worker that a nanny has started: the child that listens."""
    children = psutil.Process(process.pid).children(recursive=True)
    return next(each for each in children if "spawn_main" in " ".join(each.cmdline()))


def plant_faults(workers: dict[str, subprocess.Popen[bytes]], records: Path) -> None:
    """Kill, stop and cut, each once so many trials are done."""

    def await_trials(count: int) -> None:
        deadline_s = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline_s:
            if records.exists() and records.read_text().count('"kind": "trial"') >= count:
                return
            time.sleep(0.2)

    await_trials(6)
    time.sleep(0.7)  # into the middle of a trial
    worker_of(workers["h1"]).kill()
    print("killed the worker of h1")
    await_trials(16)
    stopped = psutil.Process(workers["h3"].pid)
    for each in (stopped, *stopped.children(recursive=True)):
        each.send_signal(signal.SIGSTOP)
    print("stopped the worker of h3")
    await_trials(26)
    ip("-n", f"{PREFIX}bridge", "link", "set", "scheduler", "down")
    time.sleep(10.0)
    ip("-n", f"{PREFIX}bridge", "link", "set", "scheduler", "up")
    print("cut the scheduler off for 10 s")


def collisions(results: Results) -> int:
    """How many pairs of trials shared a host and overlapped in time."""
    return sum(
        bool(set(re.split(" to ", one.path)) & set(re.split(" to ", other.path)))
        and (one.started_s or 0) < (other.elapsed_s or 0) - 0.001
        and (other.started_s or 0) < (one.elapsed_s or 0) - 0.001
        for one, other in combinations(results.trials, 2)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--time", default="3s")
    parser.add_argument("--at-once", type=int, default=2, help="all hosts share the processors of this machine")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="nettool-fleet-"))
    folder.mkdir(parents=True, exist_ok=True)
    mesh, records = folder / "mesh.toml", folder / "fleet.jsonl"
    settings = (
        f'time = "{arguments.time}"\nrepeats = {arguments.repeats}\ncontrol = false\nlimit = "20s"\nwait = "60s"\n'
    )
    hosts = "".join(f'{name} = "{ADDRESSES[name]}"\n' for name in HOSTS)
    mesh.write_text(f'transports = ["tcp-cubic", "udp-bbr"]\n{settings}[hosts]\n{hosts}')
    os.environ["DASK_DISTRIBUTED__WORKER__DAEMON"] = "True"
    run = ["nettool", "fleet", "run", str(mesh), "--scheduler", SCHEDULER, "--output", str(records)]
    with network(), contextlib.ExitStack() as running:
        local = ["--local-directory", str(folder)]
        scheduler = ["--host", ADDRESSES["scheduler"], "--port", "8786", "--no-dashboard"]
        running.enter_context(started("scheduler", "distributed.cli.dask_scheduler", *scheduler))
        workers = {
            name: running.enter_context(
                started(
                    name,
                    "distributed.cli.dask_worker",
                    SCHEDULER,
                    "--name",
                    name,
                    "--nthreads",
                    "1",
                    "--resources",
                    f"host:{name}=1",
                    "--no-dashboard",
                    "--memory-limit",
                    "0",
                    *local,
                )
            )
            for name in (HOSTS[:-1] if arguments.faults else HOSTS)
        }
        began_s = time.monotonic()
        command = ["ip", "netns", "exec", f"{PREFIX}scheduler", sys.executable, "-m", "toolkit.cli.main", *run[1:]]
        with subprocess.Popen(command) as process:
            try:
                if arguments.faults:
                    plant_faults(workers, records)
                code = process.wait(LIMIT_S)
            except BaseException:
                process.kill()
                raise
    results = read(records)
    print(f"exit code {code} after {time.monotonic() - began_s:.0f} s; records: {records}")
    print(f"trials: {len(results.trials)}; that shared a host at the same time: {collisions(results)}")
    counts = Counter(trial.path for trial in results.trials)
    complete = {f"{a} to {b}" for a, b in permutations(HOSTS, 2) if counts[f"{a} to {b}"] == 2 * arguments.repeats}
    print(f"complete pairs: {len(complete)} of {len(HOSTS) * (len(HOSTS) - 1)}")
    print("\n".join(stand_outs(pair_figures(summarise(results)))))


if __name__ == "__main__":
    main()
