"""A bound TCP port. It performs the handshakes, so that `accept` returns complete sessions only.

One selector serves all pending handshakes, in the thread that calls `accept`. A slow or silent client delays nobody:
it is dropped after the connect timeout, and the oldest handshake is dropped when there are too many. A client that
sends anything but nettool's preface is dropped at the first wrong byte.
"""

import errno
import secrets
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Final

from toolkit.channel import Address, TransportOptions
from toolkit.errors import PeerClosedError, ProtocolError
from toolkit.transports.addresses import address_of, bind_first
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.settings import check_options, configure
from toolkit.transports.tcp.wire import (
    NO_TOKEN,
    PREFACE_BYTES,
    TOKEN_BYTES,
    VERSION,
    Hello,
    PrefaceType,
    Welcome,
    decode_hello_untrusted,
    decode_preface_untrusted,
    encode_refusal,
    encode_welcome,
)

MAX_HANDSHAKES: Final = 256
_MAX_PENDING_SESSIONS: Final = 16
_ACCEPTS_PER_ROUND: Final = 64
_REFUSAL_LINGER_S: Final = 1.0
_SHORTAGE_PAUSE_S: Final = 0.1
_SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_WAKE: Final = "wake"
_LISTEN: Final = "listen"


class _Handshake:
    """A connection whose preface is incomplete, or whose refusal is being delivered."""

    def __init__(self, sock: socket.socket, peer: Address, deadline_s: float) -> None:
        self.socket = sock
        self.peer = peer
        self.deadline_s = deadline_s
        self.received = b""
        self.expected_bytes = PREFACE_BYTES
        self.is_refused = False


class _PendingSession:
    """A session of several connections that are not all there yet."""

    def __init__(self, first: socket.socket, peer: Address, streams: int, deadline_s: float) -> None:
        self.peer = peer
        self.deadline_s = deadline_s
        self.sockets: list[socket.socket | None] = [first] + [None] * (streams - 1)

    def close(self) -> None:
        for sock in self.sockets:
            if sock is not None:
                sock.close()


class TcpListener:
    """See `toolkit.channel.Listener`."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        check_options(options)
        self._options = options
        self._socket = bind_first(
            address, socket.SOCK_STREAM, self._configure, lambda sock: sock.listen(socket.SOMAXCONN)
        )
        self._address = address_of(self._socket.getsockname())
        self._lock = threading.Lock()  # guards everything below
        self._handshakes: dict[socket.socket, _Handshake] = {}  # oldest first
        self._pending: dict[bytes, _PendingSession] = {}  # by token, oldest first
        self._ready: deque[TcpChannel] = deque()
        self._shortage_until_s: float | None = None
        self._is_closed = False
        self._is_freed = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, _WAKE)
        self._selector.register(self._socket, selectors.EVENT_READ, _LISTEN)

    def _configure(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        configure(sock, self._options)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    @property
    def address(self) -> Address:
        return self._address

    def accept(self, timeout_s: float | None = None) -> TcpChannel | None:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            with self._lock:
                while not self._is_closed:
                    if self._ready:
                        return self._ready.popleft()
                    left_s = None if deadline_s is None else deadline_s - time.monotonic()
                    self._step(left_s)
                    if not self._ready and left_s is not None and left_s <= 0:
                        return None
        finally:
            if self._is_closed:
                self._free()
        raise PeerClosedError("this side has stopped listening")

    def close(self) -> None:
        """The port is free on return. A thread that is in `accept` frees the rest when it leaves."""
        self._is_closed = True
        self._socket.close()
        with suppress(OSError):
            self._wake_writer.send(b"\0")
        self._free()

    def _free(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # the thread that holds it calls this method next
        try:
            if not self._is_freed:
                self._is_freed = True
                for handshake in self._handshakes.values():
                    handshake.socket.close()
                for session in self._pending.values():
                    session.close()
                for channel in self._ready:
                    channel.abort()
                self._selector.close()
                self._wake_reader.close()
                self._wake_writer.close()
        finally:
            self._lock.release()

    # One round of the selector

    def _step(self, timeout_s: float | None) -> None:
        now_s = time.monotonic()
        self._expire(now_s)
        deadlines_s = [handshake.deadline_s for handshake in self._handshakes.values()]
        deadlines_s += [session.deadline_s for session in self._pending.values()]
        if self._shortage_until_s is not None:
            deadlines_s.append(self._shortage_until_s)
        waits_s = [timeout_s] if timeout_s is not None else []
        if deadlines_s:
            waits_s.append(min(deadlines_s) - now_s)
        for key, _ in self._selector.select(max(0.0, min(waits_s)) if waits_s else None):
            if self._is_closed:
                return
            if key.data == _LISTEN:
                self._accept_connections()
            elif isinstance(key.data, _Handshake) and key.data.socket in self._handshakes:
                self._advance(key.data)

    def _expire(self, now_s: float) -> None:
        for handshake in [h for h in self._handshakes.values() if now_s >= h.deadline_s]:
            self._drop(handshake)
        for token in [token for token, session in self._pending.items() if now_s >= session.deadline_s]:
            self._pending.pop(token).close()
        if self._shortage_until_s is not None and now_s >= self._shortage_until_s:
            self._shortage_until_s = None
            with suppress(ValueError):  # another thread has just closed it
                self._selector.register(self._socket, selectors.EVENT_READ, _LISTEN)

    def _accept_connections(self) -> None:
        for _ in range(_ACCEPTS_PER_ROUND):
            try:
                sock, origin = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORTAGES and not self._is_closed:
                    self._pause_accepting()
                    return
                if self._is_closed:
                    return
                continue  # the client has already gone
            sock.setblocking(False)
            if len(self._handshakes) >= MAX_HANDSHAKES:
                self._drop(next(iter(self._handshakes.values())))
            handshake = _Handshake(sock, address_of(origin), time.monotonic() + self._options.connect_timeout_s)
            self._handshakes[sock] = handshake
            self._selector.register(sock, selectors.EVENT_READ, handshake)

    def _pause_accepting(self) -> None:
        """No descriptors left: drop the oldest handshake, and leave new connections in the kernel's queue for now."""
        if self._handshakes:
            self._drop(next(iter(self._handshakes.values())))
        self._selector.unregister(self._socket)
        self._shortage_until_s = time.monotonic() + _SHORTAGE_PAUSE_S

    def _drop(self, handshake: _Handshake) -> None:
        self._detach(handshake).close()

    def _detach(self, handshake: _Handshake) -> socket.socket:
        """End the handshake; returns its socket, which belongs to the caller now."""
        self._selector.unregister(handshake.socket)
        del self._handshakes[handshake.socket]
        return handshake.socket

    # One handshake

    def _advance(self, handshake: _Handshake) -> None:
        try:
            data = handshake.socket.recv(handshake.expected_bytes - len(handshake.received))
            if not data:
                self._drop(handshake)
                return
            if not handshake.is_refused:
                handshake.received += data
                self._read_untrusted(handshake)
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            self._drop(handshake)

    def _read_untrusted(self, handshake: _Handshake) -> None:
        preface = decode_preface_untrusted(handshake.received[:PREFACE_BYTES])
        if preface is None:
            return
        handshake.expected_bytes = PREFACE_BYTES + preface.body_bytes
        if len(handshake.received) < handshake.expected_bytes:
            return
        if preface.version != VERSION:
            self._refuse(handshake, PrefaceType.REFUSED_VERSION)
            return
        if preface.preface_type != PrefaceType.HELLO:
            raise ProtocolError(f"unexpected preface type {preface.preface_type:#04x}")
        hello = decode_hello_untrusted(handshake.received[PREFACE_BYTES:])
        if hello.security:
            self._refuse(handshake, PrefaceType.REFUSED_SECURITY)
        elif hello.token != NO_TOKEN:
            self._join_session(handshake, hello)
        elif not 1 <= hello.streams <= self._options.max_streams or hello.stream:
            self._refuse(handshake, PrefaceType.REFUSED_STREAMS)
        else:
            self._begin_session(handshake, hello)

    def _refuse(self, handshake: _Handshake, preface_type: PrefaceType) -> None:
        """Send the reason and wait for the client to close: a reset could destroy the reason on its way."""
        handshake.socket.send(encode_refusal(preface_type))
        handshake.socket.shutdown(socket.SHUT_WR)
        handshake.is_refused = True
        handshake.expected_bytes = len(handshake.received) + (1 << 12)
        handshake.deadline_s = min(handshake.deadline_s, time.monotonic() + _REFUSAL_LINGER_S)

    def _begin_session(self, handshake: _Handshake, hello: Hello) -> None:
        token = secrets.token_bytes(TOKEN_BYTES)
        handshake.socket.send(encode_welcome(Welcome(token, b"")))
        sock = self._detach(handshake)
        if hello.streams == 1:
            self._add_channel([sock], handshake.peer)
            return
        if len(self._pending) >= _MAX_PENDING_SESSIONS:
            self._pending.pop(next(iter(self._pending))).close()
        self._pending[token] = _PendingSession(sock, handshake.peer, hello.streams, handshake.deadline_s)

    def _join_session(self, handshake: _Handshake, hello: Hello) -> None:
        session = self._pending.get(hello.token)
        if session is None or hello.streams != len(session.sockets) or session.sockets[hello.stream] is not None:
            self._refuse(handshake, PrefaceType.REFUSED_SESSION)
            return
        handshake.socket.send(encode_welcome(Welcome(hello.token, b"")))
        session.sockets[hello.stream] = self._detach(handshake)
        socks = [sock for sock in session.sockets if sock is not None]
        if len(socks) == hello.streams:
            del self._pending[hello.token]
            self._add_channel(socks, session.peer)

    def _add_channel(self, socks: list[socket.socket], peer: Address) -> None:
        try:
            self._ready.append(TcpChannel(socks, peer, self._options.idle_timeout_s))
        except OSError:  # no descriptors left for what a channel needs besides its sockets
            for sock in socks:
                sock.close()
