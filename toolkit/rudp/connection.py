"""One connection: packets and time in, packets and timers out, and nothing else (sans-I/O).

The handshake comes before (`handshake.py`); a `Connection` begins established. What it is made of: `sender.py` (what
goes out next) on `recovery.py` (what becomes of it: acknowledged or lost; congestion), `receiver.py` (what arrived,
acknowledgements), `state.py` (how it ends).
"""

from collections import deque
from typing import Final

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.batch import Batch, PeerAddress, Transmit
from toolkit.rudp.config import Config
from toolkit.rudp.observer import ConnectionObserver, Timer
from toolkit.rudp.path import PathValidation
from toolkit.rudp.receiver import Receiver
from toolkit.rudp.sender import Sender
from toolkit.rudp.state import TRANSITIONS, ConnectionEvent, ConnectionState
from toolkit.rudp.stats import ConnectionStats
from toolkit.rudp.streams import DataSource

KEEP_ALIVES_PER_IDLE_TIMEOUT: Final = 3
REFUSAL_NS: Final = 500_000_000
"""So long the other host must say that nobody is there, while nothing else comes, before it is believed: a client that
moves leaves a closed port behind, and an ICMP message can be forged."""
_MAX_RESPONSES: Final = 4


class Connection:
    """The order of calls, by a driver that owns the clock and the socket:

    1. `handle_batch` for what has arrived, and after each: `received_data`, `poll_message` until None
    2. `handle_timeout` once `poll_timeout` has come
    3. commands: `send_message`, `offer_data`, `close`
    4. `poll_transmit` until None, sending each result before the next call
    5. wait for a datagram, at most until `poll_timeout`

    All times are nanoseconds of one clock that never goes back. Bytes of the data space are read from `source` when
    they are sent, as often as they must be.
    """

    def __init__(
        self,
        config: Config,
        source: DataSource,
        local_id: int,
        peer_id: int,
        peer_datagram_bytes: int,
        now_ns: int,
        accept: wire.AcceptPacket | None = None,
        observer: ConnectionObserver | None = None,
        peer_address: PeerAddress | None = None,
    ) -> None:
        """`accept` is what a server answers, kept in case the client has to ask again; None on the client's side.

        `observer` is told what happens. `peer_address` is where the client is at first, which may change; None on the
        client's side.
        """
        self.config = config
        self.local_id = local_id
        self.state = ConnectionState.ESTABLISHED
        self.close_code = 0
        self.close_reason = ""
        self.invalid_packets = 0
        self.sender = Sender(config, source, peer_id, peer_datagram_bytes, observer)
        self.receiver = Receiver(config.receive_window_bytes, config.max_message_bytes)
        self.receive_window = self.receiver.window
        self._peer_id = peer_id
        self._accept = accept.encode() if accept else None
        self._accept_due = accept is not None
        self._close_due = False
        self._acks: deque[wire.AckPacket] = deque()
        self._responses: deque[int] = deque(maxlen=_MAX_RESPONSES)
        self._candidate: PathValidation | None = None
        self._refused_since_ns: int | None = None
        self.peer_address = peer_address
        self.is_confirmed = accept is None  # the peer has shown that it knows our id
        self._last_received_ns = now_ns
        self._last_kept_alive_ns = now_ns
        self._ended_by: ConnectionEvent | None = None
        self._observer = observer
        if observer is not None:
            observer.connection_started(now_ns, local_id, peer_id, self.sender.controller.name)

    # Inputs

    def handle_batch(self, batch: Batch, now_ns: int) -> None:
        """Take datagrams of one sender. What no correct peer sends is counted and dropped."""
        self.receiver.begin_batch()
        data, segment = batch.data, batch.segment_bytes
        while data:
            size = min(segment, len(data))
            taken = 1
            try:
                if data[0] == wire.PacketType.DATA and self.state is ConnectionState.ESTABLISHED:
                    taken = self.receiver.receive_data_untrusted(data, size, self.local_id, now_ns)
                else:
                    self._handle_datagram(data[:size], now_ns)
            except ProtocolError:
                self.invalid_packets += 1
            else:
                self._last_received_ns = now_ns
                self._refused_since_ns = None
                self.is_confirmed |= data[0] >= wire.PacketType.DATA
                self.receiver.note_ecn(batch.ecn, taken, now_ns)
                if self._observer is not None:
                    self._observer.packets_received(now_ns, Batch(data[: taken * size], size, batch.ecn))
            data = data[taken * size :]

    def _handle_datagram(self, datagram: memoryview, now_ns: int) -> None:
        kind, connection_id = wire.connection_id_untrusted(datagram)
        if kind == wire.PacketType.INITIAL and self._accept is not None:
            if wire.decode_initial_untrusted(datagram).client_id != self._peer_id:
                raise ProtocolError("an INITIAL packet of another client")
            self._accept_due = True
            return
        if connection_id != self.local_id:
            raise ProtocolError("a packet carries a connection id that is not this one's")
        if kind == wire.PacketType.ACCEPT:
            return  # the answer to an INITIAL that was sent twice
        _, flags, _, number = wire.COMMON.unpack_untrusted(datagram)
        if number >= wire.MAX_OFFSET:
            raise ProtocolError("a packet number makes no sense")
        if self.state is ConnectionState.CLOSING and kind != wire.PacketType.CLOSE:
            self._close_due = True
        elif self.state is ConnectionState.CLOSED:
            return
        elif kind == wire.PacketType.ACK:
            if self.sender.on_ack_untrusted(wire.decode_ack_untrusted(datagram), now_ns):
                self._report_stats(now_ns)
            self.receiver.note_silent_packet(number)
        elif kind == wire.PacketType.MESSAGE:
            *_, position = wire.DATA.unpack_untrusted(datagram)
            if len(datagram) == wire.HEADER_BYTES:
                raise ProtocolError("a MESSAGE packet has no payload")
            self.receiver.messages.receive_untrusted(position, datagram[wire.HEADER_BYTES :])
            self.receiver.note_packet(number, flags, len(datagram), now_ns)
        elif kind == wire.PacketType.PING:
            *_, least_unacked, ack_every_bytes, max_ack_delay_us = wire.PING.unpack_untrusted(datagram)
            self.receiver.on_frequency(least_unacked, ack_every_bytes, max_ack_delay_us * 1000)
            self.receiver.note_packet(number, flags, len(datagram), now_ns)
        elif kind == wire.PacketType.PROBE:
            self.receiver.note_packet(number, flags, len(datagram), now_ns)
        elif kind == wire.PacketType.PATH_CHALLENGE:
            self._responses.append(wire.PATH.unpack_untrusted(datagram)[-1])
            self.receiver.note_silent_packet(number)
        elif kind == wire.PacketType.PATH_RESPONSE:
            self._on_path_response(wire.PATH.unpack_untrusted(datagram)[-1], now_ns)
            if self._observer is not None and self.peer_address is not None:
                self._observer.path_validated(now_ns, self.peer_address)
            self.receiver.note_silent_packet(number)
        elif kind == wire.PacketType.CLOSE:
            self.close_code, self.close_reason = wire.decode_close_untrusted(datagram)
            self._move(ConnectionEvent.PEER_CLOSED)
        else:
            raise ProtocolError("a packet is of a type that there is not")

    def handle_off_path_batch(self, batch: Batch, peer_address: PeerAddress, challenge: int, now_ns: int) -> None:
        """Take datagrams that came by another path than the active one; `challenge` is 64 fresh unguessable bits.

        Where they brought anything new, that path is validated, and becomes the active one.
        """
        receiver = self.receiver
        before = receiver.received_packets - receiver.duplicate_packets
        self.handle_batch(batch, now_ns)
        is_new = receiver.received_packets - receiver.duplicate_packets > before
        candidate = self._candidate
        if is_new and (candidate is None or candidate.path != peer_address or candidate.is_given_up(now_ns)):
            self._candidate = PathValidation(peer_address, challenge, now_ns)

    def _on_path_response(self, response: int, now_ns: int) -> None:
        if self._candidate is None or response != self._candidate.challenge:
            raise ProtocolError("a PATH_RESPONSE answers no challenge")
        is_same_host = self.peer_address is not None and self.peer_address[0] == self._candidate.path[0]
        self.peer_address = self._candidate.path
        self._candidate = None
        if not is_same_host:
            self.sender.reset_path()
        # What was said since the move has gone to where nobody is.
        self.receiver.request_ack(now_ns)
        self.sender.request_ping()

    def handle_local_address_change(self) -> None:
        """This side's own address has changed: what was known of the path is forgotten (RFC 9000 section 9.4)."""
        self.sender.reset_path()
        self.sender.request_ping()

    def handle_timeout(self, now_ns: int) -> None:
        """Let the timers that have come do their work."""
        if self.state is not ConnectionState.ESTABLISHED:
            return
        silence = self._silence(now_ns)
        if silence is not None:
            if self._observer is not None:
                self._observer.timer_expired(now_ns, Timer.IDLE)
            self._lose(f"{silence} for {self.config.idle_timeout_ns / 1e9:g} s")
            return
        if now_ns >= self._keep_alive_ns():
            self._last_kept_alive_ns = now_ns
            self.sender.request_ping()
        if self.sender.on_timeout(now_ns):
            self._report_stats(now_ns)

    def handle_unreachable(self, now_ns: int) -> None:
        """The other host has said that nobody is at that port."""
        if self.state is not ConnectionState.ESTABLISHED:
            return
        if self._refused_since_ns is None:
            self._refused_since_ns = now_ns
        elif now_ns - self._refused_since_ns >= REFUSAL_NS:
            self._lose("the peer is gone: its port is closed")
            return
        if not self.sender.bytes_in_flight:  # what is in flight is probed for anyhow, and not in a tight loop
            self.sender.request_ping()

    # Commands

    def start(self, data_window: int, rtt_ns: int | None) -> None:
        """What a client has learnt from the handshake: how much may be sent, and the first RTT sample, if any.

        It answers at once with a PING: the server hands a connection out when the client has used its id.
        """
        self.sender.data.window = data_window
        self.sender.request_ping()
        if rtt_ns is not None:
            self.sender.rtt.update(rtt_ns, 0)

    def send_message(self, message: bytes) -> None:
        """Queue a message (at most `config.max_message_bytes`)."""
        self.sender.queue_message(message)

    def offer_data(self, length_bytes: int) -> int:
        """The source has so many more bytes; returns the position of the first of them."""
        return self.sender.data.offer(length_bytes)

    def close(self, code: int, reason: str) -> None:
        """End it: CLOSE goes out by the next `poll_transmit`. What was not acknowledged is given up."""
        if self.state is ConnectionState.ESTABLISHED:
            self._close_due = True
            self.close_code, self.close_reason = code, reason
        self._move(ConnectionEvent.CLOSE)

    def update_receive_window(self, dropped_datagrams: int, is_drained: bool) -> None:
        """Fit the receive window to the socket; call it after each arrival. The next acknowledgement tells the peer.

        `dropped_datagrams` is how many the host has dropped at this socket so far (SO_RXQ_OVFL). `is_drained` says
        that the driver has emptied the socket's queue.
        """
        self.receiver.adapt_window(dropped_datagrams, is_drained)

    def set_receive_limit(self, position: int) -> None:
        """Data from `position` on is dropped as if it were lost: the application has no place for it yet."""
        self.receiver.accept_limit = position

    # Outputs

    def received_data(self) -> list[tuple[int, memoryview]]:
        """(position, bytes) that the last `handle_batch` brought for the first time; valid until the next one."""
        return self.receiver.received_data()

    def poll_message(self, now_ns: int) -> bytes | None:
        """The next message in order, None when there is none yet."""
        message = self.receiver.messages.poll()
        if message is not None and self.receiver.messages.wants_update:
            self.receiver.request_ack(now_ns)
        return message

    def poll_transmit(self, now_ns: int) -> Transmit | None:
        """The next datagrams to send, None when there are none for now. Valid until the next call."""
        transmit = self._next_transmit(now_ns)
        if self._observer is not None:
            if self._ended_by is not None:
                self._observer.connection_closed(now_ns, self._ended_by, self.close_code, self.close_reason)
                self._ended_by = None
            if transmit is not None:
                self._observer.packets_sent(now_ns, transmit)
        return transmit

    def _next_transmit(self, now_ns: int) -> Transmit | None:
        if self.state is ConnectionState.CLOSED:
            return None
        if self._accept_due and self._accept is not None:
            self._accept_due = False
            return Transmit(memoryview(self._accept), len(self._accept))
        if self.state is ConnectionState.CLOSING:
            if not self._close_due:
                return None
            self._close_due = False
            close = wire.encode_close(self._peer_id, self.sender.sent.skip(), self.close_code, self.close_reason)
            return Transmit(memoryview(close), len(close))
        if not self.is_confirmed:  # who asked may have forged a victim's address (RFC 9000 section 8.1)
            return None
        ack_time_ns = self.receiver.ack_time_ns
        if ack_time_ns is not None and now_ns >= ack_time_ns:
            self._acks.extend(self.receiver.make_acks(now_ns, self.sender.mtu.datagram_bytes))
        if self._responses:
            return self._path_packet(wire.PacketType.PATH_RESPONSE, self._responses.popleft(), None)
        if self._candidate is not None:
            challenge = self._candidate.poll_challenge(now_ns, self.sender.rtt.pto_ns(0))
            if challenge is not None:
                return self._path_packet(wire.PacketType.PATH_CHALLENGE, challenge, self._candidate.path)
        if self._acks:
            ack = wire.encode_ack(self._peer_id, self.sender.sent.skip(), self._acks.popleft())
            return Transmit(memoryview(ack), len(ack), self.sender.ecn_codepoint)
        return self.sender.poll_transmit(now_ns)

    def _path_packet(self, kind: wire.PacketType, value: int, destination: PeerAddress | None) -> Transmit:
        packet = wire.PATH.pack(kind, 0, self._peer_id, self.sender.sent.skip(), value)
        return Transmit(memoryview(packet), len(packet), destination=destination)

    def poll_timeout(self) -> int | None:
        """When `handle_timeout` and `poll_transmit` want to be called at the latest; None for never."""
        if self.state is not ConnectionState.ESTABLISHED:
            return None
        times = [
            self._last_received_ns + self.config.idle_timeout_ns,
            self._keep_alive_ns(),
            self.sender.timeout_ns(),
            self.receiver.ack_time_ns,
            self._candidate.poll_timeout() if self._candidate else None,
        ]
        return min(time for time in times if time is not None)

    # Getters

    @property
    def is_fully_acked(self) -> bool:
        """All that was handed over has arrived."""
        return self.sender.is_fully_acked

    @property
    def received_offset(self) -> int:
        """Everything of the peer's data space below this has landed."""
        return self.receiver.contiguous_end

    @property
    def acked_offset(self) -> int:
        """Everything of the data space below this has arrived and is not asked for again."""
        return self.sender.data.acked.contiguous_end()

    @property
    def unsent_bytes(self) -> int:
        """Of what was offered, how much has never been sent."""
        return self.sender.data.end - self.sender.data.next_position

    @property
    def unacked_message_bytes(self) -> int:
        """Bytes of messages that were handed over and are not known to have arrived."""
        return self.sender.messages.end - self.sender.messages.acked.contiguous_end()

    @property
    def pto_count(self) -> int:
        """Probe timeouts in a row, with nothing acknowledged in between."""
        return self.sender.loss.pto_count

    @property
    def acked_bytes(self) -> int:
        """Bytes of data and messages that have arrived. O(n) in the holes between them."""
        return self.sender.data.acked.size() + self.sender.messages.acked.size()

    @property
    def bytes_until_ack(self) -> int:
        """How much may still arrive in sequence before an acknowledgement is due; 0 while none is scheduled."""
        return self.receiver.bytes_until_ack

    def stats(self) -> ConnectionStats:
        """A snapshot of the path and the counters."""
        sender, receiver = self.sender, self.receiver
        return ConnectionStats(
            latest_rtt_ns=sender.rtt.latest_rtt_ns,
            min_rtt_ns=sender.rtt.min_rtt_ns,
            smoothed_rtt_ns=sender.rtt.smoothed_rtt_ns,
            rttvar_ns=sender.rtt.rttvar_ns,
            pto_ns=sender.rtt.pto_ns(0),
            pto_count=sender.loss.pto_count,
            packet_threshold=sender.loss.packet_threshold,
            loss_time_ns=sender.loss.loss_time_ns,
            congestion_control=sender.controller.name,
            congestion_window_bytes=sender.controller.congestion_window_bytes,
            pacing_rate_bps=sender.controller.pacing_rate_bps,
            congestion=sender.controller.snapshot(),
            datagram_bytes=sender.mtu.datagram_bytes,
            is_mtu_found=sender.mtu.is_found,
            next_packet_number=sender.sent.next_packet_number,
            bytes_in_flight=sender.bytes_in_flight,
            packets_sent=sender.packets_sent,
            bytes_sent=sender.bytes_sent,
            packets_retransmitted=sender.packets_retransmitted,
            packets_lost=sender.packets_lost,
            lost_bytes=sender.lost_bytes,
            packets_spuriously_lost=sender.packets_spurious,
            delivered_bytes=sender.delivered_bytes,
            data_sent_bytes=sender.data.next_position,
            message_sent_bytes=sender.messages.next_position,
            data_send_limit=sender.data.window,
            is_data_blocked=sender.data.is_blocked,
            data_receive_limit=receiver.window.limit,
            packets_received=receiver.received_packets,
            packets_duplicate=receiver.duplicate_packets,
            packets_invalid=self.invalid_packets,
            peer_dropped_datagrams=sender.peer_drop_count,
        )

    def _report_stats(self, now_ns: int) -> None:
        if self._observer is not None:
            self._observer.stats_updated(now_ns, self.stats())

    def _silence(self, now_ns: int) -> str | None:
        """What has been missed for the idle timeout, if anything."""
        since_ns = now_ns - self.config.idle_timeout_ns
        if self._last_received_ns <= since_ns:
            return "nothing was heard of the peer"
        oldest_ns = self.sender.sent.oldest_sent_time_ns
        if oldest_ns is not None and oldest_ns <= since_ns:
            # An acknowledgement of anything later would have shown that packet lost: nothing arrives there, or the
            # peer would have this side remember for ever what it sends.
            return "the peer has acknowledged nothing"
        return None

    def _keep_alive_ns(self) -> int:
        last = max(self._last_kept_alive_ns, self._last_received_ns)
        return last + self.config.idle_timeout_ns // KEEP_ALIVES_PER_IDLE_TIMEOUT

    def _lose(self, reason: str) -> None:
        self.close_code, self.close_reason = 4, reason
        self._move(ConnectionEvent.LOST)

    def _move(self, event: ConnectionEvent) -> None:
        if self.state is ConnectionState.ESTABLISHED:
            self._ended_by = event
        self.state = TRANSITIONS[self.state, event]
