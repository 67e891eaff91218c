"""Both sides of the handshake of a session's first connection, without I/O: prefaces (`wire`) around `security`.

    client  HELLO(P1) ---> server     only with a code
            <--- RETRY(P2)
            HELLO(M1) --->
            <--- WELCOME(M2)          the token of the session is inside
            FINISH(M3) --->           records, or frames in plaintext, may follow at once

Further connections join with the token, and with a MAC under a key that only the two ends can derive (`Session`).
"""

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn

from toolkit.channel import TransportOptions
from toolkit.errors import ProtocolError, RefusedError
from toolkit.parameters import encode_parameters, grease
from toolkit.security.admission import Admitted
from toolkit.security.handshake import Initiator, Reply, Responder
from toolkit.security.keylog import with_key_log
from toolkit.security.keys import SessionKeys, expand_label
from toolkit.security.opened_handshake import OpenedHandshake
from toolkit.transports.tcp import wire
from toolkit.transports.tcp.records import RecordKeys
from toolkit.transports.tcp.wire import PrefaceRefusal, PrefaceType

_MAX_HELLOS: Final = 2
"""The first message with a code, and the one after the RETRY."""
_REFUSALS: Final[dict[int, str]] = {
    PrefaceRefusal.SESSION: "has no session that waits for another connection; send again",
    PrefaceRefusal.STREAMS: "does not accept this many connections (its `max_streams`); choose fewer with `streams`",
    PrefaceRefusal.BUSY: "has no room for another connection; try again later",
}


@dataclass(frozen=True)
class Session:
    """What the two ends agree on.

    streams:  how many connections the session has
    keys:     None for plaintext
    exporter: a secret of both ends, also with plaintext
    admitted: how the client was admitted
    """

    token: bytes
    streams: int
    keys: SessionKeys | None
    exporter: bytes = field(repr=False)
    admitted: Admitted

    def record_keys(self, number: int, is_client: bool) -> RecordKeys | None:
        """Return the keys of connection `number`, from 0, at one end. Every connection has its own.

        In the key log, the token, the number and the direction (0 for the client's) name them.
        """
        if self.keys is None:
            return None
        keys = self.keys.derive(b"tcp connection %d" % number) if number else self.keys
        name = self.token + number.to_bytes(2, "big")
        client = with_key_log("tcp", name + b"\0", keys.client)
        server = with_key_log("tcp", name + b"\1", keys.server)
        return RecordKeys(client, server) if is_client else RecordKeys(server, client)

    def join(self, number: int) -> wire.Join:
        """Return the request of connection `number`, 1 or more, to join."""
        key = expand_label(self.exporter, "tcp join", self.token)
        return wire.Join(self.token, number, hmac.digest(key, b"join" + number.to_bytes(2, "big"), "sha256"))

    def admits_untrusted(self, join: wire.Join) -> bool:
        """Whether a request comes from the client of this session, for a connection that the session has."""
        is_client = hmac.compare_digest(join.mac, self.join(join.number).mac)
        return is_client and 1 <= join.number < self.streams


class TcpClientHandshake:
    """The connecting side. session: set once the last message was made"""

    def __init__(self, options: TransportOptions) -> None:
        self.session: Session | None = None
        self._credential = options.credential
        self._streams = options.streams
        self._clear = wire.hello_parameters(options.streams, grease(secrets.token_bytes))
        self._initiator = Initiator(
            options.credential,
            wire.prologue(encode_parameters(self._clear)),
            wire.encode_client_parameters(grease(secrets.token_bytes)),
            wants_plaintext=options.plaintext,
        )
        self._hellos = 1

    def first_message(self) -> bytes:
        """Return the HELLO to begin with."""
        return wire.encode_hello(self._clear, self._initiator.first_message())

    def receive_untrusted(self, preface_type: int, body: bytes) -> bytes:
        """Take the server's answer; return what to send next.

        Raises ProtocolError for what no nettool sends, and RefusedError if the server refuses or is not authentic.
        """
        if preface_type == PrefaceType.REFUSED:
            self._raise_refusal_untrusted(body)
        if preface_type not in (PrefaceType.RETRY, PrefaceType.WELCOME):
            raise ProtocolError(f"unexpected preface type {preface_type:#04x}")
        security = wire.decode_security_untrusted(body)
        try:
            if preface_type == PrefaceType.WELCOME:
                return self._finish_untrusted(security)
            if self._hellos == _MAX_HELLOS:
                raise ProtocolError("the receiver asks for the same message again")
            self._hellos += 1
            return wire.encode_hello(self._clear, self._initiator.receive_retry_untrusted(security))
        except ProtocolError as error:
            raise RefusedError(
                f"the receiver's answer is invalid ({error}); check what lies between the hosts"
            ) from error

    def _finish_untrusted(self, security: bytes) -> bytes:
        accepted = self._initiator.receive_accept_untrusted(security)
        versions, token = wire.decode_server_parameters_untrusted(accepted.parameters)
        if wire.best_version(wire.VERSIONS, versions) != wire.VERSION:
            raise ProtocolError("it made both ends use an older version than they could")
        admitted = Admitted(self._credential.method)
        self.session = Session(token, self._streams, accepted.keys, accepted.exporter, admitted)
        return wire.encode_security(PrefaceType.FINISH, accepted.finish)

    def _raise_refusal_untrusted(self, body: bytes) -> NoReturn:
        refused = wire.decode_refused_untrusted(body)
        if refused.reason == PrefaceRefusal.SECURITY:
            self._initiator.receive_accept_untrusted(refused.security)  # raises it
            raise ProtocolError("a refusal of security without a reason")
        raise_refusal_untrusted(body)


class PrefaceRefusedError(RefusedError):
    """A refusal that is not about security. Its text follows the peer's name."""


def raise_refusal_untrusted(body: bytes) -> NoReturn:
    """Raises PrefaceRefusedError for the body of a REFUSED, ProtocolError if it is invalid."""
    reason = wire.decode_refused_untrusted(body).reason
    raise PrefaceRefusedError(
        _REFUSALS.get(reason, f"refuses the connection for reason {reason}; update nettool on this host")
    )


class Answer(NamedTuple):
    """What the server sends back, and whether the connection ends with it."""

    data: bytes
    is_refusal: bool = False


class TcpServerHandshake:
    """The listening side.

    network:     what limits for the client count by (Address.network)
    max_streams: how many connections a session may have
    token:       of the session that begins; None before the WELCOME
    streams:     how many connections that session is to have
    """

    def __init__(self, responder: Responder, network: bytes, max_streams: int) -> None:
        self.token: bytes | None = None
        self.streams = 0
        self._responder = responder
        self._network = network
        self._max_streams = max_streams
        self._opened: OpenedHandshake | None = None
        self._hellos = 0

    @property
    def has_begun(self) -> bool:
        """Whether the client has sent a HELLO."""
        return bool(self._hellos)

    def receive_hello_untrusted(self, body: bytes, now_ns: int) -> Answer:
        """Take a HELLO of this version. Raises ProtocolError."""
        self._hellos += 1
        if self._opened is not None or self._hellos > _MAX_HELLOS:
            raise ProtocolError("the peer sent one HELLO too many")
        hello = wire.decode_hello_untrusted(body)
        if wire.best_version(wire.VERSIONS, hello.versions) != wire.VERSION:
            return Answer(wire.encode_version_refusal(), is_refusal=True)
        if not 1 <= hello.streams <= self._max_streams:
            return Answer(wire.encode_refusal(PrefaceRefusal.STREAMS), is_refusal=True)
        opened = self._responder.open_untrusted(hello.security, wire.prologue(hello.clear), self._network, now_ns)
        if isinstance(opened, Reply):
            if opened.is_refusal:
                return Answer(wire.encode_refusal(PrefaceRefusal.SECURITY, opened.message), is_refusal=True)
            return Answer(wire.encode_security(PrefaceType.RETRY, opened.message))
        wire.decode_client_parameters_untrusted(opened.parameters)
        self._opened = opened
        self.streams = hello.streams
        self.token = secrets.token_bytes(wire.TOKEN_BYTES)
        sealed = wire.encode_server_parameters(self.token, grease(secrets.token_bytes))
        return Answer(wire.encode_security(PrefaceType.WELCOME, opened.accept(sealed), grease(secrets.token_bytes)))

    def receive_finish_untrusted(self, body: bytes) -> Session:
        """Take the FINISH. Raises ProtocolError, CodeEndedError if the code has ended meanwhile."""
        opened = self._opened
        if opened is None or self.token is None:
            raise ProtocolError("the peer sent a FINISH before a HELLO")
        keys = opened.finish_untrusted(wire.decode_security_untrusted(body))
        return Session(self.token, self.streams, keys, opened.exporter, opened.admitted)
