"""The handshake: one round trip, or two if the server validates the client's address first.

    client                                  server
    INITIAL (padded to 1,200 bytes)   -->
                                      <--   RETRY (token)         only if it is busy; it keeps no state
    INITIAL (with the token)          -->
                                      <--   ACCEPT (server id)    both sides are connected
    DATA, MESSAGE                     -->

    INITIAL (unsupported version)     -->
                                      <--   VERSION               the version of the server; the client gives up

ACCEPT, RETRY and VERSION are smaller than the INITIAL that they answer, so nothing is amplified (RFC 9000 section 8).
If an ACCEPT is lost, the client repeats its INITIAL, and the connection that exists already repeats its ACCEPT. Unlike
in QUIC (RFC 9000 section 17.2.5.2), a client accepts the token of every RETRY, because a token is valid only for a few
seconds.

The security field of INITIAL and ACCEPT is empty in this version; it is reserved for key agreement.
"""

from typing import Final, NamedTuple

from toolkit.errors import ProtocolError, RefusedError
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator

FIRST_RETRANSMISSION_NS: Final = 100_000_000
"""After a loss, this saves most of the usual wait. If the RTT is longer, it costs one extra INITIAL, which is padded to
1,200 bytes, and two if the RTT is above 300 ms."""
MAX_RETRANSMISSION_NS: Final = 800_000_000


class ClientHandshake:
    """The client's side. Feed it answers and send what `poll_transmit` returns, until `accepted` is set.

    accepted: the server's ACCEPT packet
    rtt_ns:   the first RTT sample, if the answer was unambiguous
    """

    def __init__(self, client_id: int, datagram_bytes: int, now_ns: int) -> None:
        self.accepted: wire.AcceptPacket | None = None
        self.rtt_ns: int | None = None
        self._initial = wire.InitialPacket(client_id, datagram_bytes)
        self._interval_ns = FIRST_RETRANSMISSION_NS
        self._next_send_ns = now_ns
        self._sent_time_ns: int | None = None
        self._is_ambiguous = False  # repeated, so an answer gives no RTT sample (Karn's algorithm, RFC 6298 section 3)

    def handle_datagram_untrusted(self, datagram: bytes | memoryview, now_ns: int) -> None:
        """Take an answer. Raises ProtocolError if it is none, RefusedError if the server speaks another version."""
        packet_type, connection_id = wire.connection_id_untrusted(datagram)
        if connection_id != self._initial.client_id:
            raise ProtocolError("answer to another handshake")
        if packet_type == wire.PacketType.VERSION:
            version = wire.decode_version_untrusted(datagram)
            if version != wire.VERSION:
                raise RefusedError(
                    f"the receiver speaks protocol version {version:#x}, this side {wire.VERSION:#x}: "
                    "install the same nettool at both ends"
                )
        elif packet_type == wire.PacketType.RETRY:
            token = wire.decode_retry_untrusted(datagram)
            if not self._initial.token:
                # Only the first RETRY is answered at once, so that a server that always retries does not cause an
                # INITIAL in every round trip.
                self._next_send_ns = now_ns
                if not self._is_ambiguous:
                    self._sent_time_ns = None  # the RTT sample is that of the next INITIAL
            self._initial = wire.InitialPacket(self._initial.client_id, self._initial.datagram_bytes, token)
        elif packet_type == wire.PacketType.ACCEPT:
            self.accepted = wire.decode_accept_untrusted(datagram)
            if self._sent_time_ns is not None and not self._is_ambiguous:
                self.rtt_ns = now_ns - self._sent_time_ns
        else:
            raise ProtocolError(f"unknown type {packet_type:#04x} of an answer to a handshake")

    def poll_transmit(self, now_ns: int) -> bytes | None:
        """The INITIAL packet, if it is due; None otherwise."""
        if now_ns < self._next_send_ns or self.accepted is not None:
            return None
        self._is_ambiguous |= self._sent_time_ns is not None
        self._sent_time_ns = now_ns
        self._next_send_ns = now_ns + self._interval_ns
        self._interval_ns = min(2 * self._interval_ns, MAX_RETRANSMISSION_NS)
        return self._initial.encode()

    def poll_timeout(self) -> int:
        """When to call `poll_transmit`."""
        return self._next_send_ns


class InitialAnswer(NamedTuple):
    """How a listener handles a first packet: send `reply`, if any, and make a connection if `initial` is set."""

    reply: bytes | None
    initial: wire.InitialPacket | None


def answer_initial_untrusted(
    datagram: bytes | memoryview, address: bytes, now_ns: int, validator: AddressValidator, require_validation: bool
) -> InitialAnswer:
    """The stateless part of a listener. Raises ProtocolError for anything but an INITIAL.

    `address` identifies the client's address. An INITIAL of an unsupported version is answered by a VERSION packet.
    With `require_validation`, an INITIAL without a valid token is answered by a RETRY.
    """
    packet_type, client_id = wire.connection_id_untrusted(datagram)
    if packet_type != wire.PacketType.INITIAL:
        raise ProtocolError("the first packet is not an INITIAL")
    initial = wire.decode_initial_untrusted(datagram)
    if initial.version != wire.VERSION:
        return InitialAnswer(wire.encode_version(client_id), None)
    if require_validation and not validator.is_valid_untrusted(initial.token, address, client_id, now_ns):
        return InitialAnswer(wire.encode_retry(client_id, validator.make_token(address, client_id, now_ns)), None)
    return InitialAnswer(None, initial)
