"""Lines of text between threads: a bounded queue that wakes whoever waits for a descriptor."""

import os
import select
import threading
from collections import deque
from contextlib import suppress

MAX_LINE_BYTES = 1 << 16
"""A longer line is cut into several."""
_MAX_QUEUED_BYTES = 1 << 20


class LineQueue:
    """Lines that one thread puts in and another takes out.

    `fileno` is readable while lines are waiting, or since the end was put in. Call `close` when both threads are done
    with it.
    """

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._queued_bytes = 0
        self._is_over = self._is_abandoned = False
        self._changed = threading.Condition()
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reading

    def put(self, line: bytes) -> bool:
        """Add a line; wait while there is no room. Returns False if nobody takes lines any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queued_bytes < _MAX_QUEUED_BYTES or self._is_abandoned)
            if self._is_abandoned:
                return False
            self._lines.append(line)
            self._queued_bytes += len(line) + 1
            self._wake()
        return True

    def end(self) -> None:
        """No more lines follow."""
        with self._changed:
            self._is_over = True
            if not self._is_abandoned:
                self._wake()

    def take(self, most_bytes: int) -> list[bytes]:
        """Return the lines that are waiting, without their newlines: the first of them, and others up to this size."""
        with self._changed:
            taken: list[bytes] = []
            size_bytes = 0
            while self._lines and (not taken or size_bytes + len(self._lines[0]) < most_bytes):
                line = self._lines.popleft()
                taken.append(line)
                size_bytes += len(line) + 1
            self._queued_bytes -= size_bytes
            self._changed.notify_all()
            if not self._lines:
                with suppress(BlockingIOError):
                    os.read(self._reading, 1 << 16)
                if self._is_over:
                    self._wake()
        return taken

    @property
    def has_more(self) -> bool:
        """Whether lines are waiting."""
        with self._changed:
            return bool(self._lines)

    @property
    def is_over(self) -> bool:
        """Whether the end was put in and every line was taken."""
        with self._changed:
            return self._is_over and not self._lines

    def close(self) -> None:
        """Take no more lines; free everything."""
        with self._changed:
            if not self._is_abandoned:
                self._is_abandoned = True
                os.close(self._reading)
                os.close(self._writing)
            self._changed.notify_all()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it is readable already
            os.write(self._writing, b"\0")


def read_lines(descriptor: int, queue: LineQueue) -> None:
    """Put each line of a file into `queue` until the file ends, then its end. For a thread of its own.

    A file that cannot be read any further ends there.
    """
    rest = b""
    with suppress(OSError):
        while piece := _read(descriptor):
            *lines, rest = (rest + piece).split(b"\n")
            lines += [rest[:MAX_LINE_BYTES]] if len(rest) >= MAX_LINE_BYTES else []
            rest = rest[MAX_LINE_BYTES:] if len(rest) >= MAX_LINE_BYTES else rest
            if not all(queue.put(line[i : i + MAX_LINE_BYTES]) for line in lines for i in _cuts(line)):
                return
    if rest:
        queue.put(rest)
    queue.end()


def _read(descriptor: int) -> bytes:
    """Return the next piece of a file, b"" at its end. Raises OSError.

    It also waits if the descriptor does not block: standard input shares that property with every process that has it
    open, and any of them may have set it.
    """
    while True:
        try:
            return os.read(descriptor, MAX_LINE_BYTES)
        except BlockingIOError:
            select.select([descriptor], [], [])


def _cuts(line: bytes) -> range:
    return range(0, max(len(line), 1), MAX_LINE_BYTES)
