"""The server's side: one socket for first packets, and a socket of its own for each connection.

Each connection's socket is bound to the same port and connected to its peer, so that the kernel keeps a queue per
sender and joins each one's datagrams (UDP_GRO). The port is first bound exclusively, which refuses a second server,
and only then shared with the connections' sockets.

A thread serves the listening socket. `toolkit.rudp.handshake_server` says what it answers to first packets; a socket
and a connection are made only for a client that has finished the handshake. Answers leave from the address that the
client has sent to, which need not be the one that the system prefers.

A packet of a connection that arrives here is passed to its channel. Either it was on its way while the connection's
socket was made, or the client or a NAT has changed the address, and the connection validates the new path.
"""

import contextlib
import queue
import secrets
import socket
import threading
import time
import weakref
from collections import OrderedDict
from functools import partial
from typing import Final

from toolkit.channel import Address, TransportOptions
from toolkit.errors import ExitCode, PeerClosedError, ProtocolError, UsageError
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator
from toolkit.rudp.batch import PeerAddress
from toolkit.rudp.connection import Connection
from toolkit.rudp.handshake_server import AcceptLimits, Established, ServerHandshakes
from toolkit.rudp.path import MAX_AMPLIFICATION
from toolkit.security.handshake import Responder
from toolkit.security.keys import SessionKeys
from toolkit.security.opened_handshake import CodeEndedError
from toolkit.transports.addresses import address_of, bind_first
from toolkit.transports.keep_alive import KEEP_ALIVES
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.engine_config import config_of
from toolkit.transports.udp.extents import OutgoingExtents
from toolkit.transports.udp.flood_guard import FloodGuard
from toolkit.transports.udp.mmsg import MAX_DATAGRAMS, Arrival, make_exchange
from toolkit.transports.udp.protection import SessionSecurity, protect
from toolkit.transports.udp.qlog_files import ConnectionLog, LogFiles
from toolkit.transports.udp.socket import DatagramSocket, wait_readable
from toolkit.transports.udp.socket_options import report_ecn, report_local_address
from toolkit.transports.udp.statistics import HandshakeCounts
from toolkit.transports.udp.wake_pair import WakePair
from toolkit.transports.unexpected import UnexpectedErrors

_REMEMBERED_CLOSES: Final = 1024
_COUNTED_CLIENTS: Final = 1024
_BUSY_DATAGRAMS: Final = 16
"""The listener rests after a round of this many datagrams, so that a flood does not starve the sessions."""
_REST_FACTOR: Final = 2
"""How long it rests, in CPU times of the round: at most a third of one processor goes to strangers."""


class UdpListener:
    """See `toolkit.channel.Listener`."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        self._options = options
        self._socket = DatagramSocket(bind_first(address, socket.SOCK_DGRAM, finish=_share_port), "off")
        try:
            self._logs = LogFiles(options.qlog) if options.qlog is not None else None
            self._config = config_of(options, self._socket)
        except UsageError:
            self._socket.close()
            raise
        report_local_address(self._socket.sock)
        self._address = address_of(self._socket.sock.getsockname())
        validator = AddressValidator(secrets.token_bytes(32))
        self._handshakes: ServerHandshakes[SessionKeys | None] = ServerHandshakes(
            Responder(options.admission, allows_plaintext=options.plaintext),
            validator,
            AcceptLimits(self._config.max_datagram_bytes, self._config.receive_window_bytes),
            partial(secrets.randbits, 64),
        )
        self._channels: weakref.WeakValueDictionary[int, UdpChannel] = weakref.WeakValueDictionary()
        self._new: list[UdpChannel] = []  # made in this round
        self._strays: list[Arrival] = []  # received in this round by a socket that was not connected yet
        self._exchange, self._stray_exchange = make_exchange(), make_exchange()
        self._guard = FloodGuard(self._socket.sock, validator.marks)
        self._unexpected = UnexpectedErrors()
        self._closes: OrderedDict[int, bytes] = OrderedDict()  # by this side's id, a CLOSE that may get lost
        self._closes_lock = threading.Lock()
        self._counts: OrderedDict[PeerAddress, HandshakeCounts] = OrderedDict()  # of clients without a connection
        self._ready: queue.SimpleQueue[UdpChannel | None] = queue.SimpleQueue()  # None after the last
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="udp-listen", daemon=True)
        self._thread.start()
        KEEP_ALIVES.start()

    @property
    def address(self) -> Address:
        return self._address

    def accept(self, timeout_s: float | None = None) -> UdpChannel | None:
        try:
            channel = self._ready.get(timeout=timeout_s) if timeout_s != 0 else self._ready.get_nowait()
        except queue.Empty:
            return None
        if channel is None:
            self._ready.put(None)  # for other threads in `accept`
            raise PeerClosedError("this side has stopped listening")
        return channel

    def close(self) -> None:
        if not self._is_closing.is_set():
            self._is_closing.set()
            with contextlib.suppress(OSError):  # the thread has noticed already, and has closed it
                self._wake_sender.send(b"\0")
        self._thread.join()

    def _serve(self) -> None:
        descriptors = [self._socket.fileno(), self._wake_receiver.fileno()]
        try:
            while not self._is_closing.is_set():
                begin_ns = time.thread_time_ns()
                is_busy = self._receive()
                if is_busy:
                    self._rest(_REST_FACTOR * (time.thread_time_ns() - begin_ns))
                    continue
                now_ns = time.monotonic_ns()
                self._handshakes.expire(now_ns)
                timeouts_ns = [
                    t for t in (self._handshakes.poll_timeout(), self._guard.poll_timeout()) if t is not None
                ]
                wait_readable(descriptors, min(timeouts_ns) - now_ns if timeouts_ns else None)
        finally:
            for channel in self._new:
                channel.abort()
            while not self._ready.empty():
                untaken = self._ready.get()
                if untaken is not None:
                    untaken.abort()
            self._ready.put(None)
            for sock in (self._socket, self._wake_receiver, self._wake_sender):
                sock.close()
            if self._logs is not None:
                self._logs.close()

    def _rest(self, duration_ns: int) -> None:
        """Leave the processor to the sessions of this process; a new client waits for some milliseconds at most."""
        wait_readable([self._wake_receiver.fileno()], duration_ns)
        self._handshakes.expire(time.monotonic_ns())

    def _receive(self) -> bool:
        """Handle what has arrived; return whether that is as much as one round takes.

        Then hand out the connections that were made: they have their packets in order.
        """
        arrivals = self._exchange.receive(self._socket.sock)
        is_busy, is_full = len(arrivals) >= _BUSY_DATAGRAMS, len(arrivals) == MAX_DATAGRAMS
        answers: list[tuple[bytes, Arrival]] = []
        if is_full or self._guard.is_active:
            arrivals = self._answer_flood(arrivals, answers)
        for arrival in arrivals:
            self._handle(arrival, answers)
        while self._strays:
            self._handle(self._strays.pop(0), answers)
        self._exchange.send(self._socket.sock, answers)
        while self._new:
            self._ready.put(self._new.pop(0))
        if is_full or self._guard.is_active:
            self._guard.on_round(is_full, time.monotonic_ns())
        return is_busy

    def _answer_flood(self, arrivals: list[Arrival], answers: list[tuple[bytes, Arrival]]) -> list[Arrival]:
        """Answer the INITIALs of addresses that have not shown that they receive; return the other arrivals.

        In a flood these are nearly all, and what one of them costs decides how soon a new client gets in.
        """
        now_ns, retry, others = time.monotonic_ns(), self._handshakes.retry_untrusted, []
        for arrival in arrivals:
            answer = retry(arrival.data, arrival.host, arrival.port, now_ns)
            if answer is None:
                others.append(arrival)
                self._guard.on_datagram(arrival.data, arrival.host)
            else:
                answers.append((answer, arrival))
        self._guard.on_unmarked(len(answers))
        return others

    def _handle(self, arrival: Arrival, answers: list[tuple[bytes, Arrival]]) -> None:
        try:
            self._handle_untrusted(arrival, answers)
        except ProtocolError:
            pass
        except Exception as error:  # a bug must not end the thread that every session needs
            self._unexpected.report("a datagram was dropped", error)

    def _handle_untrusted(self, arrival: Arrival, answers: list[tuple[bytes, Arrival]]) -> None:
        datagram, peer = arrival.data, arrival.peer
        kind, connection_id = wire.connection_id_untrusted(datagram)
        if kind == wire.PacketType.INITIAL:
            counts = self._counts_of(peer)
            counts.received += 1
            replies = self._handshakes.handle_initial_untrusted(datagram, peer, arrival.host, time.monotonic_ns())
            counts.sent += len(replies)
            answers += [(reply, arrival) for reply in replies]
        elif kind == wire.PacketType.FINISH:
            if (channel := self._channels.get(connection_id)) is not None:  # it is repeated
                channel.handshake.received += 1
                return
            self._counts_of(peer).received += 1
            try:
                established = self._handshakes.handle_finish_untrusted(datagram, peer, time.monotonic_ns())
            except CodeEndedError as error:
                answers.append((self._reject(connection_id, error), arrival))
                return
            with contextlib.suppress(OSError):  # no descriptors left, or no route: the client sends FINISH again
                self._open_channel(established, arrival)
        elif kind >= wire.PacketType.DATA:
            self._pass_on(connection_id, arrival, answers)

    def _counts_of(self, peer: PeerAddress) -> HandshakeCounts:
        """The counts of a client: it asks a slow server again and again, and the path carries each datagram."""
        counts = self._counts.setdefault(peer, HandshakeCounts())
        if len(self._counts) > _COUNTED_CLIENTS:
            self._counts.popitem(last=False)
        return counts

    def _reject(self, server_id: int, error: CodeEndedError) -> bytes:
        """Return a sealed CLOSE for a client whose code has ended: a plain packet must not end what it believes in."""
        client_id, keys = self._handshakes.reject(server_id), error.keys
        protection = protect(None if keys is None else (keys.server, keys.client), server_id, client_id)
        close = wire.encode_close(client_id, 0, ExitCode.UNREACHABLE, str(error))
        sealed = protection.seal(close + bytes(protection.tag_bytes))
        self._remember_close(server_id, sealed)
        return sealed

    def _pass_on(self, connection_id: int, arrival: Arrival, answers: list[tuple[bytes, Arrival]]) -> None:
        """Handle a connection's packet at the listening socket: see above, or the connection has ended."""
        with self._closes_lock:
            close = self._closes.get(connection_id)
        channel = self._channels.get(connection_id)
        if close is not None:
            # The packet has not been opened, and its address may be forged: the answer must not be much larger.
            is_amplified = len(close) > MAX_AMPLIFICATION * len(arrival.data)
            if arrival.data[0] != wire.PacketType.CLOSE and not is_amplified:
                answers.append((close, arrival))
        elif channel is not None:
            channel.post(bytes(arrival.data), arrival.ecn, arrival.peer)
        elif (counts := self._counts.get(arrival.peer)) is not None:
            counts.received += 1  # the client's FINISH is late or lost, and so is this for the connection

    def _remember_close(self, connection_id: int, close: bytes) -> None:
        """Keep a connection's last packet. The thread that closes the channel calls this."""
        with self._closes_lock:
            self._closes[connection_id] = close
            if len(self._closes) > _REMEMBERED_CLOSES:
                self._closes.popitem(last=False)

    def _open_channel(self, established: Established[SessionKeys | None], arrival: Arrival) -> None:
        """Make the channel of a client that has finished its handshake. Raises OSError if no descriptors are left."""
        with contextlib.ExitStack() as on_failure:
            raw = on_failure.enter_context(self._connected_socket(arrival))
            # Until it was connected, the new socket took what anybody sent to its address. It does not report that
            # address: the control messages of `arrival` do.
            for stray in self._stray_exchange.receive(raw):
                copy = memoryview(bytes(stray.data))
                self._strays.append(stray._replace(data=copy, control=arrival.control + stray.control))
            sock = DatagramSocket(raw, self._options.offload)
            wake_pair = WakePair()
            on_failure.callback(wake_pair.close)
            channel = self._make_channel(established, arrival.peer, sock, wake_pair)
            on_failure.pop_all()
        channel.handshake = self._counts.pop(arrival.peer, HandshakeCounts())
        self._channels[established.server_id] = channel
        self._handshakes.complete(established)
        channel.begin_log()
        self._new.append(channel)

    def _make_channel(
        self,
        established: Established[SessionKeys | None],
        peer_address: PeerAddress,
        sock: DatagramSocket,
        wake_pair: WakePair,
    ) -> UdpChannel:
        peer = address_of(peer_address)
        log = ConnectionLog(self._logs, "server", address_of(sock.sock.getsockname()), peer) if self._logs else None
        outgoing = OutgoingExtents()
        server_id, keys = established.server_id, established.keys
        connection = Connection(
            config_of(self._options, sock),
            outgoing,
            server_id,
            established.client_id,
            min(established.client.datagram_bytes, sock.max_datagram_bytes(self._config.max_datagram_bytes)),
            time.monotonic_ns(),
            protect(None if keys is None else (keys.server, keys.client), server_id, established.client_id),
            observer=log.observer if log else None,
            peer_address=peer_address,
            rtt_ns=established.rtt_ns,
        )
        security = SessionSecurity.of(keys, established.admitted)
        on_close_sent = partial(self._remember_close, server_id)
        return UdpChannel(connection, sock, outgoing, peer, security, wake_pair, log, on_close_sent)

    def _connected_socket(self, arrival: Arrival) -> socket.socket:
        """Return a socket for one peer on the listener's port. Raises OSError."""
        sock = socket.socket(self._socket.sock.family, socket.SOCK_DGRAM)
        try:
            if sock.family == socket.AF_INET6:
                only_ipv6 = self._socket.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
            _share_port(sock)
            report_ecn(sock)  # before anything is read from it: packets of this connection may be among the strays
            bound = self._socket.sock.getsockname()
            # A link-local address means nothing without its interface, so both addresses have the peer's scope.
            sock.bind((arrival.local_host or bound[0], bound[1], *arrival.peer[2:]))
            sock.connect(arrival.peer)
        except OSError:
            sock.close()
            raise
        return sock


def _share_port(sock: socket.socket) -> None:
    """Allow the sockets of connections to bind the same port."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
