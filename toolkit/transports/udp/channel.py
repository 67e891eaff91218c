"""A channel over one reliable-UDP connection: the engine of `toolkit.rudp` with a real clock and a real socket.

The calls of a channel drive the engine: whoever sends, receives or flushes takes what has arrived, lets timers work,
sends what may go and waits for whichever comes first. There is no thread behind it.
"""

import contextlib
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from toolkit.channel import (
    MAX_MESSAGE_BYTES,
    Address,
    Extent,
    ExtentSink,
    ExtentSource,
    Statistic,
    TransportOptions,
)
from toolkit.errors import PeerClosedError, ProtocolError, TransferError, printable
from toolkit.rudp.batch import Batch, PeerAddress
from toolkit.rudp.config import Config
from toolkit.rudp.congestion import base as congestion
from toolkit.rudp.connection import Connection
from toolkit.rudp.state import ConnectionState
from toolkit.transports.udp.extents import (
    IncomingExtents,
    OutgoingExtents,
    decode_announcements_untrusted,
    encode_announcements,
)
from toolkit.transports.udp.qlog_files import ConnectionLog
from toolkit.transports.udp.socket import DatagramSocket, PeerUnreachableError, wait_readable

BACKLOG_BYTES: Final = 4 << 20
"""What of content may wait to be sent, and what of messages to be acknowledged, before more is taken."""
_PUMP_EVERY_BYTES: Final = 1 << 18
_ANNOUNCEMENTS_PER_MESSAGE: Final = 1024
_MIN_LINGER_NS: Final = 1_000_000_000
_LINGER_PTOS: Final = 10
_MAX_STRAYS: Final = 256
_WAKE_BYTES: Final = 4096
MAX_WAITING_BYTES: Final = 16 << 20
"""Of messages that nobody has asked for yet: two ends that both send first must not block each other too soon."""
_MESSAGE_BYTES: Final = 64
"""What each of them takes beside its content."""
_ROUNDS_PER_PUMP: Final = 8
"""Then the receive side is looked at again: acknowledgements that wait look like a longer path."""

_PTOS_BEFORE_A_LOOK: Final = 3
"""With nothing acknowledged between them: only then is it asked whether the system would go another way by now."""

# The first byte of every engine message: whose it is.
_APPLICATION: Final = b"\x00"
_ANNOUNCEMENTS: Final = b"\x01"


def config_of(options: TransportOptions, sock: DatagramSocket) -> Config:
    """The engine's configuration for a connection on `sock`. UsageError for what UDP cannot do."""
    return Config(
        congestion_control=options.congestion_control or congestion.DEFAULT_CONTROLLER,
        rate_bps=options.rate_bps,
        idle_timeout_ns=int(options.idle_timeout_s * 1e9),
        receive_window_bytes=max(1 << 16, sock.receive_buffer_bytes // 4),
        max_message_bytes=MAX_MESSAGE_BYTES + 1,
        seed=secrets.randbits(32),
    )


class UdpChannel:
    """One connection and its socket. See `toolkit.channel.Channel`."""

    def __init__(
        self,
        connection: Connection,
        sock: DatagramSocket,
        outgoing: OutgoingExtents,
        peer: Address,
        wake: tuple[socket.socket, socket.socket] | None = None,
        log: ConnectionLog | None = None,
        on_end: Callable[[bytes], None] | None = None,
    ) -> None:
        """`wake` is a connected pair by which a listener's thread can end this channel's waiting.

        `on_end` is told what this side ends with, at last its CLOSE packet, for a peer who does not get it.
        """
        self._on_end = on_end
        self._log = log
        self._connection = connection
        self._socket = sock
        self._outgoing = outgoing
        self._peer = peer
        self._wake = wake
        self._strays: deque[tuple[bytes, int, PeerAddress]] = deque(maxlen=_MAX_STRAYS)
        self._active_path = connection.peer_address
        self._incoming = IncomingExtents()
        self._announcements: list[Extent] = []
        self._messages: deque[bytes] = deque()
        self._waiting_bytes = 0  # what they take
        self._unpumped_bytes = 0
        self._is_closed = False
        self._has_more = False  # the last pump stopped before everything was sent that may be

    @property
    def peer(self) -> Address:
        return self._peer

    @property
    def socket(self) -> socket.socket:
        """For a listener that waits for several channels."""
        return self._socket.sock

    # The Channel protocol

    def send_message(self, message: bytes) -> None:
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes is longer than any may be")
        self._check_open()
        self._announce()
        self._connection.send_message(_APPLICATION + message)
        self._pump_while(self._has_message_backlog)

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        self._check_open()
        position = self._connection.offer_data(extent.length)
        self._outgoing.add(position, extent, source)
        self._announcements.append(extent)
        self._unpumped_bytes += extent.length
        if len(self._announcements) < _ANNOUNCEMENTS_PER_MESSAGE and self._unpumped_bytes < _PUMP_EVERY_BYTES:
            return
        self._unpumped_bytes = 0
        self._announce()
        self._pump_while(lambda: self._connection.unsent_bytes > BACKLOG_BYTES or self._has_message_backlog())

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        self._announce()
        deadline_ns = None if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            if sink is not None and self._incoming.has_stash and self._incoming.land_stash(sink):
                return None
            self._take_messages(time.monotonic_ns())
            if self._messages:
                message = self._messages.popleft()
                self._waiting_bytes -= len(message) + _MESSAGE_BYTES
                return message
            self._check_open()
            landed = self._pump(sink)
            if sink is None and self._incoming.has_stash:
                raise ProtocolError("the peer sends content that nobody asked for")
            if landed:
                return None
            if self._messages or self.is_lost:
                continue
            if deadline_ns is not None and time.monotonic_ns() >= deadline_ns:
                return None
            if self._wait(deadline_ns, wake):
                return None

    def flush(self) -> None:
        self._announce()
        self._pump_while(lambda: not self._connection.is_fully_acked)

    def close(self) -> None:
        if self._is_closed:
            return
        try:
            self._announce()
            self._linger()
        finally:
            self._end(0, "")

    def _linger(self) -> None:
        """Go on until all has arrived, or until for some time nothing more of it has."""
        linger_ns = max(_MIN_LINGER_NS, _LINGER_PTOS * self._connection.stats().pto_ns)
        deadline_ns = time.monotonic_ns() + linger_ns
        acked_bytes = -1
        while True:
            with contextlib.suppress(TransferError):  # of a source: its session has ended, and messages still go
                self._pump(None)
            if self._connection.state is not ConnectionState.ESTABLISHED or self._connection.is_fully_acked:
                return
            if self._connection.acked_bytes != acked_bytes:
                acked_bytes = self._connection.acked_bytes
                deadline_ns = time.monotonic_ns() + linger_ns
            if time.monotonic_ns() >= deadline_ns:
                return
            self._wait(deadline_ns)

    def abort(self) -> None:
        if not self._is_closed:
            self._end(4, "the other side gave up")

    def statistics(self) -> Mapping[str, Statistic]:
        stats = self._connection.stats()
        return {
            "packets_sent": stats.packets_sent,
            "packets_retransmitted": stats.packets_retransmitted,
            "rtt_ms": stats.smoothed_rtt_ns / 1e6,
            "rtt_min_ms": stats.min_rtt_ns / 1e6,
            "congestion_control": stats.congestion_control,
            "bytes_sent": stats.bytes_sent,
            "bytes_delivered": stats.delivered_bytes,
            "is_receiver_limited": int(stats.is_data_blocked),
            "datagrams_sent": self._socket.datagrams_sent,
            "datagrams_received": self._socket.datagrams_received,
            "send_errors": self._socket.send_errors,
            "packets_lost": stats.packets_lost,
            "packets_spuriously_lost": stats.packets_spuriously_lost,
            "packets_received": stats.packets_received,
            "packets_duplicate": stats.packets_duplicate,
            "packets_invalid": stats.packets_invalid,
            "peer_socket_drops": stats.peer_dropped_datagrams,
            "socket_drops": self._socket.drop_count,
            "datagram_bytes": stats.datagram_bytes,
            "congestion_window_bytes": stats.congestion_window_bytes,
            "segmentation_offload": int(self._socket.can_segment),
            "receive_offload": int(self._socket.can_coalesce),
        }

    # The driver

    def begin_log(self) -> None:
        """The connection is confirmed: what its log holds may be written."""
        if self._log is not None:
            self._log.begin()

    def post_stray(self, datagram: bytes, ecn: int, path: PeerAddress) -> None:
        """Datagrams for this connection from an address that is not its peer's. Called by the listener's thread."""
        self._strays.append((datagram, ecn, path))
        if self._wake is not None:
            with contextlib.suppress(OSError):  # full: it is awake already; closed: it is over
                self._wake[0].send(b"\0")

    def _take_strays(self, sink: ExtentSink | None, now_ns: int) -> bool:
        landed = False
        while self._strays:
            datagram, ecn, path = self._strays.popleft()
            batch = Batch(memoryview(datagram), len(datagram), ecn)
            self._connection.handle_off_path_batch(batch, path, secrets.randbits(64), now_ns)
            landed |= self._take_arrived(sink, now_ns)
        if self._connection.peer_address != self._active_path and self._connection.peer_address is not None:
            self._active_path = self._connection.peer_address
            self._socket.sock.connect(self._active_path)
        return landed

    def pump(self) -> bool:
        """Take what has arrived and send what may go; returns whether the client has shown that it knows its id."""
        self._pump(None)
        return self._connection.is_confirmed

    @property
    def is_lost(self) -> bool:
        """The connection is over."""
        return self._connection.state is ConnectionState.CLOSED

    def _announce(self) -> None:
        while self._announcements:
            batch = self._announcements[:_ANNOUNCEMENTS_PER_MESSAGE]
            del self._announcements[:_ANNOUNCEMENTS_PER_MESSAGE]
            self._connection.send_message(_ANNOUNCEMENTS + encode_announcements(batch))

    def _has_message_backlog(self) -> bool:
        return self._connection.unacked_message_bytes > BACKLOG_BYTES

    def _pump_while(self, has_to_wait: Callable[[], bool]) -> None:
        """At least once."""
        self._pump(None)
        while has_to_wait():
            self._check_open()
            self._wait(None)
            self._pump(None)

    def _pump(self, sink: ExtentSink | None) -> bool:
        """One round of the driver contract, without waiting. Returns whether content has landed in `sink`."""
        connection, sock = self._connection, self._socket
        landed = False
        connection.set_receive_limit(self._incoming.accept_limit(sink is not None))
        try:
            batches = sock.receive()
            now_ns = time.monotonic_ns()
            for batch in batches:
                connection.handle_batch(batch, now_ns)
                landed |= self._take_arrived(sink, now_ns)
            if self._strays:
                landed |= self._take_strays(sink, now_ns)
            if batches:
                self._outgoing.release(connection.acked_offset)
                self._incoming.forget(connection.received_offset)
                connection.update_receive_window(sock.drop_count, sock.is_drained)
            timeout_ns = connection.poll_timeout()
            if timeout_ns is not None and timeout_ns <= now_ns:
                connection.handle_timeout(now_ns)
                if connection.pto_count >= _PTOS_BEFORE_A_LOOK:
                    self._follow_route()
            for _ in range(_ROUNDS_PER_PUMP):
                transmit = connection.poll_transmit(now_ns)
                if transmit is None:
                    break
                sock.send(transmit)
                if sock.is_route_lost:
                    self._follow_route()
                now_ns = time.monotonic_ns()
            self._has_more = transmit is not None
        except PeerUnreachableError:
            connection.handle_unreachable(time.monotonic_ns())
        return landed

    def _follow_route(self) -> None:
        """The way in use seems to be gone: a client goes on from another address of its own, if there is one."""
        is_client = self._connection.peer_address is None
        if is_client and self._socket.follow_route():
            self._connection.handle_local_address_change()

    def _take_arrived(self, sink: ExtentSink | None, now_ns: int) -> bool:
        """Messages and content of one batch. Returns whether content has landed in `sink`."""
        self._take_messages(now_ns)
        landed = False
        for position, data in self._connection.received_data():
            if sink is None:
                self._incoming.stash(position, data)
            else:
                landed |= self._incoming.land(position, data, sink)
        return landed

    def _take_messages(self, now_ns: int) -> None:
        """Those that have come, as long as there is room: else they wait in the engine, and the peer with them."""
        while self._waiting_bytes < MAX_WAITING_BYTES and self._incoming.has_room:
            message = self._connection.poll_message(now_ns)
            if message is None:
                return
            if message[:1] == _APPLICATION:
                self._messages.append(message[1:])
                self._waiting_bytes += len(message) - 1 + _MESSAGE_BYTES
            elif message[:1] == _ANNOUNCEMENTS:
                self._incoming.announce(decode_announcements_untrusted(message[1:]))
            else:
                raise ProtocolError("a message is of a kind that there is not")

    def _wait(self, deadline_ns: int | None, wake: int | None = None) -> bool:
        """Until there is something to do; whether `wake` is readable."""
        if self._has_more or self._connection.state is not ConnectionState.ESTABLISHED:
            return False
        timeout_ns = self._connection.poll_timeout()
        times = [t for t in (timeout_ns, deadline_ns) if t is not None]
        descriptors = [self._socket.sock.fileno()]
        if self._wake is not None:
            descriptors.append(self._wake[1].fileno())
        if wake is not None:
            descriptors.append(wake)
        readable = wait_readable(descriptors, min(times) - time.monotonic_ns() if times else None)
        if self._wake is not None and self._wake[1].fileno() in readable:
            # Before the next look at the strays: each is there when its byte is.
            with contextlib.suppress(BlockingIOError):
                while self._wake[1].recv(_WAKE_BYTES):
                    pass
        return wake in readable

    def _check_open(self) -> None:
        if self._is_closed:
            raise PeerClosedError("this side has closed the connection")
        if self._connection.state is not ConnectionState.ESTABLISHED:
            why = printable(self._connection.close_reason)
            raise PeerClosedError(why or "the peer has closed the connection")

    def _end(self, code: int, reason: str) -> None:
        self._is_closed = True
        try:
            if self._connection.state is ConnectionState.ESTABLISHED:
                self._connection.close(code, reason)
            while (transmit := self._connection.poll_transmit(time.monotonic_ns())) is not None:
                if self._on_end is not None:
                    self._on_end(bytes(transmit.data))
                self._socket.send(transmit)
        except (OSError, PeerUnreachableError):
            pass  # nobody is left to tell
        finally:
            self._outgoing.release_all()
            self._socket.close()
            for sock in self._wake or ():
                sock.close()
            if self._log is not None:
                self._log.close()
