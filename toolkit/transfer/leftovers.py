"""Unfinished files: those that a receiver has kept for a later session, or could not remove because it was killed.

A receiver removes those of STALE_AFTER_S and more from each directory that it receives into; `nettool clean` removes
them from a whole tree. A file in progress is never that old: content arrives, or its session ends (limits.py).
"""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from toolkit.transfer.names import display_name, is_partial

STALE_AFTER_S = 8 * 86_400.0
"""A day more than the longest session by default."""


class Leftover(NamedTuple):
    """An unfinished file: its path, its size in bytes, and the seconds since it last changed.

    failure: why it could not be removed; None unless that was tried
    """

    path: str
    size_bytes: int
    age_s: float
    failure: str | None = None


def leftovers_below(directory: str | os.PathLike[str], older_than_s: float, remove: bool) -> Iterator[Leftover]:
    """Find the unfinished files of this user in a tree, and remove each if asked to.

    No links are followed, except that `directory` itself may be one. What cannot be read is skipped. Raises OSError if
    that is the directory itself.
    """
    top = os.path.join(os.fsencode(directory), b"")  # os.fwalk yields nothing for the name of a link
    for parent, _, names, descriptor in os.fwalk(top):
        for leftover in _in_directory(descriptor, names, older_than_s):
            failure = None
            if remove:
                try:
                    os.unlink(os.fsencode(leftover.path), dir_fd=descriptor)
                except FileNotFoundError:  # a receiver has removed it meanwhile
                    continue
                except OSError as error:
                    failure = (error.strerror or "unknown error").lower()
            yield leftover._replace(path=os.path.join(display_name(parent), leftover.path), failure=failure)


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
            with suppress(OSError):
                os.unlink(os.fsencode(leftover.path), dir_fd=descriptor)


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
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and age_s >= older_than_s:
            yield Leftover(display_name(name), status.st_size, age_s)
