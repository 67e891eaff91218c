"""Send side: which packets go out next.

The order is: probes of a timeout, messages, a probe of the path MTU, PING, lost data, new data. Messages are few and
small, and everything waits for them, but PING only in a short session: many messages alone have to change the frequency
of acknowledgements too. Data is limited by the congestion window, the pacer and the peer's data window.
`loss_recovery.py` takes over once packets are sent.

Read: RFC 9002 sections 6.2.4 (probes) and 7.7 (pacing), draft-ietf-quic-ack-frequency (frequency of acknowledgements).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.rudp import wire
from toolkit.rudp.ack_tracker import AckTracker
from toolkit.rudp.batch import MAX_SUPER_PACKET_BYTES, PacketBuffer, Transmit, segments_per_send
from toolkit.rudp.ecn import NOT_ECT
from toolkit.rudp.flow_control import ReceiveWindow
from toolkit.rudp.loss_recovery import LossRecovery
from toolkit.rudp.observer import LossObserver
from toolkit.rudp.path import PathState
from toolkit.rudp.pmtud import BASE_DATAGRAM_BYTES
from toolkit.rudp.protection import PacketProtection
from toolkit.rudp.rtt import MAX_ACK_DELAY_NS
from toolkit.rudp.stats import ConnectionStats
from toolkit.rudp.streams import DataSource, SendStream, SendStreams, segment_offsets

MAX_ROUND_BYTES: Final = 8 * MAX_SUPER_PACKET_BYTES
"""Maximum sent by one `poll_transmit`, unless the driver lowers it, so that the driver returns to receiving."""
MAX_ACK_EVERY_BYTES: Final = 1 << 20
MIN_ACK_DELAY_NS: Final = 1_000_000
_SMALL_DATA_BYTES: Final = 1 << 16
_NEARBY_WINDOW_BYTES: Final = _SMALL_DATA_BYTES + (1 << 13)
"""To a host nearby, so little data may all be in flight, with its headers and the messages before it, and what is there
first leaves at once: the queues on the way hold more, and round trips that double ten datagrams would take most of its
time. More data would overshoot from there."""
_WORTH_A_PROBE_BYTES: Final = 1 << 15
"""So much unsent data makes a search for a larger datagram worth its packets."""
_MANY_PACKETS: Final = 16
"""A side that has sent so many is no longer in a short session."""


class Sender:
    """Call `poll_transmit` until None. Times are in ns, sizes in bytes of datagrams.

    streams:               what is to be sent
    recovery:              what was sent, and the path in use
    packets_retransmitted: packets that carried retransmitted bytes

    The driver may lower `max_super_packet_bytes`, what it sends in one call of the system, and `max_round_bytes`, what
    one `poll_transmit` returns: whole super-packets, at least one.
    """

    def __init__(
        self,
        path: PathState,
        source: DataSource,
        peer_connection_id: int,
        protection: PacketProtection,
        skip_seed: int | None = None,
        observer: LossObserver | None = None,
    ) -> None:
        """`protection` seals the packets; `skip_seed` is that of `SentPackets`."""
        self.max_super_packet_bytes = MAX_SUPER_PACKET_BYTES
        self.max_round_bytes = MAX_ROUND_BYTES
        self.streams = SendStreams()
        self.recovery = LossRecovery(path, self.streams, protection.stream_overhead_bytes, skip_seed, observer)
        self.packets_retransmitted = 0
        self._source = source
        self._peer_connection_id = peer_connection_id
        self._protection = protection
        self._buffer = PacketBuffer(MAX_ROUND_BYTES, protection)
        self._next_send_time_ns: int | None = None
        self._ack_every_bytes = 0  # as last requested by a PING
        self._ping_time_ns = 0
        self._packets_lost_at_ping = 0
        self._oldest_gap_end = 0  # in the packet numbers, after a local drop; 0 if the peer repeats no range for one
        self._is_ping_requested = False
        self._has_new_message = False  # queued since the last `poll_new_message`

    def queue_message(self, message: bytes) -> None:
        """Queue one message."""
        self.streams.messages.end = self.streams.message_buffer.append(message)
        self._has_new_message = True

    def request_ping(self) -> None:
        """Send a packet that the peer must acknowledge, whether or not there is anything else to send."""
        self._is_ping_requested = True

    def update_keys(self) -> bool:
        """Update the keys if it is time, which needs an acknowledgement of what was sent with the current ones.

        Returns whether they may seal more packets.
        """
        number = self.recovery.sent.next_packet_number
        if not self._protection.update_keys(number, self.recovery.largest_acked):
            return True
        if not self.recovery.bytes_in_flight:
            self.request_ping()
        return not self._protection.is_exhausted(number)

    def on_local_drop(self, count: int, now_ns: int) -> None:
        """The last `count` packets of the last `poll_transmit`, of a stream, were not sent: this host had no room."""
        taken = self.recovery.on_local_drop(count, now_ns)
        # To send them later counts as a retransmission, and is none.
        self.packets_retransmitted -= taken
        if taken and not self._oldest_gap_end:
            self._oldest_gap_end = self.recovery.sent.next_packet_number
        self._next_send_time_ns = self.recovery.path.pacer.next_send_time_ns()

    def has_unsent(self, low_bytes: int, high_bytes: int) -> bool:
        """See `Connection.has_unsent`."""
        data, window_bytes = self.streams.data, self.recovery.path.controller.congestion_window_bytes
        return data.end - data.next_offset > min(max(low_bytes, 2 * window_bytes), high_bytes)

    def poll_timeout(self) -> int | None:
        """When to call `recovery.on_timeout` and `poll_transmit`; None for never."""
        timeout_ns = self.recovery.poll_timeout()
        if timeout_ns is None or self._next_send_time_ns is None:
            return self._next_send_time_ns if timeout_ns is None else timeout_ns
        return min(timeout_ns, self._next_send_time_ns)

    def poll_new_message(self, now_ns: int) -> Transmit | None:
        """The packets that begin with a message queued since the last call; None if there is none, or it has to wait.

        Once for each message, they go before an acknowledgement: the peer's application may be waiting for the message.
        """
        if not self._has_new_message:
            return None
        self._has_new_message = False
        return self.poll_transmit(now_ns) if self.streams.messages.has_unsent else None

    def poll_transmit(self, now_ns: int) -> Transmit | None:
        """The next packets to send; None if nothing may be sent now."""
        self._next_send_time_ns = None
        recovery, path = self.recovery, self.recovery.path
        if path.probes_due:
            path.probes_due -= 1
            return self._probe(now_ns)
        if self._is_ping_requested:
            return self.ping(now_ns)
        data, messages = self.streams.data, self.streams.messages
        has_messages = messages.has_unsent
        probe_bytes = None if path.mtu.is_at_rest else self._mtu_probe_bytes(has_messages, now_ns)
        if probe_bytes is not None:
            path.mtu.on_probe_sent()
            return self._control_packet(wire.PacketType.PROBE, b"", probe_bytes, now_ns)
        if not has_messages and not data.has_unsent:
            path.pacer.on_limited()
            if recovery.bytes_in_flight < self._window_bytes:
                recovery.delivery.on_app_limited(recovery.bytes_in_flight)
            return None
        packets = self._packets_allowed()
        if packets == 0:
            path.pacer.on_limited()
            return None
        is_short = has_messages and recovery.packets_sent < _MANY_PACKETS
        if not is_short and self._wants_ping(now_ns):
            return self.ping(now_ns)
        if has_messages:
            return self._send_paced(wire.PacketType.MESSAGE, messages, packets, now_ns)
        return self._send_paced(wire.PacketType.DATA, data, packets, now_ns)

    def _mtu_probe_bytes(self, has_messages: bool, now_ns: int) -> int | None:
        """The size of the MTU probe to send now; None for none.

        None before the first acknowledgement, because it would take the place of data in the initial window, which may
        cost a small file a round trip; none before messages; and none for less data than it would be worth. A receiver
        begins after a while, as its acknowledgements may become long.
        """
        data, mtu = self.streams.data, self.recovery.path.mtu
        is_long_receiver = data.end == 0 and self.recovery.packets_sent >= _MANY_PACKETS
        is_much = data.end - data.next_offset >= _WORTH_A_PROBE_BYTES or bool(data.lost)
        is_worth_it = is_much or is_long_receiver or mtu.is_found
        # Also if the probe has to wait: this ends the search's timer, which would otherwise expire again at once.
        probe_bytes = mtu.probe_size(now_ns) if self.recovery.largest_acked >= 0 else None
        return probe_bytes if is_worth_it and not has_messages else None

    def _packets_allowed(self) -> int:
        """How many full packets the congestion window has room for."""
        path = self.recovery.path
        room_bytes = self._window_bytes - self.recovery.bytes_in_flight
        packets = room_bytes // path.datagram_bytes
        if packets <= 0:
            path.is_window_limited = True
            if not path.may_retransmit_one or not (self.streams.data.lost or self.streams.messages.lost):
                return 0
            packets = 1
        path.may_retransmit_one = False
        return packets

    @property
    def _window_bytes(self) -> int:
        """The congestion window; a larger one while little data for a host nearby is neither acknowledged nor lost."""
        path, data = self.recovery.path, self.streams.data
        window_bytes = path.controller.congestion_window_bytes
        is_little = 0 < data.end <= _SMALL_DATA_BYTES and not data.acked
        if is_little and path.is_nearby and not (data.lost or self.streams.messages.lost or path.has_chosen_rate):
            return max(window_bytes, _NEARBY_WINDOW_BYTES)
        return window_bytes

    def _send_paced(
        self, packet_type: wire.PacketType, stream: SendStream, packets: int, now_ns: int
    ) -> Transmit | None:
        path = self.recovery.path
        rate_bps = path.controller.pacing_rate_bps
        round_bytes = self._round_packets(path) * path.datagram_bytes
        is_first = stream is self.streams.data and not stream.next_offset
        if is_first and self._window_bytes > path.controller.congestion_window_bytes:
            budget_bytes = round_bytes
            path.pacer.grant_burst(budget_bytes)
        else:
            budget_bytes = path.pacer.budget_bytes(now_ns, rate_bps, path.datagram_bytes, round_bytes)
        if budget_bytes < path.datagram_bytes:
            self._next_send_time_ns = path.pacer.next_send_time_ns()
            return None
        if path.pacer.is_too_late:
            self.recovery.delivery.on_late(self.recovery.bytes_in_flight)
        packets = min(packets, budget_bytes // path.datagram_bytes)
        transmit = self._send_stream(packet_type, stream, packets, now_ns)
        path.pacer.on_sent(now_ns, len(transmit.data), rate_bps)
        return transmit

    def _round_packets(self, path: PathState) -> int:
        if not path.batches.is_allowed:
            return 1
        segments = segments_per_send(path.datagram_bytes, self.max_super_packet_bytes)
        return max(1, self.max_round_bytes // (segments * path.datagram_bytes)) * segments

    def _send_stream(self, packet_type: wire.PacketType, stream: SendStream, max_packets: int, now_ns: int) -> Transmit:
        """Packets of one stream, which has something to send."""
        retransmitted_bytes = stream.retransmitted_bytes
        payload_bytes = self.recovery.path.datagram_bytes - self._protection.stream_overhead_bytes
        runs = stream.take(max_packets, payload_bytes)
        self.packets_retransmitted += -(-(stream.retransmitted_bytes - retransmitted_bytes) // payload_bytes)
        # If nothing more may be sent, ask for an acknowledgement, unless the bytes in flight cause one anyway.
        is_last = not stream.has_unsent
        in_flight = self.recovery.bytes_in_flight + sum(end - start for start, end in runs)
        ack_now = is_last and (stream.next_offset == stream.end or in_flight < self._ack_every_bytes)
        return self._stream_packets(packet_type, runs, payload_bytes, ack_now, now_ns)

    def _stream_packets(
        self,
        packet_type: wire.PacketType,
        runs: list[tuple[int, int]],
        payload_bytes: int,
        ack_now: bool,
        now_ns: int,
    ) -> Transmit:
        is_data = packet_type == wire.PacketType.DATA
        source: DataSource = self._source if is_data else self.streams.message_buffer
        offsets = segment_offsets(runs, payload_bytes)
        count, total = len(offsets), 0
        scratch = self._buffer.scratch(count * payload_bytes)
        try:
            for start, end in runs:
                now_ns += source.read_into(start, scratch[total : total + end - start]) or 0
                total += end - start
        except Exception:
            self.streams.data.abandon()
            raise
        overhead_bytes = self._protection.stream_overhead_bytes
        sizes: NDArray[np.int32] | int = payload_bytes + overhead_bytes
        if count == 1:
            sizes = total + overhead_bytes
        elif total < count * payload_bytes:  # the last packet is shorter
            sizes = np.full(count, sizes, np.int32)
            sizes[-1] -= count * payload_bytes - total
        total_bytes = total + count * overhead_bytes
        numbers = self.recovery.on_sent(packet_type, offsets, sizes, total_bytes, now_ns)
        transmit = self._buffer.fill(
            packet_type, self._peer_connection_id, numbers, offsets, payload_bytes, total, ack_now
        )
        return transmit._replace(ecn=self.recovery.path.ecn.codepoint)

    def _probe(self, now_ns: int) -> Transmit:
        """One packet beyond the congestion window, with the oldest bytes that were not acknowledged.

        The last probe of a timeout is a small PING if packets are larger than the base size: in a black hole only small
        packets arrive, and their acknowledgement shows that the large ones are lost (RFC 8899 section 4.3).
        """
        path = self.recovery.path
        if not path.probes_due and path.datagram_bytes > BASE_DATAGRAM_BYTES:
            return self.ping(now_ns)
        payload_bytes = path.datagram_bytes - self._protection.stream_overhead_bytes
        for packet_type, stream in (
            (wire.PacketType.MESSAGE, self.streams.messages),
            (wire.PacketType.DATA, self.streams.data),
        ):
            if stream.lost:
                return self._send_stream(packet_type, stream, 1, now_ns)
            run = stream.oldest_unacked(payload_bytes)
            if run is not None:
                self.packets_retransmitted += 1
                return self._stream_packets(packet_type, [run], payload_bytes, True, now_ns)
        return self.ping(now_ns)

    # Acknowledgement frequency

    def _wants_ping(self, now_ns: int) -> bool:
        """The peer should acknowledge at another frequency, or can drop ranges of packets that are no longer needed."""
        wanted_bytes = self._wanted_ack_every_bytes()
        if not 2 * wanted_bytes // 3 <= self._ack_every_bytes <= 3 * wanted_bytes // 2:
            return True
        is_stale = now_ns - self._ping_time_ns > self.recovery.path.rtt.smoothed_rtt_ns
        has_old_gap = 0 < self._oldest_gap_end <= self.recovery.sent.least_unacked
        return is_stale and (has_old_gap or self.recovery.packets_lost != self._packets_lost_at_ping)

    def _wanted_ack_every_bytes(self) -> int:
        path, data = self.recovery.path, self.streams.data
        peer_window_bytes = data.limit - data.acked.contiguous_end()
        window_bytes = min(path.controller.congestion_window_bytes, peer_window_bytes)
        return max(2 * path.datagram_bytes, min(window_bytes // path.controller.acks_per_rtt, MAX_ACK_EVERY_BYTES))

    def ping(self, now_ns: int, flags: int = 0) -> Transmit:
        """A packet that the peer must acknowledge, and that says how often it should; not sealed yet."""
        path = self.recovery.path
        rtt = path.rtt
        self._ack_every_bytes = self._wanted_ack_every_bytes()
        wanted_delay_ns = rtt.smoothed_rtt_ns // path.controller.acks_per_rtt if rtt.has_sample else MIN_ACK_DELAY_NS
        rtt.max_ack_delay_ns = max(MIN_ACK_DELAY_NS, min(wanted_delay_ns, MAX_ACK_DELAY_NS))
        self._is_ping_requested = False
        self._ping_time_ns = now_ns
        self._packets_lost_at_ping = self.recovery.packets_lost
        least_unacked = self.recovery.sent.least_unacked
        if self._oldest_gap_end <= least_unacked:
            self._oldest_gap_end = 0
        body = wire.PING_BODY.pack(least_unacked, self._ack_every_bytes, rtt.max_ack_delay_ns // 1000)
        return self._control_packet(wire.PacketType.PING, body, 0, now_ns, flags)

    def _control_packet(
        self, packet_type: wire.PacketType, body: bytes, padded_bytes: int, now_ns: int, flags: int = 0
    ) -> Transmit:
        """An ack-eliciting packet that belongs to neither stream, padded to `padded_bytes`; not sealed yet."""
        size = max(wire.COMMON.size + len(body) + self._protection.tag_bytes, padded_bytes)
        number = int(self.recovery.on_sent(packet_type, np.zeros(1, np.int64), size, size, now_ns)[0])
        header = wire.COMMON.pack(packet_type, flags, self._peer_connection_id, number)
        return Transmit(memoryview((header + body).ljust(size, b"\0")), size, self.recovery.path.ecn.codepoint)


def take_stats(sender: Sender, acks: AckTracker, window: ReceiveWindow, packets_invalid: int) -> ConnectionStats:
    """Return a snapshot of a connection: of its sender, and of the parts of its receive side."""
    recovery, path, streams = sender.recovery, sender.recovery.path, sender.streams
    return ConnectionStats(
        latest_rtt_ns=path.rtt.latest_rtt_ns,
        path_rtt_ns=max(1, path.rtt.undelayed_rtt_ns - acks.send_time_ns),
        min_rtt_ns=path.rtt.min_rtt_ns,
        smoothed_rtt_ns=path.rtt.smoothed_rtt_ns,
        rttvar_ns=path.rtt.rttvar_ns,
        pto_ns=path.rtt.pto_ns(0),
        pto_count=path.loss.pto_count,
        packet_threshold=path.loss.packet_threshold,
        loss_time_ns=path.loss.loss_time_ns,
        congestion_control=path.controller.name,
        congestion_window_bytes=path.controller.congestion_window_bytes,
        pacing_rate_bps=path.controller.pacing_rate_bps,
        congestion=path.controller.snapshot(),
        datagram_bytes=path.mtu.datagram_bytes,
        is_mtu_found=path.mtu.is_found,
        is_batching=path.batches.is_allowed,
        is_ecn_capable=path.ecn.codepoint != NOT_ECT,
        next_packet_number=recovery.sent.next_packet_number,
        bytes_in_flight=recovery.bytes_in_flight,
        packets_sent=recovery.packets_sent,
        bytes_sent=recovery.bytes_sent,
        packets_retransmitted=max(0, sender.packets_retransmitted),
        packets_lost=recovery.packets_lost,
        lost_bytes=recovery.delivery.lost_bytes,
        packets_spuriously_lost=recovery.packets_spuriously_lost,
        delivered_bytes=recovery.delivery.delivered_bytes,
        data_sent_bytes=streams.data.next_offset,
        message_sent_bytes=streams.messages.next_offset,
        data_send_limit=streams.data.limit,
        is_data_blocked=streams.data.is_blocked,
        data_receive_limit=window.limit,
        receive_window_bytes=window.window_bytes,
        is_socket_limited=window.is_socket_limited,
        packets_received=acks.packets_received,
        packets_duplicate=acks.packets_duplicate,
        packets_invalid=packets_invalid,
        peer_dropped_datagrams=recovery.peer_dropped_datagrams,
    )
