"""Micro-benchmarks of the engine's hot paths: `make microbench`.

A batch is what UDP_SEGMENT and UDP_GRO move in one call: 44 datagrams of 1,472 bytes. Divide by 44 for the cost per
packet; 1 Gbit/s of payload is 86,000 packets per second.
"""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from toolkit.rudp import wire
from toolkit.rudp.ack_tracker import AckTracker
from toolkit.rudp.aead_protection import AeadProtection
from toolkit.rudp.assembler import DataAssembler
from toolkit.rudp.batch import Batch, PacketBuffer
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.flow_control import ReceiveWindow
from toolkit.rudp.protection import PacketProtection, Unprotected
from toolkit.rudp.range_set import RangeSet
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
    """Time `call` on fresh arguments from `setup` for each round; return the last result."""
    return benchmark.pedantic(call, setup=setup, rounds=rounds)  # type: ignore[no-untyped-call]


PROTECTIONS: dict[str, Callable[[], tuple[PacketProtection, PacketProtection]]] = {
    "plain": lambda: (Unprotected(), Unprotected()),
    "aes-256-gcm": lambda: fixed_pair(AESGCM),
    "chacha20-poly1305": lambda: fixed_pair(ChaCha20Poly1305),
}


class BenchKeys:
    """Keys that are always the same."""

    def __init__(self, cipher: type[AESGCM] | type[ChaCha20Poly1305]) -> None:
        self.aead = cipher(bytes(32))
        self.iv = bytes(12)

    def next(self) -> "BenchKeys":
        return self


def fixed_pair(cipher: type[AESGCM] | type[ChaCha20Poly1305]) -> tuple[PacketProtection, PacketProtection]:
    """The protections of two sides. A real connection has other keys in each direction."""
    keys = BenchKeys(cipher)
    return AeadProtection(keys, keys), AeadProtection(keys, keys)


def batch_of(connection_id: int, first_number: int, protection: PacketProtection, buffer: PacketBuffer) -> memoryview:
    numbers = np.arange(first_number, first_number + BATCH)
    payload_bytes = DATAGRAM_BYTES - protection.stream_overhead_bytes
    size = BATCH * payload_bytes
    return buffer.fill(
        wire.PacketType.DATA, connection_id, numbers, numbers * payload_bytes, payload_bytes, size, False
    ).data


class TestBatch:
    @pytest.mark.parametrize("protection", PROTECTIONS)
    def test_build(self, benchmark: BenchmarkFixture, protection: str) -> None:
        """Headers and payload of one batch into one buffer (`PacketBuffer.fill`)."""
        here, _ = PROTECTIONS[protection]()
        buffer = PacketBuffer(1 << 18, here)
        data = benchmark(batch_of, FAR_ID, 0, here, buffer)
        assert len(data) == BATCH * DATAGRAM_BYTES

    @pytest.mark.parametrize("protection", PROTECTIONS)
    def test_open(self, benchmark: BenchmarkFixture, protection: str) -> None:
        """The payload of one batch into one piece (`PacketProtection.open_stream`)."""
        here, there = PROTECTIONS[protection]()
        data = bytes(batch_of(FAR_ID, 0, here, PacketBuffer(1 << 18, here)))
        rows = np.frombuffer(data, np.uint8).reshape(BATCH, DATAGRAM_BYTES)
        buffer = np.zeros(1 << 18, np.uint8)
        assert benchmark(there.open_stream, rows, np.arange(BATCH), buffer, 0) == BATCH

    @pytest.mark.parametrize("cipher", [AESGCM, ChaCha20Poly1305])
    def test_the_cipher_alone(self, benchmark: BenchmarkFixture, cipher: type[AESGCM] | type[ChaCha20Poly1305]) -> None:
        """What sealing a batch costs at least: one call for each packet."""
        encrypt = cipher(bytes(32)).encrypt_into
        nonce, payload, header, sealed = bytes(12), bytes(1430), bytes(26), bytearray(1446)

        def seal() -> None:
            for _ in range(BATCH):
                encrypt(nonce, payload, header, sealed)

        benchmark(seal)

    def test_encode_headers_one_by_one(self, benchmark: BenchmarkFixture) -> None:
        """The headers alone, packed one by one with `struct`, for comparison."""
        data = bytearray(BATCH * DATAGRAM_BYTES)

        def encode() -> None:
            for i in range(BATCH):
                wire.DATA.pack_into(data, i * DATAGRAM_BYTES, wire.PacketType.DATA, 0, FAR_ID, i, i * PAYLOAD_BYTES)

        benchmark(encode)

    def test_decode_headers(self, benchmark: BenchmarkFixture) -> None:
        """The header columns of a batch, read through the structured dtype."""
        data = bytes(batch_of(FAR_ID, 0, Unprotected(), PacketBuffer(1 << 18, Unprotected())))

        def decode() -> tuple[int, int]:
            rows = np.frombuffer(data, np.uint8)
            header = np.ndarray((BATCH,), wire.DATA.dtype, rows, 0, (DATAGRAM_BYTES,))
            is_ours = (header["type"] == wire.PacketType.DATA) & (header["connection_id"] == FAR_ID)
            assert is_ours.all()
            return int(header["packet_number"].astype(np.int64)[-1]), int(header["offset"].astype(np.int64)[-1])

        assert benchmark(decode) == (BATCH - 1, (BATCH - 1) * PAYLOAD_BYTES)

    @pytest.mark.parametrize("protection", PROTECTIONS)
    @pytest.mark.parametrize("order", ["in order", "1% lost", "reversed"])
    def test_receive(self, benchmark: BenchmarkFixture, order: str, protection: str) -> None:
        """Receive one batch: check it, note what to acknowledge, open the payload."""
        here, there = PROTECTIONS[protection]()
        assembler = DataAssembler(FAR_ID, ReceiveWindow(WIDE_WINDOW_BYTES), AckTracker(), there)
        buffer = PacketBuffer(1 << 18, here)
        rng = random.Random(1)
        first = 0

        def arrange() -> tuple[tuple[memoryview], dict[str, object]]:
            nonlocal first
            data = bytes(batch_of(FAR_ID, first, here, buffer))
            packets = [data[i : i + DATAGRAM_BYTES] for i in range(0, len(data), DATAGRAM_BYTES)]
            first += BATCH
            if order == "reversed":
                packets.reverse()
            elif order == "1% lost":
                packets = [p for p in packets if rng.random() >= LOSS]
            return (memoryview(b"".join(packets)),), {}

        def receive(data: memoryview) -> int:
            assembler.begin_batch()
            assembler.receive_untrusted(data, DATAGRAM_BYTES, 0)
            return len(assembler.received())

        assert timed(benchmark, receive, arrange, 500) >= 1


def in_flight() -> SentPackets:
    """100,000 packets, sent in batches."""
    sent = SentPackets(wire.HEADER_BYTES)
    sizes = np.full(BATCH, DATAGRAM_BYTES, np.int32)
    for first in range(0, IN_FLIGHT, BATCH):
        offsets = PAYLOAD_BYTES * np.arange(first, first + BATCH)
        sent.record(wire.PacketType.DATA, offsets, sizes, SendState(first * 1000, 0, 0, 0, 0, 0, False))
    return sent


def received_ranges(count: int, seed: int) -> list[tuple[int, int]]:
    """The packet ranges that a receiver of `count` packets with 1% loss has, newest first."""
    rng = np.random.default_rng(seed)
    holes = np.flatnonzero(rng.random(count - 1) < LOSS)
    edges = np.concatenate(([-1], holes, [count]))
    ranges = [(a + 1, b) for a, b in pairwise(edges.tolist()) if b > a + 1]
    return ranges[::-1]


class TestAcknowledgement:
    def test_of_all_at_once(self, benchmark: BenchmarkFixture) -> None:
        """One acknowledgement of a thousand ranges covers 99,000 of 100,000 packets in flight."""
        ranges = received_ranges(IN_FLIGHT, 1)

        def arrange() -> tuple[tuple[SentPackets], dict[str, object]]:
            return (in_flight(),), {}

        def acknowledge(sent: SentPackets) -> int:
            acked = sent.acknowledge_untrusted(ranges)
            lost, _ = sent.detect_lost(IN_FLIGHT - 1, 1 << 40, 1 << 50, 3)
            assert acked is not None
            assert lost is not None
            return acked.packets + lost.packets

        assert timed(benchmark, acknowledge, arrange, 10) == IN_FLIGHT

    def test_of_a_megabyte(self, benchmark: BenchmarkFixture) -> None:
        """One of the acknowledgements that arrive every megabyte, with 100,000 packets in flight at first."""
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

        def acknowledge(newest: list[tuple[int, int]]) -> None:
            sent.acknowledge_untrusted(newest)
            sent.detect_lost(newest[0][1] - 1, 1 << 40, 1 << 50, 3)

        timed(benchmark, acknowledge, arrange, 130)

    def test_by_the_whole_sender(self, benchmark: BenchmarkFixture) -> None:
        """The same through `Connection.handle_batch`, including decoding, estimators and congestion control."""
        every = (1 << 20) // DATAGRAM_BYTES
        connection, sent = flooding_connection()
        lost = np.random.default_rng(3).random(IN_FLIGHT) < LOSS
        received = sent[~lost]
        cuts = np.flatnonzero(np.diff(received) != 1) + 1
        ranges = [(int(run[0]), int(run[-1]) + 1) for run in np.split(received, cuts)][::-1]
        number = 0

        def arrange() -> tuple[tuple[Batch], dict[str, object]]:
            nonlocal number
            number += 1
            top = int(sent[min(number * every, IN_FLIGHT - 1)])
            newest = [(start, min(end, top)) for start, end in ranges if start < top]
            newest = newest[: wire.max_ack_ranges(DATAGRAM_BYTES)]
            ack = wire.AckPacket(newest, 0, WIDE_WINDOW_BYTES, 1 << 20, 0, 0, 0)
            packet = wire.encode_ack(NEAR_ID, number, ack)
            return (Batch(memoryview(packet), len(packet)),), {}

        def handle(batch: Batch) -> None:
            connection.handle_batch(batch, 10_000 * MS + number * MS)

        timed(benchmark, handle, arrange, 100)
        assert connection.stats().packets_invalid == 0
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
    """A data stream whose content does not matter."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        del offset, buffer


def flooding_connection() -> tuple[Connection, NDArray[np.int64]]:
    """A connection with 100,000 packets in flight, and their packet numbers."""
    config = Config(congestion_control="newreno")
    connection = Connection(config, Zeros(), NEAR_ID, FAR_ID, DATAGRAM_BYTES, 0, Unprotected())
    connection.start(WIDE_WINDOW_BYTES, 10_000 * MS)
    while connection.poll_transmit(0) is not None:
        pass
    sizes = np.full(1000, DATAGRAM_BYTES, np.int32)
    connection.offer_data(IN_FLIGHT * PAYLOAD_BYTES)
    connection.sender.streams.data.next_offset = IN_FLIGHT * PAYLOAD_BYTES
    recovery, numbers = connection.sender.recovery, []
    for first in range(0, IN_FLIGHT, 1000):
        offsets = PAYLOAD_BYTES * np.arange(first, first + 1000)
        numbers.append(recovery.on_sent(wire.PacketType.DATA, offsets, sizes, 1000 * DATAGRAM_BYTES, first))
    return connection, np.concatenate(numbers)


class TestPair:
    """Two connections without sockets: every call of the engine that a megabyte of data takes."""

    @pytest.mark.parametrize("protection", PROTECTIONS)
    def test_transfer(self, benchmark: BenchmarkFixture, protection: str) -> None:
        """Send, receive and acknowledge 64 MiB in batches of 44; nothing is lost."""

        def transfer() -> int:
            here, there = PROTECTIONS[protection]()
            config = Config(congestion_control="newreno", receive_window_bytes=1 << 26)
            near = Connection(config, Zeros(), NEAR_ID, FAR_ID, DATAGRAM_BYTES, 0, here)
            far = Connection(config, Zeros(), FAR_ID, NEAR_ID, DATAGRAM_BYTES, 0, there)
            near.start(1 << 26, None)
            near.offer_data(1 << 26)
            now_ns = 0
            while not near.is_fully_acked:
                now_ns += MS // 10
                for sender, receiver in ((near, far), (far, near)):
                    while (transmit := sender.poll_transmit(now_ns)) is not None:
                        step = BATCH * transmit.segment_bytes
                        for i in range(0, len(transmit.data), step):
                            receiver.handle_batch(Batch(transmit.data[i : i + step], transmit.segment_bytes), now_ns)
                        far.update_receive_window(0, is_drained=True, now_ns=now_ns)
                    timeout_ns = sender.poll_timeout()
                    if timeout_ns is not None and timeout_ns <= now_ns:
                        sender.handle_timeout(now_ns)
            assert far.received_offset == 1 << 26
            return near.stats().packets_sent

        packets = benchmark.pedantic(transfer, rounds=10)  # type: ignore[no-untyped-call]
        assert packets > (1 << 26) // DATAGRAM_BYTES


class TestRangeSet:
    def test_append(self, benchmark: BenchmarkFixture) -> None:
        """The common case: the next range."""
        ranges = RangeSet()
        ranges.add(0, 1)
        end = 1

        def append() -> None:
            nonlocal end
            ranges.add(end, end + 44)
            end += 44

        benchmark(append)

    def test_fill_holes(self, benchmark: BenchmarkFixture) -> None:
        """A thousand holes in 100,000 numbers, filled in random order."""
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
