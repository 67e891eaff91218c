"""Challenges to a new path are few, and spaced by the probe timeout."""

from toolkit.rudp.path import MAX_CHALLENGES, PathValidation

PTO = 300


def test_a_challenge_is_repeated_after_a_timeout_and_given_up_after_some() -> None:
    validation = PathValidation(("192.0.2.1", 9), 0xC0FFEE, now_ns=1000)
    sent_at = []
    now_ns = 1000
    while (due_ns := validation.poll_timeout()) is not None:
        assert validation.poll_challenge(due_ns - 1, PTO) is None
        assert validation.poll_challenge(due_ns, PTO) == 0xC0FFEE
        sent_at.append(due_ns)
        now_ns = due_ns
    assert sent_at == [1000 + PTO * i for i in range(MAX_CHALLENGES)]
    assert validation.is_given_up
    assert validation.poll_challenge(now_ns + 10 * PTO, PTO) is None
