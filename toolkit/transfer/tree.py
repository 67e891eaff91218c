"""The receiving directory: every path below it is opened component by component, and no symbolic link is followed.

A path that the kernel resolves as one string may leave the directory through a symbolic link. Here each directory is
opened relative to the descriptor of its parent, with O_NOFOLLOW (openat(2)), and files are named relative to such a
descriptor. Nothing outside the directory can be reached, whatever the names and the links.

`Tree.publish` gives a file that stored_file.py has written and verified its final name.
"""

import contextlib
import ctypes
import errno
import os
import stat
import threading
from collections.abc import Callable
from functools import partial

from toolkit.errors import TransferError, UsageError, printable
from toolkit.transfer.attributes import Attributes
from toolkit.transfer.destination import RefusedEntryError
from toolkit.transfer.file_system import maps_extents, storage_reason
from toolkit.transfer.leftovers import remove_stale
from toolkit.transfer.modes import AttributeSetter, first_directory_mode
from toolkit.transfer.names import display_name
from toolkit.transfer.place import ReceiverPlace

MAX_OPEN_DIRECTORIES = 16
MAX_DIRECTORY_BYTES = 1 << 26
"""Memory for the directories that a session has made, whose mode and time are set at its end.

Enough for 220,000 directories with paths of 100 bytes. More are refused, and so is what is in them.
"""
MAX_SWEPT_DIRECTORIES = 1 << 14
_DIRECTORY_OVERHEAD_BYTES = 205  # of an entry besides its path, as measured

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_RENAME_NOREPLACE = 1
_NOT_SUPPORTED = frozenset({errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
# The last way to publish a file, plain rename, replaces. Sessions of this process therefore check and rename one at a
# time; only a file that another process creates between the two is lost.
_publishing = threading.Lock()

CHANGED_HERE = "differs from the receiver's; the receiver replaces files only with `overwrite`"
EXISTS = "already exists; the receiver replaces files only with `overwrite`, and `update` skips unchanged ones"
REPLACED = "another process replaced its temporary file"
SAME_FILE = "the receiver's file system takes its name for that of another file of this session"

FileKey = tuple[int, int, int]
"""Device, inode and owner."""


class Tree:
    """The directory that a session writes to. Thread-safe. Paths are tuples of components relative to it.

    durable:      whether a name is on the disk (fsync of its directory) when the call that made it returns
    maps_extents: see file_system.py
    device:       the `st_dev` of the directory's file system
    setter:       sets what files and directories have besides content

    Raises UsageError if the directory cannot be opened.
    """

    def __init__(self, directory: str | os.PathLike[str], durable: bool) -> None:
        shown = printable(os.fspath(directory))
        try:
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                status = os.fstat(root)
            except BaseException:
                os.close(root)
                raise
        except OSError as error:
            raise UsageError(f"{shown}: {(error.strerror or '').lower()}; name an existing directory") from error
        self._durable = durable
        self.maps_extents = maps_extents(root)
        self.device = status.st_dev
        self.place = ReceiverPlace.of(status)
        self._lock = threading.RLock()
        self._descriptors: dict[tuple[bytes, ...], int] = {(): root}
        self._made: dict[bytes, tuple[int, int, bytes | None]] = {}  # see `make_directory`; in that order
        self._made_bytes = 0  # of memory
        self.setter = AttributeSetter()
        self._swept: set[int] = set()  # existing directories in which stale files were looked for
        self._published: set[int] = set()  # the files and links of this session, if they may be replaced

    def directory(self, components: tuple[bytes, ...]) -> "_DirectoryInUse":
        """A descriptor of the directory at that path, valid in the block. Raises RefusedEntryError."""
        return _DirectoryInUse(self._lock, self._descriptor, components)

    def _descriptor(self, components: tuple[bytes, ...]) -> int:
        known = self._descriptors.get(components)
        if known is not None:
            return known
        parent = self._descriptor(components[:-1])
        try:
            descriptor = os.open(components[-1], _DIRECTORY, dir_fd=parent)
        except OSError as error:
            raise RefusedEntryError(_directory_refusal(error, parent, components[-1])) from error
        if len(self._descriptors) > MAX_OPEN_DIRECTORIES:
            self._close_directory(next(path for path in self._descriptors if path))
        self._descriptors[components] = descriptor
        return descriptor

    def _close_directory(self, components: tuple[bytes, ...]) -> None:
        os.close(self._descriptors.pop(components))

    def has_made(self, path: bytes) -> bool:
        """Whether the session has made the directory at that path, so that no earlier files are in it."""
        return path in self._made

    def free_bytes(self) -> int | None:
        """Free space on the file system; None if it does not tell."""
        try:
            with self.directory(()) as root:
                status = os.fstatvfs(root)
        except OSError:  # the files will show whether there is space
            return None
        return status.f_bavail * status.f_frsize if status.f_blocks else None

    def make_directory(
        self, components: tuple[bytes, ...], mode: int, mtime_ns: int, attributes: Attributes | None = None
    ) -> None:
        """Make a directory unless it exists. `finish` sets mode, time and attributes. Raises RefusedEntryError."""
        path = b"/".join(components)
        encoded = None if attributes is None else attributes.encode()
        made_bytes = self._made_bytes + len(path) + len(encoded or b"") + _DIRECTORY_OVERHEAD_BYTES
        if made_bytes > MAX_DIRECTORY_BYTES:
            raise RefusedEntryError(f"too many directories in one session, after {len(self._made)}: send it in parts")
        with self.directory(components[:-1]) as parent:
            try:
                os.mkdir(components[-1], first_directory_mode(mode, attributes), dir_fd=parent)
                self._made[path] = mode, mtime_ns, encoded
                self._made_bytes = made_bytes
                if self._durable:
                    os.fsync(parent)
                is_new = True
            except FileExistsError:
                is_new = False
            except OSError as error:
                raise RefusedEntryError(storage_reason(error)) from error
            descriptor = self._descriptor(components)
            if not is_new:
                self._sweep(descriptor)

    def _sweep(self, descriptor: int) -> None:
        """Remove what is stale in a directory, once in a session: a peer may offer a large one again and again."""
        with contextlib.suppress(OSError):
            key = inode_key(os.fstat(descriptor))
            if key not in self._swept and len(self._swept) < MAX_SWEPT_DIRECTORIES:
                self._swept.add(key)
                remove_stale(descriptor)

    def check_file(self, components: tuple[bytes, ...], overwrite: bool) -> None:
        """Check that a file may be put there. Raises RefusedEntryError.

        A file of this session is never replaced, even with `overwrite`: where `A` and `a` are one name, or two ways to
        encode a letter, the first file would be lost although the sender was told that it is stored.
        """
        status = self.status_of(components)
        if status is not None:
            self.check_existing(status, overwrite)

    def check_existing(self, status: os.stat_result, overwrite: bool) -> None:
        """As `check_file`, for what has that name by now."""
        _check_existing(status, overwrite)
        self.check_earlier(status)

    def check_earlier(self, status: os.stat_result) -> None:
        """Check that what has this status was there before the session. Raises RefusedEntryError."""
        if inode_key(status) in self._published:
            raise RefusedEntryError(SAME_FILE)

    def add_published(self, status: os.stat_result) -> None:
        """Take note of a file or link of this session, if such may be replaced."""
        self._published.add(inode_key(status))

    def status_of(self, components: tuple[bytes, ...]) -> os.stat_result | None:
        """The status of a file or of whatever has its name, without following links; None if nothing has it.

        Raises RefusedEntryError.
        """
        with self.directory(components[:-1]) as parent:
            try:
                return os.stat(components[-1], dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise RefusedEntryError(storage_reason(error)) from error

    def open_file(self, components: tuple[bytes, ...]) -> int:
        """A descriptor to read a file with; the caller checks that it is one. Raises RefusedEntryError, OSError."""
        with self.directory(components[:-1]) as parent:
            return os.open(components[-1], _READ, dir_fd=parent)

    def publish(
        self, components: tuple[bytes, ...], temporary: bytes, overwrite: bool, identity: FileKey | None = None
    ) -> None:
        """Give the file `temporary` its final name in the same directory, atomically.

        Without `overwrite` it replaces nothing, even if another process creates a file of that name meanwhile.

        identity: what the file is known by. Where others may rename what is in the directory, another file that has
                  got its name is not published; with `overwrite` it is at least noticed.

        Raises RefusedEntryError, OSError.
        """
        name = components[-1]
        with self.directory(components[:-1]) as parent:
            if not _is_shared(parent):
                identity = None
            if overwrite:
                self.check_file(components, overwrite=True)
                status = os.stat(temporary, dir_fd=parent, follow_symlinks=False)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
                self.add_published(status)
            else:
                self._publish_new(parent, components, temporary, identity)
            if identity is not None:
                _check_identity(parent, name, identity)
            directory = os.dup(parent) if self._durable else -1
        if self._durable:
            try:
                os.fsync(directory)  # without the lock, so that files that are published together share it
            finally:
                os.close(directory)

    def _publish_new(
        self, parent: int, components: tuple[bytes, ...], temporary: bytes, identity: FileKey | None
    ) -> None:
        """Publish a file unless the name exists: atomically by renameat2(2) or link(2), where there is one of them."""
        name = components[-1]
        by_descriptor = () if identity is None else (partial(_link_descriptor, identity),)
        for publish in (*by_descriptor, rename_new, _link_new):
            try:
                publish(parent, temporary, name)
                return
            except FileExistsError:
                self.check_file(components, overwrite=False)  # refuses with the reason
                raise
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
        with _publishing:
            self.check_file(components, overwrite=False)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def remove(self, components: tuple[bytes, ...]) -> None:
        """Remove a file if it exists."""
        with contextlib.suppress(OSError, RefusedEntryError), self.directory(components[:-1]) as parent:
            os.unlink(components[-1], dir_fd=parent)

    def finish(self, complete: bool) -> None:
        """Set mode, time and attributes of the directories made; unless `complete`, remove those that are empty.

        Raises TransferError if a directory of a complete session could not be forced to the disk.
        """
        failure: TransferError | None = None
        for path, (mode, mtime_ns, encoded) in reversed(self._made.items()):
            components = tuple(path.split(b"/"))
            attributes = None if encoded is None else Attributes.decode(encoded)
            with contextlib.suppress(OSError, RefusedEntryError):
                if not complete:
                    with self.directory(components[:-1]) as parent, contextlib.suppress(OSError):
                        os.rmdir(components[-1], dir_fd=parent)
                with self.directory(components) as descriptor:
                    if not complete:  # it holds something that a later session goes on with
                        mode |= stat.S_IRWXU
                    self.setter.apply(descriptor, mode, mtime_ns, attributes=attributes)
                    if self._durable:
                        try:
                            os.fsync(descriptor)
                        except OSError as error:
                            failure = TransferError(f"{printable(display_name(path))}: {storage_reason(error)}")
        self._made.clear()
        self._made_bytes = 0
        if failure is not None and complete:
            raise failure

    def close(self) -> None:
        """Close every descriptor; idempotent."""
        with self._lock:
            while self._descriptors:
                self._close_directory(next(iter(self._descriptors)))


class _DirectoryInUse:
    """A context with a descriptor: what contextlib offers costs several times as much, three times for every file."""

    __slots__ = ("_components", "_find", "_lock")

    def __init__(self, lock: threading.RLock, find: Callable[..., int], components: tuple[bytes, ...]) -> None:
        self._lock = lock
        self._find = find
        self._components = components

    def __enter__(self) -> int:
        self._lock.acquire()
        try:
            return self._find(self._components)
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def rename_new(directory: int, old: bytes, new: bytes) -> None:
    """Rename a file within a directory; never replaces one. Raises OSError, with EEXIST if the new name exists.

    The error is ENOSYS or EINVAL where the system or the file system has no such call (NFS).
    """
    if _libc is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _libc.renameat2(directory, old, directory, new, _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def file_key(status: os.stat_result) -> FileKey:
    """What a file is known by. No other user's file has it, even if it gets the inode of one that was removed."""
    return status.st_dev, status.st_ino, status.st_uid


def inode_key(status: os.stat_result) -> int:
    """Device and inode in one number, as a session may publish a million files."""
    return status.st_dev << 64 | status.st_ino


def _check_identity(directory: int, name: bytes, identity: FileKey) -> None:
    """Raise OSError if another file has the name; a file that has been taken away at once was there."""
    with contextlib.suppress(FileNotFoundError):
        if file_key(os.stat(name, dir_fd=directory, follow_symlinks=False)) != identity:
            raise OSError(0, REPLACED)


def _is_shared(directory: int) -> bool:
    """Whether other users, but for root, may rename the files of this one in a directory."""
    status = os.fstat(directory)
    is_writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    return bool(is_writable) or status.st_uid not in (0, os.geteuid())


def _link_descriptor(identity: FileKey, directory: int, old: bytes, new: bytes) -> None:
    """Link the file of that identity, whatever has its name by now. Raises OSError, EPERM also without /proc."""
    descriptor = os.open(old, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if file_key(os.fstat(descriptor)) != identity:
            raise OSError(0, REPLACED)
        try:
            os.link(f"/proc/self/fd/{descriptor}", new, dst_dir_fd=directory, follow_symlinks=True)
        except FileNotFoundError:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from None
    finally:
        os.close(descriptor)
    with contextlib.suppress(FileNotFoundError):  # another user has renamed it, which changes nothing by now
        os.unlink(old, dir_fd=directory)


def _link_new(directory: int, old: bytes, new: bytes) -> None:
    os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    os.unlink(old, dir_fd=directory)


def _load() -> ctypes.CDLL | None:
    """The C library, if it has renameat2(2), which Python does not offer."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        library.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    except (OSError, AttributeError):
        return None
    return library


_libc = _load()


def _directory_refusal(error: OSError, parent: int, name: bytes) -> str:
    if error.errno == errno.ENOENT:
        return "its directory does not exist"
    if error.errno in (errno.ELOOP, errno.ENOTDIR):  # Linux returns the latter for a link too, because of O_DIRECTORY
        with contextlib.suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                return "a symbolic link is in the way"
        return "part of its path is not a directory"
    return storage_reason(error)


def _check_existing(status: os.stat_result, overwrite: bool) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise RefusedEntryError("a symbolic link is in the way")
    if stat.S_ISDIR(status.st_mode):
        raise RefusedEntryError("a directory has that name")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedEntryError("a special file has that name")
    if not overwrite:
        raise RefusedEntryError(EXISTS)
