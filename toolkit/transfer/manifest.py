"""What is sent: the entries of an offer, and the one binary encoding that they have.

An entry describes a file or a directory: its relative path in bytes, its permission bits, its time, its size.
Entries travel in groups that fit one message each, so that a tree of any size costs little memory and few
round trips.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from toolkit.channel import MAX_MESSAGE_BYTES
from toolkit.errors import ProtocolError
from toolkit.transfer.names import display_name
from toolkit.transfer.reader import MessageReader

MAX_GROUP_ENTRIES = 1024
MAX_GROUP_BYTES = MAX_MESSAGE_BYTES - 64  # the offer's own head is smaller than that

MAX_FILE_IDS = 2**32
MAX_OPEN_GROUPS = 32  # offered and without a result; bounds what either end keeps in mind
MAX_SIZE_BYTES = 2**63 - 1  # off_t
MAX_FILE_BYTES = 2**44  # 16 TiB, what ext4 takes; a hole of this size is hashed in minutes, one of 2**63 never
MAX_HOLE_BYTES = 2**30  # told of at a time, so that zeros are hashed in a fraction of a second
UNKNOWN_SIZE = 2**64 - 1
PERMISSION_BITS = 0o777  # never set-user-id, set-group-id or sticky

_ENTRY = struct.Struct("!BHqQQH")  # kind, mode, mtime_ns, size, content, length of the path; the path follows


class EntryKind(IntEnum):
    """What an entry is."""

    FILE = 0
    DIRECTORY = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or directory of an offer.

    kind:           FILE or DIRECTORY
    path:           relative, components joined by `/`; a receiver checks it before it uses it
    mode:           permission bits
    mtime_ns:       time of the last change, ns since the epoch
    size_bytes:     of the whole file; None where it shows only at the end (a stream)
    content_bytes:  how much of it is stored and will be sent, the rest being holes; a forecast, not a promise
    """

    kind: EntryKind
    path: bytes
    mode: int
    mtime_ns: int
    size_bytes: int | None = 0
    content_bytes: int = 0

    @property
    def name(self) -> str:
        """The path as text."""
        return display_name(self.path)

    @property
    def encoded_bytes(self) -> int:
        """How long `encode` is."""
        return _ENTRY.size + len(self.path)

    def encode(self) -> bytes:
        """The entry as it stands in a message."""
        size = UNKNOWN_SIZE if self.size_bytes is None else self.size_bytes
        head = _ENTRY.pack(self.kind, self.mode, self.mtime_ns, size, self.content_bytes, len(self.path))
        return head + self.path

    @classmethod
    def decode_untrusted(cls, reader: MessageReader) -> "Entry":
        """The next entry of a message. Raises ProtocolError."""
        kind, mode, mtime_ns, size, content_bytes, path_bytes = reader.fields(_ENTRY)
        size_bytes = None if size == UNKNOWN_SIZE else size
        if kind > max(EntryKind) or mode & ~PERMISSION_BITS:
            raise ProtocolError("the peer offers what is neither a file nor a directory")
        limit_bytes = MAX_SIZE_BYTES if size_bytes is None else size_bytes
        if content_bytes > limit_bytes or limit_bytes > MAX_SIZE_BYTES:
            raise ProtocolError("the peer offers a file of an impossible size")
        if kind == EntryKind.DIRECTORY and size_bytes != 0:
            raise ProtocolError("the peer offers a directory that has a size")
        return cls(EntryKind(kind), reader.octets(path_bytes), mode, mtime_ns, size_bytes, content_bytes)
