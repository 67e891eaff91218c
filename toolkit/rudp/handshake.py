"""The client's side of the UDP handshake. The server's side is `handshake_server.py`.

    client                                       server
    INITIAL (security: M1)                 -->
                                           <--   RETRY (token)         it keeps no state for an unknown address
    INITIAL (token, M1)                    -->
                                           <--   ACCEPT (M2)           in two datagrams
    FINISH (M3), and at once the first     -->
    protected packets                            the connection exists

With the token of an earlier connection, the first round trip is saved. With a code, one is added:

    INITIAL (token, P1)                    -->
                                           <--   RETRY (P2)
    INITIAL (token, M1)                    -->

M1 to M3 and P1, P2 are the messages of the key exchange (`toolkit.security`), which this package only carries: it
drives an object of the type `ClientSecurity`. VERSION and REFUSE end the handshake.

INITIALs that get no answer are repeated. Unlike in QUIC (RFC 9000 section 17.2.5.2), a client accepts the token of
every RETRY, because a token is valid only for a few seconds. FINISH is repeated by the connection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from toolkit.errors import ProtocolError, RefusedError
from toolkit.parameters import decode_parameters_untrusted
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire

FIRST_RETRANSMISSION_NS: Final = 100_000_000
"""After a loss, this saves most of the usual wait. If the RTT is longer, it costs one extra INITIAL, which is padded to
1,200 bytes, and two if the RTT is above 300 ms."""
MAX_RETRANSMISSION_NS: Final = 250_000_000
"""Short, so that some INITIALs reach a server that is flooded and drops most of them: 4 a second. They take
40 kbit/s."""
_RTT_QUARTERS: Final = 5
"""Once the RTT is known, no interval is shorter than 5/4 of it: each first message costs the server a key exchange."""
MAX_REJECTIONS: Final = 3
"""How many complete ACCEPTs that are not authentic end the handshake. Only somebody on the path can make them."""
_MAX_INITIALS_SINCE_REFUSAL: Final = 4
"""How many may stay without an answer after a refusal; they take a second or two."""

Keys = TypeVar("Keys")
Keys_co = TypeVar("Keys_co", covariant=True)


class AcceptedSecurity(Protocol[Keys_co]):
    """The end of the key exchange on a client."""

    @property
    def finish(self) -> bytes:
        """M3, for the server."""

    @property
    def parameters(self) -> bytes:
        """The server's parameters."""

    @property
    def keys(self) -> Keys_co:
        """The keys of the session."""


class ClientSecurity(Protocol[Keys_co]):
    """The client's side of the key exchange. An invalid message raises ProtocolError and changes nothing."""

    def first_message(self) -> bytes:
        """Return P1 if the client has a code, M1 otherwise."""

    def receive_retry_untrusted(self, message: bytes) -> bytes:
        """Take P2 and return M1. Raises RefusedError for a refusal."""

    def receive_accept_untrusted(self, message: bytes) -> AcceptedSecurity[Keys_co]:
        """Take M2. Raises RefusedError for a refusal."""


@dataclass(frozen=True)
class Accepted(Generic[Keys]):
    """The result of a handshake on a client.

    server:  the server's parameters
    finish:  the FINISH datagram, which the connection sends first
    keys:    as the key exchange has agreed on them
    rtt_ns:  the least RTT sample, unless the server does not say which INITIAL it answers
    """

    server: packets.ServerParameters
    finish: bytes
    keys: Keys
    rtt_ns: int | None


class AcceptAssembler:
    """Joins the pieces of an ACCEPT, whatever their order."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._total_bytes = 0

    def add_untrusted(self, datagram: bytes | memoryview) -> bytes | None:
        """Add a piece; return the security message once all are there, and begin again."""
        *_, version, offset, total = packets.ACCEPT.unpack_untrusted(datagram)
        piece = bytes(datagram[packets.ACCEPT.size :])
        is_inside = 0 < len(piece) <= total - offset and total <= packets.MAX_ACCEPT_BYTES
        if version != packets.VERSION or not is_inside:
            raise ProtocolError("ACCEPT packet with an invalid version or piece")
        if total != self._total_bytes:
            self._pieces.clear()
            self._total_bytes = total
        self._pieces[offset] = piece
        if sum(map(len, self._pieces.values())) < total:
            return None
        body = b"".join(piece for _, piece in sorted(self._pieces.items()))
        self._pieces.clear()
        if len(body) != total:
            raise ProtocolError("ACCEPT packets with pieces that overlap")
        security = decode_parameters_untrusted(body).get(packets.Parameter.SECURITY, b"")
        if not security:
            raise ProtocolError("ACCEPT packet without a security message")
        return security


class ClientHandshake(Generic[Keys]):
    """The client's side. Feed it answers and send what `poll_transmit` returns, until `accepted` is set.

    accepted: the result
    refusal:  what the server has said once; it is not believed yet
    """

    def __init__(
        self,
        client_id: int,
        datagram_bytes: int,
        make_security: Callable[[bytes, bytes], ClientSecurity[Keys]],
        now_ns: int,
        token: bytes = b"",
        grease: tuple[int, bytes] | None = None,
    ) -> None:
        """Begin at `now_ns`.

        client_id:      64 random bits
        datagram_bytes: the largest datagram that this side accepts
        make_security:  makes the client's side of the key exchange from its prologue and this side's parameters
        token:          from an earlier connection to this server, if there is one
        grease:         a parameter that the server has to ignore
        """
        self.accepted: Accepted[Keys] | None = None
        self.refusal: RefusedError | None = None
        offer = packets.make_offer(grease)
        parameters = packets.ClientParameters(datagram_bytes).encode()
        self._security = make_security(packets.prologue_of(client_id, offer), parameters)
        self._initial = packets.InitialPacket(client_id, offer, self._security.first_message(), token)
        self._assembler = AcceptAssembler()
        self._rejections = 0
        self._has_retried_token = False
        self._has_retried_security = False
        self._initials_since_refusal = 0
        self._interval_ns = FIRST_RETRANSMISSION_NS
        self._next_send_ns = now_ns
        self._number = 0  # of the latest INITIAL
        self._sent_times_ns: dict[int, int] = {}  # by number
        self._rtt_ns: int | None = None

    def handle_datagram_untrusted(self, datagram: bytes | memoryview, now_ns: int) -> None:
        """Take an answer. Raises ProtocolError if it is invalid, RefusedError if the server refuses this side."""
        packet_type, connection_id = wire.connection_id_untrusted(datagram)
        if connection_id != self._initial.client_id:
            raise ProtocolError("answer to another handshake")
        handler = _HANDLERS.get(packet_type)
        if handler is None:
            raise ProtocolError(f"unknown type {packet_type:#04x} of an answer to a handshake")
        sent_time_ns = self._sent_times_ns.get(packets.initial_number_untrusted(datagram))
        if sent_time_ns is not None:
            # The least one: before an ACCEPT, the server has exchanged keys; and a packet may be a late duplicate.
            sample_ns = now_ns - sent_time_ns
            self._rtt_ns = sample_ns if self._rtt_ns is None else min(self._rtt_ns, sample_ns)
        handler(self, datagram, now_ns)

    def _on_version_untrusted(self, datagram: bytes | memoryview, now_ns: int) -> None:
        versions = packets.decode_version_untrusted(datagram)
        if packets.VERSION not in versions:
            error = RefusedError(
                f"the receiver speaks protocol version {_names(versions)}, this side "
                f"{_names(packets.SUPPORTED_VERSIONS)}: install the same nettool at both ends"
            )
            self._on_refusal(error, now_ns)

    def _on_retry_untrusted(self, datagram: bytes | memoryview, now_ns: int) -> None:
        token, security = packets.decode_retry_untrusted(datagram)
        if security and not self._has_retried_security:
            security = self._security.receive_retry_untrusted(security)
            self._has_retried_security = True
            self._send_next(token or self._initial.token, security, now_ns)
        elif token and not self._has_retried_token:
            # Only the first RETRY with a token is answered at once, so that a server that always retries does not cause
            # an INITIAL in every round trip.
            self._has_retried_token = True
            self._send_next(token, self._initial.security, now_ns)
        elif token:
            self._replace_initial(token, self._initial.security)

    def _on_refuse_untrusted(self, datagram: bytes | memoryview, now_ns: int) -> None:
        security = packets.decode_refuse_untrusted(datagram)
        try:
            self._security.receive_retry_untrusted(security)
        except RefusedError as error:
            self._on_refusal(error, now_ns)
            return
        raise ProtocolError("REFUSE packet that refuses nothing")

    def _on_refusal(self, error: RefusedError, now_ns: int) -> None:
        """Believe a refusal if another INITIAL meets with one, too, or with silence: ask again at once.

        A refusal is not authenticated. A single forged one must not end the handshake, and neither must that of a
        single INITIAL that was altered on its way.
        """
        if self._initials_since_refusal:
            raise error
        if self.refusal is None:
            self.refusal = error
            self._next_send_ns = now_ns

    def _on_accept_untrusted(self, datagram: bytes | memoryview, _now_ns: int) -> None:
        message = self._assembler.add_untrusted(datagram)
        if message is None or self.accepted is not None:
            return
        try:
            security = self._security.receive_accept_untrusted(message)
        except ProtocolError as error:
            self._rejections += 1
            if self._rejections < MAX_REJECTIONS:
                raise  # the true one may still come
            raise RefusedError(str(error)) from error
        try:
            server = packets.decode_server_parameters_untrusted(security.parameters)
        except ProtocolError as error:  # authentic, so nothing better will come
            raise RefusedError(
                f"the receiver's answer is unusable ({error}): install the same nettool at both ends"
            ) from error
        finish = packets.encode_finish(server.server_id, security.finish)
        finish = packets.with_initial_number(finish, packets.initial_number_untrusted(datagram))
        self.accepted = Accepted(server, finish, security.keys, self._rtt_ns)

    def _send_next(self, token: bytes, security: bytes, now_ns: int) -> None:
        """Send another INITIAL at once."""
        self._replace_initial(token, security)
        self._next_send_ns = now_ns

    def _replace_initial(self, token: bytes, security: bytes) -> None:
        self._initial = packets.InitialPacket(self._initial.client_id, self._initial.offer, security, token)

    def poll_transmit(self, now_ns: int) -> bytes | None:
        """The INITIAL packet, if it is due; None otherwise.

        Raises RefusedError if nothing came after a refusal.
        """
        if now_ns < self._next_send_ns or self.accepted is not None:
            return None
        if self.refusal is not None:
            if self._initials_since_refusal == _MAX_INITIALS_SINCE_REFUSAL:
                raise self.refusal
            self._initials_since_refusal += 1
        self._number = self._number % packets.MAX_INITIAL_NUMBER + 1
        self._sent_times_ns[self._number] = now_ns
        least_ns = 0 if self._rtt_ns is None else self._rtt_ns * _RTT_QUARTERS // 4
        self._next_send_ns = now_ns + max(self._interval_ns, least_ns)
        self._interval_ns = min(2 * self._interval_ns, MAX_RETRANSMISSION_NS)
        return packets.with_initial_number(self._initial.encode(), self._number)

    def poll_timeout(self) -> int:
        """When to call `poll_transmit`."""
        return self._next_send_ns


def _names(versions: tuple[int, ...]) -> str:
    """Return the numbers of versions for a person: 0x4E540002 is 2, a foreign one is hexadecimal."""
    own = packets.VERSION >> 16
    return " or ".join(str(v & 0xFFFF) if v >> 16 == own else f"{v:#x}" for v in versions[:3])


_HANDLERS: Final[dict[int, Callable[[ClientHandshake[Any], bytes | memoryview, int], None]]] = {
    wire.PacketType.VERSION: ClientHandshake._on_version_untrusted,
    wire.PacketType.RETRY: ClientHandshake._on_retry_untrusted,
    wire.PacketType.REFUSE: ClientHandshake._on_refuse_untrusted,
    wire.PacketType.ACCEPT: ClientHandshake._on_accept_untrusted,
}
