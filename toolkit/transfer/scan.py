"""From what a user names to the entries that are offered, lazily and in a fixed order.

The files of a tree come in the order of the bytes of their paths, each directory before what is in it.
Symbolic links inside a tree are not followed: they, and whatever else is neither a file nor a directory, are
left out and reported. What the user named on the command line is followed, as `cp` does.
"""

import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from toolkit.errors import UsageError, printable
from toolkit.transfer.manifest import MAX_GROUP_BYTES, MAX_GROUP_ENTRIES, PERMISSION_BITS, Entry, EntryKind
from toolkit.transfer.names import display_name
from toolkit.transfer.sources import FileOrigin, Identity, segments_of

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Item:
    """An entry, and where its content comes from: a file, or the standard input (None), or nowhere."""

    entry: Entry
    origin: FileOrigin | None = None


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """Something in a tree that is not sent; `is_failure` where it should have been."""

    path: bytes
    reason: str
    is_failure: bool


@dataclass(frozen=True, slots=True)
class Root:
    """One of the sources that a user named, checked; `path` is None for the standard input."""

    path: bytes | None
    name: bytes
    status: os.stat_result | None


def check_sources(sources: Sequence[str | os.PathLike[str]], recursive: bool, stream_name: str) -> list[Root]:
    """The sources, each of which can be sent as far as one look tells. Raises UsageError."""
    if not sources:
        raise UsageError("there is nothing to send: name at least one file")
    roots = [_root(os.fspath(source), recursive, stream_name) for source in sources]
    names = set()
    for root in roots:
        if root.name in names:
            name = printable(os.fsdecode(root.name))
            raise UsageError(f"two of the sources are called {name}: send them one after the other")
        names.add(root.name)
    return roots


def totals_of(roots: Iterable[Root]) -> tuple[int, int] | tuple[None, None]:
    """How many files and bytes that is, where no walk and no stream is needed to tell."""
    files = size_bytes = 0
    for root in roots:
        if root.status is None or stat.S_ISDIR(root.status.st_mode):
            return None, None
        files += 1
        size_bytes += root.status.st_size
    return files, size_bytes


def walk(roots: Iterable[Root], left_out: list[SkippedEntry]) -> Iterator[Item]:
    """Every item below the roots; what is not sent is added to `left_out`."""
    for root in roots:
        if root.path is None:
            yield Item(Entry(EntryKind.FILE, root.name, 0o644, time.time_ns(), None))
        elif root.status is not None and stat.S_ISDIR(root.status.st_mode):
            yield Item(_directory(root.name, root.status))
            yield from _walk_below(root.path, root.name, left_out)
        elif root.status is not None:
            yield _file(root.path, root.name, root.status)


def in_groups(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in groups that fit one offer each."""
    group: list[Item] = []
    room_bytes = MAX_GROUP_BYTES
    for item in items:
        if len(group) == MAX_GROUP_ENTRIES or item.entry.encoded_bytes > room_bytes:
            yield group
            group, room_bytes = [], MAX_GROUP_BYTES
        group.append(item)
        room_bytes -= item.entry.encoded_bytes
    if group:
        yield group


def _root(source: str, recursive: bool, stream_name: str) -> Root:
    if source == STANDARD_INPUT:
        return Root(None, os.fsencode(stream_name), None)
    shown = printable(source) or '""'
    try:
        status = os.stat(source)
        readable = os.access(source, os.R_OK)
    except OSError as error:
        raise UsageError(f"{shown}: {(error.strerror or 'cannot be read').lower()}") from error
    except ValueError as error:  # NUL in the name
        raise UsageError(f"{shown}: no file can have this name") from error
    if not readable:
        raise UsageError(f"{shown}: permission denied")
    name = os.fsencode(os.path.basename(os.path.abspath(source)))
    if stat.S_ISDIR(status.st_mode):
        if not recursive:
            raise UsageError(f"{shown}: is a directory; -r sends it with everything in it")
        if not name:
            raise UsageError(f"{shown}: the root directory has no name to send it under")
    elif not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{shown}: is neither a file nor a directory; - sends what is piped in")
    return Root(os.fsencode(source), name, status)


def _walk_below(path: bytes, name: bytes, left_out: list[SkippedEntry]) -> Iterator[Item]:
    """The content of the directory at `path`, whose own name in the manifest is `name`."""
    levels = [(name, iter(_children(path, name, left_out)))]  # a stack: a tree may be deeper than Python recurses
    while levels:
        parent, children = levels[-1]
        child = next(children, None)
        if child is None:
            levels.pop()
            continue
        name = parent + b"/" + child.name
        try:
            status = child.stat(follow_symlinks=False)
        except OSError as error:
            left_out.append(SkippedEntry(name, _why(error), is_failure=True))
            continue
        if stat.S_ISDIR(status.st_mode):
            yield Item(_directory(name, status))
            levels.append((name, iter(_children(child.path, name, left_out))))
        elif not stat.S_ISREG(status.st_mode):
            left_out.append(SkippedEntry(name, _what(status), is_failure=False))
        elif not os.access(child.path, os.R_OK):
            left_out.append(SkippedEntry(name, "permission denied", is_failure=True))
        else:
            yield _file(child.path, name, status)


def _children(path: bytes, name: bytes, left_out: list[SkippedEntry]) -> list[os.DirEntry[bytes]]:
    """What is in a directory, such that whole paths come in the order of their bytes, as `LC_ALL=C sort` has
    them.
    """
    try:
        with os.scandir(path) as found:
            return sorted(found, key=lambda child: child.name + b"/" * child.is_dir(follow_symlinks=False))
    except OSError as error:
        left_out.append(SkippedEntry(name, _why(error), is_failure=True))
        return []


def _directory(name: bytes, status: os.stat_result) -> Entry:
    return Entry(EntryKind.DIRECTORY, name, status.st_mode & PERMISSION_BITS, _mtime_ns(status))


def _file(path: bytes, name: bytes, status: os.stat_result) -> Item:
    is_sparse = status.st_blocks * 512 < status.st_size
    origin = FileOrigin(path, display_name(name), Identity.of(status), is_sparse)
    content_bytes = status.st_size
    if is_sparse:
        descriptor = origin.open()
        try:
            holes = (segment.length for segment in segments_of(descriptor, status.st_size) if segment.is_hole)
            content_bytes -= sum(holes)
        finally:
            os.close(descriptor)
    mode = status.st_mode & PERMISSION_BITS
    return Item(Entry(EntryKind.FILE, name, mode, _mtime_ns(status), status.st_size, content_bytes), origin)


def _mtime_ns(status: os.stat_result) -> int:
    """The time of the last change, or the nearest that a message can tell (years 1677 to 2262)."""
    return max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))


def _what(status: os.stat_result) -> str:
    return "a symbolic link" if stat.S_ISLNK(status.st_mode) else "neither a file nor a directory"


def _why(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()
