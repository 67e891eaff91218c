"""Compare nettool with other tools: one file over loopback, in turns, as ratios.

    python bench/peers.py [--size 1GiB] [--repeat 5] [--folder DIR] [--cc cubic]

Each round runs every tool once, in random order: `nettool tcp-send` and `nettool udp-send`, encrypted and with
`--plaintext`, `cp`, and, if installed, `iperf3` (TCP, memory to memory, in the clear), Debian's `srt-file-transmit` (in
the clear) and Debian's ngtcp2 (`gtlsserver` and `gtlsclient`, a download over QUIC). All but iperf3 copy from file to
file. nettool verifies the digest, and its time ends with the verified digest. `cp`, SRT and ngtcp2 report nothing, so
their time is that of the copying, sending or downloading process. Memory is warmed before each run. (`nettool bench
loopback --transports udp,quic` compares with aioquic.)
"""

import argparse
import json
import mmap
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tabulate import tabulate

from toolkit.units import format_rate, parse_size

LIMIT_S = 300
WARM_FACTOR = 3
"""A transfer's file at the receiver takes its size in memory, and tools that buffer take more."""


@contextmanager
def running(arguments: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=10)


def listening_port(receiver: subprocess.Popen[str]) -> int:
    """Read what a receiver of nettool writes to stderr until it says where it listens; return the port."""
    assert receiver.stderr is not None
    for line in receiver.stderr:
        found = re.match(r"listening on \S+:(\d+)", line)
        if found is not None:
            return int(found[1])
    raise RuntimeError("the receiver did not start")


def warm_memory(size_bytes: int) -> None:
    """Touch this much memory and free it again.

    The host of a virtual machine may give it memory slowly. Without this, the tool that happens to write to memory for
    the first time pays for it, up to several times what the transfer itself takes.
    """
    mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def cp(source: Path, folder: Path) -> float:
    start = time.monotonic()
    subprocess.run(["cp", "--reflink=never", str(source), str(folder)], timeout=LIMIT_S, check=True)
    seconds = time.monotonic() - start
    (folder / source.name).unlink()
    return source.stat().st_size * 8 / seconds


def nettool(transport: str, source: Path, folder: Path, *options: str, is_plaintext: bool = False) -> float:
    """Send `source` to a new receiver; return the goodput in bits per second."""
    command = [sys.executable, "-m", "toolkit.cli.main"]
    both = ["--plaintext"] if is_plaintext else []
    with running([*command, f"{transport}-recv", "--once", "--port", "0", "--dir", str(folder), *both]) as receiver:
        port = listening_port(receiver)
        sent = subprocess.run(
            [*command, f"{transport}-send", "--json", *options, *both, str(source), f"127.0.0.1:{port}"],
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
        sender = ["srt-file-transmit", "-q", f"file://{source}", f"srt://127.0.0.1:5298?streamid={source.name}"]
        subprocess.run(sender, capture_output=True, timeout=LIMIT_S, check=True)
        receiver.wait(LIMIT_S)
        seconds = time.monotonic() - start
    arrived = folder / source.name
    if arrived.stat().st_size != source.stat().st_size:
        raise RuntimeError("srt-file-transmit did not deliver the whole file")
    arrived.unlink()
    return source.stat().st_size * 8 / seconds


def ngtcp2(source: Path, folder: Path, certificate: Path, key: Path) -> float:
    to = ["gtlsserver", "-q", "-d", str(source.parent), "127.0.0.1", "5297", str(key), str(certificate)]
    with running(to):
        time.sleep(0.3)  # it does not report when it listens; not part of the measured time
        start = time.monotonic()
        client = ["gtlsclient", "-q", "--exit-on-all-streams-close", "--download", str(folder)]
        client += ["127.0.0.1", "5297", f"https://localhost:5297/{source.name}"]
        subprocess.run(client, capture_output=True, timeout=LIMIT_S, check=True)
        seconds = time.monotonic() - start
    arrived = folder / source.name
    if arrived.stat().st_size != source.stat().st_size:
        raise RuntimeError("gtlsclient did not deliver the whole file")
    arrived.unlink()
    return source.stat().st_size * 8 / seconds


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for localhost and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
    certificate = builder.not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path


def tools(source: Path, folder: Path, congestion_control: str) -> dict[str, Callable[[], float]]:
    """The installed tools by name, each as a function that runs it once and returns bits per second."""
    found: dict[str, Callable[[], float]] = {
        f"nettool tcp-{congestion_control}": lambda: nettool("tcp", source, folder, "--cc", congestion_control),
        f"nettool tcp-{congestion_control}, plaintext": lambda: nettool(
            "tcp", source, folder, "--cc", congestion_control, is_plaintext=True
        ),
        "nettool udp": lambda: nettool("udp", source, folder),
        "nettool udp, plaintext": lambda: nettool("udp", source, folder, is_plaintext=True),
        "cp": lambda: cp(source, folder),
    }
    if shutil.which("iperf3"):
        found[f"iperf3 tcp-{congestion_control}"] = lambda: iperf3(source.stat().st_size, congestion_control)
    if shutil.which("srt-file-transmit"):
        found["srt-file-transmit"] = lambda: srt(source, folder)
    if shutil.which("gtlsserver") and shutil.which("gtlsclient"):
        certificate, key = make_certificate(source.parent)
        found["ngtcp2"] = lambda: ngtcp2(source, folder, certificate, key)
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
                warm_memory(WARM_FACTOR * arguments.size)
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
