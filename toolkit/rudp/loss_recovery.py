"""What is in flight, and what an acknowledgement or a timeout makes of it.

Theory. Every packet that was sent is acknowledged, or declared lost, or still in flight. An acknowledgement settles
packets, and by what it leaves out shows others lost; their bytes go back to where they came from. It is also a sample
of everything that is known of the path: its RTT, its rate, its MTU, its marks, what it has room for. The order in
which these are told matters: losses that an acknowledgement shows come before the sample that the congestion control
gets of it. When nothing is acknowledged for a probe timeout, nothing is lost by that: probes are due.

Read: RFC 9002 sections 5 to 7 and appendices A and B (loss detection, probe timeout, persistent congestion), RFC 9000
section 9.4 (another path).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from toolkit.rudp import wire
from toolkit.rudp.config import Config
from toolkit.rudp.congestion.base import AckSample, LossSample, controller_factory
from toolkit.rudp.delivery_rate import DeliveryEstimator
from toolkit.rudp.ecn import EcnValidator
from toolkit.rudp.loss_detection import LossDetector
from toolkit.rudp.observer import ConnectionObserver, Timer
from toolkit.rudp.pmtud import PathMtu
from toolkit.rudp.rtt import RttEstimator
from toolkit.rudp.sent_packets import SentPackets, Settled
from toolkit.rudp.streams import FIRST_DATA_WINDOW_BYTES, MESSAGE_WINDOW_BYTES, MessageBuffer, SendSpace

PROBES_PER_TIMEOUT: Final = 2  # RFC 9002 section 6.2.4


class Recovery:
    """`on_ack_untrusted` and `on_timeout` in; what they change is read by whoever sends. Times in ns, sizes in bytes
    of datagrams. A `Sender` is one that also makes the packets.
    """

    def __init__(self, config: Config, peer_datagram_bytes: int, observer: ConnectionObserver | None = None) -> None:
        self._observer = observer
        self._config = config
        self._max_datagram_bytes = min(config.max_datagram_bytes, peer_datagram_bytes)
        self._ecn = EcnValidator()
        self._begin_path()
        self.sent = SentPackets()
        self.data = SendSpace(FIRST_DATA_WINDOW_BYTES)
        self.messages = SendSpace(MESSAGE_WINDOW_BYTES)
        self._message_buffer = MessageBuffer()
        self.bytes_in_flight = 0
        self.packets_sent = 0
        self.bytes_sent = 0
        self.packets_lost = 0
        self.packets_spurious = 0
        self.peer_drop_count = 0
        self._delivery = DeliveryEstimator()
        self._largest_acked = -1
        self._last_sent_time_ns = 0
        self._loss_event_ns = -1  # when it began
        self._loss_event_first = 0
        self._loss_event_sent_time_ns = 0

    def reset_path(self) -> None:
        """Begin as on a path of which nothing is known (RFC 9000 section 9.4).

        What is in flight went by the old one, and what becomes of it says nothing about the new one: it is given up,
        and sent again.
        """
        given_up = self.sent.abandon()
        if given_up is not None:
            self.bytes_in_flight -= given_up.bytes
            self.data.on_lost(given_up.data)
            self.messages.on_lost(given_up.messages)
        self._ecn.on_new_path()
        self._begin_path()

    def _begin_path(self) -> None:
        config = self._config
        self.rtt = RttEstimator()
        self.loss = LossDetector(self.rtt)
        self.mtu = PathMtu(self._max_datagram_bytes)
        self.controller = controller_factory(config.congestion_control)(
            self.mtu.datagram_bytes, config.rate_bps, config.seed
        )
        self._datagram_bytes = self.mtu.datagram_bytes
        self._unproven_losses = 0  # packets of the newest loss event that have not turned out spurious
        # What passes between this and who sends:
        self._is_window_limited = False  # there was more to send than the window had room for
        self._probes_due = 0  # of a timeout, whatever the window says
        self._may_resend_one = False  # likewise: a loss event has just begun (RFC 9002 section 7.3.2)

    @property
    def delivered_bytes(self) -> int:
        """Total acknowledged, of datagrams."""
        return self._delivery.delivered_bytes

    @property
    def lost_bytes(self) -> int:
        """Total declared lost, of datagrams, without probes of the path MTU."""
        return self._delivery.lost_bytes

    @property
    def is_fully_acked(self) -> bool:
        """All that was handed over has arrived."""
        return self.data.is_fully_acked and self.messages.is_fully_acked

    @property
    def ecn_codepoint(self) -> int:
        """What the IP ECN field is set to now."""
        return self._ecn.codepoint

    def _record(
        self,
        kind: wire.PacketType,
        positions: NDArray[np.int64],
        sizes: NDArray[np.int32] | int,
        size_bytes: int,
        now_ns: int,
    ) -> NDArray[np.int64]:
        """Packets go out now, together: they are in flight. Returns their numbers."""
        state = self._delivery.on_send(now_ns, self.bytes_in_flight, size_bytes)
        numbers = self.sent.record(kind, positions, sizes, state)
        self.controller.on_sent(now_ns, size_bytes, self.bytes_in_flight, state.is_app_limited)
        self.bytes_in_flight += size_bytes
        self.bytes_sent += size_bytes
        self.packets_sent += len(positions)
        self._last_sent_time_ns = now_ns
        return numbers

    # Timers

    def timeout_ns(self) -> int | None:
        """When `on_timeout` wants to be called; None for never."""
        times = [self.loss.loss_time_ns, self.mtu.next_timeout_ns]
        if self.bytes_in_flight or self._waits_for_peer_window:
            times.append(self._last_sent_time_ns + self.loss.pto_ns)
        return min((t for t in times if t is not None), default=None)

    @property
    def _waits_for_peer_window(self) -> bool:
        return self.data.is_blocked or self.messages.is_blocked

    def on_timeout(self, now_ns: int) -> bool:
        """Look for losses that time has made, else probe (RFC 9002 section 6.2); returns whether a timer had come."""
        loss_time_ns = self.loss.loss_time_ns
        if loss_time_ns is not None and loss_time_ns <= now_ns:
            if self._observer is not None:
                self._observer.timer_expired(now_ns, Timer.LOSS)
            self._detect_lost(now_ns)
        elif (self.bytes_in_flight or self._waits_for_peer_window) and now_ns >= (
            self._last_sent_time_ns + self.loss.pto_ns
        ):
            self.loss.pto_count += 1
            self._ecn.on_timeout(self.loss.pto_count)
            self._probes_due = PROBES_PER_TIMEOUT
            self._last_sent_time_ns = now_ns
            if self._observer is not None:
                self._observer.timer_expired(now_ns, Timer.PROBE)
        else:
            return False
        return True

    # Acknowledgements

    def on_ack_untrusted(self, ack: wire.AckPacket, now_ns: int) -> bool:
        """Take one ACK packet; returns whether it acknowledges anything new.

        Raises ProtocolError where it acknowledges what was never sent.
        """
        settled = self.sent.acknowledge_untrusted(ack.ranges)
        self.data.window = max(self.data.window, ack.data_window)
        self.messages.window = max(self.messages.window, ack.message_window)
        self.peer_drop_count = max(self.peer_drop_count, ack.drop_count)
        if settled is None:
            return False
        newly_marked = self._ecn.on_ack(settled.packets, ack.ect_count, ack.ce_count)
        prior_in_flight = self.bytes_in_flight
        self.bytes_in_flight -= settled.bytes - settled.spurious_bytes
        rtt_ns = None
        is_sample = settled.newest == ack.ranges[0][1] - 1 and settled.newest > self._largest_acked
        if is_sample and ack.delay_us != wire.UNKNOWN_DELAY_US:
            latest_rtt_ns = now_ns - settled.newest_state.sent_time_ns
            self.rtt.update(latest_rtt_ns, ack.delay_us * 1000)
            rtt_ns = max(latest_rtt_ns - ack.delay_us * 1000, min(latest_rtt_ns, self.rtt.min_rtt_ns), 1)
        self._largest_acked = max(self._largest_acked, settled.newest)
        self.loss.pto_count = 0
        self._probes_due = 0
        self.data.on_acked(settled.data)
        self.messages.on_acked(settled.messages)
        self._message_buffer.release(self.messages.acked.contiguous_end())
        for size in settled.probes:
            self.mtu.on_probe_acked(size, now_ns)
        self.mtu.on_packet_acked(settled.largest_bytes)
        self._delivery.on_delivered(now_ns, settled.bytes)
        if len(settled.spurious):
            self._on_spurious(settled, now_ns)
        else:
            self.loss.on_acked(self._largest_acked)
        lost_before = self._delivery.lost_bytes
        self._detect_lost(now_ns)
        self._apply_datagram_size()
        state = settled.newest_state
        self.controller.on_ack(
            AckSample(
                now_ns=now_ns,
                newly_acked_bytes=settled.bytes,
                newly_lost_bytes=self._delivery.lost_bytes - lost_before,
                bytes_in_flight=self.bytes_in_flight,
                prior_in_flight_bytes=prior_in_flight,
                delivered_bytes=self._delivery.delivered_bytes,
                prior_delivered_bytes=state.delivered_bytes,
                lost_bytes=self._delivery.lost_bytes,
                lost_since_sent_bytes=self._delivery.lost_bytes - state.lost_bytes,
                in_flight_at_send_bytes=state.in_flight_bytes,
                largest_acked_sent_time_ns=state.sent_time_ns,
                rtt_ns=rtt_ns,
                smoothed_rtt_ns=self.rtt.smoothed_rtt_ns,
                min_rtt_ns=self.rtt.min_rtt_ns,
                delivery_rate_bps=self._delivery.sample_bps(now_ns, state, self.rtt.min_rtt_ns),
                is_app_limited=state.is_app_limited,
                is_window_limited=self._is_window_limited,
                ecn_ce_count=newly_marked,
            )
        )
        self._is_window_limited = False
        return True

    def _on_spurious(self, settled: Settled, now_ns: int) -> None:
        self.packets_spurious += len(settled.spurious)
        self.loss.on_spurious(self._largest_acked, int(settled.spurious[0]))
        if self._observer is not None:
            self._observer.spurious_losses_detected(now_ns, len(settled.spurious))
        if self._unproven_losses:
            # What is older belongs to a loss event before, and excuses nothing of the newest.
            self._unproven_losses -= int(np.count_nonzero(settled.spurious >= self._loss_event_first))
            if self._unproven_losses <= 0:
                self._unproven_losses = 0
                self.controller.on_spurious_loss(now_ns, self._loss_event_sent_time_ns)

    def _detect_lost(self, now_ns: int) -> None:
        lost, self.loss.loss_time_ns = self.sent.detect_lost(
            self._largest_acked, now_ns, self.loss.loss_delay_ns, self.loss.packet_threshold
        )
        if lost is None:
            return
        if self._observer is not None:
            numbers = lost.packet_numbers
            reordered_below = self._largest_acked - self.loss.packet_threshold + 1
            self._observer.packets_lost(now_ns, numbers, self.sent.kinds(numbers), reordered_below)
        self.bytes_in_flight -= lost.bytes
        self.data.on_lost(lost.data)
        self.messages.on_lost(lost.messages)
        for size in lost.probes:
            self.mtu.on_probe_lost(size, now_ns)
        # A lost probe of the path MTU says nothing about congestion (RFC 8899 section 3).
        count = lost.packets - len(lost.probes)
        if not count:
            return
        lost_bytes = lost.bytes - sum(lost.probes)
        self.packets_lost += count
        self._delivery.lost_bytes += lost_bytes
        self.mtu.on_packets_lost(lost.largest_bytes, count)
        self._apply_datagram_size()
        state = lost.newest_state
        if state.sent_time_ns > self._loss_event_ns:
            self._loss_event_ns = now_ns
            self._may_resend_one = True
        self._unproven_losses = count
        self._loss_event_first = int(lost.packet_numbers[0])
        self._loss_event_sent_time_ns = state.sent_time_ns
        outage_limit_ns = self.loss.persistent_congestion_ns
        is_persistent = lost.span_ns > outage_limit_ns and self.sent.outage_ns(lost) > outage_limit_ns
        if is_persistent:
            self.rtt.on_persistent_congestion()
        self.controller.on_loss(
            LossSample(
                now_ns=now_ns,
                lost_bytes=lost_bytes,
                bytes_in_flight=self.bytes_in_flight,
                newest_lost_sent_time_ns=state.sent_time_ns,
                in_flight_at_send_bytes=state.in_flight_bytes,
                is_persistent=is_persistent,
            )
        )

    def _apply_datagram_size(self) -> None:
        if self.mtu.datagram_bytes != self._datagram_bytes:
            self._datagram_bytes = self.mtu.datagram_bytes
            self.controller.on_datagram_size(self._datagram_bytes)
