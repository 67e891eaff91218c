"""Keep-alives of channels whose threads wait for a file.

No thread is behind a channel, so nothing is received or sent while one reads or writes a file. A disk or a network file
system may take a minute for that, and the peer, to which nothing answers, would think that this end is gone. So one
thread of the process sends something for each channel that has waited for a file for INTERVAL_S, and again after each
further one: over UDP a PING with the flag HELD_UP, over TCP an empty record.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from toolkit.channel import WAIT_CHECK_S

INTERVAL_S: Final = WAIT_CHECK_S
_INTERVAL_NS: Final = int(INTERVAL_S * 1e9)


class FileWait:
    """When a channel's thread is busy with a file, and not with the engine and the socket: a context manager.

    elapsed_ns: how long the last time took
    """

    def __init__(self) -> None:
        self._engine_lock = threading.Lock()  # of engine and socket; the channel's thread has it, except within
        self._engine_lock.acquire()
        self._entered_ns = self.elapsed_ns = 0

    def __enter__(self) -> None:
        self._entered_ns = time.monotonic_ns()
        self._engine_lock.release()

    def __exit__(self, *_: object) -> None:
        self._engine_lock.acquire()
        self.elapsed_ns = time.monotonic_ns() - self._entered_ns

    def check(self, send_keep_alive: Callable[[], object], now_ns: int) -> None:
        """Call `send_keep_alive` if the channel's thread has been within for an interval; it stays within meanwhile."""
        if self._engine_lock.acquire(blocking=False):
            try:
                if now_ns - self._entered_ns >= _INTERVAL_NS:
                    send_keep_alive()
            finally:
                self._engine_lock.release()


class KeepAlives:
    """The thread that sends keep-alives, for all channels of the process. Thread-safe."""

    def __init__(self) -> None:
        self._waits: dict[FileWait, Callable[[], object]] = {}
        self._changed = threading.Condition()
        self._is_started = False

    def start(self) -> None:
        """Start the thread, if it does not run yet, while there is time for it: `add` does so too."""
        with self._changed:
            if not self._is_started:
                with suppress(RuntimeError):  # no thread is left: a channel that waits for a file may lose its peer
                    threading.Thread(target=self._run, name="udp keep-alive", daemon=True).start()
                    self._is_started = True

    def add(self, wait: FileWait, send_keep_alive: Callable[[], object]) -> None:
        """Send keep-alives for this channel from now on. `send_keep_alive` is called by the thread."""
        self.start()
        with self._changed:
            self._waits[wait] = send_keep_alive
            self._changed.notify()

    def remove(self, wait: FileWait) -> None:
        """Send none any more: when this returns, none is being sent."""
        with self._changed:
            self._waits.pop(wait, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waits:
                    self._changed.wait()
                now_ns = time.monotonic_ns()
                for wait, send_keep_alive in self._waits.items():
                    wait.check(send_keep_alive, now_ns)
            time.sleep(INTERVAL_S)


KEEP_ALIVES: Final = KeepAlives()
