"""The sending half of a connection: what goes out next.

Order of sending: probes of a timeout, messages, lost data, new data. Messages are few and small and everything waits
for them, so they are held by the congestion window only; data by the window, the pacer and the peer. What becomes of
the packets is told in `recovery.py`.

Read: RFC 9002 sections 6.2.4 (probes) and 7.7 (pacing); draft-ietf-quic-ack-frequency (how often to acknowledge).
"""

from typing import Final

import numpy as np

from toolkit.rudp import wire
from toolkit.rudp.batch import PacketBuffer, Transmit, segments_per_send
from toolkit.rudp.config import Config
from toolkit.rudp.loss_recovery import Recovery
from toolkit.rudp.observer import ConnectionObserver
from toolkit.rudp.pacer import Pacer
from toolkit.rudp.pmtud import BASE_DATAGRAM_BYTES
from toolkit.rudp.rtt import MAX_ACK_DELAY_NS
from toolkit.rudp.streams import DataSource, SendSpace, segment_positions

MAX_ROUND_SUPER_PACKETS: Final = 8
"""What one round may send before the driver looks at its receive side again."""
ACKS_PER_RTT: Final = 4
MAX_ACK_EVERY_BYTES: Final = 1 << 20
MIN_ACK_DELAY_NS: Final = 1_000_000


class Sender(Recovery):
    """`on_ack_untrusted` and `on_timeout` in; `poll_transmit` out. Times in ns, sizes in bytes of datagrams."""

    def __init__(
        self,
        config: Config,
        source: DataSource,
        peer_connection_id: int,
        peer_datagram_bytes: int,
        observer: ConnectionObserver | None = None,
    ) -> None:
        super().__init__(config, peer_datagram_bytes, observer)
        self.packets_retransmitted = 0
        self._peer_connection_id = peer_connection_id
        self._source = source
        self._pacer = Pacer()
        self._buffer = PacketBuffer(MAX_ROUND_SUPER_PACKETS * wire.MAX_DATAGRAM_BYTES)
        self._next_send_time_ns: int | None = None
        self._ack_every_bytes = 0  # as last asked for
        self._ping_time_ns = 0
        self._lost_at_ping = 0
        self._ping_requested = False

    def reset_path(self) -> None:
        super().reset_path()
        self._pacer = Pacer()

    def queue_message(self, message: bytes) -> None:
        """Hand over one message."""
        self.messages.end = self._message_buffer.append(message)

    def request_ping(self) -> None:
        """Send something that the peer must acknowledge, whatever else there is."""
        self._ping_requested = True

    def timeout_ns(self) -> int | None:
        """When `on_timeout` or, for the pacer, `poll_transmit` wants to be called; None for never."""
        timeout_ns = super().timeout_ns()
        if timeout_ns is None or self._next_send_time_ns is None:
            return self._next_send_time_ns if timeout_ns is None else timeout_ns
        return min(timeout_ns, self._next_send_time_ns)

    def poll_transmit(self, now_ns: int) -> Transmit | None:
        """The next packets to send; None when nothing may go now. Call until None, then see `timeout_ns`."""
        self._next_send_time_ns = None
        if self._probes_due:
            self._probes_due -= 1
            return self._probe(now_ns)
        if self._ping_requested:
            return self._ping(now_ns)
        has_data = bool(self.data.lost) or self.data.has_new
        has_messages = bool(self.messages.lost) or self.messages.has_new
        # The first flight carries data alone: a probe in its window would cost a small file one more round trip. And
        # who only receives needs no larger packets.
        probe_bytes = None if self._largest_acked < 0 else self.mtu.probe_size(now_ns)
        if probe_bytes is not None:
            self.mtu.on_probe_sent()
            return self._control(wire.PacketType.PROBE, b"", probe_bytes, now_ns)
        if not has_data and not has_messages:
            if self.bytes_in_flight < self.controller.congestion_window_bytes:
                self._delivery.on_app_limited(self.bytes_in_flight)
            return None
        room = self.controller.congestion_window_bytes - self.bytes_in_flight
        packets = min(room // self._datagram_bytes, MAX_ROUND_SUPER_PACKETS * segments_per_send(self._datagram_bytes))
        if packets <= 0:
            self._is_window_limited = True
            if not self._may_resend_one or not (self.data.lost or self.messages.lost):
                return None
            packets = 1
        self._may_resend_one = False
        if self._wants_ping(now_ns):
            return self._ping(now_ns)
        if has_messages:
            return self._send(wire.PacketType.MESSAGE, self.messages, packets, now_ns)
        rate_bps = self.controller.pacing_rate_bps
        budget_bytes = self._pacer.budget_bytes(now_ns, rate_bps, self._datagram_bytes)
        if budget_bytes < self._datagram_bytes:
            self._next_send_time_ns = self._pacer.next_send_time_ns()
            return None
        transmit = self._send(
            wire.PacketType.DATA, self.data, min(packets, budget_bytes // self._datagram_bytes), now_ns
        )
        self._pacer.on_sent(now_ns, len(transmit.data), rate_bps)
        return transmit

    def _send(self, kind: wire.PacketType, space: SendSpace, max_packets: int, now_ns: int) -> Transmit:
        """Packets from one space, which has something to send."""
        lost_bytes = space.retransmitted_bytes
        payload_bytes = self._datagram_bytes - wire.HEADER_BYTES
        runs = space.take(max_packets, payload_bytes)
        self.packets_retransmitted += -(-(space.retransmitted_bytes - lost_bytes) // payload_bytes)
        # Nothing more may go: ask for an acknowledgement, unless what is in flight brings one anyhow.
        is_last = not space.lost and not space.has_new
        in_flight = self.bytes_in_flight + sum(end - start for start, end in runs)
        ack_now = is_last and (space.next_position == space.end or in_flight < self._ack_every_bytes)
        return self._packets(kind, runs, payload_bytes, ack_now, now_ns)

    def _packets(
        self,
        kind: wire.PacketType,
        runs: list[tuple[int, int]],
        payload_bytes: int,
        ack_now: bool,
        now_ns: int,
    ) -> Transmit:
        source: DataSource = self._source if kind == wire.PacketType.DATA else self._message_buffer
        positions = segment_positions(runs, payload_bytes)
        total = 0
        scratch = self._buffer.scratch(len(positions) * payload_bytes)
        try:
            for start, end in runs:
                source.read_into(start, scratch[total : total + end - start])
                total += end - start
        except Exception:
            self.data.abandon()
            raise
        sizes = np.full(len(positions), payload_bytes + wire.HEADER_BYTES, np.int32)
        sizes[-1] -= len(positions) * payload_bytes - total
        numbers = self._record(kind, positions, sizes, total + len(positions) * wire.HEADER_BYTES, now_ns)
        transmit = self._buffer.fill(
            kind, self._peer_connection_id, numbers, positions, min(payload_bytes, total), total, ack_now
        )
        return transmit._replace(ecn=self._ecn.codepoint)

    def _probe(self, now_ns: int) -> Transmit:
        """One packet beyond the window that will be acknowledged: the oldest bytes that have not arrived.

        The last of a timeout is small where the others are not: in a black hole it is all that gets through, and its
        acknowledgement shows the large ones lost (RFC 8899 section 4.3).
        """
        if not self._probes_due and self._datagram_bytes > BASE_DATAGRAM_BYTES:
            return self._ping(now_ns)
        for kind, space in ((wire.PacketType.MESSAGE, self.messages), (wire.PacketType.DATA, self.data)):
            if space.lost:
                return self._send(kind, space, 1, now_ns)
            payload_bytes = self._datagram_bytes - wire.HEADER_BYTES
            run = space.oldest_unsettled(payload_bytes)
            if run is not None:
                self.packets_retransmitted += 1
                return self._packets(kind, [run], payload_bytes, True, now_ns)
        return self._ping(now_ns)

    def _wants_ping(self, now_ns: int) -> bool:
        """The peer should acknowledge in another rhythm, or forget about packets that are settled."""
        wanted = self._wanted_ack_every_bytes()
        if not 2 * wanted // 3 <= self._ack_every_bytes <= 3 * wanted // 2:
            return True
        is_stale = now_ns - self._ping_time_ns > self.rtt.smoothed_rtt_ns
        return is_stale and self.packets_lost != self._lost_at_ping

    def _wanted_ack_every_bytes(self) -> int:
        peer_window = self.data.window - self.data.acked.contiguous_end()
        window = min(self.controller.congestion_window_bytes, peer_window)
        return max(2 * self._datagram_bytes, min(window // ACKS_PER_RTT, MAX_ACK_EVERY_BYTES))

    def _ping(self, now_ns: int) -> Transmit:
        self._ack_every_bytes = self._wanted_ack_every_bytes()
        wanted_delay_ns = self.rtt.smoothed_rtt_ns // ACKS_PER_RTT if self.rtt.has_sample else MIN_ACK_DELAY_NS
        self.rtt.max_ack_delay_ns = max(MIN_ACK_DELAY_NS, min(wanted_delay_ns, MAX_ACK_DELAY_NS))
        self._ping_requested = False
        self._ping_time_ns = now_ns
        self._lost_at_ping = self.packets_lost
        body = wire.PING_BODY.pack(self.sent.least_unacked, self._ack_every_bytes, self.rtt.max_ack_delay_ns // 1000)
        return self._control(wire.PacketType.PING, body, 0, now_ns)

    def _control(self, kind: wire.PacketType, body: bytes, padded_bytes: int, now_ns: int) -> Transmit:
        """A packet without a place in either space that wants an acknowledgement."""
        size = max(wire.COMMON.size + len(body), padded_bytes)
        number = int(self._record(kind, np.zeros(1, np.int64), size, size, now_ns)[0])
        head = wire.COMMON.pack(kind, 0, self._peer_connection_id, number)
        return Transmit(memoryview((head + body).ljust(size, b"\0")), size, self._ecn.codepoint)
