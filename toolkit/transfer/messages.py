"""The messages of a session: one canonical binary encoding, written once.

Integers are in network byte order. A message begins with its type (one byte); what has a variable length is
preceded by its length; nothing may follow. The encoding is canonical: a message that decodes encodes to the
same bytes. Whatever does not decode raises ProtocolError, and nothing else.

    BEGIN   ->   version, digest algorithm, totals if known
    OFFER   ->   a group of entries; file ids count up from 0 over all groups
            <-   ACCEPT  what is taken of a group
    HOLE    ->   a range of a file that is zeros and not sent
    DIGESTS ->   final sizes and digests of files that were sent
            <-   RESULT  what became of the entries of a group
    END     ->   no more groups
            <-   DONE    everything was dealt with
    ERROR   <->  the session ends here, and why
    ALIVE   <->  nothing, so that a wait is not taken for a loss
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Protocol

from toolkit.errors import ProtocolError
from toolkit.transfer.digest import ALGORITHMS, Algorithm, algorithm_by_number_untrusted
from toolkit.transfer.manifest import MAX_GROUP_ENTRIES, MAX_HOLE_BYTES, MAX_SIZE_BYTES, Entry
from toolkit.transfer.reader import MessageReader, encode_text

SESSION_VERSION = 1
UNKNOWN_TOTAL = 2**64 - 1


class MessageType(IntEnum):
    """The first byte of every message."""

    BEGIN = 1
    OFFER = 2
    ACCEPT = 3
    HOLE = 4
    DIGESTS = 5
    RESULT = 6
    END = 7
    DONE = 8
    ERROR = 9
    ALIVE = 10


class EntryStatus(IntEnum):
    """What becomes of an entry: the first two in an ACCEPT, all of them in a RESULT."""

    OK = 0  # accepted (in an ACCEPT), or verified under its final name (in a RESULT)
    REFUSED = 1
    MISMATCHED = 2  # its digest is not the sender's
    FAILED = 3  # could not be stored


class ErrorReason(IntEnum):
    """Why a session ends with an ERROR."""

    FAILED = 0
    VERSION = 1
    REFUSED = 2
    PROTOCOL = 3
    CANCELLED = 4


class Message(Protocol):
    """What each message below is."""

    TYPE: ClassVar[MessageType]

    def encode(self) -> bytes:
        """The whole message, type first."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The sender's first message. The fields after the version are those of this version."""

    TYPE: ClassVar = MessageType.BEGIN
    _LAYOUT: ClassVar = struct.Struct("!BQQ")
    _VERSION: ClassVar = struct.Struct("!H")

    algorithm: Algorithm = ALGORITHMS[0]
    total_files: int | None = None
    total_bytes: int | None = None
    version: int = SESSION_VERSION

    def encode(self) -> bytes:
        """See Message."""
        files, total = (UNKNOWN_TOTAL if n is None else n for n in (self.total_files, self.total_bytes))
        head = bytes([self.TYPE]) + self._VERSION.pack(self.version)
        return head + self._LAYOUT.pack(self.algorithm.number, files, total)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Begin":
        (version,) = reader.fields(cls._VERSION)
        if version != SESSION_VERSION:
            return cls(version=version)  # of another version only this much is understood
        number, files, total = reader.fields(cls._LAYOUT)
        reader.finish()
        known = [None if n == UNKNOWN_TOTAL else n for n in (files, total)]
        return cls(algorithm_by_number_untrusted(number), known[0], known[1])


@dataclass(frozen=True, slots=True)
class Offer:
    """A group of entries, numbered from 0; at most MAX_GROUP_ENTRIES, at least one."""

    TYPE: ClassVar = MessageType.OFFER
    _LAYOUT: ClassVar = struct.Struct("!IH")

    group: int
    entries: tuple[Entry, ...]

    def encode(self) -> bytes:
        """See Message."""
        head = bytes([self.TYPE]) + self._LAYOUT.pack(self.group, len(self.entries))
        return head + b"".join(entry.encode() for entry in self.entries)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Offer":
        group, count = reader.fields(cls._LAYOUT)
        _check_count(count)
        entries = tuple(Entry.decode_untrusted(reader) for _ in range(count))
        reader.finish()
        return cls(group, entries)


@dataclass(frozen=True, slots=True)
class EntryOutcome:
    """What becomes of one entry, and why where it was not taken."""

    status: EntryStatus
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Accept:
    """For each entry of a group, whether the receiver takes it (TAKEN or REFUSED)."""

    TYPE: ClassVar = MessageType.ACCEPT

    group: int
    outcomes: tuple[EntryOutcome, ...]

    def encode(self) -> bytes:
        """See Message."""
        return _encode_outcomes(self.TYPE, self.group, self.outcomes)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Accept":
        group, outcomes = _decode_outcomes(reader)
        if any(outcome.status > EntryStatus.REFUSED for outcome in outcomes):
            raise ProtocolError("the peer gives results where it was asked for decisions")
        return cls(group, outcomes)


@dataclass(frozen=True, slots=True)
class Result:
    """For each entry of a group, what became of it; sent once all of them are decided, in the order of the
    groups.
    """

    TYPE: ClassVar = MessageType.RESULT

    group: int
    outcomes: tuple[EntryOutcome, ...]

    def encode(self) -> bytes:
        """See Message."""
        return _encode_outcomes(self.TYPE, self.group, self.outcomes)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Result":
        return cls(*_decode_outcomes(reader))


@dataclass(frozen=True, slots=True)
class Hole:
    """A range of a file, at most MAX_HOLE_BYTES, that holds nothing but zeros and is not sent."""

    TYPE: ClassVar = MessageType.HOLE
    _LAYOUT: ClassVar = struct.Struct("!IQQ")

    file_id: int
    offset: int
    length: int

    def encode(self) -> bytes:
        """See Message."""
        return bytes([self.TYPE]) + self._LAYOUT.pack(self.file_id, self.offset, self.length)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Hole":
        file_id, offset, length = reader.fields(cls._LAYOUT)
        reader.finish()
        if not 0 < length <= MAX_HOLE_BYTES or offset + length > MAX_SIZE_BYTES:
            raise ProtocolError("the peer tells of an impossible hole")
        return cls(file_id, offset, length)


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The final size of a file in bytes, and its digest."""

    file_id: int
    size_bytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of files whose content was handed over; all of one length, at most MAX_GROUP_ENTRIES, at least
    one.
    """

    TYPE: ClassVar = MessageType.DIGESTS
    _LAYOUT: ClassVar = struct.Struct("!HB")
    _FILE: ClassVar = struct.Struct("!IQ")

    files: tuple[FileDigest, ...]

    def encode(self) -> bytes:
        """See Message."""
        head = bytes([self.TYPE]) + self._LAYOUT.pack(len(self.files), len(self.files[0].digest))
        return head + b"".join(self._FILE.pack(f.file_id, f.size_bytes) + f.digest for f in self.files)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Digests":
        count, digest_bytes = reader.fields(cls._LAYOUT)
        _check_count(count)
        if digest_bytes not in {a.digest_bytes for a in ALGORITHMS}:
            raise ProtocolError("the peer sends a digest of an impossible length")
        files = []
        for _ in range(count):
            file_id, size_bytes = reader.fields(cls._FILE)
            files.append(FileDigest(file_id, size_bytes, reader.octets(digest_bytes)))
        reader.finish()
        return cls(tuple(files))


@dataclass(frozen=True, slots=True)
class End:
    """No more groups come; so many entries were offered."""

    TYPE: ClassVar = MessageType.END
    _LAYOUT: ClassVar = struct.Struct("!Q")

    entries: int

    def encode(self) -> bytes:
        """See Message."""
        return bytes([self.TYPE]) + self._LAYOUT.pack(self.entries)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "End":
        (entries,) = reader.fields(cls._LAYOUT)
        reader.finish()
        return cls(entries)


@dataclass(frozen=True, slots=True)
class Done:
    """Every entry was dealt with; so many files and bytes stand verified under their names."""

    TYPE: ClassVar = MessageType.DONE
    _LAYOUT: ClassVar = struct.Struct("!QQ")

    files: int
    size_bytes: int

    def encode(self) -> bytes:
        """See Message."""
        return bytes([self.TYPE]) + self._LAYOUT.pack(self.files, self.size_bytes)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Done":
        files, size_bytes = reader.fields(cls._LAYOUT)
        reader.finish()
        return cls(files, size_bytes)


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """The session has failed at the end that sends this. Nothing follows."""

    TYPE: ClassVar = MessageType.ERROR
    _LAYOUT: ClassVar = struct.Struct("!BH")

    reason: ErrorReason
    text: str

    def encode(self) -> bytes:
        """See Message."""
        text = encode_text(self.text)
        return bytes([self.TYPE]) + self._LAYOUT.pack(self.reason, len(text)) + text

    @classmethod
    def _decode(cls, reader: MessageReader) -> "ErrorMessage":
        reason, length = reader.fields(cls._LAYOUT)
        text = reader.text(length)
        reader.finish()
        try:
            return cls(ErrorReason(reason), text)
        except ValueError as error:
            raise ProtocolError("the peer ended the session for an unknown reason") from error


@dataclass(frozen=True, slots=True)
class Alive:
    """The sender of this is busy, and there."""

    TYPE: ClassVar = MessageType.ALIVE

    def encode(self) -> bytes:
        """See Message."""
        return bytes([self.TYPE])

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Alive":
        reader.finish()
        return cls()


AnyMessage = Begin | Offer | Accept | Hole | Digests | Result | End | Done | ErrorMessage | Alive

_DECODERS: dict[int, Callable[[MessageReader], AnyMessage]] = {
    message.TYPE: message._decode
    for message in (Begin, Offer, Accept, Hole, Digests, Result, End, Done, ErrorMessage, Alive)
}


def decode_untrusted(data: bytes) -> AnyMessage:
    """The message in `data`. Raises ProtocolError."""
    decoder = _DECODERS.get(data[0]) if data else None
    if decoder is None:
        raise ProtocolError("the peer sent a message of an unknown type")
    return decoder(MessageReader(data, 1))


_OUTCOMES = struct.Struct("!IH")
_OUTCOME = struct.Struct("!BB")


def _encode_outcomes(kind: MessageType, group: int, outcomes: tuple[EntryOutcome, ...]) -> bytes:
    parts = [bytes([kind]), _OUTCOMES.pack(group, len(outcomes))]
    for outcome in outcomes:
        reason = encode_text(outcome.reason)
        parts += (_OUTCOME.pack(outcome.status, len(reason)), reason)
    return b"".join(parts)


def _decode_outcomes(reader: MessageReader) -> tuple[int, tuple[EntryOutcome, ...]]:
    group, count = reader.fields(_OUTCOMES)
    _check_count(count)
    outcomes = []
    for _ in range(count):
        status, length = reader.fields(_OUTCOME)
        if status > max(EntryStatus):
            raise ProtocolError("the peer gives an unknown result")
        outcomes.append(EntryOutcome(EntryStatus(status), reader.text(length)))
    reader.finish()
    return group, tuple(outcomes)


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_GROUP_ENTRIES:
        raise ProtocolError("the peer sent a list of an impossible length")
