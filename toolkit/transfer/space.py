"""The free space of a file system, shared out over all sessions of this process.

A file is accepted only if it fits beside everything that was accepted before and has not arrived, by any session: what
one session was promised is not promised to another. A file that turns out larger than its offer said, or a stream, asks
for more in steps, and gets none of what others were promised.
"""

import threading
from collections.abc import Callable, Iterable

from toolkit.transfer.destination import UNASKED_BYTES, IncomingFile

GRANT_BYTES = 1 << 26  # what a file gets at a time that needs more than its offer said


class PromisedSpace:
    """What the sessions that write to one file system were promised. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: set[IncomingFile] = set()
        self._uncreated_bytes = 0  # promised to files that are accepted, and not in `_files` yet

    def promise(self, sizes_bytes: Iterable[int], free_bytes: Callable[[], int | None]) -> list[bool]:
        """Whether files of these sizes fit, in this order; those that do are promised their space.

        free_bytes: called once for the free space of the file system; None if it does not tell, then everything fits
        """
        with self._lock:
            known_bytes = free_bytes()
            awaited_bytes = sum(file.awaited_bytes for file in self._files)
            fits = []
            for size_bytes in sizes_bytes:
                fits.append(known_bytes is None or awaited_bytes + self._uncreated_bytes + size_bytes <= known_bytes)
                if fits[-1]:
                    self._uncreated_bytes += size_bytes
            return fits

    def extend(self, file: IncomingFile, needed_bytes: int, free_bytes: Callable[[], int | None]) -> bool:
        """Grant a file `needed_bytes` in all and a step beyond, a small one if there is room for no other.

        Returns whether there is room. Looks at every file in progress, which is why it grants no less than a step.
        """
        with self._lock:
            known_bytes = free_bytes()
            promised_bytes = sum(other.awaited_bytes for other in self._files if other is not file)
            promised_bytes += self._uncreated_bytes
            for ahead_bytes in (GRANT_BYTES, UNASKED_BYTES):
                missing_bytes = needed_bytes + ahead_bytes - file.received_bytes
                if known_bytes is None or promised_bytes + missing_bytes <= known_bytes:
                    file.granted_bytes = needed_bytes + ahead_bytes
                    return True
            return False

    def add(self, file: IncomingFile, promised_bytes: int) -> None:
        """A file that was promised its space was created: from now on it says how much of that it still awaits."""
        with self._lock:
            self._files.add(file)
            self._uncreated_bytes -= promised_bytes

    def remove(self, file: IncomingFile) -> None:
        """A file was committed or discarded. Idempotent."""
        with self._lock:
            self._files.discard(file)

    def give_back(self, promised_bytes: int) -> None:
        """Files that were promised this much will not be created."""
        with self._lock:
            self._uncreated_bytes -= promised_bytes


_spaces: dict[int, PromisedSpace] = {}
_spaces_lock = threading.Lock()


def promised_space(device: int) -> PromisedSpace:
    """The one PromisedSpace of the file system with that `st_dev`."""
    with _spaces_lock:
        return _spaces.setdefault(device, PromisedSpace())
