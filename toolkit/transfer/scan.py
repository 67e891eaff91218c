"""From the sources that a user names to the entries of the offers, lazily and in a fixed order.

The files of a tree come in the byte order of their paths, each directory before its content. Special files inside a
tree are skipped and reported, and so are symbolic links unless the user wants them (selection.py). A link that the user
names as a source is followed, as `cp` does. source_tree.py makes sure that nothing that changes during the scan leads
out of the tree.
"""

import errno
import io
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from toolkit.errors import UsageError, printable
from toolkit.parameters import MAX_VALUE_BYTES
from toolkit.transfer.attributes import EMPTY_BYTES, Preserve, Xattrs, attributes_of, read_xattrs
from toolkit.transfer.file_system import is_honest_about_holes, is_synthetic
from toolkit.transfer.manifest import (
    MAX_ENCODED_PATH_BYTES,
    MAX_GROUP_BYTES,
    MAX_GROUP_ENTRIES,
    PERMISSION_BITS,
    Entry,
    EntryKind,
)
from toolkit.transfer.names import MAX_PATH_BYTES, display_name, encode_name, encode_stream_name, is_partial
from toolkit.transfer.objects import BinaryReader, BytesOrigin
from toolkit.transfer.selection import EVERYTHING, LinkChoice, Selection
from toolkit.transfer.source_tree import SourceDirectories, SourceDirectory, open_named
from toolkit.transfer.sources import (
    CHANGED,
    REPLACED,
    FileIdentity,
    FileOrigin,
    SourceChangedError,
    os_error_text,
    segments_of,
)

_LOGGER = logging.getLogger(__name__)

STANDARD_INPUT = "-"

Content = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryReader
"""What is sent under a name of the caller's choice: a path, bytes, or a file object in binary mode."""


@dataclass(frozen=True, slots=True)
class NamedSource:
    """A source under a name of the caller's choice; a file object is read from where it stands to its end.

    mtime_ns: the modification time of what has none: the same for a session and those that continue it
    """

    name: str
    content: Content
    mtime_ns: int = field(default_factory=time.time_ns)


Source = str | os.PathLike[str] | NamedSource
"""What `send` takes; "-" is the standard input."""


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """An entry, and where its content comes from.

    origin: the file; None for a directory and for a stream
    reader: the file object; None for standard input, and for everything else
    """

    entry: Entry
    origin: FileOrigin | None = None
    reader: BinaryReader | None = None


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """A path in a tree that is not sent; `is_failure` if it was meant to be sent and could not be read."""

    path: bytes
    reason: str
    is_failure: bool


OnSkipped = Callable[[SkippedEntry], None]


@dataclass(frozen=True, slots=True)
class SourceRoot:
    """A source that the user named, checked; `path` and `status` are None for standard input and for an object.

    is_stream: whether the size of the file says nothing (file_system.py)
    content:   what an object holds, or the file object to read it from; None for a file and for standard input
    mtime_ns:  the modification time of bytes
    """

    path: bytes | None
    name: bytes
    status: os.stat_result | None
    is_stream: bool = False
    content: bytes | BinaryReader | None = None
    mtime_ns: int = 0

    @property
    def is_directory(self) -> bool:
        """Whether it is sent with everything in it."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)


def check_sources(sources: Sequence[Source], recursive: bool, stream_name: str) -> list[SourceRoot]:
    """The sources, each with the name that it has at the receiver. Raises UsageError if one cannot be sent."""
    if not sources:
        raise UsageError("nothing to send: name at least one file")
    roots = [_check_source(source, recursive, stream_name) for source in sources]
    names = set()
    for root in roots:
        name = printable(os.fsdecode(root.name))
        if len(root.name) > MAX_PATH_BYTES:
            raise UsageError(f"{name}: the name is longer than {MAX_PATH_BYTES} bytes")
        if root.name in names:
            raise UsageError(f"two sources have the name {name}: send them one after the other")
        names.add(root.name)
    return roots


def totals_of(roots: Iterable[SourceRoot]) -> tuple[int, int] | tuple[None, None]:
    """The number of files and bytes; None for both if that takes a scan or the end of a stream to know."""
    files = size_bytes = 0
    for root in roots:
        if isinstance(root.content, bytes):
            size_bytes += len(root.content)
        elif root.status is None or root.is_stream or root.is_directory:
            return None, None
        else:
            size_bytes += root.status.st_size
        files += 1
    return files, size_bytes


def scan(
    roots: Iterable[SourceRoot],
    directories: SourceDirectories,
    on_skipped: OnSkipped,
    selection: Selection = EVERYTHING,
) -> Iterator[SourceEntry]:
    """Every entry of the roots that is selected.

    `on_skipped` is called with each path that is selected and not sent; `directories` stays open.
    """
    for root in roots:
        if isinstance(root.content, bytes):
            size_bytes = len(root.content)
            origin = BytesOrigin.of(display_name(root.name), root.content)
            yield SourceEntry(Entry(EntryKind.FILE, root.name, 0o644, root.mtime_ns, size_bytes, size_bytes), origin)
        elif root.path is None:
            yield SourceEntry(Entry(EntryKind.FILE, root.name, 0o644, time.time_ns(), None), reader=root.content)
        elif root.status is not None and root.is_directory:
            directory = SourceDirectory(directories, root.path)
            yield SourceEntry(_directory(directory, root.name, root.status, selection))
            yield from _scan_directory(directory, root.name, selection, on_skipped)
        elif root.status is not None:
            yield from _file(None, root.path, root.name, root.status, root.is_stream, selection, on_skipped)


def in_groups(entries: Iterable[SourceEntry], parameter_bytes: int = 0) -> Iterator[list[SourceEntry]]:
    """The entries in groups that fit one offer each, with that many bytes of parameters for each entry."""
    group: list[SourceEntry] = []
    room_bytes, attribute_room_bytes = MAX_GROUP_BYTES, MAX_VALUE_BYTES
    for source in entries:
        attributes = source.entry.attributes
        attribute_bytes = EMPTY_BYTES if attributes is None else len(attributes.encode())
        needed_bytes = source.entry.encoded_bytes + parameter_bytes + attribute_bytes
        if len(group) == MAX_GROUP_ENTRIES or needed_bytes > room_bytes or attribute_bytes > attribute_room_bytes:
            yield group
            group, room_bytes, attribute_room_bytes = [], MAX_GROUP_BYTES, MAX_VALUE_BYTES
        group.append(source)
        room_bytes -= needed_bytes
        attribute_room_bytes -= attribute_bytes
    if group:
        yield group


def _check_source(source: Source, recursive: bool, stream_name: str) -> SourceRoot:
    if not isinstance(source, NamedSource):
        return _check_path(os.fspath(source), recursive, stream_name)
    name = encode_name(source.name)
    if not name or b"/" in name or b"\0" in name:
        raise UsageError(f"{printable(source.name) or 'an empty name'}: not a file name, which has no slash")
    content = source.content
    if isinstance(content, (bytes, bytearray, memoryview)):
        return SourceRoot(None, name, None, content=bytes(content), mtime_ns=source.mtime_ns)
    if isinstance(content, (str, os.PathLike)):
        return replace(_check_path(os.fspath(content), recursive, stream_name), name=name)
    if not hasattr(content, "read") or isinstance(content, io.TextIOBase):
        kind = type(content).__name__
        raise UsageError(f"{printable(source.name)}: give a path, bytes, or a file object in binary mode, not {kind}")
    return SourceRoot(None, name, None, content=content)


def _check_path(source: str, recursive: bool, stream_name: str) -> SourceRoot:
    if source == STANDARD_INPUT:
        return SourceRoot(None, encode_stream_name(stream_name), None)
    shown = printable(source) or '""'
    try:
        status = os.stat(source)
        is_readable = os.access(source, os.R_OK)
    except OSError as error:
        raise UsageError(f"{shown}: {os_error_text(error)}") from error
    except ValueError as error:  # the name contains NUL
        raise UsageError(f"{shown}: not a valid file name") from error
    if not is_readable:
        raise UsageError(f"{shown}: permission denied")
    name = os.fsencode(os.path.basename(os.path.abspath(source)))
    if stat.S_ISDIR(status.st_mode):
        if not recursive:
            raise UsageError(f"{shown}: is a directory; use -r to send it with everything in it")
        if not name:
            raise UsageError(f"{shown}: the root directory has no name to send it under; name a directory below it")
    elif not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{shown}: is neither a file nor a directory; to send what it delivers, use - and < {shown}")
    path = os.fsencode(source)
    is_stream = stat.S_ISREG(status.st_mode) and not status.st_blocks and _is_synthetic(path)
    return SourceRoot(path, name, status, is_stream)


def _is_synthetic(path: bytes) -> bool:
    try:
        descriptor = open_named(path)
    except OSError:
        return False
    try:
        return is_synthetic(descriptor)
    finally:
        os.close(descriptor)


def _scan_directory(
    root: SourceDirectory, path: bytes, selection: Selection, on_skipped: OnSkipped
) -> Iterator[SourceEntry]:
    """The content of a directory whose path in the manifest is `path`."""
    below = len(path) + 1
    levels = [(root, path, _names(root, path, on_skipped))]  # a stack: a tree may be deeper than Python recurses
    while levels:
        parent, path, names = levels[-1]
        name = next(names, None)
        if name is None:
            levels.pop()
            continue
        path = path + b"/" + name
        try:
            status = parent.status_of(name)
            if selection.excludes(path[below:], stat.S_ISDIR(status.st_mode)):
                continue
            if stat.S_ISLNK(status.st_mode) and selection.links is LinkChoice.SEND and parent.takes_links:
                yield SourceEntry(_link(path, status, parent.target_of(name), selection))
                continue
            skipped = _skipped(parent, name, path, status)
            is_stream = stat.S_ISREG(status.st_mode) and not status.st_blocks and parent.is_synthetic()
        except OSError as error:
            if not selection.excludes(path[below:], False):
                on_skipped(SkippedEntry(path, _failure_text(error, selection), is_failure=True))
            continue
        if skipped is not None:
            on_skipped(skipped)
        elif stat.S_ISDIR(status.st_mode):
            directory = parent.below(name)
            yield SourceEntry(_directory(directory, path, status, selection))
            levels.append((directory, path, _names(directory, path, on_skipped)))
        else:
            yield from _file(parent, name, path, status, is_stream, selection, on_skipped)


def _skipped(parent: SourceDirectory, name: bytes, path: bytes, status: os.stat_result) -> SkippedEntry | None:
    """Why something in a tree is not sent; None if it is. Raises OSError."""
    if len(path) > MAX_ENCODED_PATH_BYTES:
        return SkippedEntry(path, "its path is too long", is_failure=True)
    if is_partial(name):
        return SkippedEntry(path, "an unfinished file of nettool", is_failure=False)
    if stat.S_ISDIR(status.st_mode):
        if parent.is_received(status):
            return SkippedEntry(path, "the receiver stores files there", is_failure=False)
        if parent.is_below(status):
            return SkippedEntry(path, "a symbolic link to a directory that it is in", is_failure=True)
    elif not stat.S_ISREG(status.st_mode):
        reason = "symbolic link" if stat.S_ISLNK(status.st_mode) else "neither a file nor a directory"
        return SkippedEntry(path, reason, is_failure=False)
    elif not (_owner_may_read(status) or parent.is_readable(name)):
        return SkippedEntry(path, "permission denied", is_failure=True)
    return None


def _owner_may_read(status: os.stat_result) -> bool:
    """Whether this user may read a file because it is theirs; False if only access(2) can tell."""
    return bool(status.st_mode & stat.S_IRUSR) and status.st_uid == os.geteuid()


def _failure_text(error: OSError, selection: Selection) -> str:
    if selection.links is LinkChoice.FOLLOW and error.errno in (errno.ENOENT, errno.ELOOP):
        return "a symbolic link that leads nowhere"
    return os_error_text(error)


def _names(directory: SourceDirectory, path: bytes, on_skipped: OnSkipped) -> Iterator[bytes]:
    """What is in a directory; nothing if it cannot be read."""
    try:
        return iter(directory.names())
    except OSError as error:
        reason = CHANGED if error.errno in REPLACED else os_error_text(error)
        on_skipped(SkippedEntry(path, reason, is_failure=True))
        return iter(())


def _directory(directory: SourceDirectory, name: bytes, status: os.stat_result, selection: Selection) -> Entry:
    entry = Entry(EntryKind.DIRECTORY, name, status.st_mode & PERMISSION_BITS, _mtime_ns(status))
    return _with_attributes(entry, status, selection, directory.xattrs)


def _link(name: bytes, status: os.stat_result, target: bytes, selection: Selection) -> Entry:
    entry = Entry(EntryKind.LINK, name, status.st_mode & PERMISSION_BITS, _mtime_ns(status), target=target)
    return _with_attributes(entry, status, selection, lambda: ())


def _with_attributes(entry: Entry, status: os.stat_result, selection: Selection, read: Callable[[], Xattrs]) -> Entry:
    """The entry with what is preserved of it; `read` reads its extended attributes."""
    if not selection.preserve:
        return entry
    xattrs: Xattrs = ()
    try:
        if selection.preserve & Preserve.XATTRS:
            xattrs = read()
    except OSError as error:
        _LOGGER.warning("%s: extended attributes not sent (%s)", printable(entry.name), os_error_text(error))
    return replace(entry, attributes=attributes_of(status, selection.preserve, xattrs))


def _xattrs_of(origin: FileOrigin) -> Xattrs:
    """The extended attributes of a file; none of one that has changed, which is noticed when it is sent."""
    try:
        descriptor = origin.open()
    except SourceChangedError:
        return ()
    try:
        return read_xattrs(descriptor)
    finally:
        os.close(descriptor)


def _file(
    directory: SourceDirectory | None,
    name: bytes,
    path: bytes,
    status: os.stat_result,
    is_stream: bool,
    selection: Selection,
    on_skipped: OnSkipped,
) -> Iterator[SourceEntry]:
    """The entry of a file, see FileOrigin; none if it has changed since it was found."""
    is_sparse = not is_stream and status.st_blocks * 512 < status.st_size
    origin = FileOrigin(directory, name, display_name(path), FileIdentity.of(status), is_sparse, is_stream)
    mode = status.st_mode & PERMISSION_BITS
    if is_stream:
        entry = Entry(EntryKind.FILE, path, mode, _mtime_ns(status), None)
        yield SourceEntry(_with_attributes(entry, status, selection, partial(_xattrs_of, origin)), origin)
        return
    content_bytes = status.st_size
    if is_sparse:
        try:
            descriptor = origin.open()
        except SourceChangedError as error:
            on_skipped(SkippedEntry(path, error.reason, is_failure=True))
            return
        try:
            if selection.trusts_holes or is_honest_about_holes(descriptor):
                holes = (segment.length for segment in segments_of(descriptor, status.st_size) if segment.is_hole)
                content_bytes -= sum(holes)
            else:
                origin = replace(origin, is_sparse=False)
        finally:
            os.close(descriptor)
    entry = Entry(EntryKind.FILE, path, mode, _mtime_ns(status), status.st_size, content_bytes)
    yield SourceEntry(_with_attributes(entry, status, selection, partial(_xattrs_of, origin)), origin)


def _mtime_ns(status: os.stat_result) -> int:
    """The modification time, clamped to what a message can hold (years 1677 to 2262)."""
    return max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))
