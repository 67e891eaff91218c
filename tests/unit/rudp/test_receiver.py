"""What lands, what is refused, and when an acknowledgement is due."""

import numpy as np
import pytest

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.batch import MAX_BATCH_BYTES
from toolkit.rudp.receiver import FIRST_ACK_EVERY_BYTES, FIRST_MAX_ACK_DELAY_NS, MAX_HOLES, Receiver

MS = 1_000_000
ID = 0xABCDEF
WINDOW = 1 << 20
PAYLOAD = 1000
SEGMENT = wire.HEADER_BYTES + PAYLOAD
RELAXED_BYTES = 1 << 30


def receiver(window: int = WINDOW) -> Receiver:
    return Receiver(window, 1 << 18)


def data_packet(number: int, position: int, payload: bytes, flags: int = 0, connection_id: int = ID) -> bytes:
    return wire.DATA.pack(wire.PacketType.DATA, flags, connection_id, number, position) + payload


def pattern(position: int, length: int) -> bytes:
    """Bytes that tell where they belong."""
    return (np.arange(position, position + length) * 2654435761 >> 7).astype(np.uint8).tobytes()


def arrive(to: Receiver, *packets: tuple[int, int], now_ns: int = 0, flags: int = 0) -> list[tuple[int, bytes]]:
    """A batch of full packets (number, position); returns what landed."""
    to.begin_batch()
    joined = b"".join(data_packet(n, position, pattern(position, PAYLOAD), flags) for n, position in packets)
    assert to.receive_data_untrusted(memoryview(joined), SEGMENT, ID, now_ns) == len(packets)
    return [(position, bytes(view)) for position, view in to.received_data()]


def run(first: int, count: int) -> list[tuple[int, int]]:
    return [(n, n * PAYLOAD) for n in range(first, first + count)]


def acked_ranges(of: Receiver, now_ns: int = 0) -> list[tuple[int, int]]:
    return [r for ack in of.make_acks(now_ns, 1472) for r in ack.ranges]


class TestLanding:
    def test_a_batch_in_order_lands_as_one_piece(self) -> None:
        r = receiver()
        assert arrive(r, *run(0, 40)) == [(0, pattern(0, 40 * PAYLOAD))]
        assert r.contiguous_end == 40 * PAYLOAD

    def test_batches_go_anywhere_in_any_order(self) -> None:
        r = receiver()
        assert arrive(r, (5, 50_000), (6, 51_000), (2, 20_000)) == [
            (50_000, pattern(50_000, 2 * PAYLOAD)),
            (20_000, pattern(20_000, PAYLOAD)),
        ]
        assert r.contiguous_end == 0

    def test_a_copy_lands_once(self) -> None:
        r = receiver()
        assert arrive(r, (0, 0), (1, 0), (0, 0)) == [(0, pattern(0, PAYLOAD))]
        assert arrive(r, (2, 0)) == []
        assert (r.received_packets, r.duplicate_packets) == (4, 1)

    def test_only_the_part_that_is_new_lands(self) -> None:
        r = receiver()
        arrive(r, (0, 1000))
        assert arrive(r, (1, 500)) == [(500, pattern(500, 500))]
        assert arrive(r, (2, 1300)) == [(2000, pattern(2000, 300))]
        assert arrive(r, (3, 5000)) == [(5000, pattern(5000, 1000))]
        assert arrive(r, (4, 4500), (5, 5500)) == [(4500, pattern(4500, 500)), (6000, pattern(6000, 500))]

    def test_a_packet_over_a_hole_and_both_its_neighbours_lands_in_pieces(self) -> None:
        r = receiver()
        small = data_packet(0, 300, pattern(300, 100))
        r.receive_data_untrusted(memoryview(small), len(small), ID, 0)
        assert arrive(r, (1, 0)) == [(0, pattern(0, 300)), (400, pattern(400, 600))]

    def test_takes_the_packets_before_one_of_another_kind_or_id(self) -> None:
        r = receiver()
        ours = b"".join(data_packet(n, n * PAYLOAD, bytes(PAYLOAD)) for n in range(3))
        for other in (
            data_packet(3, 3000, bytes(PAYLOAD), connection_id=ID + 1),
            wire.DATA.pack(wire.PacketType.MESSAGE, 0, ID, 3, 0) + bytes(PAYLOAD),
        ):
            r.begin_batch()
            assert r.receive_data_untrusted(memoryview(ours + other + ours), SEGMENT, ID, 0) == 3

    def test_a_short_last_packet_is_left_to_the_next_call(self) -> None:
        r = receiver()
        joined = memoryview(data_packet(0, 0, bytes(PAYLOAD)) + data_packet(1, PAYLOAD, b"tail"))
        r.begin_batch()
        assert r.receive_data_untrusted(joined, SEGMENT, ID, 0) == 1
        assert r.receive_data_untrusted(joined[SEGMENT:], wire.HEADER_BYTES + 4, ID, 0) == 1
        assert [(p, len(v)) for p, v in r.received_data()] == [(0, PAYLOAD + 4)]

    @pytest.mark.parametrize("at", [0, 7, 19])
    @pytest.mark.parametrize("byte", range(wire.HEADER_BYTES))
    def test_every_byte_of_every_header_counts(self, byte: int, at: int) -> None:
        """In a batch that is otherwise in sequence, none that differs is taken for the one that would follow."""
        packets = [bytearray(data_packet(n, n * PAYLOAD, pattern(n * PAYLOAD, PAYLOAD))) for n in range(20)]
        packets[at][byte] ^= 0x01
        changed = wire.DATA.unpack_untrusted(bytes(packets[at]))
        r = receiver()
        r.on_frequency(0, RELAXED_BYTES, 7 * MS)
        joined = memoryview(b"".join(packets))
        taken = 0
        while taken < 20:
            r.begin_batch()
            try:
                taken += r.receive_data_untrusted(joined[taken * SEGMENT :], SEGMENT, ID, 0)
            except ProtocolError:
                taken += 1
        kind, _, connection_id, number, position = changed
        is_taken = kind == wire.PacketType.DATA and connection_id == ID and position <= WINDOW - PAYLOAD
        is_taken &= number < 1 << 63
        expected = {n for n in range(20) if n != at} | ({number} if is_taken else set())
        ranges = acked_ranges(r)
        assert {n for start, end in ranges for n in range(start, end)} == expected
        landed = {i for i in range(20) if i * PAYLOAD in r._data}
        assert (at in landed) == (is_taken and position <= at * PAYLOAD < position + PAYLOAD)

    @pytest.mark.parametrize("at", [0, 7, 19])
    def test_a_request_anywhere_in_a_batch_is_seen(self, at: int) -> None:
        r = receiver()
        r.on_frequency(0, RELAXED_BYTES, 100 * MS)
        flags = [wire.Flags.ACK_NOW if n == at else 0 for n in range(20)]
        joined = b"".join(data_packet(n, n * PAYLOAD, bytes(PAYLOAD), flags[n]) for n in range(20))
        assert r.receive_data_untrusted(memoryview(joined), SEGMENT, ID, 3) == 20
        assert r.ack_time_ns == 3

    def test_a_whole_batch_of_scattered_packets_fits(self) -> None:
        r = receiver(1 << 40)
        size = wire.HEADER_BYTES + 1
        count = MAX_BATCH_BYTES // size
        joined = b"".join(data_packet(n, 2 * n, b"x") for n in range(count))
        r.begin_batch()
        assert r.receive_data_untrusted(memoryview(joined), size, ID, 0) == count
        assert len(r.received_data()) == count


class TestRefusal:
    @pytest.mark.parametrize("position", [WINDOW - PAYLOAD + 1, WINDOW, 1 << 62, 1 << 63, (1 << 64) - 1])
    def test_beyond_the_window(self, position: int) -> None:
        r = receiver()
        packet = data_packet(0, position, bytes(PAYLOAD))
        with pytest.raises(ProtocolError, match="window"):
            r.receive_data_untrusted(memoryview(packet), SEGMENT, ID, 0)
        assert r.make_acks(0, 1472) == []

    def test_the_last_byte_of_the_window_is_taken(self) -> None:
        arrive(receiver(), (0, WINDOW - PAYLOAD))

    def test_beyond_what_the_application_has_a_place_for(self) -> None:
        r = receiver()
        r.accept_limit = 5000
        with pytest.raises(ProtocolError, match="window"):
            arrive(r, (0, 5000))
        arrive(r, (0, 4000))

    def test_of_one_packet_costs_none_before_it(self) -> None:
        r = receiver()
        r.accept_limit = 3000
        joined = memoryview(b"".join(data_packet(n, n * PAYLOAD, bytes(PAYLOAD)) for n in range(5)))
        r.begin_batch()
        assert r.receive_data_untrusted(joined, SEGMENT, ID, 0) == 3
        assert r.contiguous_end == 3000
        with pytest.raises(ProtocolError, match="window"):
            r.receive_data_untrusted(joined[3 * SEGMENT :], SEGMENT, ID, 0)

    @pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
    def test_of_an_absurd_packet_number(self, number: int) -> None:
        with pytest.raises(ProtocolError, match="number"):
            arrive(receiver(), (number, 0))

    def test_of_a_packet_without_payload(self) -> None:
        for size in (wire.HEADER_BYTES, 10, 1):
            with pytest.raises(ProtocolError, match="payload"):
                receiver().receive_data_untrusted(memoryview(data_packet(0, 0, b"")[:size]), size, ID, 0)

    def test_of_a_foreign_id(self) -> None:
        packet = data_packet(0, 0, b"x", connection_id=ID ^ 1)
        with pytest.raises(ProtocolError, match="connection id"):
            receiver().receive_data_untrusted(memoryview(packet), len(packet), ID, 0)


class TestAcknowledgement:
    def test_waits_for_the_first_packet(self) -> None:
        r = receiver()
        assert r.ack_time_ns is None
        r.request_ack(5)
        assert r.ack_time_ns is None

    def test_is_due_after_the_greatest_delay_at_the_latest(self) -> None:
        r = receiver()
        arrive(r, (0, 0), now_ns=10)
        assert r.ack_time_ns == 10 + FIRST_MAX_ACK_DELAY_NS
        arrive(r, (1, 1000), now_ns=20)
        assert r.ack_time_ns == 10 + FIRST_MAX_ACK_DELAY_NS

    def test_is_due_at_once_after_so_many_bytes(self) -> None:
        r = receiver()
        needed = -(-FIRST_ACK_EVERY_BYTES // SEGMENT)
        arrive(r, *run(0, needed - 1), now_ns=10)
        assert r.ack_time_ns == 10 + FIRST_MAX_ACK_DELAY_NS
        arrive(r, *run(needed - 1, 1), now_ns=11)
        assert r.ack_time_ns == 11

    def test_follows_the_rhythm_that_the_sender_asks_for(self) -> None:
        r = receiver()
        r.on_frequency(0, 10 * SEGMENT, 7 * MS)
        arrive(r, *run(0, 9), now_ns=0)
        assert r.ack_time_ns == 7 * MS
        assert r.bytes_until_ack == SEGMENT
        arrive(r, *run(9, 1), now_ns=1)
        assert r.ack_time_ns == 1

    def test_is_due_at_once_on_a_new_gap(self) -> None:
        r = receiver()
        r.on_frequency(0, RELAXED_BYTES, 100 * MS)
        arrive(r, (0, 0), now_ns=0)
        arrive(r, (2, 2000), now_ns=1)
        assert r.ack_time_ns == 1

    def test_is_not_hurried_by_a_gap_that_was_told(self) -> None:
        r = receiver()
        r.on_frequency(0, RELAXED_BYTES, 100 * MS)
        arrive(r, (0, 0), (2, 2000), now_ns=0)
        r.make_acks(0, 1472)
        arrive(r, (3, 3000), now_ns=1)
        assert r.ack_time_ns == 1 + 100 * MS

    def test_is_due_at_once_when_a_gap_is_filled(self) -> None:
        r = receiver()
        r.on_frequency(0, RELAXED_BYTES, 100 * MS)
        arrive(r, (0, 0), (2, 2000), now_ns=0)
        r.make_acks(0, 1472)
        arrive(r, (1, 1000), now_ns=1)
        assert r.ack_time_ns == 1
        assert acked_ranges(r, 1) == [(0, 3)]

    def test_is_due_at_once_when_the_sender_asks(self) -> None:
        r = receiver()
        r.on_frequency(0, RELAXED_BYTES, 100 * MS)
        arrive(r, (0, 0), now_ns=3, flags=wire.Flags.ACK_NOW)
        assert r.ack_time_ns == 3
        r.make_acks(3, 1472)
        r.note_packet(1, wire.Flags.ACK_NOW, 100, 4)
        assert r.ack_time_ns == 4

    def test_ignores_flags_that_it_does_not_know(self) -> None:
        r = receiver()
        arrive(r, (0, 0), now_ns=3, flags=0xFF & ~wire.Flags.ACK_NOW)
        assert r.ack_time_ns == 3 + FIRST_MAX_ACK_DELAY_NS

    def test_is_due_at_once_on_a_congestion_mark(self) -> None:
        r = receiver()
        arrive(r, (0, 0), now_ns=3)
        r.note_ecn(0b10, 1, 3)
        r.note_ecn(0b01, 1, 3)
        r.note_ecn(0b00, 7, 3)
        assert r.ack_time_ns == 3 + FIRST_MAX_ACK_DELAY_NS
        r.note_ecn(0b11, 3, 4)
        assert r.ack_time_ns == 4
        (ack,) = r.make_acks(4, 1472)
        assert (ack.ce_count, ack.ect_count) == (3, 2)

    def test_is_not_asked_for_by_a_mark_on_a_packet_that_wants_none(self) -> None:
        r = receiver()
        r.note_silent_packet(0)
        r.note_ecn(0b11, 1, 3)
        assert r.ack_time_ns is None

    def test_tells_how_long_the_largest_has_waited(self) -> None:
        r = receiver()
        arrive(r, (0, 0), (5, 5000), now_ns=10 * MS)
        arrive(r, (3, 3000), now_ns=15 * MS)
        (ack,) = r.make_acks(18 * MS, 1472)
        assert ack.ranges == [(5, 6), (3, 4), (0, 1)]
        assert ack.delay_us == 8000

    def test_is_not_asked_for_by_packets_that_want_none(self) -> None:
        r = receiver()
        r.note_silent_packet(0)
        assert r.ack_time_ns is None
        arrive(r, (1, 0), now_ns=5)
        assert r.ack_time_ns == 5 + FIRST_MAX_ACK_DELAY_NS  # and no gap is seen where the silent one was
        assert acked_ranges(r) == [(0, 2)]

    def test_forgets_what_is_settled(self) -> None:
        r = receiver()
        arrive(r, *[(2 * i, i * PAYLOAD) for i in range(10)])
        assert len(acked_ranges(r)) == 10
        r.on_frequency(13, RELAXED_BYTES, 0)
        assert acked_ranges(r) == [(18, 19), (16, 17), (14, 15)]
        r.on_frequency(5, RELAXED_BYTES, 0)  # an older PING that comes late takes nothing back
        assert acked_ranges(r) == [(18, 19), (16, 17), (14, 15)]

    def test_always_has_the_largest_to_tell(self) -> None:
        r = receiver()
        arrive(r, (0, 0), (7, 1000))
        r.on_frequency(8, RELAXED_BYTES, 0)
        r.note_packet(8, 0, 34, 0)
        assert acked_ranges(r) == [(7, 9)]

    def test_takes_several_datagrams_for_many_ranges_newest_first(self) -> None:
        r = receiver()
        per_packet = wire.max_ack_ranges(1472)
        for first in range(0, 3 * per_packet, 100):
            arrive(r, *[(2 * i, i * PAYLOAD) for i in range(first, min(first + 100, 3 * per_packet))])
        assert len(r.make_acks(0, 1472)) == 1  # urgent: the newest are what counts
        arrive(r, (6 * per_packet - 1, 500_000), now_ns=MS)
        acks = r.make_acks(2 * MS, 1472)
        assert [len(ack.ranges) for ack in acks] == [per_packet] * 3
        ranges = [x for ack in acks for x in ack.ranges]
        assert ranges == sorted(ranges, reverse=True)
        assert [ack.delay_us for ack in acks] == [1000, wire.UNKNOWN_DELAY_US, wire.UNKNOWN_DELAY_US]
        for ack in acks:
            assert len(wire.encode_ack(1, 0, ack)) <= 1472 - wire.TAG_BYTES


class TestWindow:
    def test_counts_from_the_furthest_byte(self) -> None:
        r = receiver()
        assert r.data_window == WINDOW
        arrive(r, (0, 9000))
        assert r.data_window == 10_000 + WINDOW

    def test_never_goes_back(self) -> None:
        r = receiver()
        arrive(r, (0, 9000))
        before = r.data_window
        r.window.window_bytes = 1 << 16
        assert r.data_window == before
        (ack,) = r.make_acks(0, 1472)
        assert ack.data_window == before
        arrive(r, (1, before - PAYLOAD))
        assert r.data_window == before + (1 << 16)


class TestHostilePeer:
    def test_every_second_byte_fills_no_memory_and_the_holes_can_still_be_filled(self) -> None:
        r = receiver(1 << 30)
        size = wire.HEADER_BYTES + 1
        for first in range(0, MAX_HOLES + 3000, 1000):
            joined = b"".join(data_packet(n, 2 * n, b"x") for n in range(first, first + 1000))
            r.begin_batch()
            r.receive_data_untrusted(memoryview(joined), size, ID, 0)
        assert len(r._data) == MAX_HOLES
        assert r.data_window == r._data.last[1] + (1 << 30) or r.data_window == 1 << 30
        frozen = r.data_window
        arrive(r, (MAX_HOLES + 5000, 2 * MAX_HOLES - 1))
        assert len(r._data) == MAX_HOLES
        assert r.data_window == frozen
        arrive(r, (MAX_HOLES + 5001, 0))
        assert len(r._data) < MAX_HOLES
        assert r.data_window > frozen

    @pytest.mark.parametrize("note", ["packet", "silent"])
    def test_every_second_packet_number_fills_no_memory(self, note: str) -> None:
        r = receiver()
        for n in range(0, 4 * MAX_HOLES, 2):
            if note == "packet":
                r.note_packet(n, 0, 100, 0)
            else:
                r.note_silent_packet(n)
        assert len(r._packets) <= MAX_HOLES
        assert acked_ranges(r)[0] == (4 * MAX_HOLES - 2, 4 * MAX_HOLES - 1)

    def test_packet_numbers_that_no_range_can_span(self) -> None:
        r = receiver()
        arrive(r, (0, 0), (1 << 40, 1000), (1 << 62, 2000))
        (ack,) = r.make_acks(0, 1472)
        decoded = wire.decode_ack_untrusted(wire.encode_ack(1, 0, ack))
        assert decoded.ranges == [(1 << 62, (1 << 62) + 1)]

    def test_a_floor_above_everything_leaves_nothing_to_say(self) -> None:
        r = receiver()
        arrive(r, *run(0, 5))
        r.on_frequency((1 << 64) - 1, 0, 0)
        for n in range(10, 10 + 2 * MAX_HOLES, 2):
            r.note_packet(n, 0, 100, 0)
        assert r.make_acks(0, 1472) == []
        assert r.ack_time_ns is None
