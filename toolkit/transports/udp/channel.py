"""A channel over one reliable-UDP connection: the engine of `toolkit.rudp` with a real clock and a real socket.

The calls of a channel drive the engine: each call that sends, receives or flushes handles what has arrived, runs the
timers that have expired, sends what may be sent, and waits for whichever event comes first. No thread is behind it,
except that one of the process sends keep-alives while a channel waits for a file (keep_alive.py).
"""

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from toolkit.channel import MAX_MESSAGE_BYTES, WAIT_CHECK_S, Address, Extent, ExtentSink, ExtentSource, Statistic
from toolkit.errors import ExitCode, PeerClosedError, ProtocolError, TransferError, closed_by_peer
from toolkit.rudp.batch import PeerAddress
from toolkit.rudp.connection import Connection
from toolkit.rudp.state import ConnectionState
from toolkit.transports.keep_alive import KEEP_ALIVES, FileWait
from toolkit.transports.udp.engine_config import check_controller
from toolkit.transports.udp.extents import (
    ANNOUNCEMENTS_MESSAGE,
    ANNOUNCEMENTS_PER_MESSAGE,
    APPLICATION_MESSAGE,
    IncomingExtents,
    OutgoingExtents,
    decode_announcements_untrusted,
)
from toolkit.transports.udp.last_exchange import await_acks, await_close
from toolkit.transports.udp.message_queue import MessageQueue
from toolkit.transports.udp.posted import PostedDatagrams
from toolkit.transports.udp.protection import SessionSecurity
from toolkit.transports.udp.qlog_files import ConnectionLog
from toolkit.transports.udp.read_pause import ReadPause
from toolkit.transports.udp.socket import DatagramSocket, PeerUnreachableError, wait_readable
from toolkit.transports.udp.statistics import HandshakeCounts, statistics_of
from toolkit.transports.udp.wake_pair import WakePair

BACKLOG_BYTES: Final = 4 << 20
"""A send waits while more content than this is unsent, or more bytes of messages are unacknowledged."""
MAX_BACKLOG_BYTES: Final = 64 << 20
"""On a long path, two congestion windows may be unsent, up to this: lost announcements come again before content."""
_PUMP_EVERY_BYTES: Final = 1 << 18
_TRANSMITS_PER_PUMP: Final = 8  # then the socket is read again: what waits in it looks like a longer path
_SENDING_READ_INTERVAL_NS: Final = 1_000_000  # how often the socket is read while messages are sent in a row
_QUEUED_READ_INTERVAL_NS: Final = 100_000_000  # how often it is read while queued messages are taken in a row
_PTOS_BEFORE_ROUTE_CHECK: Final = 3  # consecutive ones, after which a client looks for another route
_ROOM_CHECK_NS: Final = 10_000_000  # how often the engine runs while this host's queues are full
_KEPT_SEND_TIMES: Final = 8
_WAIT_CHECK_NS: Final = int(WAIT_CHECK_S * 1e9)


class UdpChannel:
    """One connection and its socket. See `toolkit.channel.Channel`."""

    def __init__(
        self,
        connection: Connection,
        sock: DatagramSocket,
        outgoing: OutgoingExtents,
        peer: Address,
        security: SessionSecurity,
        wake_pair: WakePair | None = None,
        log: ConnectionLog | None = None,
        on_close_sent: Callable[[bytes], None] | None = None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        """The channel owns everything that it is given.

        outgoing:      the data source of `connection`; security: for the statistics
        wake_pair:     lets a listener's thread end this channel's wait; None for a client
        on_close_sent: is given this side's last packets, at the end the CLOSE, to repeat for a peer that misses it
        on_end:        is called at the end
        """
        self._connection, self._socket, self._outgoing = connection, sock, outgoing
        self._peer, self._security = peer, security
        self.admitted = security.admitted  # see Channel
        self.backlog_bytes = BACKLOG_BYTES  # see TransportOptions
        self._wake_pair, self._log = wake_pair, log
        self._on_close_sent, self._on_end = on_close_sent, on_end
        sock.report_local_drops()
        self._posted, self._peer_address = PostedDatagrams(), connection.peer_address
        self._incoming, self._read_pause = IncomingExtents(outgoing.file_wait), ReadPause()
        self._messages, self._unpumped_bytes = MessageQueue(), 0  # the bytes are of extents
        # The last pump had more to send than it may at once; more than this host's queues have room for.
        self._is_closed = self._has_more = self._needs_room = False
        self.handshake = HandshakeCounts()  # the listener's thread counts them
        self._wait_check: Callable[[], None] | None = None
        self._send_times_ns: deque[int] = deque([0], maxlen=_KEPT_SEND_TIMES)  # of single datagrams, with their sealing
        self._read_ns = self._timer_ns = 0  # when the socket was last read; the next timer, as of the last wait
        KEEP_ALIVES.add(outgoing.file_wait, self._send_keep_alive)

    @property
    def peer(self) -> Address:
        return self._peer

    @property
    def socket(self) -> socket.socket:
        """The connection's socket, connected to the peer. It is another one after a change of the route."""
        return self._socket.sock

    @property
    def buffered_bytes(self) -> int:
        """The memory taken by content and messages that have arrived and wait for `receive`."""
        return self._incoming.stash_bytes + self._messages.size_bytes

    # The Channel protocol

    def send_message(self, message: bytes, has_more: bool = False) -> None:
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes is longer than {MAX_MESSAGE_BYTES}")
        self._check_open()
        self._announce()
        self._connection.send_message(APPLICATION_MESSAGE + message)
        if not has_more:
            self._pump_while(self._has_message_backlog, sends_first=True)

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        self._check_open()
        data_offset = self._connection.offer_data(extent.length)
        self._outgoing.add(data_offset, extent, source)
        self._unpumped_bytes += extent.length
        is_little = self._outgoing.unannounced < ANNOUNCEMENTS_PER_MESSAGE and self._unpumped_bytes < _PUMP_EVERY_BYTES
        if is_little and not self._has_backlog():
            return
        self._unpumped_bytes = 0
        self._announce()
        self._pump_while(self._has_backlog)

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        self._announce()
        deadline_ns = None if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            self._read_messages(time.monotonic_ns())
            if sink is not None and self._incoming.deliver_stash(sink):
                return None
            if self._messages:
                if not self._is_closed and time.monotonic_ns() - self._read_ns >= _QUEUED_READ_INTERVAL_NS:
                    self._pump(sink)  # a slow application would look gone to its peer
                return self._messages.take()
            self._check_open()
            has_delivered = self._pump(sink)
            if sink is None and self._incoming.has_stash:
                raise ProtocolError("the peer sent content, and none is expected")
            if has_delivered:
                return None
            if self._messages or self.is_over:
                continue
            if deadline_ns is not None and time.monotonic_ns() >= deadline_ns:
                return None
            if self._wait(deadline_ns, wake):
                return None

    def file_access(self) -> FileWait:
        return self._outgoing.file_wait

    def check_while_waiting(self, check: Callable[[], None]) -> None:
        self._wait_check = check

    def flush(self) -> None:
        self._announce()
        self._pump_while(lambda: not self._connection.is_fully_acked)

    def close(self, linger_s: float | None = None) -> None:
        if self._is_closed:
            return
        try:
            self._announce()
            await_acks(self._connection, self._pump_and_discard, self._wait, linger_s)
            if self._wake_pair is None:  # a listener repeats the CLOSE of its connections
                await_close(self._connection, self._pump_and_discard, self._wait_for_datagram)
        except BaseException:
            self.abort()
            raise
        self._end(0, "")

    def _pump_and_discard(self) -> None:
        """Pump at the end of the session, whatever the peer still sends, and although a source may have failed."""
        with contextlib.suppress(TransferError):
            self._pump(None)

    def abort(self) -> None:
        if not self._is_closed:
            self._end(ExitCode.INTERRUPTED, "the peer has aborted the session")

    @property
    def acknowledged_bytes(self) -> int:
        return self._outgoing.acknowledged_bytes

    def statistics(self) -> Mapping[str, Statistic]:
        return statistics_of(self._connection.stats(), self._socket, self._security, self.handshake)

    def choose_sending(self, congestion_control: str | None, rate_bps: float | None, backlog_bytes: int | None) -> None:
        """Send as a side that connected with these TransportOptions. Call it before content. Raises UsageError."""
        self._connection.use_controller(check_controller(congestion_control, rate_bps), rate_bps)
        self.backlog_bytes = backlog_bytes or BACKLOG_BYTES

    def begin_log(self) -> None:
        """The connection exists: its log may be written to a file."""
        if self._log is not None:
            self._log.begin()

    def pump(self) -> None:
        """Handle what has arrived and send what may be sent, without waiting."""
        self._pump(None)

    def post(self, datagram: bytes, ecn: int, peer_address: PeerAddress) -> None:
        """Add a datagram of this connection that has arrived at the listening socket. The listener's thread calls this.

        It comes from the peer's address, if this channel's socket was not connected yet, or from another one.
        """
        self._posted.add(datagram, ecn, peer_address)
        if self._wake_pair is not None:
            self._wake_pair.wake()

    def _handle_posted(self, sink: ExtentSink | None, now_ns: int) -> bool:
        """Returns whether content was delivered to `sink`."""
        connection, has_delivered = self._connection, False
        for _ in self._posted.handle(connection, now_ns):
            self._socket.datagrams_received += 1  # at the listening socket, for this connection
            has_delivered |= self._deliver(sink, now_ns)
        if connection.peer_address != self._peer_address and connection.peer_address is not None:
            with contextlib.suppress(OSError):  # no route there: the peer will move again
                self._socket.sock.connect(connection.peer_address)
                self._peer_address = connection.peer_address
        return has_delivered

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        return self._connection.state is ConnectionState.CLOSED

    def _announce(self) -> None:
        for announcements in self._outgoing.take_announcements():
            self._connection.send_message(ANNOUNCEMENTS_MESSAGE + announcements)

    def _has_backlog(self) -> bool:
        return self._connection.has_unsent(self.backlog_bytes, MAX_BACKLOG_BYTES) or self._has_message_backlog()

    def _has_message_backlog(self) -> bool:
        return self._connection.unacked_message_bytes > BACKLOG_BYTES

    def _pump_while(self, has_to_wait: Callable[[], bool], sends_first: bool = False) -> None:
        """Pump once, and again until `has_to_wait` is false. Raises PeerClosedError, and what the check raises."""
        self._pump(None, sends_first)
        while has_to_wait():
            self._check_open()
            if self._wait_check is not None:
                self._wait_check()
            self._wait(None if self._wait_check is None else time.monotonic_ns() + _WAIT_CHECK_NS)
            self._pump(None)

    def _pump(self, sink: ExtentSink | None, sends_first: bool = False) -> bool:
        """Run one round of the driver contract without waiting; return whether content was delivered to `sink`."""
        connection, sock, has_delivered = self._connection, self._socket, False
        connection.set_accept_limit(self._incoming.accept_limit(sink is not None))
        try:
            now_ns = time.monotonic_ns()
            if sends_first:  # a message need not wait until what has arrived is handled
                self._send()
                if now_ns - self._read_ns < _SENDING_READ_INTERVAL_NS:
                    return False
            batches = sock.receive()
            now_ns = self._read_ns = time.monotonic_ns()
            if has_posted := bool(self._posted):  # these are the older ones
                has_delivered |= self._handle_posted(sink, now_ns)
            for batch in batches:
                connection.handle_batch(batch, now_ns)
                has_delivered |= self._deliver(sink, now_ns)
            if batches or has_posted:
                self._outgoing.release(connection.acked_offset)
                self._incoming.forget(connection.received_offset)
                connection.update_receive_window(sock.drop_count, sock.is_drained, now_ns)
                sock.room.follow_rate(connection.pacing_rate_bps, now_ns)
                if has_delivered:
                    self._read_pause.on_content(now_ns, sock.datagrams_received, connection.acks.max_ack_delay_ns)
            timer_ns, self._timer_ns = self._timer_ns, 0
            if timer_ns <= now_ns:
                connection.handle_timeout(now_ns)
                if connection.pto_count >= _PTOS_BEFORE_ROUTE_CHECK:
                    self._follow_route()
            self._send()
        except PeerUnreachableError:
            connection.handle_unreachable(time.monotonic_ns())
        return has_delivered

    def _send(self) -> None:
        """Send what may be sent, up to a few batches."""
        connection, sock = self._connection, self._socket
        self._has_more = self._needs_room = False
        connection.sender.max_super_packet_bytes = sock.room.max_super_packet_bytes
        connection.sender.max_round_bytes = sock.room.max_round_bytes
        for _ in range(_TRANSMITS_PER_PUMP):
            self._needs_room = not sock.room.is_left
            now_ns = time.monotonic_ns()  # an acknowledgement states how long what it acknowledges has waited for it
            transmit = None if self._needs_room else connection.poll_transmit(now_ns)
            if transmit is None:
                return
            unsent = sock.send(transmit)
            if len(transmit.data) <= transmit.segment_bytes:
                self._send_times_ns.append(time.monotonic_ns() - now_ns)
                connection.acks.send_time_ns = min(self._send_times_ns)
            if sock.is_route_lost:
                self._follow_route()
            if unsent:
                connection.handle_local_drop(transmit, unsent, time.monotonic_ns())
                return
        self._has_more = True

    def _send_keep_alive(self) -> None:
        """Another thread calls this, while this channel's waits for a file."""
        transmit = self._connection.poll_keep_alive(time.monotonic_ns())
        if transmit is not None:
            with contextlib.suppress(OSError):
                self._socket.send(transmit)

    def _follow_route(self) -> None:
        """The route seems to be gone: a client continues from another local address if the system has a route."""
        if self._connection.peer_address is None and self._socket.follow_route():
            self._connection.handle_local_address_change()

    def _deliver(self, sink: ExtentSink | None, now_ns: int) -> bool:
        """Take the messages and content of one batch; return whether content was delivered to `sink`."""
        self._read_messages(now_ns)
        has_delivered = sink is not None and self._incoming.deliver_stash(sink)
        for data_offset, data in self._connection.received_data():
            if sink is None:
                self._incoming.stash(data_offset, data)
            else:
                has_delivered |= self._incoming.deliver(data_offset, data, sink)
        return has_delivered

    def _read_messages(self, now_ns: int) -> None:
        """Take messages from the engine while there is room; the others stay there, and block the peer."""
        while self._messages.has_room and self._incoming.has_room:
            message = self._connection.poll_message(now_ns)
            if message is None:
                return
            message_type = message[:1]
            if message_type == APPLICATION_MESSAGE:
                self._messages.append(message[1:])
            elif message_type == ANNOUNCEMENTS_MESSAGE:
                self._incoming.announce(decode_announcements_untrusted(message[1:]))
            else:
                raise ProtocolError(f"the peer sent an unknown message type 0x{message_type.hex()}")

    def _wait(self, deadline_ns: int | None, wake: int | None = None) -> bool:
        """Wait until there is something to do; return whether `wake` is readable."""
        if self._has_more or self._connection.state is not ConnectionState.ESTABLISHED:
            return False
        descriptors = [self._socket.sock.fileno()]
        timer_ns = self._connection.poll_timeout()
        self._timer_ns = timer_ns or 0
        # Without room, the timers that send something have expired and can do nothing.
        timeout_ns = time.monotonic_ns() + _ROOM_CHECK_NS if self._needs_room else timer_ns
        writable = descriptors[0] if self._needs_room else None
        times = [t for t in (timeout_ns, deadline_ns) if t is not None]
        own_wake = None if self._wake_pair is None else self._wake_pair.fileno()
        descriptors += [descriptor for descriptor in (own_wake, wake) if descriptor is not None]
        readable = wait_readable(descriptors, min(times) - time.monotonic_ns() if times else None, writable)
        if readable == descriptors[:1]:
            self._read_pause.wait(times)
        if self._wake_pair is not None and self._wake_pair.fileno() in readable:
            self._wake_pair.clear()  # before looking at the datagrams: each is queued before its byte is sent
        return wake in readable

    def _wait_for_datagram(self, timeout_ns: int) -> None:
        wait_readable([self._socket.sock.fileno()], timeout_ns)

    def _check_open(self) -> None:
        if self._is_closed:
            raise PeerClosedError("this side has closed the connection")
        if self._connection.state is not ConnectionState.ESTABLISHED:
            raise closed_by_peer(self._connection.close_code, self._connection.close_reason)

    def _end(self, code: int, reason: str) -> None:
        """Close the connection with this code and reason, and free everything."""
        self._is_closed = True
        KEEP_ALIVES.remove(self._outgoing.file_wait)
        self._wait_check = None  # it refers to the session, which refers to this channel
        try:
            if self._connection.state is ConnectionState.ESTABLISHED:
                self._connection.close(code, reason)
            while (transmit := self._connection.poll_transmit(time.monotonic_ns())) is not None:
                if self._on_close_sent is not None:
                    self._on_close_sent(bytes(transmit.data))
                self._socket.send(transmit)
        except OSError:
            pass  # the peer is gone
        finally:
            self._outgoing.release_all()
            self._socket.close()
            if self._wake_pair is not None:
                self._wake_pair.close()
            if self._log is not None:
                self._log.close()
            self._on_end()
