"""Two connections and a network between them under one virtual clock: the bench that the engine is tested on.

The network is a list of seeded hazards per datagram (loss, duplication, delay with reordering), so that a failing
schedule is replayed by its seed alone. Datagrams are handed up one by one, or in runs as UDP_GRO would.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from toolkit.rudp.batch import Batch
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.trace import Trace
from toolkit.rudp.wire import Accept

MS = 1_000_000
SECOND = 1000 * MS


@dataclass
class Hazards:
    """What may happen to a datagram in one direction; probabilities in [0, 1], times in ns, rate in bits/s."""

    delay_ns: int = 5 * MS
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_ns: int = 3 * MS
    rate_bps: float | None = None
    queue_ns: int = 50 * MS
    blackout: Callable[[int], bool] = lambda now_ns: False


class Source:
    """A data space whose every byte is known from its position."""

    def __init__(self, seed: int, length: int) -> None:
        self.content = np.random.default_rng(seed).bytes(length)

    def read_into(self, position: int, buffer: memoryview) -> None:
        buffer[:] = self.content[position : position + len(buffer)]


@dataclass
class End:
    connection: Connection
    hazards: Hazards
    received: bytearray = field(default_factory=bytearray)
    landed_bytes: int = 0
    messages: list[bytes] = field(default_factory=list)
    wire_free_ns: int = 0
    offered: int = 0
    dropped: int = 0


class Pair:
    """`near` sends what it is told; `run` until a condition holds or virtual time is up."""

    def __init__(
        self,
        seed: int,
        forward: Hazards,
        backward: Hazards | None = None,
        data: bytes | int = 0,
        near_config: Config | None = None,
        far_config: Config | None = None,
        gro: bool = True,
        near_trace: Trace | None = None,
        far_trace: Trace | None = None,
    ) -> None:
        self.now_ns = SECOND
        self.random = np.random.default_rng(seed)
        self.source = Source(seed, data if isinstance(data, int) else 0)
        if isinstance(data, bytes):
            self.source.content = data
        near_config = near_config or Config()
        far_config = far_config or Config()
        near = Connection(near_config, self.source, 1, 2, 1472, self.now_ns, trace=near_trace)
        near.sender.data.window = far_config.receive_window_bytes
        accept = Accept(1, 2, 1472, far_config.receive_window_bytes)
        far = Connection(far_config, Source(seed + 1, 0), 2, 1, 1472, self.now_ns, accept, far_trace)
        self.near = End(near, forward)
        self.far = End(far, backward or forward)
        self.far.received = bytearray(len(self.source.content))
        self.gro = gro
        self._events: list[tuple[int, int, End, bytes, int]] = []
        self._order = count()

    def transmit(self, end: End, peer: End, datagrams: bytes, segment: int) -> None:
        hazards = end.hazards
        for i in range(0, len(datagrams), segment):
            datagram = datagrams[i : i + segment]
            end.offered += 1
            draws = self.random.random(4)
            if draws[0] < hazards.loss or hazards.blackout(self.now_ns):
                end.dropped += 1
                continue
            arrival = self.now_ns + hazards.delay_ns
            if hazards.rate_bps is not None:
                start = max(end.wire_free_ns, self.now_ns)
                if start - self.now_ns > hazards.queue_ns:
                    end.dropped += 1
                    continue
                end.wire_free_ns = start + int(len(datagram) * 8e9 / hazards.rate_bps)
                arrival += end.wire_free_ns - self.now_ns
            if draws[1] < hazards.reorder:
                arrival += int(hazards.reorder_ns * draws[3])
            heapq.heappush(self._events, (arrival, next(self._order), peer, datagram, 0))
            if draws[2] < hazards.duplicate:
                heapq.heappush(self._events, (arrival + 1000, next(self._order), peer, datagram, 0))

    def _pump(self, end: End, peer: End) -> None:
        connection = end.connection
        while (transmit := connection.poll_transmit(self.now_ns)) is not None:
            self.transmit(end, peer, bytes(transmit.data), transmit.segment_bytes)

    def _deliver(self, end: End, datagrams: list[bytes]) -> None:
        connection = end.connection
        index = 0
        while index < len(datagrams):
            stop = index + 1
            size = len(datagrams[index])
            while self.gro and stop < len(datagrams) and len(datagrams[stop - 1]) == size >= len(datagrams[stop]):
                if stop - index == 44:
                    break
                stop += 1
            joined = b"".join(datagrams[index:stop])
            connection.handle_batch(Batch(memoryview(joined), size), self.now_ns)
            for position, view in connection.landed():
                end.received[position : position + len(view)] = view
                end.landed_bytes += len(view)
            while (message := connection.poll_message(self.now_ns)) is not None:
                end.messages.append(message)
            index = stop

    def run(self, until: Callable[[], bool], limit_ns: int = 600 * SECOND) -> None:
        """Advance the clock from event to event. AssertionError when `until` does not come true in time."""
        deadline = self.now_ns + limit_ns
        ends = ((self.near, self.far), (self.far, self.near))
        while not until():
            for end, peer in ends:
                self._pump(end, peer)
            times = [self._events[0][0]] if self._events else []
            times += [t for end, _ in ends if (t := end.connection.poll_timeout()) is not None]
            assert times, "nothing is on its way and no timer is set"
            self.now_ns = max(self.now_ns, min(times))
            assert self.now_ns < deadline, "virtual time is up"
            arrived: dict[int, list[bytes]] = {id(self.near): [], id(self.far): []}
            while self._events and self._events[0][0] <= self.now_ns:
                _, _, end, datagram, _ = heapq.heappop(self._events)
                arrived[id(end)].append(datagram)
            for end, _ in ends:
                self._deliver(end, arrived[id(end)])
                timeout = end.connection.poll_timeout()
                if timeout is not None and timeout <= self.now_ns:
                    end.connection.handle_timeout(self.now_ns)
