"""When an acknowledgement is due, and what it contains."""

import pytest

from toolkit.rudp import wire
from toolkit.rudp.ack_tracker import INITIAL_ACK_EVERY_BYTES, INITIAL_MAX_ACK_DELAY_NS, MAX_RANGES, AckTracker

MS = 1_000_000
SIZE = 1026
RARELY_BYTES = 1 << 30


def arrive(acks: AckTracker, *numbers: int, now_ns: int = 0, flags: int = 0) -> None:
    for number in numbers:
        acks.on_packet(number, flags, SIZE, now_ns)


def make_acks(acks: AckTracker, now_ns: int = 0) -> list[wire.AckPacket]:
    return acks.make_acks(now_ns, 1472 - wire.TAG_BYTES, data_limit=0, message_limit=0, dropped_datagrams=0)


def acked_ranges(acks: AckTracker) -> list[tuple[int, int]]:
    return [r for ack in make_acks(acks) for r in ack.ranges]


class TestTiming:
    def test_no_acknowledgement_before_the_first_packet(self) -> None:
        acks = AckTracker()
        assert acks.ack_time_ns is None
        acks.request_ack(5)
        assert acks.ack_time_ns is None

    def test_its_delay_lasts_from_the_arrival_in_the_socket_until_it_is_sent(self) -> None:
        acks = AckTracker()
        acks.waited_ns, acks.send_time_ns = 3 * MS, 2 * MS
        arrive(acks, 0, now_ns=10 * MS)
        assert [ack.delay_us for ack in make_acks(acks, now_ns=14 * MS)] == [4000 + 3000 + 2000]

    def test_is_due_after_the_maximum_delay(self) -> None:
        acks = AckTracker()
        arrive(acks, 0, now_ns=10)
        assert acks.ack_time_ns == 10 + INITIAL_MAX_ACK_DELAY_NS
        arrive(acks, 1, now_ns=20)
        assert acks.ack_time_ns == 10 + INITIAL_MAX_ACK_DELAY_NS

    def test_is_due_at_once_after_the_initial_number_of_bytes(self) -> None:
        acks = AckTracker()
        needed = -(-INITIAL_ACK_EVERY_BYTES // SIZE)
        arrive(acks, *range(needed - 1), now_ns=10)
        assert acks.ack_time_ns == 10 + INITIAL_MAX_ACK_DELAY_NS
        arrive(acks, needed - 1, now_ns=11)
        assert acks.ack_time_ns == 11

    def test_follows_the_frequency_that_the_sender_requests(self) -> None:
        acks = AckTracker()
        acks.on_ack_frequency(0, 0, 10 * SIZE, 7 * MS)
        arrive(acks, *range(9), now_ns=0)
        assert acks.ack_time_ns == 7 * MS
        assert acks.bytes_until_ack == SIZE
        arrive(acks, 9, now_ns=1)
        assert acks.ack_time_ns == 1

    def test_is_due_at_once_on_a_new_gap(self) -> None:
        acks = AckTracker()
        acks.on_ack_frequency(0, 0, RARELY_BYTES, 100 * MS)
        arrive(acks, 0, now_ns=0)
        arrive(acks, 2, now_ns=1)
        assert acks.ack_time_ns == 1

    def test_is_not_due_at_once_for_a_gap_that_was_reported(self) -> None:
        acks = AckTracker()
        acks.on_ack_frequency(0, 0, RARELY_BYTES, 100 * MS)
        arrive(acks, 0, 2, now_ns=0)
        make_acks(acks, 0)
        arrive(acks, 3, now_ns=1)
        assert acks.ack_time_ns == 1 + 100 * MS

    def test_is_due_at_once_when_a_gap_is_filled(self) -> None:
        acks = AckTracker()
        acks.on_ack_frequency(0, 0, RARELY_BYTES, 100 * MS)
        arrive(acks, 0, 2, now_ns=0)
        make_acks(acks, 0)
        arrive(acks, 1, now_ns=1)
        assert acks.ack_time_ns == 1
        assert acked_ranges(acks) == [(0, 3)]

    def test_is_due_at_once_after_ack_now(self) -> None:
        acks = AckTracker()
        acks.on_ack_frequency(0, 0, RARELY_BYTES, 100 * MS)
        arrive(acks, 0, now_ns=3, flags=wire.Flags.ACK_NOW)
        assert acks.ack_time_ns == 3
        make_acks(acks, 3)
        acks.on_packet(1, wire.Flags.ACK_NOW, 100, 4)
        assert acks.ack_time_ns == 4

    def test_ignores_unknown_flags(self) -> None:
        acks = AckTracker()
        arrive(acks, 0, now_ns=3, flags=0xFF & ~wire.Flags.ACK_NOW)
        assert acks.ack_time_ns == 3 + INITIAL_MAX_ACK_DELAY_NS

    def test_is_due_at_once_on_a_congestion_mark(self) -> None:
        acks = AckTracker()
        arrive(acks, 0, now_ns=3)
        acks.on_ecn(0b10, 1, 3)
        acks.on_ecn(0b01, 1, 3)
        acks.on_ecn(0b00, 7, 3)
        assert acks.ack_time_ns == 3 + INITIAL_MAX_ACK_DELAY_NS
        acks.on_ecn(0b11, 3, 4)
        assert acks.ack_time_ns == 4
        (ack,) = make_acks(acks, 4)
        assert (ack.ce_count, ack.ect_count) == (3, 2)

    def test_a_mark_on_a_non_eliciting_packet_causes_no_acknowledgement(self) -> None:
        acks = AckTracker()
        acks.on_non_eliciting_packet(0)
        acks.on_ecn(0b11, 1, 3)
        assert acks.ack_time_ns is None

    def test_states_how_long_the_largest_packet_has_waited(self) -> None:
        acks = AckTracker()
        arrive(acks, 0, 5, now_ns=10 * MS)
        arrive(acks, 3, now_ns=15 * MS)
        (ack,) = make_acks(acks, 18 * MS)
        assert ack.ranges == [(5, 6), (3, 4), (0, 1)]
        assert ack.delay_us == 8000

    @pytest.mark.parametrize("first", ["eliciting", "non-eliciting"])
    def test_the_delay_is_that_of_the_largest_ack_eliciting_packet(self, first: str) -> None:
        """A packet that elicits no acknowledgement may have a larger number, and may have arrived before it."""
        acks = AckTracker()
        arrive(acks, 0, now_ns=2 * MS)
        if first == "non-eliciting":
            acks.on_non_eliciting_packet(2)
        arrive(acks, 1, now_ns=10 * MS)
        if first == "eliciting":
            acks.on_non_eliciting_packet(2)
        (ack,) = make_acks(acks, 18 * MS)
        assert ack.ranges == [(0, 3)]
        assert ack.delay_us == 8000

    def test_non_eliciting_packets_cause_no_acknowledgement_and_leave_no_gap(self) -> None:
        acks = AckTracker()
        acks.on_non_eliciting_packet(0)
        assert acks.ack_time_ns is None
        arrive(acks, 1, now_ns=5)
        assert acks.ack_time_ns == 5 + INITIAL_MAX_ACK_DELAY_NS
        assert acked_ranges(acks) == [(0, 2)]

    def test_drops_ranges_that_the_sender_no_longer_needs(self) -> None:
        acks = AckTracker()
        arrive(acks, *range(0, 20, 2))
        assert len(acked_ranges(acks)) == 10
        acks.on_ack_frequency(0, 13, RARELY_BYTES, 0)
        assert acked_ranges(acks) == [(18, 19), (16, 17), (14, 15)]
        acks.on_ack_frequency(1, 5, RARELY_BYTES, 0)  # a late, older PING changes nothing
        assert acked_ranges(acks) == [(18, 19), (16, 17), (14, 15)]

    def test_keeps_the_range_of_the_largest_packet(self) -> None:
        acks = AckTracker()
        arrive(acks, 0, 7)
        acks.on_ack_frequency(0, 8, RARELY_BYTES, 0)
        acks.on_packet(8, 0, 34, 0)
        assert acked_ranges(acks) == [(7, 9)]

    def test_many_ranges_take_several_packets_newest_first(self) -> None:
        acks = AckTracker()
        per_packet = wire.max_ack_ranges(1472 - wire.TAG_BYTES)
        arrive(acks, *range(0, 6 * per_packet, 2))
        assert len(make_acks(acks)) == 1  # an immediate one is short: only the newest ranges matter
        arrive(acks, 6 * per_packet - 1, now_ns=MS)
        packets = make_acks(acks, 2 * MS)
        assert [len(ack.ranges) for ack in packets] == [per_packet] * 3
        ranges = [x for ack in packets for x in ack.ranges]
        assert ranges == sorted(ranges, reverse=True)
        assert [ack.delay_us for ack in packets] == [1000, wire.UNKNOWN_DELAY_US, wire.UNKNOWN_DELAY_US]
        for ack in packets:
            assert len(wire.encode_ack(1, 0, ack)) <= 1472 - wire.TAG_BYTES


class TestHostilePeer:
    @pytest.mark.parametrize("is_eliciting", [True, False])
    def test_every_second_packet_number_does_not_exhaust_memory(self, is_eliciting: bool) -> None:
        acks = AckTracker()
        top = 4 * MAX_RANGES
        for number in range(0, top, 2):
            if is_eliciting:
                acks.on_packet(number, 0, SIZE, 0)
            else:
                acks.on_non_eliciting_packet(number)
        ranges = acks.make_acks(0, 8 * top, data_limit=0, message_limit=0, dropped_datagrams=0)[0].ranges
        assert ranges[0] == (top - 2, top - 1)
        assert len(ranges) <= MAX_RANGES

    def test_gaps_that_an_ack_packet_cannot_encode(self) -> None:
        acks = AckTracker()
        arrive(acks, 0, 1 << 40, 1 << 62)
        (ack,) = make_acks(acks)
        decoded = wire.decode_ack_untrusted(wire.encode_ack(1, 0, ack))
        assert decoded.ranges == [(1 << 62, (1 << 62) + 1)]

    def test_a_least_unacked_number_above_everything_leaves_nothing_to_acknowledge(self) -> None:
        acks = AckTracker()
        arrive(acks, *range(5))
        acks.on_ack_frequency(0, (1 << 64) - 1, 0, 0)
        arrive(acks, *range(10, 10 + 2 * MAX_RANGES, 2))
        assert make_acks(acks) == []
        assert acks.ack_time_ns is None
