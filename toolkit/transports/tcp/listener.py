"""A bound TCP port. It performs the handshakes, so that `accept` returns complete sessions only.

One selector serves all pending handshakes, in the thread that calls `accept`. A slow or silent client delays nobody:
it is dropped after the connect timeout. When there are too many handshakes, the host with most of them loses its
oldest. A client that sends anything but nettool's preface is dropped at the first wrong byte, and cryptography is done
for complete prefaces only, for each host as often as `security/host_rates.py` allows. A shortage of descriptors refuses
new connections and ends none.
"""

import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import ExitStack, suppress
from typing import Final

from toolkit.channel import Address, TransportOptions
from toolkit.errors import ExitCode, PeerClosedError, ProtocolError
from toolkit.security.handshake import Responder
from toolkit.security.host_rates import HostRates
from toolkit.security.opened_handshake import CodeEndedError
from toolkit.transports.addresses import address_of, bind_first
from toolkit.transports.keep_alive import KEEP_ALIVES
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.handshake import Session, TcpServerHandshake
from toolkit.transports.tcp.pending import PendingHandshake, PendingSession, first_of_busiest
from toolkit.transports.tcp.records import seal_once
from toolkit.transports.tcp.settings import check_options, configure, limit_retransmission_timeout
from toolkit.transports.tcp.wire import (
    PREFACE_BYTES,
    VERSION,
    Join,
    PrefaceRefusal,
    PrefaceType,
    decode_join_untrusted,
    decode_preface_untrusted,
    encode_close,
    encode_joined,
    encode_refusal,
    encode_version_refusal,
)
from toolkit.transports.unexpected import UnexpectedErrors

MAX_HANDSHAKES: Final = 256
_MAX_PENDING_SESSIONS: Final = 16
_ACCEPTS_PER_ROUND: Final = 64
_REFUSAL_LINGER_S: Final = 1.0
_REFUSAL_LINGER_BYTES: Final = 1 << 17
_SHORTAGE_PAUSE_S: Final = 0.1
_DESCRIPTOR_SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE))
_SHORTAGES: Final = _DESCRIPTOR_SHORTAGES | {errno.ENOBUFS, errno.ENOMEM}
_WAKE: Final = "wake"
_LISTEN: Final = "listen"


class TcpListener:
    """See `toolkit.channel.Listener`."""

    def __init__(self, address: Address, options: TransportOptions) -> None:
        check_options(options)
        self._options = options
        self._responder = Responder(options.admission, allows_plaintext=options.plaintext)
        self._socket = bind_first(
            address, socket.SOCK_STREAM, self._configure, lambda sock: sock.listen(socket.SOMAXCONN)
        )
        self._address = address_of(self._socket.getsockname())
        self._lock = threading.Lock()  # guards everything below
        self._rates = HostRates()
        self._unexpected = UnexpectedErrors()
        self._handshakes: dict[socket.socket, PendingHandshake] = {}  # oldest first
        self._pending: dict[bytes, PendingSession] = {}  # by token, oldest first
        self._ready: deque[TcpChannel] = deque()
        self._shortage_until_s: float | None = None
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._is_closed = False
        self._is_freed = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, _WAKE)
        self._selector.register(self._socket, selectors.EVENT_READ, _LISTEN)
        KEEP_ALIVES.start()

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
                if self._spare is not None:
                    os.close(self._spare)
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
            elif isinstance(key.data, PendingHandshake) and key.data.socket in self._handshakes:
                self._advance(key.data)

    def _expire(self, now_s: float) -> None:
        for handshake in [h for h in self._handshakes.values() if now_s >= h.deadline_s]:
            if handshake.socket in self._handshakes:  # it may have gone with its session
                self._drop(handshake)
        for token in [token for token, session in self._pending.items() if now_s >= session.deadline_s]:
            self._end_pending(token)
        if self._shortage_until_s is not None and now_s >= self._shortage_until_s:
            self._shortage_until_s = None
            self._restore_spare()
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
                    if error.errno in _DESCRIPTOR_SHORTAGES and self._refuse_one():
                        continue
                    self._pause_accepting()
                    return
                if self._is_closed:
                    return
                continue  # the client has already gone
            sock.setblocking(False)
            limit_retransmission_timeout(sock)
            if len(self._handshakes) >= MAX_HANDSHAKES:
                self._drop(first_of_busiest(self._handshakes.values()))
            peer = address_of(origin)
            server = TcpServerHandshake(self._responder, peer.network, self._options.max_streams)
            deadline_s = time.monotonic() + self._options.connect_timeout_s
            handshake = PendingHandshake(sock, peer, server, deadline_s)
            self._handshakes[sock] = handshake
            self._selector.register(sock, selectors.EVENT_READ, handshake)

    def _refuse_one(self) -> bool:
        """No descriptors left: use the spare one to tell a client so; False if it is gone or has to be left for later.

        A connection that stayed in the kernel's queue would keep its client waiting, and the selector busy.
        """
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        try:
            sock, _ = self._socket.accept()
        except OSError:
            self._restore_spare()
            return False
        with sock, suppress(OSError):
            sock.setblocking(False)
            sock.send(encode_refusal(PrefaceRefusal.BUSY))
            sock.shutdown(socket.SHUT_WR)
            sock.recv(_REFUSAL_LINGER_BYTES)  # unread bytes would reset the connection, and destroy the refusal
        self._restore_spare()
        return self._spare is not None

    def _restore_spare(self) -> None:
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _pause_accepting(self) -> None:
        """Leave new connections in the kernel's queue for now."""
        self._selector.unregister(self._socket)
        self._shortage_until_s = time.monotonic() + _SHORTAGE_PAUSE_S

    def _drop(self, handshake: PendingHandshake) -> None:
        """Close the connection of a handshake, and end the session that it was to begin."""
        self._detach(handshake).close()
        if handshake.server.token is not None:
            self._end_pending(handshake.server.token)

    def _end_pending(self, token: bytes) -> None:
        """End a session that is not complete. Does nothing if there is none with this token."""
        pending = self._pending.pop(token, None)
        if pending is not None:
            pending.close()
            for handshake in pending.waiting:
                if handshake.socket in self._handshakes:
                    self._drop(handshake)

    def _detach(self, handshake: PendingHandshake) -> socket.socket:
        """End the handshake; returns its socket, which belongs to the caller now."""
        if handshake.join is None:
            self._selector.unregister(handshake.socket)
        del self._handshakes[handshake.socket]
        return handshake.socket

    # One handshake

    def _advance(self, handshake: PendingHandshake) -> None:
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
        except Exception as error:  # a bug must not end the thread that accepts every session
            self._unexpected.report("a handshake was dropped", error)
            self._discard(handshake)

    def _discard(self, handshake: PendingHandshake) -> None:
        """Drop a handshake that may be over, with the connections of its session."""
        if handshake.socket in self._handshakes:
            self._drop(handshake)
            return
        handshake.socket.close()
        if handshake.server.token is not None:
            self._end_pending(handshake.server.token)

    def _read_untrusted(self, handshake: PendingHandshake) -> None:
        preface = decode_preface_untrusted(handshake.received[:PREFACE_BYTES])
        if preface is None:
            return
        if preface.version != VERSION:
            self._refuse(handshake, encode_version_refusal())
            return
        handshake.expected_bytes = PREFACE_BYTES + preface.body_bytes
        if len(handshake.received) < handshake.expected_bytes:
            return
        body = handshake.received[PREFACE_BYTES:]
        handshake.received = b""
        handshake.expected_bytes = PREFACE_BYTES
        match preface.preface_type:
            case PrefaceType.HELLO:
                self._on_hello_untrusted(handshake, body)
            case PrefaceType.FINISH:
                self._on_finish_untrusted(handshake, body)
            case PrefaceType.JOIN:
                self._on_join(handshake, decode_join_untrusted(body))
            case _:
                raise ProtocolError(f"unexpected preface type {preface.preface_type:#04x}")

    def _refuse(self, handshake: PendingHandshake, refusal: bytes) -> None:
        """Send the reason and wait for the client to close: a reset could destroy the reason on its way."""
        handshake.socket.send(refusal)
        handshake.socket.shutdown(socket.SHUT_WR)
        handshake.is_refused = True
        handshake.received = b""
        handshake.expected_bytes = _REFUSAL_LINGER_BYTES
        handshake.deadline_s = min(handshake.deadline_s, time.monotonic() + _REFUSAL_LINGER_S)

    def _on_hello_untrusted(self, handshake: PendingHandshake, body: bytes) -> None:
        server = handshake.server
        now_ns = time.monotonic_ns()
        if not self._rates.may_begin(handshake.network, now_ns):
            self._refuse(handshake, encode_refusal(PrefaceRefusal.BUSY))
            return
        answer = server.receive_hello_untrusted(body, now_ns)
        if answer.is_refusal:
            self._refuse(handshake, answer.data)
            return
        handshake.socket.send(answer.data)
        if server.token is not None and server.streams > 1:
            if len(self._pending) >= _MAX_PENDING_SESSIONS:
                busiest = first_of_busiest(self._pending.values())
                self._end_pending(next(token for token, pending in self._pending.items() if pending is busiest))
            self._pending[server.token] = PendingSession(handshake, server.streams)

    def _on_finish_untrusted(self, handshake: PendingHandshake, body: bytes) -> None:
        server = handshake.server
        try:
            session = server.receive_finish_untrusted(body)
        except CodeEndedError as error:
            self._reject(handshake, error)
            return
        if session.streams == 1:
            self._add_channel([self._detach(handshake)], session, handshake.peer)
            return
        pending = self._pending.get(session.token)
        if pending is None:  # it had to make room
            self._drop(handshake)
            return
        pending.session = session
        pending.sockets[0] = self._detach(handshake)
        for waiting in pending.waiting:
            if waiting.socket in self._handshakes and waiting.join is not None:
                join, waiting.join = waiting.join, None
                self._selector.register(waiting.socket, selectors.EVENT_READ, waiting)
                try:
                    self._answer_join(waiting, join)
                except OSError:  # reset while it waited, which is not the first connection's fault
                    self._drop(waiting)
        pending.waiting = []

    def _reject(self, handshake: PendingHandshake, error: CodeEndedError) -> None:
        """Send a CLOSE to a client whose code has ended: sealed, since that client believes in no refusal any more."""
        close = encode_close(ExitCode.UNREACHABLE, str(error))
        self._refuse(handshake, close if error.keys is None else seal_once(error.keys.server, close))
        if handshake.server.token is not None:
            self._end_pending(handshake.server.token)

    def _on_join(self, handshake: PendingHandshake, join: Join) -> None:
        pending = self._pending.get(join.token)
        if handshake.server.has_begun or pending is None or pending.session is not None:
            self._answer_join(handshake, join)
        else:  # the first connection's FINISH, sent before, is still on its way
            self._selector.unregister(handshake.socket)
            handshake.join = join
            pending.waiting.append(handshake)

    def _answer_join(self, handshake: PendingHandshake, join: Join) -> None:
        pending = self._pending.get(join.token)
        session = None if pending is None else pending.session
        if (
            pending is None
            or session is None
            or handshake.server.has_begun
            or not session.admits_untrusted(join)
            or pending.sockets[join.number] is not None
        ):
            self._refuse(handshake, encode_refusal(PrefaceRefusal.SESSION))
            return
        handshake.socket.send(encode_joined())
        pending.sockets[join.number] = self._detach(handshake)
        socks = [sock for sock in pending.sockets if sock is not None]
        if len(socks) == session.streams:
            del self._pending[join.token]
            self._add_channel(socks, session, pending.peer)

    def _add_channel(self, socks: list[socket.socket], session: Session, peer: Address) -> None:
        with ExitStack() as on_failure, suppress(OSError):  # no descriptors left for what else a channel needs
            for sock in socks:
                on_failure.enter_context(sock)
            self._ready.append(TcpChannel(socks, session, peer, self._options.idle_timeout_s, is_client=False))
            on_failure.pop_all()
