"""A cache of file descriptors: a session of thousands of files keeps few of them open at a time.

The limit on open descriptors applies to the process, so all sessions of a process share one cache. A file opens its
descriptor on first use and opens it again after the cache has closed it. The cache closes the descriptor that was
opened first. Content is sent file after file, so this is nearly the least recently used one, and a use costs nothing.
"""

import os
import resource
import threading
from contextlib import suppress

MAX_DESCRIPTORS = 256
TRUNCATED = "another process truncated it"


def anonymous_file() -> int:
    """Return a descriptor of a new file that is in memory, where the system has such files, and has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("nettool")
    import tempfile  # takes a while to import, and few systems need it

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def read_exactly(descriptor: int, offset: int, buffer: memoryview) -> None:
    """Fill `buffer` from a file. Raises OSError, also if the file ends before."""
    count = os.preadv(descriptor, (buffer,), offset)
    while count < len(buffer):
        more = os.preadv(descriptor, (buffer[count:],), offset + count)
        if not more:
            raise OSError(0, TRUNCATED)
        count += more


def write_fully(descriptor: int, offset: int, data: memoryview) -> None:
    """Write all of `data` to a file. Raises OSError."""
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)


class CachedFile:
    """A file whose descriptor the cache may close whenever `lock` is free and the file is not pinned.

    Subclasses set `_pinned` while a caller outside holds the descriptor.
    """

    __slots__ = ("_descriptor", "_pinned", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._descriptor = -1
        self._pinned = False

    def _open(self) -> int:
        """Open the file and return a new descriptor; called with `lock` held."""
        raise NotImplementedError

    def _ensure_open(self) -> int:
        """The descriptor, opened if necessary; called with `lock` held."""
        if self._descriptor < 0:
            self._descriptor = self._open()
            OPEN_FILES.add(self)
        return self._descriptor

    def _adopt(self, descriptor: int) -> None:
        """Take over a descriptor that is open for this file; called with `lock` held."""
        self._descriptor = descriptor
        OPEN_FILES.add(self)

    def _close(self) -> None:
        """Close the descriptor if it is open; called with `lock` held. Raises OSError of a write that failed late."""
        if self._descriptor >= 0:
            OPEN_FILES.remove(self)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _on_close_error(self, error: OSError) -> None:
        """Take note that the cache could not close the descriptor without an error; called with `lock` held.

        A remote file system reports here what it failed to write. The error is this file's, and not that of the file
        that needed room in the cache.
        """

    def try_close(self) -> bool:
        """Close the descriptor unless it is in use; returns whether it is closed. Called by the cache only."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self._pinned:
                return False
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                try:
                    os.close(descriptor)
                except OSError as error:
                    self._on_close_error(error)
            return True
        finally:
            self.lock.release()


class DescriptorCache:
    """The files with an open descriptor, in the order of opening; more than `capacity` only if all are in use."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._files: dict[CachedFile, None] = {}

    def __len__(self) -> int:
        return len(self._files)

    def add(self, file: CachedFile) -> None:
        """Add `file`, which has just opened its descriptor and holds its own lock."""
        with self._lock:
            if len(self._files) >= self.capacity:
                excess = len(self._files) - self.capacity + 1
                for other in list(self._files):
                    if other.try_close():
                        del self._files[other]
                        excess -= 1
                        if not excess:
                            break
            self._files[file] = None

    def remove(self, file: CachedFile) -> None:
        """Remove `file`, which is about to close its descriptor and holds its own lock."""
        with self._lock:
            self._files.pop(file, None)


def raise_descriptor_limit() -> None:
    """Let this process open as many descriptors as it may. The usual soft limit of 1024 exists for select(2) only."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS does not allow its own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    OPEN_FILES.capacity = _capacity()


def _capacity() -> int:
    """A quarter of the process's limit: sockets, directories and the caller need descriptors too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else max(16, min(MAX_DESCRIPTORS, soft // 4))


OPEN_FILES = DescriptorCache(_capacity())
