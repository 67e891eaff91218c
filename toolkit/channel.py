"""The interface between file transfer and transports: Transport, Listener, Channel, and the sources and sinks they use.

A byte stream would be the wrong common ground of TCP and UDP: it would deny TCP `sendfile`, and it would make UDP wait
for the oldest gap. A **Channel** carries two things instead:

- *messages*: reliable, in order, at most MAX_MESSAGE_BYTES each, in both directions: offers, decisions, digests;
- *extents*: `(file id, offset, length)`, content that the sending side reads from an `ExtentSource`. The receiving
  side writes it to an `ExtentSink` at its own offset, in any order, every byte exactly once.

Messages and extents are not ordered relative to each other: either may overtake the other. To know that content is
complete, count the bytes that the sink has received.

Threads. A channel belongs to one thread, and its calls block. It calls nothing but its source and its sink: from the
calling thread or, in a transport with several connections, from one thread per connection. Sources and sinks are
therefore safe for concurrent use, except where noted.

Units. Sizes and offsets are in bytes, `*_s` is in seconds (float), `*_bps` in bits per second. The clock is
`time.monotonic`.

Errors. All are from `toolkit.errors`. A channel raises PeerClosedError when the peer has closed the session or is
lost, and ProtocolError for bytes that no correct peer sends.

Order of calls, sender:    connect -> send_message / send_extent / receive ... -> flush -> close
Order of calls, receiver:  Listener.accept -> receive ... / send_message ... -> close
"""

import ipaddress
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from toolkit.errors import UsageError
from toolkit.security.admission import Admission, Admitted, OpenAdmission
from toolkit.security.credentials import Credential, NoCredential
from toolkit.security.host_rates import network_of
from toolkit.units import check_sending_rate

MAX_MESSAGE_BYTES = 1 << 18

WAIT_CHECK_S = 0.25
"""How often a channel calls what `Channel.check_while_waiting` was given."""

MAX_LINGER_S = 300.0
"""How long `Channel.close` waits for a peer that acknowledges a little now and then, unless `linger_s` is longer."""

MIN_IDLE_TIMEOUT_S = 1.0
"""The smallest idle timeout that a user may choose: below it, a busy disk looks like a lost peer."""
MAX_IDLE_TIMEOUT_S = 86_400.0
"""One day: systems count milliseconds in 31 bits (poll(2), TCP_USER_TIMEOUT in tcp(7))."""

DEFAULT_CONNECT_TIMEOUT_S = 20.0
"""Three round trips of 6 s: the handshake with a code takes as many."""

Statistic = int | float | str

_NO_CREDENTIAL, _OPEN = NoCredential(), OpenAdmission()


class Extent(NamedTuple):
    """`length` bytes of the file `file_id`, starting at `offset`.

    file_id: chosen by the sender in its manifest, less than 2**32
    offset, length: in bytes; their sum is less than 2**63. An extent of length 0 is allowed and writes nothing.
    """

    file_id: int
    offset: int
    length: int


class Address(NamedTuple):
    """An endpoint as a user writes it.

    host: a host name, or a literal IPv4 or IPv6 address without brackets; "" for every address of this machine
    port: 0 to 65535; 0 lets the system choose one when listening
    """

    host: str
    port: int

    @property
    def network(self) -> bytes:
        """What limits for each host count by: see `toolkit.security.host_rates`. The host itself if it is a name."""
        try:
            ip = ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return self.host.encode()
        return network_of(ip.packed)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is a numeric loopback address; False for a name."""
        try:
            ip = ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ExtentSource(Protocol):
    """The content of one file, for a channel that sends it. Safe for concurrent use."""

    def fileno(self) -> int | None:
        """Return a descriptor open for reading, for `sendfile`; None if the content is in no file.

        The descriptor stays valid until every extent that was handed over is released.
        """

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill all of `buffer` with the bytes from `offset` on. May be called again for the same bytes.

        If the file no longer holds them, because it shrank or changed, a source may fill in anything or raise
        TransferError. The latter ends the session.
        """

    def on_sendfile(self, offset: int, length: int) -> None:
        """The channel has sent these bytes from the descriptor, without `read_into`.

        The source reads them itself if it computes a digest.
        """

    def release(self, extent: Extent) -> None:
        """The channel no longer needs this extent. Called exactly once for each `send_extent`."""


class ExtentSink(Protocol):
    """Takes the content that a channel receives. Safe for concurrent use."""

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        """Write `data` to a file at `offset`. The buffer is reused after the call returns.

        Calls come in any order, and each byte at most once. Raises ProtocolError for bytes that the peer did not
        offer, TransferError if they cannot be written.
        """


@runtime_checkable
class DescriptorSink(ExtentSink, Protocol):
    """A sink whose files the channel may also write by itself, with `splice`.

    Only the channel's own thread calls the two methods below.
    """

    def descriptor(self, file_id: int, offset: int, length: int) -> int | None:
        """Return a descriptor to write these bytes to, at `offset`; None if they must go through `write`.

        The descriptor is valid until the next call of the sink or the session. Raises as `write` does.
        """

    def on_spliced(self, file_id: int, offset: int, length: int) -> None:
        """The channel has written these bytes to the descriptor. They are the first of the bytes that it was for.

        The sink reads them back if it computes a digest. Raises as `write` does.
        """


class Channel(Protocol):
    """One session with one peer. Belongs to one thread."""

    @property
    def peer(self) -> Address:
        """The peer's numeric host and port."""

    @property
    def admitted(self) -> Admitted:
        """How the connecting side was admitted."""

    def send_message(self, message: bytes, has_more: bool = False) -> None:
        """Send one message; returns once it is buffered or sent.

        has_more: another call follows at once, and the message may wait for it, to share a packet

        A call that waits for room, here or in `send_extent`, meanwhile reads messages and keeps them for `receive`:
        two peers that both send cannot block each other.

        Raises PeerClosedError, and ValueError for more than MAX_MESSAGE_BYTES.
        """

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        """Send content; returns once the send backlog has room again, so that progress reports are close to the truth.

        The channel reads from `source` until it calls `source.release(extent)`, also if it fails.

        Raises PeerClosedError, and what the source raises. After an error of the source, messages still get through:
        the session uses one to tell the peer why. What the peer's sink receives of that extent is then undefined.
        """

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        """Return the next message; None once `sink` has received content, `timeout_s` is over or `wake` is readable.

        sink:      where content goes; content without a sink is a ProtocolError
        timeout_s: 0 does not wait; None waits until the idle timeout, which counts the peer's silence over all calls
        wake:      a descriptor that ends the wait when it is readable

        While it waits, the channel continues to send what it still has.

        Raises what the sink raises, ProtocolError, and PeerClosedError once every message from before the peer's end
        was returned.
        """

    def file_access(self) -> AbstractContextManager[object]:
        """A context for a block in which the calling thread uses files, and calls nothing of this channel.

        If that takes long, the peer learns meanwhile that this side is there (`toolkit.transports.keep_alive`).
        """

    def check_while_waiting(self, check: Callable[[], None]) -> None:
        """Call `check` every WAIT_CHECK_S or more often while a call that sends or flushes waits for the peer.

        What it raises ends that call, but not the session: what was handed over is still sent, and messages get
        through. TCP first finishes the frame that it sends, if the peer takes it within 10 s; otherwise, the call ends
        with the connection.
        """

    def flush(self) -> None:
        """Wait until the peer's transport (UDP) or the kernel (TCP) has all that was sent, and all is released.

        Raises PeerClosedError, and what a source raises.
        """

    def close(self, linger_s: float | None = None) -> None:
        """End the session in an orderly way and free everything. Idempotent.

        What was sent before still arrives, if the peer takes it within a bounded time. What the peer sends meanwhile
        is discarded, so that the last message, which may explain the end, reaches a peer that is busy sending.

        linger_s: how long to wait for a peer that acknowledges nothing new; None is one or two seconds, and longer on
                  a long path. For one that does, MAX_LINGER_S or `linger_s`, whichever is longer
        """

    def abort(self) -> None:
        """End the session at once and free everything; the peer gets PeerClosedError. Idempotent."""

    @property
    def acknowledged_bytes(self) -> int:
        """How much of the content that was sent the peer's system has acknowledged. Any thread may ask."""

    def statistics(self) -> Mapping[str, Statistic]:
        """Return counters by their JSON names: those of COMMON_STATISTICS and the transport's own.

        May be called after `close` and `abort`.
        """


COMMON_STATISTICS = (
    "packets_sent",
    "packets_retransmitted",
    "rtt_ms",  # smoothed, at the time of the call
    "rtt_min_ms",
    "congestion_control",
    "encryption",  # the AEAD, a value of `toolkit.security.keys.AeadName`; "none" for a session in plaintext
    "authentication",  # the name of `Channel.admitted.method`, in small letters
)
"""The names in `Channel.statistics` that every transport provides."""


class Listener(Protocol):
    """A bound port that accepts sessions."""

    @property
    def address(self) -> Address:
        """The bound address, with the port that the system chose if port 0 was requested."""

    def accept(self, timeout_s: float | None = None) -> Channel | None:
        """Return the next session whose handshake is complete; None after `timeout_s`.

        timeout_s: 0 does not wait; None waits without limit.

        Raises PeerClosedError after `close`, also if another thread called it meanwhile.
        """

    def close(self) -> None:
        """Stop listening. Accepted channels stay open. Idempotent; any thread may call it."""


@dataclass(frozen=True, slots=True)
class PeerProgram:
    """The program that a connecting side expects at the other end, to advise a user who does not find it there.

    command:         such as "nettool recv"
    for_the_network: the options with which other machines reach it
    """

    command: str
    for_the_network: str


RECEIVER = PeerProgram("nettool recv", "--bind 0.0.0.0 --dir DIR")


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """A user's choices; a transport raises UsageError for those that it does not support.

    congestion_control: the name of an algorithm; None for the transport's default
    rate_bps:           the maximum sending rate, in bits of payload per second, from 8 to 1e15; None for no limit
    streams:            TCP, connect: the number of connections of the session
    max_streams:        TCP, listen: the most connections that a session may have
    offload:            UDP: "auto" uses GSO and GRO if the system has them, "off" one datagram per system call
    connect_timeout_s:  how long to wait for a peer to accept the session
    silence_timeout_s:  UDP, connect: how long to wait for a first sign of the peer; None for connect_timeout_s
    idle_timeout_s:     the silence after which the peer is considered lost, at most MAX_IDLE_TIMEOUT_S
    qlog:               UDP: the file to log each connection to, see docs/protocol.md; None for no log
    credential:         connect: what proves to the receiver that this sender may come in
    admission:          listen: whom to let in
    remembers_paths:    UDP, connect: start with what earlier sessions have learned about the path, and keep what this
                        one learns
    returns_tokens:     UDP, connect: save a round trip with the token of an earlier session, and keep the one of this
    plaintext:          connect: ask for a session without encryption; listen: allow such sessions
    backlog_bytes:      connect: how much content a send may leave unsent in this host, besides what fills the path;
                        None for the transport's default, which favours throughput
    peer_program:       connect: what should listen there, for the user whose connection fails

    Raises UsageError for a rate or an idle timeout out of range.
    """

    congestion_control: str | None = None
    rate_bps: float | None = None
    streams: int = 1
    max_streams: int = 16
    offload: str = "auto"
    connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S
    silence_timeout_s: float | None = None
    idle_timeout_s: float = 30.0
    qlog: str | None = None
    credential: Credential = _NO_CREDENTIAL
    admission: Admission = _OPEN
    plaintext: bool = False
    backlog_bytes: int | None = None
    remembers_paths: bool = False
    returns_tokens: bool = True
    peer_program: PeerProgram = RECEIVER

    def __post_init__(self) -> None:
        if not 0 < self.idle_timeout_s <= MAX_IDLE_TIMEOUT_S:
            raise UsageError(f"an idle timeout of {self.idle_timeout_s:g} s is not possible: choose one up to 24h")
        if self.rate_bps is not None:
            check_sending_rate(self.rate_bps)


class Transport(Protocol):
    """A way to make channels. `toolkit.transports.registry` finds one by its name."""

    name: str

    def connect(self, address: Address, options: TransportOptions) -> Channel:
        """Connect to the listener at `address`.

        Raises UnreachableError if none answers, RefusedError if it declines (another version, a wrong code),
        CredentialRequiredError if it asks for a code or key and `options` has none, UsageError for options that the
        transport does not support.
        """

    def listen(self, address: Address, options: TransportOptions) -> Listener:
        """Bind `address` and listen.

        Raises UnreachableError if the address cannot be bound, UsageError for options that the transport does not
        support.
        """
