"""A transport without a network: two channels in one process, for tests and as an example of the interface.

Each direction is a queue under one lock. Messages keep their order; content is cut into pieces. With a seed, the
receiver gets the pieces in a shuffled order, and messages and pieces overtake each other: everything that the contract
of a channel allows and that a well-behaved network seldom does.
"""

import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext

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
from toolkit.security.admission import Admitted, Method

PIECE_BYTES = 1 << 18
MAX_BACKLOG_BYTES = 1 << 22  # content that waits for the receiver; messages are small and never wait
POLL_INTERVAL_S = 0.001  # for the `wake` descriptor

_Piece = tuple[int, int, bytes]  # file id, offset, content


class _Queue:
    """The queues from one channel to the other; guarded by the pair's condition."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.pieces: list[_Piece] = []
        self.backlog_bytes = 0
        self.is_closed = False  # the sending channel adds nothing more
        self.is_abandoned = False  # the receiving channel takes nothing more


class MemoryChannel:
    """One channel of a pair; see Channel."""

    def __init__(
        self,
        peer: Address,
        condition: threading.Condition,
        queues: tuple[_Queue, _Queue],
        options: TransportOptions,
        shuffle: random.Random | None,
    ) -> None:
        self._peer = peer
        self.admitted = Admitted(Method.NONE)  # see Channel
        self._condition = condition
        self._outgoing, self._incoming = queues
        self._idle_timeout_s = options.idle_timeout_s
        self._silence_s = 0.0  # how long `receive` has waited since the peer's last sign
        self._shuffle = shuffle
        self._sent = self._sent_bytes = 0
        self._is_closed = False

    @property
    def peer(self) -> Address:
        """See Channel."""
        return self._peer

    def send_message(self, message: bytes, has_more: bool = False) -> None:
        """See Channel."""
        del has_more
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes is longer than {MAX_MESSAGE_BYTES}")
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
                raise PeerClosedError("the peer has received nothing for longer than the idle timeout")
            self._outgoing.pieces.append(piece)
            self._outgoing.backlog_bytes += len(piece[2])
            self._sent_bytes += len(piece[2])
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
        """See Channel. A condition and a descriptor cannot be waited for together: this polls `wake`."""
        incoming = self._incoming
        with self._condition:
            begin_s = time.monotonic()
            lost_at_s = begin_s + self._idle_timeout_s - self._silence_s
            until_s = lost_at_s if timeout_s is None else min(begin_s + timeout_s, lost_at_s)
            while not (incoming.messages or incoming.pieces or incoming.is_closed or self._is_closed):
                now_s = time.monotonic()
                is_woken = wake is not None and select.select([wake], [], [], 0)[0]
                if now_s >= until_s or is_woken:
                    self._silence_s += now_s - begin_s
                    if now_s >= lost_at_s:
                        raise PeerClosedError("the peer was silent for longer than the idle timeout")
                    return None
                self._condition.wait(until_s - now_s if wake is None else min(until_s - now_s, POLL_INTERVAL_S))
            self._silence_s = 0.0
            pieces_first = self._shuffle is not None and self._shuffle.random() < 0.5
            if incoming.messages and not (pieces_first and incoming.pieces and sink):
                return incoming.messages.popleft()
            if not incoming.pieces:
                raise PeerClosedError("the peer has closed the channel")
            pieces, incoming.pieces = incoming.pieces, []
            incoming.backlog_bytes = 0
            self._condition.notify_all()
        if sink is None:
            raise ProtocolError("the peer sent content, and none is expected")
        if self._shuffle is not None:
            self._shuffle.shuffle(pieces)
        for file_id, offset, data in pieces:
            sink.write(file_id, offset, memoryview(data))
        return None

    def file_access(self) -> nullcontext[None]:
        return nullcontext()

    def check_while_waiting(self, check: Callable[[], None]) -> None:
        """See Channel; here, as over TCP, a wait ends with the idle timeout."""

    def flush(self) -> None:
        """See Channel; what is queued belongs to the peer."""
        with self._condition:
            self._check_open()

    def close(self, linger_s: float | None = None) -> None:  # noqa: ARG002 - nothing gets lost
        """See Channel."""
        self._close(drops_sent=False)

    def abort(self) -> None:
        """See Channel."""
        self._close(drops_sent=True)

    def _close(self, drops_sent: bool) -> None:
        with self._condition:
            self._is_closed = True
            self._outgoing.is_closed = True
            self._incoming.is_abandoned = True
            for queue in (self._incoming, self._outgoing) if drops_sent else (self._incoming,):
                queue.messages.clear()
                queue.pieces.clear()
            self._condition.notify_all()

    @property
    def acknowledged_bytes(self) -> int:
        """See Channel."""
        with self._condition:
            return self._sent_bytes - self._outgoing.backlog_bytes

    def statistics(self) -> Mapping[str, Statistic]:
        """See Channel; a packet is a message or a piece of content."""
        return {
            "packets_sent": self._sent,
            "packets_retransmitted": 0,
            "rtt_ms": 0.0,
            "rtt_min_ms": 0.0,
            "congestion_control": "none",
            "encryption": "none",
            "authentication": "none",
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
    """See Transport. Every instance is a network of its own; hosts are names, and ports count up.

    shuffle_seed: the seed of the order in which content is received; None for the order in which it was sent
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
            raise UnreachableError(f"nothing listens at {address}")
        condition, there, back = threading.Condition(), _Queue(), _Queue()
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
                raise UnreachableError(f"port {address.port} is in use")
            listener = self._listeners[port] = MemoryListener(self, Address(address.host or "memory", port))
        return listener

    def _forget(self, address: Address) -> None:
        with self._lock:
            self._listeners.pop(address.port, None)


def _check(options: TransportOptions) -> None:
    if options.congestion_control or options.rate_bps or options.streams != 1:
        raise UsageError("the memory transport has no congestion control, rate or streams")
