"""Attackers off the path and hostile peers, in virtual time.

An attacker off the path knows no connection id, and must have no effect. A hostile peer knows the ids, but must not
make the engine raise an exception, exceed its memory limits, or send without end.
"""

import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.engine_pair import FAR_ID, MS, NEAR_ID, SECOND, End, Hazards, Pair
from tests.support.repetitions import first_then_long
from toolkit.errors import ExitCode
from toolkit.rudp import wire
from toolkit.rudp.assembler import MAX_MESSAGE_HOLES
from toolkit.rudp.batch import Batch
from toolkit.rudp.wire import PacketType

HOSTILE_CHUNK = 10


def with_id(datagram: bytes, connection_id: int) -> bytes:
    return datagram[:2] + connection_id.to_bytes(8, "big") + datagram[10:]


class Recorder:
    """Records the datagrams that pass."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def __call__(self, datagram: bytes) -> bool:
        self.seen.append(datagram)
        return False


class TestOffPathAttackers:
    @pytest.mark.parametrize("seed", range(5))
    def test_noise_foreign_ids_and_replays_do_no_harm(self, seed: int) -> None:
        rng = random.Random(seed)
        recorders = Recorder(), Recorder()
        pair = Pair(seed, Hazards(loss=0.02, drop=recorders[0]), Hazards(loss=0.02, drop=recorders[1]), data=400_000)
        messages = [rng.randbytes(rng.randrange(3000)) for _ in range(20)]
        pair.near.offer_all(messages)
        injected = 0
        while not pair.is_fully_acked:
            pair.run_for(2 * MS)
            for to, recorder in ((pair.far, recorders[0]), (pair.near, recorders[1])):
                for _ in range(3):
                    pair.inject(to, self.datagram(rng, recorder.seen), rng.randrange(50 * MS))
                    injected += 1
        pair.check_data()
        assert pair.far.messages == messages
        assert pair.are_open
        assert injected > 50

    def datagram(self, rng: random.Random, seen: list[bytes]) -> bytes:
        past = rng.choice(seen) if seen else b""
        return rng.choice(
            [
                past,
                with_id(past, rng.getrandbits(64)) if len(past) >= 10 else past,
                rng.randbytes(rng.randrange(1500)),
                b"",
                wire.PREFIX.pack(rng.randrange(1, 16), 0, rng.choice((NEAR_ID, FAR_ID, 7))) + rng.randbytes(1190),
                wire.encode_close(rng.getrandbits(64), 0, 0, "go away"),
            ]
        )

    def test_every_datagram_may_be_replayed_later(self) -> None:
        recorders = Recorder(), Recorder()
        pair = Pair(3, Hazards(drop=recorders[0]), Hazards(drop=recorders[1]), data=300_000, back_data=100_000)
        for end, _ in pair.ends:
            end.offer_all([b"one", b"two"])
        pair.run_until_acked()
        for to, recorder in ((pair.far, recorders[0]), (pair.near, recorders[1])):
            for i, datagram in enumerate(list(recorder.seen)):
                pair.inject(to, datagram, i * MS // 10)
        sent_before = pair.near.sent_bytes + pair.far.sent_bytes
        pair.run_for(5 * SECOND)
        pair.check_data()
        assert pair.near.messages == pair.far.messages == [b"one", b"two"]
        assert pair.are_open
        assert pair.near.sent_bytes + pair.far.sent_bytes - sent_before < sent_before

    def test_foreign_datagrams_are_not_answered(self) -> None:
        pair = Pair(4, Hazards())
        pair.run_until_acked()
        pair.run_for(SECOND)
        before = pair.far.sent_datagrams
        for kind in PacketType:
            packet = wire.COMMON.pack(kind, 1, FAR_ID ^ 1, 5).ljust(1200, b"\0")
            pair.receive(pair.far, Batch(memoryview(packet), len(packet)))
            pair.pump(pair.far, pair.near)
        assert pair.far.sent_datagrams == before
        protected = [kind for kind in PacketType if kind >= PacketType.DATA]
        assert pair.far.connection.stats().packets_invalid == len(protected)


def feed(pair: Pair, packets: Iterator[bytes], batch_size: int = 64) -> None:
    """Pass packets of equal size to `far` in batches, and discard its answers."""
    batch: list[bytes] = []

    def flush() -> None:
        joined = b"".join(batch)
        pair.receive(pair.far, Batch(memoryview(joined), len(batch[0])))
        pair.now_ns += MS
        while pair.far.connection.poll_transmit(pair.now_ns) is not None:
            pass
        batch.clear()

    for packet in packets:
        batch.append(packet)
        if len(batch) == batch_size:
            flush()
    if batch:
        flush()


def data(number: int, offset: int, payload: bytes = b"x") -> bytes:
    return wire.DATA.pack(PacketType.DATA, 0, FAR_ID, number, offset) + payload


def message(number: int, offset: int, payload: bytes = b"x") -> bytes:
    return wire.DATA.pack(PacketType.MESSAGE, 0, FAR_ID, number, offset) + payload


def ack(number: int, *ranges: tuple[int, int]) -> bytes:
    return wire.encode_ack(FAR_ID, number, wire.AckPacket(list(ranges), 0, 0, 0, 0, 0, 0))


class TestHostilePeer:
    def pair(self) -> Pair:
        pair = Pair(5, Hazards(), data=0)
        pair.run_for(100 * MS)
        return pair

    @pytest.mark.long
    def test_every_second_byte_and_packet_do_not_exhaust_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every store of ranges has a bound, lowered here so that it is reached soon."""
        max_holes = 1 << 12
        monkeypatch.setattr("toolkit.rudp.ack_tracker.MAX_RANGES", max_holes)
        monkeypatch.setattr("toolkit.rudp.assembler.MAX_DATA_HOLES", max_holes)
        pair = self.pair()
        count = 2 * max_holes
        tracemalloc.start()
        feed(pair, (data(1000 + 2 * i, 2 * i) for i in range(count)))
        feed(pair, (message(1_000_000 + 2 * i, 2 * i) for i in range(MAX_MESSAGE_HOLES + 1000)))
        feed(pair, (ack(2_000_000 + 2 * i, (0, 1)) for i in range(count)))
        kept_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert kept_bytes < 2 << 20
        assert pair.are_open

    def test_acknowledgements_of_packets_never_sent(self) -> None:
        pair = self.pair()
        connection = pair.far.connection
        before = connection.stats()
        next_number = before.next_packet_number
        for top in (next_number + 1, next_number + 1000, 1 << 40, wire.MAX_OFFSET):
            feed(pair, iter([ack(10_000, (top - 1, top)), ack(10_001, (top - 1, top), (0, 1))]), 1)
        after = connection.stats()
        assert after.packets_invalid == before.packets_invalid + 8
        assert replace(after, congestion={}, packets_invalid=0) == replace(before, congestion={}, packets_invalid=0)

    def test_a_message_of_excessive_length(self) -> None:
        pair = self.pair()
        head = b"\0\0\0\2hi" + (0xFFFF_FFFF).to_bytes(4, "big")
        tracemalloc.start()
        feed(pair, (message(1000 + i, 0, head) for i in range(2000)), 1)
        feed(pair, (message(5000 + i, len(head) + 1000 * i, bytes(1000)) for i in range(2000)), 1)
        kept_bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert pair.far.messages == [b"hi"]
        assert kept_bytes < 4 << 20
        assert pair.are_open

    def test_offsets_and_packet_numbers_out_of_range(self) -> None:
        pair = self.pair()
        absurd = (1 << 40, 1 << 62, wire.MAX_OFFSET - 1, wire.MAX_OFFSET, 1 << 63, (1 << 64) - 1)
        for value in absurd:
            feed(
                pair,
                iter([data(1, value), data(value, 1), message(2, value), message(value, 2), ack(value, (0, 1))]),
                1,
            )
            ping = wire.PING.pack(PacketType.PING, 1, FAR_ID, 3, value, 0, 0)
            feed(pair, iter([ping]))
        pair.run_for(SECOND)
        assert pair.are_open

    def test_a_ping_that_requests_too_few_or_too_many_acknowledgements(self) -> None:
        pair = self.pair()
        for every_bytes, delay_us in ((0, 0), (0xFFFF_FFFF, 0xFFFF_FFFF)):
            feed(pair, iter([wire.PING.pack(PacketType.PING, 0, FAR_ID, 100, 0, every_bytes, delay_us)]))
            before = pair.far.sent_datagrams
            pair.run_for(10 * SECOND)
            assert pair.far.sent_datagrams - before < 100
        assert pair.are_open

    def test_optimistic_acknowledgements_end_the_connection(self) -> None:
        """A receiver that acknowledges what has not arrived acknowledges a skipped number sooner or later."""
        pair = Pair(6, Hazards(loss=0.5, rate_bps=10e6), data=1_000_000)
        pair.near.offer()
        number = 1 << 20
        for _ in range(5000):
            if not pair.are_open:
                break
            pair.run_for(MS)
            top = pair.near.connection.stats().next_packet_number
            everything = wire.AckPacket([(0, top)], 0, 1 << 30, 1 << 20, 0, 0, 0)
            pair.inject(pair.near, wire.encode_ack(NEAR_ID, number, everything))
            number += 1
        assert pair.near.connection.close_code == ExitCode.FAILED
        assert "which was never sent" in pair.near.connection.close_reason
        pair.run_for(SECOND)
        assert pair.far.connection.close_reason == pair.near.connection.close_reason
        assert pair.near.connection.stats().bytes_in_flight >= 0


class Fuzzer:
    """Packets with the right id and fields at or near their limits."""

    def __init__(self, seed: int, to: End) -> None:
        self.rng = random.Random(seed)
        self.to = to

    def number(self) -> int:
        rng = self.rng
        near = self.to.connection.stats().next_packet_number
        base = rng.choice((0, near, 1 << 16, 1 << 20, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1))
        return max(0, min(base + rng.randrange(-3, 4), (1 << 64) - 1))

    def small(self) -> int:
        return self.rng.choice((0, 1, 1000, (1 << 32) - 1, self.rng.getrandbits(32)))

    def packet(self) -> bytes:
        rng, connection_id = self.rng, self.to.connection.local_id
        kind = rng.choice([k for k in PacketType if k >= PacketType.DATA])
        head = wire.COMMON.pack(kind, rng.choice((0, 1, 255)), connection_id, self.number())
        if kind in (PacketType.DATA, PacketType.MESSAGE):
            length = rng.choice((0, 1, 4, 5, 100, 1400))
            payload = rng.choice((bytes(length), rng.randbytes(length), b"\xff" * length))
            return head + self.number().to_bytes(8, "big") + payload
        if kind == PacketType.ACK:
            body = wire.ACK.pack(kind, 0, 0, 0, *self.ack_fields())
            ranges = b"".join(wire.ACK_RANGE.pack(self.small(), self.small()) for _ in range(rng.randrange(5)))
            return head + body[wire.COMMON.size :] + ranges
        if kind == PacketType.PING:
            return head + wire.PING_BODY.pack(self.number(), self.small(), self.small())
        if kind == PacketType.CLOSE:
            return head + rng.randbytes(3)  # never a complete one, which would end the connection
        return head + rng.randbytes(rng.choice((0, 8, 1400)))

    def ack_fields(self) -> list[int]:
        counters = [self.small(), self.small(), self.small()]
        return [self.number(), self.small(), self.number(), self.number(), *counters, self.rng.randrange(6)]


@pytest.mark.parametrize("first", first_then_long(range(0, 60, HOSTILE_CHUNK)))
def test_random_packets_with_the_right_id_never_raise(first: int) -> None:
    for seed in range(first, first + HOSTILE_CHUNK):
        pair = Pair(seed, Hazards(), data=200_000, back_data=50_000)
        for end, _ in pair.ends:
            end.offer_all([bytes(500)] * 3)
        pair.run_for(15 * MS)
        fuzzers = [Fuzzer(seed + i, end) for i, (end, _) in enumerate(pair.ends)]
        try:
            for _ in range(150):
                for fuzzer in fuzzers:
                    pair.inject(fuzzer.to, fuzzer.packet())
                pair.run_for(MS)
            pair.run_for(2 * SECOND)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        for end, _ in pair.ends:
            assert end.connection.stats().bytes_in_flight >= 0, f"seed {seed}"
            assert end.sent_bytes < 3_000_000, f"seed {seed}"
