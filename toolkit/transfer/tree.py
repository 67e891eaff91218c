"""The receiving directory: every path below it is walked component by component, and no symbolic link
followed.

A path that is given to the kernel as one string may leave the directory through a link that stands in it.
Here each directory is opened from its parent's descriptor with O_NOFOLLOW (openat(2)), and files are named
relative to such a descriptor, so that nothing outside can be reached, whatever the names and the links.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator

from toolkit.errors import TransferError, UsageError, printable
from toolkit.transfer import preallocate

MAX_OPEN_DIRECTORIES = 16

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A file system without hard links cannot publish a file atomically unless by rename, which replaces: one at a
# time.
_publishing = threading.Lock()

EXISTS = "it exists already; the receiver replaces files only with --overwrite"


class RefusedEntryError(Exception):
    """An entry that is refused, and why; the rest goes on."""


class Tree:
    """The directory that a session writes to. Safe for threads.

    durable: whether names are on the disk (fsync of their directory) when a call returns
    """

    def __init__(self, directory: str | os.PathLike[str], durable: bool) -> None:
        shown = printable(os.fspath(directory))
        try:
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{shown}: {(error.strerror or '').lower()}; name a directory to receive into") from error
        self._durable = durable
        self.maps_extents = preallocate.maps_extents(root)
        self._lock = threading.RLock()
        self._descriptors: dict[tuple[bytes, ...], int] = {(): root}
        self._made: list[tuple[tuple[bytes, ...], int, int]] = []

    @contextlib.contextmanager
    def at(self, components: tuple[bytes, ...]) -> Iterator[int]:
        """A descriptor of the directory at that path. Raises RefusedEntryError."""
        with self._lock:
            yield self._descriptor(components)

    def _descriptor(self, components: tuple[bytes, ...]) -> int:
        known = self._descriptors.get(components)
        if known is not None:
            return known
        parent = self._descriptor(components[:-1])
        try:
            descriptor = os.open(components[-1], _DIRECTORY, dir_fd=parent)
        except OSError as error:
            raise RefusedEntryError(_why_no_directory(error, parent, components[-1])) from error
        if len(self._descriptors) > MAX_OPEN_DIRECTORIES:
            self._forget(next(known for known in self._descriptors if known))
        self._descriptors[components] = descriptor
        return descriptor

    def _forget(self, components: tuple[bytes, ...]) -> None:
        os.close(self._descriptors.pop(components))

    def free_bytes(self) -> int | None:
        """How much content still fits on the file system; None where it does not say."""
        with self.at(()) as root:
            status = os.fstatvfs(root)
        return status.f_bavail * status.f_frsize if status.f_blocks else None

    def make(self, components: tuple[bytes, ...], mode: int, mtime_ns: int) -> None:
        """Make a directory, or find it there. Its mode and time are set by `finish`. Raises RefusedEntryError."""
        with self.at(components[:-1]) as parent:
            try:
                os.mkdir(components[-1], 0o700, dir_fd=parent)
                self._made.append((components, mode, mtime_ns))
                if self._durable:
                    os.fsync(parent)
            except FileExistsError:
                pass
            except OSError as error:
                raise RefusedEntryError(reason_of(error)) from error
            self._descriptor(components)

    def check(self, components: tuple[bytes, ...], overwrite: bool) -> None:
        """Whether a file may be put there. Raises RefusedEntryError."""
        with self.at(components[:-1]) as parent:
            try:
                status = os.stat(components[-1], dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return
            except OSError as error:
                raise RefusedEntryError(reason_of(error)) from error
        _check_in_the_way(status, overwrite)

    def publish(self, parts: tuple[bytes, ...], temporary: bytes, overwrite: bool) -> None:
        """Give the file `temporary` its final name in the same directory, whole or not at all.

        Nothing is replaced unless `overwrite`, whoever comes in between. Raises RefusedEntryError, OSError.
        """
        name = parts[-1]
        with self.at(parts[:-1]) as parent:
            if overwrite:
                self.check(parts, overwrite=True)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            else:
                self._publish_new(parent, parts, temporary)
            if self._durable:
                os.fsync(parent)

    def _publish_new(self, parent: int, parts: tuple[bytes, ...], temporary: bytes) -> None:
        name = parts[-1]
        try:
            os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            self.check(parts, overwrite=False)  # says what it is that came in between
            raise
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            with _publishing:
                self.check(parts, overwrite=False)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        else:
            os.unlink(temporary, dir_fd=parent)

    def remove(self, components: tuple[bytes, ...]) -> None:
        """Remove a file if it is there."""
        with contextlib.suppress(OSError, RefusedEntryError), self.at(components[:-1]) as parent:
            os.unlink(components[-1], dir_fd=parent)

    def finish(self, complete: bool) -> None:
        """Set the modes and times of the directories made; of a session that failed, keep only what holds
        files.
        """
        for components, mode, mtime_ns in reversed(self._made):
            with contextlib.suppress(OSError, RefusedEntryError):
                if not complete:
                    with self.at(components[:-1]) as parent, contextlib.suppress(OSError):
                        os.rmdir(components[-1], dir_fd=parent)
                with self.at(components) as descriptor:
                    os.fchmod(descriptor, mode)
                    os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        self._made.clear()

    def close(self) -> None:
        """Give up every descriptor; idempotent."""
        with self._lock:
            while self._descriptors:
                self._forget(next(iter(self._descriptors)))


def reason_of(error: OSError) -> str:
    """Why the receiver cannot store something, for both users."""
    reasons = {
        errno.ENOSPC: "no space left on the receiver's disk",
        errno.EDQUOT: "the receiver's disk quota is used up",
        errno.EFBIG: "larger than the receiver's file system takes",
        errno.EROFS: "the receiver's file system is read-only",
        errno.EACCES: "the receiver may not write there",
        errno.EPERM: "the receiver may not write there",
        errno.ENAMETOOLONG: "its name is too long for the receiver's file system",
        errno.EILSEQ: "the receiver's file system does not take its name",
    }
    return reasons.get(error.errno or 0) or f"the receiver cannot store it ({error.strerror})"


def storage_error(error: OSError, name: str) -> TransferError:
    """The error that ends a session in which a file cannot be written."""
    return TransferError(f"{printable(name)}: {reason_of(error)}")


def _why_no_directory(error: OSError, parent: int, name: bytes) -> str:
    if error.errno == errno.ENOENT:
        return "its directory is not there"
    if error.errno in (errno.ELOOP, errno.ENOTDIR):  # Linux has the latter for a link, too, because of O_DIRECTORY
        with contextlib.suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                return "a symbolic link is in the way"
        return "its path leads through something that is no directory"
    return reason_of(error)


def _check_in_the_way(status: os.stat_result, overwrite: bool) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise RefusedEntryError("a symbolic link is in the way")
    if stat.S_ISDIR(status.st_mode):
        raise RefusedEntryError("a directory of that name is in the way")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedEntryError("something that is no file is in the way")
    if not overwrite:
        raise RefusedEntryError(EXISTS)
