"""A transport without a network: two ends in one process, for tests and to learn the interface from.

Each direction is a queue under one lock. Messages keep their order; content goes in pieces. With a seed the
pieces of content are taken in a shuffled order, and may be overtaken by messages or overtake them: everything
that the contract of a channel allows and a well-behaved network seldom does.
"""

import random
import select
import threading
import time
from collections import deque
from collections.abc import Mapping

from toolkit.channel import (
    MAX_MESSAGE_BYTES,
    Address,
    Extent,
    ExtentSink,
    ExtentSource,
    Statistic,
    TransportOptions,
)
from toolkit.errors import PeerClosedError, ProtocolError, UnreachableError, UsageError

PIECE_BYTES = 1 << 18
MAX_BACKLOG_BYTES = 1 << 22  # content that waits for the receiver; messages are small and always taken
GLANCE_S = 0.001  # how often a descriptor is looked at

_Piece = tuple[int, int, bytes]  # file id, offset, content


class _Direction:
    """What is on its way from one end to the other; guarded by the pair's condition."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.pieces: list[_Piece] = []
        self.backlog_bytes = 0
        self.is_closed = False  # the sending end puts in nothing more
        self.is_abandoned = False  # the receiving end takes nothing more


class MemoryChannel:
    """One end of a pair; see Channel."""

    def __init__(
        self,
        peer: Address,
        condition: threading.Condition,
        directions: tuple[_Direction, _Direction],
        options: TransportOptions,
        shuffle: random.Random | None,
    ) -> None:
        self._peer = peer
        self._condition = condition
        self._outgoing, self._incoming = directions
        self._idle_timeout_s = options.idle_timeout_s
        self._last_heard_s = time.monotonic()
        self._shuffle = shuffle
        self._sent = 0
        self._is_closed = False

    @property
    def peer(self) -> Address:
        """See Channel."""
        return self._peer

    def send_message(self, message: bytes) -> None:
        """See Channel."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes is too long")
        with self._condition:
            self._check_open()
            self._outgoing.messages.append(bytes(message))
            self._sent += 1
            self._condition.notify_all()

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        """See Channel."""
        try:
            end = extent.offset + extent.length
            for offset in range(extent.offset, end, PIECE_BYTES):
                piece = bytearray(min(PIECE_BYTES, end - offset))
                source.read_into(offset, memoryview(piece))
                self._put((extent.file_id, offset, bytes(piece)))
        finally:
            source.release(extent)
        with self._condition:
            self._check_open()

    def _put(self, piece: _Piece) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._has_room() or self._is_lost(), self._idle_timeout_s)
            self._check_open()
            if not self._has_room():
                raise PeerClosedError("the peer has taken nothing for longer than the idle timeout")
            self._outgoing.pieces.append(piece)
            self._outgoing.backlog_bytes += len(piece[2])
            self._sent += 1
            self._condition.notify_all()

    def _has_room(self) -> bool:
        return self._outgoing.backlog_bytes < MAX_BACKLOG_BYTES

    def _is_lost(self) -> bool:
        return self._outgoing.is_abandoned or self._outgoing.is_closed

    def _check_open(self) -> None:
        if self._is_lost():
            raise PeerClosedError("the peer has closed the channel")

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        """See Channel. A condition and a descriptor cannot be waited for at once: `wake` is looked at now and then."""
        incoming = self._incoming
        now_s = time.monotonic()
        lost_at_s = self._last_heard_s + self._idle_timeout_s
        until_s = lost_at_s if timeout_s is None else min(now_s + timeout_s, lost_at_s)
        with self._condition:
            while not (incoming.messages or incoming.pieces or incoming.is_closed or self._is_closed):
                remaining_s = until_s - time.monotonic()
                if remaining_s <= 0:
                    if time.monotonic() >= lost_at_s:
                        raise PeerClosedError("the peer was silent for longer than the idle timeout")
                    return None
                if wake is None:
                    self._condition.wait(remaining_s)
                elif select.select([wake], [], [], 0)[0]:
                    return None
                else:
                    self._condition.wait(min(remaining_s, GLANCE_S))
            self._last_heard_s = time.monotonic()
            pieces_first = self._shuffle is not None and self._shuffle.random() < 0.5
            if incoming.messages and not (pieces_first and incoming.pieces and sink):
                return incoming.messages.popleft()
            if not incoming.pieces:
                raise PeerClosedError("the peer has closed the channel")
            pieces, incoming.pieces = incoming.pieces, []
            incoming.backlog_bytes = 0
            self._condition.notify_all()
        if sink is None:
            raise ProtocolError("the peer sends content where none is expected")
        if self._shuffle is not None:
            self._shuffle.shuffle(pieces)
        for file_id, offset, data in pieces:
            sink.write(file_id, offset, memoryview(data))
        return None

    def flush(self) -> None:
        """See Channel; the queue is the peer's."""
        with self._condition:
            self._check_open()

    def close(self) -> None:
        """See Channel."""
        self._end(drop=False)

    def abort(self) -> None:
        """See Channel."""
        self._end(drop=True)

    def _end(self, drop: bool) -> None:
        with self._condition:
            self._is_closed = True
            self._outgoing.is_closed = True
            self._incoming.is_abandoned = True
            for direction in (self._incoming, self._outgoing) if drop else (self._incoming,):
                direction.messages.clear()
                direction.pieces.clear()
            self._condition.notify_all()

    def statistics(self) -> Mapping[str, Statistic]:
        """See Channel; a packet is a message or a piece of content."""
        return {
            "packets_sent": self._sent,
            "packets_retransmitted": 0,
            "rtt_ms": 0.0,
            "rtt_min_ms": 0.0,
            "congestion_control": "none",
        }


class MemoryListener:
    """See Listener."""

    def __init__(self, transport: "MemoryTransport", address: Address) -> None:
        self._transport = transport
        self._address = address
        self._condition = threading.Condition()
        self._waiting: deque[MemoryChannel] = deque()
        self._is_closed = False

    @property
    def address(self) -> Address:
        """See Listener."""
        return self._address

    def _offer(self, channel: MemoryChannel) -> None:
        with self._condition:
            self._waiting.append(channel)
            self._condition.notify_all()

    def accept(self, timeout_s: float | None = None) -> MemoryChannel | None:
        """See Listener."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._is_closed, timeout_s)
            if self._is_closed:
                raise PeerClosedError("the listener was closed")
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """See Listener."""
        self._transport._forget(self._address)
        with self._condition:
            self._is_closed = True
            waiting, self._waiting = self._waiting, deque()
            self._condition.notify_all()
        for channel in waiting:
            channel.abort()


class MemoryTransport:
    """See Transport. Every instance is a network of its own; hosts are names, ports count up.

    shuffle_seed: takes content in a shuffled order, by this seed
    """

    name = "memory"

    def __init__(self, shuffle_seed: int | None = None) -> None:
        self._seed = shuffle_seed
        self._lock = threading.Lock()
        self._listeners: dict[int, MemoryListener] = {}
        self._next_port = 1

    def connect(self, address: Address, options: TransportOptions) -> MemoryChannel:
        """See Transport."""
        _check(options)
        with self._lock:
            listener = self._listeners.get(address.port)
            number, self._next_port = self._next_port, self._next_port + 1
        if listener is None:
            raise UnreachableError(f"{address}: nobody listens there")
        condition, there, back = threading.Condition(), _Direction(), _Direction()
        ours = MemoryChannel(address, condition, (there, back), options, self._random(2 * number))
        here = Address("memory", number)
        listener._offer(MemoryChannel(here, condition, (back, there), options, self._random(2 * number + 1)))
        return ours

    def _random(self, number: int) -> random.Random | None:
        return None if self._seed is None else random.Random((self._seed << 32) + number)

    def listen(self, address: Address, options: TransportOptions) -> MemoryListener:
        """See Transport."""
        _check(options)
        with self._lock:
            port = address.port or next(port for port in range(1, 1 << 16) if port not in self._listeners)
            if port in self._listeners:
                raise UnreachableError(f"{address}: somebody else listens there")
            listener = self._listeners[port] = MemoryListener(self, Address(address.host or "memory", port))
        return listener

    def _forget(self, address: Address) -> None:
        with self._lock:
            self._listeners.pop(address.port, None)


def _check(options: TransportOptions) -> None:
    if options.congestion_control or options.rate_bps or options.streams != 1:
        raise UsageError("the memory transport has no congestion control, rate or streams to choose")
