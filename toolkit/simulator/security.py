"""A key exchange that exchanges nothing: messages of the usual sizes, in the clear, so that simulations stay cheap."""

from dataclasses import dataclass
from typing import Final

from toolkit.errors import ProtocolError
from toolkit.security.admission import Admitted, Method

# What the messages of the real key exchange take besides the parameters of the transport.
_FIRST: Final = bytes(32 + 40 + 16)  # a public key, the measured speeds, a tag
_ACCEPT: Final = bytes(32 + 1184 + 16 + 16 + 16)  # a public key, a sealed ML-KEM-768 key, the choices, a tag
_FINISH: Final = bytes(1088 + 16)  # an ML-KEM-768 ciphertext and a tag
_ADMITTED: Final = Admitted(Method.NONE)


@dataclass(frozen=True)
class PlainAccepted:
    """Implements `toolkit.rudp.handshake.AcceptedSecurity`."""

    parameters: bytes
    finish: bytes = _FINISH
    keys: None = None


class PlainClientSecurity:
    """Implements `toolkit.rudp.handshake.ClientSecurity`."""

    def __init__(self, _prologue: bytes, parameters: bytes) -> None:
        self._parameters = parameters

    def first_message(self) -> bytes:
        return _FIRST + self._parameters

    def receive_retry_untrusted(self, _message: bytes) -> bytes:
        raise ProtocolError("an unexpected security message")

    def receive_accept_untrusted(self, message: bytes) -> PlainAccepted:
        return PlainAccepted(_without_untrusted(_ACCEPT, message))


class PlainServerSecurity:
    """Implements `toolkit.rudp.handshake_server.ServerSecurity`."""

    def open_untrusted(self, message: bytes, _prologue: bytes, _host: bytes, _now_ns: int) -> "PlainOpened":
        return PlainOpened(_without_untrusted(_FIRST, message))


@dataclass(frozen=True)
class PlainOpened:
    """Implements `toolkit.rudp.handshake_server.OpenedSecurity`."""

    parameters: bytes
    admitted: Admitted = _ADMITTED

    def accept(self, parameters: bytes) -> bytes:
        return _ACCEPT + parameters

    def finish_untrusted(self, message: bytes) -> None:
        _without_untrusted(_FINISH, message)


def _without_untrusted(filler: bytes, message: bytes) -> bytes:
    if not message.startswith(filler):
        raise ProtocolError("a security message of another key exchange")
    return message[len(filler) :]
