"""The reliable-UDP transport, and the client's side of a connection: handshakes until one address has answered.

Read: `toolkit.rudp.handshake` for the handshake, `toolkit.transports.addresses` for the staggered attempts.
"""

import contextlib
import errno
import os
import secrets
import select
import socket
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from toolkit.channel import Address, TransportOptions
from toolkit.errors import IncompleteHandshakeError, ProtocolError, printable
from toolkit.parameters import grease
from toolkit.rudp import wire
from toolkit.rudp.batch import Transmit
from toolkit.rudp.connection import Connection
from toolkit.rudp.control_packets import FinishPacket
from toolkit.rudp.handshake import ClientHandshake
from toolkit.security.admission import Admitted
from toolkit.security.handshake import Initiator
from toolkit.security.keys import SessionKeys
from toolkit.transports.addresses import SocketAddress, address_of, connect_error, connect_first, resolve
from toolkit.transports.keep_alive import KEEP_ALIVES
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.engine_config import check_options, config_of
from toolkit.transports.udp.extents import OutgoingExtents
from toolkit.transports.udp.path_cache import MIN_RTT_NS, PathCache
from toolkit.transports.udp.protection import SessionSecurity, protect
from toolkit.transports.udp.qlog_files import ConnectionLog, LogFiles
from toolkit.transports.udp.socket import DatagramSocket, PeerUnreachableError
from toolkit.transports.udp.token_cache import TokenCache

if TYPE_CHECKING:
    from toolkit.transports.udp.listener import UdpListener

_DOUBT_NS: Final = 1_000_000_000
"""A router's report that the path is too narrow is believed after so long without an answer: it may be forged."""


class UdpTransport:
    """See `toolkit.channel.Transport`."""

    name = "udp"

    def connect(self, address: Address, options: TransportOptions) -> UdpChannel:
        check_options(options)
        candidates = resolve(address, socket.SOCK_DGRAM)
        logs = LogFiles(options.qlog) if options.qlog is not None else None
        attempts: list[UdpAttempt] = []
        tokens = TokenCache()

        def begin(candidate: SocketAddress) -> UdpAttempt:
            attempts.append(UdpAttempt(candidate, options, tokens))
            return attempts[-1]

        try:
            attempt = connect_first(candidates, begin, time.monotonic() + options.connect_timeout_s)
            try:
                return _open_channel(attempt, options, logs)
            except BaseException:
                attempt.close()
                raise
        except OSError as error:
            if any(attempt.has_heard for attempt in attempts):
                raise _incomplete(address) from error
            raise connect_error(address, socket.SOCK_DGRAM, error, options.peer_program) from error
        finally:
            if logs is not None:
                logs.close()

    def listen(self, address: Address, options: TransportOptions) -> "UdpListener":
        check_options(options)
        from toolkit.transports.udp.listener import UdpListener  # which a sender does not need

        return UdpListener(address, options)


def _incomplete(address: Address) -> IncompleteHandshakeError:
    peer = printable(str(address))
    return IncompleteHandshakeError(
        f"{peer} answers over UDP, but no connection came about; run the command again, or use TCP instead"
    )


class UdpAttempt:
    """A ConnectionAttempt: a socket that is connected to one address, and the handshake with it.

    has_heard: whether anything has come from there
    """

    events = select.POLLIN

    def __init__(self, candidate: SocketAddress, options: TransportOptions, tokens: TokenCache) -> None:
        """Raises OSError, and UsageError if `cryptography` has no ML-KEM."""
        family, name = candidate
        self.tokens = tokens if options.returns_tokens else None
        self.has_heard = False
        now_ns = time.monotonic_ns()
        self._doubt_ns = now_ns + _DOUBT_NS
        silence_s = options.silence_timeout_s
        self._silence_ends_ns = None if silence_s is None else now_ns + int(silence_s * 1e9)
        self.client_id = secrets.randbits(64)
        self.socket = DatagramSocket(socket.socket(family, socket.SOCK_DGRAM), options.offload)
        try:
            self.socket.sock.connect(name)
            self.peer = address_of(self.socket.sock.getpeername())
            self.handshake = self._handshake(options)
        except BaseException:
            self.socket.close()
            raise

    def _handshake(self, options: TransportOptions) -> ClientHandshake[SessionKeys | None]:
        largest = self.socket.max_datagram_bytes(config_of(options, self.socket).max_datagram_bytes)
        return ClientHandshake(
            self.client_id,
            max(largest, wire.MIN_DATAGRAM_BYTES),
            partial(Initiator, options.credential, wants_plaintext=options.plaintext),
            time.monotonic_ns(),
            # On loopback, reading a token takes longer than the round trip that it saves.
            b"" if self.tokens is None or self.peer.is_loopback else self.tokens.take(self.peer),
            grease(secrets.token_bytes),
        )

    def fileno(self) -> int:
        return self.socket.fileno()

    def advance(self) -> bool:
        now_ns = time.monotonic_ns()
        try:
            for batch in self.socket.receive():
                self.has_heard = True
                for start in range(0, len(batch.data), batch.segment_bytes):
                    with contextlib.suppress(ProtocolError):  # not from this address's server
                        self.handshake.handle_datagram_untrusted(
                            batch.data[start : start + batch.segment_bytes], now_ns
                        )
            initial = self.handshake.poll_transmit(now_ns)
            if initial is not None:
                send_errors = self.socket.send_errors
                self.socket.send_datagram(initial)
                KEEP_ALIVES.start()  # while the server works on it
                is_refused = self.socket.send_errors > send_errors
                if is_refused or (not self.has_heard and now_ns >= self._doubt_ns):
                    self._check_mtu()
        except PeerUnreachableError:
            if self.handshake.refusal is not None:  # the receiver has ended after it
                raise self.handshake.refusal from None
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)) from None
        if not self.has_heard and self._silence_ends_ns is not None and now_ns >= self._silence_ends_ns:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return self.handshake.accepted is not None

    def _check_mtu(self) -> None:
        """Raises OSError if the interface is too narrow for an INITIAL, or, as a router has reported, the path."""
        if self.socket.max_datagram_bytes(wire.MIN_DATAGRAM_BYTES) < wire.MIN_DATAGRAM_BYTES:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))

    def deadline_s(self) -> float | None:
        return self.handshake.poll_timeout() / 1e9

    def keep_token(self, token: bytes) -> None:
        """Keep what saves the next connection to this server a round trip."""
        if token and self.tokens is not None and not self.peer.is_loopback:
            self.tokens.put(self.peer, token)

    def close(self) -> None:
        self.socket.close()


def _open_channel(attempt: UdpAttempt, options: TransportOptions, logs: LogFiles | None) -> UdpChannel:
    """Return the channel of a completed handshake; it owns the attempt's socket."""
    sock, accepted = attempt.socket, attempt.handshake.accepted
    assert accepted is not None
    sock.send_datagram(accepted.finish)  # at once: the server works on it while this side makes its connection
    finish_time_ns = time.monotonic_ns()
    server, keys = accepted.server, accepted.keys
    outgoing = OutgoingExtents()
    log = None
    if logs is not None:
        log = ConnectionLog(logs, "client", address_of(sock.sock.getsockname()), attempt.peer)
    paths = PathCache()
    is_far = accepted.rtt_ns is not None and accepted.rtt_ns >= MIN_RTT_NS
    memory = paths.recall(attempt.peer) if is_far and options.remembers_paths else None
    connection = Connection(
        replace(config_of(options, sock), memory=memory),
        outgoing,
        attempt.client_id,
        server.server_id,
        min(server.datagram_bytes, sock.max_datagram_bytes(server.datagram_bytes)),
        time.monotonic_ns(),
        protect(None if keys is None else (keys.client, keys.server), attempt.client_id, server.server_id),
        FinishPacket(accepted.finish, finish_time_ns),
        observer=log.observer if log is not None else None,
        rtt_ns=accepted.rtt_ns,
    )
    connection.start(server.data_window)
    security = SessionSecurity.of(keys, Admitted(options.credential.method))

    def keep_path() -> None:
        if options.remembers_paths:
            stats = connection.stats()
            paths.keep(attempt.peer, stats.congestion, stats.min_rtt_ns, options.rate_bps is not None)

    channel = UdpChannel(connection, sock, outgoing, attempt.peer, security, log=log, on_end=keep_path)
    try:
        if options.backlog_bytes is not None:
            channel.backlog_bytes = options.backlog_bytes
        channel.begin_log()
        if log is not None:
            log.observer.packets_sent(time.monotonic_ns(), Transmit(memoryview(accepted.finish), len(accepted.finish)))
        channel.pump()
        attempt.keep_token(server.return_token)  # while the server works on FINISH
    except BaseException:
        channel.abort()
        raise
    return channel
