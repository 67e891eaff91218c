"""Send what is extreme: a very large file, a sparse one, files that change meanwhile, a name that is too long.

    python bench/extremes.py [large] [sparse] [changing] [name] [--size 20GiB] [--sparse-size 100GiB] [--folder DIR]

`large`:    a file of random content over each transport; prints the peak memory of both ends, at least this program's.
`sparse`:   a file of which 1 MiB is there, over each transport; prints what was sent and what is on the disk.
`changing`: a tree of 2,000 files, of which 500 are appended to without a pause while it is sent, over each transport.
            Exit code 4 is right, and each of the others has to be the same.
`name`:     standard input under a name of 100,000 bytes: a usage error.

Exits with 1 if something is not as it should be. `large` needs twice its size on the disk.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from peers import listening_port
from small_files import ended

from toolkit.units import format_size, parse_size

NETTOOL = [sys.executable, "-m", "toolkit.cli.main"]
TRANSPORTS = ("tcp", "udp")
MAX_MEMORY_BYTES = 200_000_000
STEP_BYTES = 1 << 24
FILES, CHANGING_FILES = 2000, 500


class Sent(NamedTuple):
    """A session: the sender's exit code and JSON object, its duration, and the peak memory of both ends."""

    code: int
    fields: dict[str, object]
    seconds: float
    sender_bytes: int
    receiver_bytes: int


def send(transport: str, source: Path, folder: Path) -> Sent:
    """Send a file or a tree over loopback."""
    folder.mkdir()
    receive = [*NETTOOL, "recv", "--once", "--port", "0", "--dir", str(folder)]
    with subprocess.Popen([*receive, "--json"], text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as far:
        command = [*NETTOOL, f"{transport}-send", "--json", "--quiet", "-r", str(source)]
        target = f"127.0.0.1:{listening_port(far)}"
        started_s = time.monotonic()
        with subprocess.Popen([*command, target], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as near:
            assert near.stdout is not None
            output = near.stdout.read()
            code, used = ended(near)
        seconds = time.monotonic() - started_s
        _, received = ended(far)
    return Sent(code, json.loads(output or "{}"), seconds, used.ru_maxrss << 10, received.ru_maxrss << 10)


def large(work: Path, arguments: argparse.Namespace) -> bool:
    """A file of random content."""
    source, dice = work / "large", random.Random(1)
    with source.open("wb") as file:
        for _ in range(0, arguments.size, STEP_BYTES):
            file.write(dice.randbytes(STEP_BYTES))
    is_right = True
    for transport in TRANSPORTS:
        sent = send(transport, source, work / transport)
        memory = f"{format_size(sent.sender_bytes)} and {format_size(sent.receiver_bytes)} of memory"
        print(f"large, {transport}: {format_size(arguments.size)} in {sent.seconds:.1f} s, {memory}, exit {sent.code}")
        is_right &= sent.code == 0 and max(sent.sender_bytes, sent.receiver_bytes) < MAX_MEMORY_BYTES
        is_right &= subprocess.run(["cmp", source, work / transport / "large"], check=False).returncode == 0
        shutil.rmtree(work / transport)
    return is_right


def sparse(work: Path, arguments: argparse.Namespace) -> bool:
    """A file that is nearly all holes."""
    source, content = work / "sparse", random.Random(1).randbytes(1 << 20)
    with source.open("wb") as file:
        file.truncate(arguments.sparse_size)
        file.seek(arguments.sparse_size // 2)
        file.write(content)
    is_right = True
    for transport in TRANSPORTS:
        sent = send(transport, source, work / transport)
        stored = work / transport / "sparse"
        stored_bytes = stored.stat().st_blocks * 512
        facts = f"{format_size(stored_bytes)} on the disk, {format_size(sent.receiver_bytes)} of memory"
        print(
            f"sparse, {transport}: {format_size(arguments.sparse_size)} in {sent.seconds:.1f} s, {facts}, {sent.code}"
        )
        with stored.open("rb") as file:
            file.seek(arguments.sparse_size // 2)
            is_right &= file.read(len(content)) == content
        is_right &= sent.code == 0 and stored.stat().st_size == arguments.sparse_size and stored_bytes < 1 << 22
    return is_right


def changing(work: Path, _: argparse.Namespace) -> bool:
    """Files that are appended to while they are sent."""
    tree, is_over = work / "tree", threading.Event()
    tree.mkdir()
    dice = random.Random(1)
    paths = [tree / f"{number:04}" for number in range(FILES)]
    for path in paths:
        path.write_bytes(dice.randbytes(1 << 16))
    unruly = set(dice.sample(paths, CHANGING_FILES))

    def change() -> None:
        while not is_over.is_set():
            for path in unruly:
                with path.open("ab") as file:
                    file.write(b"more")

    is_right = True
    for transport in TRANSPORTS:
        is_over.clear()
        changer = threading.Thread(target=change)
        changer.start()
        try:
            sent = send(transport, tree, work / transport)
        finally:
            is_over.set()
            changer.join()
        folder = work / transport / "tree"
        wrong = [path.name for path in paths if path not in unruly and not same(path, folder / path.name)]
        left_out = sum(not (folder / path.name).exists() for path in unruly)
        remains = [name for name in os.listdir(folder) if name.startswith(".")]
        print(f"changing, {transport}: {left_out} of {CHANGING_FILES} left out, {len(wrong)} wrong, exit {sent.code}")
        is_right &= not wrong and not remains and sent.code == (4 if left_out else 0)
    return is_right


def same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


def name(_work: Path, _: argparse.Namespace) -> bool:
    """A name that no file system takes."""
    command = [*NETTOOL, "send", "--name", "n" * 100_000, "-", "127.0.0.1:1"]
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    print(f"name: exit {done.returncode}, {done.stderr[-60:].decode().strip()}")
    return done.returncode == 2 and b"unexpected" not in done.stderr


TRIALS: dict[str, Callable[[Path, argparse.Namespace], bool]] = {
    "large": large,
    "sparse": sparse,
    "changing": changing,
    "name": name,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trials", nargs="*", default=list(TRIALS), metavar="TRIAL", help=", ".join(TRIALS))
    parser.add_argument("--size", default="20GiB", type=parse_size)
    parser.add_argument("--sparse-size", default="100GiB", type=parse_size)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    is_right = True
    for trial in arguments.trials:
        with tempfile.TemporaryDirectory(prefix="nettool-extremes-", dir=arguments.folder) as folder:
            is_right &= TRIALS[trial](Path(folder), arguments)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
