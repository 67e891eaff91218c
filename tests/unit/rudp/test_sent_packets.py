"""Sent packets: acknowledgement, loss by both thresholds, spurious losses, compaction."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.sent_packets import SPURIOUS_LOSS_HISTORY, PacketGroup, SendState, SentPackets

MS = 1_000_000
PAYLOAD = 1000
SIZE = PAYLOAD + wire.HEADER_BYTES
NEVER_NS = 1 << 60


@contextmanager
def bounded_memory(limit_bytes: int) -> Iterator[None]:
    """Check that what is kept beyond this block takes no more than `limit_bytes`."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[0] < limit_bytes
    finally:
        tracemalloc.stop()


def state_at(now_ns: int) -> SendState:
    return SendState(now_ns, 0, 0, 0, 0, 0, False)


def record(
    sent: SentPackets, count: int, now_ns: int = 0, offset: int = 0, kind: wire.PacketType = wire.PacketType.DATA
) -> list[int]:
    """Record `count` packets of `PAYLOAD` bytes each, from stream offset `offset` on; return their numbers."""
    offsets = offset + PAYLOAD * np.arange(count)
    numbers = sent.record(kind, offsets, np.full(count, SIZE, np.int32), state_at(now_ns))
    return [int(n) for n in numbers]


def lost(sent: SentPackets, largest: int, now_ns: int = 0, delay_ns: int = NEVER_NS, threshold: int = 3) -> list[int]:
    group, _ = sent.detect_lost(largest, now_ns, delay_ns, threshold)
    return [] if group is None else group.packet_numbers.tolist()


def acked(sent: SentPackets, *ranges: tuple[int, int]) -> list[int]:
    group = sent.acknowledge_untrusted(list(ranges))
    return [] if group is None else group.packet_numbers.tolist()


class TestNumbers:
    def test_count_up_and_are_never_used_twice(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        assert record(sent, 3) == [0, 1, 2]
        assert sent.number_non_eliciting() == 3
        assert record(sent, 2) == [4, 5]
        assert sent.next_packet_number == 6

    def test_non_eliciting_packets_are_never_in_flight(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        sent.number_non_eliciting()
        assert sent.least_unacked == 1
        record(sent, 1)
        sent.number_non_eliciting()
        assert sent.least_unacked == 1
        assert acked(sent, (0, 3)) == [1]
        assert sent.least_unacked == 3

    def test_the_oldest_packet_in_flight_gives_the_time_without_acknowledgement(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        sent.number_non_eliciting()
        assert sent.oldest_sent_time_ns is None
        record(sent, 2, now_ns=5)
        record(sent, 1, now_ns=7)
        assert sent.oldest_sent_time_ns == 5
        acked(sent, (3, 4))
        assert sent.oldest_sent_time_ns == 5
        acked(sent, (0, 4))
        assert sent.oldest_sent_time_ns is None

    def test_abandoned_packets_can_be_neither_acknowledged_nor_lost(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        assert sent.abandon() is None
        record(sent, 10)
        record(sent, 2, offset=50_000, kind=wire.PacketType.MESSAGE)
        record(sent, 1, kind=wire.PacketType.PROBE)
        acked(sent, (8, 9), (5, 6))
        assert lost(sent, 8) == [0, 1, 2, 3, 4]
        abandoned = sent.abandon()
        assert abandoned is not None
        assert abandoned.packet_numbers.tolist() == [6, 7, 9, 10, 11, 12]
        assert abandoned.data == [(6 * PAYLOAD, 8 * PAYLOAD), (9 * PAYLOAD, 10 * PAYLOAD)]
        assert abandoned.messages == [(50_000, 52_000)]
        assert acked(sent, (0, 13)) == []
        assert sent.least_unacked == 13
        record(sent, 5, now_ns=MS)
        assert acked(sent, (17, 18), (0, 13)) == [17]
        assert lost(sent, 17) == [13, 14]

    def test_non_eliciting_packets_take_no_memory(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        for _ in range(10_000):  # enough to have all columns
            sent.number_non_eliciting()
        with bounded_memory(100_000):
            for _ in range(100_000):
                sent.number_non_eliciting()
        assert sent.least_unacked == sent.next_packet_number == 110_000


class TestAcknowledge:
    def test_acknowledges_each_packet_once(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 10)
        assert acked(sent, (2, 5)) == [2, 3, 4]
        assert acked(sent, (2, 5)) == []
        assert acked(sent, (9, 10), (0, 6)) == [0, 1, 5, 9]
        assert sent.least_unacked == 6

    def test_of_packets_never_sent_is_refused_and_changes_nothing(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 3)
        with pytest.raises(ProtocolError, match="never sent"):
            sent.acknowledge_untrusted([(2, 4), (0, 1)])
        assert sent.least_unacked == 0
        assert acked(sent, (0, 3)) == [0, 1, 2]

    def test_tells_runs_of_offsets_adjacent_ones_joined(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 4, offset=0)
        record(sent, 2, offset=50_000)
        group = sent.acknowledge_untrusted([(5, 6), (0, 3)])
        assert group is not None
        assert group.data == [(0, 3000), (51_000, 52_000)]
        assert (group.messages, group.probes) == ([], [])

    def test_keeps_data_messages_and_probes_apart(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 1, offset=10, kind=wire.PacketType.DATA)
        record(sent, 2, offset=70, kind=wire.PacketType.MESSAGE)
        sent.record(wire.PacketType.PROBE, np.zeros(1, np.int64), 1472, state_at(0))
        sent.record(wire.PacketType.PING, np.zeros(1, np.int64), 34, state_at(0))
        group = sent.acknowledge_untrusted([(0, 5)])
        assert group is not None
        assert (group.data, group.messages, group.probes) == ([(10, 1010)], [(70, 2070)], [1472])
        assert (group.packets, group.bytes, group.largest_bytes) == (5, 3 * SIZE + 1472 + 34, 1472)

    def test_tells_the_same_of_packets_one_by_one(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 1, now_ns=5, offset=10, kind=wire.PacketType.DATA)
        record(sent, 1, now_ns=6, offset=70, kind=wire.PacketType.MESSAGE)
        sent.record(wire.PacketType.PROBE, np.zeros(1, np.int64), 1472, state_at(7))
        sent.record(wire.PacketType.PING, np.zeros(1, np.int64), 34, state_at(8))
        groups = [sent.acknowledge_untrusted([(0, number + 1)]) for number in range(4)]
        assert sent.least_unacked == 4
        told = [
            (g.newest, g.newest_state.sent_time_ns, g.bytes, g.data, g.messages, g.probes, g.packet_numbers.tolist())
            for g in groups
            if g is not None
        ]
        assert told == [
            (0, 5, SIZE, [(10, 1010)], [], [], [0]),
            (1, 6, SIZE, [], [(70, 1070)], [], [1]),
            (2, 7, 1472, [], [], [1472], [2]),
            (3, 8, 34, [], [], [], [3]),
        ]

    def test_returns_the_state_in_which_the_newest_packet_was_sent(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        for i in range(4):
            record(sent, 5, now_ns=i * MS)
        group = sent.acknowledge_untrusted([(12, 13), (3, 7)])
        assert group is not None
        assert group.newest == 12
        assert group.newest_state.sent_time_ns == 2 * MS

    def test_a_hundred_thousand_in_flight_with_a_thousand_holes(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        count = 100_000
        for first in range(0, count, 1000):
            record(sent, 1000, offset=first * PAYLOAD)
        holes = list(range(50, count, 100))
        edges = [-1, *holes, count]
        ranges = [(low + 1, high) for low, high in pairwise(edges)][::-1]
        group = sent.acknowledge_untrusted(ranges)
        assert group is not None
        assert group.packets == count - len(holes)
        assert group.data == [(low * PAYLOAD, high * PAYLOAD) for low, high in reversed(ranges)]
        assert lost(sent, count - 1) == holes


class TestDetectLost:
    def test_by_the_packet_threshold(self) -> None:
        """RFC 9002 section 6.1.1: sent kPacketThreshold before an acknowledged packet."""
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 10)
        acked(sent, (5, 6))
        assert lost(sent, 5) == [0, 1, 2]
        assert sent.least_unacked == 3

    def test_by_the_time_threshold(self) -> None:
        """RFC 9002 section 6.1.2: older than the loss delay, and something later was acknowledged."""
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 1, now_ns=0)
        record(sent, 1, now_ns=10 * MS)
        record(sent, 2, now_ns=20 * MS)
        acked(sent, (3, 4))
        group, again_ns = sent.detect_lost(3, 29 * MS, 30 * MS, 100)
        assert (group, again_ns) == (None, 30 * MS)
        assert lost(sent, 3, 30 * MS, 30 * MS, 100) == [0]
        group, again_ns = sent.detect_lost(3, 30 * MS, 30 * MS, 100)
        assert (group, again_ns) == (None, 40 * MS)
        assert lost(sent, 3, 50 * MS, 30 * MS, 100) == [1, 2]
        assert sent.detect_lost(3, 60 * MS, 30 * MS, 100) == (None, None)

    def test_nothing_newer_than_the_largest_acknowledged(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 10)
        acked(sent, (2, 3))
        assert lost(sent, 2, now_ns=NEVER_NS, delay_ns=0) == [0, 1]

    def test_tells_the_span_between_the_first_and_the_last(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        for i in range(5):
            record(sent, 1, now_ns=i * 10 * MS)
        acked(sent, (4, 5))
        group, _ = sent.detect_lost(4, 0, NEVER_NS, 1)
        assert group is not None
        assert group.span_ns == 30 * MS

    def test_tells_the_longest_outage_with_nothing_acknowledged_in_it(self) -> None:
        """RFC 9002 section 7.6.2. A packet that elicits no acknowledgement proves nothing."""
        sent = SentPackets(wire.HEADER_BYTES)
        for i in range(10):
            record(sent, 1, now_ns=i * 10 * MS)
            if i == 2:
                sent.number_non_eliciting()
        sent.record(wire.PacketType.PROBE, np.zeros(1, np.int64), 1472, state_at(500 * MS))
        record(sent, 5, now_ns=600 * MS)
        acked(sent, (15, 17), (6, 7))  # the packet sent at 50 ms, and the last ones
        group, _ = sent.detect_lost(16, 0, NEVER_NS, 1)
        assert group is not None
        assert group.packet_numbers.tolist() == [0, 1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14]
        assert group.span_ns == 600 * MS
        assert sent.outage_ns(group) == 540 * MS

    def test_a_lost_packet_that_arrives_is_spurious_and_acknowledged_once(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 10, offset=0)
        acked(sent, (6, 7))
        assert lost(sent, 6) == [0, 1, 2, 3]
        group = sent.acknowledge_untrusted([(1, 6)])
        assert group is not None
        assert group.packet_numbers.tolist() == [1, 2, 3, 4, 5]
        assert (group.spurious.tolist(), group.spurious_bytes) == ([1, 2, 3], 3 * SIZE)
        assert group.data == [(1000, 6000)]
        assert acked(sent, (1, 6)) == []
        group = sent.acknowledge_untrusted([(0, 1)])
        assert group is not None
        assert (group.spurious.tolist(), group.spurious_bytes, group.data) == ([0], SIZE, [(0, 1000)])


class TestCompaction:
    """The columns drop old packets, which changes nothing else."""

    @pytest.mark.long
    def test_a_million_packets_in_bounded_memory(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        total = 1_000_000
        acked_bytes = 0
        with bounded_memory(2 << 20):
            for first in range(0, total, 1000):
                record(sent, 1000, now_ns=first, offset=first * PAYLOAD)
                group = sent.acknowledge_untrusted([(first, first + 1000)])
                assert group is not None
                assert group.data == [(first * PAYLOAD, (first + 1000) * PAYLOAD)]
                assert group.newest_state.sent_time_ns == first
                acked_bytes += group.bytes
        assert acked_bytes == total * SIZE
        assert sent.least_unacked == sent.next_packet_number == total

    def test_packets_in_flight_are_kept(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, 1, now_ns=77, offset=5)
        for first in range(0, 100_000, 1000):
            record(sent, 1000)
            acked(sent, (first + 1, first + 1001))
        assert sent.least_unacked == 0
        group = sent.acknowledge_untrusted([(0, 1)])
        assert group is not None
        assert group.data == [(5, 1005)]
        assert group.newest_state.sent_time_ns == 77
        assert sent.least_unacked == 100_001

    def test_lost_packets_are_kept_for_a_while(self) -> None:
        sent = SentPackets(wire.HEADER_BYTES)
        record(sent, SPURIOUS_LOSS_HISTORY)
        while sent.base == 0:
            numbers = record(sent, 1000)
            acked(sent, (numbers[0], numbers[-1] + 1))
            lost(sent, numbers[-1])
        floor = sent.base
        assert floor <= sent.least_unacked - SPURIOUS_LOSS_HISTORY
        assert acked(sent, (0, SPURIOUS_LOSS_HISTORY)) == list(range(floor, SPURIOUS_LOSS_HISTORY))

    def test_lost_packets_are_kept_as_long_as_a_round_trip_was(self) -> None:
        """85,000 packets are a round trip of 100 ms at 10 Gbit/s. Each round, the first packet seems to be lost."""
        sent = SentPackets(wire.HEADER_BYTES)
        in_flight = 85_000
        with bounded_memory(32 << 20):
            record(sent, in_flight)
            for start in range(0, 4 * in_flight, in_flight):
                seem_lost = []
                for first in range(start + 1, start + in_flight, 1000):
                    end = min(first + 1000, start + in_flight)
                    acked(sent, (first, end))
                    seem_lost += lost(sent, end - 1)
                    record(sent, end - first)
                record(sent, 1)
                assert seem_lost == [start]
                group = sent.acknowledge_untrusted([(start, start + 1)])
                assert group is not None
                assert group.spurious.tolist() == [start]

    def test_repeated_ranges_may_reach_below_the_kept_packets(self) -> None:
        """A receiver repeats ranges until a PING tells it to drop them, and that PING can be lost."""
        sent = SentPackets(wire.HEADER_BYTES)
        holes = [100, 200, 300]
        ranges = [(0, 100), (101, 200), (201, 300), (301, 10_000)]
        record(sent, 10_000)
        acked(sent, *reversed(ranges))
        assert lost(sent, 9999) == holes
        while sent.base <= holes[-1]:
            record(sent, 2000)
            acked(sent, (sent.next_packet_number - 2000, sent.next_packet_number))
        fresh = record(sent, 10)
        old = [(10_000, fresh[0]), *reversed(ranges)] if ranges[-1][1] < 10_000 else [(301, fresh[0]), *ranges[2::-1]]
        assert acked(sent, (fresh[5], fresh[6]), *old) == [fresh[5]]
        assert acked(sent, (fresh[2], fresh[3]), *old[:1]) == [fresh[2]]
        assert sent.least_unacked == fresh[0]


def test_a_group_names_its_packets() -> None:
    sent = SentPackets(wire.HEADER_BYTES)
    record(sent, 3)
    group = sent.acknowledge_untrusted([(1, 3)])
    assert isinstance(group, PacketGroup)
    assert sent.kinds(group.packet_numbers).tolist() == [wire.PacketType.DATA] * 2
