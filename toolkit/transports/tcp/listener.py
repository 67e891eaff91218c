"""A bound TCP port: prefaces are exchanged here, so that only whole sessions get to whoever accepts.

One selector serves all handshakes under way, in the thread that is in `accept`: a client that is slow or silent holds
up nobody, is given up after a while, and is the first to go when there are too many. Garbage ends a connection at its
first wrong byte.
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
from toolkit.transports.addresses import SocketAddress, address_of, resolve
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.settings import check_options, configure, listen_error
from toolkit.transports.tcp.wire import (
    MAX_STREAMS,
    NO_TOKEN,
    PREFACE_BYTES,
    TOKEN_BYTES,
    VERSION,
    Hello,
    Kind,
    Welcome,
    decode_hello_untrusted,
    decode_preface_untrusted,
    encode_refusal,
    encode_welcome,
)

_MAX_HANDSHAKES: Final = 256
_MAX_GATHERINGS: Final = 16
_ACCEPTS_AT_A_TIME: Final = 64
_REFUSAL_PATIENCE_S: Final = 1.0
_SHORTAGE_PAUSE_S: Final = 0.1
_SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_WAKE: Final = "wake"
_LISTEN: Final = "listen"


class _Handshake:
    """A connection whose preface is not complete, or whose refusal is on its way."""

    def __init__(self, sock: socket.socket, peer: Address, deadline_s: float) -> None:
        self.socket = sock
        self.peer = peer
        self.deadline_s = deadline_s
        self.received = b""
        self.wanted_bytes = PREFACE_BYTES
        self.is_refused = False


class _Gathering:
    """A session of several connections, of which some are still to come."""

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
        self._options = options
        self._socket = _listen(address, options)
        self._address = address_of(self._socket.getsockname())
        self._lock = threading.Lock()  # held by whoever uses the rest
        self._handshakes: dict[socket.socket, _Handshake] = {}  # oldest first
        self._gatherings: dict[bytes, _Gathering] = {}  # oldest first
        self._ready: deque[TcpChannel] = deque()
        self._shortage_until_s: float | None = None
        self._is_closed = False
        self._is_freed = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, _WAKE)
        self._selector.register(self._socket, selectors.EVENT_READ, _LISTEN)

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
        """A thread that is in `accept` frees what it uses; the port itself is free on return."""
        self._is_closed = True
        self._socket.close()
        with suppress(OSError):
            self._wake_writer.send(b"\0")
        self._free()

    def _free(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # whoever holds it comes here next
        try:
            if not self._is_freed:
                self._is_freed = True
                for handshake in self._handshakes.values():
                    handshake.socket.close()
                for gathering in self._gatherings.values():
                    gathering.close()
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
        times_s = [handshake.deadline_s for handshake in self._handshakes.values()]
        times_s += [gathering.deadline_s for gathering in self._gatherings.values()]
        if self._shortage_until_s is not None:
            times_s.append(self._shortage_until_s)
        waits_s = [timeout_s] if timeout_s is not None else []
        if times_s:
            waits_s.append(min(times_s) - now_s)
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
        for token in [token for token, gathering in self._gatherings.items() if now_s >= gathering.deadline_s]:
            self._gatherings.pop(token).close()
        if self._shortage_until_s is not None and now_s >= self._shortage_until_s:
            self._shortage_until_s = None
            with suppress(ValueError):  # closed by another thread a moment ago
                self._selector.register(self._socket, selectors.EVENT_READ, _LISTEN)

    def _accept_connections(self) -> None:
        for _ in range(_ACCEPTS_AT_A_TIME):
            try:
                sock, origin = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORTAGES and not self._is_closed:
                    self._bear_shortage()
                    return
                if self._is_closed:
                    return
                continue  # the client has gone already
            sock.setblocking(False)
            if len(self._handshakes) >= _MAX_HANDSHAKES:
                self._drop(next(iter(self._handshakes.values())))
            handshake = _Handshake(sock, address_of(origin), time.monotonic() + self._options.connect_timeout_s)
            self._handshakes[sock] = handshake
            self._selector.register(sock, selectors.EVENT_READ, handshake)

    def _bear_shortage(self) -> None:
        """No descriptors: give up the slowest handshake, and let the next connections wait in the kernel's queue."""
        if self._handshakes:
            self._drop(next(iter(self._handshakes.values())))
        self._selector.unregister(self._socket)
        self._shortage_until_s = time.monotonic() + _SHORTAGE_PAUSE_S

    def _drop(self, handshake: _Handshake) -> None:
        self._detach(handshake)
        handshake.socket.close()

    def _detach(self, handshake: _Handshake) -> socket.socket:
        self._selector.unregister(handshake.socket)
        del self._handshakes[handshake.socket]
        return handshake.socket

    # One handshake

    def _advance(self, handshake: _Handshake) -> None:
        try:
            data = handshake.socket.recv(handshake.wanted_bytes - len(handshake.received))
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
        handshake.wanted_bytes = PREFACE_BYTES + preface.body_bytes
        if len(handshake.received) < handshake.wanted_bytes:
            return
        if preface.version != VERSION:
            self._refuse(handshake, Kind.REFUSED_VERSION)
            return
        if preface.kind != Kind.HELLO:
            raise ProtocolError("a connection begins with something else than a greeting")
        hello = decode_hello_untrusted(handshake.received[PREFACE_BYTES:])
        if hello.security:
            self._refuse(handshake, Kind.REFUSED_SECURITY)
        elif hello.token != NO_TOKEN:
            self._join(handshake, hello)
        elif not 1 <= hello.streams <= MAX_STREAMS or hello.stream:
            self._refuse(handshake, Kind.REFUSED_STREAMS)
        else:
            self._begin(handshake, hello)

    def _refuse(self, handshake: _Handshake, kind: Kind) -> None:
        """Say why, and wait for the client to close: a reset could destroy what was said."""
        handshake.socket.send(encode_refusal(kind))
        handshake.socket.shutdown(socket.SHUT_WR)
        handshake.is_refused = True
        handshake.wanted_bytes = len(handshake.received) + (1 << 12)
        handshake.deadline_s = min(handshake.deadline_s, time.monotonic() + _REFUSAL_PATIENCE_S)

    def _begin(self, handshake: _Handshake, hello: Hello) -> None:
        token = secrets.token_bytes(TOKEN_BYTES)
        handshake.socket.send(encode_welcome(Welcome(token, b"")))
        sock = self._detach(handshake)
        if hello.streams == 1:
            self._hand_out([sock], handshake.peer)
            return
        if len(self._gatherings) >= _MAX_GATHERINGS:
            self._gatherings.pop(next(iter(self._gatherings))).close()
        self._gatherings[token] = _Gathering(sock, handshake.peer, hello.streams, handshake.deadline_s)

    def _join(self, handshake: _Handshake, hello: Hello) -> None:
        gathering = self._gatherings.get(hello.token)
        if gathering is None or hello.streams != len(gathering.sockets) or gathering.sockets[hello.stream] is not None:
            self._refuse(handshake, Kind.REFUSED_SESSION)
            return
        handshake.socket.send(encode_welcome(Welcome(hello.token, b"")))
        gathering.sockets[hello.stream] = self._detach(handshake)
        socks = [sock for sock in gathering.sockets if sock is not None]
        if len(socks) == hello.streams:
            del self._gatherings[hello.token]
            self._hand_out(socks, gathering.peer)

    def _hand_out(self, socks: list[socket.socket], peer: Address) -> None:
        try:
            self._ready.append(TcpChannel(socks, peer, self._options.idle_timeout_s))
        except OSError:  # no descriptors for what a channel needs besides its sockets
            for sock in socks:
                sock.close()


def _listen(address: Address, options: TransportOptions) -> socket.socket:
    """A listening socket at the first of the address's socket addresses that can be had."""
    check_options(options)
    candidates: list[SocketAddress]
    if address.host:
        candidates = resolve(address, socket.SOCK_STREAM)
    else:
        candidates = [(socket.AF_INET6, ("::", address.port)), (socket.AF_INET, ("0.0.0.0", address.port))]
    failure: OSError | None = None
    for family, at in candidates:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            failure = failure or error
            continue
        try:
            sock.setblocking(False)
            configure(sock, options)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address.host)))
            sock.bind(at)
            sock.listen(socket.SOMAXCONN)
        except OSError as error:
            sock.close()
            failure = failure or error
            if error.errno == errno.EADDRINUSE:
                break
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    assert failure is not None
    raise listen_error(address, failure) from failure
