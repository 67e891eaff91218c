"""Unfinished files: those that a receiver has kept for a later session, or could not remove because it was killed.

A receiver removes those of STALE_AFTER_S and more from each directory that it receives into; `nettool clean` removes
them from a whole tree. A file in progress is never that old: content arrives, or its session ends (limits.py). Nobody
removes a file that a session has locked (unfinished.py).
"""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from toolkit.transfer.file_system import open_to_lock, try_lock
from toolkit.transfer.names import display_name, is_partial

STALE_AFTER_S = 8 * 86_400.0
"""A day more than the longest session by default."""


class Leftover(NamedTuple):
    """An unfinished file: its path, its size in bytes, and the seconds since it last changed.

    is_in_use: whether a receiver has locked it: it is left
    failure:   why it could not be removed; None unless that was tried
    """

    path: str
    size_bytes: int
    age_s: float
    is_in_use: bool = False
    failure: str | None = None


def leftovers_below(directory: str | os.PathLike[str], older_than_s: float, remove: bool) -> Iterator[Leftover]:
    """Find the unfinished files of this user in a tree, for root those of every user, and remove each if asked to.

    No links are followed, except that `directory` itself may be one. What cannot be read is skipped. Raises OSError if
    that is the directory itself.
    """
    top = os.path.join(os.fsencode(directory), b"")  # os.fwalk yields nothing for the name of a link
    for parent, _, names, descriptor in os.fwalk(top):
        for leftover in _in_directory(descriptor, names, older_than_s):
            failure, name = None, os.fsencode(leftover.path)
            with _locked(descriptor, name) as is_free:
                if remove and is_free:
                    try:
                        os.unlink(name, dir_fd=descriptor)
                    except FileNotFoundError:  # a receiver has removed it meanwhile
                        continue
                    except OSError as error:
                        failure = (error.strerror or "unknown error").lower()
            path = os.path.join(display_name(parent), leftover.path)
            yield leftover._replace(path=path, is_in_use=not is_free, failure=failure)


def remove_stale_in(directory: str | os.PathLike[str]) -> None:
    """Remove what is stale in one directory, as far as possible."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        remove_stale(descriptor)
        os.close(descriptor)


def remove_stale(descriptor: int) -> None:
    """Remove what is stale in the directory that `descriptor` is open for, as far as possible."""
    with suppress(OSError):
        for leftover in _in_directory(descriptor, [os.fsencode(name) for name in os.listdir(descriptor)]):
            name = os.fsencode(leftover.path)
            with suppress(OSError), _locked(descriptor, name) as is_free:
                if is_free:
                    os.unlink(name, dir_fd=descriptor)


@contextmanager
def _locked(directory: int, name: bytes) -> Iterator[bool]:
    """Lock a file for the block, so that no session takes it over, and yield whether no session has it.

    Before the lock is taken, a session may end and another one make a file of the same name.
    """
    descriptor, is_free = -1, True
    with suppress(OSError):  # what cannot be opened or locked is in no session
        descriptor = open_to_lock(name, directory)
        is_free = try_lock(descriptor)
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
        is_free = is_free and os.path.samestat(os.fstat(descriptor), named)
    try:
        yield is_free
    finally:
        if descriptor >= 0:
            with suppress(OSError):  # nothing was written
                os.close(descriptor)


def _in_directory(descriptor: int, names: list[bytes], older_than_s: float = STALE_AFTER_S) -> Iterator[Leftover]:
    now_s = time.time()
    for name in names:
        if not is_partial(name):
            continue
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except OSError:
            continue
        age_s = now_s - max(status.st_mtime, status.st_ctime)
        if _may_be_left(status) and age_s >= older_than_s:
            yield Leftover(display_name(name), status.st_size, age_s)


def _may_be_left(status: os.stat_result) -> bool:
    """Whether a receiver of this user may have made it: a file, or a link that was to replace another.

    One of root may have been killed when it had given the file to its owner, and not its final name (attributes.py).
    """
    is_own = os.geteuid() in (0, status.st_uid)
    return is_own and (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode))
