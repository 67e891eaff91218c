"""Who sends a keep-alive for a channel that waits for a file, and when."""

import threading
import time

import pytest

from tests.support.background import PATIENCE_S
from toolkit.transports.keep_alive import INTERVAL_S, FileWait, KeepAlives

INTERVAL_NS = int(INTERVAL_S * 1e9)


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
    assert has_left.wait(PATIENCE_S)
    channel.join()


def test_the_thread_sends_them_while_there_are_channels_and_for_nobody_else() -> None:
    keep_alives, waits = KeepAlives(), [FileWait(), FileWait()]
    are_sent = [threading.Event(), threading.Event()]
    for wait, is_sent in zip(waits, are_sent, strict=True):
        keep_alives.add(wait, is_sent.set)
    with waits[0], waits[1]:
        assert all(is_sent.wait(PATIENCE_S) for is_sent in are_sent)
        keep_alives.remove(waits[0])
        for is_sent in are_sent:
            is_sent.clear()
        assert are_sent[1].wait(PATIENCE_S)
        assert not are_sent[0].is_set()
    for wait in waits:
        keep_alives.remove(wait)
