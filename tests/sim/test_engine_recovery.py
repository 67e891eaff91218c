"""Particular failures in virtual time: one important packet is lost, or nothing arrives for a while."""

from collections.abc import Callable

import pytest

from tests.support.engine_pair import FAR_ID, MS, SECOND, Hazards, Pair, packet_type
from toolkit.rudp import wire
from toolkit.rudp.config import Config
from toolkit.rudp.state import ConnectionState
from toolkit.rudp.wire import PacketType

ONE_WAY_NS = 20 * MS
RTT_NS = 2 * ONE_WAY_NS


def path(**hazards: object) -> Hazards:
    return Hazards(delay_ns=ONE_WAY_NS, **hazards)  # type: ignore[arg-type]


class Nth:
    """True for the datagrams of one type with these ordinals."""

    def __init__(self, kind: PacketType, *ordinals: int) -> None:
        self.kind, self.ordinals, self.seen = kind, ordinals, 0

    def __call__(self, datagram: bytes) -> bool:
        if packet_type(datagram) != self.kind:
            return False
        self.seen += 1
        return self.seen - 1 in self.ordinals


def elapsed_ms(pair: Pair) -> float:
    return (pair.now_ns - SECOND) / MS


class TestLoss:
    @pytest.mark.long
    def test_sixty_megabytes_through_loss_both_ways(self) -> None:
        """Long enough for the columns of sent packets to be compacted several times."""
        pair = Pair(1, path(loss=0.01), data=60_000_000)
        pair.near.offer()
        pair.run_until_acked()
        assert pair.near.connection.stats().packets_retransmitted <= 1.15 * pair.near.dropped_datagrams + 20

    @pytest.mark.parametrize(("control", "round_trips"), [("bbr", 2), ("cubic", 3), ("newreno", 3)])
    def test_a_packet_lost_twice_costs_two_round_trips_and_no_timeout(self, control: str, round_trips: int) -> None:
        """A controller that halves its window waits another half round trip for room, each time."""
        drop = DropOffset(30_000, times=2)
        pair = Pair(2, path(drop=drop), data=300_000, near_config=Config(congestion_control=control))
        pair.near.offer()
        pair.run(lambda: drop.dropped == 1)
        first_sent_ns = pair.now_ns
        timeouts = []

        def has_arrived() -> bool:
            timeouts.append(pair.near.connection.pto_count)
            return pair.far.connection.received_offset > drop.offset

        pair.run(has_arrived)
        assert drop.dropped == 2
        assert max(timeouts) == 0
        assert pair.now_ns - first_sent_ns <= round_trips * RTT_NS + ONE_WAY_NS + RTT_NS // 2
        pair.run_until_acked()
        assert pair.near.connection.stats().packets_retransmitted == 2

    def test_a_lost_tail_is_found_by_a_probe(self) -> None:
        """No later packet shows the loss, so the probe timeout does (RFC 9002 section 6.2)."""
        drop = DropOffset(0, times=1)
        pair = Pair(3, path(drop=drop), data=500)
        pair.near.offer()
        pair.run_until_acked()
        assert drop.dropped == 1
        assert elapsed_ms(pair) < 600

    @pytest.mark.parametrize("outage_ns", [200 * MS, 2 * SECOND, 8 * SECOND])
    def test_a_transfer_continues_within_half_a_second_of_a_blackout(self, outage_ns: int) -> None:
        start_ns = SECOND + 300 * MS
        end_ns = start_ns + outage_ns

        def is_dark(now_ns: int) -> bool:
            return start_ns <= now_ns < end_ns

        pair = Pair(4, path(blackout=is_dark, rate_bps=20e6, queue_ns=100 * MS), data=3_000_000)
        pair.near.offer()
        pair.run(lambda: pair.now_ns > end_ns)
        delivered = pair.far.delivered_bytes
        pair.run(lambda: pair.far.delivered_bytes > delivered)
        assert pair.now_ns - end_ns < 500 * MS
        pair.run_until_acked()

    def test_ten_kilobytes_take_two_round_trips(self) -> None:
        pair = Pair(5, path(), data=10_000)
        pair.near.offer()
        pair.run_until_acked()
        assert elapsed_ms(pair) <= RTT_NS / MS + 5


class DropOffset:
    """Drops the DATA packet that carries a stream offset, a given number of times."""

    def __init__(self, offset: int, times: int) -> None:
        self.offset, self.times, self.dropped = offset, times, 0

    def __call__(self, datagram: bytes) -> bool:
        if packet_type(datagram) != PacketType.DATA or self.dropped == self.times:
            return False
        start = wire.DATA.unpack_untrusted(datagram)[4]
        if start <= self.offset < start + len(datagram) - wire.HEADER_BYTES:
            self.dropped += 1
            return True
        return False


class TestNarrowerPath:
    @pytest.mark.parametrize("one_way_ns", [MS, 20 * MS, 100 * MS])
    def test_a_path_that_becomes_narrower_is_noticed_by_probe_timeouts(self, one_way_ns: int) -> None:
        """A black hole for all packets with content (RFC 8899 section 4.3); only small packets show it."""
        narrow = Narrow(1300)
        hazards = Hazards(delay_ns=one_way_ns, rate_bps=50e6, queue_ns=50 * MS, drop=narrow)
        pair = Pair(20, hazards, data=4_000_000)
        pair.near.offer()
        pair.run(lambda: pair.far.delivered_bytes > 1_500_000)
        assert pair.near.connection.stats().datagram_bytes > narrow.limit_bytes
        narrow.is_on = True
        changed_ns = pair.now_ns
        delivered = pair.far.delivered_bytes + 200_000  # more than was in flight
        pair.run(lambda: pair.far.delivered_bytes > delivered)
        assert pair.now_ns - changed_ns < 2 * SECOND
        pair.run_until_acked()
        assert wire.MIN_DATAGRAM_BYTES <= pair.near.connection.stats().datagram_bytes <= narrow.limit_bytes


class Narrow:
    """Drops large datagrams once it is on."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.is_on = limit_bytes, False

    def __call__(self, datagram: bytes) -> bool:
        return self.is_on and len(datagram) > self.limit_bytes


class TestLocalAddressChange:
    def test_a_client_that_moves_starts_a_new_path_and_loses_nothing(self) -> None:
        """The old path loses everything in flight; the new one is longer and carries less."""
        swallow = Narrow(0)
        pair = Pair(21, path(rate_bps=50e6, drop=swallow), data=3_000_000, back_data=500_000)
        pair.far.offer_all([bytes(5000)] * 20)
        pair.near.offer_all([bytes(5000)] * 20)
        pair.run(lambda: pair.far.delivered_bytes > 1_000_000)
        swallow.is_on = True
        pair.run_for(50 * MS)
        swallow.is_on = False
        pair.near.hazards = Hazards(delay_ns=3 * ONE_WAY_NS, rate_bps=10e6)
        pair.near.connection.handle_local_address_change()
        stats = pair.near.connection.stats()
        assert (stats.bytes_in_flight, stats.datagram_bytes) == (0, wire.MIN_DATAGRAM_BYTES)
        # Not what arrives for the first time: the first packets repeat bytes whose acknowledgements the old path lost.
        moved_ns, acknowledged = pair.now_ns, stats.delivered_bytes
        pair.run(lambda: pair.near.connection.stats().delivered_bytes > acknowledged)
        assert pair.now_ns - moved_ns < 5 * ONE_WAY_NS  # three there and one back, and the time of a few packets
        pair.run_until_acked()
        assert pair.far.messages == pair.near.messages == [bytes(5000)] * 20
        assert pair.near.connection.stats().datagram_bytes == 1472


class TestReordering:
    def test_the_thresholds_adapt_and_the_window_is_restored(self) -> None:
        """RFC 9002 section 6.1.1 permits a larger threshold: after the first flights, few losses are spurious."""
        near = Config(congestion_control="cubic")
        pair = Pair(6, path(reorder=0.2, reorder_ns=10 * MS, rate_bps=50e6), data=4_000_000, near_config=near)
        pair.near.offer()
        pair.run(lambda: pair.far.delivered_bytes >= 2_000_000)
        early = pair.near.connection.stats().packets_lost
        pair.run_until_acked()
        stats = pair.near.connection.stats()
        assert pair.near.dropped_datagrams == 0
        assert stats.packet_threshold > 3
        assert stats.packets_spuriously_lost > 0
        assert stats.packets_lost - early <= early

    def test_late_packets_are_delivered_once(self) -> None:
        pair = Pair(7, path(reorder=0.5, reorder_ns=100 * MS, duplicate=0.3), data=500_000)
        pair.near.offer_all([bytes(100)] * 50)
        pair.run_until_acked()
        assert pair.far.messages == [bytes(100)] * 50


class TestWindow:
    @pytest.mark.parametrize("lost_updates", [1, 3, 6])
    def test_a_sender_blocked_by_a_lost_window_update_probes(self, lost_updates: int) -> None:
        """Everything sent is acknowledged, so only a probe of the sender causes another window update."""
        drop = LostUpdates(lost_updates)
        window = 1 << 16
        far = Config(receive_window_bytes=window)
        pair = Pair(8, path(), path(drop=drop), data=3 * window, far_config=far)
        pair.far.connection.receive_window.window_bytes = 0
        pair.near.offer()
        pair.run(lambda: pair.near.connection.stats().data_sent_bytes >= window)
        pair.run(lambda: pair.near.connection.stats().bytes_in_flight == 0)
        assert pair.near.connection.stats().is_data_blocked
        pair.far.connection.receive_window.window_bytes = 4 * window
        drop.is_on = True
        pair.far.connection.acks.request_ack(pair.now_ns)
        pair.run_until_acked(20 * SECOND)
        assert drop.left == 0

    def test_messages_wait_while_the_application_takes_none(self) -> None:
        pair = Pair(9, path())
        for _ in range(30):
            pair.near.connection.send_message(bytes(100_000))
        receiver = pair.far.connection
        receiver.poll_message = lambda _now_ns: None  # type: ignore[assignment, method-assign]
        pair.run_for(5 * SECOND)
        assert not pair.near.connection.is_fully_acked
        assert pair.near.connection.stats().message_sent_bytes <= 1 << 20
        del receiver.poll_message
        pair.run_until_acked()
        assert pair.far.messages == [bytes(100_000)] * 30

    def test_a_sender_stays_within_the_advertised_window(self) -> None:
        hole = DropOffset(1000, times=6)
        far = Config(receive_window_bytes=1 << 17)
        pair = Pair(10, path(drop=hole, rate_bps=100e6), data=1_000_000, far_config=far)
        pair.near.offer()

        def is_fully_acked() -> bool:
            near, far = pair.near.connection.stats(), pair.far.connection.stats()
            assert near.data_sent_bytes <= near.data_send_limit <= far.data_receive_limit
            return pair.is_fully_acked

        pair.run(is_fully_acked)
        pair.check_data()
        assert hole.dropped == 6


class LostUpdates:
    """Drops the next acknowledgements once it is on."""

    def __init__(self, count: int) -> None:
        self.left, self.is_on = count, False

    def __call__(self, datagram: bytes) -> bool:
        if self.is_on and self.left and packet_type(datagram) == PacketType.ACK:
            self.left -= 1
            return True
        return False


class TestIdleness:
    def test_keep_alives_maintain_an_idle_connection(self) -> None:
        pair = Pair(11, path(), near_config=Config(idle_timeout_ns=10 * SECOND))
        pair.run_for(120 * SECOND)
        assert pair.are_open
        assert pair.near.sent_datagrams + pair.far.sent_datagrams < 200

    @pytest.mark.parametrize("silent", ["near", "far"])
    def test_silence_ends_a_connection_at_the_idle_timeout(self, silent: str) -> None:
        idle = Config(idle_timeout_ns=10 * SECOND)
        dark_from = SECOND + 5 * SECOND

        def is_dark(now_ns: int) -> bool:
            return now_ns >= dark_from

        forward = path(blackout=is_dark) if silent == "near" else path()
        backward = path(blackout=is_dark) if silent == "far" else path()
        pair = Pair(12, forward, backward, data=1000, near_config=idle, far_config=idle)
        pair.near.offer()
        listening = pair.far if silent == "near" else pair.near
        pair.run(lambda: listening.connection.state is ConnectionState.CLOSED)
        assert 6 * SECOND <= pair.now_ns - dark_from <= 10 * SECOND + ONE_WAY_NS  # a keep-alive arrived shortly before
        assert "was silent for" in listening.connection.close_reason

    def test_a_dead_peer_is_not_flooded(self) -> None:
        pair = Pair(13, path(), path(blackout=lambda now_ns: now_ns > 2 * SECOND), data=10_000_000)
        pair.near.offer()
        pair.run_for(3 * SECOND)
        before = pair.near.sent_bytes
        pair.run(lambda: pair.near.connection.state is ConnectionState.CLOSED)
        assert pair.near.sent_bytes - before < 1_000_000


class TestClosing:
    def close(self, pair: Pair) -> None:
        pair.near.connection.close(5, "no room")

    @pytest.mark.parametrize("active", [False, True])
    @pytest.mark.parametrize("losses", [0, 1, 4])
    def test_a_lost_close_is_repeated_for_a_peer_that_continues(self, losses: int, active: bool) -> None:
        drop = Nth(PacketType.CLOSE, *range(losses))
        pair = Pair(14, path(drop=drop), back_data=2_000_000 if active else 0)
        pair.far.offer()
        pair.run_for(100 * MS)
        self.close(pair)
        pair.run(lambda: pair.far.connection.state is ConnectionState.CLOSED, 25 * SECOND)
        assert (pair.far.connection.close_code, pair.far.connection.close_reason) == (5, "no room")
        if active:
            assert pair.now_ns < 6 * SECOND

    def test_both_sides_may_close_at_once(self) -> None:
        pair = Pair(15, path())
        pair.run_for(100 * MS)
        for end, _ in pair.ends:
            end.connection.close(0, "")
        pair.run_for(SECOND)
        assert [end.connection.state for end, _ in pair.ends] == [ConnectionState.CLOSED] * 2


class TestFinish:
    """The last packet of the handshake, which the server must have before it can open any other."""

    FINISH = wire.PREFIX.pack(0x06, 0, FAR_ID) + bytes(1100)

    def test_is_repeated_until_the_server_has_answered(self) -> None:
        pair = Pair(16, path(drop=lambda _datagram: pair.now_ns < 3 * SECOND), data=100_000, finish=self.FINISH)
        finishes = counted(pair, 0x06, by_near=True)
        pair.near.offer()
        pair.run_until_acked()
        assert len(finishes) >= 3
        assert set(finishes) == {self.FINISH}
        repeated = len(finishes)
        pair.near.hazards.blackout = lambda _now_ns: True
        pair.near.connection.send_message(b"lost")
        pair.run_for(5 * SECOND)
        assert len(finishes) == repeated

    def test_precedes_every_other_packet(self) -> None:
        seen: list[int] = []
        pair = Pair(17, path(drop=lambda datagram: seen.append(datagram[0]) or False), data=10_000, finish=self.FINISH)
        pair.near.offer_all([b"hello"])
        pair.run_until_acked()
        assert seen[0] == 0x06
        assert seen.count(0x06) == 1


def counted(pair: Pair, kind: int, by_near: bool = False) -> list[bytes]:
    """Record the datagrams of one type that `far` sends from now on, or `near`."""
    found: list[bytes] = []
    end = pair.near if by_near else pair.far
    before: Callable[[bytes], bool] = end.hazards.drop

    def look(datagram: bytes) -> bool:
        if packet_type(datagram) == kind:
            found.append(datagram)
        return before(datagram)

    end.hazards.drop = look
    return found
