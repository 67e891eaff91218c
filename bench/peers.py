"""Compare nettool with other tools: one file over loopback, in turns, as ratios.

    python bench/peers.py [--size 1GiB] [--repeat 5] [--folder DIR] [--cc cubic]

Each round runs every tool once, in random order: `nettool tcp-send`, `nettool udp-send`, and, if installed, `iperf3`
(TCP, memory to memory) and Debian's `srt-file-transmit`. nettool and SRT copy from file to file. nettool verifies the
digest, and its time ends with the verified digest. SRT reports nothing, so its time is that of the whole process.
(`nettool bench loopback --transports udp,quic` compares with aioquic.)
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tabulate import tabulate

from toolkit.units import format_rate, parse_size

LIMIT_S = 300


@contextmanager
def running(arguments: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=10)


def nettool(transport: str, source: Path, folder: Path, *options: str) -> float:
    """Send `source` to a new receiver; return the goodput in bits per second."""
    command = [sys.executable, "-m", "toolkit.cli.main"]
    with running([*command, f"{transport}-recv", "--once", "--port", "0", "--dir", str(folder)]) as receiver:
        assert receiver.stderr is not None
        port = receiver.stderr.readline().split()[2].rpartition(":")[2]
        sent = subprocess.run(
            [*command, f"{transport}-send", "--json", *options, str(source), f"127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
        receiver.wait(LIMIT_S)
    (folder / source.name).unlink()
    return float(json.loads(sent.stdout)["goodput_bps"])


def iperf3(size_bytes: int, congestion_control: str) -> float:
    with running(["iperf3", "-s", "-1", "-p", "5299", "--forceflush"]) as server:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            pass
        client = ["iperf3", "-c", "127.0.0.1", "-p", "5299", "-C", congestion_control, "-n", str(size_bytes), "-J"]
        report = subprocess.run(client, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    return float(json.loads(report.stdout)["end"]["sum_received"]["bits_per_second"])


def srt(source: Path, folder: Path) -> float:
    to = ["srt-file-transmit", "-q", "srt://127.0.0.1:5298?mode=listener", f"file://{folder}/"]
    with running(to) as receiver:
        time.sleep(0.3)  # it does not report when it listens; not part of the measured time
        start = time.monotonic()
        sender = ["srt-file-transmit", "-q", f"file://{source}", "srt://127.0.0.1:5298"]
        subprocess.run(sender, capture_output=True, timeout=LIMIT_S, check=True)
        receiver.wait(LIMIT_S)
        seconds = time.monotonic() - start
    arrived = folder / source.name
    if arrived.stat().st_size != source.stat().st_size:
        raise RuntimeError("srt-file-transmit did not deliver the whole file")
    arrived.unlink()
    return source.stat().st_size * 8 / seconds


def tools(source: Path, folder: Path, congestion_control: str) -> dict[str, Callable[[], float]]:
    """The installed tools by name, each as a function that runs it once and returns bits per second."""
    found: dict[str, Callable[[], float]] = {
        f"nettool tcp-{congestion_control}": lambda: nettool("tcp", source, folder, "--cc", congestion_control),
        "nettool udp": lambda: nettool("udp", source, folder),
    }
    if shutil.which("iperf3"):
        found[f"iperf3 tcp-{congestion_control}"] = lambda: iperf3(source.stat().st_size, congestion_control)
    if shutil.which("srt-file-transmit"):
        found["srt-file-transmit"] = lambda: srt(source, folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--repeat", default=5, type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--cc", default="cubic")
    parser.add_argument("--seed", default=1, type=int)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        source, received = folder / "source.bin", folder / "received"
        received.mkdir()
        with source.open("wb") as file:
            for _ in range(arguments.size >> 20):
                file.write(generator.randbytes(1 << 20))
        found = tools(source, received, arguments.cc)
        samples: dict[str, list[float]] = {tool: [] for tool in found}
        for turn in range(-1, arguments.repeat):  # the first round is a warm-up
            for tool in generator.sample(list(found), len(found)):
                figure = found[tool]()
                if turn >= 0:
                    samples[tool].append(figure)
    base = next(iter(samples))
    rows = [
        [
            tool,
            format_rate(median(values)),
            f"{format_rate(min(values))} to {format_rate(max(values))}",
            median([ours / other for ours, other in zip(samples["nettool udp"], values, strict=True)]),
            median([ours / other for ours, other in zip(samples[base], values, strict=True)]),
        ]
        for tool, values in samples.items()
    ]
    print(tabulate(rows, ["tool", "median", "range", "udp / it", "tcp / it"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
