"""Compare two checkouts of nettool: does a change make a transfer faster or slower?

    python bench/trees.py OLD NEW [--size 1GiB] [--repeat 10] [--folder DIR]

OLD and NEW are checkouts in which `make setup` has run. Each round sends one file over loopback by every transport from
either tree, in random order, from file to verified file. The first round is a warm-up. Ratios are computed within a
round, so that a machine whose speed drifts affects both trees alike.
"""

import argparse
import json
import os
import random
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from peers import LIMIT_S, WARM_FACTOR, listening_port, running, warm_memory
from tabulate import tabulate

from toolkit.units import format_rate, parse_size

TRANSPORTS = ("tcp", "udp")


def transfer(tree: Path, transport: str, source: Path, folder: Path) -> tuple[float, float]:
    """One transfer by the program of `tree`: goodput in bits per second, and processor seconds of both ends."""
    command = [str(tree / ".venv/bin/python"), "-m", "toolkit.cli.main"]
    before = os.times()
    with running([*command, f"{transport}-recv", "--once", "--port", "0", "--dir", str(folder)], cwd=tree) as receiver:
        port = listening_port(receiver)
        controls = ["--cc", "cubic"] if transport == "tcp" else []
        sent = subprocess.run(
            [*command, f"{transport}-send", "--json", *controls, str(source), f"127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
            cwd=tree,
        )
        receiver.wait(LIMIT_S)
    after = os.times()
    (folder / source.name).unlink()
    processor_s = after.children_user + after.children_system - before.children_user - before.children_system
    return float(json.loads(sent.stdout)["goodput_bps"]), processor_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--repeat", default=10, type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", default=1, type=int)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    trees = {"old": arguments.old.resolve(), "new": arguments.new.resolve()}
    turns = [(name, transport) for name in trees for transport in TRANSPORTS]
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {turn: [] for turn in turns}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder_name:
        folder = Path(folder_name)
        source, received = folder / "source.bin", folder / "received"
        received.mkdir()
        with source.open("wb") as file:
            for _ in range(arguments.size >> 20):
                file.write(generator.randbytes(1 << 20))
        for number in range(-1, arguments.repeat):
            for name, transport in generator.sample(turns, len(turns)):
                warm_memory(WARM_FACTOR * arguments.size)
                figures = transfer(trees[name], transport, source, received)
                if number >= 0:
                    samples[name, transport].append(figures)
    rows = []
    for transport in TRANSPORTS:
        old, new = samples["old", transport], samples["new", transport]
        goodputs = [after[0] / before[0] for before, after in zip(old, new, strict=True)]
        processors = [after[1] / before[1] for before, after in zip(old, new, strict=True)]
        rows.append(
            [
                f"{transport}-send",
                format_rate(median(goodput for goodput, _ in old)),
                format_rate(median(goodput for goodput, _ in new)),
                median(goodputs),
                f"{min(goodputs):.2f} to {max(goodputs):.2f}",
                median(processors),
            ]
        )
    print(tabulate(rows, ["", "old", "new", "new / old", "range", "processor time"], floatfmt=".3f"))


if __name__ == "__main__":
    main()
