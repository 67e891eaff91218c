"""The server's side: one socket for first packets, then a socket of its own for each connection.

Each connection's socket is bound to the same port and connected to its peer, so that the kernel sorts the datagrams
of many senders into queues of their own and joins each one's (UDP_GRO). The port is bound exclusively at first, so
that a second server is refused; only then is it shared with the connections' sockets.

A thread serves the listening socket. A connection is handed out once the client has used the id that it was given: a
forged first packet costs a socket for some seconds, and from `_UNPROVED_UNCONFIRMED` of them on nothing at all, because
then every address is validated by a cookie before anything is kept for it; whoever proves his own gets so many and no
more. What arrives from a new address with the id of a connection (the client has moved, or a NAT has) is passed on to
that connection, which validates the path.
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
from toolkit.transports.addresses import address_of, bind_first
from toolkit.transports.udp.channel import UdpChannel, config_of
from toolkit.transports.udp.extents import OutgoingExtents
from toolkit.transports.udp.qlog_files import LogFiles
from toolkit.transports.udp.socket import DatagramSocket, Origin, ask_for_local_address, wait_readable

_UNPROVED_UNCONFIRMED: Final = 16
MAX_UNCONFIRMED: Final = 64
MAX_UNCONFIRMED_PER_HOST: Final = 32
"""So one host cannot keep all others out. Of IPv6 a host is a whole /64, which is what a subscriber gets at least."""
_UNCONFIRMED_LIFETIME_NS: Final = 5_000_000_000
_REMEMBERED_INITIALS: Final = 1024
_REMEMBERED_ENDS: Final = 1024
_ARRIVALS_PER_ROUND: Final = 256
"""Then connections that are not confirmed are looked after: a flood of first packets must not starve them."""


class _HalfOpen(NamedTuple):
    """A connection whose client has not shown that it knows its id: whose it is, and when to give it up."""

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
        ask_for_local_address(self._socket.sock)
        self._address = address_of(self._socket.sock.getsockname())
        self._jar = AddressValidator(secrets.token_bytes(32))
        self._unconfirmed: dict[UdpChannel, _HalfOpen] = {}
        self._seen: OrderedDict[tuple[tuple[str, int], int], None] = OrderedDict()
        self._channels: weakref.WeakValueDictionary[int, UdpChannel] = weakref.WeakValueDictionary()
        self._ends: OrderedDict[int, bytes] = OrderedDict()  # by our id, the CLOSE that may have been lost
        self._ends_lock = threading.Lock()
        self._ready: queue.SimpleQueue[UdpChannel | None] = queue.SimpleQueue()  # None: no more come
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
            self._ready.put(None)  # for whoever else waits
            raise PeerClosedError("this side has stopped listening")
        return channel

    def close(self) -> None:
        if not self._is_closing.is_set():
            self._is_closing.set()
            with contextlib.suppress(OSError):  # the thread has noticed by itself, and has closed it
                self._wake_sender.send(b"\0")
        self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._is_closing.is_set():
                self._take_arrivals()
                self._confirm()
                socks = [self._socket.sock, self._wake_receiver, *(c.socket for c in self._unconfirmed)]
                give_up_ns = min((half.give_up_ns for half in self._unconfirmed.values()), default=None)
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

    def _confirm(self) -> None:
        """Hand out the connections whose clients have answered, and give up those that have not in time."""
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
            elif channel.is_lost or now_ns >= give_up_ns:
                del self._unconfirmed[channel]
                channel.abort()

    def _take_arrivals(self) -> None:
        for _ in range(_ARRIVALS_PER_ROUND):
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
        """A packet that came to the listening socket: the client has moved, or its connection has ended meanwhile."""
        with self._ends_lock:
            end = self._ends.get(connection_id)
        channel = self._channels.get(connection_id)
        if end is not None:
            if batch.data[0] != wire.PacketType.CLOSE:
                self._socket.send_to(end, origin.peer)
        elif channel is not None:
            channel.post_stray(bytes(batch.data), batch.ecn, origin.peer)

    def _remember_end(self, connection_id: int, close: bytes) -> None:
        """Called by the thread that ends a channel."""
        with self._ends_lock:
            self._ends[connection_id] = close
            if len(self._ends) > _REMEMBERED_ENDS:
                self._ends.popitem(last=False)

    def _answer_initial(self, datagram: memoryview, origin: Origin) -> None:
        """Raises ProtocolError for anything but an INITIAL."""
        now_ns = time.monotonic_ns()
        demand = len(self._unconfirmed) >= _UNPROVED_UNCONFIRMED
        answer = answer_initial_untrusted(datagram, repr(origin.peer).encode(), now_ns, self._jar, demand)
        if answer.reply is not None:
            self._socket.send_to(answer.reply, origin.peer)
        if answer.initial is None or (origin.peer, answer.initial.client_id) in self._seen:
            return
        host = _host_bytes(origin.peer[0])
        of_host = sum(half.host == host for half in self._unconfirmed.values())
        if len(self._unconfirmed) >= MAX_UNCONFIRMED or of_host >= MAX_UNCONFIRMED_PER_HOST:
            return
        with contextlib.suppress(OSError):  # no descriptors left, or the route is gone: the client asks again
            channel = self._make_channel(answer.initial, origin, now_ns)
            self._seen[origin.peer, answer.initial.client_id] = None
            if len(self._seen) > _REMEMBERED_INITIALS:
                self._seen.popitem(last=False)
            self._unconfirmed[channel] = _HalfOpen(host, now_ns + _UNCONFIRMED_LIFETIME_NS)

    def _make_channel(self, initial: wire.InitialPacket, origin: Origin, now_ns: int) -> UdpChannel:
        raw = socket.socket(self._socket.sock.family, socket.SOCK_DGRAM)
        try:
            if raw.family == socket.AF_INET6:
                only = self._socket.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound = self._socket.sock.getsockname()
            # The peer's scope is ours as well: a link-local address means nothing without its interface.
            raw.bind((origin.local_host or bound[0], bound[1], *origin.peer[2:]))
            raw.connect(origin.peer)
        except OSError:
            raw.close()
            raise
        sock = DatagramSocket(raw, self._options.offload)
        config = config_of(self._options, sock)
        server_id = secrets.randbits(64)
        datagram_bytes = max(sock.max_datagram_bytes(config.max_datagram_bytes), wire.MIN_DATAGRAM_BYTES)
        accept = wire.AcceptPacket(initial.client_id, server_id, datagram_bytes, config.receive_window_bytes)
        outgoing = OutgoingExtents()
        peer = address_of(origin.peer)
        log = self._logs.new("server", address_of(raw.getsockname()), peer) if self._logs else None
        connection = Connection(
            config,
            outgoing,
            server_id,
            initial.client_id,
            min(initial.datagram_bytes, datagram_bytes),
            now_ns,
            accept,
            observer=log.trace if log else None,
            peer_address=origin.peer,
        )
        wake = socket.socketpair()
        for end in wake:
            end.setblocking(False)
        channel = UdpChannel(connection, sock, outgoing, peer, wake, log, partial(self._remember_end, server_id))
        self._channels[server_id] = channel
        return channel


def _host_bytes(host: str) -> bytes:
    """What tells one host from another: an IPv4 address, or the first half of an IPv6 one."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.ipv4_mapped.packed if ip.ipv4_mapped else ip.packed[:8]
    return ip.packed


def _share_port(sock: socket.socket) -> None:
    """Let the sockets of connections bind the port too (see the head of this file)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
