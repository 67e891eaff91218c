"""The reliable-UDP transport, and the client's side of a connection: handshakes until one address has answered.

Read: `toolkit.rudp.handshake` for the handshake, `toolkit.transports.addresses` for the staggered attempts.
"""

import errno
import os
import secrets
import select
import socket
import time
from functools import partial

from toolkit.channel import Address, TransportOptions
from toolkit.errors import ProtocolError, UsageError
from toolkit.rudp import wire
from toolkit.rudp.congestion import base as congestion
from toolkit.rudp.connection import Connection
from toolkit.rudp.handshake import ClientHandshake
from toolkit.rudp.protection import Unprotected
from toolkit.transports.addresses import SocketAddress, address_of, connect_error, connect_first, resolve
from toolkit.transports.udp.channel import UdpChannel, config_of
from toolkit.transports.udp.extents import OutgoingExtents
from toolkit.transports.udp.listener import UdpListener
from toolkit.transports.udp.qlog_files import ConnectionLog, LogFiles
from toolkit.transports.udp.socket import DatagramSocket, PeerUnreachableError


class UdpTransport:
    """See `toolkit.channel.Transport`."""

    name = "udp"

    def connect(self, address: Address, options: TransportOptions) -> UdpChannel:
        _check_options(options)
        candidates = resolve(address, socket.SOCK_DGRAM)
        logs = LogFiles(options.qlog) if options.qlog is not None else None
        try:
            deadline_s = time.monotonic() + options.connect_timeout_s
            attempt = connect_first(candidates, partial(UdpAttempt, options=options), deadline_s)
            try:
                return _open_channel(attempt, options, logs)
            except BaseException:
                attempt.close()
                raise
        except OSError as error:
            raise connect_error(address, socket.SOCK_DGRAM, error) from error
        finally:
            if logs is not None:
                logs.close()

    def listen(self, address: Address, options: TransportOptions) -> UdpListener:
        _check_options(options)
        return UdpListener(address, options)


def _check_options(options: TransportOptions) -> None:
    """Raises UsageError for what this transport does not support."""
    if options.streams != 1:
        raise UsageError("a session over UDP has no parallel connections: --streams is for TCP")
    name = options.congestion_control or congestion.DEFAULT_CONTROLLER
    congestion.controller_factory(name)
    if name == "rate" and options.rate_bps is None:
        raise UsageError("congestion control 'rate' sends at a rate that you choose: add --rate, such as --rate 50Mbit")


class UdpAttempt:
    """A ConnectionAttempt: a socket that is connected to one address, and the handshake with it."""

    events = select.POLLIN

    def __init__(self, candidate: SocketAddress, options: TransportOptions) -> None:
        """Raises OSError."""
        family, name = candidate
        self.socket = DatagramSocket(socket.socket(family, socket.SOCK_DGRAM), options.offload)
        try:
            self.socket.sock.connect(name)
        except OSError:
            self.socket.close()
            raise
        self.client_id = secrets.randbits(64)
        largest = self.socket.max_datagram_bytes(config_of(options, self.socket).max_datagram_bytes)
        now_ns = time.monotonic_ns()
        self.handshake = ClientHandshake(self.client_id, max(largest, wire.MIN_DATAGRAM_BYTES), now_ns)

    def fileno(self) -> int:
        return self.socket.fileno()

    def advance(self) -> bool:
        now_ns = time.monotonic_ns()
        try:
            for batch in self.socket.receive():
                try:
                    self.handshake.handle_datagram_untrusted(batch.data[: batch.segment_bytes], now_ns)
                except ProtocolError:
                    continue  # not from this address's server
            initial = self.handshake.poll_transmit(now_ns)
            if initial is not None:
                self.socket.send_datagram(initial)
        except PeerUnreachableError:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)) from None
        return self.handshake.accepted is not None

    def deadline_s(self) -> float | None:
        return self.handshake.poll_timeout() / 1e9

    def close(self) -> None:
        self.socket.close()


def _open_channel(attempt: UdpAttempt, options: TransportOptions, logs: LogFiles | None) -> UdpChannel:
    """Return the channel of a completed handshake; it owns the attempt's socket."""
    sock, accept = attempt.socket, attempt.handshake.accepted
    assert accept is not None
    outgoing = OutgoingExtents()
    config = config_of(options, sock)
    datagram_bytes = min(accept.datagram_bytes, sock.max_datagram_bytes(accept.datagram_bytes))
    peer = address_of(sock.sock.getpeername())
    log = ConnectionLog(logs, "client", address_of(sock.sock.getsockname()), peer) if logs is not None else None
    connection = Connection(
        config,
        outgoing,
        attempt.client_id,
        accept.server_id,
        datagram_bytes,
        time.monotonic_ns(),
        Unprotected(),
        observer=log.observer if log is not None else None,
    )
    connection.start(accept.data_window, attempt.handshake.rtt_ns)
    channel = UdpChannel(connection, sock, outgoing, peer, log=log)
    channel.begin_log()
    channel.pump()
    return channel
