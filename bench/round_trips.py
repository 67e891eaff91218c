"""What `nettool ping` adds to a round trip, beside the ping of the system, over an emulated link.

    sudo python bench/round_trips.py [--against OLD] [--rtt 40ms] [--rounds 15] [--count 40] [--interval 50ms]

Each round runs the system's ping and the three modes of `nettool ping`, in random order; `nettool echo` runs at the far
end. A line of the table is a mode: its shortest round trip, the median of its medians, and by how much they exceed the
median of the system's ping in the same round (median and middle half of the rounds). The shortest says most on a busy
machine. The reliable protocol has a second line: the round trip of the path alone, as it measures that itself. OLD is
another checkout in which `make setup` has run.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from tabulate import tabulate

from toolkit.emulator.link import Link
from toolkit.netmodel.notation import LinkText, link_spec
from toolkit.units import parse_duration_ns

ROOT: Final = Path(__file__).parents[1]
MODES: Final = ("tcp", "raw-udp", "udp")
SYSTEM: Final = "ping of the system"
FIRST_PORT: Final = 9000
PORTS: Final = 2  # of an echo server
START_S: Final = 3.0


def output_of(link: Link, command: list[str]) -> str:
    """Run a command at the near end."""
    with link.popen_near(command, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)} has failed")
    return str(output)


class RoundTrip(NamedTuple):
    """Of the probes of a round, in ms."""

    least: float
    median: float


def by_the_system(link: Link, count: int, interval_s: float) -> RoundTrip:
    output = output_of(link, ["ping", "-c", str(count), "-i", str(interval_s), str(link.addresses.far)])
    times_ms = [float(time_ms) for time_ms in re.findall(r"time=([0-9.]+) ms", output)]
    return RoundTrip(min(times_ms), float(np.median(times_ms)))


def by_nettool(link: Link, program: Path, mode: str, port: int, count: int, interval: str) -> dict[str, RoundTrip]:
    """What a run of `nettool ping` says, by its name in the table."""
    target = f"{link.addresses.far}:{port}"
    options = ["--count", str(count), "--interval", interval, "--json"]
    fields = json.loads(output_of(link, [str(program), "ping", f"--{mode}", *options, target]))
    trips = {mode: RoundTrip(fields["rtt_min_ms"], fields["rtt_p50_ms"])}
    if "path_rtt_p50_ms" in fields:
        trips[f"{mode}, of the path"] = RoundTrip(fields["path_rtt_min_ms"], fields["path_rtt_p50_ms"])
    return trips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="OLD")
    parser.add_argument("--rtt", default="40ms")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--interval", default="50ms")
    arguments = parser.parse_args()
    versions = {"": ROOT, "old ": arguments.against} if arguments.against else {"": ROOT}
    programs = {name: folder.resolve() / ".venv/bin/nettool" for name, folder in versions.items()}
    trips: dict[str, list[RoundTrip]] = {}
    interval_s = parse_duration_ns(arguments.interval) / 1e9
    with ExitStack() as stack:
        link = stack.enter_context(Link(link_spec(LinkText(rtt=arguments.rtt))))
        ports = {name: FIRST_PORT + PORTS * index for index, name in enumerate(programs)}
        for name, program in programs.items():
            echo = [str(program), "echo", "--quiet", "--bind", "0.0.0.0", "--port", str(ports[name])]
            server = stack.enter_context(link.popen_far(echo, stderr=subprocess.DEVNULL))
            stack.callback(server.terminate)
        time.sleep(START_S)
        for _ in range(arguments.rounds):
            turns = [(name, mode) for name in programs for mode in MODES] + [(SYSTEM, "")]
            for name, mode in random.sample(turns, len(turns)):
                if name == SYSTEM:
                    trips.setdefault(SYSTEM, []).append(by_the_system(link, arguments.count, interval_s))
                    continue
                found = by_nettool(link, programs[name], mode, ports[name], arguments.count, arguments.interval)
                for label, trip in found.items():
                    trips.setdefault(f"{name}{label}", []).append(trip)
    medians = {label: np.array([trip.median for trip in found]) for label, found in trips.items()}
    rows = []
    for label in sorted(medians, key=lambda label: float(np.median(medians[label]))):
        low, middle, high = np.percentile(medians[label] - medians[SYSTEM], (25, 50, 75))
        least = min(trip.least for trip in trips[label])
        figures = f"{least:.2f}", f"{np.median(medians[label]):.2f}", f"{middle:+.2f}", f"{low:+.2f} to {high:+.2f}"
        rows.append((label, *figures))
    print(tabulate(rows, ("", "least ms", "median ms", "to the system's", "middle half"), disable_numparse=True))


if __name__ == "__main__":
    main()
