"""What a UDP transfer on loopback would reach if each end had a processor of its own, whatever else the machine does.

    python bench/slow_processors.py [--against OLD] [--repeat 5] [--size 128]

Two channels over real loopback sockets run in one thread. Each has a clock, which advances by the processor time that
it takes, times a factor, or to the moment for which it waits; the end whose clock is behind runs. So the congestion
control sees two processors that nothing else uses, or ones that are two and four times as slow. Files are copies in
memory. OLD is another checkout, whose engine is measured with this benchmark; the two take turns.

What is left out: the time of waking (30 us are assumed), and of system calls to wait.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

from rounds import Ends, Nothing, PathCase
from tabulate import tabulate

from toolkit.channel import Extent

FACTORS: Final = (1, 2, 4)
WAKE_NS: Final = 30_000
ROOM_CHECK_NS: Final = 100_000
"""How long an end waits that this host has no room for."""
UNSENT_BYTES: Final = 8 << 20
EXTENT_BYTES: Final = 1 << 20
NEVER: Final = 1 << 62


class Copies(Nothing):
    """Content that is copied out of memory and into it."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = memoryview(bytearray(os.urandom(1 << 20) * 64))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        start = offset % (len(self._memory) // 2)
        buffer[:] = self._memory[start : start + len(buffer)]

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        super().write(file_id, offset, data)
        start = offset % (len(self._memory) // 2)
        self._memory[start : start + len(data)] = data


class TwoProcessors:
    """A transfer. due_ns: when each end runs next; clocks_ns: how far each has got."""

    def __init__(self, size_bytes: int, factor: int) -> None:
        self._size_bytes, self._factor, self._content, self._offered = size_bytes, factor, Copies(), 0
        self.clocks_ns = [1_000_000_000, 1_000_000_000]
        self._due_ns = list(self.clocks_ns)
        self._running, self._began_ns = 0, time.thread_time_ns()
        time.monotonic_ns = self._now_ns
        self._ends = Ends(PathCase(None, 8972, 0, size_bytes, congestion_control="bbr"))
        self._ends.channels[0].backlog_bytes = 1 << 40  # never wait in a call

    def _now_ns(self) -> int:
        return self.clocks_ns[self._running] + (time.thread_time_ns() - self._began_ns) * self._factor

    def run(self) -> float:
        """Return the goodput in Gbit/s."""
        start_ns = self.clocks_ns[0]
        while self._content.received_bytes < self._size_bytes or not self._ends.connections[0].is_fully_acked:
            self._run(0 if self._due_ns[0] <= self._due_ns[1] else 1)
        self._ends.close()
        return self._size_bytes * 8 / (max(self.clocks_ns) - start_ns)

    def _run(self, number: int) -> None:
        """Run one end once, and decide when it runs again, and when what it has sent wakes the other one."""
        channel, connection = self._ends.channels[number], self._ends.connections[number]
        sent_before = channel._socket.datagrams_sent
        self._running = number
        self.clocks_ns[number] = max(self.clocks_ns[number], self._due_ns[number])
        self._began_ns = time.thread_time_ns()
        if number == 0 and self._has_to_offer():
            channel.send_extent(Extent(0, self._offered, EXTENT_BYTES), self._content)
            self._offered += EXTENT_BYTES
        else:
            channel._pump(self._content if number else None)
        timer_ns = connection.poll_timeout()
        channel._timer_ns = timer_ns or 0
        self.clocks_ns[number] = now_ns = self._now_ns()
        self._began_ns = time.thread_time_ns()
        if channel._has_more or not channel._socket.is_drained or (number == 0 and self._has_to_offer()):
            self._due_ns[number] = now_ns
        elif channel._needs_room:
            self._due_ns[number] = now_ns + ROOM_CHECK_NS
        else:
            self._due_ns[number] = max(now_ns, timer_ns or NEVER)
        if channel._socket.datagrams_sent > sent_before:
            other = 1 - number
            pause_ns = self._ends.channels[other]._read_pause._until_ns
            wake_ns = max(now_ns + WAKE_NS, min(pause_ns, self._due_ns[other]), self.clocks_ns[other])
            self._due_ns[other] = min(self._due_ns[other], wake_ns)

    def _has_to_offer(self) -> bool:
        is_ahead = self._ends.connections[0].has_unsent(UNSENT_BYTES, UNSENT_BYTES)
        return self._offered < self._size_bytes and not is_ahead


def measure_in(tree: Path, size_bytes: int) -> list[float]:
    """The goodput for each factor, with the engine of a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--json", "--size", str(size_bytes >> 20)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tree, env=environment)
    figures: list[float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--repeat", default=5, type=int)
    parser.add_argument("--size", default=128, type=int, help="in MiB")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    size_bytes = arguments.size << 20
    if arguments.json:
        print(json.dumps([TwoProcessors(size_bytes, factor).run() for factor in FACTORS]))
        return
    here = Path(__file__).resolve().parent.parent
    trees = [here] if arguments.against is None else [arguments.against.resolve(), here]
    turns = [[measure_in(tree, size_bytes) for tree in trees] for _ in range(arguments.repeat)]
    rows = []
    for index, factor in enumerate(FACTORS):
        samples = [[figures[index] for figures in turn] for turn in turns]
        ratios = sorted(sample[-1] / sample[0] for sample in samples)
        row = [factor, *(median(column) for column in zip(*samples, strict=True))]
        rows.append(row + [median(ratios), ratios[0], ratios[-1]] * (len(trees) > 1))
    headers = ["slower by", *(["old", "new", "new / old", "least", "most"] if len(trees) > 1 else ["Gbit/s"])]
    print(tabulate(rows, headers, floatfmt=".2f"))


if __name__ == "__main__":
    main()
