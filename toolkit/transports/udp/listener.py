"""The server's side: one socket for first packets, and a socket of its own for each connection.

Each connection's socket is bound to the same port and connected to its peer, so that the kernel keeps a queue per
sender and joins each one's datagrams (UDP_GRO). The port is first bound exclusively, which refuses a second server,
and only then shared with the connections' sockets.

A thread serves the listening socket. A connection is accepted once the client has used the connection id that it was
given. Until then a forged first packet costs a socket for a few seconds. With _UNVALIDATED_LIMIT such connections, it
costs nothing: every client then has to return a token that proves its address before anything is stored for it
(RFC 9000 section 8.1), and each host may have a limited number of unconfirmed connections.

A packet from a new address with the id of a connection (the client or a NAT has changed the address) is passed to that
connection, which validates the new path.
"""

import contextlib
import ipaddress
import queue
import secrets
import socket
import threading
import time
import weakref
from collections import OrderedDict
from functools import partial
from typing import Final, NamedTuple

from toolkit.channel import Address, TransportOptions
from toolkit.errors import PeerClosedError, ProtocolError, UsageError
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator
from toolkit.rudp.batch import Batch
from toolkit.rudp.connection import Connection
from toolkit.rudp.handshake import answer_initial_untrusted
from toolkit.rudp.protection import Unprotected
from toolkit.transports.addresses import address_of, bind_first
from toolkit.transports.udp.channel import UdpChannel, config_of
from toolkit.transports.udp.extents import OutgoingExtents
from toolkit.transports.udp.qlog_files import ConnectionLog, LogFiles
from toolkit.transports.udp.socket import DatagramSocket, Origin, report_local_address, wait_readable

_UNVALIDATED_LIMIT: Final = 16
"""With this many unconfirmed connections, every client has to validate its address."""
MAX_UNCONFIRMED: Final = 64
MAX_UNCONFIRMED_PER_HOST: Final = 32
"""One host cannot lock all others out. An IPv6 host is a whole /64, the smallest prefix of a subscriber."""
UNCONFIRMED_LIFETIME_NS: Final = 5_000_000_000
_REMEMBERED_INITIALS: Final = 1024
_REMEMBERED_CLOSES: Final = 1024
_DATAGRAMS_PER_ROUND: Final = 256
"""Then the unconfirmed connections get their turn: a flood of first packets must not starve them."""


class _Unconfirmed(NamedTuple):
    """A connection whose client has not used its connection id yet: the client's host, and when to give up."""

    host: bytes
    give_up_ns: int


class UdpListener:
    """See `toolkit.channel.Listener`."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        self._options = options
        self._socket = DatagramSocket(bind_first(address, socket.SOCK_DGRAM, finish=_share_port), "off")
        try:
            self._logs = LogFiles(options.qlog) if options.qlog is not None else None
        except UsageError:
            self._socket.close()
            raise
        report_local_address(self._socket.sock)
        self._address = address_of(self._socket.sock.getsockname())
        self._validator = AddressValidator(secrets.token_bytes(32))
        self._unconfirmed: dict[UdpChannel, _Unconfirmed] = {}
        self._seen: OrderedDict[tuple[tuple[str, int], int], None] = OrderedDict()
        self._channels: weakref.WeakValueDictionary[int, UdpChannel] = weakref.WeakValueDictionary()
        self._closes: OrderedDict[int, bytes] = OrderedDict()  # by this side's id, a CLOSE that may get lost
        self._closes_lock = threading.Lock()
        self._ready: queue.SimpleQueue[UdpChannel | None] = queue.SimpleQueue()  # None after the last
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="udp-listen", daemon=True)
        self._thread.start()

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
        try:
            while not self._is_closing.is_set():
                self._receive()
                self._serve_unconfirmed()
                socks = [self._socket.sock, self._wake_receiver, *(c.socket for c in self._unconfirmed)]
                give_up_ns = min((entry.give_up_ns for entry in self._unconfirmed.values()), default=None)
                wait_readable(
                    [sock.fileno() for sock in socks], None if give_up_ns is None else give_up_ns - time.monotonic_ns()
                )
        finally:
            for channel in self._unconfirmed:
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

    def _serve_unconfirmed(self) -> None:
        """Accept the connections whose clients have answered, and give up those that have not in time."""
        now_ns = time.monotonic_ns()
        for channel, (_, give_up_ns) in list(self._unconfirmed.items()):
            try:
                is_confirmed = channel.pump()
            except (OSError, ProtocolError):
                is_confirmed, give_up_ns = False, now_ns
            if is_confirmed:
                del self._unconfirmed[channel]
                channel.begin_log()
                self._ready.put(channel)
            elif channel.is_over or now_ns >= give_up_ns:
                del self._unconfirmed[channel]
                channel.abort()

    def _receive(self) -> None:
        for _ in range(_DATAGRAMS_PER_ROUND):
            arrival = self._socket.receive_from()
            if arrival is None:
                return
            batch, origin = arrival
            with contextlib.suppress(ProtocolError):
                kind, connection_id = wire.connection_id_untrusted(batch.data)
                if kind >= wire.PacketType.DATA:
                    self._pass_on(connection_id, batch, origin)
                else:
                    self._answer_initial(batch.data, origin)

    def _pass_on(self, connection_id: int, batch: Batch, origin: Origin) -> None:
        """Handle a connection's packet at the listening socket: the client has moved, or the connection has ended."""
        with self._closes_lock:
            close = self._closes.get(connection_id)
        channel = self._channels.get(connection_id)
        if close is not None:
            if batch.data[0] != wire.PacketType.CLOSE:
                self._socket.send_to(close, origin.peer)
        elif channel is not None:
            channel.post_off_path(bytes(batch.data), batch.ecn, origin.peer)

    def _remember_close(self, connection_id: int, close: bytes) -> None:
        """Keep a connection's last packet. The thread that closes the channel calls this."""
        with self._closes_lock:
            self._closes[connection_id] = close
            if len(self._closes) > _REMEMBERED_CLOSES:
                self._closes.popitem(last=False)

    def _answer_initial(self, datagram: memoryview, origin: Origin) -> None:
        """Answer a first packet, and make a connection for it. Raises ProtocolError for anything but an INITIAL."""
        now_ns = time.monotonic_ns()
        needs_token = len(self._unconfirmed) >= _UNVALIDATED_LIMIT
        answer = answer_initial_untrusted(datagram, repr(origin.peer).encode(), now_ns, self._validator, needs_token)
        if answer.reply is not None:
            self._socket.send_to(answer.reply, origin.peer)
        if answer.initial is None or (origin.peer, answer.initial.client_id) in self._seen:
            return
        host = _host_bytes(origin.peer[0])
        from_host = sum(entry.host == host for entry in self._unconfirmed.values())
        if len(self._unconfirmed) >= MAX_UNCONFIRMED or from_host >= MAX_UNCONFIRMED_PER_HOST:
            return
        with contextlib.suppress(OSError):  # no descriptors left, or no route: the client sends again
            channel = self._make_channel(answer.initial, origin, now_ns)
            self._seen[origin.peer, answer.initial.client_id] = None
            if len(self._seen) > _REMEMBERED_INITIALS:
                self._seen.popitem(last=False)
            self._unconfirmed[channel] = _Unconfirmed(host, now_ns + UNCONFIRMED_LIFETIME_NS)

    def _make_channel(self, initial: wire.InitialPacket, origin: Origin, now_ns: int) -> UdpChannel:
        """Make the channel of a new client. Raises OSError if no descriptors are left."""
        sock = DatagramSocket(self._connected_socket(origin), self._options.offload)
        config = config_of(self._options, sock)
        server_id = secrets.randbits(64)
        datagram_bytes = max(sock.max_datagram_bytes(config.max_datagram_bytes), wire.MIN_DATAGRAM_BYTES)
        accept = wire.AcceptPacket(initial.client_id, server_id, datagram_bytes, config.receive_window_bytes)
        outgoing = OutgoingExtents()
        peer = address_of(origin.peer)
        log = ConnectionLog(self._logs, "server", address_of(sock.sock.getsockname()), peer) if self._logs else None
        connection = Connection(
            config,
            outgoing,
            server_id,
            initial.client_id,
            min(initial.datagram_bytes, datagram_bytes),
            now_ns,
            Unprotected(),
            observer=log.observer if log else None,
            peer_address=origin.peer,
        )
        try:
            wake_pair = socket.socketpair()
        except OSError:  # no descriptors left
            sock.close()
            raise
        for wake in wake_pair:
            wake.setblocking(False)
        on_close_sent = partial(self._remember_close, server_id)
        channel = UdpChannel(connection, sock, outgoing, peer, wake_pair, log, on_close_sent)
        self._channels[server_id] = channel
        sock.send_datagram(accept.encode())
        return channel

    def _connected_socket(self, origin: Origin) -> socket.socket:
        """Return a socket for one peer on the listener's port. Raises OSError."""
        sock = socket.socket(self._socket.sock.family, socket.SOCK_DGRAM)
        try:
            if sock.family == socket.AF_INET6:
                only_ipv6 = self._socket.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
            _share_port(sock)
            bound = self._socket.sock.getsockname()
            # A link-local address means nothing without its interface, so both addresses have the peer's scope.
            sock.bind((origin.local_host or bound[0], bound[1], *origin.peer[2:]))
            sock.connect(origin.peer)
        except OSError:
            sock.close()
            raise
        return sock


def _host_bytes(host: str) -> bytes:
    """Return what identifies a host: its IPv4 address, or the /64 prefix of its IPv6 address."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.ipv4_mapped.packed if ip.ipv4_mapped else ip.packed[:8]
    return ip.packed


def _share_port(sock: socket.socket) -> None:
    """Allow the sockets of connections to bind the same port."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
