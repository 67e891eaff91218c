"""A system call that has happened, and the collector that passes calls on to whoever shows or keeps them.

Times are seconds of `time.monotonic`. On Linux it is the same clock in every process, so that the calls of two
processes of one machine can be put in order.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from toolkit.errors import error_name


@dataclass(frozen=True, slots=True)
class Call:
    """One system call, or a remark about those that follow. As a JSON object: docs/data-format.md.

    time_s:     when it began; of one that receives, reads or accepts, when it returned: it waits for what another
                process does, and stands behind that in a listing
    name:       such as "sendto"; "" for a remark
    fd:         the descriptor that it is about; -1 for a remark, and for a call on no descriptor
    arguments:  as C writes them, such as "3, 1228 bytes, 127.0.0.1:9000"
    result:     what it returned, or the name of an error, such as "ECONNREFUSED"
    meaning:    one line for somebody who learns; a remark has nothing else
    size_bytes: how much a call that moves data has moved; None for any other call
    kind:       what it has moved, such as "DATA"; calls of one name, descriptor and kind are counted together
    """

    time_s: float
    name: str
    fd: int = -1
    arguments: str = ""
    result: str = ""
    meaning: str = ""
    size_bytes: int | None = None
    kind: str = ""

    @property
    def text(self) -> str:
        """The call as C writes it, with the type of the packet that it has moved."""
        packet = f"  {self.kind}" if self.kind.isupper() else ""
        return f"{self.name}({self.arguments}) = {self.result}{packet}" if self.name else ""


class CallTrace:
    """Collects calls from all threads, until `end`.

    show: is called with each one, from one thread at a time
    """

    def __init__(self, show: Callable[[Call], object]) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._uncounted: Counter[str] = Counter()
        self._has_ended = False

    def add(self, call: Call) -> None:
        """Pass a call on."""
        with self._lock:
            if not self._has_ended:
                self._show(call)

    def add_failed(self, time_s: float, name: str, fd: int, arguments: str, error: OSError) -> None:
        """Pass on a call that has failed; one that only found nothing to do yet (EAGAIN) is counted instead."""
        if isinstance(error, BlockingIOError):
            self.count(f"{name}() that found nothing to do yet")
        else:
            self.add(Call(time_s, name, fd, arguments, error_name(error), error.strerror or str(error)))

    def end(self) -> None:
        """Pass no more calls on: sockets may outlive the trace, in threads that nobody waits for."""
        with self._lock:
            self._has_ended = True

    def remark(self, text: str) -> None:
        """Explain the calls that follow."""
        self.add(Call(time.monotonic(), "", meaning=text))

    def count(self, name: str) -> None:
        """Count a call that is not shown: it found nothing to do, or concerns a detail."""
        with self._lock:
            self._uncounted[name] += 1

    @property
    def not_shown(self) -> Mapping[str, int]:
        """How often each call was counted and not shown, by its name."""
        with self._lock:
            return dict(self._uncounted)
