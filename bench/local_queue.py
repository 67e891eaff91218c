"""What a sender loses in the queue of its own host: a LAN of 1 Gbit/s, shaped by tbf at the sender's interface.

    sudo python bench/local_queue.py [TREE ...] [--queue 500kB] [--size 48MiB] [--repeat 5]

Each TREE is a checkout in which `make setup` has run, this one if there is none; several take turns. The file crosses a
veth pair between two network namespaces. tbf holds `--queue` and passes bursts of 4 ms, which hides late timers. A line
shows medians: goodput as a share of what the path carries, packets resent, and datagrams that the queue dropped and
the sender took back. A queue of 90 kB has room for 60 packets.
"""

import argparse
import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from peers import LIMIT_S, listening_port, running
from tabulate import tabulate

from toolkit.units import parse_size

RATE_BPS = 1e9
BURST_BYTES = 500_000
IDEAL_BPS = RATE_BPS * 1448 / 1514  # of a packet and its Ethernet header, which tbf counts
NEAR, FAR = f"nettool-near-{os.getpid()}", f"nettool-far-{os.getpid()}"
ADDRESSES = {NEAR: "10.9.1.1", FAR: "10.9.1.2"}


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


@contextmanager
def lan(queue_bytes: int) -> Iterator[None]:
    """Two namespaces and a veth pair between them."""
    try:
        for name in ADDRESSES:
            run(f"ip netns add {name}")
        run(f"ip -n {NEAR} link add wire type veth peer name wire netns {FAR}")
        for name, address in ADDRESSES.items():
            run(f"ip -n {name} address add {address}/24 dev wire")
            run(f"ip -n {name} link set wire up")
        shape = f"rate {int(RATE_BPS)}bit burst {min(BURST_BYTES, queue_bytes)} limit {queue_bytes}"
        run(f"ip netns exec {NEAR} tc qdisc add dev wire root tbf {shape}")
        yield
    finally:
        for name in ADDRESSES:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def transfer(tree: Path, source: Path, folder: Path) -> dict[str, Any]:
    """Send the file once; return what the sender reports."""
    command = [str(tree / ".venv/bin/python"), "-m", "toolkit.cli.main"]
    receive = ["udp-recv", "--bind", ADDRESSES[FAR], "--open", "--once", "--dir", str(folder)]
    with running(["ip", "netns", "exec", FAR, *command, *receive], cwd=tree) as receiver:
        listening_port(receiver)
        sent = subprocess.run(
            ["ip", "netns", "exec", NEAR, *command, "udp-send", "--open", "--json", str(source), ADDRESSES[FAR]],
            capture_output=True,
            timeout=LIMIT_S,
            check=True,
            cwd=tree,
        )
        receiver.wait(LIMIT_S)
    (folder / source.name).unlink()
    figures: dict[str, Any] = json.loads(sent.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trees", metavar="TREE", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    parser.add_argument("--queue", default="500kB", type=parse_size)
    parser.add_argument("--size", default="48MiB", type=parse_size)
    parser.add_argument("--repeat", default=5, type=int)
    arguments = parser.parse_args()
    trees = [tree.resolve() for tree in arguments.trees]
    samples: dict[Path, list[dict[str, Any]]] = {tree: [] for tree in trees}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder_name, lan(arguments.queue):
        folder = Path(folder_name)
        source, received = folder / "source.bin", folder / "received"
        received.mkdir()
        with source.open("wb") as file:
            generator, rest_bytes = random.Random(1), arguments.size
            while rest_bytes > 0:
                rest_bytes -= file.write(generator.randbytes(min(rest_bytes, 1 << 20)))
        for number in range(-1, arguments.repeat):  # the first round is a warm-up
            for tree in trees if number % 2 else trees[::-1]:
                figures = transfer(tree, source, received)
                if number >= 0:
                    samples[tree].append(figures)
    rows = [
        [
            tree.name,
            median(each["goodput_bps"] / IDEAL_BPS for each in figures),
            f"{median(each['packets_retransmitted'] / each['packets_sent'] for each in figures):.2%}",
            median(each.get("local_drops", 0) for each in figures),
        ]
        for tree, figures in samples.items()
    ]
    print(tabulate(rows, ["", "share of the ideal", "resent", "dropped by this host"], floatfmt=".3f"))


if __name__ == "__main__":
    main()
