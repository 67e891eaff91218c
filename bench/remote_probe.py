"""What `nettool bench remote` measures of a path before the first trial, over emulated links with known figures.

    python bench/remote_probe.py

Needs root, or user namespaces, and an idle machine: emulator and both ends share its processors.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from peers import listening_port
from tabulate import tabulate

from toolkit.comparison.paths import LINK, from_options
from toolkit.comparison.record_file import read
from toolkit.emulator.link import Link

NETTOOL = [sys.executable, "-m", "toolkit.cli.main"]
PATHS = [
    {"rate": "50Mbit", "rtt": "40ms", "loss": "0.5%", "both_ways": True},
    {"rate": "20Mbit", "rtt": "100ms"},
    {"rate": "20Mbit", "rtt": "20ms", "loss": "2%"},
    {"rate": "200Mbit", "rtt": "80ms"},
]
SERVE = ["serve", "--bind", "0.0.0.0", "--port", "0", "--open", "--for", "5min"]
COMPARE = ["--open", "--repeat", "1", "--no-control", "--transports", "udp"]


def measured(options: dict[str, str | bool], records: Path) -> list[object]:
    """The path as asked for, the probe's sentence, and the time of a trial that follows from it."""
    path = from_options(LINK, options, 1)
    assert path.spec is not None
    link = Link(path.spec)
    link.open()
    try:
        server = link.popen_far([*NETTOOL, *SERVE], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with server:
            address = f"{link.addresses.far}:{listening_port(server)}"
            command = [*NETTOOL, "bench", "remote", address, *COMPARE, "--output", str(records)]
            link.popen_near(command, stdout=subprocess.DEVNULL).wait()
            server.terminate()
    finally:
        link.close()
    results = read(records)
    return [path.label, results.probes[0].text, results.campaign.time_s]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(options, Path(folder, f"{number}.jsonl")) for number, options in enumerate(PATHS)]
    print(tabulate(rows, ["path", "as measured", "seconds a trial"]))


if __name__ == "__main__":
    main()
