"""One connection as a sans-I/O engine: datagrams and times in, datagrams and timeouts out.

`handshake.py` establishes a connection; a `Connection` begins established. Its parts: what to send next (sender.py) and
what became of it (loss_recovery.py, which owns the path in use, path.py); which packets have arrived (ack_tracker.py),
what they carried (assembler.py), and how much may arrive (flow_control.py); acknowledgements, path validation and CLOSE
(control_packets.py); sealing and opening (protection.py); the states, and the timers that end it (state.py).
"""

from collections.abc import Callable
from typing import Final

from toolkit.errors import ExitCode, ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.ack_tracker import AckTracker
from toolkit.rudp.assembler import DataAssembler, MessageAssembler
from toolkit.rudp.batch import Batch, PeerAddress, Transmit
from toolkit.rudp.config import Config
from toolkit.rudp.control_packets import ControlPackets, FinishPacket
from toolkit.rudp.flow_control import ReceiveWindow
from toolkit.rudp.observer import ConnectionObserver, Timer
from toolkit.rudp.path import PathState
from toolkit.rudp.protection import ForgeryLimitError, PacketProtection
from toolkit.rudp.sender import Sender, take_stats
from toolkit.rudp.skipped_numbers import SkippedPacketError
from toolkit.rudp.state import ConnectionLifetime, ConnectionState
from toolkit.rudp.stats import ConnectionStats
from toolkit.rudp.streams import DataSource
from toolkit.rudp.wire import PacketType


class Connection:
    """An established connection. A driver owns the clock and the socket, and calls in this order:

    1. `handle_batch` for each received batch, and after each: `received_data`, and `poll_message` until None
    2. `handle_timeout` once the time of `poll_timeout` has come
    3. commands: `send_message`, `offer_data`, `close`
    4. `poll_transmit` until None, sending each result before the next call
    5. wait for a datagram, at most until `poll_timeout`

    Times are in ns of one clock that never goes back. `source` is read whenever bytes are sent or retransmitted.

    sender, acks, receive_window: for tests; drivers may lower the limits of `sender`, and use `max_ack_delay_ns`,
                                  `bytes_until_ack` and `send_time_ns` of `acks`
    """

    def __init__(
        self,
        config: Config,
        source: DataSource,
        local_id: int,
        peer_id: int,
        peer_datagram_bytes: int,
        now_ns: int,
        protection: PacketProtection,
        finish: FinishPacket | None = None,
        observer: ConnectionObserver | None = None,
        peer_address: PeerAddress | None = None,
        rtt_ns: int | None = None,
    ) -> None:
        """`protection` seals and opens every packet. `observer` receives the events.

        `finish` is a client's last packet of the handshake. It is sent first, and again after every probe timeout until
        a packet of the server has opened. `peer_address` is the client's address, which may change; None on a client.
        `rtt_ns` is the first RTT sample, that of the handshake, if there is one.
        """
        self.local_id = local_id
        path = PathState(config, peer_datagram_bytes, peer_address)
        self.sender = Sender(path, source, peer_id, protection, config.seed, observer)
        self.acks = AckTracker()
        self.receive_window = ReceiveWindow(config.receive_window_bytes)
        self._recovery = self.sender.recovery
        self._observer = observer
        if rtt_ns is not None:
            self._recovery.on_handshake_rtt(rtt_ns, now_ns)
        self._data = DataAssembler(local_id, self.receive_window, self.acks, protection)
        self._messages = MessageAssembler(config.max_message_bytes)
        self._lifetime = ConnectionLifetime(config.idle_timeout_ns, now_ns)
        self._protection, self._finish = protection, finish or FinishPacket()
        self._packets_invalid = 0
        self._control = ControlPackets(self._recovery.sent, peer_id, protection.tag_bytes)
        self._max_ack_ranges = wire.max_ack_ranges(path.max_datagram_bytes - protection.tag_bytes)
        if observer is not None:
            observer.connection_started(now_ns, local_id, peer_id, path.controller.name, protection.tag_bytes)

    # Inputs

    def handle_batch(self, batch: Batch, now_ns: int) -> None:
        """Take datagrams. Invalid ones are counted and dropped. Duplicates and late handshake packets do nothing."""
        self._data.begin_batch()
        self.acks.waited_ns = batch.waited_ns
        acks, data, segment_bytes = self.acks, batch.data, batch.segment_bytes
        while data:
            size = min(segment_bytes, len(data))
            taken, accepted_before = 1, acks.packets_accepted
            try:
                if data[0] == PacketType.DATA and self._lifetime.state is ConnectionState.ESTABLISHED:
                    taken = self._data.receive_untrusted(data, size, now_ns)
                    if self._observer is not None:
                        self._observer.packets_received(now_ns, Batch(data[: taken * size], size, batch.ecn))
                elif not PacketType.INITIAL <= data[0] < PacketType.DATA:
                    packet = self._handle_packet_untrusted(data[:size], now_ns)
                    if self._observer is not None:
                        whole = memoryview(bytes(packet).ljust(size, b"\0"))
                        self._observer.packets_received(now_ns, Batch(whole, size, batch.ecn))
            except ProtocolError as error:
                self._packets_invalid += 1
                if isinstance(error, SkippedPacketError | ForgeryLimitError):
                    self.close(ExitCode.FAILED, str(error))
            if accepted := acks.packets_accepted - accepted_before:
                self._finish.stop()
                self._lifetime.on_received(now_ns)
                acks.on_ecn(batch.ecn, accepted, now_ns)
            data = data[taken * size :]

    def _handle_packet_untrusted(self, datagram: memoryview, now_ns: int) -> memoryview:
        """Open one packet and handle it; return it in the clear, without tag."""
        packet_type, flags, connection_id, number = wire.COMMON.unpack_untrusted(datagram)
        if connection_id != self.local_id:
            raise ProtocolError("packet with an unknown connection id")
        if number >= wire.MAX_OFFSET:
            raise ProtocolError("packet number out of range")
        packet = self._protection.open_untrusted(datagram)
        if self.state is not ConnectionState.ESTABLISHED and packet_type != PacketType.CLOSE:
            self._lifetime.on_late_packet()
            return packet
        is_eliciting = packet_type in wire.ACK_ELICITING
        if self.acks.is_duplicate(number):
            self.acks.on_duplicate(is_eliciting)
            return packet
        handler = _HANDLERS.get(packet_type)
        if handler is None:
            raise ProtocolError(f"unknown packet type {packet_type:#04x}")
        handler(self, packet, now_ns)
        if is_eliciting:
            self.acks.on_packet(number, flags, len(datagram), now_ns)
        else:
            self.acks.on_non_eliciting_packet(number)
        return packet

    def _on_ack_untrusted(self, datagram: memoryview, now_ns: int) -> None:
        ack = wire.decode_ack_untrusted(datagram, self._max_ack_ranges)
        if self._recovery.on_ack_untrusted(ack, now_ns, self.acks.waited_ns):
            self._report_stats(now_ns)

    def _on_message_untrusted(self, datagram: memoryview, _now_ns: int) -> None:
        *_, offset = wire.DATA.unpack_untrusted(datagram)
        if len(datagram) <= wire.HEADER_BYTES:
            raise ProtocolError("MESSAGE packet without payload")
        self._messages.receive_untrusted(offset, datagram[wire.HEADER_BYTES :])

    def _on_ping_untrusted(self, datagram: memoryview, now_ns: int) -> None:
        _, flags, _, number, least_unacked, ack_every_bytes, max_ack_delay_us = wire.PING.unpack_untrusted(datagram)
        self.acks.on_ack_frequency(number, least_unacked, ack_every_bytes, max_ack_delay_us * 1000)
        if flags & wire.Flags.HELD_UP:
            self._recovery.on_held_up(now_ns)

    def _on_path_challenge_untrusted(self, datagram: memoryview, _now_ns: int) -> None:
        *_, challenge = wire.PATH.unpack_untrusted(datagram)
        self._control.queue_response(challenge, len(datagram) + self._protection.tag_bytes)

    def _on_path_response_untrusted(self, datagram: memoryview, now_ns: int) -> None:
        path = self._recovery.path.validate_untrusted(wire.PATH.unpack_untrusted(datagram)[-1])
        if path is not self._recovery.path:
            self._recovery.change_path(path)
        # What was sent since the peer moved has gone to its old address.
        self.acks.request_ack(now_ns)
        self.sender.request_ping()
        if self._observer is not None and path.peer_address is not None:
            self._observer.path_validated(now_ns, path.peer_address)

    def _on_close_untrusted(self, datagram: memoryview, _now_ns: int) -> None:
        self._lifetime.on_peer_close(*wire.decode_close_untrusted(datagram))

    def handle_off_path_batch(self, batch: Batch, peer_address: PeerAddress, challenge: int, now_ns: int) -> None:
        """Take datagrams that came from another address than the peer's current one.

        If an ack-eliciting one has the highest packet number so far, that path is validated, and then used (RFC 9000
        section 9.3). `challenge` is 64 fresh random bits.
        """
        largest_before, accepted_before = self.acks.largest_eliciting, self.acks.packets_accepted
        self.handle_batch(batch, now_ns)
        path = self._recovery.path
        if self.acks.largest_eliciting > largest_before:
            path.propose(peer_address, challenge, now_ns)
        if path.candidate is not None and self.acks.packets_accepted > accepted_before:
            path.candidate.on_received(peer_address, len(batch.data))

    def handle_local_drop(self, transmit: Transmit, count: int, now_ns: int) -> None:
        """This host had no room for the last `count` datagrams of `transmit`, the latest one: send streams again."""
        is_stream = PacketType.DATA <= transmit.data[0] <= PacketType.MESSAGE
        self.sender.on_local_drop(count if is_stream else 0, now_ns)

    def handle_local_address_change(self) -> None:
        """This side's own address has changed: use a new path (RFC 9000 section 9.4)."""
        self._recovery.change_path(self._recovery.path.successor(self.peer_address))
        self.sender.request_ping()

    def handle_timeout(self, now_ns: int) -> None:
        """Act on the timers that have expired, if any has."""
        if self.state is not ConnectionState.ESTABLISHED:
            return
        if self._lifetime.expire_idle(now_ns, self._recovery.unacked_since_ns):
            if self._observer is not None:
                self._observer.timer_expired(now_ns, Timer.IDLE)
            return
        if self._lifetime.take_keep_alive(now_ns):
            self.sender.request_ping()
        if self._recovery.on_timeout(now_ns):
            self._report_stats(now_ns)

    def handle_unreachable(self, now_ns: int) -> None:
        """The host of the peer has reported that its port is closed (ICMP "port unreachable")."""
        if self.state is not ConnectionState.ESTABLISHED:
            return
        self._lifetime.on_unreachable(now_ns)
        if not self._recovery.bytes_in_flight:  # otherwise the probe timeout asks again, at a lower rate
            self.sender.request_ping()

    # Commands

    def start(self, data_limit: int) -> None:
        """Begin on a client, with the send limit. It sends a PING at once: the answer shows that FINISH has arrived."""
        self.sender.streams.data.limit = data_limit
        self.sender.request_ping()

    def use_controller(self, name: str, rate_bps: float | None) -> None:
        """Let another congestion controller take over before data is sent. Raises UsageError for an unknown name."""
        self._recovery.path.use_controller(name, rate_bps)

    def send_message(self, message: bytes) -> None:
        """Queue a message of at most `config.max_message_bytes`."""
        self.sender.queue_message(message)

    def offer_data(self, length_bytes: int) -> int:
        """Add bytes to the data stream, to be read from the source; return the stream offset of the first."""
        return self.sender.streams.data.offer(length_bytes)

    def close(self, code: int, reason: str) -> None:
        """End the connection and give up what was not acknowledged. After each call, `poll_transmit` returns CLOSE."""
        self._lifetime.close(code, reason)

    def update_receive_window(self, dropped_datagrams: int, is_drained: bool, now_ns: int) -> None:
        """Adapt the receive window to path and socket; call it after each arrival. The next ACK tells the peer.

        `dropped_datagrams` is a total (SO_RXQ_OVFL); `is_drained` says that the driver has emptied the socket's queue.
        """
        self.receive_window.on_rtt(self._recovery.path.rtt.latest_rtt_ns, self._recovery.rtt_sample_time_ns)
        self.receive_window.adapt(self._data.received_end, dropped_datagrams, is_drained, now_ns)

    def set_accept_limit(self, offset: int) -> None:
        """Drop data from stream offset `offset` on as if it were lost: the application has no room for it yet."""
        self._data.accept_limit = offset

    # Outputs

    def received_data(self) -> list[tuple[int, memoryview]]:
        """(stream offset, bytes) of the data that is new in the last batch; valid until the next batch."""
        return self._data.received()

    def poll_message(self, now_ns: int) -> bytes | None:
        """The next message in order; None until it is complete."""
        message = self._messages.poll()
        if message is not None and self._messages.window.wants_update:
            self.acks.request_ack(now_ns)
        return message

    def poll_transmit(self, now_ns: int) -> Transmit | None:
        """The next datagrams to send; None if nothing may be sent now. Valid until the next call."""
        if self._lifetime.state is ConnectionState.ESTABLISHED and not self.sender.update_keys():
            self.close(ExitCode.FAILED, "the peer acknowledges nothing, so the keys cannot be updated")
        transmit = self._next_transmit(now_ns)
        if self._observer is not None and (end := self._lifetime.take_unreported_end()) is not None:
            self._observer.connection_closed(now_ns, end, self.close_code, self.close_reason)
        return None if transmit is None else self._sealed(transmit, now_ns)

    def poll_keep_alive(self, now_ns: int) -> Transmit | None:
        """A PING that says that this side is held up, by a file.

        Another thread may call this while the driver's reads the source, uses `received_data`, or is between calls.
        """
        self._recovery.on_held_up(now_ns)
        is_open = self._lifetime.state is ConnectionState.ESTABLISHED
        return self._sealed(self.sender.ping(now_ns, wire.Flags.HELD_UP), now_ns) if is_open else None

    def _sealed(self, transmit: Transmit, now_ns: int) -> Transmit:
        """Report what is sent, and seal it, unless it is of the handshake, or was sealed with its batch."""
        if self._observer is not None:
            self._observer.packets_sent(now_ns, transmit)
        if transmit.data[0] <= PacketType.MESSAGE:
            return transmit
        return transmit._replace(data=memoryview(self._protection.seal(bytes(transmit.data))))

    def _next_transmit(self, now_ns: int) -> Transmit | None:
        if self._lifetime.state is not ConnectionState.ESTABLISHED:
            return self._control.close(self.close_code, self.close_reason) if self._lifetime.take_close() else None
        path, finish = self._recovery.path, self._finish
        first = finish.poll_transmit(path, now_ns) if finish.is_pending else self.sender.poll_new_message(now_ns)
        if first is not None:
            return first
        if self.acks.ack_time_ns is not None and now_ns >= self.acks.ack_time_ns:
            self._make_acks(now_ns)
        return self._control.poll_transmit(path, now_ns) or self.sender.poll_transmit(now_ns)

    def _make_acks(self, now_ns: int) -> None:
        packet_bytes = self._recovery.path.mtu.datagram_bytes - self._protection.tag_bytes
        data_limit, message_limit = self._data.advertise_limit(), self._messages.window.advertise()
        dropped_datagrams = self.receive_window.dropped_datagrams
        acks = self.acks.make_acks(now_ns, packet_bytes, data_limit, message_limit, dropped_datagrams)
        self._control.queue_acks(acks)
        if self.receive_window.wants_rtt(self._data.received_end, now_ns):
            self.sender.request_ping()

    def poll_timeout(self) -> int | None:
        """When to call `handle_timeout` and `poll_transmit` at the latest; None for never."""
        if self._lifetime.state is not ConnectionState.ESTABLISHED:
            return None
        path = self._recovery.path
        challenge_ns = path.candidate.poll_timeout() if path.candidate else None
        times = (self._lifetime.poll_timeout(), self.sender.poll_timeout(), self._finish.poll_timeout(path))
        return min([time for time in (*times, self.acks.ack_time_ns, challenge_ns) if time is not None])

    # Getters

    @property
    def state(self) -> ConnectionState:
        """ESTABLISHED, CLOSING or CLOSED."""
        return self._lifetime.state

    @property
    def close_code(self) -> int:
        """Why the connection has ended: 0, or the exit code of the side that has ended it."""
        return self._lifetime.close_code

    @property
    def close_reason(self) -> str:
        """Why the connection has ended; perhaps the peer's text."""
        return self._lifetime.close_reason

    @property
    def peer_address(self) -> PeerAddress | None:
        """Where the peer is; None on a client, whose peer does not move."""
        return self._recovery.path.peer_address

    @property
    def is_fully_acked(self) -> bool:
        """All data and messages that were handed over have arrived."""
        return self.sender.streams.is_fully_acked

    @property
    def received_offset(self) -> int:
        """The stream offset below which all data from the peer has arrived."""
        return self._data.contiguous_end

    @property
    def acked_offset(self) -> int:
        """The stream offset below which all data has arrived at the peer; it will not be read again."""
        return self.sender.streams.data.acked.contiguous_end()

    def has_unsent(self, low_bytes: int, high_bytes: int) -> bool:
        """More data is unsent than two congestion windows, and than `low_bytes`, or more than `high_bytes`."""
        return self.sender.has_unsent(low_bytes, high_bytes)

    @property
    def unacked_message_bytes(self) -> int:
        """Bytes of messages that were handed over and not acknowledged."""
        return self.sender.streams.messages.end - self.sender.streams.messages.acked.contiguous_end()

    @property
    def acked_bytes(self) -> int:
        """Bytes of data and messages that were acknowledged. O(n) in the number of gaps between them."""
        return self.sender.streams.data.acked.size() + self.sender.streams.messages.acked.size()

    @property
    def pto_count(self) -> int:
        """Probe timeouts in a row, with nothing acknowledged in between."""
        return self._recovery.path.loss.pto_count

    @property
    def pacing_rate_bps(self) -> float:
        """The rate that the congestion controller allows."""
        return self._recovery.path.controller.pacing_rate_bps

    def stats(self) -> ConnectionStats:
        """A snapshot of the path and the counters."""
        return take_stats(self.sender, self.acks, self.receive_window, self._packets_invalid)

    def _report_stats(self, now_ns: int) -> None:
        if self._observer is not None:
            self._observer.stats_updated(now_ns, self.stats())


_HANDLERS: Final[dict[int, Callable[[Connection, memoryview, int], None]]] = {
    PacketType.ACK: Connection._on_ack_untrusted,
    PacketType.MESSAGE: Connection._on_message_untrusted,
    PacketType.PING: Connection._on_ping_untrusted,
    PacketType.PROBE: lambda *_: None,  # only elicits an acknowledgement
    PacketType.PATH_CHALLENGE: Connection._on_path_challenge_untrusted,
    PacketType.PATH_RESPONSE: Connection._on_path_response_untrusted,
    PacketType.CLOSE: Connection._on_close_untrusted,
}
