"""Two connections and a network between them in virtual time: the test bench of the engine.

The network applies seeded hazards to each datagram (loss, duplication, corruption, delay with reordering, a rate with a
queue), so the seed is enough to replay a failing schedule. Datagrams are delivered one by one, or in batches as by
UDP_GRO. A test selects particular datagrams to lose by `drop`, and acts as a hostile peer by `inject`.
"""

import hashlib
import heapq
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from toolkit.rudp.aead_protection import KEY_UPDATE_PACKETS, AeadProtection
from toolkit.rudp.batch import MAX_SEGMENTS, Batch
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.control_packets import FinishPacket
from toolkit.rudp.observer import ConnectionObserver
from toolkit.rudp.protection import PacketProtection, Unprotected
from toolkit.rudp.state import ConnectionState

MS = 1_000_000
SECOND = 1000 * MS
NEAR_ID = 0x1111_2222_3333_4444
FAR_ID = 0x5555_6666_7777_8888
DATAGRAM_BYTES = 1472


class FixedKeys:
    """Keys of one generation, made from a number; the next generation has the next number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.iv = hashlib.sha256(b"iv %d" % number).digest()[:12]
        self.aead = AESGCM(hashlib.sha256(b"key %d" % number).digest())

    def next(self) -> "FixedKeys":
        return FixedKeys(self.number + 1)


def sealed_pair(update_after: int = KEY_UPDATE_PACKETS) -> tuple[AeadProtection, AeadProtection]:
    """The protections of both ends of a connection, which update their keys after this many packets."""
    there, back = FixedKeys(1000), FixedKeys(2000)
    return AeadProtection(there, back, update_after), AeadProtection(back, there, update_after)


def never(_now_ns: int) -> bool:
    return False


def nothing(_datagram: bytes) -> bool:
    return False


@dataclass
class Hazards:
    """What may happen to datagrams in one direction. Probabilities in [0, 1], times in ns, rate in bits per second.

    `blackout` says when everything is lost; `drop` selects the datagrams to lose; `drop_batches` loses those that are
    sent together.
    """

    delay_ns: int = 5 * MS
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    reorder_ns: int = 3 * MS
    rate_bps: float | None = None
    queue_ns: int = 50 * MS
    blackout: Callable[[int], bool] = never
    drop: Callable[[bytes], bool] = nothing
    drop_batches: bool = False


class Source:
    """A data stream of random bytes that depend only on the seed."""

    def __init__(self, seed: int, length: int) -> None:
        self.content = np.random.default_rng(seed).bytes(length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.content[offset : offset + len(buffer)]


@dataclass
class End:
    """One connection, its source, and what it has received."""

    connection: Connection
    hazards: Hazards
    source: Source
    received: bytearray = field(default_factory=bytearray)
    delivered_bytes: int = 0
    messages: list[bytes] = field(default_factory=list)
    wire_free_ns: int = 0
    sent_datagrams: int = 0
    sent_bytes: int = 0
    dropped_datagrams: int = 0

    def offer(self) -> None:
        """Offer all of the data."""
        self.connection.offer_data(len(self.source.content))

    def offer_all(self, messages: list[bytes]) -> None:
        """Offer all of the data and these messages."""
        self.offer()
        for message in messages:
            self.connection.send_message(message)


class Pair:
    """`near` is the client, `far` the server. `run` advances virtual time until a condition holds.

    `data` and `back_data` are how many random bytes each of them has to send; `offer` hands them over. `protections`
    are those of `near` and `far`; None for packets in the clear. `finish` ends the handshake of the client.
    """

    def __init__(
        self,
        seed: int,
        forward: Hazards,
        backward: Hazards | None = None,
        data: int = 0,
        back_data: int = 0,
        near_config: Config | None = None,
        far_config: Config | None = None,
        gro: bool = True,
        near_observer: ConnectionObserver | None = None,
        far_observer: ConnectionObserver | None = None,
        protections: tuple[PacketProtection, PacketProtection] | None = None,
        finish: bytes | None = None,
    ) -> None:
        self.seed = seed
        self.now_ns = SECOND
        self.random = np.random.default_rng(seed)
        near_config = near_config or Config()
        far_config = far_config or Config()
        near_source, far_source = Source(seed, data), Source(seed + 1, back_data)
        near_protection, far_protection = protections or (Unprotected(), Unprotected())
        near = Connection(
            near_config,
            near_source,
            NEAR_ID,
            FAR_ID,
            DATAGRAM_BYTES,
            self.now_ns,
            near_protection,
            FinishPacket(finish),
            near_observer,
        )
        near.start(far_config.receive_window_bytes)
        far = Connection(
            far_config,
            far_source,
            FAR_ID,
            NEAR_ID,
            DATAGRAM_BYTES,
            self.now_ns,
            far_protection,
            observer=far_observer,
        )
        self.near = End(near, forward, near_source, bytearray(back_data))
        self.far = End(far, backward or forward, far_source, bytearray(data))
        self.ends = ((self.near, self.far), (self.far, self.near))
        self.gro = gro
        self._events: list[tuple[int, int, End, bytes]] = []
        self._order = count()

    def inject(self, to: End, datagram: bytes, delay_ns: int = 0) -> None:
        """Deliver a datagram that the other end has not sent."""
        heapq.heappush(self._events, (self.now_ns + delay_ns, next(self._order), to, datagram))

    def transmit(self, end: End, peer: End, datagrams: bytes, segment_bytes: int) -> None:
        """Send datagrams of `segment_bytes`, the last perhaps shorter, from `end` to `peer`."""
        hazards = end.hazards
        is_dropped = hazards.drop_batches and len(datagrams) > segment_bytes
        for i in range(0, len(datagrams), segment_bytes):
            datagram = datagrams[i : i + segment_bytes]
            end.sent_datagrams += 1
            end.sent_bytes += len(datagram)
            lost, reordered, duplicated, corrupted, lateness = self.random.random(5)
            if is_dropped or lost < hazards.loss or hazards.blackout(self.now_ns) or hazards.drop(datagram):
                end.dropped_datagrams += 1
                continue
            arrival_ns = self.now_ns + hazards.delay_ns
            if hazards.rate_bps is not None:
                start_ns = max(end.wire_free_ns, self.now_ns)
                if start_ns - self.now_ns > hazards.queue_ns:
                    end.dropped_datagrams += 1
                    continue
                end.wire_free_ns = start_ns + int(len(datagram) * 8e9 / hazards.rate_bps)
                arrival_ns += end.wire_free_ns - self.now_ns
            if reordered < hazards.reorder:
                arrival_ns += int(hazards.reorder_ns * lateness)
            if corrupted < hazards.corrupt:
                datagram = self._corrupted(datagram)
            heapq.heappush(self._events, (arrival_ns, next(self._order), peer, datagram))
            if duplicated < hazards.duplicate:
                heapq.heappush(self._events, (arrival_ns + 1000, next(self._order), peer, datagram))

    def _corrupted(self, datagram: bytes) -> bytes:
        """Return random bytes, or the datagram with a wrong bit in its connection id.

        The UDP checksum and the file's digest protect the rest of a packet; nothing authenticates it in this version.
        Damage there that passes the checksum can only be detected.
        """
        if self.random.random() < 0.5:
            return self.random.bytes(int(self.random.integers(0, DATAGRAM_BYTES)))
        flip = 1 << int(self.random.integers(0, 64))
        (connection_id,) = struct.unpack_from(">Q", datagram, 2)
        return datagram[:2] + struct.pack(">Q", connection_id ^ flip) + datagram[10:]

    def pump(self, end: End, peer: End) -> None:
        """Send everything that may be sent now."""
        connection = end.connection
        while (transmit := connection.poll_transmit(self.now_ns)) is not None:
            self.transmit(end, peer, bytes(transmit.data), transmit.segment_bytes)

    def _deliver(self, end: End, datagrams: list[bytes]) -> None:
        index = 0
        while index < len(datagrams):
            stop = index + 1
            size = len(datagrams[index])
            while (
                self.gro
                and stop < len(datagrams)
                and stop - index < MAX_SEGMENTS
                and len(datagrams[stop - 1]) == size >= len(datagrams[stop]) > 0
            ):
                stop += 1
            self.receive(end, Batch(memoryview(b"".join(datagrams[index:stop])), max(size, 1)))
            index = stop

    def receive(self, end: End, batch: Batch) -> None:
        """Pass a batch to `end`, and take the data and messages in it."""
        connection = end.connection
        connection.handle_batch(batch, self.now_ns)
        for offset, view in connection.received_data():
            end.received[offset : offset + len(view)] = view
            end.delivered_bytes += len(view)
        while (message := connection.poll_message(self.now_ns)) is not None:
            end.messages.append(message)

    def step(self, deadline_ns: int) -> None:
        """Advance to the next event, at most to `deadline_ns`."""
        for end, peer in self.ends:
            self.pump(end, peer)
        times = [self._events[0][0]] if self._events else []
        times += [t for end, _ in self.ends if (t := end.connection.poll_timeout()) is not None]
        self.now_ns = max(self.now_ns, min([*times, deadline_ns]))
        arrived: dict[int, list[bytes]] = {id(end): [] for end, _ in self.ends}
        while self._events and self._events[0][0] <= self.now_ns:
            _, _, end, datagram = heapq.heappop(self._events)
            arrived[id(end)].append(datagram)
        for end, _ in self.ends:
            self._deliver(end, arrived[id(end)])
            timeout_ns = end.connection.poll_timeout()
            if timeout_ns is not None and timeout_ns <= self.now_ns:
                end.connection.handle_timeout(self.now_ns)

    def run(self, until: Callable[[], bool], limit_ns: int = 600 * SECOND) -> None:
        """Advance from event to event. Raises AssertionError if `until` is not true in time."""
        deadline_ns = self.now_ns + limit_ns
        while not until():
            assert self.now_ns < deadline_ns, f"time limit of the simulation reached (seed {self.seed})"
            self.step(deadline_ns)

    def run_for(self, duration_ns: int) -> None:
        """Advance the clock by `duration_ns`."""
        deadline_ns = self.now_ns + duration_ns
        while self.now_ns < deadline_ns:
            self.step(deadline_ns)

    @property
    def is_fully_acked(self) -> bool:
        """Everything that either side handed over is acknowledged."""
        return self.near.connection.is_fully_acked and self.far.connection.is_fully_acked

    def run_until_acked(self, limit_ns: int = 600 * SECOND) -> None:
        """Run until everything is acknowledged, and check that all data has arrived exactly once."""
        self.run(lambda: self.is_fully_acked, limit_ns)
        self.check_data()

    def check_data(self) -> None:
        """Check that every byte of both data streams has arrived, and exactly once."""
        for end, peer in self.ends:
            content = peer.source.content
            assert end.delivered_bytes == len(content), (
                f"{end.delivered_bytes} of {len(content)} delivered (seed {self.seed})"
            )
            assert end.received == content, f"the bytes differ (seed {self.seed})"

    @property
    def are_open(self) -> bool:
        """Neither connection has ended."""
        return all(end.connection.state is ConnectionState.ESTABLISHED for end, _ in self.ends)


def packet_type(datagram: bytes) -> int:
    return datagram[0]
