"""Challenges to a candidate path are few, and their intervals grow."""

import pytest

from toolkit.rudp.path import INITIAL_PTO_NS, MAX_CHALLENGES, PathValidation

START = 1000
PATH = ("192.0.2.1", 9)


@pytest.mark.parametrize("pto_ns", [1, INITIAL_PTO_NS, 3 * INITIAL_PTO_NS])
def test_a_challenge_is_repeated_with_doubling_intervals_and_then_given_up(pto_ns: int) -> None:
    """RFC 9000 section 8.2.1. The candidate path may be longer than the current one."""
    validation = PathValidation(PATH, 0xC0FFEE, START)
    sent_at = []
    while (due_ns := validation.poll_timeout()) is not None:
        assert validation.poll_challenge(due_ns - 1, pto_ns) is None
        assert validation.poll_challenge(due_ns, pto_ns) == 0xC0FFEE
        assert not validation.has_failed(due_ns)
        sent_at.append(due_ns - START)
    step_ns = max(pto_ns, INITIAL_PTO_NS)
    assert sent_at == [step_ns * ((1 << i) - 1) for i in range(MAX_CHALLENGES)]
    end_ns = START + step_ns * ((1 << MAX_CHALLENGES) - 1)
    assert not validation.has_failed(end_ns - 1)  # the last response may still arrive
    assert validation.has_failed(end_ns)
    assert validation.poll_challenge(end_ns, pto_ns) is None
