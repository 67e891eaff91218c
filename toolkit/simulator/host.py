"""The two hosts of a simulated flow: drivers of the real engine and the real handshake under virtual time.

A host does what the socket driver does: it takes what has arrived, lets timers work, sends until there is nothing to
send, and sleeps until the engine or the network wants it. It has no processor to be short of and no socket buffer to
overflow; like a network card with interrupt moderation it is not woken by arrivals more often than every 50 us.

What a path has damaged never gets to the engine: a flipped bit is always seen by the UDP checksum (RFC 768).
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
from toolkit.rudp.handshake import ClientHandshake, answer_initial_untrusted
from toolkit.rudp.range_set import RangeSet
from toolkit.rudp.state import ConnectionState
from toolkit.simulator.inbox import Datagrams, Inbox

INTERRUPT_INTERVAL_NS: Final = 50_000
"""Arrivals wake a host no more often than this, as interrupt moderation of network cards has it (rx-usecs)."""
_MAX_WAKES_AT_ONCE: Final = 10_000
_PERIOD_BYTES: Final = 1_048_573  # prime: what lands at a wrong place differs


class PatternSource:
    """A data space of any length whose bytes follow from their position and the seed."""

    def __init__(self, seed: int) -> None:
        generator = np.random.Generator(np.random.PCG64(seed))
        period = generator.integers(0, 256, _PERIOD_BYTES, np.uint8)
        self._bytes = np.concatenate((period, period[: MAX_BATCH_BYTES + wire.MAX_DATAGRAM_BYTES]))
        self._view = memoryview(self._bytes.tobytes())

    def read_into(self, position: int, buffer: memoryview) -> None:
        """As in `toolkit.rudp.streams.DataSource`."""
        start = position % _PERIOD_BYTES
        buffer[:] = self._view[start : start + len(buffer)]

    def matches(self, position: int, data: memoryview) -> bool:
        """Whether `data` is what belongs at `position`."""
        start = position % _PERIOD_BYTES
        return np.array_equal(np.frombuffer(data, np.uint8), self._bytes[start : start + len(data)])


@dataclass
class Tally:
    """What one host has put on the wire and what became of it; payload is that of DATA packets, in bytes."""

    packets: int = 0
    payload_bytes: int = 0
    lost_payload_bytes: int = 0
    lost_packets: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        """Packets that never got there whole, for whatever reason."""
        return sum(self.lost_packets.values())


class Network(Protocol):
    """What a host sends through."""

    def send(self, now_ns: int, host: "Host", datagrams: Datagrams) -> None:
        """Put `datagrams` on the path that begins at `host`."""


class Host:
    """`wake` when `next_ns` has come; what arrives is put into `inbox` by the network."""

    def __init__(self, network: Network, extra_delay_ns: int) -> None:
        self.connection: Connection | None = None
        self.inbox = Inbox()
        self.tally = Tally()
        self.peer: Host = self
        self.due_ns: int | None = None  # when the simulator has it down for
        self.extra_delay_ns = extra_delay_ns
        self.is_forward = False
        self._network = network
        self._quiet_until_ns = 0
        self._last_wake_ns = -1
        self._wakes_at_once = 0

    def next_ns(self) -> int | None:
        """When the host has something to do; None for never."""
        if self.connection is None:
            budget = 0
            timeout_ns = self._idle_timeout_ns()
        else:
            budget = self.connection.bytes_until_ack
            timeout_ns = self.connection.poll_timeout()
        if not self.inbox:
            return timeout_ns
        arrival_ns = self.inbox.due_ns(budget)
        if arrival_ns is None:
            return timeout_ns
        arrival_ns = max(arrival_ns, self._quiet_until_ns)
        return arrival_ns if timeout_ns is None else min(arrival_ns, timeout_ns)

    def _idle_timeout_ns(self) -> int | None:
        """As `next_ns`, before there is a connection."""
        return None

    def wake(self, now_ns: int) -> None:
        """Do all that there is to do at `now_ns`."""
        self._wakes_at_once = self._wakes_at_once + 1 if now_ns == self._last_wake_ns else 0
        self._last_wake_ns = now_ns
        if self._wakes_at_once > _MAX_WAKES_AT_ONCE:
            raise RuntimeError(f"the engine asks to be called for ever at {now_ns} ns")
        batches = self.inbox.take(now_ns)
        if batches:
            self._quiet_until_ns = now_ns + INTERRUPT_INTERVAL_NS
        if self.connection is None:
            self._shake_hands(batches, now_ns)
        else:
            self._pump(self.connection, batches, now_ns)

    def _shake_hands(self, batches: list[tuple[Batch, int]], now_ns: int) -> None:
        """Take `batches` before there is a connection."""
        raise NotImplementedError

    def _pump(self, connection: Connection, batches: list[tuple[Batch, int]], now_ns: int) -> None:
        """One round of the driver contract of `Connection`."""
        for batch, arrival_ns in batches:
            connection.handle_batch(batch, arrival_ns)
            self._after_batch(connection, arrival_ns)
        timeout_ns = connection.poll_timeout()
        if timeout_ns is not None and timeout_ns <= now_ns:
            connection.handle_timeout(now_ns)
        self._after_round(connection, now_ns)
        while (transmit := connection.poll_transmit(now_ns)) is not None:
            self._send(now_ns, Datagrams(transmit, self.tally.packets))

    def _after_batch(self, connection: Connection, now_ns: int) -> None:
        """What the application does with what has landed."""

    def _after_round(self, connection: Connection, now_ns: int) -> None:
        """What the application decides before it sends."""

    def _send(self, now_ns: int, datagrams: Datagrams) -> None:
        self.tally.packets += datagrams.count
        self.tally.payload_bytes += datagrams.payload_bytes(0, datagrams.count)
        self._network.send(now_ns, self, datagrams)

    @property
    def is_lost(self) -> bool:
        """The engine has given the peer up, or was given up."""
        return self.connection is not None and self.connection.state is ConnectionState.CLOSED


class ClientHost(Host):
    """Sends `size_bytes` (None: without end) from `start_ns` on, until all is acknowledged or `stop_ns` has come."""

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
    ) -> None:
        super().__init__(network, extra_delay_ns)
        self.is_forward = True
        self.first_packet_ns: int | None = None
        self.settled_ns: int | None = None
        self.over_ns: int | None = None
        self._config = config
        self._source = source
        self._client_id = client_id
        self._size_bytes = size_bytes
        self._stop_ns = stop_ns
        self._handshake = ClientHandshake(client_id, config.max_datagram_bytes, start_ns)

    def next_ns(self) -> int | None:
        """As in Host."""
        due_ns = super().next_ns()
        if self._stop_ns is None or self.over_ns is not None:
            return due_ns
        return self._stop_ns if due_ns is None else min(due_ns, self._stop_ns)

    def _idle_timeout_ns(self) -> int:
        return self._handshake.poll_timeout()

    def _shake_hands(self, batches: list[tuple[Batch, int]], now_ns: int) -> None:
        handshake = self._handshake
        for batch, _ in batches:
            with suppress(ProtocolError):  # what has overtaken the ACCEPT
                handshake.handle_datagram_untrusted(batch.data[: batch.segment_bytes], now_ns)
        if handshake.accepted is not None:
            accept = handshake.accepted
            size = min(accept.datagram_bytes, self._config.max_datagram_bytes)
            connection = Connection(self._config, self._source, self._client_id, accept.server_id, size, now_ns)
            connection.start(accept.data_window, handshake.rtt_ns)
            connection.offer_data(1 << 60 if self._size_bytes is None else self._size_bytes)
            self.connection = connection
            self._pump(connection, [], now_ns)
        elif self._stop_ns is not None and now_ns >= self._stop_ns:
            self.over_ns = now_ns
        elif (initial := handshake.poll_transmit(now_ns)) is not None:
            self.first_packet_ns = now_ns if self.first_packet_ns is None else self.first_packet_ns
            self._send(now_ns, Datagrams(Transmit(memoryview(initial), len(initial)), self.tally.packets))

    def _after_round(self, connection: Connection, now_ns: int) -> None:
        if self.over_ns is not None:
            return
        if connection.is_fully_acked:
            self.settled_ns = now_ns
        if connection.is_fully_acked or self.is_lost or (self._stop_ns is not None and now_ns >= self._stop_ns):
            self.over_ns = now_ns
            connection.close(0, "")


class ServerHost(Host):
    """Answers the handshake and takes what lands; `progress` is (time, bytes landed so far) for every batch."""

    def __init__(
        self,
        network: Network,
        config: Config,
        source: PatternSource,
        server_id: int,
        demand_validation: bool,
        extra_delay_ns: int,
    ) -> None:
        super().__init__(network, extra_delay_ns)
        self.landed_bytes = 0
        self.progress: list[tuple[int, int]] = []
        self._config = config
        self._source = source
        self._server_id = server_id
        self._demand_validation = demand_validation
        self._landed = RangeSet()
        self._jar = AddressValidator(server_id.to_bytes(32, "big"))

    def _shake_hands(self, batches: list[tuple[Batch, int]], now_ns: int) -> None:
        for batch, _ in batches:
            datagram = batch.data[: batch.segment_bytes]
            answer = answer_initial_untrusted(datagram, b"client", now_ns, self._jar, self._demand_validation)
            if answer.reply is not None:
                self._send(now_ns, Datagrams(Transmit(memoryview(answer.reply), len(answer.reply)), self.tally.packets))
            if answer.initial is not None:
                config, initial = self._config, answer.initial
                accept = wire.AcceptPacket(
                    initial.client_id, self._server_id, config.max_datagram_bytes, config.receive_window_bytes
                )
                size = min(initial.datagram_bytes, config.max_datagram_bytes)
                self.connection = Connection(
                    config, self._source, self._server_id, initial.client_id, size, now_ns, accept
                )
                self._pump(self.connection, [], now_ns)
                return

    def _after_batch(self, connection: Connection, now_ns: int) -> None:
        landed = connection.received_data()
        for position, data in landed:
            end = position + len(data)
            if self._landed.add(position, end) != [(position, end)]:
                raise RuntimeError(f"bytes from {position} to {end} were delivered twice")
            if not self._source.matches(position, data):
                raise RuntimeError(f"bytes from {position} to {end} are not what was sent")
            self.landed_bytes += len(data)
        if landed:
            self.progress.append((now_ns, self.landed_bytes))
