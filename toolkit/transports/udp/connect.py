"""The client's side of a reliable-UDP connection: handshakes with the addresses of a name until one has answered."""

import os
import secrets
import socket
import time
from typing import Final

from toolkit.channel import Address, TransportOptions
from toolkit.errors import ProtocolError, UnreachableError
from toolkit.rudp import wire
from toolkit.rudp.connection import Connection
from toolkit.rudp.handshake import ClientHandshake
from toolkit.transports.addresses import SocketAddress, address_of
from toolkit.transports.udp.channel import UdpChannel, config_of
from toolkit.transports.udp.extents import OutgoingExtents
from toolkit.transports.udp.qlog_files import LogFiles
from toolkit.transports.udp.socket import DatagramSocket, PeerUnreachableError, wait_readable

_NEXT_ADDRESS_DELAY_NS: Final = 250_000_000  # RFC 8305 section 5


class Attempts:
    """Handshakes with the addresses of one name, the next begun where one has not answered soon (RFC 8305)."""

    def __init__(
        self,
        candidates: list[SocketAddress],
        address: Address,
        options: TransportOptions,
        logs: LogFiles | None = None,
    ) -> None:
        self._logs = logs
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
                except PeerUnreachableError:
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
                wait_readable([sock.sock.fileno() for sock, _, _ in self._running], min(times) - time.monotonic_ns())
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
        peer = address_of(sock.sock.getpeername())
        log = self._logs.new("client", address_of(sock.sock.getsockname()), peer) if self._logs else None
        observer = log.trace if log else None
        connection = Connection(
            config, outgoing, client_id, accept.server_id, datagram_bytes, now_ns, observer=observer
        )
        connection.start(accept.data_window, handshake.rtt_ns)
        channel = UdpChannel(connection, sock, outgoing, peer, log=log)
        channel.begin_log()
        channel.pump()
        return channel

    def close(self) -> None:
        for sock, _, _ in self._running:
            sock.close()
