"""What is delivered of the two streams, and which packets are refused."""

import struct
from dataclasses import dataclass

import numpy as np
import pytest

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.ack_tracker import AckTracker
from toolkit.rudp.assembler import MAX_DATA_HOLES, MAX_MESSAGE_HOLES, DataAssembler, MessageAssembler
from toolkit.rudp.batch import MAX_BATCH_BYTES
from toolkit.rudp.flow_control import MESSAGE_WINDOW_BYTES, ReceiveWindow
from toolkit.rudp.protection import Unprotected
from toolkit.rudp.range_set import RangeSet

MS = 1_000_000
ID = 0xABCDEF
WINDOW = 1 << 20
PAYLOAD = 1000
SEGMENT = wire.HEADER_BYTES + PAYLOAD
RARELY_BYTES = 1 << 30


@dataclass
class Receiver:
    """A data assembler with the parts that it works with."""

    window: ReceiveWindow
    acks: AckTracker
    data: DataAssembler


def receiver(window_bytes: int = WINDOW) -> Receiver:
    window, acks = ReceiveWindow(window_bytes), AckTracker()
    return Receiver(window, acks, DataAssembler(ID, window, acks, Unprotected()))


def data_packet(number: int, offset: int, payload: bytes, flags: int = 0, connection_id: int = ID) -> bytes:
    return wire.DATA.pack(wire.PacketType.DATA, flags, connection_id, number, offset) + payload


def pattern(offset: int, length: int) -> bytes:
    """Bytes that depend on their offset."""
    return (np.arange(offset, offset + length) * 2654435761 >> 7).astype(np.uint8).tobytes()


def arrive(to: Receiver, *packets: tuple[int, int]) -> list[tuple[int, bytes]]:
    """Pass a batch of full packets (number, offset) to `to`; return what is delivered."""
    to.data.begin_batch()
    joined = b"".join(data_packet(n, offset, pattern(offset, PAYLOAD)) for n, offset in packets)
    assert to.data.receive_untrusted(memoryview(joined), SEGMENT, 0) == len(packets)
    return [(offset, bytes(view)) for offset, view in to.data.received()]


def run(first: int, count: int) -> list[tuple[int, int]]:
    return [(n, n * PAYLOAD) for n in range(first, first + count)]


def acked_ranges(of: Receiver) -> list[tuple[int, int]]:
    return [r for ack in of.acks.make_acks(0, 1472, 0, 0, 0) for r in ack.ranges]


class TestDelivery:
    def test_a_batch_in_order_is_one_piece(self) -> None:
        r = receiver()
        assert arrive(r, *run(0, 40)) == [(0, pattern(0, 40 * PAYLOAD))]
        assert r.data.contiguous_end == 40 * PAYLOAD

    def test_packets_may_arrive_in_any_order(self) -> None:
        r = receiver()
        assert arrive(r, (5, 50_000), (6, 51_000), (2, 20_000)) == [
            (50_000, pattern(50_000, 2 * PAYLOAD)),
            (20_000, pattern(20_000, PAYLOAD)),
        ]
        assert r.data.contiguous_end == 0

    def test_a_duplicate_is_delivered_once(self) -> None:
        r = receiver()
        assert arrive(r, (0, 0), (1, 0), (0, 0)) == [(0, pattern(0, PAYLOAD))]
        assert arrive(r, (2, 0)) == []
        assert (r.acks.packets_received, r.acks.packets_duplicate) == (4, 1)

    def test_only_new_bytes_are_delivered(self) -> None:
        r = receiver()
        arrive(r, (0, 1000))
        assert arrive(r, (1, 500)) == [(500, pattern(500, 500))]
        assert arrive(r, (2, 1300)) == [(2000, pattern(2000, 300))]
        assert arrive(r, (3, 5000)) == [(5000, pattern(5000, 1000))]
        assert arrive(r, (4, 4500), (5, 5500)) == [(4500, pattern(4500, 500)), (6000, pattern(6000, 500))]

    def test_a_packet_around_received_bytes_is_delivered_in_pieces(self) -> None:
        r = receiver()
        small = data_packet(0, 300, pattern(300, 100))
        r.data.receive_untrusted(memoryview(small), len(small), 0)
        assert arrive(r, (1, 0)) == [(0, pattern(0, 300)), (400, pattern(400, 600))]

    def test_takes_the_packets_before_one_of_another_kind_or_id(self) -> None:
        r = receiver()
        ours = b"".join(data_packet(n, n * PAYLOAD, bytes(PAYLOAD)) for n in range(3))
        for other in (
            data_packet(3, 3000, bytes(PAYLOAD), connection_id=ID + 1),
            wire.DATA.pack(wire.PacketType.MESSAGE, 0, ID, 3, 0) + bytes(PAYLOAD),
        ):
            r.data.begin_batch()
            assert r.data.receive_untrusted(memoryview(ours + other + ours), SEGMENT, 0) == 3

    def test_a_short_last_packet_is_left_to_the_next_call(self) -> None:
        r = receiver()
        joined = memoryview(data_packet(0, 0, bytes(PAYLOAD)) + data_packet(1, PAYLOAD, b"tail"))
        r.data.begin_batch()
        assert r.data.receive_untrusted(joined, SEGMENT, 0) == 1
        assert r.data.receive_untrusted(joined[SEGMENT:], wire.HEADER_BYTES + 4, 0) == 1
        assert [(p, len(v)) for p, v in r.data.received()] == [(0, PAYLOAD + 4)]

    @pytest.mark.parametrize("at", [0, 7, 19])
    @pytest.mark.parametrize("byte", range(wire.HEADER_BYTES))
    def test_every_byte_of_every_header_is_checked(self, byte: int, at: int) -> None:
        """A batch that differs from consecutive packets in one byte is not taken for consecutive packets."""
        packets = [bytearray(data_packet(n, n * PAYLOAD, pattern(n * PAYLOAD, PAYLOAD))) for n in range(20)]
        packets[at][byte] ^= 0x01
        changed = wire.DATA.unpack_untrusted(bytes(packets[at]))
        r = receiver()
        r.acks.on_ack_frequency(0, 0, RARELY_BYTES, 7 * MS)
        joined = memoryview(b"".join(packets))
        taken = 0
        delivered = RangeSet()
        while taken < 20:
            r.data.begin_batch()
            try:
                taken += r.data.receive_untrusted(joined[taken * SEGMENT :], SEGMENT, 0)
            except ProtocolError:
                taken += 1
            for offset, data in r.data.received():
                delivered.add(offset, offset + len(data))
        kind, _, connection_id, number, offset = changed
        is_taken = kind == wire.PacketType.DATA and connection_id == ID and offset <= WINDOW - PAYLOAD
        is_taken &= number < 1 << 63
        expected = {n for n in range(20) if n != at} | ({number} if is_taken else set())
        is_repeated = is_taken and number < at  # a number that was used before: a duplicate, whatever it contains
        ranges = acked_ranges(r)
        assert {n for start, end in ranges for n in range(start, end)} == expected
        assert (at * PAYLOAD in delivered) == (
            is_taken and not is_repeated and offset <= at * PAYLOAD < offset + PAYLOAD
        )

    @pytest.mark.parametrize("at", [0, 7, 19])
    def test_ack_now_is_recognised_anywhere_in_a_batch(self, at: int) -> None:
        r = receiver()
        r.acks.on_ack_frequency(0, 0, RARELY_BYTES, 100 * MS)
        flags = [wire.Flags.ACK_NOW if n == at else 0 for n in range(20)]
        joined = b"".join(data_packet(n, n * PAYLOAD, bytes(PAYLOAD), flags[n]) for n in range(20))
        assert r.data.receive_untrusted(memoryview(joined), SEGMENT, 3) == 20
        assert r.acks.ack_time_ns == 3

    def test_a_whole_batch_of_scattered_packets_fits(self) -> None:
        r = receiver(1 << 40)
        size = wire.HEADER_BYTES + 1
        count = MAX_BATCH_BYTES // size
        joined = b"".join(data_packet(n, 2 * n, b"x") for n in range(count))
        r.data.begin_batch()
        assert r.data.receive_untrusted(memoryview(joined), size, 0) == count
        assert len(r.data.received()) == count


class TestRefusal:
    @pytest.mark.parametrize("offset", [WINDOW - PAYLOAD + 1, WINDOW, 1 << 62, 1 << 63, (1 << 64) - 1])
    def test_beyond_the_window(self, offset: int) -> None:
        r = receiver()
        packet = data_packet(0, offset, bytes(PAYLOAD))
        with pytest.raises(ProtocolError, match="window"):
            r.data.receive_untrusted(memoryview(packet), SEGMENT, 0)
        assert acked_ranges(r) == []

    def test_the_last_byte_of_the_window_is_accepted(self) -> None:
        arrive(receiver(), (0, WINDOW - PAYLOAD))

    def test_beyond_the_limit_of_the_application(self) -> None:
        r = receiver()
        r.data.accept_limit = 5000
        with pytest.raises(ProtocolError, match="window"):
            arrive(r, (0, 5000))
        arrive(r, (0, 4000))

    def test_of_one_packet_keeps_those_before_it(self) -> None:
        r = receiver()
        r.data.accept_limit = 3000
        joined = memoryview(b"".join(data_packet(n, n * PAYLOAD, bytes(PAYLOAD)) for n in range(5)))
        r.data.begin_batch()
        assert r.data.receive_untrusted(joined, SEGMENT, 0) == 3
        assert r.data.contiguous_end == 3000
        with pytest.raises(ProtocolError, match="window"):
            r.data.receive_untrusted(joined[3 * SEGMENT :], SEGMENT, 0)

    @pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
    def test_of_a_packet_number_out_of_range(self, number: int) -> None:
        with pytest.raises(ProtocolError, match="number"):
            arrive(receiver(), (number, 0))

    def test_of_a_packet_without_payload(self) -> None:
        for size in (wire.HEADER_BYTES, 10, 1):
            with pytest.raises(ProtocolError, match="payload"):
                receiver().data.receive_untrusted(memoryview(data_packet(0, 0, b"")[:size]), size, 0)

    def test_of_a_foreign_id(self) -> None:
        packet = data_packet(0, 0, b"x", connection_id=ID ^ 1)
        with pytest.raises(ProtocolError, match="connection id"):
            receiver().data.receive_untrusted(memoryview(packet), len(packet), 0)


class TestReceiveLimit:
    def test_counts_from_the_highest_received_byte(self) -> None:
        r = receiver()
        assert r.data.advertise_limit() == WINDOW
        arrive(r, (0, 9000))
        assert r.data.advertise_limit() == 10_000 + WINDOW

    def test_never_decreases(self) -> None:
        r = receiver()
        arrive(r, (0, 9000))
        before = r.data.advertise_limit()
        r.window.window_bytes = 1 << 16
        assert r.data.advertise_limit() == before
        arrive(r, (1, before - PAYLOAD))
        assert r.data.advertise_limit() == before + (1 << 16)


class TestHostilePeer:
    def test_every_second_byte_does_not_exhaust_memory_and_the_holes_can_be_filled(self) -> None:
        r = receiver(1 << 30)
        size = wire.HEADER_BYTES + 1
        for first in range(0, MAX_DATA_HOLES + 3000, 1000):
            joined = b"".join(data_packet(n, 2 * n, b"x") for n in range(first, first + 1000))
            r.data.begin_batch()
            r.data.receive_untrusted(memoryview(joined), size, 0)
        frozen = r.data.advertise_limit()
        assert r.data.received_end == 2 * MAX_DATA_HOLES - 1  # data beyond it was dropped as if it were lost
        arrive(r, (MAX_DATA_HOLES + 5000, 2 * MAX_DATA_HOLES - 1))  # extends the last range
        assert r.data.advertise_limit() == frozen
        arrive(r, (MAX_DATA_HOLES + 5001, 0))  # fills hundreds of holes
        assert r.data.advertise_limit() > frozen


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(m)) + m for m in messages)


def drained(assembler: MessageAssembler) -> list[bytes]:
    messages = []
    while (message := assembler.poll()) is not None:
        messages.append(message)
    return messages


class TestMessageAssembler:
    def test_a_message_is_delivered_once_it_is_complete(self) -> None:
        assembler = MessageAssembler(1000)
        stream = framed(b"hello")
        for i in range(len(stream)):
            assert assembler.poll() is None
            assembler.receive_untrusted(i, memoryview(stream)[i : i + 1])
        assert drained(assembler) == [b"hello"]

    def test_later_messages_wait_for_earlier_ones(self) -> None:
        assembler = MessageAssembler(1000)
        stream = framed(b"one", b"two", b"")
        assembler.receive_untrusted(7, memoryview(stream)[7:])
        assert assembler.poll() is None
        assembler.receive_untrusted(0, memoryview(stream)[:7])
        assert drained(assembler) == [b"one", b"two", b""]

    def test_a_message_is_delivered_only_once(self) -> None:
        assembler = MessageAssembler(1000)
        stream = framed(b"one", b"two")
        for _ in range(3):
            assembler.receive_untrusted(0, memoryview(stream))
        assert drained(assembler) == [b"one", b"two"]

    def test_the_first_copy_of_a_byte_counts(self) -> None:
        assembler = MessageAssembler(1000)
        stream = framed(b"abcdef")
        assembler.receive_untrusted(4, memoryview(b"abc"))
        assembler.receive_untrusted(5, memoryview(b"XXXXX"))
        assembler.receive_untrusted(0, memoryview(stream)[:4])
        assert drained(assembler) == [b"abcXXX"]

    def test_a_piece_beyond_the_window_is_refused(self) -> None:
        assembler = MessageAssembler(1000)
        assembler.receive_untrusted(MESSAGE_WINDOW_BYTES - 1, memoryview(b"x"))
        with pytest.raises(ProtocolError, match="window"):
            assembler.receive_untrusted(MESSAGE_WINDOW_BYTES, memoryview(b"x"))
        with pytest.raises(ProtocolError, match="window"):
            assembler.receive_untrusted((1 << 64) - 1, memoryview(b"x"))

    def test_a_message_of_the_maximum_length_is_accepted_and_a_longer_one_is_not(self) -> None:
        assembler = MessageAssembler(1000)
        assembler.receive_untrusted(0, memoryview(framed(bytes(1000))))
        assert drained(assembler) == [bytes(1000)]
        with pytest.raises(ProtocolError, match="1001 bytes"):
            assembler.receive_untrusted(1004, memoryview(struct.pack(">I", 1001)))

    def test_an_invalid_length_repeats_no_earlier_message(self) -> None:
        """A hostile sender may repeat the packet; its messages are delivered only the first time."""
        assembler = MessageAssembler(1000)
        stream = framed(b"good") + b"\xff\xff\xff\xff"
        for _ in range(5):
            with pytest.raises(ProtocolError):
                assembler.receive_untrusted(0, memoryview(stream))
        assert drained(assembler) == [b"good"]

    def test_the_limit_grows_as_messages_are_taken(self) -> None:
        assembler = MessageAssembler(1 << 19)
        assert assembler.window.limit == assembler.window.advertise() == MESSAGE_WINDOW_BYTES
        stream = framed(bytes(1 << 19), bytes(1 << 18))
        assembler.receive_untrusted(0, memoryview(stream))
        assert assembler.window.limit == MESSAGE_WINDOW_BYTES
        assembler.poll()
        assert assembler.window.limit == MESSAGE_WINDOW_BYTES + 4 + (1 << 19)
        assert assembler.window.wants_update
        assembler.window.advertise()
        assert not assembler.window.wants_update
        assembler.poll()
        assert assembler.window.limit == MESSAGE_WINDOW_BYTES + len(stream)
        assert not assembler.window.wants_update

    def test_holds_no_more_than_the_window(self) -> None:
        assembler = MessageAssembler(1 << 18)
        message = framed(bytes((1 << 12) - 4))
        for offset in range(0, MESSAGE_WINDOW_BYTES, len(message)):
            assembler.receive_untrusted(offset, memoryview(message))  # the application takes none
        with pytest.raises(ProtocolError, match="window"):
            assembler.receive_untrusted(MESSAGE_WINDOW_BYTES, memoryview(message))
        assert len(drained(assembler)) == MESSAGE_WINDOW_BYTES // len(message)

    def test_the_number_of_gaps_is_limited_and_gaps_can_be_filled(self) -> None:
        assembler = MessageAssembler(1 << 18)
        byte = memoryview(b"\0")
        for i in range(MAX_MESSAGE_HOLES):
            assembler.receive_untrusted(2 * i + 1, byte)
        with pytest.raises(ProtocolError, match="gaps"):
            assembler.receive_untrusted(2 * MAX_MESSAGE_HOLES + 1, byte)
        for i in range(MAX_MESSAGE_HOLES):
            assembler.receive_untrusted(2 * i, byte)
        assert drained(assembler) == [b""] * (MAX_MESSAGE_HOLES // 2)
