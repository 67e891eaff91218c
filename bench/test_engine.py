"""The engine's hot pieces, timed: `make microbench`.

One batch is what UDP_SEGMENT and UDP_GRO move in one call: 44 datagrams of 1,472 bytes. Divide by 44 for the cost of
a packet; 1 Gb/s of payload is 86,000 packets a second.
"""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from toolkit.rudp import wire
from toolkit.rudp.batch import Batch, PacketBuffer
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.range_set import RangeSet
from toolkit.rudp.receiver import Receiver
from toolkit.rudp.sent_packets import SendState, SentPackets

DATAGRAM_BYTES = 1472
PAYLOAD_BYTES = DATAGRAM_BYTES - wire.HEADER_BYTES
BATCH = 44
IN_FLIGHT = 100_000
LOSS = 0.01
NEAR_ID, FAR_ID = 0x1111, 0x2222
MS = 1_000_000
WIDE_WINDOW_BYTES = 1 << 50


def timed(benchmark: BenchmarkFixture, call: Callable[..., Any], setup: Callable[[], Any], rounds: int) -> Any:
    """Time `call` on what `setup` makes anew for each round; the last result."""
    return benchmark.pedantic(call, setup=setup, rounds=rounds)  # type: ignore[no-untyped-call]


def batch_of(connection_id: int, first_number: int, buffer: PacketBuffer) -> memoryview:
    numbers = np.arange(first_number, first_number + BATCH)
    size = BATCH * PAYLOAD_BYTES
    return buffer.fill(
        wire.PacketType.DATA, connection_id, numbers, numbers * PAYLOAD_BYTES, PAYLOAD_BYTES, size, False
    ).data


class TestBatch:
    def test_build(self, benchmark: BenchmarkFixture) -> None:
        """Headers and payload of one batch into one buffer (`PacketBuffer.fill`)."""
        buffer = PacketBuffer(1 << 18)
        numbers = np.arange(BATCH)
        positions = numbers * PAYLOAD_BYTES
        size = BATCH * PAYLOAD_BYTES
        transmit = benchmark(buffer.fill, wire.PacketType.DATA, FAR_ID, numbers, positions, PAYLOAD_BYTES, size, False)
        assert len(transmit.data) == BATCH * DATAGRAM_BYTES

    def test_encode_headers_one_by_one(self, benchmark: BenchmarkFixture) -> None:
        """What `struct` needs for the headers alone, for comparison."""
        data = bytearray(BATCH * DATAGRAM_BYTES)

        def encode() -> None:
            for i in range(BATCH):
                wire.DATA.pack_into(data, i * DATAGRAM_BYTES, wire.PacketType.DATA, 0, FAR_ID, i, i * PAYLOAD_BYTES)

        benchmark(encode)

    def test_decode_headers(self, benchmark: BenchmarkFixture) -> None:
        """The columns of a batch, read by the structured dtype."""
        data = bytes(batch_of(FAR_ID, 0, PacketBuffer(1 << 18)))

        def decode() -> tuple[int, int]:
            rows = np.frombuffer(data, np.uint8)
            header = np.ndarray((BATCH,), wire.DATA.dtype, rows, 0, (DATAGRAM_BYTES,))
            is_ours = (header["type"] == wire.PacketType.DATA) & (header["connection_id"] == FAR_ID)
            assert is_ours.all()
            return int(header["packet_number"].astype(np.int64)[-1]), int(header["position"].astype(np.int64)[-1])

        assert benchmark(decode) == (BATCH - 1, (BATCH - 1) * PAYLOAD_BYTES)

    @pytest.mark.parametrize("order", ["in order", "1% lost", "reversed"])
    def test_receive(self, benchmark: BenchmarkFixture, order: str) -> None:
        """Take one batch in: check, acknowledge, gather, land."""
        receiver = Receiver(WIDE_WINDOW_BYTES, 1 << 18)
        buffer = PacketBuffer(1 << 18)
        rng = random.Random(1)
        first = 0

        def arrange() -> tuple[tuple[memoryview], dict[str, object]]:
            nonlocal first
            packets = [
                bytes(batch_of(FAR_ID, first, buffer)[i * DATAGRAM_BYTES :][:DATAGRAM_BYTES]) for i in range(BATCH)
            ]
            first += BATCH
            if order == "reversed":
                packets.reverse()
            elif order == "1% lost":
                packets = [p for p in packets if rng.random() >= LOSS]
            return (memoryview(b"".join(packets)),), {}

        def receive(data: memoryview) -> int:
            receiver.begin_batch()
            receiver.receive_data_untrusted(data, DATAGRAM_BYTES, FAR_ID, 0)
            return len(receiver.received_data())

        assert timed(benchmark, receive, arrange, 500) >= 1


def in_flight() -> SentPackets:
    """100,000 packets, sent in batches."""
    sent = SentPackets()
    sizes = np.full(BATCH, DATAGRAM_BYTES, np.int32)
    for first in range(0, IN_FLIGHT, BATCH):
        positions = PAYLOAD_BYTES * np.arange(first, first + BATCH)
        sent.record(wire.PacketType.DATA, positions, sizes, SendState(first * 1000, 0, 0, 0, 0, 0, False))
    return sent


def received_ranges(count: int, seed: int) -> list[tuple[int, int]]:
    """What a receiver of `count` packets at 1% loss has, newest first."""
    rng = np.random.default_rng(seed)
    holes = np.flatnonzero(rng.random(count - 1) < LOSS)
    edges = np.concatenate(([-1], holes, [count]))
    ranges = [(a + 1, b) for a, b in pairwise(edges.tolist()) if b > a + 1]
    return ranges[::-1]


class TestAcknowledgement:
    def test_of_all_at_once(self, benchmark: BenchmarkFixture) -> None:
        """One acknowledgement of a thousand ranges settles 99,000 packets of 100,000 in flight."""
        ranges = received_ranges(IN_FLIGHT, 1)

        def arrange() -> tuple[tuple[SentPackets], dict[str, object]]:
            return (in_flight(),), {}

        def settle(sent: SentPackets) -> int:
            settled = sent.acknowledge_untrusted(ranges)
            lost, _ = sent.detect_lost(IN_FLIGHT - 1, 1 << 40, 1 << 50, 3)
            assert settled is not None
            assert lost is not None
            return settled.packets + lost.packets

        assert timed(benchmark, settle, arrange, 10) == IN_FLIGHT

    def test_of_a_megabyte(self, benchmark: BenchmarkFixture) -> None:
        """The next of the acknowledgements that come every megabyte, 100,000 packets behind what is sent."""
        every = (1 << 20) // DATAGRAM_BYTES
        ranges = received_ranges(IN_FLIGHT, 2)
        sent = in_flight()
        acked_up_to = 0

        def arrange() -> tuple[tuple[list[tuple[int, int]]], dict[str, object]]:
            nonlocal sent, acked_up_to
            if acked_up_to + every > IN_FLIGHT:
                sent, acked_up_to = in_flight(), 0
            acked_up_to += every
            newest = [(start, min(end, acked_up_to)) for start, end in ranges if start < acked_up_to]
            return (newest[: wire.max_ack_ranges(DATAGRAM_BYTES)],), {}

        def settle(newest: list[tuple[int, int]]) -> None:
            sent.acknowledge_untrusted(newest)
            sent.detect_lost(newest[0][1] - 1, 1 << 40, 1 << 50, 3)

        timed(benchmark, settle, arrange, 130)

    def test_by_the_whole_sender(self, benchmark: BenchmarkFixture) -> None:
        """The same through `Connection.handle_batch`: decoding, estimators and congestion control included."""
        every = (1 << 20) // DATAGRAM_BYTES
        connection, first_data = flooding_connection()
        ranges = [(a + first_data, b + first_data) for a, b in received_ranges(IN_FLIGHT, 3)]
        number = 0

        def arrange() -> tuple[tuple[Batch], dict[str, object]]:
            nonlocal number
            number += 1
            top = first_data + number * every
            newest = [(start, min(end, top)) for start, end in ranges if start < top]
            newest = newest[: wire.max_ack_ranges(DATAGRAM_BYTES)]
            ack = wire.AckPacket(newest, 0, WIDE_WINDOW_BYTES, 1 << 20, 0, 0, 0)
            packet = wire.encode_ack(NEAR_ID, number, ack)
            return (Batch(memoryview(packet), len(packet)),), {}

        def handle(batch: Batch) -> None:
            connection.handle_batch(batch, 10_000 * MS + number * MS)

        timed(benchmark, handle, arrange, 100)
        assert connection.invalid_packets == 0
        assert connection.stats().packets_lost > 0

    def test_encode(self, benchmark: BenchmarkFixture) -> None:
        ranges = received_ranges(IN_FLIGHT, 4)[: wire.max_ack_ranges(DATAGRAM_BYTES)]
        ack = wire.AckPacket(ranges, 0, 1, 1, 1, 1, 1)
        assert len(benchmark(wire.encode_ack, NEAR_ID, 1, ack)) <= DATAGRAM_BYTES

    def test_decode(self, benchmark: BenchmarkFixture) -> None:
        ranges = received_ranges(IN_FLIGHT, 4)[: wire.max_ack_ranges(DATAGRAM_BYTES)]
        packet = wire.encode_ack(NEAR_ID, 1, wire.AckPacket(ranges, 0, 1, 1, 1, 1, 1))
        assert benchmark(wire.decode_ack_untrusted, packet).ranges == ranges


class Zeros:
    """A data space of nothing but zeros."""

    def read_into(self, position: int, buffer: memoryview) -> None:
        del position, buffer


def flooding_connection() -> tuple[Connection, int]:
    """One that has 100,000 packets in flight, and the number of the first of them."""
    config = Config(congestion_control="newreno")
    connection = Connection(config, Zeros(), NEAR_ID, FAR_ID, DATAGRAM_BYTES, 0)
    connection.start(WIDE_WINDOW_BYTES, 10_000 * MS)
    while connection.poll_transmit(0) is not None:
        pass
    sent = connection.sender.sent
    first_data = sent.next_packet_number
    sizes = np.full(1000, DATAGRAM_BYTES, np.int32)
    connection.offer_data(IN_FLIGHT * PAYLOAD_BYTES)
    connection.sender.data.next_position = IN_FLIGHT * PAYLOAD_BYTES
    for first in range(0, IN_FLIGHT, 1000):
        positions = PAYLOAD_BYTES * np.arange(first, first + 1000)
        connection.sender._record(wire.PacketType.DATA, positions, sizes, 1000 * DATAGRAM_BYTES, first)
    return connection, first_data


class TestRangeSet:
    def test_append(self, benchmark: BenchmarkFixture) -> None:
        """The common case: what comes next."""
        ranges = RangeSet()
        ranges.add(0, 1)
        end = 1

        def append() -> None:
            nonlocal end
            ranges.add(end, end + 44)
            end += 44

        benchmark(append)

    def test_fill_holes(self, benchmark: BenchmarkFixture) -> None:
        """A thousand holes among 100,000, filled in random order."""
        holes = np.flatnonzero(np.random.default_rng(5).random(IN_FLIGHT) < LOSS).tolist()
        random.Random(5).shuffle(holes)

        def arrange() -> tuple[tuple[RangeSet], dict[str, object]]:
            ranges = RangeSet()
            for start, end in reversed(received_ranges(IN_FLIGHT, 5)):
                ranges.add(start, end)
            return (ranges,), {}

        def fill(ranges: RangeSet) -> None:
            for hole in holes:
                ranges.add(hole, hole + 1)

        timed(benchmark, fill, arrange, 50)

    @pytest.mark.parametrize("look", ["contains", "contiguous_end", "newest_first"])
    def test_look(self, benchmark: BenchmarkFixture, look: str) -> None:
        ranges = RangeSet()
        for start, end in reversed(received_ranges(IN_FLIGHT, 6)):
            ranges.add(start, end)
        looks: dict[str, Callable[[], object]] = {
            "contains": lambda: 77_777 in ranges,
            "contiguous_end": lambda: ranges.contiguous_end(50_000),
            "newest_first": lambda: ranges.newest_first(0, 170),
        }
        assert benchmark(looks[look])
