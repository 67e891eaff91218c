"""Kill senders and receivers at random moments, and send again: is every file whole, and how much was sent twice?

    python bench/interruptions.py --kills 300

Each round sends a file, or a tree of four, and kills one end (SIGKILL) when a random part has arrived. The next send
must end with identical files. No file may have its final name before it is whole. Rounds go through both transports,
both ends, encrypted or not, and single files or trees. The share sent again is what the second send brought beyond what
was missing, of what was there when the first one was killed.
"""

import argparse
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

NETTOOL = [sys.executable, "-m", "toolkit.cli.main"]
LIMIT_S = 120.0


class Case(NamedTuple):
    """What one round does."""

    transport: str
    victim: str
    is_plaintext: bool
    is_tree: bool


CASES = [
    Case(*case) for case in itertools.product(("tcp", "udp"), ("sender", "receiver"), (False, True), (False, True))
]


def start_receiver(directory: Path, case: Case) -> tuple["subprocess.Popen[bytes]", int]:
    """Start a receiver; return it and its port."""
    command = [*NETTOOL, "recv", "--dir", str(directory), "--port", "0"]
    command += ["--plaintext"] if case.is_plaintext else []
    receiver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert receiver.stderr is not None
    for line in receiver.stderr:
        if line.startswith(b"listening on "):
            return receiver, int(line.split(b" (")[0].rsplit(b":", 1)[1])
    raise RuntimeError("the receiver did not start")


def send_command(source: Path, port: int, case: Case) -> list[str]:
    """The command that sends."""
    command = [*NETTOOL, f"{case.transport}-send", "--json", "--update", "--retry", "0s", "-r"]
    command += ["--plaintext"] if case.is_plaintext else []
    return [*command, str(source), f"127.0.0.1:{port}"]


def stored_bytes(directory: Path) -> int:
    """How much is on the disk below a directory, in unfinished and finished files."""
    total = 0
    for path in directory.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # renamed meanwhile
            continue
        if path.is_file():
            total += min(status.st_size, status.st_blocks * 512)
    return total


def are_whole(source: Path, directory: Path) -> bool:
    """Whether everything that has its final name is identical to its source."""
    files = [path for path in (source, *source.rglob("*")) if path.is_file()]
    copies = [directory / path.relative_to(source.parent) for path in files]
    return all(
        copy.read_bytes() == path.read_bytes() for path, copy in zip(files, copies, strict=True) if copy.exists()
    )


def run_round(case: Case, source: Path, size_bytes: int, dice: random.Random) -> float | None:
    """One kill and the send after it; the share sent again, None if the first send was over before."""
    with tempfile.TemporaryDirectory(prefix="nettool-interruptions-") as name:
        directory = Path(name)
        receiver, port = start_receiver(directory, case)
        threshold = dice.uniform(0.05, 0.95) * size_bytes
        sender = subprocess.Popen(send_command(source, port, case), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        victim = sender if case.victim == "sender" else receiver
        deadline_s = time.monotonic() + LIMIT_S
        while stored_bytes(directory) < threshold and sender.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.02))
        victim.send_signal(signal.SIGKILL)
        sender.communicate(timeout=LIMIT_S)
        is_over = sender.returncode == 0
        there_bytes = stored_bytes(directory)
        assert are_whole(source, directory), f"{case}: a partial file under its final name"
        if case.victim == "receiver":
            receiver.communicate()
            receiver, port = start_receiver(directory, case)
        again = subprocess.run(send_command(source, port, case), capture_output=True, timeout=LIMIT_S, check=False)
        assert again.returncode == 0, f"{case}: exit code {again.returncode}: {again.stderr.decode()}"
        receiver.send_signal(signal.SIGTERM)
        receiver.communicate(timeout=LIMIT_S)
        assert are_whole(source, directory), f"{case}: a file differs"
        assert (directory / source.name).exists(), f"{case}: nothing arrived"
        result = json.loads(again.stdout)
        sent_bytes = result["bytes"] - result["resumed_bytes"]
        return None if is_over else max(0.0, sent_bytes - (size_bytes - there_bytes)) / max(1, there_bytes)


def make_sources(folder: Path, size_bytes: int, dice: random.Random) -> tuple[Path, Path]:
    """A file and a tree of that size."""
    file, tree = folder / "film", folder / "tree"
    file.write_bytes(dice.randbytes(size_bytes))
    (tree / "below").mkdir(parents=True)
    for name, part in (("a", 0.2), ("below/b", 0.5), ("below/c", 0.299), ("d", 0.001)):
        (tree / name).write_bytes(dice.randbytes(int(part * size_bytes)))
    return file, tree


def main() -> None:
    """Run the rounds and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--mebibytes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    shares: dict[str, list[float]] = {"tcp": [], "udp": []}
    with tempfile.TemporaryDirectory(prefix="nettool-interruptions-") as name:
        os.environ["XDG_CACHE_HOME"] = name
        file, tree = make_sources(Path(name), arguments.mebibytes << 20, dice)
        sizes = {
            path: sum(one.stat().st_size for one in [path, *path.rglob("*")] if one.is_file()) for path in (file, tree)
        }
        late = 0
        for number in range(arguments.kills):
            case = CASES[number % len(CASES)]
            source = tree if case.is_tree else file
            share = run_round(case, source, sizes[source], dice)
            if share is None:
                late += 1
            else:
                shares[case.transport].append(share)
            print(f"{number + 1}: {case}: {'too late' if share is None else f'{share:.1%} sent again'}", flush=True)
    print(f"{arguments.kills} kills, seed {arguments.seed}: every file identical; {late} came after the end")
    for transport, values in shares.items():
        if values:
            print(f"{transport}: sent again: median {statistics.median(values):.2%}, most {max(values):.2%}")


if __name__ == "__main__":
    main()
