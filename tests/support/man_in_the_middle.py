"""Somebody on the path between a real sender and a real receiver on loopback, who does to their bytes what a plan says.

`UdpMiddle` relays datagrams and harms single ones: the first of each kind in the handshake, and a share of those after
it. It never harms all of them, so a transfer can complete. `TcpMiddle` relays connections and harms one place of one
direction. Both record what passes. A plan depends on its seed alone, up to the order in which datagrams arrive.
"""

import os
import random
import select
import socket
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from tests.support.background import Background
from toolkit.parameters import encode_parameters
from toolkit.rudp.handshake_packets import InitialFlags, encode_refuse
from toolkit.rudp.wire import PacketType, connection_id_untrusted

TO_RECEIVER: Final = 0
TO_SENDER: Final = 1
_SHARE: Final = 0.04
"""Of the datagrams after the handshake."""
_HELD_S: Final = 0.02
"""How long a datagram is held back if no other one overtakes it."""
_PIECE: Final = 50
_HEADER_BYTES: Final = 26
_INITIAL_WITH_TOKEN: Final = (TO_RECEIVER, int(PacketType.INITIAL), 1)
_M1: Final = (60, 150)
"""Where M1 is in an INITIAL with a token, roughly."""
_REFUSAL: Final = encode_parameters({5: b"\1"})


class Hazard(StrEnum):
    """What happens to a datagram, or to a place of a stream."""

    DROP = "drop"
    REPEAT = "repeat"
    REORDER = "reorder"
    FORGE = "forge"
    TRUNCATE = "truncate"
    FLIP = "flip"
    REPLAY = "replay"


def flipped(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit flipped."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class _Middle(ABC):
    """A thread that relays until the block ends. target: where the sender connects to"""

    def __init__(self, receiver_port: int) -> None:
        self.receiver = ("127.0.0.1", receiver_port)
        self._cleanup = ExitStack()
        self._wake, self._waker = os.pipe()
        self._cleanup.callback(os.close, self._wake)
        self._cleanup.callback(os.close, self._waker)
        self._relaying: Background[None] | None = None

    @abstractmethod
    def _run(self) -> None:
        """Relay until `_wake` is readable."""

    def __enter__(self) -> Self:
        self._relaying = Background(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._waker, b"\0")
        with self._cleanup:
            assert self._relaying is not None
            self._relaying.outcome()


class UdpMiddle(_Middle):
    """Relays the datagrams of one sender.

    recorded: what has passed, for each direction, before it was harmed
    harmed:   the types of the datagrams that were harmed
    """

    def __init__(self, receiver_port: int, hazard: Hazard | None = None, seed: int = 0) -> None:
        super().__init__(receiver_port)
        self.recorded: tuple[list[bytes], list[bytes]] = ([], [])
        self.harmed: set[int] = set()
        self._hazard = hazard
        self._random = random.Random(seed)
        self._socks = [self._cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        for sock in self._socks:
            sock.bind(("127.0.0.1", 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.target = f"127.0.0.1:{self._socks[0].getsockname()[1]}"
        self._sender: tuple[str, int] | None = None
        self._held: list[tuple[int, bytes]] = []
        self._seen: Counter[tuple[int, int, int]] = Counter()

    def _run(self) -> None:
        inside, outside = self._socks
        while True:
            ready, _, _ = select.select([inside, outside, self._wake], [], [], _HELD_S if self._held else None)
            if self._wake in ready:
                return
            for sock in (inside, outside):
                if sock not in ready:
                    continue
                with suppress(ConnectionRefusedError):
                    datagram, origin = sock.recvfrom(65_536)
                    if sock is inside:
                        self._sender = origin
                    self._relay(TO_RECEIVER if sock is inside else TO_SENDER, datagram)
            if not ready:
                self._release()

    def _send(self, direction: int, datagram: bytes) -> None:
        if direction == TO_RECEIVER:
            self._socks[1].sendto(datagram, self.receiver)
        elif self._sender is not None:
            self._socks[0].sendto(datagram, self._sender)

    def _release(self) -> None:
        held, self._held = self._held, []
        for direction, datagram in held:
            self._send(direction, datagram)

    def _relay(self, direction: int, datagram: bytes) -> None:
        self.recorded[direction].append(datagram)
        if not self._is_chosen(direction, datagram):
            self._send(direction, datagram)
            if len(self._held) > 2:
                self._release()
            return
        self.harmed.add(datagram[0])
        match self._hazard:
            case Hazard.DROP:
                pass
            case Hazard.REPEAT:
                for _ in range(3):
                    self._send(direction, datagram)
            case Hazard.REORDER:
                self._held.append((direction, datagram))
            case Hazard.FORGE:
                self._send(direction, self._forged(datagram))
                if datagram[0] == PacketType.RETRY:  # once
                    self._send(direction, encode_refuse(connection_id_untrusted(datagram)[1], _REFUSAL))
                self._send(direction, datagram)
            case Hazard.TRUNCATE:
                self._send(direction, datagram[: self._random.randrange(1, len(datagram))])
            case Hazard.FLIP:
                begin, end = _M1 if datagram[0] == PacketType.INITIAL else (0, len(datagram))
                self._send(direction, flipped(datagram, self._random.randrange(8 * begin, 8 * end)))
            case Hazard.REPLAY:
                self._send(direction, datagram)
                for old in self._random.sample(self.recorded[direction], min(5, len(self.recorded[direction]))):
                    self._send(direction, old)

    def _is_chosen(self, direction: int, datagram: bytes) -> bool:
        if self._hazard is None or datagram[0] in (PacketType.REFUSE, PacketType.CLOSE):
            return False
        is_protected = datagram[0] >= PacketType.DATA
        has_token = not is_protected and bool(datagram[1] & InitialFlags.HAS_TOKEN)
        kind = direction, datagram[0], int(has_token)  # an INITIAL with a token is another one
        self._seen[kind] += 1
        # If the RETRY was harmed, the first such INITIAL has no true token, and the next one counts as the first.
        is_refused = any(answer[0] == PacketType.REFUSE for answer in self.recorded[TO_SENDER])
        is_first = self._seen[kind] <= 1 + (kind == _INITIAL_WITH_TOKEN and not is_refused)
        return is_first or (is_protected and self._random.random() < _SHARE)

    def _forged(self, datagram: bytes) -> bytes:
        """Return a datagram of the same header and length with other content."""
        header = datagram[: 18 if datagram[0] <= PacketType.FINISH else _HEADER_BYTES]
        return header + self._random.randbytes(len(datagram) - len(header))


class TcpMiddle(_Middle):
    """Relays connections, and harms each from a place on.

    hazard, direction, at: what happens, to which direction, at which byte of it; None for nothing
    recorded:              what has passed in each direction of the first connection, before it was harmed
    """

    def __init__(
        self, receiver_port: int, hazard: Hazard | None = None, direction: int = TO_RECEIVER, at: int = 0, seed: int = 0
    ) -> None:
        super().__init__(receiver_port)
        self.recorded = (bytearray(), bytearray())
        self._hazard = hazard
        self._direction = direction
        self._at = at
        self._random = random.Random(seed)
        self._listener = self._cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _run(self) -> None:
        """Relay one connection after another: a sender has one at a time."""
        while True:
            ready, _, _ = select.select([self._listener, self._wake], [], [])
            if self._wake in ready:
                return
            with self._listener.accept()[0] as sender, socket.create_connection(self.receiver) as receiver:
                for data in self.recorded:
                    data.clear()
                if not self._relay(sender, receiver):
                    return

    def _relay(self, sender: socket.socket, receiver: socket.socket) -> bool:
        """Relay until both have closed, or the plan cuts the connection; return whether to go on."""
        open_directions = {TO_RECEIVER: (sender, receiver), TO_SENDER: (receiver, sender)}
        while open_directions:
            sources = {origin: direction for direction, (origin, _) in open_directions.items()}
            ready, _, _ = select.select([*sources, self._wake], [], [])
            if self._wake in ready:
                return False
            for origin in ready:
                direction = sources[origin]
                target = open_directions[direction][1]
                data = b""
                with suppress(ConnectionError):
                    data = origin.recv(1 << 16)
                harmed = self._harmed(direction, data)
                if harmed is None:
                    return True
                try:
                    target.sendall(harmed)
                    if not data:
                        target.shutdown(socket.SHUT_WR)
                except OSError:
                    data = b""
                if not data:
                    del open_directions[direction]
        return True

    def _harmed(self, direction: int, data: bytes) -> bytes | None:
        """Return what to send in the place of `data`; None to cut the connection."""
        recorded = self.recorded[direction]
        place = self._at - len(recorded)
        recorded += data
        if self._hazard is None or direction != self._direction or not 0 <= place < len(data):
            return data
        before, after = data[:place], data[place:]
        piece = min(_PIECE, max(len(after) // 2, 1))
        match self._hazard:
            case Hazard.DROP:
                return before + after[piece:]
            case Hazard.REPEAT:
                return before + after[:piece] + after
            case Hazard.REORDER:
                return before + after[piece : 2 * piece] + after[:piece] + after[2 * piece :]
            case Hazard.FORGE:
                return before + self._random.randbytes(piece) + after
            case Hazard.FLIP:
                return before + flipped(after, self._random.randrange(8))
            case Hazard.REPLAY:
                return before + bytes(recorded[: self._at]) + after
            case _:
                return None


def play_udp(port: int, datagrams: Iterable[bytes]) -> list[bytes]:
    """Send datagrams to a receiver from a new port, and one that it answers; return its answers before that one."""
    answers = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        for datagram in datagrams:
            sock.send(datagram)
        sock.send(_UNKNOWN_VERSION)
        while (answer := sock.recv(65_536))[:1] != bytes([PacketType.VERSION]) or answer[2:10] != _MARK:
            answers.append(answer)
    return answers


_MARK: Final = b"the mark"
_UNKNOWN_VERSION: Final = (bytes([PacketType.INITIAL, 0]) + _MARK + b"NT\xff\xff\0\0").ljust(1200, b"\0")


def play_tcp(port: int, data: bytes) -> bytes:
    """Send bytes on a new connection, and return everything that comes back before the receiver closes it."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port)) as sock, suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(1 << 16):
            answer += piece
    return answer
