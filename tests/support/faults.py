"""Faults of a file system: every call that a receiver makes on its directory can be made to fail, in turn.

Calls are recognised by their descriptors: that of the directory, and all that are opened below it. So no other part of
the process is disturbed, and no file system has to be mounted, which takes root.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from toolkit.transfer import tree

_CALLS = (
    *("open", "close", "dup", "stat", "fstat", "fstatvfs", "lseek", "preadv", "write", "pwrite", "ftruncate"),
    *("fchmod", "utime", "fsync", "mkdir", "rmdir", "unlink", "rename", "link", "symlink", "readlink", "scandir"),
)
_DIRECTORIES = ("dir_fd", "src_dir_fd", "dst_dir_fd")


class FaultyDirectory:
    """Lets one call fail of those that are made on a directory and below it, also by other threads.

    fails_at: the number of the call, from 0; -1 for none
    error:    the number of the error that it reports
    calls:    the names of the calls so far
    """

    def __init__(self, root: Path, fails_at: int, error: int) -> None:
        self.calls: list[str] = []
        self._root = root
        self._fails_at = fails_at
        self._error = error
        self._descriptors: set[int] = set()
        self._lock = threading.Lock()

    @property
    def failed(self) -> str:
        """The call that has failed; "" if it did not come to that."""
        return self.calls[self._fails_at] if 0 <= self._fails_at < len(self.calls) else ""

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Watch the directory in the block, which opens it. No descriptor of it may be left open."""
        with pytest.MonkeyPatch.context() as patches:
            for name in _CALLS:
                patches.setattr(os, name, self._watched(name, getattr(os, name)))
            patches.setattr(tree, "rename_new", self._watched("rename_new", tree.rename_new))
            yield
        assert not self._descriptors, "descriptors are left open"

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if not self._concerns(arguments, keywords):
                result = function(*arguments, **keywords)
                if name == "open" and arguments[0] == self._root:
                    self._descriptors.add(result)
                return result
            with self._lock:
                is_faulty = len(self.calls) == self._fails_at
                self.calls.append(name)
            if name == "close":  # the descriptor is gone in any case, see close(2)
                self._descriptors.discard(arguments[0])
                function(*arguments)
            if is_faulty:
                raise OSError(self._error, os.strerror(self._error))
            result = None if name == "close" else function(*arguments, **keywords)
            if name in ("open", "dup"):
                self._descriptors.add(result)
            return result

        return call

    def _concerns(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
        numbers = [keywords.get(name) for name in _DIRECTORIES]
        if arguments and isinstance(arguments[0], int):
            numbers.append(arguments[0])
        return any(number in self._descriptors for number in numbers)


ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EPERM)
"""What a call on a file system may report at any time: a broken disk, a full one, a quota, a server that refuses."""
