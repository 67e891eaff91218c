"""Files whose descriptors come and go: a session of thousands of files needs few descriptors at a time.

The limit on descriptors is one of the process, so all sessions of a process share one cache. A file opens its
descriptor when it needs it and opens it again after it was taken away; whoever opened longest ago goes first.
Content is sent file after file, so this order is nearly that of the last use, and a use costs nothing.
"""

import os
import resource
import threading

MOST_DESCRIPTORS = 256


class CachedFile:
    """A file with a descriptor that may be taken away whenever `lock` is free and nothing has pinned it."""

    __slots__ = ("_descriptor", "_pinned", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._descriptor = -1
        self._pinned = False

    def _open(self) -> int:
        """A new descriptor of the file; called with `lock` held."""
        raise NotImplementedError

    def _opened(self) -> int:
        """The descriptor, opened if need be; called with `lock` held."""
        if self._descriptor < 0:
            self._descriptor = self._open()
            OPEN_FILES.add(self)
        return self._descriptor

    def _close(self) -> None:
        """Give the descriptor up; called with `lock` held."""
        if self._descriptor >= 0:
            OPEN_FILES.forget(self)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def give_up(self) -> bool:
        """Close the descriptor if nobody is using it now; whether that was so. Called by the cache only."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self._pinned:
                return False
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
            return True
        finally:
            self.lock.release()


class DescriptorCache:
    """Which files have a descriptor open, in the order of opening; at most `capacity` unless all are in use."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._files: dict[CachedFile, None] = {}

    def __len__(self) -> int:
        return len(self._files)

    def add(self, file: CachedFile) -> None:
        """`file` has just opened its descriptor, and holds its own lock."""
        with self._lock:
            if len(self._files) >= self.capacity:
                excess = len(self._files) - self.capacity + 1
                for other in list(self._files):
                    if other.give_up():
                        del self._files[other]
                        excess -= 1
                        if not excess:
                            break
            self._files[file] = None

    def forget(self, file: CachedFile) -> None:
        """`file` is about to close its descriptor itself, and holds its own lock."""
        with self._lock:
            self._files.pop(file, None)


def _capacity() -> int:
    """A quarter of what the process may open: sockets, directories and the caller need theirs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else max(16, min(MOST_DESCRIPTORS, soft // 4))


OPEN_FILES = DescriptorCache(_capacity())
