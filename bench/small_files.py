"""Send a tree of many small files: how fast, with how much processor time and memory, beside rsync?

    python bench/small_files.py [--files 100000] [--size 4KiB] [--repeat 3] [--old TREE] [--folder DIR]

Each round copies the tree over loopback, in turns and in random order, with `rsync -a` to an rsync daemon, and with
nettool over each transport; then copies the unchanged tree again, with `--update`. Both programs write to the same
disk. `--old` adds another checkout, in which `make setup` has run, that sends the tree once. `sync` runs before each
copy, outside the time measured.
"""

import argparse
import contextlib
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from peers import listening_port
from tabulate import tabulate

from toolkit.units import format_size, parse_size

LIMIT_S = 1800
TRANSPORTS = ("tcp", "udp")
FILES_IN_DIRECTORY = 200


class Copy(NamedTuple):
    """One copy of the tree: its duration, and processor time and peak memory of sender and receiver."""

    seconds: float
    sender_cpu_s: float = 0.0
    receiver_cpu_s: float = 0.0
    sender_bytes: int = 0
    receiver_bytes: int = 0


def make_tree(root: Path, files: int, size_bytes: int, generator: random.Random) -> None:
    """A tree of files of random content, and the same modification time for all: that of yesterday."""
    content = generator.randbytes(size_bytes + files)
    yesterday = time.time() - 86_400
    for number in range(files):
        folder = root / f"d{number // FILES_IN_DIRECTORY:05}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"file-{number:07}.dat"
        path.write_bytes(content[number : number + size_bytes])
        os.utime(path, (yesterday, yesterday))


def ended(process: subprocess.Popen[str]) -> tuple[int, resource.struct_rusage]:
    """Wait for a process; its exit code and what it used."""
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage


def with_nettool(python: Path, transport: str, source: Path, folder: Path, options: list[str]) -> Copy:
    command = [str(python), "-m", "toolkit.cli.main"]
    receive = [*command, f"{transport}-recv", "--once", "--port", "0", "--dir", str(folder)]
    with subprocess.Popen(receive, text=True, stderr=subprocess.PIPE, cwd=python.parents[2]) as receiver:
        port = listening_port(receiver)
        assert receiver.stderr is not None
        drain = threading.Thread(target=receiver.stderr.read)
        drain.start()
        send = [*command, f"{transport}-send", "--quiet", *options, "-r", str(source), f"127.0.0.1:{port}"]
        started_s = time.monotonic()
        with subprocess.Popen(send, text=True, cwd=python.parents[2]) as sender:
            code, sent = ended(sender)
        seconds = time.monotonic() - started_s
        received_code, received = ended(receiver)
        drain.join()
    if code or received_code:
        sys.exit(f"{transport}: the sender ended with {code}, the receiver with {received_code}")
    return Copy(
        seconds,
        sent.ru_utime + sent.ru_stime,
        received.ru_utime + received.ru_stime,
        sent.ru_maxrss << 10,
        received.ru_maxrss << 10,
    )


@contextlib.contextmanager
def rsync_daemon(folder: Path, work: Path) -> Iterator[int]:
    """An rsync daemon on loopback that writes to `folder`; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    configuration = work / "rsyncd.conf"
    configuration.write_text(
        f"use chroot = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n[copy]\npath = {folder}\nread only = no\n"
    )
    command = ["rsync", "--daemon", "--no-detach", f"--config={configuration}", f"--port={port}", "--address=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def with_rsync(source: Path, folder: Path, work: Path) -> Copy:
    with rsync_daemon(folder, work) as port:
        started_s = time.monotonic()
        subprocess.run(["rsync", "-a", str(source), f"rsync://127.0.0.1:{port}/copy/"], check=True, timeout=LIMIT_S)
        return Copy(time.monotonic() - started_s)


def rows_of(samples: dict[tuple[str, str], list[Copy]], files: int) -> list[list[str]]:
    """A line for each program and run: rate, beside rsync in the same round, processor time, memory."""
    rows = []
    for (name, kind), copies in samples.items():
        rsync = samples.get(("rsync -a", kind), [])
        ratios = [beside.seconds / copy.seconds for copy, beside in zip(copies, rsync, strict=True)]
        rows.append(
            [
                name,
                kind,
                f"{median(copy.seconds for copy in copies):.2f}",
                f"{files / median(copy.seconds for copy in copies):.0f}",
                f"{median(ratios):.2f}" if ratios else "",
                *(f"{median(used) * 1e4 / files:.2f}" for used in zip(*[copy[1:3] for copy in copies], strict=True)),
                *(format_size(max(used)) for used in zip(*[copy[3:5] for copy in copies], strict=True)),
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", default=100_000, type=int)
    parser.add_argument("--size", default="4KiB", type=parse_size)
    parser.add_argument("--repeat", default=3, type=int)
    parser.add_argument("--old", type=Path, help="another checkout to compare with")
    parser.add_argument("--folder", type=Path, help="where the files are; a temporary directory by default")
    parser.add_argument("--transports", default=",".join(TRANSPORTS))
    parser.add_argument("--seed", default=1, type=int)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    pythons = {"": Path(sys.executable)}
    if arguments.old:
        pythons["old "] = arguments.old.resolve() / ".venv/bin/python"
    turns = [
        (f"{which}{transport}", which, transport) for which in pythons for transport in arguments.transports.split(",")
    ]
    has_rsync = shutil.which("rsync") is not None
    if has_rsync:
        turns.append(("rsync -a", "", "rsync"))
    kinds = ("new", "unchanged")
    samples: dict[tuple[str, str], list[Copy]] = {
        (name, kind): [] for kind in kinds for name, which, _ in turns if not which or kind == "new"
    }
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        work = Path(name)
        source = work / "source"
        make_tree(source, arguments.files, arguments.size, generator)
        for _ in range(arguments.repeat):
            for name, which, transport in generator.sample(turns, len(turns)):
                folder = work / "received"
                folder.mkdir()
                for kind in kinds:
                    if (name, kind) not in samples:
                        continue
                    os.sync()
                    if transport == "rsync":
                        copy = with_rsync(source, folder, work)
                    else:
                        options = ["--update"] if kind == "unchanged" else []
                        copy = with_nettool(pythons[which], transport, source, folder, options)
                    samples[name, kind].append(copy)
                shutil.rmtree(folder)
    headers = [
        "",
        "tree",
        "s",
        "files/s",
        "times rsync",
        "CPU s/10,000: sender",
        "receiver",
        "memory: sender",
        "receiver",
    ]
    print(tabulate(rows_of(samples, arguments.files), headers, stralign="right"))


if __name__ == "__main__":
    main()
