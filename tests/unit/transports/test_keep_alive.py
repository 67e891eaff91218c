"""Who sends a keep-alive for a channel that waits for a file, and when."""

import gc
import multiprocessing
import os
import queue
import threading
import time
import weakref

import pytest

from tests.support.background import PATIENCE_S
from toolkit.transports import keep_alive
from toolkit.transports.keep_alive import FileWait, KeepAlives

INTERVAL_NS = 20_000_000


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_alive, "INTERVAL_S", INTERVAL_NS / 1e9)
    monkeypatch.setattr(keep_alive, "_INTERVAL_NS", INTERVAL_NS)


@pytest.fixture
def now_ns(monkeypatch: pytest.MonkeyPatch) -> int:
    """The time, which does not go on."""
    monkeypatch.setattr(time, "monotonic_ns", lambda: 1)
    return 1


def test_a_keep_alive_is_due_after_an_interval_within(now_ns: int) -> None:
    wait, calls = FileWait(), []
    wait.check(lambda: calls.append("before"), now_ns + INTERVAL_NS)
    with wait:
        wait.check(lambda: calls.append("early"), now_ns + INTERVAL_NS - 1)
        wait.check(lambda: calls.append("due"), now_ns + INTERVAL_NS)
    wait.check(lambda: calls.append("after"), now_ns + INTERVAL_NS)
    assert calls == ["due"]


def test_the_thread_of_the_channel_stays_within_while_a_keep_alive_is_sent(now_ns: int) -> None:
    wait, is_within, is_sending, has_left = FileWait(), threading.Event(), threading.Event(), threading.Event()

    def use_file() -> None:
        with wait:
            is_within.set()
            is_sending.wait(PATIENCE_S)
        has_left.set()

    def send_keep_alive() -> None:
        is_sending.set()
        assert not has_left.wait(0.05)

    channel = threading.Thread(target=use_file)
    channel.start()
    is_within.wait(PATIENCE_S)
    wait.check(send_keep_alive, now_ns + INTERVAL_NS)
    assert is_sending.is_set()
    assert has_left.wait(PATIENCE_S)
    channel.join()


def test_the_thread_sends_them_while_there_are_channels_and_for_nobody_else() -> None:
    keep_alives, waits = KeepAlives(), [FileWait(), FileWait()]
    are_sent = [threading.Event(), threading.Event()]
    for wait, is_sent in zip(waits, are_sent, strict=True):
        keep_alives.add(wait, is_sent.set)
    with waits[1]:
        with waits[0]:
            assert all(is_sent.wait(PATIENCE_S) for is_sent in are_sent)
        keep_alives.remove(waits[0])
        are_sent[0].clear()
        with waits[0]:
            for _ in range(2):
                are_sent[1].clear()
                assert are_sent[1].wait(PATIENCE_S)
        assert not are_sent[0].is_set()
    keep_alives.remove(waits[1])


class Channel:
    """What has a FileWait and can send a keep-alive."""

    def __init__(self, error: Exception | None = None) -> None:
        self.wait, self.is_sent = FileWait(), threading.Event()
        self._error = error

    def send_keep_alive(self) -> None:
        self.is_sent.set()
        if self._error is not None:
            raise self._error


def test_a_channel_that_fails_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    keep_alives, channels = KeepAlives(), [Channel(ValueError("a bug")), Channel()]
    for channel in channels:
        keep_alives.add(channel.wait, channel.send_keep_alive)
    with channels[0].wait, channels[1].wait:
        assert all(channel.is_sent.wait(PATIENCE_S) for channel in channels)
        channels[0].is_sent.clear()
        for _ in range(2):
            channels[1].is_sent.clear()
            assert channels[1].is_sent.wait(PATIENCE_S)
    assert not channels[0].is_sent.is_set()
    assert "a bug" in caplog.text


def test_a_channel_may_be_added_while_a_keep_alive_takes_long() -> None:
    keep_alives, channel, is_added, seen = KeepAlives(), Channel(), threading.Event(), queue.SimpleQueue[bool]()

    class SlowChannel(Channel):
        def send_keep_alive(self) -> None:
            super().send_keep_alive()
            seen.put(is_added.wait(PATIENCE_S))

    slow = SlowChannel()
    keep_alives.add(slow.wait, slow.send_keep_alive)
    with slow.wait:
        assert slow.is_sent.wait(PATIENCE_S)
        keep_alives.add(channel.wait, channel.send_keep_alive)
        is_added.set()
        assert seen.get()
    keep_alives.remove(slow.wait)
    keep_alives.remove(channel.wait)


def test_a_channel_that_is_dropped_is_forgotten() -> None:
    keep_alives, channel, other = KeepAlives(), Channel(), Channel()
    keep_alives.add(channel.wait, channel.send_keep_alive)
    keep_alives.add(other.wait, other.send_keep_alive)
    with channel.wait:
        assert channel.is_sent.wait(PATIENCE_S)
    dropped = weakref.ref(channel)
    del channel
    with other.wait:  # until the thread has looked at all of them once more
        assert other.is_sent.wait(PATIENCE_S)
        other.is_sent.clear()
        assert other.is_sent.wait(PATIENCE_S)
    gc.collect()
    assert dropped() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from Python 3.12 on, for a process with threads
def test_a_forked_process_sends_its_own() -> None:
    keep_alives = KeepAlives()
    keep_alives.start()

    def use_file() -> None:
        channel = Channel()
        keep_alives.add(channel.wait, channel.send_keep_alive)
        with channel.wait:
            os._exit(0 if channel.is_sent.wait(PATIENCE_S) else 1)

    child = multiprocessing.get_context("fork").Process(target=use_file)
    child.start()
    child.join(2 * PATIENCE_S)
    assert child.exitcode == 0
