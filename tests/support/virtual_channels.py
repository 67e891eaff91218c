"""Two UDP channels and a path between them in virtual time, for what the channels do beyond the engine.

Each end runs in a thread of its own, as with real sockets, and blocks only when it waits for datagrams. Time goes on
when both of them wait. The threads take turns, so the seed of the path is enough to replay a failing run.
"""

import heapq
import random
import socket
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

import pytest

from tests.support.background import Background
from toolkit.channel import Address
from toolkit.rudp.batch import Batch, Transmit
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.protection import Unprotected
from toolkit.rudp.wire import PacketType
from toolkit.security.admission import Admitted, Method
from toolkit.transports.keep_alive import INTERVAL_S, FileWait
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.extents import OutgoingExtents
from toolkit.transports.udp.protection import SessionSecurity
from toolkit.transports.udp.socket import DatagramSocket, PeerUnreachableError
from toolkit.transports.udp.wake_pair import WakePair

MS = 1_000_000
SECOND = 1000 * MS
START_NS = SECOND
_FOREVER_NS = 1 << 62
_KEEP_ALIVE_NS = int(INTERVAL_S * SECOND)

T = TypeVar("T")
U = TypeVar("U")


class VirtualSocket(DatagramSocket):
    """A socket at one end of a `VirtualPath`.

    arrived:    what waits to be received, and since when
    until_ns:   when the end wakes up; None while it runs
    is_working: whether it is its application that lets time go on
    is_open:    whether its channel has not been closed
    last_words: the last packet of the channel, which a listener repeats
    """

    def __init__(self, path: "VirtualPath", name: str) -> None:
        super().__init__(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "off")
        self.name = name
        self.arrived: list[tuple[int, Batch]] = []
        self.until_ns: int | None = None
        self.is_working = False
        self.is_open = True
        self.is_refused = False
        self.last_words = b""
        self._path = path

    @property
    def is_asleep(self) -> bool:
        """Whether nothing but time or a datagram wakes this end."""
        if not self.is_open:
            return True
        is_due = self.until_ns is not None and self._path.now_ns >= self.until_ns
        is_woken = not self.is_working and (self.arrived or self.is_refused)
        return self.until_ns is not None and not (is_woken or is_due)

    def receive(self) -> list[Batch]:
        if self.is_refused:
            self.is_refused = False
            raise PeerUnreachableError
        arrived, self.arrived = self.arrived, []
        self.is_drained = True
        return [batch._replace(waited_ns=self._path.now_ns - since_ns) for since_ns, batch in arrived]

    def send(self, transmit: Transmit) -> None:
        self._path.send(self, bytes(transmit.data), transmit.segment_bytes)

    def keep_last_words(self, packet: bytes) -> None:
        self.last_words = packet


class VirtualKeepAlives:
    """The keep-alives of a process in virtual time: `check` does what the thread of `KeepAlives` does at intervals."""

    def __init__(self) -> None:
        self._waits: dict[FileWait, Callable[[], object]] = {}

    def add(self, wait: FileWait, send_keep_alive: Callable[[], object]) -> None:
        self._waits[wait] = send_keep_alive

    def remove(self, wait: FileWait) -> None:
        self._waits.pop(wait, None)

    @property
    def are_needed(self) -> bool:
        """Whether any channel waits for a file."""
        waiting: list[None] = []
        for wait in self._waits:
            wait.check(lambda: waiting.append(None), _FOREVER_NS)
        return bool(waiting)

    def check(self, now_ns: int) -> None:
        for wait, send_keep_alive in list(self._waits.items()):
            wait.check(send_keep_alive, now_ns)


class VirtualPath:
    """A path that delivers each batch half a round trip after it was sent, or loses it.

    `near` is the client's channel, `far` the server's, whose listener goes on when it has ended. `is_lost` is called
    with the time, the sender's name and each packet or batch.

    has_firewall: whether a firewall swallows what the client's host says of its closed port
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        rtt_ns: int,
        is_lost: Callable[[int, str, bytes], bool] = lambda *_: False,
        config: Config | None = None,
        datagram_bytes: int = 1452,
        has_firewall: bool = False,
    ) -> None:
        self.now_ns = START_NS
        self._rtt_ns = rtt_ns
        self._is_lost = is_lost
        self._has_firewall = has_firewall
        self._changed = threading.Condition()
        self._events: list[tuple[int, int, VirtualSocket, Batch]] = []
        self._order = count()
        self._sockets = VirtualSocket(self, "near"), VirtualSocket(self, "far")
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr("toolkit.transports.udp.channel.wait_readable", self._wait)
        self._keep_alives = VirtualKeepAlives()
        monkeypatch.setattr("toolkit.transports.udp.channel.KEEP_ALIVES", self._keep_alives)
        self.near, self.far = (
            self._channel(index, config or Config(), datagram_bytes) for index in range(len(self._sockets))
        )

    def _channel(self, index: int, config: Config, datagram_bytes: int) -> UdpChannel:
        outgoing, sock = OutgoingExtents(), self._sockets[index]
        connection = Connection(
            config, outgoing, index + 1, 2 - index, datagram_bytes, START_NS, Unprotected(), rtt_ns=self._rtt_ns
        )
        if index == 0:
            connection.start(config.receive_window_bytes)
        wake_pair = WakePair() if index == 1 else None
        security = SessionSecurity("none", Admitted(Method.NONE))
        return UdpChannel(
            connection, sock, outgoing, Address("", 0), security, wake_pair, on_close_sent=sock.keep_last_words
        )

    def run(self, near: Callable[[UdpChannel], T], far: Callable[[UdpChannel], U]) -> tuple[T, U]:
        """Run both ends, abort the channels, and return what the ends return."""
        calls = Background(lambda: self._run(0, near)), Background(lambda: self._run(1, far))
        return calls[0].outcome(), calls[1].outcome()

    def _run(self, index: int, body: Callable[[UdpChannel], T]) -> T:
        channel = (self.near, self.far)[index]
        try:
            return body(channel)
        finally:
            channel.abort()
            with self._changed:
                self._sockets[index].is_open = False
                self._changed.notify_all()

    def send(self, sender: VirtualSocket, data: bytes, segment_bytes: int) -> None:
        """Take what a socket sends."""
        with self._changed:
            if not self._is_lost(self.now_ns, sender.name, data):
                batch = Batch(memoryview(data), segment_bytes, 0)
                to = self._sockets[sender.name == "near"]
                heapq.heappush(self._events, (self.now_ns + self._rtt_ns // 2, next(self._order), to, batch))

    def _wait(self, descriptors: list[int], timeout_ns: int | None, _writable: int | None = None) -> list[int]:
        """What `wait_readable` does, for one of the two sockets."""
        (own,) = (sock for sock in self._sockets if sock.is_open and sock.sock.fileno() == descriptors[0])
        self._sleep(own, _FOREVER_NS if timeout_ns is None else self.now_ns + max(0, timeout_ns))
        return []

    def work(self, channel: UdpChannel, duration_ns: int) -> None:
        """Let time go on while the application of a channel does something else than call it, or waits for a file."""
        own = self._sockets[channel is self.far]
        own.is_working = True
        end_ns = self.now_ns + duration_ns
        while self.now_ns < end_ns:
            is_stall = self._keep_alives.are_needed
            self._sleep(own, min(end_ns, self.now_ns + _KEEP_ALIVE_NS) if is_stall else end_ns)
            self._keep_alives.check(self.now_ns)
        own.is_working = False

    def _sleep(self, own: VirtualSocket, until_ns: int) -> None:
        with self._changed:
            own.until_ns = until_ns
            while own.is_asleep:
                if all(sock.is_asleep for sock in self._sockets):
                    self._advance()
                else:
                    self._changed.wait()
            own.until_ns = None

    def _advance(self) -> None:
        due_ns = min(sock.until_ns for sock in self._sockets if sock.is_open and sock.until_ns is not None)
        if self._events:
            due_ns = min(due_ns, self._events[0][0])
        assert due_ns < _FOREVER_NS, "both ends wait forever"
        self.now_ns = max(self.now_ns, due_ns)
        while self._events and self._events[0][0] <= self.now_ns:
            since_ns, _, to, batch = heapq.heappop(self._events)
            if to.is_open:
                to.arrived.append((since_ns, batch))
            else:
                self._answer(to, batch)
        self._changed.notify_all()

    def _answer(self, closed: VirtualSocket, batch: Batch) -> None:
        """What the host does for a channel that has ended: the listener repeats CLOSE, a client's port is closed."""
        if batch.data[0] == PacketType.CLOSE:
            return
        if closed.name == "far":
            self.send(closed, closed.last_words, len(closed.last_words))
        elif not self._has_firewall and not self._is_lost(self.now_ns, closed.name, b""):
            self._sockets[1].is_refused = True  # half a round trip early


def random_loss(seed: int, share: float) -> Callable[[int, str, bytes], bool]:
    """Lose this share of all packets and batches, in both directions."""
    dice = {name: random.Random(f"{seed} {name}") for name in ("near", "far")}
    return lambda _now_ns, name, _packet: dice[name].random() < share
