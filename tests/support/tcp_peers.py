"""A peer of the TCP transport on a plain socket, for tests that decide about every byte it sends."""

import socket

from toolkit.channel import TransportOptions
from toolkit.transports.tcp import wire
from toolkit.transports.tcp.handshake import Session, TcpClientHandshake

PLAINTEXT = TransportOptions(plaintext=True)


def receive_preface(sock: socket.socket) -> tuple[wire.Preface, bytes]:
    """Return the fixed part and the body of the preface that arrives; EOFError if the peer closes before its end."""
    preface = wire.decode_preface_untrusted(_receive_exactly(sock, wire.PREFACE_BYTES))
    assert preface is not None
    return preface, _receive_exactly(sock, preface.body_bytes)


def refusal_reason(sock: socket.socket) -> int:
    """Return the reason of the REFUSED that arrives."""
    preface, body = receive_preface(sock)
    assert preface.preface_type == wire.PrefaceType.REFUSED
    return wire.decode_refused_untrusted(body).reason


def hello(options: TransportOptions = PLAINTEXT) -> bytes:
    """Return a valid HELLO."""
    return TcpClientHandshake(options).first_message()


def hello_with(clear: dict[int, bytes]) -> bytes:
    """Return a HELLO with these clear parameters and a security message that is valid by itself."""
    whole = wire.decode_hello_untrusted(hello()[wire.PREFACE_BYTES :])
    return wire.encode_hello(clear, whole.security)


def begin(sock: socket.socket, options: TransportOptions = PLAINTEXT) -> tuple[Session, bytes]:
    """Perform the handshake up to the FINISH, which is returned with the session but not sent."""
    handshake = TcpClientHandshake(options)
    message = handshake.first_message()
    while handshake.session is None:
        sock.sendall(message)
        preface, body = receive_preface(sock)
        message = handshake.receive_untrusted(preface.preface_type, body)
    return handshake.session, message


def shake_hands(sock: socket.socket, options: TransportOptions = PLAINTEXT) -> Session:
    """Perform the handshake of a session's first connection."""
    session, finish = begin(sock, options)
    sock.sendall(finish)
    return session


def join(sock: socket.socket, session: Session, number: int) -> int:
    """Ask to join as connection `number`; return the type of the answer."""
    sock.sendall(wire.encode_join(session.join(number)))
    return receive_preface(sock)[0].preface_type


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
