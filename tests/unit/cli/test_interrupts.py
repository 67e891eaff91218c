"""Interrupts: the main thread wakes up whichever thread the kernel interrupts, and a second one ends a long cleanup."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.background import PATIENCE_S, wait_until
from toolkit.cli.interrupts import SECOND_AFTER_S, asking_first, prompt_interrupts
from toolkit.errors import TransferError

CLEANUP = """
import signal, time
from toolkit.cli.interrupts import prompt_interrupts

def interrupt(*_):
    signal.signal(signal.SIGINT, lambda *_: None)  # another one finds the cleanup under way, and does not end it
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)
try:
    with prompt_interrupts():
        try:
            print("ready", flush=True)
            time.sleep(600)
        finally:
            print("cleaning up", flush=True)
            time.sleep(600)
except KeyboardInterrupt:
    pass
"""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, and reaches any thread but the main one."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    signal.signal(signal.SIGINT, handler)


def interrupt_and_wait() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    queue.SimpleQueue[None]().get(timeout=PATIENCE_S)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_that_another_thread_takes_ends_the_wait_of_the_main_thread() -> None:
    end, started = threading.Event(), threading.Event()

    def take() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        started.set()
        end.wait(PATIENCE_S)

    other = threading.Thread(target=take)
    other.start()
    started.wait(PATIENCE_S)
    try:
        with pytest.raises(KeyboardInterrupt), prompt_interrupts():
            interrupt_and_wait()
    finally:
        end.set()
        other.join()


def test_a_second_interrupt_ends_a_cleanup_that_hangs() -> None:
    with subprocess.Popen([sys.executable, "-c", CLEANUP], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(2):  # at once: both are the same interrupt
            process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"cleaning up\n"
        time.sleep(SECOND_AFTER_S)
        assert process.poll() is None

        def press_again() -> bool:  # once is enough, unless the process noticed the first one late
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
            return process.poll() is not None

        wait_until(press_again, "the end of the process")
        assert process.returncode == 130


def test_a_terminal_that_takes_nothing_does_not_delay_the_end() -> None:
    master, slave = os.openpty()
    os.set_blocking(slave, False)
    with suppress(BlockingIOError):
        while True:
            os.write(slave, bytes(4096))
    os.set_blocking(slave, True)
    code = "from toolkit.cli.interrupts import end_at_once; end_at_once()"
    with subprocess.Popen([sys.executable, "-c", code], stderr=slave) as process:
        try:
            assert process.wait(PATIENCE_S) == 130
        finally:
            process.kill()
    os.close(slave)
    os.close(master)


def test_a_block_is_asked_to_end_and_its_error_is_not_the_users() -> None:
    asked = threading.Event()

    def block() -> None:
        with prompt_interrupts(), asking_first(asked.set):
            signal.raise_signal(signal.SIGINT)
            assert asked.wait(PATIENCE_S)
            raise TransferError("the transfer was cancelled")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_that_does_not_end_when_it_is_asked_to_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.cli.interrupts.ASKED_S", 0.02)
    asked: list[bool] = []

    def block() -> None:
        with prompt_interrupts(), asking_first(lambda: asked.append(True)):
            signal.raise_signal(signal.SIGINT)
            queue.SimpleQueue[None]().get(timeout=PATIENCE_S)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert asked == [True]


def test_a_block_that_succeeds_although_it_was_asked_to_end_has_succeeded() -> None:
    with prompt_interrupts(), asking_first(lambda: None):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_that_cannot_end_by_itself_is_interrupted_at_once() -> None:
    def block() -> None:
        with prompt_interrupts(), asking_first(lambda: False):
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the block went on")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_error_of_a_block_is_its_own() -> None:
    with pytest.raises(TransferError), prompt_interrupts(), asking_first(lambda: None):
        raise TransferError("the connection was lost")


def test_nothing_is_left_behind() -> None:
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with prompt_interrupts():
        pass
    assert threading.active_count() <= before[0]  # a thread of an earlier test may have ended meanwhile
    assert len(os.listdir("/proc/self/fd")) <= before[1]
