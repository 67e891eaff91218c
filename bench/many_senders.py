"""Serve many senders at once: how fair, how fast, and with how much memory does one receiver do it?

    python bench/many_senders.py [--senders 100] [--size 10MiB] [--folder DIR]

Starts one `nettool recv` on loopback and that many senders over TCP and as many over UDP, all at the same moment, each
with a file of its own. Prints how many were verified, how long they took by transport, and the receiver's peak memory.
The senders are forked from this process, which has imported what a session needs: two hundred starts of the command
take half a minute of processor time, and sessions would run beside them.
"""

import argparse
import contextlib
import filecmp
import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

from peers import listening_port
from tabulate import tabulate

import toolkit
from toolkit.errors import NettoolError
from toolkit.security.credentials import NoCredential
from toolkit.security.rehearsal import rehearse
from toolkit.transports import registry
from toolkit.units import format_size, parse_size

LIMIT_S = 300
TRANSPORTS = ("tcp", "udp")


@contextlib.contextmanager
def receiver(folder: Path, sessions: int) -> Iterator[tuple[int, int]]:
    """A receiver that takes that many sessions at once; its process id and port."""
    limits = ["--max-sessions", str(sessions)]
    command = [sys.executable, "-m", "toolkit.cli.main", "recv", "--port", "0", "--dir", str(folder), *limits]
    # In a session of its own, the kernel gives the receiver as much of the processors as all senders together
    # (sched_autogroup): they would be on other machines. As one process of two hundred, it cannot even answer them.
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **streams, text=True, start_new_session=True) as process:
        try:
            yield process.pid, listening_port(process)
        finally:
            process.terminate()
            process.communicate(timeout=LIMIT_S)


def load() -> None:
    """Import what a session needs: each of two hundred processes would do it while the sessions of others run."""
    for transport in TRANSPORTS:
        registry.load(transport, toolkit.TransportOptions())
    rehearse(NoCredential().method)
    for module in ("toolkit.api.sending", "toolkit.transfer.sender"):
        importlib.import_module(module)


def send(transport: str, source: Path, port: int, barrier: Barrier, result: Connection) -> None:
    """Be one sender, in a process of its own: put the seconds it took, or its error, into `result`."""
    barrier.wait()
    try:
        result.send(toolkit.send(source, f"127.0.0.1:{port}", transport=transport).seconds)
    except NettoolError as error:
        result.send(str(error))


def peak_memory_bytes(pid: int) -> int:
    """The most memory that a process has had resident."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) << 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--senders", default=100, type=int, help="how many over each transport")
    parser.add_argument("--size", default="10MiB", type=parse_size)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    context = get_context("fork")
    load()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        outgoing, incoming = Path(name, "outgoing"), Path(name, "incoming")
        outgoing.mkdir()
        incoming.mkdir()
        names = [f"{transport}-{number}" for number in range(arguments.senders) for transport in TRANSPORTS]
        for each in names:
            (outgoing / each).write_bytes(os.urandom(arguments.size))
        with receiver(incoming, len(names)) as (pid, port):
            barrier = context.Barrier(len(names))
            results, senders = [], []
            for each in names:
                reading, writing = context.Pipe(duplex=False)
                arguments_ = (each.partition("-")[0], outgoing / each, port, barrier, writing)
                senders.append(context.Process(target=send, args=arguments_))
                senders[-1].start()
                writing.close()
                results.append(reading)
            deadline_s = time.monotonic() + LIMIT_S
            outcomes = []
            for sender, result in zip(senders, results, strict=True):
                is_ready = result.poll(max(0.0, deadline_s - time.monotonic()))
                outcomes.append(result.recv() if is_ready else "no result in time")
                if not is_ready:
                    sender.kill()
                sender.join()
            memory_bytes = peak_memory_bytes(pid)
        verified = sum(filecmp.cmp(incoming / each, outgoing / each, shallow=False) for each in os.listdir(incoming))
    rows = []
    for transport in (*TRANSPORTS, "both"):
        seconds = [
            outcome
            for each, outcome in zip(names, outcomes, strict=True)
            if isinstance(outcome, float) and (transport == "both" or each.startswith(transport))
        ]
        if seconds:
            middle = median(seconds)
            rows.append((transport, len(seconds), middle, max(seconds), max(seconds) / middle))
    print(tabulate(rows, ["transport", "succeeded", "median s", "slowest s", "slowest / median"], floatfmt=".2f"))
    print(f"verified: {verified} of {len(names)}; the receiver's peak memory: {format_size(memory_bytes)}")
    for outcome in sorted({outcome for outcome in outcomes if isinstance(outcome, str)}):
        print(f"failed: {outcome}")


if __name__ == "__main__":
    main()
