"""The server's side of the UDP handshake: what a listener answers to first packets, and what it keeps.

Nothing is kept, and no key is computed, before the client has returned a token: an INITIAL without one costs a keyed
hash. Then the first message of the key exchange must open, which proves that the client knows the key or code that is
required. Only then is the handshake *pending*: a few kilobytes, for a few seconds, without a socket. FINISH
completes it.

Pending handshakes are limited, for each host and in all. When a host has too many, it loses its own oldest one. When
all places are taken, the host with the most of them loses its oldest one, so that a crowd of addresses cannot keep an
honest client out. How often a host may begin a key exchange is limited too.

Read: RFC 9000 section 8.1 (address validation) and section 21.3 (amplification).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, runtime_checkable

from toolkit.errors import ProtocolError
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator, token_mark_untrusted
from toolkit.rudp.batch import PeerAddress
from toolkit.rudp.handshake import Keys, Keys_co
from toolkit.rudp.handshake_packets import Parameter
from toolkit.security.admission import Admitted
from toolkit.security.host_rates import HostRates, network_of

MAX_PENDING: Final = 1024
MAX_PENDING_PER_HOST: Final = 64
PENDING_LIFETIME_NS: Final = 15_000_000_000
"""Two round trips of 6 s and a repetition: FINISH comes a round trip after ACCEPT."""
_INITIAL: Final = bytes((wire.PacketType.INITIAL,))
_VERSION: Final = packets.VERSION.to_bytes(4, "big")
_REMEMBERED: Final = 1024
"""How many completed handshakes to remember."""


@runtime_checkable
class SecurityReply(Protocol):
    """The server answers a message, and keeps nothing: another message of the client is needed, or it is refused."""

    @property
    def message(self) -> bytes:
        """What to send to the client."""

    @property
    def is_refusal(self) -> bool:
        """Whether the client is refused."""


class OpenedSecurity(Protocol[Keys_co]):
    """M1 has opened: the client knows what it has to know."""

    @property
    def parameters(self) -> bytes:
        """The client's parameters."""

    @property
    def admitted(self) -> Admitted:
        """How the client was admitted. Called after `finish_untrusted`."""

    def accept(self, parameters: bytes) -> bytes:
        """Return M2 with the server's parameters. Called once."""

    def finish_untrusted(self, message: bytes) -> Keys_co:
        """Take M3 and return the keys. Raises ProtocolError if it is invalid; a valid one may still follow."""


class ServerSecurity(Protocol[Keys_co]):
    """The server's side of the key exchange, for all clients."""

    def open_untrusted(
        self, message: bytes, prologue: bytes, network: bytes, now_ns: int
    ) -> SecurityReply | OpenedSecurity[Keys_co]:
        """Take P1 or M1 of a client in `network`. Raises ProtocolError for a message that deserves no answer."""


@dataclass(frozen=True, slots=True)
class AcceptLimits:
    """What the server accepts: the largest datagram, and the first window of the data stream."""

    datagram_bytes: int
    data_window: int


@dataclass(frozen=True)
class Established(Generic[Keys]):
    """The result of a handshake on a server.

    client_id, server_id: the connection ids of both sides
    client:               the client's parameters
    keys, admitted:       as the key exchange has returned them
    rtt_ns:               how long FINISH has followed the ACCEPT that it names: the client's work included, and the
                          time of a FINISH that was lost; None if it names none
    """

    client_id: int
    server_id: int
    client: packets.ClientParameters
    keys: Keys
    admitted: Admitted
    rtt_ns: int | None


@dataclass(slots=True)
class _Pending(Generic[Keys]):
    peer: PeerAddress
    host: bytes
    client_id: int
    server_id: int
    client: packets.ClientParameters
    opened: OpenedSecurity[Keys]
    accept: list[bytes]
    give_up_ns: int
    established: Established[Keys] | None = None  # once FINISH has opened
    accept_times_ns: dict[int, int] = field(default_factory=dict)  # by the number of the INITIAL

    @property
    def key(self) -> tuple[PeerAddress, int]:
        return self.peer, self.client_id

    def answer(self, number: int, now_ns: int) -> list[bytes]:
        """Return the ACCEPT for the INITIAL with this number; 0 for none."""
        if number:
            self.accept_times_ns[number] = now_ns
        return self.accept


class ServerHandshakes(Generic[Keys]):
    """All handshakes of one listener. Times are in ns of one clock that never goes back."""

    def __init__(
        self,
        security: ServerSecurity[Keys],
        validator: AddressValidator,
        limits: AcceptLimits,
        random_id: Callable[[], int],
    ) -> None:
        """`random_id` returns 64 random bits."""
        self._security = security
        self._validator = validator
        self._limits = limits
        self._random_id = random_id
        self._pending: OrderedDict[tuple[PeerAddress, int], _Pending[Keys]] = OrderedDict()  # oldest first
        self._by_server_id: dict[int, _Pending[Keys]] = {}
        self._by_host: dict[bytes, OrderedDict[tuple[PeerAddress, int], None]] = {}
        self._completed: OrderedDict[tuple[PeerAddress, int], None] = OrderedDict()
        self._rates = HostRates()

    @property
    def pending(self) -> int:
        """How many handshakes are pending."""
        return len(self._pending)

    def handle_initial_untrusted(
        self, datagram: bytes | memoryview, peer: PeerAddress, host: bytes, now_ns: int
    ) -> list[bytes]:
        """Take an INITIAL from `peer` and return the datagrams to answer with.

        `host` is the peer's packed IP address. Raises ProtocolError for what deserves no answer.
        """
        version = packets.initial_version_untrusted(datagram)
        client_id = wire.connection_id_untrusted(datagram)[1]
        if version not in packets.SUPPORTED_VERSIONS:
            return [packets.encode_version(client_id)]
        number = packets.initial_number_untrusted(datagram)
        answers = self._answer_untrusted(datagram, client_id, number, peer, host, now_ns)
        return [packets.with_initial_number(answer, number) for answer in answers]

    def _answer_untrusted(
        self,
        datagram: bytes | memoryview,
        client_id: int,
        number: int,
        peer: PeerAddress,
        host: bytes,
        now_ns: int,
    ) -> list[bytes]:
        if not packets.has_token_untrusted(datagram):
            return [self._retry(host, peer[1], client_id, now_ns)]
        initial = packets.decode_initial_untrusted(datagram)
        if not self._validator.is_valid_untrusted(initial.token, host, peer[1], client_id, now_ns):
            return [self._retry(host, peer[1], client_id, now_ns)]
        key = peer, client_id
        pending = self._pending.get(key)
        if pending is not None:
            # In another order: a path whose queue has no room for all pieces would lose the same one every time.
            pending.accept.append(pending.accept.pop(0))
            return pending.answer(number, now_ns)
        network = network_of(host)
        if key in self._completed or not self._rates.may_begin(network, now_ns):
            return []
        opened = self._security.open_untrusted(initial.security, initial.prologue(), network, now_ns)
        if isinstance(opened, SecurityReply):
            if opened.is_refusal:
                return [packets.encode_refuse(client_id, opened.message)]
            return [packets.encode_retry(client_id, Parameter.SECURITY, opened.message)]
        token = self._validator.return_token(host, now_ns)
        return self._begin_untrusted(peer, network, client_id, opened, token, now_ns).answer(number, now_ns)

    def retry_untrusted(self, datagram: bytes | memoryview, host: bytes, port: int, now_ns: int) -> bytes | None:
        """Return the answer to an INITIAL without a token, or with a made-up one, at the least cost.

        None for any other packet: `handle_initial_untrusted` decides about it.
        """
        if len(datagram) < wire.MIN_DATAGRAM_BYTES or datagram[:1] != _INITIAL or datagram[10:14] != _VERSION:
            return None
        mark = self._validator.marks.of(host)
        if packets.has_token_untrusted(datagram):
            given = token_mark_untrusted(datagram)
            if given is None or given == mark:
                return None
        client_id = int.from_bytes(datagram[2:10], "big")
        token = self._validator.retry_token(host, port, client_id, now_ns, mark)
        retry = packets.encode_retry(client_id, Parameter.TOKEN, token)
        return packets.with_initial_number(retry, packets.initial_number_untrusted(datagram))

    def _retry(self, host: bytes, port: int, client_id: int, now_ns: int) -> bytes:
        token = self._validator.retry_token(host, port, client_id, now_ns)
        return packets.encode_retry(client_id, Parameter.TOKEN, token)

    def _begin_untrusted(
        self,
        peer: PeerAddress,
        host: bytes,
        client_id: int,
        opened: OpenedSecurity[Keys],
        return_token: bytes,
        now_ns: int,
    ) -> _Pending[Keys]:
        """Keep a handshake whose first message has opened."""
        client = packets.decode_client_parameters_untrusted(opened.parameters)
        server = packets.ServerParameters(
            self._random_id(),
            self._limits.datagram_bytes,
            self._limits.data_window,
            return_token,
        )
        accept = packets.encode_accept(client_id, opened.accept(server.encode()))
        give_up_ns = now_ns + PENDING_LIFETIME_NS
        pending = _Pending(peer, host, client_id, server.server_id, client, opened, accept, give_up_ns)
        self._make_room(host)
        self._pending[pending.key] = pending
        self._by_server_id[pending.server_id] = pending
        self._by_host.setdefault(host, OrderedDict())[pending.key] = None
        return pending

    def _make_room(self, host: bytes) -> None:
        if len(self._by_host.get(host, ())) >= MAX_PENDING_PER_HOST:
            victim = host
        elif len(self._pending) >= MAX_PENDING:
            victim = max(self._by_host, key=lambda other: len(self._by_host[other]))
        else:
            return
        self._remove(self._pending[next(iter(self._by_host[victim]))])

    def _remove(self, pending: _Pending[Keys]) -> None:
        del self._pending[pending.key], self._by_server_id[pending.server_id], self._by_host[pending.host][pending.key]
        if not self._by_host[pending.host]:
            del self._by_host[pending.host]

    def handle_finish_untrusted(
        self, datagram: bytes | memoryview, peer: PeerAddress, now_ns: int
    ) -> Established[Keys]:
        """Take a FINISH from `peer`; return the handshake that it finishes. Raises ProtocolError if it is invalid.

        Call `complete` when the connection exists; until then, a repeated FINISH has the same result.
        """
        pending = self._by_server_id.get(wire.connection_id_untrusted(datagram)[1])
        if pending is None or pending.peer != peer:
            raise ProtocolError("FINISH packet without a handshake")
        if pending.established is None:
            keys = pending.opened.finish_untrusted(packets.decode_finish_untrusted(datagram))
            accept_time_ns = pending.accept_times_ns.get(packets.initial_number_untrusted(datagram))
            rtt_ns = None if accept_time_ns is None else now_ns - accept_time_ns
            pending.established = Established(
                pending.client_id, pending.server_id, pending.client, keys, pending.opened.admitted, rtt_ns
            )
        return pending.established

    def complete(self, established: Established[Keys]) -> None:
        """The connection exists: forget its handshake."""
        self._forget(self._by_server_id[established.server_id])

    def _forget(self, pending: _Pending[Keys]) -> None:
        self._remove(pending)
        self._completed[pending.key] = None
        if len(self._completed) > _REMEMBERED:
            self._completed.popitem(last=False)

    def reject(self, server_id: int) -> int:
        """Forget a handshake whose FINISH was not admitted; return the client's connection id."""
        pending = self._by_server_id[server_id]
        self._forget(pending)
        return pending.client_id

    def expire(self, now_ns: int) -> None:
        """Give up the handshakes whose time is over."""
        while self._pending and (oldest := next(iter(self._pending.values()))).give_up_ns <= now_ns:
            self._remove(oldest)

    def poll_timeout(self) -> int | None:
        """When to call `expire`; None for never."""
        return next(iter(self._pending.values())).give_up_ns if self._pending else None
