"""Challenges to a candidate path are few, and their intervals grow."""

import pytest

from toolkit.rudp.path import INITIAL_PTO_NS, MAX_AMPLIFICATION, MAX_CHALLENGES, PathValidation

START = 1000
PATH = ("192.0.2.1", 9)


@pytest.mark.parametrize("pto_ns", [1, INITIAL_PTO_NS, 3 * INITIAL_PTO_NS])
def test_a_challenge_is_repeated_with_doubling_intervals_and_then_given_up(pto_ns: int) -> None:
    """RFC 9000 section 8.2.1. The candidate path may be longer than the current one."""
    validation = PathValidation(PATH, 0xC0FFEE, START)
    validation.on_received(PATH, 100_000)
    sent_at = []
    while (due_ns := validation.poll_timeout()) is not None:
        assert validation.poll_challenge(due_ns - 1, pto_ns) == 0
        assert validation.poll_challenge(due_ns, pto_ns) > 0
        assert not validation.has_failed(due_ns)
        sent_at.append(due_ns - START)
    step_ns = max(pto_ns, INITIAL_PTO_NS)
    assert sent_at == [step_ns * ((1 << i) - 1) for i in range(MAX_CHALLENGES)]
    end_ns = START + step_ns * ((1 << MAX_CHALLENGES) - 1)
    assert not validation.has_failed(end_ns - 1)  # the last response may still arrive
    assert validation.has_failed(end_ns)
    assert validation.poll_challenge(end_ns, pto_ns) == 0


def test_challenges_amplify_what_comes_from_an_address_by_three_at_most() -> None:
    """RFC 9000 sections 8 and 8.2.1: otherwise a forged address is a way to flood its owner."""
    validation = PathValidation(PATH, 0xC0FFEE, START)
    validation.on_received(("192.0.2.2", 9), 5000)  # from elsewhere
    assert validation.poll_challenge(START, 1) == 0
    validation.on_received(PATH, 500)
    due_ns = validation.poll_timeout()
    assert due_ns is not None
    assert validation.poll_challenge(due_ns, 1) == MAX_AMPLIFICATION * 500
    validation.on_challenge_sent(1200)
    due_ns = validation.poll_timeout()
    assert due_ns is not None
    assert validation.poll_challenge(due_ns, 1) == 300
    validation.on_challenge_sent(300)
    due_ns = validation.poll_timeout()
    assert due_ns is not None
    assert validation.poll_challenge(due_ns, 1) == 0
