"""The two hosts of a simulated flow: drivers of the real engine and the real handshake in virtual time.

A host does what the socket driver does: it handles what has arrived, lets timers fire, sends until nothing is left to
send, and sleeps until the engine or the network wakes it. Its CPU and its socket buffer are unlimited. Like a network
card with interrupt moderation, it is woken by arrivals at most every 50 us.

Corrupted datagrams never reach the engine: the UDP checksum detects every flipped bit (RFC 768).
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator
from toolkit.rudp.batch import MAX_BATCH_BYTES, Batch, Transmit
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.control_packets import FinishPacket
from toolkit.rudp.handshake import ClientHandshake
from toolkit.rudp.handshake_server import AcceptLimits, ServerHandshakes
from toolkit.rudp.protection import Unprotected
from toolkit.rudp.range_set import RangeSet
from toolkit.rudp.state import ConnectionState
from toolkit.simulator.inbox import Datagrams, Inbox
from toolkit.simulator.security import PlainClientSecurity, PlainServerSecurity

INTERRUPT_INTERVAL_NS: Final = 50_000
"""Minimum interval between wake-ups by arrivals, like the interrupt moderation of network cards (rx-usecs)."""
_MAX_WAKES_AT_ONCE: Final = 10_000
_CLIENT_HOST: Final = b"client"
_CLIENT_ADDRESS: Final = ("client", 1)
_PERIOD_BYTES: Final = 1_048_573  # prime: data at a wrong offset differs


class PatternSource:
    """A data stream of any length whose bytes are determined by their offset and the seed."""

    def __init__(self, seed: int) -> None:
        generator = np.random.Generator(np.random.PCG64(seed))
        period = generator.integers(0, 256, _PERIOD_BYTES, np.uint8)
        self._bytes = np.concatenate((period, period[: MAX_BATCH_BYTES + wire.MAX_DATAGRAM_BYTES]))
        self._view = memoryview(self._bytes.tobytes())

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As in `toolkit.rudp.streams.DataSource`."""
        start = offset % _PERIOD_BYTES
        buffer[:] = self._view[start : start + len(buffer)]

    def matches(self, offset: int, data: memoryview) -> bool:
        """Whether `data` is the content at `offset`."""
        start = offset % _PERIOD_BYTES
        return np.array_equal(np.frombuffer(data, np.uint8), self._bytes[start : start + len(data)])


@dataclass
class HostCounters:
    """What one host has sent, and what the link lost of it. Payload is that of DATA packets."""

    packets: int = 0
    payload_bytes: int = 0
    lost_payload_bytes: int = 0
    lost_packets: Counter[str] = field(default_factory=Counter)


class Network(Protocol):
    """What a host sends to."""

    def send(self, now_ns: int, host: "Host", datagrams: Datagrams) -> None:
        """Put `datagrams` on the path that starts at `host`."""


class Host:
    """The simulator calls `wake` at `next_ns`; the network puts arrivals into `inbox`."""

    def __init__(self, network: Network, extra_delay_ns: int) -> None:
        self.connection: Connection | None = None
        self.inbox = Inbox()
        self.counters = HostCounters()
        self.peer: Host = self
        self.due_ns: int | None = None  # the scheduled wake-up
        self.extra_delay_ns = extra_delay_ns
        self.is_forward = False
        self._network = network
        self._quiet_until_ns = 0
        self._last_wake_ns = -1
        self._wakes_at_once = 0

    def next_ns(self) -> int | None:
        """When the host next has something to do; None for never."""
        if self.connection is None:
            budget = 0
            timeout_ns = self._handshake_timeout_ns()
        else:
            budget = self.connection.acks.bytes_until_ack
            timeout_ns = self.connection.poll_timeout()
        if not self.inbox:
            return timeout_ns
        arrival_ns = self.inbox.due_ns(budget)
        if arrival_ns is None:
            return timeout_ns
        arrival_ns = max(arrival_ns, self._quiet_until_ns)
        return arrival_ns if timeout_ns is None else min(arrival_ns, timeout_ns)

    def _handshake_timeout_ns(self) -> int | None:
        """When the handshake needs attention; None for never."""
        return None

    def wake(self, now_ns: int) -> None:
        """Do everything that is due at `now_ns`."""
        self._wakes_at_once = self._wakes_at_once + 1 if now_ns == self._last_wake_ns else 0
        self._last_wake_ns = now_ns
        if self._wakes_at_once > _MAX_WAKES_AT_ONCE:
            raise RuntimeError(f"the engine never sleeps: it asks for another call at {now_ns} ns")
        batches = self.inbox.take(now_ns)
        if batches:
            self._quiet_until_ns = now_ns + INTERRUPT_INTERVAL_NS
        if self.connection is None:
            self._handle_handshake(batches, now_ns)
        else:
            self._drive(self.connection, batches, now_ns)

    def _handle_handshake(self, batches: list[tuple[Batch, int]], now_ns: int) -> None:
        """Handle `batches` before the connection exists."""
        raise NotImplementedError

    def _drive(self, connection: Connection, batches: list[tuple[Batch, int]], now_ns: int) -> None:
        """One round of the driver contract of `Connection`."""
        for batch, arrival_ns in batches:
            connection.handle_batch(batch, arrival_ns)
            self._after_batch(connection, arrival_ns)
        if batches:
            connection.update_receive_window(0, is_drained=True, now_ns=now_ns)
        timeout_ns = connection.poll_timeout()
        if timeout_ns is not None and timeout_ns <= now_ns:
            connection.handle_timeout(now_ns)
        self._after_round(connection, now_ns)
        while (transmit := connection.poll_transmit(now_ns)) is not None:
            self._send(now_ns, Datagrams(transmit))

    def _after_batch(self, connection: Connection, now_ns: int) -> None:
        """Let the application handle received data."""

    def _after_round(self, connection: Connection, now_ns: int) -> None:
        """Let the application act before the host sends."""

    def _send(self, now_ns: int, datagrams: Datagrams) -> None:
        self.counters.packets += datagrams.count
        self.counters.payload_bytes += datagrams.payload_bytes(0, datagrams.count)
        self._network.send(now_ns, self, datagrams)

    def _send_packet(self, now_ns: int, packet: bytes) -> None:
        self._send(now_ns, Datagrams(Transmit(memoryview(packet), len(packet))))

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed, by either side."""
        return self.connection is not None and self.connection.state is ConnectionState.CLOSED


class ClientHost(Host):
    """Sends `size_bytes` (None: without end) from `start_ns` until every byte is acknowledged, or until `stop_ns`."""

    def __init__(
        self,
        network: Network,
        config: Config,
        source: PatternSource,
        client_id: int,
        size_bytes: int | None,
        start_ns: int,
        stop_ns: int | None,
        extra_delay_ns: int,
        token: bytes,
    ) -> None:
        """`token` is from an earlier connection; without one, the handshake takes two round trips."""
        super().__init__(network, extra_delay_ns)
        self.is_forward = True
        self.first_packet_ns: int | None = None
        self.finished_ns: int | None = None
        self.ended_ns: int | None = None
        self._config = config
        self._source = source
        self._client_id = client_id
        self._size_bytes = size_bytes
        self._stop_ns = stop_ns
        self._handshake = ClientHandshake(client_id, config.max_datagram_bytes, PlainClientSecurity, start_ns, token)

    def next_ns(self) -> int | None:
        """As in Host."""
        due_ns = super().next_ns()
        if self._stop_ns is None or self.ended_ns is not None:
            return due_ns
        return self._stop_ns if due_ns is None else min(due_ns, self._stop_ns)

    def _handshake_timeout_ns(self) -> int:
        return self._handshake.poll_timeout()

    def _handle_handshake(self, batches: list[tuple[Batch, int]], now_ns: int) -> None:
        handshake = self._handshake
        for batch, _ in batches:
            with suppress(ProtocolError):  # not an answer
                handshake.handle_datagram_untrusted(batch.data[: batch.segment_bytes], now_ns)
        if handshake.accepted is not None:
            accepted = handshake.accepted
            server_id, size = accepted.server.server_id, accepted.server.datagram_bytes
            connection = Connection(
                self._config,
                self._source,
                self._client_id,
                server_id,
                min(size, self._config.max_datagram_bytes),
                now_ns,
                Unprotected(),
                FinishPacket(accepted.finish),
                rtt_ns=accepted.rtt_ns,
            )
            connection.start(accepted.server.data_window)
            connection.offer_data(1 << 60 if self._size_bytes is None else self._size_bytes)
            self.connection = connection
            self._drive(connection, [], now_ns)
        elif self._stop_ns is not None and now_ns >= self._stop_ns:
            self.ended_ns = now_ns
        elif (initial := handshake.poll_transmit(now_ns)) is not None:
            self.first_packet_ns = now_ns if self.first_packet_ns is None else self.first_packet_ns
            self._send_packet(now_ns, initial)

    def _after_round(self, connection: Connection, now_ns: int) -> None:
        if self.ended_ns is not None:
            return
        if connection.is_fully_acked:
            self.finished_ns = now_ns
        if connection.is_fully_acked or self.is_closed or (self._stop_ns is not None and now_ns >= self._stop_ns):
            self.ended_ns = now_ns
            connection.close(0, "")


class ServerHost(Host):
    """Answers the handshake, and receives and verifies the data.

    progress: (time, bytes delivered so far) after every batch
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        source: PatternSource,
        server_id: int,
        extra_delay_ns: int,
    ) -> None:
        super().__init__(network, extra_delay_ns)
        self.delivered_bytes = 0
        self.progress: list[tuple[int, int]] = []
        self._config = config
        self._source = source
        self._received = RangeSet()
        self._validator = AddressValidator(server_id.to_bytes(32, "big"))
        limits = AcceptLimits(config.max_datagram_bytes, config.receive_window_bytes)
        self._handshakes = ServerHandshakes(PlainServerSecurity(), self._validator, limits, lambda: server_id)

    def return_token(self) -> bytes:
        """The token that the client would have from an earlier connection."""
        return self._validator.return_token(_CLIENT_HOST, 0)

    def _handle_handshake(self, batches: list[tuple[Batch, int]], now_ns: int) -> None:
        for index, (batch, _) in enumerate(batches):
            datagram = batch.data[: batch.segment_bytes]
            with suppress(ProtocolError):  # packets that overtook the FINISH
                if datagram[0] == wire.PacketType.INITIAL:
                    for answer in self._handshakes.handle_initial_untrusted(
                        datagram, _CLIENT_ADDRESS, _CLIENT_HOST, now_ns
                    ):
                        self._send_packet(now_ns, answer)
                elif datagram[0] == wire.PacketType.FINISH:
                    self._establish_untrusted(datagram, now_ns)
            if self.connection is not None:
                self._drive(self.connection, batches[index + 1 :], now_ns)
                return

    def _establish_untrusted(self, datagram: memoryview, now_ns: int) -> None:
        done = self._handshakes.handle_finish_untrusted(datagram, _CLIENT_ADDRESS, now_ns)
        self._handshakes.complete(done)
        size = min(done.client.datagram_bytes, self._config.max_datagram_bytes)
        self.connection = Connection(
            self._config,
            self._source,
            done.server_id,
            done.client_id,
            size,
            now_ns,
            Unprotected(),
            rtt_ns=done.rtt_ns,
        )

    def _after_batch(self, connection: Connection, now_ns: int) -> None:
        pieces = connection.received_data()
        for offset, data in pieces:
            end = offset + len(data)
            if self._received.add(offset, end) != [(offset, end)]:
                raise RuntimeError(f"bytes from {offset} to {end} were delivered twice")
            if not self._source.matches(offset, data):
                raise RuntimeError(f"bytes from {offset} to {end} are not what was sent")
            self.delivered_bytes += len(data)
        if pieces:
            self.progress.append((now_ns, self.delivered_bytes))
