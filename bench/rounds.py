"""What a UDP channel costs the processor for each round, datagram and byte, whatever else the machine does.

    python bench/rounds.py [--against OLD] [--repeat 5] [--profile link]

Two channels over real loopback sockets run in one thread, in virtual time: the sender is pumped, then the receiver. So
nothing depends on when the system lets a process run, and what is reported is only the processor time of each end, for
each GiB. Files are left out: the source writes nothing, and the sink only counts. OLD is another checkout in which
`make setup` has run; the two take turns, and the ratios are those of neighbours.

The paths differ in how much a round of the sender moves:

    link   1 Gbit/s, datagrams of 1,472 bytes: 64 KiB
    deep   the same, once the path has shown a deep queue: 250 KB
    slow   100 Mbit/s, datagrams of 1,472 bytes: 12 KB
    local  10 Gbit/s, datagrams of 8,972 bytes: 312 KB
"""

import argparse
import cProfile
import json
import pstats
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tabulate import tabulate

from toolkit.channel import Address, Extent
from toolkit.rudp.aead_protection import AeadProtection
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.extents import OutgoingExtents
from toolkit.transports.udp.protection import SessionSecurity
from toolkit.transports.udp.socket import DatagramSocket

EXTENT_BYTES: Final = 1 << 18
UNSENT_BYTES: Final = 4 << 20
"""How far the sender's session runs ahead of its channel."""
RTT_NS: Final = 100_000
RUNS: Final = 2
"""Of these in a process, the one with the least time counts."""


class PathCase(NamedTuple):
    """A fixed rate, the size of datagrams, the virtual time between two rounds, and how much to transfer.

    burst_room_ns: how long a burst the path has shown to have room for
    congestion_control: another one than the fixed rate, with `rate_bps` at most; None for no limit
    """

    rate_bps: float | None
    datagram_bytes: int
    round_ns: int
    total_bytes: int
    burst_room_ns: int = 0
    congestion_control: str = "rate"


CASES: Final = {
    "link": PathCase(1e9, 1472, 260_000, 32 << 20),
    "deep": PathCase(1e9, 1472, 2_000_000, 32 << 20, burst_room_ns=2_000_000),
    "slow": PathCase(1e8, 1472, 500_000, 8 << 20),
    "local": PathCase(1e10, 8972, 250_000, 128 << 20),
}


class FixedKeys:
    """Keys that are always the same."""

    def __init__(self) -> None:
        self.aead = AESGCM(bytes(32))
        self.iv = bytes(12)

    def next(self) -> "FixedKeys":
        return self


class Nothing:
    """A source whose content does not matter, and a sink that counts."""

    def __init__(self) -> None:
        self.received_bytes = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        del offset, buffer

    def release(self, extent: Extent) -> None:
        del extent

    def fileno(self) -> None:
        return None

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        del file_id, offset
        self.received_bytes += len(data)


class Ends:
    """Two connected channels, and the processor time of each."""

    def __init__(self, case: PathCase) -> None:
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        for sock, other in zip(sockets, reversed(sockets), strict=True):
            sock.connect(other.getsockname())
        config = Config(case.congestion_control, case.rate_bps, case.datagram_bytes, receive_window_bytes=8 << 20)
        self.connections, self.channels = [], []
        for number, sock in enumerate(sockets):
            outgoing = OutgoingExtents()
            connection = Connection(
                config,
                outgoing,
                1 + number,
                2 - number,
                case.datagram_bytes,
                time.monotonic_ns(),
                AeadProtection(FixedKeys(), FixedKeys()),
                rtt_ns=RTT_NS,
            )
            security = SessionSecurity("aes-256-gcm", "none")
            self.connections.append(connection)
            self.channels.append(UdpChannel(connection, DatagramSocket(sock), outgoing, Address("", 0), security))
        if case.burst_room_ns:
            self.connections[0].sender.recovery.path.pacer.burst_room.limit_ns = case.burst_room_ns
        self.connections[0].start(config.receive_window_bytes)
        self.times_ns = [0, 0]

    def close(self) -> None:
        for channel in self.channels:
            channel.abort()


def run(case: PathCase, profiles: list[cProfile.Profile] | None = None) -> list[float]:
    """Transfer once; return the processor seconds of sender and receiver for each GiB.

    After each round, a channel asks for its timers and for what has arrived, as when it waits, but does not wait.
    """
    now_ns = 1_000_000_000
    time.monotonic_ns = lambda: now_ns
    ends, content, offered = Ends(case), Nothing(), 0
    sender, receiver = ends.channels
    connection = ends.connections[0]

    def send() -> None:
        nonlocal offered
        if offered < case.total_bytes and not connection.has_unsent(UNSENT_BYTES, UNSENT_BYTES):
            sender.send_extent(Extent(0, offered, EXTENT_BYTES), content)
            offered += EXTENT_BYTES
        else:
            sender.pump()
        sender._wait(0)

    def receive() -> None:
        receiver.receive(content, timeout_s=0)
        receiver._wait(0)

    sender.backlog_bytes = 2 * UNSENT_BYTES  # never wait in a call
    while content.received_bytes < case.total_bytes or not connection.is_fully_acked:
        now_ns += case.round_ns
        for number, end in enumerate((send, receive)):
            start_ns = time.thread_time_ns()
            if profiles is None:
                end()
            else:
                profiles[number].runcall(end)
            ends.times_ns[number] += time.thread_time_ns() - start_ns
    ends.close()
    return [spent_ns / 1e9 * (1 << 30) / case.total_bytes for spent_ns in ends.times_ns]


def measure() -> dict[str, list[float]]:
    """The processor seconds of sender and receiver for each GiB, by case."""
    return {
        name: [min(times) for times in zip(*(run(case) for _ in range(RUNS)), strict=True)]
        for name, case in CASES.items()
    }


def measure_in(tree: Path) -> dict[str, list[float]]:
    """`measure` with the code of another checkout."""
    command = [str(tree / ".venv/bin/python"), str(Path(__file__).resolve()), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tree)
    figures: dict[str, list[float]] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--repeat", default=5, type=int)
    parser.add_argument("--profile", choices=CASES)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.json:
        print(json.dumps(measure()))
        return
    if arguments.profile:
        profiles = [cProfile.Profile(time.thread_time) for _ in range(2)]
        run(CASES[arguments.profile], profiles)
        for profile in profiles:
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    here = Path(__file__).resolve().parent.parent
    trees = [here] if arguments.against is None else [arguments.against.resolve(), here]
    turns = [[measure_in(tree) for tree in trees] for _ in range(arguments.repeat)]
    rows = []
    for name in CASES:
        for number, end in enumerate(("sender", "receiver")):
            samples = [[figures[name][number] for figures in turn] for turn in turns]
            row = [name, end, *(median(column) for column in zip(*samples, strict=True))]
            rows.append(row + [median(sample[-1] / sample[0] for sample in samples)] * (len(trees) > 1))
    headers = ["path", "end", *(["old", "new", "new / old"] if len(trees) > 1 else ["s/GiB"])]
    print(tabulate(rows, headers, floatfmt=".2f"))


if __name__ == "__main__":
    sys.exit(main())
