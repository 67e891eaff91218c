"""What happens while files are sent or received: typed events, which `on_event` gets one by one.

Sessions are numbered from 1: a sender that reconnects begins another one, and a receiver may run several at once. An
event of a session comes from the thread that runs it, `SessionProgress` of a sender from another one. What `on_event`
raises ends the session, and reaches the caller; what it raises at Listening, NewCode, CodeEnded or SessionEnded ends
the receiver. A code is kept out of `repr`, so that no log holds it; `str` shows it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from toolkit.api.results import SessionResult
from toolkit.channel import Address, Statistic
from toolkit.errors import PeerClosedError
from toolkit.transfer.manifest import EntryKind
from toolkit.transfer.messages import EntryStatus
from toolkit.transfer.result import EntryResult, Progress


@dataclass(frozen=True, slots=True)
class Listening:
    """A receiver can be reached.

    code: what a sender has to give; None if the receiver asks for no code
    """

    address: Address
    transports: tuple[str, ...]
    code: str | None = field(repr=False)

    def __str__(self) -> str:
        code = "" if self.code is None else f"; code: {self.code}"
        return f"listening on {self.address} ({', '.join(self.transports)}){code}"


@dataclass(frozen=True, slots=True)
class NewCode:
    """A receiver asks the next sender for this code; the one before is no longer valid."""

    code: str = field(repr=False)

    def __str__(self) -> str:
        return f"code: {self.code}"


@dataclass(frozen=True, slots=True)
class CodeEnded:
    """A code is no longer valid.

    nameplate: its number, which is no secret
    is_used:   whether it has admitted its sessions; otherwise it has ended after three wrong tries
    """

    nameplate: int
    is_used: bool


@dataclass(frozen=True, slots=True)
class UdpBlocked:
    """UDP does not reach the receiver: the sender has connected over TCP."""

    receiver: Address


@dataclass(frozen=True, slots=True)
class SessionBegan:
    """A session has begun.

    statistics: returns those of the connection so far, by the names of docs/data-format.md; any thread may ask, until
                the session has ended
    is_proven:  whether a code, a key or its being on this machine shows who the peer of a sender is
    """

    session: int
    transport: str
    peer: Address
    statistics: Callable[[], Mapping[str, Statistic]] = field(repr=False, compare=False)
    is_proven: bool = True


@dataclass(frozen=True, slots=True)
class SessionProgress:
    """How far a session has got; a few times a second."""

    session: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class FileDone:
    """What has become of one file.

    name:      as offered by the sender
    status:    OK: it is verified, under its name; UNCHANGED: the receiver had it; otherwise it has not arrived
    reason:    why it has not arrived
    digest:    in hexadecimal; "" if it has not arrived
    """

    session: int
    name: str
    status: EntryStatus
    size_bytes: int
    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection was lost, and the sender tries again after a pause."""

    error: PeerClosedError
    pause_s: float


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A session of a receiver has ended.

    error:        why it failed; None if it has not
    is_continued: whether a newer session of its sender has continued this one
    retry_s:      how long the receiver waits for the sender to come back; 0 if it does not
    """

    session: int
    result: SessionResult
    error: Exception | None
    is_continued: bool = False
    retry_s: float = 0.0


Event = (
    Listening
    | NewCode
    | CodeEnded
    | UdpBlocked
    | SessionBegan
    | SessionProgress
    | FileDone
    | Reconnecting
    | SessionEnded
)
EventCallback = Callable[[Event], object]


def file_done(session: int, result: EntryResult) -> FileDone | None:
    """The event for the outcome of an entry; None for a directory or a link."""
    entry, outcome = result.entry, result.outcome
    if entry.kind is not EntryKind.FILE:
        return None
    return FileDone(session, entry.name, outcome.status, result.size_bytes, result.digest.hex(), outcome.reason)
