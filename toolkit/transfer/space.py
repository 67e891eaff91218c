"""The free space of a file system, shared out over all sessions of this process.

A file is accepted only if it fits beside everything that was accepted before and has not arrived, by any session: what
one session was promised is not promised to another. A file that turns out larger than its offer said, or a stream, asks
for more in steps, and gets none of what others were promised.
"""

import threading
import time
from collections.abc import Callable, Sequence

from toolkit.transfer.incoming_file import UNASKED_BYTES, IncomingFile

GRANT_BYTES = 1 << 26  # what a file gets at a time that needs more than its offer said
RECOUNT_S = 0.05  # looking at every file in progress takes up to a hundredth of that


class PromisedSpace:
    """What the sessions that write to one file system were promised. Thread-safe.

    free_bytes, in every method: the free space of the file system now; None if it does not tell, and everything fits
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # What each file awaits, and the sum: never less than in truth, because a file that receives awaits less.
        self._awaited: dict[IncomingFile, int] = {}
        self._awaited_bytes = 0
        self._recount_s = 0.0  # when the next count is due at the earliest
        self._uncreated_bytes = 0  # promised to files that are accepted, and not in `_awaited` yet

    def promise(self, sizes_bytes: Sequence[int], free_bytes: Callable[[], int | None]) -> list[bool]:
        """Whether files of these sizes fit, in this order; those that do are promised their space."""
        with self._lock:
            fits = []
            known_bytes = free_bytes()
            for size_bytes in sizes_bytes:
                fits.append(self._has_room(size_bytes, known_bytes))
                if fits[-1]:
                    self._uncreated_bytes += size_bytes
            return fits

    def extend(self, file: IncomingFile, needed_bytes: int, free_bytes: Callable[[], int | None]) -> bool:
        """Grant a file `needed_bytes` in all and a step beyond, a small one if there is room for no other.

        Returns whether there is room.
        """
        with self._lock:
            known_bytes = free_bytes()
            file.granted_bytes = file.received_bytes
            self._set(file, 0)
            for ahead_bytes in (GRANT_BYTES, UNASKED_BYTES):
                if self._has_room(needed_bytes + ahead_bytes - file.received_bytes, known_bytes):
                    file.granted_bytes = needed_bytes + ahead_bytes
                    break
            else:
                return False
            self._set(file, file.awaited_bytes)
            return True

    def add(self, file: IncomingFile, promised_bytes: int) -> None:
        """A file that was promised its space was created: from now on it says how much of that it still awaits."""
        with self._lock:
            self._set(file, file.awaited_bytes)
            self._uncreated_bytes -= promised_bytes

    def remove(self, file: IncomingFile) -> None:
        """A file was committed or discarded. Idempotent."""
        with self._lock:
            self._awaited_bytes -= self._awaited.pop(file, 0)

    def give_back(self, promised_bytes: int) -> None:
        """Files that were promised this much will not be created."""
        with self._lock:
            self._uncreated_bytes -= promised_bytes

    def _has_room(self, size_bytes: int, known_bytes: int | None) -> bool:
        """Whether that much is free beyond all promises; counts again before it says no, if that is due."""
        if known_bytes is None:
            return True
        if self._awaited_bytes + self._uncreated_bytes + size_bytes <= known_bytes:
            return True
        now_s = self._clock()
        if now_s < self._recount_s:
            return False
        self._awaited = {file: file.awaited_bytes for file in self._awaited}
        self._awaited_bytes = sum(self._awaited.values())
        self._recount_s = now_s + RECOUNT_S
        return self._awaited_bytes + self._uncreated_bytes + size_bytes <= known_bytes

    def _set(self, file: IncomingFile, awaited_bytes: int) -> None:
        self._awaited_bytes += awaited_bytes - self._awaited.get(file, 0)
        self._awaited[file] = awaited_bytes


_spaces: dict[int, PromisedSpace] = {}
_spaces_lock = threading.Lock()


def promised_space(device: int) -> PromisedSpace:
    """The one PromisedSpace of the file system with that `st_dev`."""
    with _spaces_lock:
        return _spaces.setdefault(device, PromisedSpace())
