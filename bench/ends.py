"""Whether both ends of a session say the same of each file, on paths that lose much or go away at the end.

    python bench/ends.py [loss] [outages] [rtt] [--transports udp,tcp] [--jobs 8] [--between 6.7]

`loss`:    100 small files, one session each, at 30% loss in both directions.
`outages`: 100 small files each on a path of 200 ms that is gone for 1, 2, 3 or 10 s every few seconds.
`rtt`:     a path with a round trip of 6 s, with a code and without.

Each session is `nettool recv` at one end of `nettool link` and `nettool udp-send` or `tcp-send` at the other, with
their default options. Exits with 1 if the ends disagree about a file: the sender's exit code says whether it was sent,
the receiver's report and the name say whether it was kept. Nothing leaves the links.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.forked_cli import ForkedCli

NETTOOL = [sys.executable, "-m", "toolkit.cli.main"]
LOSS = ["--rtt", "40ms", "--rate", "100Mbit", "--loss", "30%", "--both-ways"]
OUTAGE = ["--rtt", "200ms"]
OUTAGES_S = (1, 2, 3, 10)
FIRST_OUTAGE_S = 4.0
OUTAGES = 100
FILES = 100
LONG = ["--rtt", "6s"]
SMALL_BYTES = 4096
REPORT_PATIENCE_S = 45.0
"""How long the receiver may take to report a session after its sender has ended: more than the idle timeout."""
CODE = re.compile(r"\d+(-[a-z]+){3}")


@dataclass(frozen=True)
class Case:
    """Sessions one after the other over one link, each with a file of a size of its own."""

    name: str
    transport: str
    link: list[str]
    first_bytes: int
    count: int = 1
    has_code: bool = False

    @property
    def sizes(self) -> range:
        """Size of each file."""
        return range(self.first_bytes, self.first_bytes + self.count)


@dataclass(frozen=True)
class Fate:
    """What both ends say of a file."""

    case: Case
    file: str
    exit_code: int
    error: str
    seconds: float
    is_kept: bool
    is_verified: bool

    @property
    def is_agreed(self) -> bool:
        """Whether both say the same."""
        return (self.exit_code == 0) == self.is_kept == self.is_verified


def code_in(file: Path) -> str:
    """The latest code that a receiver has printed to this file."""
    while not (codes := list(CODE.finditer(file.read_text()))):
        time.sleep(0.05)
    return codes[-1].group()


def send_inside(folder: Path, transport: str, admission: str) -> None:
    """At the near end of a link: send each file and wait until the receiver has reported it; print how it went."""
    reports = folder / "reports.jsonl"
    ForkedCli(["--help"]).communicate()  # imports everything, for all that follow
    for file in sorted((folder / "files").iterdir()):
        proof = ["--code", code_in(folder / "errors")] if admission == "code" else ["--open"]
        before, begin_s = reports.read_text().count("\n"), time.monotonic()
        sender = ForkedCli([f"{transport}-send", "--json", *proof, str(file), "far"])
        _, errors = sender.communicate()
        ended_s = time.monotonic()
        while reports.read_text().count("\n") == before and time.monotonic() < ended_s + REPORT_PATIENCE_S:
            time.sleep(0.05)
        print(json.dumps([file.name, sender.returncode, errors.decode().strip(), ended_s - begin_s]), file=sys.stderr)


def run(case: Case) -> list[Fate]:
    """Run the sessions of a case."""
    with tempfile.TemporaryDirectory(prefix="nettool-ends-") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        (folder / "kept").mkdir()
        for size in case.sizes:
            (folder / "files" / str(size)).write_bytes(os.urandom(size))
        admission = "code" if case.has_code else "open"
        proof = "" if case.has_code else "--open"
        receiver = f"exec {' '.join(NETTOOL)} recv --bind 0.0.0.0 {proof} --dir {folder}/kept --json"
        far = f"sh -c '{receiver} > {folder}/reports.jsonl 2> {folder}/errors'"
        inside = [sys.executable, __file__, "--inside", str(folder), case.transport, admission]
        command = [*NETTOOL, "link", "--json", *case.link, "--far", far, "--", *inside]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        sent = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[")]
        if len(sent) != case.count:
            raise SystemExit(f"{case.name}: {done.stderr}")
        reports = map(json.loads, (folder / "reports.jsonl").read_text().splitlines())
        verified = {report["bytes"] for report in reports if report["verified"]}
        fates = [
            Fate(case, name, exit_code, error, seconds, (folder / "kept" / name).exists(), int(name) in verified)
            for name, exit_code, error, seconds in sent
        ]
        for fate in fates:
            if fate.exit_code or not fate.is_agreed:
                ends = f"exit code {fate.exit_code} ({fate.error}), kept {fate.is_kept}, verified {fate.is_verified}"
                print(f"    {case.transport}, {case.name}, {fate.file}: {ends}", flush=True)
        return fates


def cases_of(group: str, transport: str, jobs: int, between_s: float) -> Iterator[Case]:
    """The cases of a group; those of one kind have one name."""
    if group == "rtt":
        for has_code in (False, True):
            name = "round trip of 6 s" + (", with a code" if has_code else "")
            yield Case(name, transport, LONG, SMALL_BYTES, has_code=has_code)
        return
    paths = {"30% loss both ways": LOSS}
    if group == "outages":
        paths = {f"outages of {seconds} s": [*OUTAGE, *outages_of(seconds, between_s)] for seconds in OUTAGES_S}
    for name, path in paths.items():
        for part in range(jobs):
            count = FILES // jobs + (part < FILES % jobs)
            yield Case(name, transport, [*path, "--seed", str(part)], SMALL_BYTES, count)


def outages_of(seconds: int, between_s: float) -> Iterator[str]:
    """The options of a link that is gone for so long again and again."""
    for number in range(OUTAGES):
        begin_s = FIRST_OUTAGE_S + number * (between_s + seconds)
        yield from ("--at", f"{begin_s:.1f}s blackout {seconds}s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=["loss", "outages", "rtt"], metavar="GROUP")
    parser.add_argument("--transports", default="udp,tcp")
    parser.add_argument("--jobs", type=int, default=8, help="links at the same time; most of them wait")
    parser.add_argument("--between", type=float, default=6.7, metavar="SECONDS", help="from one outage to the next")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        folder, transport, admission = arguments.inside
        send_inside(Path(folder), transport, admission)
        return
    transports = arguments.transports.split(",")
    cases = [
        case
        for group in arguments.groups
        for name in transports
        for case in cases_of(group, name, arguments.jobs, arguments.between)
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        fates = [fate for several in pool.map(run, cases) for fate in several]
    is_agreed = True
    for name, transport in dict.fromkeys((case.name, case.transport) for case in cases):
        mine = [fate for fate in fates if (fate.case.name, fate.case.transport) == (name, transport)]
        kept, sent = sum(fate.is_kept for fate in mine), sum(fate.exit_code == 0 for fate in mine)
        seconds = sorted(fate.seconds for fate in mine)
        times = f"median {seconds[len(seconds) // 2]:.1f} s, longest {seconds[-1]:.1f} s"
        print(f"{transport}, {name}: {len(mine)} files, {sent} sent, {kept} kept; {times}")
        is_agreed &= all(fate.is_agreed for fate in mine)
    sys.exit(0 if is_agreed else 1)


if __name__ == "__main__":
    main()
