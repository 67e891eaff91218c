"""The TCP transport: one connection per session, or several that share its content.

`TcpTransport.connect` connects to the addresses of a name in parallel (`toolkit.transports.addresses`), then performs
the handshake (`handshake`). A peer that answers in another protocol or version, or not at all, is reported in one line.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from errno import EAGAIN, EALREADY, ECONNREFUSED, EINPROGRESS
from typing import TYPE_CHECKING, Final

from toolkit.channel import Address, TransportOptions
from toolkit.errors import (
    LateRefusalError,
    NettoolError,
    ProtocolError,
    RefusedError,
    UnreachableError,
    printable,
)
from toolkit.transports.addresses import (
    SocketAddress,
    address_of,
    connect_error,
    connect_first,
    finish_connecting,
    resolve,
)
from toolkit.transports.keep_alive import KEEP_ALIVES
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.handshake import PrefaceRefusedError, Session, TcpClientHandshake, raise_refusal_untrusted
from toolkit.transports.tcp.settings import check_options, configure, limit_retransmission_timeout
from toolkit.transports.tcp.stream import TcpStream
from toolkit.transports.tcp.wire import PREFACE_BYTES, VERSION, PrefaceType, decode_preface_untrusted, encode_join

if TYPE_CHECKING:
    from toolkit.transports.tcp.listener import TcpListener

_IN_PROGRESS: Final = frozenset((0, EINPROGRESS, EALREADY, EAGAIN))

_REASON_S: Final = 1.0
"""How long to wait for the reason why a session has ended; the server has sent it before."""

Resolver = Callable[[Address, int], list[SocketAddress]]


class TcpTransport:
    """See `toolkit.channel.Transport`.

    resolver: finds the socket addresses of a host; called with an Address and socket.SOCK_STREAM
    """

    name = "tcp"

    def __init__(self, resolver: Resolver = resolve) -> None:
        self._resolver = resolver

    def connect(self, address: Address, options: TransportOptions) -> TcpChannel:
        check_options(options)
        candidates = self._resolver(address, socket.SOCK_STREAM)
        deadline_s = time.monotonic() + options.connect_timeout_s
        with ExitStack() as on_failure:
            try:
                first = connect_first(candidates, lambda name: TcpAttempt(name, options), deadline_s).socket
                on_failure.enter_context(first)
                peer = address_of(first.getpeername())
                session = _shake_hands(first, address, options, deadline_s)
                others: list[TcpAttempt] = []
                for _ in range(1, options.streams):
                    # All at once: many connections then cost the round trips of one.
                    others.append(TcpAttempt((first.family, first.getpeername()), options))
                    on_failure.callback(others[-1].close)
                with _reporting_the_end(first, session, peer):
                    for number, attempt in enumerate(others, 1):
                        finish_connecting(attempt, deadline_s)
                        _send(attempt.socket, encode_join(session.join(number)))
                    for attempt in others:
                        _await_joined(attempt.socket, address, options, deadline_s)
            except OSError as error:
                raise connect_error(address, socket.SOCK_STREAM, error, options.peer_program) from error
            socks = [first, *(attempt.socket for attempt in others)]
            channel = TcpChannel(socks, session, peer, options.idle_timeout_s, is_client=True)
            on_failure.pop_all()
        return channel

    def listen(self, address: Address, options: TransportOptions) -> "TcpListener":
        from toolkit.transports.tcp.listener import TcpListener  # which a sender does not need

        return TcpListener(address, options)


class TcpAttempt:
    """A ConnectionAttempt: a non-blocking socket that is connecting."""

    events = select.POLLOUT

    def __init__(self, candidate: SocketAddress, options: TransportOptions) -> None:
        """Raises OSError, and UsageError for options that the system does not support."""
        family, name = candidate
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self.socket.setblocking(False)
            configure(self.socket, options)
            code = self.socket.connect_ex(name)
            if code not in _IN_PROGRESS:
                raise OSError(code, os.strerror(code))
        except BaseException:
            self.socket.close()
            raise

    def fileno(self) -> int:
        return self.socket.fileno()

    def advance(self) -> bool:
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            try:
                peer = self.socket.getpeername()
            except OSError:
                return False  # still connecting
            if self.socket.getsockname() == peer:
                # A connection to a closed port in the ephemeral range can connect to itself (RFC 9293 section 3.5).
                code = ECONNREFUSED
        if code:
            raise OSError(code, os.strerror(code))
        limit_retransmission_timeout(self.socket)
        return True

    def deadline_s(self) -> float | None:
        return None

    def close(self) -> None:
        self.socket.close()


def _shake_hands(sock: socket.socket, address: Address, options: TransportOptions, deadline_s: float) -> Session:
    """Perform the handshake of the first connection. Raises RefusedError, UnreachableError, OSError."""
    handshake = TcpClientHandshake(options)
    _send(sock, handshake.first_message())
    KEEP_ALIVES.start()  # while the server works on it
    while handshake.session is None:
        with _reporting(address, options.peer_program.command):
            _send(sock, handshake.receive_untrusted(*_receive_preface(sock, address, deadline_s)))
    return handshake.session


@contextmanager
def _reporting_the_end(first: socket.socket, session: Session, peer: Address) -> Iterator[None]:
    """Raises LateRefusalError if a further connection cannot join because the server has ended the session.

    The reason has arrived on the first connection.
    """
    try:
        yield
    except (NettoolError, OSError):
        try:
            TcpStream(first, peer, _REASON_S, session.record_keys(0, is_client=True)).receive(None, _REASON_S)
        except LateRefusalError as refusal:
            raise refusal from None
        except NettoolError:
            pass
        raise


def _await_joined(sock: socket.socket, address: Address, options: TransportOptions, deadline_s: float) -> None:
    """Wait for the answer to a JOIN. Raises RefusedError, UnreachableError, OSError."""
    with _reporting(address, options.peer_program.command):
        preface_type, body = _receive_preface(sock, address, deadline_s)
        if preface_type == PrefaceType.REFUSED:
            raise_refusal_untrusted(body)
        if preface_type != PrefaceType.JOINED:
            raise ProtocolError(f"unexpected preface type {preface_type:#04x}")


def _send(sock: socket.socket, preface: bytes) -> None:
    sock.send(preface)  # the send buffer is empty: it fits


def _receive_preface(sock: socket.socket, address: Address, deadline_s: float) -> tuple[int, bytes]:
    """Wait for the peer's preface; return its type and body. Raises as `_receive_exactly` does, and RefusedError."""
    data = _receive_exactly(sock, PREFACE_BYTES, deadline_s, decode_preface_untrusted)
    preface = decode_preface_untrusted(data)
    assert preface is not None
    if preface.version != VERSION or preface.preface_type == PrefaceType.REFUSED_VERSION:
        raise RefusedError(
            f"{printable(str(address))} speaks version {preface.version} of nettool's TCP protocol, and this is "
            f"version {VERSION}; install the same nettool at both ends"
        )
    return preface.preface_type, _receive_exactly(sock, preface.body_bytes, deadline_s)


@contextmanager
def _reporting(address: Address, command: str) -> Iterator[None]:
    """Turns what goes wrong while the peer's answer is awaited into RefusedError and UnreachableError."""
    peer = printable(str(address))
    try:
        yield
    except PrefaceRefusedError as error:
        raise RefusedError(f"{peer} {error}") from error
    except ProtocolError as error:
        raise RefusedError(f"the program that listens at {peer} is not nettool; check the port") from error
    except TimeoutError as error:
        raise UnreachableError(
            f"{peer} accepted the connection but does not answer; is it `{command}`, and not busy with another session?"
        ) from error
    except (EOFError, ConnectionError) as error:
        raise UnreachableError(
            f"{peer} closed the connection without an answer; is it `{command}` that listens there?"
        ) from error


def _receive_exactly(
    sock: socket.socket, count: int, deadline_s: float, check_untrusted: Callable[[bytes], object] = len
) -> bytes:
    """Receive `count` bytes. `check_untrusted` gets the bytes so far after each read, and may raise to stop early."""
    data = b""
    while len(data) < count:
        sock.settimeout(max(1e-3, deadline_s - time.monotonic()))
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
        check_untrusted(data)
    return data
