"""The reliable-UDP transport: how channels come to be.

A client connects a UDP socket and shakes hands. A server binds one socket and takes first packets with `recvfrom`;
each connection then gets a socket of its own, bound to the same port and connected to its peer, so that the kernel
sorts the datagrams of many senders into queues of their own and joins each one's (UDP_GRO). The port is bound
exclusively at first, so that a second server is refused; only then is it shared with the connections' sockets.

A connection is handed out once the client has used the id that it was given: a forged first packet costs a socket
for some seconds, and from `_MAX_UNCONFIRMED` of them on nothing at all, because then every address is validated by a
cookie before anything is kept for it.
"""

import errno
import os
import secrets
import socket
import time
from collections import OrderedDict
from typing import Final

from toolkit.errors import PeerClosedError, ProtocolError, UnreachableError, UsageError
from toolkit.net.resolve import resolve
from toolkit.net.udp import DatagramSocket, Origin, PeerUnreachable, ask_for_local_address, wait_readable
from toolkit.rudp import wire
from toolkit.rudp.config import Config
from toolkit.rudp.congestion import registry as congestion
from toolkit.rudp.connection import Connection
from toolkit.rudp.handshake import ClientHandshake, answer_initial_untrusted
from toolkit.security.cookie import CookieJar
from toolkit.transfer.channel import MAX_MESSAGE_BYTES, Address, TransportOptions
from toolkit.transports.udp_channel import UdpChannel
from toolkit.transports.udp_extents import OutgoingExtents

_MAX_UNCONFIRMED: Final = 16
_UNCONFIRMED_LIFETIME_NS: Final = 5_000_000_000
_REMEMBERED_INITIALS: Final = 1024
_NEXT_ADDRESS_DELAY_NS: Final = 250_000_000  # RFC 8305 section 5


def config_of(options: TransportOptions, sock: DatagramSocket) -> Config:
    """The engine's configuration for a connection on `sock`. UsageError for what UDP cannot do."""
    return Config(
        congestion_control=options.congestion_control or congestion.DEFAULT,
        rate_bps=options.rate_bps,
        idle_timeout_ns=int(options.idle_timeout_s * 1e9),
        receive_window_bytes=max(1 << 16, sock.receive_buffer_bytes // 4),
        max_message_bytes=MAX_MESSAGE_BYTES + 1,
        seed=secrets.randbits(32),
    )


def _check(options: TransportOptions) -> None:
    """Raises UsageError for what this transport cannot do."""
    if options.streams != 1:
        raise UsageError("UDP has one stream per session: --streams is for TCP")
    name = options.congestion_control or congestion.DEFAULT
    congestion.controller(name)
    if name == "rate" and options.rate_bps is None:
        raise UsageError("congestion control 'rate' holds the rate that you give it: add --rate, such as --rate 50Mbit")


class UdpTransport:
    """See `toolkit.transfer.channel.Transport`."""

    name = "udp"

    def connect(self, address: Address, options: TransportOptions) -> UdpChannel:
        _check(options)
        attempts = _Attempts(resolve(address, socket.SOCK_DGRAM), address, options)
        try:
            return attempts.run()
        finally:
            attempts.close()

    def listen(self, address: Address, options: TransportOptions) -> "UdpListener":
        _check(options)
        return UdpListener(address, options)


class _Attempts:
    """Handshakes with the addresses of one name, the next begun where one has not answered soon (RFC 8305)."""

    def __init__(self, candidates: list[tuple[int, tuple[str, int]]], address: Address, options: TransportOptions) -> None:
        self._waiting = candidates
        self._running: list[tuple[DatagramSocket, ClientHandshake, int]] = []
        self._address = address
        self._options = options

    def run(self) -> UdpChannel:
        now_ns = time.monotonic_ns()
        deadline_ns = now_ns + int(self._options.connect_timeout_s * 1e9)
        next_start_ns = now_ns
        refused = False
        why = "nobody answered"
        while now_ns < deadline_ns and (self._waiting or self._running):
            if self._waiting and (now_ns >= next_start_ns or not self._running):
                try:
                    self._start(now_ns)
                except OSError as error:
                    why = os.strerror(error.errno or 0).lower()
                next_start_ns = now_ns + _NEXT_ADDRESS_DELAY_NS
            for attempt in list(self._running):
                sock, handshake, client_id = attempt
                try:
                    if self._advance(sock, handshake, now_ns) and handshake.accepted is not None:
                        self._running.remove(attempt)
                        return self._channel(sock, handshake, client_id, now_ns)
                except PeerUnreachable:
                    self._running.remove(attempt)
                    sock.close()
                    refused = True
                except OSError as error:
                    self._running.remove(attempt)
                    sock.close()
                    why = os.strerror(error.errno or 0).lower()
            times = [handshake.poll_timeout() for _, handshake, _ in self._running] + [deadline_ns]
            if self._waiting:
                times.append(next_start_ns)
            if self._running:
                wait_readable([sock.sock for sock, _, _ in self._running], min(times) - time.monotonic_ns())
            now_ns = time.monotonic_ns()
        if refused:
            why = "nothing listens there for UDP"
        raise UnreachableError(f"cannot reach {self._address} by UDP: {why}; start `nettool recv` there first")

    def _start(self, now_ns: int) -> None:
        family, socket_address = self._waiting.pop(0)
        sock = DatagramSocket(socket.socket(family, socket.SOCK_DGRAM), self._options.offload)
        try:
            sock.sock.connect(socket_address)
        except OSError:
            sock.close()
            raise
        client_id = secrets.randbits(64)
        largest = sock.max_datagram_bytes(config_of(self._options, sock).max_datagram_bytes)
        handshake = ClientHandshake(client_id, max(largest, wire.MIN_DATAGRAM_BYTES), now_ns)
        self._running.append((sock, handshake, client_id))

    @staticmethod
    def _advance(sock: DatagramSocket, handshake: ClientHandshake, now_ns: int) -> bool:
        """Take answers, send what is due; returns whether the handshake is complete."""
        for batch in sock.receive():
            try:
                handshake.handle_datagram_untrusted(batch.data[: batch.segment_bytes], now_ns)
            except ProtocolError:
                continue  # not from who was asked
        initial = handshake.poll_transmit(now_ns)
        if initial is not None:
            sock.send_one(initial)
        return handshake.accepted is not None

    def _channel(self, sock: DatagramSocket, handshake: ClientHandshake, client_id: int, now_ns: int) -> UdpChannel:
        accept = handshake.accepted
        assert accept is not None
        outgoing = OutgoingExtents()
        config = config_of(self._options, sock)
        datagram_bytes = min(accept.datagram_bytes, sock.max_datagram_bytes(accept.datagram_bytes))
        connection = Connection(config, outgoing, client_id, accept.server_id, datagram_bytes, now_ns)
        connection.start(accept.data_window, handshake.rtt_ns)
        host, port = sock.sock.getpeername()[:2]
        return UdpChannel(connection, sock, outgoing, Address(host, port))

    def close(self) -> None:
        for sock, _, _ in self._running:
            sock.close()


class UdpListener:
    """See `toolkit.transfer.channel.Listener`."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        self._options = options
        self._socket = DatagramSocket(_bind(address), "off")
        ask_for_local_address(self._socket.sock)
        self._jar = CookieJar(secrets.token_bytes(32))
        self._unconfirmed: dict[UdpChannel, int] = {}  # and when to give it up
        self._seen: OrderedDict[tuple[tuple[str, int], int], None] = OrderedDict()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._is_closed = False

    @property
    def address(self) -> Address:
        host, port = self._socket.sock.getsockname()[:2]
        return Address(host, port)

    def accept(self, timeout_s: float | None = None) -> UdpChannel | None:
        deadline_ns = None if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)
        while not self._is_closed:
            self._answer_initials()
            channel = self._confirmed()
            if channel is not None:
                return channel
            now_ns = time.monotonic_ns()
            if deadline_ns is not None and now_ns >= deadline_ns:
                return None
            times = [t for t in (deadline_ns, *self._unconfirmed.values()) if t is not None]
            socks = [self._socket.sock, self._wake_receiver, *(c.socket for c in self._unconfirmed)]
            wait_readable(socks, min(times) - now_ns if times else None)
        self._free()
        raise PeerClosedError("this side has stopped listening")

    def close(self) -> None:
        """The sockets are freed by the thread in `accept`, or here when there is none."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wake_sender.send(b"\0")
        self._free()

    def _free(self) -> None:
        for channel in list(self._unconfirmed):
            channel.abort()
        self._unconfirmed.clear()
        self._socket.close()

    def _confirmed(self) -> UdpChannel | None:
        now_ns = time.monotonic_ns()
        for channel, give_up_ns in list(self._unconfirmed.items()):
            try:
                is_confirmed = channel.pump()
            except (OSError, ProtocolError):
                give_up_ns = now_ns
                is_confirmed = False
            if is_confirmed:
                del self._unconfirmed[channel]
                return channel
            if channel.is_lost or now_ns >= give_up_ns:
                del self._unconfirmed[channel]
                channel.abort()
        return None

    def _answer_initials(self) -> None:
        while (arrival := self._socket.receive_from()) is not None:
            batch, origin = arrival
            now_ns = time.monotonic_ns()
            demand = len(self._unconfirmed) >= _MAX_UNCONFIRMED
            try:
                answer = answer_initial_untrusted(batch.data, repr(origin.peer).encode(), now_ns, self._jar, demand)
            except ProtocolError:
                continue
            if answer.reply is not None:
                self._socket.send_to(answer.reply, origin.peer)
            if answer.initial is None or (origin.peer, answer.initial.client_id) in self._seen:
                continue
            try:
                channel = self._make_channel(answer.initial, origin, now_ns)
            except OSError:
                continue  # no descriptors left, or the route is gone: the client asks again
            self._seen[origin.peer, answer.initial.client_id] = None
            if len(self._seen) > _REMEMBERED_INITIALS:
                self._seen.popitem(last=False)
            self._unconfirmed[channel] = now_ns + _UNCONFIRMED_LIFETIME_NS

    def _make_channel(self, initial: wire.Initial, origin: Origin, now_ns: int) -> UdpChannel:
        raw = socket.socket(self._socket.sock.family, socket.SOCK_DGRAM)
        try:
            if raw.family == socket.AF_INET6:
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self._is_ipv6_only())
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound = self._socket.sock.getsockname()
            raw.bind((origin.local_host or bound[0], bound[1], *bound[2:]))
            sock = DatagramSocket(raw, self._options.offload)
            raw.connect(origin.peer)
        except OSError:
            raw.close()
            raise
        config = config_of(self._options, sock)
        server_id = secrets.randbits(64)
        datagram_bytes = max(sock.max_datagram_bytes(config.max_datagram_bytes), wire.MIN_DATAGRAM_BYTES)
        accept = wire.Accept(initial.client_id, server_id, datagram_bytes, config.receive_window_bytes)
        outgoing = OutgoingExtents()
        connection = Connection(
            config,
            outgoing,
            server_id,
            initial.client_id,
            min(initial.datagram_bytes, datagram_bytes),
            now_ns,
            accept,
        )
        return UdpChannel(connection, sock, outgoing, Address(*origin.peer[:2]))

    def _is_ipv6_only(self) -> int:
        return self._socket.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _bind(address: Address) -> socket.socket:
    """A socket bound exclusively, whose port is then shared with the sockets of connections (see the file's head)."""
    if address.host:
        candidates = resolve(address, socket.SOCK_DGRAM)
    else:
        candidates = [(socket.AF_INET6, ("::", address.port)), (socket.AF_INET, ("0.0.0.0", address.port))]
    failure: OSError | None = None
    for family, socket_address in candidates:
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            failure = error
            continue
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address.host)))
            sock.bind(socket_address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError as error:
            sock.close()
            failure = error
            if error.errno == errno.EADDRINUSE:
                break
            continue
        return sock
    assert failure is not None
    raise listen_error(address, failure)


def listen_error(address: Address, error: OSError) -> UnreachableError:
    """Why `address` cannot be listened on, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return UnreachableError(f"UDP port {address.port} is taken by another program: choose one with --port")
    if error.errno == errno.EACCES:
        return UnreachableError(f"UDP port {address.port} needs the rights of root: choose one above 1023 with --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return UnreachableError(f"{address.host} is no address of this machine: choose one with --bind")
    return UnreachableError(f"cannot listen on {address} by UDP: {os.strerror(error.errno or 0).lower()}")
