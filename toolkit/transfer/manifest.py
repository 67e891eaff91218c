"""The entries of an offer, with their binary encoding.

An entry describes a file, a directory or a symbolic link: relative path in bytes, permission bits, modification time,
size. Entries travel in groups that fit one message each: a tree of any size needs little memory and few round trips.
"""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

from toolkit.channel import MAX_MESSAGE_BYTES
from toolkit.errors import ProtocolError
from toolkit.transfer.attributes import Attributes
from toolkit.transfer.names import display_name
from toolkit.transfer.reader import MessageReader

MAX_GROUP_ENTRIES = 1024
MAX_GROUP_BYTES = MAX_MESSAGE_BYTES - 64  # leaves room for the header of the OFFER message

MAX_FILE_IDS = 2**32
MAX_OPEN_GROUPS = 8  # groups offered and without a RESULT; bounds the memory of both ends, see docs/protocol.md
MAX_SIZE_BYTES = 2**63 - 1  # off_t
MAX_FILE_BYTES = 2**44  # 16 TiB, the limit of ext4; hashing a hole of this size takes minutes, of 2**63 bytes for ever
MIN_HOLE_BYTES = 2**16  # sending the zeros of a smaller hole is cheaper than a HOLE message
MAX_HOLE_BYTES = 2**30  # in one HOLE message
MAX_ENCODED_PATH_BYTES = 2**16 - 1  # a receiver accepts less (names.py)
UNKNOWN_SIZE = 2**64 - 1
PERMISSION_BITS = 0o777  # never set-user-ID, set-group-ID or sticky

LINKS_PARAMETER = 3
"""The id among the parameters of an ACCEPT: empty, and the receiver takes symbolic links."""
MAX_TARGET_BYTES = 4095  # PATH_MAX without its NUL

# Kind, mode, mtime_ns, size, content, length of the path; the path follows, and the target of a link.
_ENTRY = struct.Struct("!BHqQQH")


class EntryKind(IntEnum):
    """The kind of an entry, as encoded."""

    FILE = 0
    DIRECTORY = 1
    LINK = 2  # only to a receiver that takes links (links.py)


_KINDS = tuple(EntryKind)  # by number: calling the enum costs more than all the rest


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link of an offer.

    kind:           FILE, DIRECTORY or LINK
    path:           relative, with `/` between components; the receiver validates it before use
    mode:           permission bits
    mtime_ns:       modification time, ns since the epoch
    size_bytes:     size of the whole file; None if it is known only at the end (a stream)
    content_bytes:  how much of the size is stored and will be sent, the rest being holes; an estimate
    target:         what a link leads to; the receiver validates it before use
    attributes:     what else is preserved of it; not part of the encoding (attributes.py)
    """

    kind: EntryKind
    path: bytes
    mode: int
    mtime_ns: int
    size_bytes: int | None = 0
    content_bytes: int = 0
    target: bytes = b""
    attributes: Attributes | None = None

    @property
    def name(self) -> str:
        """The path as text."""
        return display_name(self.path)

    @property
    def hole_bytes(self) -> int:
        """How much of the size is holes; 0 for a stream, of which that is not known."""
        return 0 if self.size_bytes is None else self.size_bytes - self.content_bytes

    @property
    def encoded_bytes(self) -> int:
        """The length of `encode()`."""
        return _ENTRY.size + len(self.path) + len(self.target)

    def encode(self) -> bytes:
        """The entry as it appears in an OFFER message."""
        size = UNKNOWN_SIZE if self.size_bytes is None else self.size_bytes + len(self.target)
        head = _ENTRY.pack(self.kind, self.mode, self.mtime_ns, size, self.content_bytes, len(self.path))
        return head + self.path + self.target

    @classmethod
    def decode_untrusted(cls, reader: MessageReader) -> "Entry":
        """The next entry of a message. Raises ProtocolError."""
        kind, mode, mtime_ns, size, content_bytes, path_bytes = reader.fields(_ENTRY)
        size_bytes = None if size == UNKNOWN_SIZE else size
        if kind >= len(_KINDS) or mode & ~PERMISSION_BITS:
            raise ProtocolError("the peer offered an entry of unknown kind or mode")
        limit_bytes = MAX_SIZE_BYTES if size_bytes is None else size_bytes
        if content_bytes > limit_bytes or limit_bytes > MAX_SIZE_BYTES:
            raise ProtocolError("the peer offered a file of invalid size")
        if kind == EntryKind.DIRECTORY and size_bytes != 0:
            raise ProtocolError("the peer offered a directory with a size")
        if kind == EntryKind.LINK:
            link = cls(EntryKind.LINK, reader.octets(path_bytes), mode, mtime_ns)
            return _with_target(link, size, content_bytes, reader)
        return cls(_KINDS[kind], reader.octets(path_bytes), mode, mtime_ns, size_bytes, content_bytes)


def _with_target(link: Entry, size_bytes: int, content_bytes: int, reader: MessageReader) -> Entry:
    """A link with its target of that size, which follows. Raises ProtocolError."""
    if content_bytes or not 1 <= size_bytes <= MAX_TARGET_BYTES:
        raise ProtocolError("the peer offered a link of invalid size")
    target = reader.octets(size_bytes)
    if b"\0" in target:
        raise ProtocolError("the peer offered a link with an invalid target")
    return replace(link, target=target)
