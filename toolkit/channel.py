"""What a transport must offer: the common ground of TCP and UDP.

A byte stream would be the wrong common ground: it would deny TCP `sendfile`, and would make UDP wait for the
oldest hole. A **Channel** carries two things instead:

- *messages*: small (at most MAX_MESSAGE_BYTES), reliable, in order, each way: offers, decisions, digests;
- *extents*: `(file id, offset, length)`, content that the sending side reads from an `ExtentSource` and the
  receiving side lands in an `ExtentSink` at its own offset, in any order, every byte exactly once.

Extents and messages are not ordered among each other: a message may overtake an extent that was handed over
before it, and the other way round. Whoever needs to know that content is complete counts the bytes that have
landed.

A channel belongs to one thread. Its calls block; there are no callbacks other than into source and sink, and
those come from the calling thread or, in a transport with several streams, from one thread a stream: sources
and sinks are safe for that. Time is `time.monotonic_ns`.

Call order, sending side:    connect -> send_message / send_extent / receive ... -> flush -> close
Call order, receiving side:  Listener.accept -> receive ... / send_message ... -> close
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from toolkit.errors import UsageError

MAX_MESSAGE_BYTES = 1 << 18

MIN_IDLE_TIMEOUT_S = 1.0  # the least that a user may ask for: under it a busy disk looks like a peer that is gone
MAX_IDLE_TIMEOUT_S = 86_400.0  # a day; systems count milliseconds in 31 bits (poll(2), TCP_USER_TIMEOUT in tcp(7))

Statistic = int | float | str


class Extent(NamedTuple):
    """`length` bytes of file `file_id` from `offset` on.

    The id is the sender's, from its manifest, and less than 2**32; `offset + length` is less than 2**63
    (bytes). An extent may be empty: nothing lands then.
    """

    file_id: int
    offset: int
    length: int


class Address(NamedTuple):
    """An end as a user writes it: a host name or a literal IPv4 or IPv6 address (no brackets), and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ExtentSource(Protocol):
    """Where a sending channel gets the bytes of one file from; safe for several threads."""

    def fileno(self) -> int | None:
        """A descriptor open for reading, for `sendfile`; valid until the extents handed over are released.

        None where the content is in no file: `read_into` has it.
        """

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` from `offset`. May be asked again for the same bytes (retransmission).

        Raises TransferError when the file no longer holds them (it shrank or changed).
        """

    def moved(self, offset: int, length: int) -> None:
        """Bytes went out through `fileno`, not `read_into`: the source reads them for its digest."""

    def release(self, extent: Extent) -> None:
        """The channel will not ask for this extent's bytes again. Called once per extent handed over."""


class ExtentSink(Protocol):
    """Where a receiving channel lands what arrives."""

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        """Land `data`, and have read it on return; each byte lands at most once, the order is free.

        Raises ProtocolError for bytes that were never offered, TransferError where they cannot be written.
        """


@runtime_checkable
class DescriptorSink(ExtentSink, Protocol):
    """A sink whose files a channel may also write to by itself, with `splice`."""

    def descriptor(self, file_id: int, offset: int, length: int) -> int | None:
        """Where to put these bytes at `offset`; valid until the next call into the sink or the session.

        None where they have to come by `write`. Called by the session's own thread only. Raises as `write` does.
        """

    def landed(self, file_id: int, offset: int, length: int) -> None:
        """Some more of the bytes, in order, are in the file: the sink reads them for its digest."""


class Channel(Protocol):
    """One session with one peer."""

    @property
    def peer(self) -> Address:
        """Who is at the other end."""

    def send_message(self, message: bytes) -> None:
        """Hand over one message; returns when it is buffered or gone. Raises PeerClosedError.

        A call that has to wait for room, here or in `send_extent`, takes in messages meanwhile and keeps them
        for `receive`: two ends that both send cannot block each other.
        """

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        """Hand over content; returns when the backlog has room again, so that progress is near the truth.

        Reads `source` until it has called `source.release(extent)`. Raises what the source raises (after
        telling the peer nothing: the session does), and PeerClosedError. After an error of the source
        messages still go through, for the session to say why; what lands of that extent at the other end is
        then undefined.
        """

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        """The next message; or None after some extents have landed in `sink`, when `timeout_s` has passed, or as
        soon as the descriptor `wake` is readable.

        `timeout_s` 0 looks and does not wait; None waits until the idle timeout of the channel, which counts
        the peer's silence over all calls. While it waits, a channel goes on with whatever it still has to
        send. Extents without a sink are a ProtocolError. Raises what the sink raises, and PeerClosedError
        when the peer has closed or is lost and every message before that was returned.
        """

    def flush(self) -> None:
        """Return when everything handed over was taken by the peer's transport (UDP) or the kernel (TCP)."""

    def close(self) -> None:
        """Orderly end: what was handed over still arrives (in a bounded linger). Frees all; idempotent.

        What the peer still sends meanwhile is taken and thrown away, so that the last message, which may be
        the reason for the end, gets through to a peer that is in the middle of sending.
        """

    def abort(self) -> None:
        """End at once, freeing everything; the peer sees PeerClosedError. Idempotent."""

    def statistics(self) -> Mapping[str, Statistic]:
        """Counters by their JSON names: the common ones of `COMMON_STATISTICS` and the transport's own."""


COMMON_STATISTICS = (
    "packets_sent",
    "packets_retransmitted",
    "rtt_ms",  # smoothed, at the end
    "rtt_min_ms",
    "congestion_control",
)


class Listener(Protocol):
    """A bound port that hands out one Channel per session."""

    @property
    def address(self) -> Address:
        """Where it listens, with the port that the system picked when 0 was asked for."""

    def accept(self, timeout_s: float | None = None) -> Channel | None:
        """The next session, after the transport's own handshake (no garbage); None at the timeout.

        Raises PeerClosedError after `close`, which may come from another thread.
        """

    def close(self) -> None:
        """Stop listening; channels that were accepted go on. Idempotent, and callable from any thread."""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """What a user may set; a transport refuses with UsageError what it cannot do.

    congestion_control: the name of one, None for the transport's default
    rate_bps:           an upper bound on the sending rate (bits of payload per second), None for no bound
    streams:            connections per session
    offload:            UDP: "auto" probes GSO and GRO, "off" sends and takes one datagram a call
    connect_timeout_s:  until somebody must have answered
    idle_timeout_s:     silence after which the peer is lost; above 0 and up to MAX_IDLE_TIMEOUT_S
    qlog:               UDP: the file that each connection is logged to, see docs/protocol.md; None for no log
    """

    congestion_control: str | None = None
    rate_bps: float | None = None
    streams: int = 1
    offload: str = "auto"
    connect_timeout_s: float = 5.0
    idle_timeout_s: float = 30.0
    qlog: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.idle_timeout_s <= MAX_IDLE_TIMEOUT_S:
            raise UsageError(f"an idle timeout of {self.idle_timeout_s:g} s is not possible: choose one up to 24h")


class Transport(Protocol):
    """A way to make channels; chosen by name in `toolkit.transports.registry`."""

    name: str

    def connect(self, address: Address, options: TransportOptions) -> Channel:
        """A channel to who listens there. Raises UnreachableError, UsageError, RefusedError (version)."""

    def listen(self, address: Address, options: TransportOptions) -> Listener:
        """Bind and listen; "" means every address, port 0 one of the system's. Raises UnreachableError."""
