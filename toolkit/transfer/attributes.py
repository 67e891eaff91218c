"""What `--preserve` keeps besides content, name and time: exact modes, owners, extended attributes.

Both ends have to ask for it: the sender offers it with each entry, and the receiver sets what it allows. It is off by
default, as a stranger must not choose the owner of a file, or make it executable.

- Owners are found by name, and by number if the receiver knows no such name, as rsync does; root is always number 0.
  Only root may give files away.
- Of extended attributes, only those of users (`user.*`) are kept. The others change what a file may do (capabilities,
  labels, access lists).
- Set-user-ID, set-group-ID and sticky bits need a word of their own, and are set only if everything else was.

What cannot be set is counted, and never costs content.
"""

import errno
import grp
import os
import pwd
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from typing import ClassVar, NamedTuple

from toolkit.errors import ProtocolError, UsageError, printable
from toolkit.transfer.reader import MessageReader

ATTRIBUTES_PARAMETER = 5
"""The id among the parameters of an OFFER: the attributes of each of its entries, in their order."""
PRESERVE_PARAMETER = 4
"""The id among the parameters of an ACCEPT: what the receiver preserves, one byte."""

MAX_ENTRY_XATTR_BYTES = 1 << 14
"""Of one entry, names and values: four times what ext4 keeps."""
EMPTY_BYTES = 3  # of the encoding of nothing
MAX_ID = 2**32 - 2  # for the next number, chown(2) leaves the owner as it is
MODE_BITS = 0o777
SPECIAL_BITS = 0o7000

_USER_XATTR = b"user."
_NAME = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,31}\$?")


class Preserve(IntFlag):
    """What is preserved, as encoded."""

    NOTHING = 0
    MODES = 1  # all permission bits, whatever the receiver's umask is
    OWNERS = 2
    XATTRS = 4
    SETID = 8  # set-user-ID, set-group-ID and sticky bits


PRESERVE_ALL = Preserve.MODES | Preserve.OWNERS | Preserve.XATTRS | Preserve.SETID


class Owner(NamedTuple):
    """User and group of an entry, as numbers and as names; a name is empty for root and if there is none."""

    uid: int
    gid: int
    user: bytes = b""
    group: bytes = b""


Xattrs = tuple[tuple[bytes, bytes], ...]
"""Names, which begin with `user.`, and values."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is preserved of one entry; None for what is not.

    mode:   permission bits, with the special ones if those are preserved
    """

    mode: int | None = None
    owner: Owner | None = None
    xattrs: Xattrs = ()

    _MODE: ClassVar = struct.Struct("!H")
    _OWNER: ClassVar = struct.Struct("!IIBB")
    _XATTR: ClassVar = struct.Struct("!BH")

    def encode(self) -> bytes:
        """The encoding, with its length in front."""
        parts = [b""]
        fields = Preserve.NOTHING
        if self.mode is not None:
            fields |= Preserve.MODES
            parts.append(self._MODE.pack(self.mode))
        if self.owner is not None:
            fields |= Preserve.OWNERS
            uid, gid, user, group = self.owner
            parts += (self._OWNER.pack(uid, gid, len(user), len(group)), user, group)
        if self.xattrs:
            fields |= Preserve.XATTRS
            for name, value in self.xattrs:
                parts += (self._XATTR.pack(len(name), len(value)), name, value)
        parts[0] = bytes([fields])
        encoded = b"".join(parts)
        return struct.pack("!H", len(encoded)) + encoded

    @classmethod
    def decode_untrusted(cls, data: bytes) -> "Attributes":
        """From the encoding without its length. Raises ProtocolError."""
        reader = MessageReader(data)
        fields = reader.octets(1)[0]
        mode, owner, xattrs = None, None, []
        if fields & Preserve.MODES:
            (mode,) = reader.fields(cls._MODE)
            if mode & ~(MODE_BITS | SPECIAL_BITS):
                raise ProtocolError("the peer offered an entry of unknown mode")
        if fields & Preserve.OWNERS:
            uid, gid, user_bytes, group_bytes = reader.fields(cls._OWNER)
            if max(uid, gid) > MAX_ID:
                raise ProtocolError("the peer offered an entry whose owner has no number")
            owner = Owner(uid, gid, reader.octets(user_bytes), reader.octets(group_bytes))
        if fields & Preserve.XATTRS:
            while not reader.is_at_end:
                name_bytes, value_bytes = reader.fields(cls._XATTR)
                name, value = reader.octets(name_bytes), reader.octets(value_bytes)
                if not name.startswith(_USER_XATTR) or b"\0" in name:
                    raise ProtocolError("the peer offered an extended attribute that is not one of users")
                xattrs.append((name, value))
        reader.finish()
        return cls(mode, owner, tuple(xattrs))

    @classmethod
    def decode(cls, encoding: bytes) -> "Attributes":
        """From what `encode` has returned."""
        return cls.decode_untrusted(encoding[2:])

    def only(self, preserve: Preserve) -> "Attributes":
        """What of it is preserved."""
        bits = MODE_BITS | (SPECIAL_BITS if preserve & Preserve.SETID else 0)
        return Attributes(
            self.mode & bits if self.mode is not None and preserve & Preserve.MODES else None,
            self.owner if preserve & Preserve.OWNERS else None,
            self.xattrs if preserve & Preserve.XATTRS else (),
        )

    @property
    def special_bits(self) -> int:
        """The set-user-ID, set-group-ID and sticky bits; none without an owner, whose power they give."""
        return 0 if self.mode is None or self.owner is None else self.mode & SPECIAL_BITS

    def set_on(self, descriptor: int) -> bool:
        """Set extended attributes and owner, in this order: another owner may not allow the former.

        Returns whether all were set; any failure is one of the attributes alone.
        """
        failures = 0
        for name, value in self.xattrs:
            try:
                os.setxattr(descriptor, name, value)
            except OSError:
                failures += 1
        if self.owner is not None:
            try:
                os.fchown(descriptor, *ids_of(self.owner))
            except OSError:
                failures += 1
        return not failures


def attributes_of(status: os.stat_result, preserve: Preserve, xattrs: Xattrs = ()) -> Attributes:
    """What is to be preserved of an entry."""
    owner = Owner(status.st_uid, status.st_gid, _user_name(status.st_uid), _group_name(status.st_gid))
    return Attributes(status.st_mode & (MODE_BITS | SPECIAL_BITS), owner, xattrs).only(preserve)


def decode_list_untrusted(value: bytes, count: int, preserve: Preserve) -> Sequence[Attributes]:
    """What is preserved of each of `count` entries. Raises ProtocolError."""
    reader = MessageReader(value)
    found = []
    for _ in range(count):
        (length,) = reader.fields(struct.Struct("!H"))
        found.append(Attributes.decode_untrusted(reader.octets(length)).only(preserve))
    reader.finish()
    return found


def encode_list(attributes: Iterable[Attributes | None]) -> bytes:
    """The value of the parameter."""
    return b"".join((one or Attributes()).encode() for one in attributes)


def parse_preserve(words: str | None) -> Preserve:
    """What a user has listed, with commas in between; `setid` implies modes and owners. Raises UsageError."""
    known = {word: Preserve[word.upper()] for word in words_of(PRESERVE_ALL).split(",")}
    preserve = Preserve.NOTHING
    for word in () if words is None else words.split(","):
        if word.strip() not in known:
            text = f"list some of {', '.join(known)}, with commas in between"
            raise UsageError(f"`preserve` {printable(words or '')}: {text}")
        preserve |= known[word.strip()]
    return preserve | (Preserve.MODES | Preserve.OWNERS if preserve & Preserve.SETID else Preserve.NOTHING)


def words_of(preserve: Preserve) -> str:
    """The words of `--preserve`."""
    return ",".join(one.name.lower() for one in Preserve if one in preserve and one.name)


def missing_words(asked: Preserve, value: bytes | None) -> str:
    """What was asked for and is not among what the receiver preserves, by the value of its PRESERVE_PARAMETER."""
    return words_of(asked & ~Preserve(value[0] & PRESERVE_ALL if value else 0))


@lru_cache(1 << 10)
def ids_of(owner: Owner) -> tuple[int, int]:
    """User and group at this end."""
    uid, gid = owner.uid, owner.gid
    with suppress(KeyError):
        uid = pwd.getpwnam(owner.user.decode()).pw_uid if _NAME.fullmatch(owner.user) else uid
    with suppress(KeyError):
        gid = grp.getgrnam(owner.group.decode()).gr_gid if _NAME.fullmatch(owner.group) else gid
    return uid, gid


def read_xattrs(descriptor: int) -> Xattrs:
    """The extended attributes of users. Raises OSError, also if they are too large to be sent."""
    try:
        names = sorted(os.fsencode(name) for name in os.listxattr(descriptor))
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # this file system has none
            return ()
        raise
    found = tuple((name, os.getxattr(descriptor, name)) for name in names if name.startswith(_USER_XATTR))
    if sum(len(name) + len(value) + Attributes._XATTR.size for name, value in found) > MAX_ENTRY_XATTR_BYTES:
        raise OSError(0, f"more than {MAX_ENTRY_XATTR_BYTES >> 10} KiB")
    return found


@lru_cache(1 << 10)
def _user_name(uid: int) -> bytes:
    return _name_of(uid, lambda: pwd.getpwuid(uid).pw_name)


@lru_cache(1 << 10)
def _group_name(gid: int) -> bytes:
    return _name_of(gid, lambda: grp.getgrgid(gid).gr_name)


def _name_of(number: int, look_up: Callable[[], str]) -> bytes:
    """The name that is sent of a user or group; empty for root, and if there is none that a receiver looks up."""
    name = b""
    with suppress(KeyError):
        name = os.fsencode(look_up()) if number else b""
    return name if _NAME.fullmatch(name) else b""
