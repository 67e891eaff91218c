"""What is sent and in which order, and the effect of acknowledgements, timeouts and changes of path."""

from dataclasses import dataclass, field

import pytest

from toolkit.errors import ProtocolError, TransferError
from toolkit.rudp import wire
from toolkit.rudp.batch import Transmit
from toolkit.rudp.config import Config
from toolkit.rudp.congestion.base import AckSample, LossSample
from toolkit.rudp.ecn import NOT_ECT
from toolkit.rudp.flow_control import INITIAL_DATA_WINDOW_BYTES
from toolkit.rudp.loss_recovery import PROBES_PER_TIMEOUT
from toolkit.rudp.loss_thresholds import PACKET_THRESHOLD
from toolkit.rudp.path import PathState
from toolkit.rudp.protection import Unprotected
from toolkit.rudp.sender import MAX_ACK_EVERY_BYTES, Sender
from toolkit.rudp.streams import DataSource

MS = 1_000_000
PEER = 0xBEEF
DATAGRAM = 1200
PAYLOAD = DATAGRAM - wire.HEADER_BYTES
FAR_WINDOW = 1 << 40
DATA, MESSAGE, PING, PROBE = (
    wire.PacketType.DATA,
    wire.PacketType.MESSAGE,
    wire.PacketType.PING,
    wire.PacketType.PROBE,
)


@dataclass
class FakeController:
    """A window and a rate that the test sets, and a record of what was reported."""

    name: str = "fake"
    congestion_window_bytes: int = 1 << 30
    pacing_rate_bps: float = 1e13
    acks_per_rtt: int = 4
    acks: list[AckSample] = field(default_factory=list)
    losses: list[LossSample] = field(default_factory=list)
    spurious: list[int] = field(default_factory=list)

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        pass

    def on_ack(self, sample: AckSample) -> None:
        self.acks.append(sample)

    def on_loss(self, sample: LossSample) -> None:
        self.losses.append(sample)

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        del now_ns
        self.spurious.append(lost_sent_time_ns)

    def on_datagram_size(self, datagram_bytes: int) -> None:
        pass

    def snapshot(self) -> dict[str, float | str]:
        return {}


class Zeros:
    def read_into(self, offset: int, buffer: memoryview) -> None:
        del offset
        buffer[:] = bytes(len(buffer))


class Bench:
    """A sender of base-sized datagrams, its controller, and the packets that it has sent, by number.

    It probes the path MTU if `max_datagram_bytes` is larger than the base size.
    """

    def __init__(
        self,
        data_bytes: int = 0,
        window: int = FAR_WINDOW,
        source: DataSource | None = None,
        max_datagram_bytes: int = DATAGRAM,
        rate_bps: float | None = None,
    ) -> None:
        self.controller = FakeController()
        path = PathState(Config(rate_bps=rate_bps), max_datagram_bytes)
        path.controller = self.controller
        self.sender = Sender(path, source or Zeros(), PEER, Unprotected())
        self.recovery = self.sender.recovery
        self.data = self.sender.streams.data
        self.data.limit = window
        self.data.end = data_bytes
        self.packets: dict[int, tuple[int, int, int]] = {}  # number: type, offset, flags

    def change_path(self, congestion_window_bytes: int = 1 << 30) -> None:
        """Go on over another path, with a new controller."""
        self.controller = FakeController(congestion_window_bytes=congestion_window_bytes)
        path = self.recovery.path.successor(None)
        path.controller = self.controller
        self.recovery.change_path(path)

    def send(self, now_ns: int) -> list[int]:
        """Send everything that may be sent now; return the packet numbers."""
        numbers = []
        while (transmit := self.sender.poll_transmit(now_ns)) is not None:
            numbers += self.take(transmit)
        return numbers

    def take(self, transmit: Transmit) -> list[int]:
        numbers = []
        for i in range(0, len(transmit.data), transmit.segment_bytes):
            datagram = transmit.data[i : i + transmit.segment_bytes]
            kind, flags, connection_id, number = wire.COMMON.unpack_untrusted(datagram)
            assert connection_id == PEER
            offset = wire.DATA.unpack_untrusted(datagram)[4] if kind in (DATA, MESSAGE) else -1
            assert number not in self.packets
            self.packets[number] = (kind, offset, flags)
            numbers.append(number)
        return numbers

    def kinds(self, numbers: list[int]) -> list[int]:
        return [self.packets[n][0] for n in numbers]

    def ack(
        self, now_ns: int, *numbers: int, delay_us: int = 0, data_window: int = FAR_WINDOW, waited_ns: int = 0
    ) -> None:
        ranges: list[tuple[int, int]] = []
        for n in sorted(numbers, reverse=True):
            if ranges and ranges[-1][0] == n + 1:
                ranges[-1] = (n, ranges[-1][1])
            else:
                ranges.append((n, n + 1))
        ack = wire.AckPacket(ranges, delay_us, data_window, 1 << 20, 0, 0, 0)
        self.recovery.on_ack_untrusted(ack, now_ns, waited_ns)


def warmed(
    data_bytes: int = 0,
    rtt_ns: int = 40 * MS,
    source: DataSource | None = None,
    max_datagram_bytes: int = DATAGRAM,
) -> Bench:
    """A bench whose RTT is known and which has nothing in flight."""
    bench = Bench(source=source, max_datagram_bytes=max_datagram_bytes)
    bench.sender.request_ping()
    bench.ack(rtt_ns, *bench.send(0))
    bench.data.end = data_bytes
    return bench


class TestOrder:
    def test_messages_are_sent_before_lost_data_and_lost_data_before_new_data(self) -> None:
        bench = warmed(20 * PAYLOAD)
        first = [n for n in bench.send(100 * MS) if bench.packets[n][0] == DATA]
        bench.sender.queue_message(b"m" * 2000)
        bench.data.end += 3 * PAYLOAD
        bench.ack(140 * MS, *first[5:])
        sent = bench.send(140 * MS) + bench.send(141 * MS)
        numbers = [n for n in sent if bench.packets[n][0] in (DATA, MESSAGE)]
        assert bench.kinds(numbers) == [MESSAGE] * 2 + [DATA] * 8
        assert [bench.packets[n][1] // PAYLOAD for n in numbers[2:]] == [0, 1, 2, 3, 4, 20, 21, 22]

    def test_sends_nothing_if_there_is_nothing_to_send(self) -> None:
        bench = warmed()
        assert bench.send(100 * MS) == []

    def test_the_last_packet_requests_an_immediate_acknowledgement(self) -> None:
        bench = warmed(3 * PAYLOAD)
        flags = [bench.packets[n][2] for n in bench.send(100 * MS) if bench.packets[n][0] == DATA]
        assert flags == [0, 0, wire.Flags.ACK_NOW]


class Shrunk(Zeros):
    """A file that becomes shorter while it is sent."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > 20 * PAYLOAD:
            raise TransferError("the file has shrunk")
        super().read_into(offset, buffer)


class TestSourceThatFails:
    def test_is_reported_once_and_messages_are_still_sent(self) -> None:
        bench = warmed(40 * PAYLOAD, source=Shrunk())
        bench.controller.congestion_window_bytes = 10 * DATAGRAM
        numbers = bench.send(100 * MS)
        bench.ack(140 * MS, *numbers)
        bench.controller.congestion_window_bytes = 1 << 30
        with pytest.raises(TransferError, match="shrunk"):
            bench.send(140 * MS)
        bench.sender.queue_message(b"why")
        numbers = bench.send(150 * MS)
        assert MESSAGE in bench.kinds(numbers)
        assert DATA not in bench.kinds(numbers)
        timeout_ns = bench.sender.poll_timeout()
        assert timeout_ns is not None
        bench.recovery.on_timeout(timeout_ns)
        assert DATA not in bench.kinds(bench.send(timeout_ns))
        assert not bench.sender.streams.is_fully_acked
        bench.ack(timeout_ns + 40 * MS, *bench.packets)
        assert bench.sender.streams.is_fully_acked


class TestLimits:
    def test_the_congestion_window_limits_messages_and_data(self) -> None:
        bench = warmed(100 * PAYLOAD)
        bench.controller.congestion_window_bytes = 5 * DATAGRAM
        bench.sender.queue_message(bytes(2 * PAYLOAD))
        bench.send(100 * MS)
        bench.send(101 * MS)
        assert 4 * DATAGRAM < bench.recovery.bytes_in_flight <= 5 * DATAGRAM + 100

    @pytest.mark.parametrize(
        ("rtt_ns", "data_bytes", "rate_bps", "at_once"),
        [
            (4 * MS, 1 << 16, None, True),
            (5 * MS, 1 << 16, None, False),
            (MS, (1 << 16) + 1, None, False),
            (MS, 1 << 16, 1e9, False),
        ],
    )
    def test_little_data_to_a_host_nearby_leaves_at_once(
        self, rtt_ns: int, data_bytes: int, rate_bps: float | None, at_once: bool
    ) -> None:
        bench = Bench(rate_bps=rate_bps)
        bench.controller.congestion_window_bytes = 10 * DATAGRAM
        bench.controller.pacing_rate_bps = 50e6
        bench.recovery.on_handshake_rtt(rtt_ns, 0)
        bench.data.end = data_bytes
        numbers = bench.send(0)
        in_flight = bench.recovery.bytes_in_flight
        assert in_flight > data_bytes if at_once else in_flight <= 10 * DATAGRAM
        bench.ack(2 * MS, *numbers)
        bench.send(3 * MS)
        assert bench.recovery.bytes_in_flight <= 10 * DATAGRAM

    def test_a_side_without_data_keeps_to_its_window_and_its_rate(self) -> None:
        bench = Bench()
        bench.controller.congestion_window_bytes = 10 * DATAGRAM
        bench.controller.pacing_rate_bps = 50e6
        bench.recovery.on_handshake_rtt(MS, 0)
        for _ in range(60):
            bench.sender.queue_message(bytes(PAYLOAD))
        bench.send(0)
        assert bench.recovery.bytes_in_flight < 10 * DATAGRAM

    def test_an_idle_sender_is_not_late_after_what_left_at_once(self) -> None:
        bench = Bench()
        bench.controller.congestion_window_bytes = 10 * DATAGRAM
        bench.controller.pacing_rate_bps = 50e6
        bench.recovery.on_handshake_rtt(MS, 0)
        bench.sender.queue_message(b"first")
        bench.send(0)
        bench.data.end = 20_000
        bench.ack(2 * MS, *bench.send(0))
        bench.data.end += 20_000
        bench.send(5000 * MS)
        assert not bench.recovery.delivery.on_send(5000 * MS, DATAGRAM, DATAGRAM).is_late

    def test_messages_that_were_lost_end_the_larger_window(self) -> None:
        bench = Bench(1 << 16)
        bench.controller.congestion_window_bytes = 10 * DATAGRAM
        bench.recovery.on_handshake_rtt(MS, 0)
        bench.sender.queue_message(b"first")
        bench.send(0)
        bench.sender.streams.messages.lost.add(0, 1)
        bench.data.end += 1000
        assert bench.sender.poll_transmit(MS) is None

    def test_little_data_that_was_lost_does_not_leave_at_once_again(self) -> None:
        bench = Bench()
        bench.controller.congestion_window_bytes = 10 * DATAGRAM
        bench.recovery.on_handshake_rtt(MS, 0)
        bench.data.end = 1 << 16
        numbers = bench.send(0)
        bench.ack(2 * MS, numbers[-1])
        assert bench.sender.streams.data.lost
        bench.send(3 * MS)
        assert bench.recovery.bytes_in_flight <= 10 * DATAGRAM

    @pytest.mark.parametrize(
        ("super_packet_bytes", "round_bytes", "packets"),
        [(65_507, 1, [44]), (65_507, 131_014, [44, 44]), (30_000, 65_536, [20, 20]), (65_507, 524_056, 8 * [44])],
    )
    def test_a_round_is_as_many_whole_super_packets_as_the_driver_allows(
        self, super_packet_bytes: int, round_bytes: int, packets: list[int]
    ) -> None:
        bench = Bench(1 << 20, max_datagram_bytes=1472)
        bench.recovery.path.datagram_bytes = 1472
        bench.sender.max_super_packet_bytes, bench.sender.max_round_bytes = super_packet_bytes, round_bytes
        transmit = bench.sender.poll_transmit(100 * MS)
        while transmit is not None and transmit.data[0] != DATA:  # what goes before the data
            transmit = bench.sender.poll_transmit(100 * MS)
        assert transmit is not None
        assert [len(piece) // 1472 for piece in transmit.super_packets(super_packet_bytes)] == packets

    def test_a_round_is_one_packet_where_batches_are_not_allowed(self) -> None:
        bench = warmed(100 * PAYLOAD)
        bench.recovery.path.batches.is_allowed = False
        transmits = iter(lambda: bench.sender.poll_transmit(100 * MS), None)
        assert {len(bench.take(transmit)) for transmit in transmits} == {1}

    def test_the_peers_receive_window_limits_data(self) -> None:
        bench = Bench(INITIAL_DATA_WINDOW_BYTES * 2, window=INITIAL_DATA_WINDOW_BYTES)
        numbers = bench.send(0) + bench.send(MS)
        assert max(bench.packets[n][1] for n in numbers if bench.packets[n][0] == DATA) < INITIAL_DATA_WINDOW_BYTES
        bench.ack(40 * MS, *numbers, data_window=INITIAL_DATA_WINDOW_BYTES)
        assert [n for n in bench.send(41 * MS) if bench.packets[n][0] == DATA] == []
        bench.ack(42 * MS, numbers[0], data_window=INITIAL_DATA_WINDOW_BYTES + 1)
        numbers = [n for n in bench.send(43 * MS) if bench.packets[n][0] == DATA]
        assert len(numbers) == 1

    def test_a_receive_limit_is_never_withdrawn(self) -> None:
        bench = warmed(10 * PAYLOAD)
        numbers = bench.send(100 * MS)
        bench.ack(140 * MS, numbers[0], data_window=5)
        assert bench.data.limit == FAR_WINDOW

    @pytest.mark.parametrize("kind", [DATA, MESSAGE])
    def test_the_pacer_spreads_data_and_messages(self, kind: int) -> None:
        bench = warmed(200 * PAYLOAD if kind == DATA else 0)
        if kind == MESSAGE:
            bench.sender.queue_message(bytes(200 * PAYLOAD))
        bench.controller.pacing_rate_bps = 100 * DATAGRAM * 8  # a packet every 10 ms
        now_ns = 1000 * MS
        sent = 0
        while now_ns < 2000 * MS:
            sent += bench.kinds(bench.send(now_ns)).count(kind)
            timeout_ns = bench.sender.poll_timeout()
            assert timeout_ns is not None
            assert timeout_ns > now_ns
            now_ns = timeout_ns
        assert sent == pytest.approx(100, abs=8)


class TestManyMessages:
    @pytest.mark.parametrize(("sent", "pings"), [(2, 0), (20, 1)])
    def test_change_the_frequency_of_acknowledgements_too(self, sent: int, pings: int) -> None:
        bench = warmed()
        bench.sender.queue_message(bytes(sent * PAYLOAD))
        bench.ack(240 * MS, *bench.send(200 * MS))
        bench.controller.congestion_window_bytes = 1 << 16
        bench.sender.queue_message(bytes(PAYLOAD))
        assert bench.kinds(bench.send(300 * MS)).count(PING) == pings


class TestPathMtu:
    def test_messages_that_wait_do_not_make_its_timer_expire_again_and_again(self) -> None:
        bench = warmed(max_datagram_bytes=2 * DATAGRAM)
        bench.data.offer(40 * PAYLOAD)
        now_ns = 200 * MS
        while not (mtu := bench.recovery.path.mtu).is_found:
            numbers = bench.send(now_ns)  # none of the probes arrives
            bench.ack(now_ns + 40 * MS, *(n for n in numbers if bench.packets[n][0] != PROBE))
            bench.data.offer(40 * PAYLOAD)
            now_ns += 100 * MS
        bench.ack(now_ns, *bench.send(now_ns))
        assert mtu.next_timeout_ns is not None
        now_ns = mtu.next_timeout_ns
        bench.controller.congestion_window_bytes = 0
        bench.sender.queue_message(bytes(PAYLOAD))
        assert bench.send(now_ns) == []
        timeout_ns = bench.sender.poll_timeout()
        assert timeout_ns is None or timeout_ns > now_ns


class TestLocalDrop:
    def test_sends_the_bytes_again_after_a_pause_and_is_no_loss(self) -> None:
        bench = warmed()
        before = bench.sender.recovery.bytes_in_flight
        bench.sender.streams.data.offer(3 * PAYLOAD)
        assert bench.send(200 * MS)
        in_flight = bench.sender.recovery.bytes_in_flight - before
        bench.sender.on_local_drop(1, 200 * MS)
        assert 0 <= bench.sender.recovery.bytes_in_flight - before < in_flight
        assert bench.send(200 * MS) == []
        assert bench.send(201 * MS)
        assert bench.sender.recovery.bytes_in_flight - before == in_flight
        assert bench.sender.packets_retransmitted == 0
        assert bench.controller.losses == []

    def test_what_was_sent_beside_it_was_in_flight_without_it(self) -> None:
        bench = warmed()
        bench.sender.streams.data.offer(3 * PAYLOAD)
        numbers = bench.send(200 * MS)
        bench.sender.on_local_drop(2, 200 * MS)
        in_flight = bench.sender.recovery.bytes_in_flight
        bench.ack(240 * MS, *numbers[:-2])
        assert bench.controller.acks[-1].in_flight_at_send_bytes == in_flight

    def test_the_peer_is_told_once_that_the_numbers_are_not_missing(self) -> None:
        bench = warmed()
        bench.sender.streams.data.offer(3 * PAYLOAD)
        numbers = bench.send(200 * MS)
        bench.sender.on_local_drop(1, 200 * MS)
        numbers = [*numbers[:-1], *bench.send(201 * MS)]
        bench.sender.streams.data.offer(PAYLOAD)
        numbers += (early := bench.send(300 * MS))
        assert PING not in bench.kinds(early)  # the peer could not forget the gap yet
        bench.ack(340 * MS, *numbers)
        kinds = []
        for now_ms in (400, 600):
            bench.sender.streams.data.offer(PAYLOAD)
            kinds += bench.kinds(numbers := bench.send(now_ms * MS))
            bench.ack((now_ms + 40) * MS, *numbers)
        assert kinds.count(PING) == 1


class TestAcknowledgements:
    def test_of_packets_never_sent_is_refused_and_changes_nothing(self) -> None:
        bench = warmed(10 * PAYLOAD)
        numbers = bench.send(100 * MS)
        before = bench.recovery.bytes_in_flight, bench.recovery.delivery.delivered_bytes, bench.recovery.packets_lost
        with pytest.raises(ProtocolError, match="never sent"):
            bench.ack(140 * MS, *numbers, numbers[-1] + 1, data_window=FAR_WINDOW + 5)
        assert (
            bench.recovery.bytes_in_flight,
            bench.recovery.delivery.delivered_bytes,
            bench.recovery.packets_lost,
        ) == before
        assert bench.data.limit == FAR_WINDOW

    def test_the_rtt_sample_is_that_of_the_largest_packet_without_the_peers_delay(self) -> None:
        bench = warmed(2 * PAYLOAD, rtt_ns=40 * MS)
        numbers = bench.send(100 * MS)
        bench.ack(145 * MS, *numbers, delay_us=5000)
        assert bench.controller.acks[-1].rtt_ns == 40 * MS
        assert bench.recovery.path.rtt.latest_rtt_ns == 45 * MS

    def test_waits_in_the_socket_and_the_packets_were_delivered_before(self) -> None:
        bench = warmed(2 * PAYLOAD, rtt_ns=40 * MS)
        numbers = bench.send(100 * MS)
        bench.ack(155 * MS, *numbers, waited_ns=15 * MS)
        assert bench.controller.acks[-1].rtt_ns == 40 * MS
        assert bench.recovery.path.rtt.latest_rtt_ns == 40 * MS
        assert bench.controller.acks[-1].now_ns == 155 * MS
        assert bench.controller.acks[-1].delivery_rate_bps == pytest.approx(2 * DATAGRAM * 8 / 0.04, rel=0.01)

    @pytest.mark.parametrize("waited_ms", [55, 56, 900])
    def test_cannot_have_arrived_before_what_it_acknowledges_was_sent(self, waited_ms: int) -> None:
        bench = warmed(2 * PAYLOAD, rtt_ns=40 * MS)
        numbers = bench.send(100 * MS)
        bench.ack(155 * MS, *numbers, waited_ns=waited_ms * MS)
        assert bench.recovery.path.rtt.latest_rtt_ns == 55 * MS
        assert bench.recovery.path.rtt.min_rtt_ns == 40 * MS

    def test_gives_an_rtt_sample_beside_larger_numbers_that_elicit_no_acknowledgement(self) -> None:
        """Those of acknowledgements, of which the sender keeps no record."""
        bench = warmed(2 * PAYLOAD, rtt_ns=40 * MS)
        numbers = bench.send(100 * MS)
        beyond = bench.recovery.sent.number_non_eliciting()
        bench.ack(145 * MS, *numbers, beyond, delay_us=5000)
        assert bench.controller.acks[-1].rtt_ns == 40 * MS

    def test_gives_no_rtt_sample_if_the_largest_packet_was_acknowledged_before(self) -> None:
        """RFC 9002 section 5.1."""
        bench = warmed(3 * PAYLOAD)
        numbers = bench.send(100 * MS)
        bench.ack(140 * MS, numbers[-1])
        bench.ack(190 * MS, *numbers)
        assert bench.controller.acks[-1].rtt_ns is None
        assert bench.recovery.path.rtt.latest_rtt_ns == 40 * MS

    def test_gives_no_rtt_sample_if_the_delay_is_unknown(self) -> None:
        """The second of several ACK packets of one acknowledgement; the first was lost."""
        bench = warmed(3 * PAYLOAD)
        numbers = bench.send(100 * MS)
        bench.ack(190 * MS, *numbers, delay_us=wire.UNKNOWN_DELAY_US)
        assert bench.controller.acks[-1].rtt_ns is None
        assert bench.controller.acks[-1].newly_acked_bytes > 3 * PAYLOAD
        assert bench.recovery.path.rtt.latest_rtt_ns == 40 * MS

    def test_the_controller_gets_complete_samples(self) -> None:
        bench = warmed(10 * PAYLOAD)
        numbers = [n for n in bench.send(100 * MS) if bench.packets[n][0] == DATA]
        in_flight = bench.recovery.bytes_in_flight
        bench.ack(140 * MS, *numbers[6:])
        sample = bench.controller.acks[-1]
        assert sample.newly_acked_bytes == 4 * DATAGRAM
        assert sample.newly_lost_bytes == 6 * DATAGRAM
        assert sample.prior_in_flight_bytes == in_flight
        assert sample.bytes_in_flight == in_flight - 10 * DATAGRAM == bench.recovery.bytes_in_flight
        assert sample.largest_acked_sent_time_ns == 100 * MS
        assert bench.controller.losses[-1].lost_bytes == 6 * DATAGRAM
        assert bench.controller.losses[-1].newest_lost_sent_time_ns == 100 * MS


def flights(bench: Bench, count: int, first_ns: int, step_ns: int) -> list[int]:
    """Send one DATA packet every `step_ns`, beginning at `first_ns`."""
    numbers = []
    for i in range(count):
        start = bench.data.end
        bench.data.end += PAYLOAD
        numbers += [n for n in bench.send(first_ns + i * step_ns) if bench.packets[n][:2] == (DATA, start)]
    assert len(numbers) == count
    return numbers


class TestSpuriousLoss:
    def test_raises_the_threshold_and_is_reported_once_all_lost_packets_have_arrived(self) -> None:
        bench = warmed()
        numbers = flights(bench, 10, 100 * MS, MS)
        bench.ack(145 * MS, *numbers[6:])
        assert bench.recovery.packets_lost == 6
        bench.ack(146 * MS, *numbers[2:6])
        assert bench.controller.spurious == []
        bench.ack(147 * MS, *numbers[:2])
        assert bench.controller.spurious == [105 * MS]
        assert bench.recovery.packets_spuriously_lost == 6
        assert bench.recovery.path.loss.packet_threshold > PACKET_THRESHOLD

    def test_packets_of_an_older_loss_do_not_disprove_a_newer_one(self) -> None:
        bench = warmed()
        old = flights(bench, 5, 100 * MS, MS)
        newer = flights(bench, 8, 110 * MS, MS)
        bench.ack(150 * MS, old[4], newer[0])
        assert bench.recovery.packets_lost > 0
        lost_before = bench.recovery.packets_lost
        bench.ack(170 * MS, newer[7])
        assert bench.recovery.packets_lost > lost_before
        bench.ack(171 * MS, *old)
        assert bench.controller.spurious == []

    def test_is_reported_once_for_each_loss(self) -> None:
        bench = warmed()
        first = flights(bench, 6, 100 * MS, MS)
        bench.ack(145 * MS, first[5])
        second = flights(bench, 10, 150 * MS, MS)
        bench.ack(195 * MS, second[9])
        lost = [n for n in second[:9] if n not in (second[7], second[8])]
        bench.ack(196 * MS, *lost, second[7], second[8])
        reports = len(bench.controller.spurious)
        bench.ack(197 * MS, *first)
        assert len(bench.controller.spurious) == reports <= 1


class TestPersistentCongestion:
    """RFC 9002 section 7.6: losses over a long time with nothing acknowledged in between."""

    def test_losses_over_a_long_time_are_persistent(self) -> None:
        bench = warmed()
        numbers = flights(bench, 40, 100 * MS, 20 * MS)
        bench.ack(1000 * MS, numbers[-1])
        assert bench.controller.losses[-1].is_persistent

    def test_losses_over_a_short_time_are_not(self) -> None:
        bench = warmed()
        numbers = flights(bench, 40, 100 * MS, MS)
        bench.ack(180 * MS, numbers[-1])
        assert bench.recovery.packets_lost > 30
        assert not bench.controller.losses[-1].is_persistent

    def test_losses_with_acknowledged_packets_in_between_are_not(self) -> None:
        """The acknowledgements were lost for a while, not the packets."""
        bench = warmed()
        numbers = flights(bench, 40, 100 * MS, 20 * MS)
        bench.ack(1000 * MS, *[n for i, n in enumerate(numbers) if i % 5])
        assert bench.recovery.packets_lost >= 7
        assert not bench.controller.losses[-1].is_persistent

    def test_lost_probes_of_the_path_mtu_do_not_count(self) -> None:
        """RFC 8899 section 3: they are no sign of congestion."""
        bench = warmed(40 * PAYLOAD, max_datagram_bytes=1400)
        bench.controller.congestion_window_bytes = 0
        assert bench.kinds(bench.send(100 * MS)) == [PROBE]
        bench.controller.congestion_window_bytes = 1 << 30
        bench.data.end = 0
        numbers = flights(bench, 30, 900 * MS, MS)
        bench.ack(1000 * MS, *numbers[5:])
        assert bench.controller.losses[-1].lost_bytes == 5 * DATAGRAM
        assert not bench.controller.losses[-1].is_persistent


class TestMtuProbes:
    @pytest.mark.parametrize(("data_bytes", "is_sent"), [(0, False), ((1 << 15) - 1, False), (1 << 15, True)])
    def test_are_for_data_that_they_are_worth(self, data_bytes: int, is_sent: bool) -> None:
        bench = warmed(data_bytes, max_datagram_bytes=1400)
        assert (PROBE in bench.kinds(bench.send(100 * MS))) == is_sent

    def test_a_side_without_data_begins_after_a_while(self) -> None:
        bench = warmed(max_datagram_bytes=1400)
        kinds = []
        for number in range(20):
            bench.sender.request_ping()
            kinds += bench.kinds(bench.send((100 + number) * MS))
        assert kinds.count(PROBE) == 1
        assert kinds.index(PROBE) >= 10

    def test_messages_go_first(self) -> None:
        bench = warmed(1 << 15, max_datagram_bytes=1400)
        bench.sender.queue_message(b"m")
        assert bench.kinds(bench.send(100 * MS))[:2] == [MESSAGE, PROBE]


class TestTimeouts:
    def test_no_timer_runs_with_nothing_in_flight(self) -> None:
        assert warmed().sender.poll_timeout() is None

    def test_a_probe_timeout_retransmits_the_oldest_bytes_and_declares_nothing_lost(self) -> None:
        bench = warmed()
        numbers = flights(bench, 4, 100 * MS, MS)
        timeout_ns = bench.sender.poll_timeout()
        assert timeout_ns == 103 * MS + bench.recovery.path.loss.pto_ns
        bench.recovery.on_timeout(timeout_ns - 1)
        assert bench.send(timeout_ns - 1) == []
        bench.recovery.on_timeout(timeout_ns)
        probes = bench.send(timeout_ns)
        assert len(probes) == PROBES_PER_TIMEOUT
        assert {bench.packets[n][1] for n in probes} == {bench.packets[numbers[0]][1]}
        assert all(bench.packets[n][2] == wire.Flags.ACK_NOW for n in probes)
        assert bench.recovery.packets_lost == 0
        assert bench.recovery.path.loss.pto_count == 1

    def test_an_acknowledgement_ends_the_back_off_and_pending_probes(self) -> None:
        bench = warmed()
        numbers = flights(bench, 4, 100 * MS, MS)
        timeout_ns = bench.sender.poll_timeout()
        assert timeout_ns is not None
        bench.recovery.on_timeout(timeout_ns)
        bench.ack(timeout_ns + 1, *numbers)
        assert bench.recovery.path.loss.pto_count == 0
        assert bench.send(timeout_ns + 2) == []

    def test_probes_may_exceed_the_congestion_window(self) -> None:
        bench = warmed()
        flights(bench, 4, 100 * MS, MS)
        bench.controller.congestion_window_bytes = 0
        timeout_ns = bench.sender.poll_timeout()
        assert timeout_ns is not None
        bench.recovery.on_timeout(timeout_ns)
        assert len(bench.send(timeout_ns)) == PROBES_PER_TIMEOUT

    def test_packets_are_declared_lost_by_time(self) -> None:
        bench = warmed()
        numbers = flights(bench, 2, 100 * MS, 30 * MS)
        bench.ack(131 * MS, numbers[1])
        assert bench.recovery.packets_lost == 0
        timeout_ns = bench.sender.poll_timeout()
        assert timeout_ns is not None
        assert timeout_ns == 100 * MS + bench.recovery.path.loss.loss_delay_ns
        bench.recovery.on_timeout(timeout_ns)
        assert bench.recovery.packets_lost == 1

    def test_packets_do_not_get_older_while_their_acknowledgement_waits_in_the_socket(self) -> None:
        bench = warmed()
        numbers = flights(bench, 2, 100 * MS, 30 * MS)
        bench.ack(171 * MS, numbers[1], waited_ns=40 * MS)
        assert bench.recovery.packets_lost == 0
        assert bench.sender.poll_timeout() == 100 * MS + bench.recovery.path.loss.loss_delay_ns

    def test_a_sender_blocked_by_the_peers_window_probes(self) -> None:
        bench = Bench(INITIAL_DATA_WINDOW_BYTES * 2, window=INITIAL_DATA_WINDOW_BYTES)
        numbers = bench.send(0)
        bench.ack(40 * MS, *numbers, data_window=INITIAL_DATA_WINDOW_BYTES)
        numbers = bench.send(41 * MS)
        if numbers:  # what was left to send has arrived too
            bench.ack(80 * MS, *numbers, data_window=INITIAL_DATA_WINDOW_BYTES)
        assert bench.recovery.bytes_in_flight == 0
        timeout_ns = bench.sender.poll_timeout()
        assert timeout_ns is not None
        bench.recovery.on_timeout(timeout_ns)
        assert set(bench.kinds(bench.send(timeout_ns))) == {PING}


class TestNewPath:
    """RFC 9000 section 9.4: packets sent over the old path say nothing about the new one."""

    def moved(self) -> tuple[Bench, list[int], list[int]]:
        """A bench that has just moved, the packets that were in flight (some of them lost before, one a probe of the
        path MTU), and the PING that it sends first over the new path."""
        bench = warmed(40 * PAYLOAD, max_datagram_bytes=1400)
        old = bench.send(100 * MS)
        assert PROBE in bench.kinds(old)
        bench.ack(140 * MS, *old[10:20])
        assert bench.recovery.packets_lost > 0
        bench.change_path(congestion_window_bytes=0)
        bench.sender.request_ping()
        ping, probe = bench.send(200 * MS)
        assert bench.kinds([ping, probe]) == [PING, PROBE]
        return bench, old, [ping]

    def test_packets_of_the_old_path_give_no_sample_and_no_loss(self) -> None:
        bench, old, new = self.moved()
        bench.ack(210 * MS, *old[5:])
        assert bench.controller.acks == []
        assert not bench.recovery.path.rtt.has_sample
        bench.ack(260 * MS, *old, *new)
        assert [sample.newly_acked_bytes for sample in bench.controller.acks] == [wire.PING.size]
        assert bench.recovery.path.rtt.smoothed_rtt_ns == 60 * MS
        assert bench.recovery.path.mtu.datagram_bytes == DATAGRAM
        assert bench.recovery.bytes_in_flight == 1400
        assert (bench.controller.losses, bench.controller.spurious) == ([], [])

    def test_what_was_in_flight_is_retransmitted_at_once(self) -> None:
        bench, old, new = self.moved()
        bench.controller.congestion_window_bytes = 1 << 30
        again = bench.send(201 * MS)
        arrived = {bench.packets[n][1] for n in old[10:20]}
        assert {bench.packets[n][1] for n in again if bench.packets[n][0] == DATA} == {
            offset for offset in range(0, 40 * PAYLOAD, PAYLOAD) if offset not in arrived
        }
        bench.ack(260 * MS, *new, *again)
        assert bench.sender.streams.is_fully_acked

    def test_the_peers_ecn_counts_continue(self) -> None:
        bench = warmed(40 * PAYLOAD)
        numbers = bench.send(100 * MS)

        def ack(now_ns: int, first: int, end: int, ect: int, ce: int) -> None:
            bench.recovery.on_ack_untrusted(wire.AckPacket([(first, end)], 0, FAR_WINDOW, 1 << 20, ect, ce, 0), now_ns)

        ack(140 * MS, numbers[0], numbers[-1] + 1, 31, 10)
        assert bench.controller.acks[-1].ecn_ce_count == 10
        bench.change_path()
        bench.data.end += 20 * PAYLOAD
        numbers = bench.send(200 * MS)
        ack(240 * MS, numbers[0], numbers[-1] + 1, 31, 10)
        assert bench.controller.acks[-1].ecn_ce_count == 0
        assert bench.recovery.path.ecn.codepoint == NOT_ECT  # none of twenty marks has arrived


class TestAckFrequency:
    def wanted(self, window: int) -> int:
        bench = warmed(1000 * PAYLOAD)
        bench.controller.congestion_window_bytes = window
        bench.sender.request_ping()
        transmit = bench.sender.poll_transmit(100 * MS)
        assert transmit is not None
        *_, ack_every_bytes, _ = wire.PING.unpack_untrusted(transmit.data)
        return ack_every_bytes

    def test_four_acknowledgements_per_window(self) -> None:
        assert self.wanted(400_000) == 100_000

    def test_at_least_every_megabyte_and_at_most_every_second_packet(self) -> None:
        assert self.wanted(1 << 30) == MAX_ACK_EVERY_BYTES
        assert self.wanted(2 * DATAGRAM) == 2 * DATAGRAM

    def test_four_acknowledgements_per_receive_window_if_that_is_smaller(self) -> None:
        bench = warmed(1 << 30)
        bench.data.limit = 1 << 18
        bench.sender.request_ping()
        transmit = bench.sender.poll_transmit(100 * MS)
        assert transmit is not None
        *_, ack_every_bytes, _ = wire.PING.unpack_untrusted(transmit.data)
        assert ack_every_bytes == 1 << 16

    def test_a_blocked_sender_requests_an_immediate_acknowledgement_only_if_none_is_coming(self) -> None:
        def last_flags(window: int) -> int:
            bench = warmed(1 << 30)
            bench.data.limit = window
            numbers = bench.send(100 * MS)
            assert bench.data.is_blocked
            return bench.packets[[n for n in numbers if bench.packets[n][0] == DATA][-1]][2]

        assert last_flags(window=2 * PAYLOAD) == wire.Flags.ACK_NOW
        assert last_flags(window=400 * PAYLOAD) == 0

    def test_a_ping_after_losses_tells_the_peer_which_ranges_to_drop(self) -> None:
        bench = warmed(10 * PAYLOAD)
        numbers = [n for n in bench.send(100 * MS) if bench.packets[n][0] == DATA]
        bench.ack(140 * MS, *numbers[4:])
        again = bench.send(300 * MS)
        assert PING in bench.kinds(again)
