"""Send a large file again of which a part has changed: how many bytes and how long, beside rsync?

    python bench/updates.py [--size 1GiB] [--changed 0.01] [--places 1] [--repeat 3] [--folder DIR]

In each round, the receiver of each program has the file, `--changed` of its bytes are then changed in place, in one
stretch or in several, and the file is sent again over loopback: by nettool with `--update` over each transport, and by
`rsync -a` to an rsync daemon. What is counted is what the sender sends: content and digests with nettool, "Total bytes
sent" with rsync, whose receiver sends its digests of the old file ("received") before.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from peers import listening_port
from small_files import LIMIT_S, rsync_daemon
from tabulate import tabulate

from toolkit.transfer.chunks import CHUNK_BYTES, CHUNK_DIGEST_BYTES
from toolkit.units import format_size, parse_size

NETTOOL = [sys.executable, "-m", "toolkit.cli.main"]
STEP_BYTES = 1 << 24


class Update(NamedTuple):
    """One update: its duration, and what the sender and the receiver sent."""

    seconds: float
    sent_bytes: int
    answered_bytes: int


def make_file(path: Path, size_bytes: int, generator: random.Random) -> None:
    with path.open("wb") as file:
        for offset in range(0, size_bytes, STEP_BYTES):
            file.write(generator.randbytes(min(STEP_BYTES, size_bytes - offset)))


def change(path: Path, share: float, places: int, generator: random.Random) -> None:
    """Change a share of a file, in so many places."""
    size_bytes = path.stat().st_size
    length = int(size_bytes * share / places)
    with path.open("r+b") as file:
        for number in range(places):
            room_bytes = size_bytes // places
            file.seek(number * room_bytes + generator.randrange(room_bytes - length))
            file.write(generator.randbytes(length))


def with_nettool(transport: str, source: Path, folder: Path) -> Update:
    command = [*NETTOOL, f"{transport}-recv", "--once", "--overwrite", "--port", "0", "--dir", str(folder)]
    with subprocess.Popen(command, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as receiver:
        port = listening_port(receiver)
        send = [*NETTOOL, f"{transport}-send", "--json", "--update", str(source), f"127.0.0.1:{port}"]
        started_s = time.monotonic()
        sent = subprocess.run(send, capture_output=True, text=True, check=True, timeout=LIMIT_S)
        seconds = time.monotonic() - started_s
        receiver.communicate(timeout=LIMIT_S)
    fields = json.loads(sent.stdout)
    chunks = -(-source.stat().st_size // CHUNK_BYTES)
    return Update(seconds, fields["bytes"] - fields["resumed_bytes"] + chunks * CHUNK_DIGEST_BYTES, chunks)


def with_rsync(source: Path, folder: Path, work: Path) -> Update:
    with rsync_daemon(folder, work) as port:
        command = ["rsync", "-a", "--stats", str(source), f"rsync://127.0.0.1:{port}/copy/"]
        started_s = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S)
        seconds = time.monotonic() - started_s
    sent, received = (
        int(number.replace(",", "")) for number in re.findall(r"Total bytes (?:sent|received): ([\d,]+)", done.stdout)
    )
    return Update(seconds, sent, received)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--changed", default=0.01, type=float)
    parser.add_argument("--places", default=1, type=int)
    parser.add_argument("--repeat", default=3, type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", default=1, type=int)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    updates: dict[str, list[Update]] = {name: [] for name in ("rsync", "tcp", "udp")}
    with tempfile.TemporaryDirectory(prefix="nettool-updates-", dir=arguments.folder) as name:
        work = Path(name)
        source = work / "source"
        make_file(source, arguments.size, generator)
        for program in updates:
            (work / program).mkdir()
            shutil.copy2(source, work / program / "source")
        for _ in range(arguments.repeat):
            change(source, arguments.changed, arguments.places, generator)
            os.sync()
            for program in random.sample(list(updates), len(updates)):
                folder = work / program
                if program == "rsync":
                    updates[program].append(with_rsync(source, folder, work))
                else:
                    updates[program].append(with_nettool(program, source, folder))
                subprocess.run(["cmp", source, folder / "source"], check=True)
    rows = [
        (
            program,
            f"{median(one.seconds for one in found):.2f} s",
            format_size(int(median(one.sent_bytes for one in found))),
            format_size(int(median(one.answered_bytes for one in found))),
        )
        for program, found in updates.items()
    ]
    print(tabulate(rows, headers=["program", "time", "sent", "answered"], disable_numparse=True))


if __name__ == "__main__":
    main()
