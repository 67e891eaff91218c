"""The directories that a sender reads, by descriptor and never through a symbolic link.

A user who may write to a tree can swap a directory for a link while another user, for example root, sends the tree. A
path that the kernel resolves as one string would then lead out of it. Here each directory is opened relative to the
descriptor of its parent, with O_NOFOLLOW (openat(2)), and files relative to such a descriptor. Only the source that
the user names may itself be a link, unless the user asks for links to be followed.

Few descriptors stay open, however deep or wide the tree: a directory is opened again, from the nearest one that is
open, when it is needed again. It must then still be the same one.
"""

import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from toolkit.transfer.attributes import Xattrs, read_xattrs
from toolkit.transfer.file_system import is_synthetic
from toolkit.transfer.place import ReceiverPlace

MAX_OPEN_DIRECTORIES = 16

_Result = TypeVar("_Result")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: without it, opening a FIFO that has taken the place of a file would block.
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class DirectoryIdentity(NamedTuple):
    """What a directory keeps while it exists; named as in os.stat_result."""

    st_dev: int
    st_ino: int


class SourceDirectory:
    """A directory to send: one that the user names, or one below it. Its calls raise OSError."""

    __slots__ = ("_directories", "identity", "parent", "path")

    def __init__(self, directories: "SourceDirectories", path: bytes, parent: "SourceDirectory | None" = None) -> None:
        self._directories = directories
        self.path = path  # one component, if there is a parent
        self.parent = parent
        self.identity: DirectoryIdentity | None = None  # once it has been opened

    def below(self, name: bytes) -> "SourceDirectory":
        """The directory of that name in this one."""
        return SourceDirectory(self._directories, name, self)

    def names(self) -> list[bytes]:
        """What is in the directory, sorted so that whole paths come in byte order, as `LC_ALL=C sort` has them."""
        return self._directories.call(self, partial(_sorted_names, self._directories.follows_links))

    def status_of(self, name: bytes) -> os.stat_result:
        """The status of a file or directory in this one; that of a link itself, unless links are followed."""
        return self._directories.call(self, os.stat, name, follow_symlinks=self._directories.follows_links)

    def target_of(self, name: bytes) -> bytes:
        """What a symbolic link in this directory leads to."""
        target: bytes = self._directories.call(self, os.readlink, name)
        return target

    @property
    def takes_links(self) -> bool:
        """Whether the receiver takes symbolic links."""
        return self._directories.takes_links

    def is_readable(self, name: bytes) -> bool:
        """Whether this user may read a file in this directory."""
        return self._directories.call(self, os.access, name, os.R_OK)

    def is_received(self, status: os.stat_result) -> bool:
        """Whether a directory in this one is where the receiver stores files, or in such a directory."""
        place = self._directories.place
        return place is not None and (place.is_at(status) or self._directories.is_received(self))

    def is_below(self, status: os.stat_result) -> bool:
        """Whether this directory is the one with that status, or in it: a link to it would never end."""
        directory: SourceDirectory | None = self
        while directory is not None:
            if directory.identity == (status.st_dev, status.st_ino):
                return True
            directory = directory.parent
        return False

    def is_synthetic(self) -> bool:
        """See file_system.py."""
        return self._directories.call(self, _is_synthetic)

    def xattrs(self) -> Xattrs:
        """The extended attributes of the directory."""
        return self._directories.call(self, _xattrs)

    def open_file(self, name: bytes) -> int:
        """Open a file in this directory, and return the descriptor. The caller checks what kind of file it is."""
        return self._directories.call(self, os.open, name, _FILE | self._directories.no_follow)


class SourceDirectories:
    """The directories that a session has open, MAX_OPEN_DIRECTORIES at most. Thread-safe.

    follows_links: whether symbolic links in the tree lead to what is sent in their place
    no_follow:     the flag for open(2) by which they do not
    takes_links:   whether the receiver takes symbolic links
    place:         the mark of the receiver's directory, once it is known
    """

    def __init__(self, follows_links: bool = False) -> None:
        self.follows_links = follows_links
        self.takes_links = False
        self.no_follow = 0 if follows_links else os.O_NOFOLLOW
        self._lock = threading.Lock()
        self._descriptors: dict[SourceDirectory, int] = {}  # the one used last at the end
        self._last: SourceDirectory | None = None  # the one used last, if it is open
        self._is_closed = False
        self.place: ReceiverPlace | None = None

    def is_received(self, directory: SourceDirectory | None) -> bool:
        """Whether a directory or one above it is where the receiver stores files."""
        while directory is not None:
            if self.place is not None and directory.identity is not None and self.place.is_at(directory.identity):
                return True
            directory = directory.parent
        return False

    def call(self, directory: SourceDirectory, function: Callable[..., _Result], *args: Any, **options: Any) -> _Result:
        """Call `function` with `dir_fd`, a descriptor of the directory. Raises OSError."""
        with self._lock:
            try:
                return function(*args, dir_fd=self._opened(directory), **options)
            finally:
                if self._is_closed:  # a channel may still send what the session has handed to it
                    self._close_all_but(0)

    def close(self) -> None:
        """Close every descriptor; idempotent. The directories can still be used, and are then opened each time."""
        with self._lock:
            self._is_closed = True
            self._close_all_but(0)

    def _opened(self, directory: SourceDirectory) -> int:
        if directory is self._last:
            return self._descriptors[directory]
        missing: list[SourceDirectory] = []
        nearest: SourceDirectory | None = directory
        while nearest is not None and nearest not in self._descriptors:
            missing.append(nearest)
            nearest = nearest.parent
        if nearest is not None:
            self._descriptors[nearest] = self._descriptors.pop(nearest)
        for one in reversed(missing):
            self._descriptors[one] = self._open(one)
            self._close_all_but(MAX_OPEN_DIRECTORIES)
        self._last = directory
        return self._descriptors[directory]

    def _open(self, directory: SourceDirectory) -> int:
        """Open a directory whose parent is open."""
        if directory.parent is None:
            descriptor = os.open(directory.path, _DIRECTORY)
        else:
            descriptor = os.open(
                directory.path, _DIRECTORY | self.no_follow, dir_fd=self._descriptors[directory.parent]
            )
        status = os.fstat(descriptor)
        identity = DirectoryIdentity(status.st_dev, status.st_ino)
        if directory.identity not in (None, identity):
            os.close(descriptor)
            raise OSError(errno.ESTALE, "another directory took its place")
        directory.identity = identity
        return descriptor

    def _close_all_but(self, count: int) -> None:
        self._last = None
        while len(self._descriptors) > count:
            os.close(self._descriptors.pop(next(iter(self._descriptors))))


def _sorted_names(follows_links: bool, dir_fd: int) -> list[bytes]:
    with os.scandir(dir_fd) as found:
        keys = {os.fsencode(one.name): _is_directory(one, follows_links) for one in found}
    return sorted(keys, key=lambda name: name + b"/" * keys[name])


def _is_directory(found: "os.DirEntry[str]", follows_links: bool) -> bool:
    """Whether something is sorted as a directory; a link that cannot be followed is not. Its status says why."""
    try:
        return found.is_dir(follow_symlinks=follows_links)
    except OSError:
        return False


def _xattrs(dir_fd: int) -> Xattrs:
    return read_xattrs(dir_fd)


def _is_synthetic(dir_fd: int) -> bool:
    return is_synthetic(dir_fd)


def open_named(path: bytes) -> int:
    """Open a file that the user named, and return the descriptor; a link is followed. Raises OSError."""
    return os.open(path, _FILE)
