"""A flood of first packets from forged addresses against a receiver that is busy with a transfer.

    sudo python bench/flood.py [--rate 50000] [--pairs 3] [--clients 6] [--size 2G] [--forged-tokens]
        [--transfer-rate 100Mbit] [--cc cubic]

Two network namespaces, joined by a pair of virtual devices. In one, `nettool udp-recv` receives; in the other, a raw
socket sends INITIALs that look right, each from another address. Three measurements:

    the rate of a running transfer without a flood, with one to a port where nobody listens, and with one to the
    receiver, in turns; as ratios of the medians. The second kind shows what generator and kernel take from it
    how long new clients take that know the receiver's code, from the start of the command to its end
    the processor time of the receiver during a flood, with nothing else to do

A receiver limits how often one host may use a code, so there are few clients, and each measurement has a receiver of
its own. Nothing leaves the namespaces.
"""

import argparse
import ctypes
import os
import re
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.hosts import Host, make_hosts
from toolkit.rudp.address_validation import MARK_OFFSET, TOKEN_BYTES
from toolkit.rudp.handshake_packets import InitialPacket, make_offer
from toolkit.transports.udp.mmsg import IOVEC, MMSGHDR
from toolkit.units import parse_size

SERVER = "10.9.1.2"
PORT = 9000
FORGED = "198.18.0.0/15"  # RFC 2544: addresses for benchmarks
NETTOOL = [sys.executable, "-m", "toolkit.cli.main"]
IP_BYTES, UDP_BYTES = 20, 8
BATCH = 64


def flood(rate: int, has_token: bool, port: int) -> None:
    """Send INITIALs from forged addresses until stdin ends; print how many per second."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sock.connect((SERVER, 0))
    rng = np.random.default_rng()
    token = rng.bytes(TOKEN_BYTES) if has_token else b""
    initial = InitialPacket(0, make_offer(), rng.bytes(200), token).encode()
    udp = struct.pack(">HHHH", 4711, port, UDP_BYTES + len(initial), 0)
    head = struct.pack(">BBHHHBBH", 0x45, 0, IP_BYTES + len(udp) + len(initial), 0, 0, 64, 17, 0)
    packet = np.frombuffer(head + bytes(4) + socket.inet_aton(SERVER) + udp + initial, np.uint8)
    packets = np.tile(packet, (BATCH, 1))
    token_at = bytes(packet).index(token) if token else 0
    vectors = np.zeros(BATCH, IOVEC)
    vectors["base"] = packets.ctypes.data + np.arange(BATCH) * packets.shape[1]
    vectors["size"] = packets.shape[1]
    messages = np.zeros(BATCH, MMSGHDR)
    messages["vector"] = vectors.ctypes.data + np.arange(BATCH) * vectors.itemsize
    messages["vectors"] = 1
    send = ctypes.CDLL(None).sendmmsg
    begin_s = time.monotonic()
    sent = 0
    print("flooding", flush=True)
    while not select.select([0], [], [], 0)[0]:
        if int((time.monotonic() - begin_s) * rate) - sent < BATCH:
            time.sleep(0.0005)
            continue
        packets[:, 12:16] = (0xC6120000 | rng.integers(0, 1 << 17, BATCH)).astype(">u4").view(np.uint8).reshape(-1, 4)
        packets[:, 30:38] = np.frombuffer(rng.bytes(8 * BATCH), np.uint8).reshape(-1, 8)  # the client's id
        if token:
            packets[:, token_at + MARK_OFFSET : token_at + TOKEN_BYTES] = np.frombuffer(
                rng.bytes((TOKEN_BYTES - MARK_OFFSET) * BATCH), np.uint8
            ).reshape(BATCH, -1)
        sent += max(0, send(sock.fileno(), ctypes.c_void_p(messages.ctypes.data), BATCH, 0))
    print(round(sent / (time.monotonic() - begin_s)))


def join_hosts(cleanup: ExitStack) -> tuple[Host, Host]:
    """Return two hosts with a link, the second of which has a route back to the forged addresses."""
    near, far, _ = make_hosts(cleanup)
    near.run(f"ip link add wire type veth peer name wire netns {far.thread_id}")
    for number, host in enumerate((near, far), 1):
        host.run(f"ip address add 10.9.1.{number}/24 dev wire")
        host.run("ip link set wire up")
    far.run(f"ip route add {FORGED} via 10.9.1.1")
    return near, far


@contextmanager
def flooding(host: Host, options: argparse.Namespace, rates: list[int], port: int = PORT) -> Iterator[None]:
    """Flood during the block; add to `rates` how many INITIALs per second were sent."""
    arguments = [
        "--flood",
        str(port),
        "--rate",
        str(options.rate),
        *(["--forged-tokens"] if options.forged_tokens else []),
    ]
    command = [sys.executable, __file__, *arguments]
    process = host.call(lambda: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(1.0)  # for the guard's shares to settle
    try:
        yield
    finally:
        rates.append(int(process.communicate()[0]))


@contextmanager
def sending(host: Host, file: Path, code: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Send a file as a client that was never here; interrupt it at the end of the block if it has not ended."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NETTOOL_CODE": code, "XDG_CACHE_HOME": cache}
        command = [*NETTOOL, "udp-send", str(file), f"{SERVER}:{PORT}", "--quiet", *options]
        process = host.call(lambda: subprocess.Popen(command, text=True, env=environment))
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def seconds_to_send(host: Host, file: Path, code: str) -> float:
    """Return how long the whole command takes; without limit if it fails."""
    begin_s = time.monotonic()
    with sending(host, file, code) as process:
        return time.monotonic() - begin_s if process.wait(120) == 0 else float("inf")


def written_bytes(process: "subprocess.Popen[str]") -> int:
    """Return how much a process has written to files."""
    return int(Path(f"/proc/{process.pid}/io").read_text().split("wchar: ")[1].split()[0])


def rate_of(receiver: "subprocess.Popen[str]", seconds: float) -> float:
    """Return what a receiver writes within some seconds, in Mbit/s."""
    begin_s, begin = time.monotonic(), written_bytes(receiver)
    time.sleep(seconds)
    return (written_bytes(receiver) - begin) * 8e-6 / (time.monotonic() - begin_s)


def processor_s(process: "subprocess.Popen[str]") -> float:
    """Return the processor time that a process has taken, in s."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def receiving(host: Host, folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A receiver on the host, and its code, which admits every sender of the measurement."""
    command = [*NETTOOL, "udp-recv", "--bind", SERVER, "--port", str(PORT), "--code-uses", "1000", "--overwrite"]
    (folder / "incoming").mkdir(exist_ok=True)
    process = host.call(
        lambda: subprocess.Popen(
            [*command, "--dir", str(folder / "incoming")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    )
    try:
        assert process.stderr is not None
        code = None
        while code is None:
            code = re.search(r"code: (\S+)", process.stderr.readline())
        yield process, code[1]
    finally:
        process.terminate()
        process.communicate()


def measure_transfers(options: argparse.Namespace, near: Host, far: Host, folder: Path) -> list[int]:
    """Print the rates of transfers of each kind; return the rates of the floods."""
    large = folder / "large"
    large.write_bytes(os.urandom(1 << 20) * (options.size >> 20))
    limit = ["--rate", options.transfer_rate] if options.transfer_rate else []
    limit += ["--cc", options.cc] if options.cc else []
    sent: list[int] = []
    rates: dict[str, list[float]] = {"without a flood": [], "with one elsewhere": [], "with one to the receiver": []}
    with receiving(far, folder) as (receiver, code):
        for _ in range(options.pairs):
            for of, port in zip(rates.values(), (None, PORT + 1, PORT), strict=True):
                with sending(near, large, code, *limit) as sender:
                    time.sleep(2)  # the transfer runs before the flood begins
                    with flooding(near, options, sent, port) if port else nullcontext():
                        of.append(rate_of(receiver, 3))
                    assert sender.poll() is None, "the transfer has ended: choose a larger size"
    for name, of in rates.items():
        print(f"transfer {name}, Mbit/s:", *(round(rate) for rate in of))
    quiet, elsewhere, flooded = (median(of) for of in rates.values())
    print(f"ratios of the medians: {flooded / quiet:.2f} to none, {flooded / elsewhere:.2f} to a flood elsewhere")
    return sent


def measure_clients(options: argparse.Namespace, near: Host, far: Host, folder: Path) -> list[int]:
    """Print how long new clients take, and what a flood costs the receiver; return the rates of the floods."""
    small = folder / "small"
    small.write_bytes(b"small")
    sent: list[int] = []
    with receiving(far, folder) as (receiver, code):
        quiet_s = [seconds_to_send(near, small, code) for _ in range(3)]
        with flooding(near, options, sent):
            busy_s = [seconds_to_send(near, small, code) for _ in range(options.clients)]
            begin_s, used_s = time.monotonic(), processor_s(receiver)
            time.sleep(5)
            share = (processor_s(receiver) - used_s) / (time.monotonic() - begin_s)
    print("a new client with the code, s, in ascending order:")
    for name, seconds in (("without", quiet_s), ("with", busy_s)):
        print(f"  {name} the flood:", *(f"{value:.2f}" for value in sorted(seconds)))
    print(f"processor time of the receiver for the flood alone: {share:.0%} of one processor")
    return sent


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=50_000, help="INITIALs per second")
    parser.add_argument("--pairs", type=int, default=3, help="transfers without and with the flood, at least 1")
    parser.add_argument("--clients", type=int, default=6, help="new clients during the flood")
    parser.add_argument("--size", type=parse_size, default=parse_size("2G"))
    parser.add_argument("--cc", metavar="NAME", help="congestion control of the transfers")
    parser.add_argument("--transfer-rate", metavar="RATE", help="limit of the transfer, below what the machine can do")
    parser.add_argument("--forged-tokens", action="store_true", help="each INITIAL has a token, which is not valid")
    parser.add_argument("--flood", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        flood(options.rate, options.forged_tokens, options.flood)
        return
    with ExitStack() as cleanup, tempfile.TemporaryDirectory() as folder:
        near, far = join_hosts(cleanup)
        sent = measure_transfers(options, near, far, Path(folder)) + measure_clients(options, near, far, Path(folder))
        print("INITIALs per second:", *sent)


if __name__ == "__main__":
    main()
