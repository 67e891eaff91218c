"""How a connection begins: one round trip, or two when the server wants the client's address proved first.

    client                                  server
    INITIAL (padded to 1,200 bytes)   -->
                                      <--   RETRY (token)         only when it is busy, and it keeps nothing
    INITIAL (with the token)          -->
                                      <--   ACCEPT (server id)    both ends are made
    DATA, MESSAGE                     -->

An ACCEPT or RETRY is smaller than the INITIAL that it answers: nothing is amplified (RFC 9000 section 8). Where an
ACCEPT is lost, the client sends its INITIAL again, and the connection it has already made answers the same. Unlike
QUIC (RFC 9000 section 17.2.5.2) a client takes the token of every RETRY, for a token lives only some seconds.

The security field of INITIAL and ACCEPT is empty in this version; it is where keys will be agreed on.
"""

from typing import Final, NamedTuple

from toolkit.errors import ProtocolError, RefusedError
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator

FIRST_RETRANSMISSION_NS: Final = 100_000_000
"""One small datagram more on paths that are longer; where the first was lost, half of the wait."""
MAX_RETRANSMISSION_NS: Final = 800_000_000


class ClientHandshake:
    """Inputs `handle_datagram` and `handle_timeout`; output `poll_transmit`; done when `accepted` is set."""

    def __init__(self, client_id: int, datagram_bytes: int, now_ns: int) -> None:
        self.accepted: wire.AcceptPacket | None = None
        self.rtt_ns: int | None = None
        self._initial = wire.InitialPacket(client_id, datagram_bytes)
        self._interval_ns = FIRST_RETRANSMISSION_NS
        self._next_send_ns = now_ns
        self._sent_time_ns: int | None = None
        self._is_ambiguous = False  # several await an answer: none measures the RTT (Karn, RFC 6298 section 3)

    def handle_datagram_untrusted(self, datagram: bytes | memoryview, now_ns: int) -> None:
        """Take an answer. ProtocolError for what is none; RefusedError when the server speaks another version."""
        kind, connection_id = wire.connection_id_untrusted(datagram)
        if connection_id != self._initial.client_id:
            raise ProtocolError("an answer to a handshake that is not this one")
        if kind == wire.PacketType.VERSION:
            version = wire.decode_version_list_untrusted(datagram)
            if version != wire.VERSION:
                raise RefusedError(
                    f"the receiver speaks version {version:#x} of the protocol and this is {wire.VERSION:#x}: "
                    "install the same nettool at both ends"
                )
        elif kind == wire.PacketType.RETRY:
            token = wire.decode_retry_untrusted(datagram)
            if not self._initial.token:
                # Only the first is answered at once: a server that never agrees would be asked once per round trip.
                self._next_send_ns = now_ns
                if not self._is_ambiguous:
                    self._sent_time_ns = None  # this was the answer to the one INITIAL; the next one measures
            self._initial = wire.InitialPacket(self._initial.client_id, self._initial.datagram_bytes, token)
        elif kind == wire.PacketType.ACCEPT:
            self.accepted = wire.decode_accept_untrusted(datagram)
            if self._sent_time_ns is not None and not self._is_ambiguous:
                self.rtt_ns = now_ns - self._sent_time_ns
        else:
            raise ProtocolError("an answer to a handshake that is of no such kind")

    def poll_transmit(self, now_ns: int) -> bytes | None:
        """The INITIAL, when it is time for it."""
        if now_ns < self._next_send_ns or self.accepted is not None:
            return None
        self._is_ambiguous |= self._sent_time_ns is not None
        self._sent_time_ns = now_ns
        self._next_send_ns = now_ns + self._interval_ns
        self._interval_ns = min(2 * self._interval_ns, MAX_RETRANSMISSION_NS)
        return self._initial.encode()

    def poll_timeout(self) -> int:
        """When to call `poll_transmit` again."""
        return self._next_send_ns


class Answer(NamedTuple):
    """What a listener does about a first packet: send `reply`, if any, and make a connection if `initial` is set."""

    reply: bytes | None
    initial: wire.InitialPacket | None


def answer_initial_untrusted(
    datagram: bytes | memoryview, address: bytes, now_ns: int, jar: AddressValidator, demand_validation: bool
) -> Answer:
    """A listener's stateless part. Raises ProtocolError for anything but an INITIAL."""
    kind, client_id = wire.connection_id_untrusted(datagram)
    if kind != wire.PacketType.INITIAL:
        raise ProtocolError("a first packet that is no INITIAL")
    initial = wire.decode_initial_untrusted(datagram)
    if initial.version != wire.VERSION:
        return Answer(wire.encode_version_list(client_id), None)
    if demand_validation and not jar.is_valid_untrusted(initial.token, address, client_id, now_ns):
        return Answer(wire.encode_retry(client_id, jar.make(address, client_id, now_ns)), None)
    return Answer(None, initial)
