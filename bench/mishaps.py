"""What nettool, rsync and scp do when something goes wrong, and with what is no plain file: tried over loopback.

    sudo python bench/mishaps.py [--only full-disk] [--folder DIR]

Each program sends the same things, with the options that its users usually give: nettool over either transport,
`rsync -a` and `rsync -a --partial` to an rsync daemon, `scp -pr` to another scp through a pipe (`-O`). Needs
root, for owners and for a full disk, a tmpfs in a mount namespace of its own. docs/other-tools.md has the results.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from peers import listening_port
from small_files import rsync_daemon
from tabulate import tabulate

NETTOOL = [sys.executable, "-m", "toolkit.cli.main"]
LIMIT_S = 120.0
MEBIBYTE = 1 << 20
FILE_BYTES = 64 * MEBIBYTE
DISK_BYTES = 24 * MEBIBYTE
IN_NAMESPACE = "NETTOOL_MISHAPS"


class Program:
    """A program that sends to a folder.

    slowly: options by which it sends about 16 MB/s
    """

    def __init__(self, name: str, slowly: list[str]) -> None:
        self.name = name
        self.slowly = slowly

    @contextlib.contextmanager
    def receiving(self, folder: Path, work: Path) -> Iterator[Callable[..., list[str]]]:
        """Run the receiver; yields the function that makes the sender's command."""
        if self.name.startswith("nettool"):
            recv = [*NETTOOL, "recv", "--port", "0", "--dir", str(folder), "--overwrite"]
            recv += ["--preserve", "owners"] if "--preserve" in self.name else []
            with subprocess.Popen(recv, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as receiver:
                try:
                    port = listening_port(receiver)
                    command = [*NETTOOL, f"{self.name.split()[1]}-send", "--json", "--retry", "0s", "-r", "--update"]
                    command += ["--links"] if "--links" in self.name else []
                    command += ["--preserve", "owners"] if "--preserve" in self.name else []
                    yield lambda *paths, slowly=False: [
                        *command, *(self.slowly if slowly else []), *map(str, paths), f"127.0.0.1:{port}"
                    ]  # fmt: skip
                finally:
                    receiver.send_signal(signal.SIGINT)
                    receiver.communicate()
        elif self.name.startswith("rsync"):
            with rsync_daemon(folder, work) as port:
                yield lambda *paths, slowly=False: [
                    *self.name.split(), "--stats", *(self.slowly if slowly else []), *map(str, paths),
                    f"rsync://127.0.0.1:{port}/copy/",
                ]  # fmt: skip
        else:
            pipe = work / "pipe"
            pipe.write_text('#!/bin/sh\nwhile [ "$1" != host ]; do shift; done\nshift\nexec sh -c "$*"\n')
            pipe.chmod(0o755)
            command = ["scp", "-O", "-S", str(pipe), "-pr"]
            yield lambda *paths, slowly=False: [
                *command, *(self.slowly if slowly else []), *map(str, paths), f"host:{folder}/"
            ]  # fmt: skip


NETTOOLS = [Program(f"nettool {name}", ["--rate", "128Mbit"]) for name in ("tcp", "udp")]
RSYNC, PARTIAL = Program("rsync -a", ["--bwlimit=16000"]), Program("rsync -a --partial", ["--bwlimit=16000"])
SCP = Program("scp -pr", ["-l", "128000"])
PROGRAMS = [*NETTOOLS, RSYNC, PARTIAL, SCP]


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def sent_bytes(done: "subprocess.CompletedProcess[str]") -> str:
    """How much content a sender has sent, if it says so."""
    if done.stdout.startswith("{"):
        fields = json.loads(done.stdout)
        return f"{(fields['bytes'] - fields['hole_bytes'] - fields['resumed_bytes']) / MEBIBYTE:.0f} MiB"
    for line in done.stdout.splitlines():
        if line.startswith("Total bytes sent"):
            return f"{int(line.split()[-1].replace(',', '')) / MEBIBYTE:.0f} MiB"
    return "not said"


def stored_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def start_slowly(command: list[str], folder: Path, until_bytes: int) -> "subprocess.Popen[str]":
    """Start a sender, and wait until so much is in the folder."""
    sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + LIMIT_S
    while stored_bytes(folder) < until_bytes and time.monotonic() < deadline_s and sender.poll() is None:
        time.sleep(0.01)
    return sender


def random_file(path: Path, size_bytes: int = FILE_BYTES) -> Path:
    path.write_bytes(random.Random(1).randbytes(size_bytes))
    return path


def interruption(program: Program, work: Path) -> str:
    """Kill the sender of a new file after half of it, and send again."""
    source, folder = random_file(work / "film"), work / "in"
    folder.mkdir()
    with program.receiving(folder, work) as command:
        sender = start_slowly(command(source, slowly=True), folder, FILE_BYTES // 2)
        sender.kill()
        sender.communicate()
        time.sleep(3)
        final, rest = folder / "film", [path for path in folder.iterdir() if path.name != "film"]
        left = f"a part has the final name ({final.stat().st_size / MEBIBYTE:.0f} MiB)" if final.exists() else ""
        left = left or (f"{sum(p.stat().st_size for p in rest) / MEBIBYTE:.0f} MiB kept, hidden" if rest else "nothing")
        again = run(command(source))
        is_same = final.exists() and final.read_bytes() == source.read_bytes()
    return f"{left}; again: {sent_bytes(again)} sent, exit {again.returncode}, {'whole' if is_same else 'not whole'}"


def full_disk(program: Program, work: Path) -> str:
    """Send a file that does not fit between two that do."""
    folder, tree = work / "in", work / "tree"
    for path in (folder, tree):
        path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=True)
    try:
        for name, size_bytes in (("a", MEBIBYTE), ("b", FILE_BYTES), ("c", MEBIBYTE)):
            random_file(tree / name, size_bytes)
        with program.receiving(folder, work) as command:
            done = run(command(tree))
            whole = [
                path.name
                for path in sorted(tree.iterdir())
                if (folder / "tree" / path.name).exists()
                and (folder / "tree" / path.name).stat().st_size == path.stat().st_size
            ]
            parts = [path.name for path in (folder / "tree").iterdir() if path.name not in whole]
        parts = ["a hidden part" if name.startswith(".") else f"a part as {name}" for name in parts]
        return (
            f"arrived: {', '.join(whole) or 'nothing'}; left: {', '.join(parts) or 'nothing'}; exit {done.returncode}"
        )
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def changed_source(program: Program, work: Path) -> str:
    """Change the beginning and the end of a file while it is sent, and put its time back."""
    source, folder = random_file(work / "film"), work / "in"
    folder.mkdir()
    before, status = source.read_bytes(), source.stat()
    with program.receiving(folder, work) as command:
        sender = start_slowly(command(source, slowly=True), folder, FILE_BYTES // 2)
        with source.open("r+b") as file:
            file.write(b"changed!")
            file.seek(-8, os.SEEK_END)
            file.write(b"changed!")
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
        sender.communicate()
        time.sleep(1)
    final = folder / "film"
    what = "nothing arrived"
    if final.exists():
        content = final.read_bytes()
        is_whole = content in (before, source.read_bytes())
        what = "one of the versions arrived" if is_whole else "a mixture of both versions arrived"
    return f"{what}; exit {sender.returncode}"


def links(program: Program, work: Path) -> str:
    """Send a tree with a symbolic link within it, one that leads out of it, and two names of one file."""
    folder, tree = work / "in", work / "tree"
    folder.mkdir()
    tree.mkdir()
    (tree / "file").write_text("content")
    (tree / "within").symlink_to("file")
    (tree / "out").symlink_to("/etc/hostname")
    (tree / "second").hardlink_to(tree / "file")
    with program.receiving(folder, work) as command:
        done = run(command(tree))
    found = []
    for name in ("within", "out"):
        path = folder / "tree" / name
        kind = "left out" if not path.is_symlink() and not path.exists() else "a copy of the target"
        found.append(f"{name}: {'a link' if path.is_symlink() else kind}")
    is_one = (folder / "tree" / "second").stat().st_ino == (folder / "tree" / "file").stat().st_ino
    return f"{', '.join(found)}; hard link: {'kept' if is_one else 'two files'}; exit {done.returncode}"


def owners(program: Program, work: Path) -> str:
    """Send a file of another user, as root."""
    folder, source = work / "in", work / "file"
    folder.mkdir()
    source.write_text("content")
    os.chown(source, 12_345, 12_345)
    with program.receiving(folder, work) as command:
        done = run(command(source))
    owner = (folder / "file").stat().st_uid
    return f"owner {'kept' if owner == 12_345 else 'not kept'}; exit {done.returncode}"


def sparse_files(program: Program, work: Path) -> str:
    """Send a file of 256 MiB of which 1 MiB is there."""
    folder, source = work / "in", work / "sparse"
    folder.mkdir()
    with source.open("wb") as file:
        file.truncate(256 * MEBIBYTE)
        file.seek(128 * MEBIBYTE)
        file.write(random.Random(1).randbytes(MEBIBYTE))
    with program.receiving(folder, work) as command:
        done = run(command(source))
    stored = (folder / "sparse").stat().st_blocks * 512
    return f"{sent_bytes(done)} sent, {stored / MEBIBYTE:.0f} MiB on the disk; exit {done.returncode}"


MISHAPS: dict[str, tuple[Callable[[Program, Path], str], list[Program]]] = {
    "interruption": (interruption, PROGRAMS),
    "full-disk": (full_disk, PROGRAMS),
    "changed-source": (changed_source, [*NETTOOLS, RSYNC, SCP]),
    "links": (links, [NETTOOLS[0], Program("nettool tcp --links", []), RSYNC, Program("rsync -aH", []), SCP]),
    "owners": (owners, [NETTOOLS[0], Program("nettool tcp --preserve owners", []), RSYNC, SCP]),
    "sparse": (sparse_files, [*NETTOOLS, RSYNC, Program("rsync -aS", []), SCP]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=MISHAPS, action="append")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if os.geteuid():
        parser.error("owners and a full disk need root")
    if IN_NAMESPACE not in os.environ:
        os.environ[IN_NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    rows = []
    for name in arguments.only or MISHAPS:
        attempt, programs = MISHAPS[name]
        for program in programs:
            work = Path(tempfile.mkdtemp(prefix="nettool-mishaps-", dir=arguments.folder))
            try:
                rows.append((name, program.name, attempt(program, work)))
            finally:
                shutil.rmtree(work, ignore_errors=True)
            print(*rows[-1], sep=" | ", flush=True)
    print(tabulate(rows, headers=["mishap", "program", "what happened"], tablefmt="github"))


if __name__ == "__main__":
    main()
