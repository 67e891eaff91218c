"""Interrupts that take effect at once, in commands with several threads.

Python runs a signal's handler in the main thread only. The kernel may give the signal to another thread, or to the main
thread just before it begins to wait: either way the main thread goes on waiting, for ever if nothing else happens. So a
thread of its own reads from the descriptor to which Python writes every signal (signal.set_wakeup_fd), and interrupts
the wait of the main thread until that has left the block.

The same thread ends the process if a second signal comes while the first is still being handled, for example because
a file system has stopped answering.

A session is asked to end before it is interrupted (`asking_first`), so that it can tell its peer that the user has
cancelled it: a connection that merely breaks off looks like one that was lost.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from toolkit.errors import ExitCode

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECOND_AFTER_S: Final = 0.5
"""A signal within this time is the same interrupt: a terminal that closes sends several, and sudo repeats them."""
ASKED_S: Final = 0.5
"""How long a block that was asked to end may take; a user who waits longer presses the keys again."""
_POKE_S: Final = 0.1
_POKE: Final = signal.SIGURG  # ignored by default; only TCP's urgent data would send it
_SHOW_CURSOR: Final = b"\x1b[?25h\r\n"  # a progress bar hides it


@contextmanager
def prompt_interrupts() -> Iterator[None]:
    """Deliver signals to the main thread promptly while the block runs; nothing in another thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    handler = signal.signal(_POKE, _do_nothing)
    descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reading, threading.main_thread().ident), daemon=True)
    try:
        watcher.start()
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        os.close(writing)
        watcher.join()
        os.close(reading)
        signal.signal(_POKE, handler)


@contextmanager
def asking_first(ask: Callable[[], object]) -> Iterator[None]:
    """Call `ask` at the first signal, so that the block ends by itself; interrupt it if that takes longer than ASKED_S.

    If the block then raises, the signal is handled instead; if it succeeds nevertheless, it has succeeded. If `ask`
    returns False, the block cannot end by itself yet, and is interrupted at once. For use within `prompt_interrupts`;
    does nothing in another thread than the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {
        number: handler for number in (*SIGNALS, _POKE) if callable(handler := signal.getsignal(number))
    }
    asked: list[tuple[int, float]] = []  # the first signal, and when it came

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not asked:
            asked.append((number, time.monotonic()))
            if ask() is False:
                interrupt(frame)

    def on_poke(_number: int, frame: FrameType | None) -> None:
        if asked and time.monotonic() - asked[0][1] >= ASKED_S:
            interrupt(frame)

    def interrupt(frame: FrameType | None) -> None:
        restore()
        handlers[asked[0][0]](asked[0][0], frame)

    def restore() -> None:
        for number, handler in handlers.items():
            if signal.getsignal(number) in (on_signal, on_poke):  # not what a handler has put there meanwhile
                signal.signal(number, handler)

    try:
        for number in handlers:
            signal.signal(number, on_poke if number == _POKE else on_signal)
        yield
    except Exception:
        if asked:
            interrupt(None)
        raise
    finally:
        restore()


def _watch(reading: int, main_thread: int) -> None:
    """Until the other end of the pipe is closed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    first_s: float | None = None
    while True:
        is_readable, _, _ = select.select([reading], [], [], None if first_s is None else _POKE_S)
        numbers = os.read(reading, 4096) if is_readable else None
        if numbers == b"":
            return
        if not set(SIGNALS).isdisjoint(numbers or b""):
            now_s = time.monotonic()
            if first_s is not None and now_s - first_s >= SECOND_AFTER_S:
                end_at_once()
            first_s = now_s if first_s is None else first_s
        if first_s is not None and not (numbers and set(numbers) == {_POKE}):
            signal.pthread_kill(main_thread, _POKE)


def end_at_once() -> None:
    """End the process without any cleanup, but leave the terminal usable."""
    if os.isatty(2) and select.select([], [2], [], 0)[1]:  # a terminal whose network hangs would take nothing
        os.write(2, _SHOW_CURSOR)
    os._exit(ExitCode.INTERRUPTED)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass
