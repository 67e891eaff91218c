"""Both sides of a UDP handshake in virtual time, with a key exchange that exchanges nothing."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from toolkit.errors import ProtocolError, RefusedError
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator
from toolkit.rudp.handshake import ClientHandshake, ClientSecurity
from toolkit.rudp.handshake_server import AcceptLimits, ServerHandshakes
from toolkit.simulator.security import PlainClientSecurity, PlainOpened, PlainServerSecurity

MS = 1_000_000
CLIENT = 0xAAAA
SERVER = 0xBBBB
PEER = ("192.0.2.1", 4711)
HOST = b"192.0.2.1"
LIMITS = AcceptLimits(1472, 1 << 20)


@dataclass(frozen=True)
class Reply:
    """Implements `toolkit.rudp.handshake_server.SecurityReply`."""

    message: bytes
    is_refusal: bool


class CodeClientSecurity(PlainClientSecurity):
    """A client that sends a message before its first one, as with a code."""

    def first_message(self) -> bytes:
        return b"P1"

    def receive_retry_untrusted(self, message: bytes) -> bytes:
        if message != b"P2":
            raise ProtocolError("not P2")
        return b"with code" + super().first_message()


class OpenClientSecurity(PlainClientSecurity):
    """A client without a code."""

    def receive_retry_untrusted(self, message: bytes) -> bytes:
        if message == b"no":
            raise RefusedError("the receiver asks for a code: add --code")
        return super().receive_retry_untrusted(message)


class CodeServerSecurity(PlainServerSecurity):
    """A server that asks for a code."""

    def open_untrusted(self, message: bytes, prologue: bytes, host: bytes, now_ns: int) -> PlainOpened | Reply:  # type: ignore[override]
        if message == b"P1":
            return Reply(b"P2", False)
        if not message.startswith(b"with code"):
            return Reply(b"no", True)
        return super().open_untrusted(message.removeprefix(b"with code"), prologue, host, now_ns)


def client(
    client_id: int = CLIENT,
    token: bytes = b"",
    security: Callable[[bytes, bytes], ClientSecurity[None]] = OpenClientSecurity,
    now_ns: int = 0,
) -> ClientHandshake[None]:
    """A client that begins at `now_ns`."""
    return ClientHandshake(client_id, 1472, security, now_ns, token, (27, b"grease"))


def make_server(asks_for_code: bool = False) -> ServerHandshakes[None]:
    """A server whose first connection id is SERVER."""
    ids = count(SERVER)
    security = CodeServerSecurity() if asks_for_code else PlainServerSecurity()
    return ServerHandshakes(security, AddressValidator(bytes(32)), LIMITS, lambda: next(ids))


def initial_of(handshake: ClientHandshake[None], now_ns: int) -> bytes:
    """The INITIAL that is due."""
    datagram = handshake.poll_transmit(now_ns)
    assert datagram is not None
    return datagram


def exchange(
    handshake: ClientHandshake[None],
    server: ServerHandshakes[None],
    rtt_ns: int,
    drop: Callable[[bytes], bool] = lambda _datagram: False,
) -> int:
    """Run the handshake until the client has the ACCEPT; return that time. `drop` selects the datagrams to lose."""
    arrivals: list[tuple[int, int, bool, bytes]] = []
    order = count()

    def send(now_ns: int, to_server: bool, datagram: bytes) -> None:
        if not drop(datagram):
            heapq.heappush(arrivals, (now_ns + rtt_ns // 2, next(order), to_server, datagram))

    while True:
        if not arrivals or handshake.poll_timeout() <= arrivals[0][0]:
            now_ns = handshake.poll_timeout()
            send(now_ns, True, initial_of(handshake, now_ns))
            continue
        now_ns, _, to_server, datagram = heapq.heappop(arrivals)
        if to_server:
            for answer in server.handle_initial_untrusted(datagram, PEER, HOST, now_ns):
                send(now_ns, False, answer)
        else:
            handshake.handle_datagram_untrusted(datagram, now_ns)
        if handshake.accepted is not None:
            return now_ns


def complete(server: ServerHandshakes[None], handshake: ClientHandshake[None]) -> int:
    """Give the client's FINISH to the server, which makes the connection; return its client id."""
    assert handshake.accepted is not None
    assert wire.connection_id_untrusted(handshake.accepted.finish)[0] == wire.PacketType.FINISH
    established = server.handle_finish_untrusted(handshake.accepted.finish, PEER, MS)
    server.complete(established)
    return established.client_id
