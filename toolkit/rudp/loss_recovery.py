"""What is in flight, and what acknowledgements and timeouts make of it.

Every packet that was sent is acknowledged, declared lost, or still in flight. An acknowledgement marks packets as
acknowledged, and shows by its gaps that others are lost; the bytes of lost packets go back to their streams. It is
also a sample of the path: of its RTT, delivery rate, MTU and ECN marks. The order matters: losses that an
acknowledgement shows are reported to the congestion controller before its sample. A probe timeout declares nothing
lost; it only makes probes due.

Read: RFC 9002 sections 5 to 7 and appendices A and B (loss detection, probe timeout, persistent congestion), RFC 9000
section 9.4 (change of path).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.rudp import wire
from toolkit.rudp.congestion.base import AckSample, LossSample
from toolkit.rudp.delivery_rate import DeliveryEstimator
from toolkit.rudp.observer import LossObserver, Timer
from toolkit.rudp.path import PathState
from toolkit.rudp.sent_packets import PacketGroup, SentPackets
from toolkit.rudp.streams import SendStreams

PROBES_PER_TIMEOUT: Final = 2  # RFC 9002 section 6.2.4
_MAX_HELD_UP_PACKETS: Final = 1 << 20


class LossRecovery:
    """Report sent packets by `on_sent`, acknowledgements by `on_ack_untrusted`, expired timers by `on_timeout`.

    Times are in ns; sizes are of datagrams, in bytes; counters are totals over all paths.

    path:                    the path in use; replaced by `change_path`
    sent:                    the packets
    bytes_in_flight:         sent, and neither acknowledged nor declared lost
    packets_lost:            declared lost, without probes of the path MTU
    packets_spuriously_lost: declared lost, but acknowledged later
    peer_dropped_datagrams:  what the peer reports to have been dropped at its socket
    rtt_sample_time_ns:      when the latest RTT sample was taken; None before the first
    """

    def __init__(
        self,
        path: PathState,
        streams: SendStreams,
        stream_overhead_bytes: int,
        skip_seed: int | None = None,
        observer: LossObserver | None = None,
    ) -> None:
        """`stream_overhead_bytes` and `skip_seed` are those of `SentPackets`."""
        self.path = path
        self.sent = SentPackets(stream_overhead_bytes, skip_seed)
        self.delivery = DeliveryEstimator()
        self.bytes_in_flight = 0
        self.packets_sent = 0
        self.bytes_sent = 0
        self.packets_lost = 0
        self.packets_spuriously_lost = 0
        self.peer_dropped_datagrams = 0
        self.rtt_sample_time_ns: int | None = None
        self._held_up_time_ns: int | None = None
        self.largest_acked = -1
        self._streams = streams
        self._observer = observer
        self._last_sent_time_ns = 0

    def on_handshake_rtt(self, rtt_ns: int, now_ns: int) -> None:
        """Take the first RTT sample, from the handshake."""
        self.path.on_handshake_rtt(rtt_ns)
        self.rtt_sample_time_ns = now_ns

    def change_path(self, path: PathState) -> None:
        """Use `path` from now on (RFC 9000 section 9.4).

        What is in flight used the old path, and its fate says nothing about the new one. It is given up and sent again.
        """
        abandoned = self.sent.abandon()
        if abandoned is not None:
            self.bytes_in_flight -= abandoned.bytes
            self._streams.on_lost(abandoned)
        self.path = path

    def on_sent(
        self,
        packet_type: wire.PacketType,
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int32] | int,
        total_bytes: int,
        now_ns: int,
    ) -> NDArray[np.int64]:
        """Record ack-eliciting packets that are sent together; return their packet numbers."""
        state = self.delivery.on_send(now_ns, self.bytes_in_flight, total_bytes)
        numbers = self.sent.record(packet_type, offsets, sizes, state)
        self.path.controller.on_sent(now_ns, total_bytes, self.bytes_in_flight, state.is_app_limited)
        self.bytes_in_flight += total_bytes
        self.bytes_sent += total_bytes
        self.packets_sent += len(offsets)
        self._last_sent_time_ns = now_ns
        return numbers

    def on_local_drop(self, count: int, now_ns: int) -> int:
        """The last `count` packets of a stream never left this host: send their bytes again, after a moment.

        This says nothing about the path, so the congestion controller does not learn of it. Returns how many were taken
        back.
        """
        self.path.pacer.on_local_drop(now_ns)
        taken = self.sent.take_back(count) if count else None
        if taken is None:
            return 0
        self.bytes_in_flight -= taken.bytes
        self.bytes_sent -= taken.bytes
        self.packets_sent -= taken.packets
        self._streams.on_lost(taken)
        if self._observer is not None:
            self._observer.locally_dropped(now_ns, taken.packets)
        return taken.packets

    # Timers

    def on_held_up(self, now_ns: int) -> None:
        """One of the two sides is held up by a file: it neither reads nor acknowledges what arrives."""
        self._held_up_time_ns = max(now_ns, self._held_up_time_ns or now_ns)

    @property
    def unacked_since_ns(self) -> int | None:
        """Since when something is in flight, and neither side is held up; None if nothing is in flight.

        That a side is held up does not count any more if very many packets would have to be remembered.
        """
        since_ns = self.sent.oldest_sent_time_ns
        has_room = self.sent.next_packet_number - self.sent.least_unacked < _MAX_HELD_UP_PACKETS
        if since_ns is None or self._held_up_time_ns is None or not has_room:
            return since_ns
        return max(since_ns, self._held_up_time_ns)

    def poll_timeout(self) -> int | None:
        """When to call `on_timeout`; None for never."""
        times = [self.path.loss.loss_time_ns, self.path.mtu.next_timeout_ns]
        if self._is_pto_armed:
            times.append(self._last_sent_time_ns + self.path.loss.pto_ns)
        return min([t for t in times if t is not None], default=None)

    @property
    def _is_pto_armed(self) -> bool:
        # A sender that is blocked by the peer's window probes too: the update of the window may have been lost.
        return self.bytes_in_flight > 0 or self._streams.is_blocked

    def on_timeout(self, now_ns: int) -> bool:
        """Declare packets lost by time, or make probes due (RFC 9002 section 6.2). Returns whether a timer expired."""
        loss = self.path.loss
        if loss.loss_time_ns is not None and loss.loss_time_ns <= now_ns:
            if self._observer is not None:
                self._observer.timer_expired(now_ns, Timer.LOSS)
            self._detect_lost(now_ns)
        elif self._is_pto_armed and now_ns >= self._last_sent_time_ns + loss.pto_ns:
            loss.pto_count += 1
            self.path.ecn.on_timeout(loss.pto_count)
            self.path.probes_due = PROBES_PER_TIMEOUT
            self._last_sent_time_ns = now_ns
            if self._observer is not None:
                self._observer.timer_expired(now_ns, Timer.PROBE)
        else:
            return False
        return True

    # Acknowledgements

    def on_ack_untrusted(self, ack: wire.AckPacket, now_ns: int, waited_ns: int = 0) -> bool:
        """Take an ACK packet that has waited in the socket for so long; return whether it acknowledges anything new.

        Raises ProtocolError if it acknowledges a packet that was never sent.
        """
        acked = self.sent.acknowledge_untrusted(ack.ranges)
        self._streams.raise_limits(ack.data_window, ack.message_window)
        self.peer_dropped_datagrams = max(self.peer_dropped_datagrams, ack.drop_count)
        if acked is None:
            return False
        if waited_ns >= now_ns - acked.newest_state.sent_time_ns:
            waited_ns = 0  # it cannot have arrived before that was sent: the clock was set
        newly_marked = self.path.ecn.on_ack(acked.packets, ack.ect_count, ack.ce_count)
        prior_in_flight_bytes = self.bytes_in_flight
        self.bytes_in_flight -= acked.bytes - acked.spurious_bytes
        rtt_ns = self._sample_rtt(acked, ack, now_ns - waited_ns)
        self.largest_acked = max(self.largest_acked, acked.newest)
        delivered_ns = now_ns - waited_ns - (0 if ack.delay_us == wire.UNKNOWN_DELAY_US else ack.delay_us * 1000)
        self._on_acked(acked, delivered_ns, now_ns)
        prior_lost_bytes = self.delivery.lost_bytes
        self._detect_lost(now_ns, waited_ns)
        self.path.apply_datagram_size()
        self._report_ack(acked, rtt_ns, newly_marked, prior_in_flight_bytes, prior_lost_bytes, delivered_ns, now_ns)
        return True

    def _sample_rtt(self, acked: PacketGroup, ack: wire.AckPacket, arrived_ns: int) -> int | None:
        """Sample the RTT if the largest ack-eliciting packet is newly acknowledged; return it without the peer's delay.

        Larger numbers may be acknowledged with it: those of packets that elicit no acknowledgement.
        """
        if acked.newest <= self.largest_acked or ack.delay_us == wire.UNKNOWN_DELAY_US:
            return None
        sent_time_ns = acked.newest_state.sent_time_ns
        if self._held_up_time_ns is not None and sent_time_ns <= self._held_up_time_ns:
            return None  # the packet or its acknowledgement may have waited for a file
        rtt = self.path.rtt
        latest_rtt_ns = arrived_ns - sent_time_ns
        rtt.update(latest_rtt_ns, ack.delay_us * 1000)
        self.rtt_sample_time_ns = arrived_ns
        return max(latest_rtt_ns - ack.delay_us * 1000, min(latest_rtt_ns, rtt.min_rtt_ns), 1)

    def _on_acked(self, acked: PacketGroup, delivered_ns: int, now_ns: int) -> None:
        path = self.path
        path.loss.pto_count = 0
        path.probes_due = 0
        self._streams.on_acked(acked)
        for size in acked.probes:
            path.mtu.on_probe_acked(size, now_ns)
        path.mtu.on_packet_acked(acked.largest_bytes)
        if not path.batches.is_decided:
            path.batches.on_acked(self.sent.count_together(acked))
        self.delivery.on_delivered(delivered_ns, acked.bytes)
        if len(acked.spurious):
            self._on_spurious_loss(acked, now_ns)
        else:
            path.loss.on_acked(self.largest_acked)

    def _report_ack(
        self,
        acked: PacketGroup,
        rtt_ns: int | None,
        newly_marked: int,
        prior_in_flight_bytes: int,
        prior_lost_bytes: int,
        delivered_ns: int,
        now_ns: int,
    ) -> None:
        path, delivery, state = self.path, self.delivery, acked.newest_state
        path.controller.on_ack(
            AckSample(
                now_ns=now_ns,
                newly_acked_bytes=acked.bytes,
                newly_lost_bytes=delivery.lost_bytes - prior_lost_bytes,
                bytes_in_flight=self.bytes_in_flight,
                prior_in_flight_bytes=prior_in_flight_bytes,
                delivered_bytes=delivery.delivered_bytes,
                prior_delivered_bytes=state.delivered_bytes,
                lost_bytes=delivery.lost_bytes,
                lost_since_sent_bytes=delivery.lost_bytes - state.lost_bytes,
                in_flight_at_send_bytes=state.in_flight_bytes,
                largest_acked_sent_time_ns=state.sent_time_ns,
                rtt_ns=rtt_ns,
                smoothed_rtt_ns=path.rtt.smoothed_rtt_ns,
                min_rtt_ns=path.rtt.min_rtt_ns,
                delivery_rate_bps=delivery.sample_bps(delivered_ns, state, path.rtt.min_rtt_ns),
                is_app_limited=state.is_app_limited,
                is_window_limited=path.is_window_limited,
                ecn_ce_count=newly_marked,
                is_late=state.is_late,
            )
        )
        path.is_window_limited = False
        path.pacer.catch_up.on_acked(state.sent_time_ns, path.rtt.min_rtt_ns)
        if rtt_ns is not None:
            path.pacer.burst_room.on_rtt(now_ns, rtt_ns, path.rtt.min_rtt_ns)

    def _on_spurious_loss(self, acked: PacketGroup, now_ns: int) -> None:
        path, spurious = self.path, acked.spurious
        self.packets_spuriously_lost += len(spurious)
        path.loss.on_spurious_loss(self.largest_acked, int(spurious[0]))
        if self._observer is not None:
            self._observer.spurious_losses_detected(now_ns, len(spurious))
        if path.unproven_losses:
            # Older packets belong to an earlier report, and do not disprove the latest one.
            path.unproven_losses -= int(np.count_nonzero(spurious >= path.loss_report_first))
            if path.unproven_losses <= 0:
                path.unproven_losses = 0
                path.controller.on_spurious_loss(now_ns, path.loss_report_sent_time_ns)

    def _detect_lost(self, now_ns: int, waited_ns: int = 0) -> None:
        """Declare packets lost; what an acknowledgement has waited in the socket makes none of them older."""
        path, loss = self.path, self.path.loss
        lost, loss.loss_time_ns = self.sent.detect_lost(
            self.largest_acked, now_ns - waited_ns, loss.loss_delay_ns, loss.packet_threshold
        )
        if lost is None:
            return
        if self._observer is not None:
            numbers = lost.packet_numbers
            reordered_below = self.largest_acked - loss.packet_threshold + 1
            self._observer.packets_lost(now_ns, numbers, self.sent.kinds(numbers), reordered_below)
        self.bytes_in_flight -= lost.bytes
        self._streams.on_lost(lost)
        for size in lost.probes:
            path.mtu.on_probe_lost(size, now_ns)
        # A lost probe of the path MTU is no sign of congestion (RFC 8899 section 3).
        if lost.packets > len(lost.probes):
            self._report_loss(lost, now_ns)

    def _report_loss(self, lost: PacketGroup, now_ns: int) -> None:
        path, state = self.path, lost.newest_state
        count = lost.packets - len(lost.probes)
        lost_bytes = lost.bytes - sum(lost.probes)
        self.packets_lost += count
        self.delivery.lost_bytes += lost_bytes
        path.mtu.on_packets_lost(lost.largest_bytes, count)
        if not path.batches.is_decided:
            path.batches.on_lost(self.sent.count_together(lost))
        path.apply_datagram_size()
        if state.sent_time_ns > path.loss_event_ns:
            path.loss_event_ns = now_ns
            path.may_retransmit_one = True
        path.pacer.catch_up.on_lost(state.sent_time_ns)
        path.unproven_losses = count
        path.loss_report_first = int(lost.packet_numbers[0])
        path.loss_report_sent_time_ns = state.sent_time_ns
        limit_ns = path.loss.persistent_congestion_ns
        is_persistent = lost.span_ns > limit_ns and self.sent.outage_ns(lost) > limit_ns
        if is_persistent:
            path.rtt.on_persistent_congestion()
        path.controller.on_loss(
            LossSample(
                now_ns=now_ns,
                lost_bytes=lost_bytes,
                bytes_in_flight=self.bytes_in_flight,
                newest_lost_sent_time_ns=state.sent_time_ns,
                in_flight_at_send_bytes=state.in_flight_bytes,
                is_persistent=is_persistent,
            )
        )
