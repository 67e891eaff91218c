"""Keep-alives of channels whose threads wait for a file.

No thread is behind a channel, so nothing is received or sent while one reads or writes a file. A disk or a network file
system may take a minute for that, and the peer, to which nothing answers, would think that this end is gone. So one
thread of the process sends something for each channel that has waited for a file for INTERVAL_S, and again after each
further one: over UDP a PING with the flag HELD_UP, over TCP an empty record.
"""

import os
import threading
import time
import weakref
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
    """The thread that sends keep-alives, for all channels of the process. Thread-safe.

    A channel that is dropped without being closed is forgotten.
    """

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Begin anew: a forked process has neither the thread nor the channels of its parent."""
        self._send_keep_alive: weakref.WeakKeyDictionary[FileWait, weakref.WeakMethod[Callable[[], object]]] = (
            weakref.WeakKeyDictionary()
        )
        self._changed = threading.Condition()
        self._is_started = False

    def start(self) -> None:
        """Start the thread, if it does not run yet, while there is time for it: `add` does so too."""
        with self._changed:
            if not self._is_started:
                with suppress(RuntimeError):  # no thread is left: a channel that waits for a file may lose its peer
                    threading.Thread(target=self._run, name="keep-alive", daemon=True).start()
                    self._is_started = True

    def add(self, wait: FileWait, send_keep_alive: Callable[[], object]) -> None:
        """Send keep-alives for this channel from now on, by its method `send_keep_alive`. The thread calls it."""
        self.start()
        with self._changed:
            self._send_keep_alive[wait] = weakref.WeakMethod(send_keep_alive)
            self._changed.notify()

    def remove(self, wait: FileWait) -> None:
        """Send none for this channel any more. Its thread calls this, so that none is being sent."""
        with self._changed:
            self._send_keep_alive.pop(wait, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._send_keep_alive:
                    self._changed.wait()
            self._check_all()
            time.sleep(INTERVAL_S)

    def _check_all(self) -> None:
        with self._changed:
            channels = list(self._send_keep_alive.items())
        now_ns = time.monotonic_ns()
        for wait, method in channels:
            send_keep_alive = method()
            if send_keep_alive is None:
                continue
            try:
                wait.check(send_keep_alive, now_ns)
            except Exception as error:
                self.remove(wait)
                _report(error)


def _report(error: Exception) -> None:
    from toolkit.transports.unexpected import UnexpectedErrors  # which a sender does not need

    UnexpectedErrors().report("a channel that waits for a file may lose its peer", error)


KEEP_ALIVES: Final = KeepAlives()
