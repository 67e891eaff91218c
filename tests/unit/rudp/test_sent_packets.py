"""Packets in flight: settling by acknowledgements, loss by both thresholds, late arrivals, compaction."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.sent_packets import SPURIOUS_HISTORY, SendState, SentPackets, Settled

MS = 1_000_000
PAYLOAD = 1000
SIZE = PAYLOAD + wire.HEADER_BYTES
NEVER_NS = 1 << 60


def state_at(now_ns: int) -> SendState:
    return SendState(now_ns, 0, 0, 0, 0, 0, False)


def record(
    sent: SentPackets, count: int, now_ns: int = 0, position: int = 0, kind: wire.PacketType = wire.PacketType.DATA
) -> list[int]:
    """`count` packets of `PAYLOAD` bytes each from `position` on; returns their numbers."""
    positions = position + PAYLOAD * np.arange(count)
    numbers = sent.record(kind, positions, np.full(count, SIZE, np.int32), state_at(now_ns))
    return [int(n) for n in numbers]


def lost(sent: SentPackets, largest: int, now_ns: int = 0, delay_ns: int = NEVER_NS, threshold: int = 3) -> list[int]:
    settled, _ = sent.detect_lost(largest, now_ns, delay_ns, threshold)
    return [] if settled is None else settled.packet_numbers.tolist()


def acked(sent: SentPackets, *ranges: tuple[int, int]) -> list[int]:
    settled = sent.acknowledge_untrusted(list(ranges))
    return [] if settled is None else settled.packet_numbers.tolist()


class TestNumbers:
    def test_count_up_and_are_never_used_twice(self) -> None:
        sent = SentPackets()
        assert record(sent, 3) == [0, 1, 2]
        assert sent.skip() == 3
        assert record(sent, 2) == [4, 5]
        assert sent.next_packet_number == 6

    def test_skipped_ones_are_settled_from_the_beginning(self) -> None:
        sent = SentPackets()
        sent.skip()
        assert sent.least_unacked == 1
        record(sent, 1)
        sent.skip()
        assert sent.least_unacked == 1
        assert acked(sent, (0, 3)) == [1]
        assert sent.least_unacked == 3

    def test_the_oldest_in_flight_tells_how_long_nothing_was_acknowledged(self) -> None:
        sent = SentPackets()
        sent.skip()
        assert sent.oldest_sent_time_ns is None
        record(sent, 2, now_ns=5)
        record(sent, 1, now_ns=7)
        assert sent.oldest_sent_time_ns == 5
        acked(sent, (3, 4))
        assert sent.oldest_sent_time_ns == 5
        acked(sent, (0, 4))
        assert sent.oldest_sent_time_ns is None

    def test_abandoned_ones_can_be_neither_acknowledged_nor_lost_any_more(self) -> None:
        sent = SentPackets()
        assert sent.abandon() is None
        record(sent, 10)
        record(sent, 2, position=50_000, kind=wire.PacketType.MESSAGE)
        record(sent, 1, kind=wire.PacketType.PROBE)
        acked(sent, (8, 9), (5, 6))
        assert lost(sent, 8) == [0, 1, 2, 3, 4]
        given_up = sent.abandon()
        assert given_up is not None
        assert given_up.packet_numbers.tolist() == [6, 7, 9, 10, 11, 12]
        assert given_up.data == [(6 * PAYLOAD, 8 * PAYLOAD), (9 * PAYLOAD, 10 * PAYLOAD)]
        assert given_up.messages == [(50_000, 52_000)]
        assert acked(sent, (0, 13)) == []
        assert sent.least_unacked == 13
        record(sent, 5, now_ns=MS)
        assert acked(sent, (17, 18), (0, 13)) == [17]
        assert lost(sent, 17) == [13, 14]

    def test_skipping_alone_keeps_no_memory(self) -> None:
        sent = SentPackets()
        for _ in range(100_000):
            sent.skip()
        assert sent.least_unacked == sent.next_packet_number == 100_000
        assert len(sent._state) <= 1 << 14


class TestAcknowledge:
    def test_settles_each_packet_once(self) -> None:
        sent = SentPackets()
        record(sent, 10)
        assert acked(sent, (2, 5)) == [2, 3, 4]
        assert acked(sent, (2, 5)) == []
        assert acked(sent, (9, 10), (0, 6)) == [0, 1, 5, 9]
        assert sent.least_unacked == 6

    def test_of_what_was_never_sent_is_refused_and_changes_nothing(self) -> None:
        sent = SentPackets()
        record(sent, 3)
        with pytest.raises(ProtocolError, match="never sent"):
            sent.acknowledge_untrusted([(2, 4), (0, 1)])
        assert sent.least_unacked == 0
        assert acked(sent, (0, 3)) == [0, 1, 2]

    def test_tells_runs_of_positions_adjacent_ones_joined(self) -> None:
        sent = SentPackets()
        record(sent, 4, position=0)
        record(sent, 2, position=50_000)
        settled = sent.acknowledge_untrusted([(5, 6), (0, 3)])
        assert settled is not None
        assert settled.data == [(0, 3000), (51_000, 52_000)]
        assert (settled.messages, settled.probes) == ([], [])

    def test_keeps_data_messages_and_probes_apart(self) -> None:
        sent = SentPackets()
        record(sent, 1, position=10, kind=wire.PacketType.DATA)
        record(sent, 2, position=70, kind=wire.PacketType.MESSAGE)
        sent.record(wire.PacketType.PROBE, np.zeros(1, np.int64), 1472, state_at(0))
        sent.record(wire.PacketType.PING, np.zeros(1, np.int64), 34, state_at(0))
        settled = sent.acknowledge_untrusted([(0, 5)])
        assert settled is not None
        assert (settled.data, settled.messages, settled.probes) == ([(10, 1010)], [(70, 2070)], [1472])
        assert (settled.packets, settled.bytes, settled.largest_bytes) == (5, 3 * SIZE + 1472 + 34, 1472)

    def test_tells_the_state_in_which_the_newest_was_sent(self) -> None:
        sent = SentPackets()
        for i in range(4):
            record(sent, 5, now_ns=i * MS)
        settled = sent.acknowledge_untrusted([(12, 13), (3, 7)])
        assert settled is not None
        assert settled.newest == 12
        assert settled.newest_state.sent_time_ns == 2 * MS

    def test_a_hundred_thousand_in_flight_with_a_thousand_holes(self) -> None:
        sent = SentPackets()
        count = 100_000
        for first in range(0, count, 1000):
            record(sent, 1000, position=first * PAYLOAD)
        holes = list(range(50, count, 100))
        edges = [-1, *holes, count]
        ranges = [(low + 1, high) for low, high in pairwise(edges)][::-1]
        settled = sent.acknowledge_untrusted(ranges)
        assert settled is not None
        assert settled.packets == count - len(holes)
        assert settled.data == [(low * PAYLOAD, high * PAYLOAD) for low, high in reversed(ranges)]
        assert lost(sent, count - 1) == holes


class TestDetectLost:
    def test_by_the_packet_threshold(self) -> None:
        """RFC 9002 section 6.1.1: sent kPacketThreshold before an acknowledged packet."""
        sent = SentPackets()
        record(sent, 10)
        acked(sent, (5, 6))
        assert lost(sent, 5) == [0, 1, 2]
        assert sent.least_unacked == 3

    def test_by_the_time_threshold(self) -> None:
        """RFC 9002 section 6.1.2: older than the loss delay, and something later was acknowledged."""
        sent = SentPackets()
        record(sent, 1, now_ns=0)
        record(sent, 1, now_ns=10 * MS)
        record(sent, 2, now_ns=20 * MS)
        acked(sent, (3, 4))
        settled, again_ns = sent.detect_lost(3, 29 * MS, 30 * MS, 100)
        assert (settled, again_ns) == (None, 30 * MS)
        assert lost(sent, 3, 30 * MS, 30 * MS, 100) == [0]
        settled, again_ns = sent.detect_lost(3, 30 * MS, 30 * MS, 100)
        assert (settled, again_ns) == (None, 40 * MS)
        assert lost(sent, 3, 50 * MS, 30 * MS, 100) == [1, 2]
        assert sent.detect_lost(3, 60 * MS, 30 * MS, 100) == (None, None)

    def test_nothing_newer_than_the_largest_acknowledged(self) -> None:
        sent = SentPackets()
        record(sent, 10)
        acked(sent, (2, 3))
        assert lost(sent, 2, now_ns=NEVER_NS, delay_ns=0) == [0, 1]

    def test_tells_the_span_between_the_first_and_the_last(self) -> None:
        sent = SentPackets()
        for i in range(5):
            record(sent, 1, now_ns=i * 10 * MS)
        acked(sent, (4, 5))
        settled, _ = sent.detect_lost(4, 0, NEVER_NS, 1)
        assert settled is not None
        assert settled.span_ns == 30 * MS

    def test_tells_the_longest_outage_with_nothing_acknowledged_in_it(self) -> None:
        """RFC 9002 section 7.6.2. A packet that nobody acknowledges proves nothing."""
        sent = SentPackets()
        for i in range(10):
            record(sent, 1, now_ns=i * 10 * MS)
            if i == 2:
                sent.skip()
        sent.record(wire.PacketType.PROBE, np.zeros(1, np.int64), 1472, state_at(500 * MS))
        record(sent, 5, now_ns=600 * MS)
        acked(sent, (15, 17), (6, 7))  # the packet of 50 ms, and the end
        settled, _ = sent.detect_lost(16, 0, NEVER_NS, 1)
        assert settled is not None
        assert settled.packet_numbers.tolist() == [0, 1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14]
        assert settled.span_ns == 600 * MS
        assert sent.outage_ns(settled) == 540 * MS

    def test_a_lost_packet_that_arrives_is_spurious_and_settled_once(self) -> None:
        sent = SentPackets()
        record(sent, 10, position=0)
        acked(sent, (6, 7))
        assert lost(sent, 6) == [0, 1, 2, 3]
        settled = sent.acknowledge_untrusted([(1, 6)])
        assert settled is not None
        assert settled.packet_numbers.tolist() == [1, 2, 3, 4, 5]
        assert (settled.spurious.tolist(), settled.spurious_bytes) == ([1, 2, 3], 3 * SIZE)
        assert settled.data == [(1000, 6000)]
        assert acked(sent, (1, 6)) == []


class TestCompaction:
    """The columns drop what is settled, and nothing else changes by it."""

    def test_a_million_packets_in_bounded_memory(self) -> None:
        sent = SentPackets()
        total = 1_000_000
        settled_bytes = 0
        for first in range(0, total, 1000):
            record(sent, 1000, now_ns=first, position=first * PAYLOAD)
            settled = sent.acknowledge_untrusted([(first, first + 1000)])
            assert settled is not None
            assert settled.data == [(first * PAYLOAD, (first + 1000) * PAYLOAD)]
            assert settled.newest_state.sent_time_ns == first
            settled_bytes += settled.bytes
        assert settled_bytes == total * SIZE
        assert sent.least_unacked == sent.next_packet_number == total
        assert len(sent._state) <= 1 << 15
        assert len(sent._states) <= len(sent._state)
        assert sum(sys.getsizeof(c) for c in (sent._state, sent._position, sent._time_ns)) < 1 << 20

    def test_what_is_in_flight_stays_in_view(self) -> None:
        sent = SentPackets()
        record(sent, 1, now_ns=77, position=5)
        for first in range(0, 100_000, 1000):
            record(sent, 1000)
            acked(sent, (first + 1, first + 1001))
        assert sent.least_unacked == 0
        settled = sent.acknowledge_untrusted([(0, 1)])
        assert settled is not None
        assert settled.data == [(5, 1005)]
        assert settled.newest_state.sent_time_ns == 77
        assert sent.least_unacked == 100_001

    def test_lost_packets_stay_in_view_for_a_while(self) -> None:
        sent = SentPackets()
        record(sent, SPURIOUS_HISTORY)
        while sent._base == 0:
            numbers = record(sent, 1000)
            acked(sent, (numbers[0], numbers[-1] + 1))
            lost(sent, numbers[-1])
        floor = sent._base
        assert floor <= sent.least_unacked - SPURIOUS_HISTORY
        assert acked(sent, (0, SPURIOUS_HISTORY)) == list(range(floor, SPURIOUS_HISTORY))

    def test_ranges_that_were_told_before_may_reach_below_the_view(self) -> None:
        """A receiver repeats ranges until it hears that they are settled, and that word can be lost."""
        sent = SentPackets()
        holes = [100, 200, 300]
        ranges = [(0, 100), (101, 200), (201, 300), (301, 10_000)]
        record(sent, 10_000)
        acked(sent, *reversed(ranges))
        assert lost(sent, 9999) == holes
        while sent._base <= holes[-1]:
            record(sent, 2000)
            acked(sent, (sent.next_packet_number - 2000, sent.next_packet_number))
        fresh = record(sent, 10)
        old = [(10_000, fresh[0]), *reversed(ranges)] if ranges[-1][1] < 10_000 else [(301, fresh[0]), *ranges[2::-1]]
        assert acked(sent, (fresh[5], fresh[6]), *old) == [fresh[5]]
        assert acked(sent, (fresh[2], fresh[3]), *old[:1]) == [fresh[2]]
        assert sent.least_unacked == fresh[0]


def test_settled_names_its_packets() -> None:
    sent = SentPackets()
    record(sent, 3)
    settled = sent.acknowledge_untrusted([(1, 3)])
    assert isinstance(settled, Settled)
    assert sent.kinds(settled.packet_numbers).tolist() == [wire.PacketType.DATA] * 2
