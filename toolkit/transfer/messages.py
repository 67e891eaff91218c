"""The messages of a session, in one canonical binary encoding.

Integers are in network byte order. A message begins with its type (one byte). A field of variable length follows its
length. BEGIN, OFFER and ACCEPT end with parameters (toolkit/parameters.py), of which a reader ignores those that it
does not know; docs/protocol.md lists them. One that is reserved to be unknown is always among them. Nothing may follow
the last field of the other messages. The encoding is canonical: a message that decodes encodes to the same bytes, up to
the order of its parameters. Bytes that do not decode raise ProtocolError and nothing else.

    BEGIN   ->   version, digest algorithm, totals if known
    OFFER   ->   a group of entries; file ids count up from 0 over all groups
            <-   ACCEPT  which entries of a group are accepted
    CHUNKS  ->   digests of chunks that the receiver holds of a file (chunks.py)
            <-   KEPT    which of them are the same, and are not sent
    HOLE    ->   a range of a file that is zeros and is not sent
    DIGESTS ->   final sizes and digests of files that were sent
    WITHDRAW <-> an accepted file is given up by this end, and why
            <-   RESULT  the outcome of every entry of a group
    END     ->   no more groups
            <-   DONE    every entry has an outcome
    ERROR   <->  the session ends here, and why
    ALIVE   <->  nothing; shows that the sender of the message still runs
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

from toolkit.errors import ProtocolError
from toolkit.parameters import encode_parameters
from toolkit.transfer.chunks import Chunks, Kept
from toolkit.transfer.digest import ALGORITHMS, Algorithm, algorithm_by_number_untrusted
from toolkit.transfer.manifest import MAX_GROUP_ENTRIES, MAX_HOLE_BYTES, MAX_SIZE_BYTES, Entry
from toolkit.transfer.message_types import MessageType
from toolkit.transfer.reader import MessageReader, encode_text

SESSION_VERSION = 2
UNKNOWN_TOTAL = 2**64 - 1


class EntryStatus(IntEnum):
    """The status of an entry. An ACCEPT has only OK, REFUSED and UNCHANGED."""

    OK = 0  # accepted (in an ACCEPT), or verified under its final name (in a RESULT)
    REFUSED = 1
    MISMATCHED = 2  # the digest differs from the sender's
    FAILED = 3  # the receiver could not store it
    UNCHANGED = 4  # the receiver has it already (comparison.py); only if the BEGIN asked for that


class ErrorReason(IntEnum):
    """Why a session ends with ERROR."""

    FAILED = 0
    VERSION = 1
    REFUSED = 2
    PROTOCOL = 3
    CANCELLED = 4


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message of a sender. Other versions may have other fields after the version."""

    TYPE: ClassVar = MessageType.BEGIN
    _LAYOUT: ClassVar = struct.Struct("!BQQ")
    _VERSION: ClassVar = struct.Struct("!H")

    algorithm: Algorithm = ALGORITHMS[0]
    total_files: int | None = None
    total_bytes: int | None = None
    version: int = SESSION_VERSION
    parameters: Mapping[int, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        files, total = (UNKNOWN_TOTAL if n is None else n for n in (self.total_files, self.total_bytes))
        head = bytes([self.TYPE]) + self._VERSION.pack(self.version)
        return head + self._LAYOUT.pack(self.algorithm.number, files, total) + encode_parameters(self.parameters)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Begin":
        (version,) = reader.fields(cls._VERSION)
        if version != SESSION_VERSION:
            return cls(version=version)  # the other fields are unknown in another version
        number, files, total = reader.fields(cls._LAYOUT)
        known = [None if n == UNKNOWN_TOTAL else n for n in (files, total)]
        return cls(algorithm_by_number_untrusted(number), known[0], known[1], parameters=reader.parameters())


@dataclass(frozen=True, slots=True)
class Offer:
    """A group of 1 to MAX_GROUP_ENTRIES entries; groups are numbered from 0."""

    TYPE: ClassVar = MessageType.OFFER
    _LAYOUT: ClassVar = struct.Struct("!IH")

    group: int
    entries: tuple[Entry, ...]
    parameters: Mapping[int, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        head = bytes([self.TYPE]) + self._LAYOUT.pack(self.group, len(self.entries))
        return head + b"".join(entry.encode() for entry in self.entries) + encode_parameters(self.parameters)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Offer":
        group, count = reader.fields(cls._LAYOUT)
        _check_count(count)
        entries = tuple(Entry.decode_untrusted(reader) for _ in range(count))
        return cls(group, entries, reader.parameters())


@dataclass(frozen=True, slots=True)
class EntryOutcome:
    """The status of one entry, with a reason unless it is OK or UNCHANGED."""

    status: EntryStatus
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Accept:
    """The receiver's decision on each entry of a group: OK, REFUSED or UNCHANGED."""

    TYPE: ClassVar = MessageType.ACCEPT

    group: int
    outcomes: tuple[EntryOutcome, ...]
    parameters: Mapping[int, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        return _encode_outcomes(self.TYPE, self.group, self.outcomes) + encode_parameters(self.parameters)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Accept":
        group, outcomes = _decode_outcomes(reader)
        if any(outcome.status in (EntryStatus.MISMATCHED, EntryStatus.FAILED) for outcome in outcomes):
            raise ProtocolError("the peer sent a result in an ACCEPT message")
        return cls(group, outcomes, reader.parameters())


@dataclass(frozen=True, slots=True)
class Result:
    """The final outcome of each entry of a group; sent in the order of the groups, when all outcomes are known."""

    TYPE: ClassVar = MessageType.RESULT

    group: int
    outcomes: tuple[EntryOutcome, ...]

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        return _encode_outcomes(self.TYPE, self.group, self.outcomes)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Result":
        group, outcomes = _decode_outcomes(reader)
        reader.finish()
        return cls(group, outcomes)


@dataclass(frozen=True, slots=True)
class Hole:
    """A range of a file, of at most MAX_HOLE_BYTES, that holds only zeros and is not sent."""

    TYPE: ClassVar = MessageType.HOLE
    _LAYOUT: ClassVar = struct.Struct("!IQQ")

    file_id: int
    offset: int
    length: int

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        return bytes([self.TYPE]) + self._LAYOUT.pack(self.file_id, self.offset, self.length)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Hole":
        file_id, offset, length = reader.fields(cls._LAYOUT)
        reader.finish()
        if not 0 < length <= MAX_HOLE_BYTES or offset + length > MAX_SIZE_BYTES:
            raise ProtocolError("the peer sent a hole of invalid offset or length")
        return cls(file_id, offset, length)


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The final size and the digest of a file."""

    file_id: int
    size_bytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of 1 to MAX_GROUP_ENTRIES files whose content was sent; all digests have the same length."""

    TYPE: ClassVar = MessageType.DIGESTS
    _LAYOUT: ClassVar = struct.Struct("!HB")
    _FILE: ClassVar = struct.Struct("!IQ")

    files: tuple[FileDigest, ...]

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        head = bytes([self.TYPE]) + self._LAYOUT.pack(len(self.files), len(self.files[0].digest))
        return head + b"".join(self._FILE.pack(f.file_id, f.size_bytes) + f.digest for f in self.files)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Digests":
        count, digest_bytes = reader.fields(cls._LAYOUT)
        _check_count(count)
        if digest_bytes not in {a.digest_bytes for a in ALGORITHMS}:
            raise ProtocolError("the peer sent digests of invalid length")
        files = []
        for _ in range(count):
            file_id, size_bytes = reader.fields(cls._FILE)
            files.append(FileDigest(file_id, size_bytes, reader.octets(digest_bytes)))
        reader.finish()
        return cls(tuple(files))


@dataclass(frozen=True, slots=True)
class Withdraw:
    """An end gives up an accepted file: the sender because it has changed, the receiver because the disk is full.

    After the sender's, no digest follows. After the receiver's, the sender need not send the rest.
    """

    TYPE: ClassVar = MessageType.WITHDRAW
    _LAYOUT: ClassVar = struct.Struct("!IH")

    file_id: int
    reason: str

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        reason = encode_text(self.reason)
        return bytes([self.TYPE]) + self._LAYOUT.pack(self.file_id, len(reason)) + reason

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Withdraw":
        file_id, length = reader.fields(cls._LAYOUT)
        reason = reader.text(length)
        reader.finish()
        return cls(file_id, reason)


@dataclass(frozen=True, slots=True)
class End:
    """No more groups follow; `entries` is the number of entries offered."""

    TYPE: ClassVar = MessageType.END
    _LAYOUT: ClassVar = struct.Struct("!Q")

    entries: int

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        return bytes([self.TYPE]) + self._LAYOUT.pack(self.entries)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "End":
        (entries,) = reader.fields(cls._LAYOUT)
        reader.finish()
        return cls(entries)


@dataclass(frozen=True, slots=True)
class Done:
    """Every entry has an outcome; counts the files, and their bytes, that are verified under their final names."""

    TYPE: ClassVar = MessageType.DONE
    _LAYOUT: ClassVar = struct.Struct("!QQ")

    files: int
    size_bytes: int

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        return bytes([self.TYPE]) + self._LAYOUT.pack(self.files, self.size_bytes)

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Done":
        files, size_bytes = reader.fields(cls._LAYOUT)
        reader.finish()
        return cls(files, size_bytes)


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """The session has failed at the end that sends this message. No message follows."""

    TYPE: ClassVar = MessageType.ERROR
    _LAYOUT: ClassVar = struct.Struct("!BH")

    reason: ErrorReason
    text: str

    def encode(self) -> bytes:
        """The encoded message, with its type."""
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
            raise ProtocolError("the peer sent an unknown error reason") from error


@dataclass(frozen=True, slots=True)
class Alive:
    """The end that sends this is busy and still runs."""

    TYPE: ClassVar = MessageType.ALIVE

    def encode(self) -> bytes:
        """The encoded message, with its type."""
        return bytes([self.TYPE])

    @classmethod
    def _decode(cls, reader: MessageReader) -> "Alive":
        reader.finish()
        return cls()


AnyMessage = (
    Begin | Offer | Accept | Hole | Digests | Result | End | Done | ErrorMessage | Alive | Withdraw | Chunks | Kept
)

_DECODERS: dict[int, Callable[[MessageReader], AnyMessage]] = {
    **{
        message.TYPE: message._decode
        for message in (Begin, Offer, Accept, Hole, Digests, Result, End, Done, ErrorMessage, Alive, Withdraw)
    },
    **{message.TYPE: message.decode_untrusted for message in (Chunks, Kept)},
}


def decode_untrusted(data: bytes) -> AnyMessage:
    """Decode a message. Raises ProtocolError."""
    if not data:
        raise ProtocolError("the peer sent an empty message")
    decoder = _DECODERS.get(data[0])
    if decoder is None:
        raise ProtocolError(f"the peer sent an unknown message type {data[0]:#04x}")
    return decoder(MessageReader(data, 1))


_OUTCOMES = struct.Struct("!IH")
_OUTCOME = struct.Struct("!BB")
_WITHOUT_REASON = [EntryOutcome(status) for status in EntryStatus]  # by status: nearly all outcomes are among them


def _encode_outcomes(message_type: MessageType, group: int, outcomes: tuple[EntryOutcome, ...]) -> bytes:
    parts = [bytes([message_type]), _OUTCOMES.pack(group, len(outcomes))]
    for outcome in outcomes:
        reason = encode_text(outcome.reason) if outcome.reason else b""
        parts += (_OUTCOME.pack(outcome.status, len(reason)), reason)
    return b"".join(parts)


def _decode_outcomes(reader: MessageReader) -> tuple[int, tuple[EntryOutcome, ...]]:
    group, count = reader.fields(_OUTCOMES)
    _check_count(count)
    outcomes = []
    for _ in range(count):
        status, length = reader.fields(_OUTCOME)
        if status >= len(_WITHOUT_REASON):
            raise ProtocolError("the peer sent an unknown entry status")
        outcome = _WITHOUT_REASON[status]
        outcomes.append(EntryOutcome(outcome.status, reader.text(length)) if length else outcome)
    return group, tuple(outcomes)


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_GROUP_ENTRIES:
        raise ProtocolError(f"the peer sent a list of {count} items (1 to {MAX_GROUP_ENTRIES} are allowed)")
