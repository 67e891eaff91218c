"""The TCP transport: a session is one connection, or several that carry its content together.

Connecting goes to every address of a name (RFC 8305), then a preface is exchanged (`tcp_wire`); whoever answers with
something else, in another version or not at all is reported in one line.
"""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

from toolkit.channel import Address, TransportOptions
from toolkit.errors import ProtocolError, RefusedError, UnreachableError, printable
from toolkit.transports.addresses import SocketAddress, address_of, resolve
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.connect import begin, dial, finish
from toolkit.transports.tcp.listener import TcpListener
from toolkit.transports.tcp.settings import check_options, configure, connect_error
from toolkit.transports.tcp.wire import (
    NO_TOKEN,
    PREFACE_BYTES,
    VERSION,
    Hello,
    Kind,
    Welcome,
    decode_preface_untrusted,
    decode_welcome_untrusted,
    encode_hello,
)

_REFUSALS: Final[dict[int, str]] = {
    Kind.REFUSED_SESSION: "has no session that waits for another connection; send again",
    Kind.REFUSED_STREAMS: "does not take so many streams; choose fewer with --streams",
    Kind.REFUSED_SECURITY: "offers no authentication or encryption; send without",
}

Resolver = Callable[[Address, int], list[SocketAddress]]


class TcpTransport:
    """See `toolkit.channel.Transport`.

    resolver: what finds the addresses of a name; takes an address and socket.SOCK_STREAM
    """

    name = "tcp"

    def __init__(self, resolver: Resolver = resolve) -> None:
        self._resolver = resolver

    def connect(self, address: Address, options: TransportOptions) -> TcpChannel:
        check_options(options)
        candidates = self._resolver(address, socket.SOCK_STREAM)
        deadline_s = time.monotonic() + options.connect_timeout_s
        set_up = partial(configure, options=options)
        with ExitStack() as on_failure:
            try:
                first = on_failure.enter_context(dial(candidates, set_up, deadline_s))
                name = first.getpeername()
                peer = address_of(name)
                _greet(first, Hello(NO_TOKEN, options.streams, 0, b""))
                token = _welcomed(first, address, deadline_s).token
                others = []
                for _ in range(1, options.streams):
                    # All at once, so that many streams cost the round trips of one.
                    sock = begin((first.family, (peer.host, peer.port)), set_up)
                    others.append(on_failure.enter_context(sock))
                for number, sock in enumerate(others, 1):
                    finish(sock, deadline_s)
                    _greet(sock, Hello(token, options.streams, number, b""))
                for sock in others:
                    _welcomed(sock, address, deadline_s)
            except OSError as error:
                raise connect_error(address, error) from error
            channel = TcpChannel([first, *others], peer, options.idle_timeout_s)
            on_failure.pop_all()
        return channel

    def listen(self, address: Address, options: TransportOptions) -> TcpListener:
        return TcpListener(address, options)


def _greet(sock: socket.socket, hello: Hello) -> None:
    sock.send(encode_hello(hello))  # into an empty send buffer: it fits


def _welcomed(sock: socket.socket, address: Address, deadline_s: float) -> Welcome:
    """Wait for the peer's preface. Raises RefusedError, UnreachableError, OSError."""
    who = printable(str(address))
    try:
        data = _receive_exactly(sock, PREFACE_BYTES, deadline_s, decode_preface_untrusted)
        preface = decode_preface_untrusted(data)
        assert preface is not None
        if preface.version != VERSION or preface.kind == Kind.REFUSED_VERSION:
            raise RefusedError(
                f"{who} speaks version {preface.version} of nettool's TCP protocol, and this is version {VERSION}; "
                "install the same nettool at both ends"
            )
        body = _receive_exactly(sock, preface.body_bytes, deadline_s)
        if preface.kind in _REFUSALS:
            raise RefusedError(f"{who} {_REFUSALS[preface.kind]}")
        if preface.kind != Kind.WELCOME:
            raise ProtocolError("the preface of the peer is of no known kind")
        return decode_welcome_untrusted(body)
    except ProtocolError as error:
        raise RefusedError(f"what listens at {who} is not nettool; check the port") from error
    except TimeoutError as error:
        raise UnreachableError(
            f"{who} took the connection and does not answer; is it `nettool recv`, and not busy with another session?"
        ) from error
    except (EOFError, ConnectionError) as error:
        raise UnreachableError(
            f"{who} closed the connection without an answer; is it `nettool recv` that listens there?"
        ) from error


def _receive_exactly(
    sock: socket.socket, count: int, deadline_s: float, check_untrusted: Callable[[bytes], object] = len
) -> bytes:
    """`count` bytes; `check_untrusted` sees what is there after each piece, and raises to end a hopeless wait."""
    data = b""
    while len(data) < count:
        sock.settimeout(max(1e-3, deadline_s - time.monotonic()))
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
        check_untrusted(data)
    return data
