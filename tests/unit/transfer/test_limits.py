"""The limits of a session: time, and progress that only a waiting receiver asks for."""

import pytest

from toolkit.transfer.limits import (
    FIRST_MESSAGE_S,
    MIN_PROGRESS_BYTES,
    ByteBudget,
    LimitError,
    SessionLimits,
    SessionWatch,
)

LIMITS = SessionLimits(max_seconds=1000, stall_seconds=60)


def test_a_session_ends_after_its_time() -> None:
    now_s = 5.0
    watch = SessionWatch(LIMITS, lambda: now_s)
    now_s = 1004.0
    watch.check(True, 0, 0)
    now_s = 1005.0
    with pytest.raises(LimitError, match=r"16.67 min .*`max_seconds`"):
        watch.check(True, 0, 0)


def test_time_that_this_end_takes_is_no_stall() -> None:
    now_s = 0.0
    watch = SessionWatch(LIMITS, lambda: now_s)
    now_s = 900.0
    watch.on_waited(59.0)
    watch.check(True, 0, 0)
    watch.on_waited(1.0)
    with pytest.raises(LimitError, match=r"no progress for 60 s .*`stall_seconds`"):
        watch.check(True, 0, 0)


def test_progress_is_enough_content_or_a_step() -> None:
    watch = SessionWatch(LIMITS)
    for received_bytes, steps in ((MIN_PROGRESS_BYTES, 0), (MIN_PROGRESS_BYTES + 1, 1), (2 * MIN_PROGRESS_BYTES, 2)):
        watch.on_waited(59.0)
        watch.check(True, received_bytes, steps)
    watch.on_waited(59.0)
    watch.check(True, 3 * MIN_PROGRESS_BYTES - 1, 2)
    watch.on_waited(1.0)
    with pytest.raises(LimitError):
        watch.check(True, 3 * MIN_PROGRESS_BYTES - 1, 2)


def test_a_peer_that_connects_must_begin_soon() -> None:
    watch = SessionWatch(LIMITS)
    watch.on_waited(FIRST_MESSAGE_S - 1)
    watch.check(False, 0, 0)
    watch.on_waited(1)
    with pytest.raises(LimitError, match="sent nothing for 30 s"):
        watch.check(False, 0, 0)


def test_a_budget_gives_what_it_has_and_takes_back() -> None:
    budget = ByteBudget(10)
    assert budget.try_take(6)
    assert not budget.try_take(5)
    budget.give_back(6)
    budget.take(10)
    with pytest.raises(LimitError, match="10 B in a session"):
        budget.take(1)
    assert ByteBudget(None).try_take(1 << 62)


def test_a_message_that_the_peer_does_not_take_is_a_stall() -> None:
    now_s = 1000.0
    watch = SessionWatch(LIMITS, lambda: now_s)
    watch.check_blocked()  # the first call counts WAIT_CHECK_S, a quarter of a second
    for _ in range(238):
        now_s += 0.25
        watch.check_blocked()
    now_s += 0.25
    with pytest.raises(LimitError, match=r"no progress for 60 s .*`stall_seconds`"):
        watch.check_blocked()


def test_the_time_between_two_blocked_messages_is_no_stall() -> None:
    now_s = 0.0
    watch = SessionWatch(LIMITS, lambda: now_s)
    for _ in range(9):
        now_s += 100.0
        watch.check_blocked()
