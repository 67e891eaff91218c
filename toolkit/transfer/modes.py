"""Which permission bits a received file or directory gets, and how they are set.

As with `cp`, the bits are the sender's without those of the receiver's umask(2). A file is executable only if the
receiver asks for that (`--preserve-modes`): a program that a stranger sends must not run by accident, for example
through tab completion. Set-user-ID, set-group-ID and sticky bits never come from a sender; manifest.py rejects them.
All this is different if the receiver allows it with `--preserve` (attributes.py).
"""

import errno
import logging
import os
import stat
import threading

from toolkit.transfer.attributes import Attributes

_LOGGER = logging.getLogger(__name__)

EXECUTE_BITS = 0o111
_READABLE = 0o755
_DIRECTORY_INHERITS = stat.S_ISGID  # mkdir(2) takes it from the parent; shared directories depend on it
_NOT_SUPPORTED = frozenset(
    {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EOVERFLOW}
)
_swapping = threading.Lock()


def process_umask() -> int:
    """The umask of this process."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except (OSError, ValueError, IndexError):
        pass
    with _swapping:  # umask(2) can only be read by setting it; what other threads create meanwhile is private
        umask = os.umask(0o077)
        os.umask(umask)
    return umask


def file_mode(offered: int, umask: int, keeps_execute: bool) -> int:
    """The mode of a file that was offered with the bits `offered`."""
    return offered & ~umask & (0o777 if keeps_execute else ~EXECUTE_BITS)


def directory_mode(offered: int, umask: int) -> int:
    """The mode of a directory that was offered with the bits `offered`; search bits are execute bits, and are kept."""
    return offered & ~umask


def first_directory_mode(mode: int, attributes: Attributes | None) -> int:
    """The mode that a directory has until the session ends: only its owner may write to it.

    Others may read it as its final mode says, since a session that is killed leaves it like that. They may not while
    something that is preserved of it, such as its owner, is not set yet.
    """
    return stat.S_IRWXU | (mode & _READABLE if attributes is None else 0)


def apply_attributes(descriptor: int, mode: int, mtime_ns: int, status: os.stat_result | None = None) -> bool:
    """Set mode and modification time, as far as the file system has them; a directory keeps an inherited set-group-ID.

    status: what it has now, if the caller knows that

    Returns whether both are set. Raises OSError for any other failure: a remote file system may report a failed write
    here.
    """
    status = status or os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        mode |= status.st_mode & _DIRECTORY_INHERITS
    are_set = True
    try:
        if stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        are_set = False
    try:
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        are_set = False
    return are_set


class AttributeSetter:
    """Sets what entries have besides content, and counts those where it could not. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plain_entries = 0  # with another mode or time than they should have
        self._foreign_entries = 0  # without all that should be preserved

    def apply(
        self,
        descriptor: int,
        mode: int,
        mtime_ns: int,
        status: os.stat_result | None = None,
        attributes: Attributes | None = None,
    ) -> None:
        """See `apply_attributes`, and attributes.py for what is preserved besides. Raises OSError."""
        is_whole = True
        if attributes is not None:
            is_whole = attributes.set_on(descriptor)
            mode |= attributes.special_bits if is_whole else 0
            status = None  # a new owner may have changed the mode
        is_plain = not apply_attributes(descriptor, mode, mtime_ns, status)
        if is_plain or not is_whole:
            with self._lock:
                self._plain_entries += is_plain
                self._foreign_entries += not is_whole

    def warn(self) -> None:
        """Warn about what could not be set, once."""
        if self._plain_entries:
            _LOGGER.warning(
                "mode or time of %d received entries could not be set: the file system does not allow it",
                self._plain_entries,
            )
        if self._foreign_entries:
            _LOGGER.warning(
                "owner or extended attributes of %d received entries could not be set: only root may give files away, "
                "and not every file system has such attributes",
                self._foreign_entries,
            )
        self._plain_entries = self._foreign_entries = 0
