"""Reported CE marks are counted; marking ends if the path clears the marks."""

from toolkit.rudp.ecn import ECT_0, NOT_ECT, EcnValidator


def test_marking_continues_while_marks_arrive() -> None:
    ecn = EcnValidator()
    total = 0
    for _ in range(100):
        total += 10
        assert ecn.on_ack(10, total, 0) == 0
    assert ecn.codepoint == ECT_0


def test_newly_marked_packets_are_counted_once() -> None:
    ecn = EcnValidator()
    assert ecn.on_ack(20, 17, 3) == 3
    assert ecn.on_ack(20, 35, 5) == 2
    assert ecn.on_ack(0, 30, 4) == 0  # an older acknowledgement changes nothing
    assert ecn.on_ack(10, 45, 5) == 0
    assert ecn.codepoint == ECT_0


def test_marking_ends_on_a_path_that_clears_the_field() -> None:
    """RFC 9000 section 13.4.2.1: fewer marks than newly acknowledged packets."""
    ecn = EcnValidator()
    ecn.on_ack(5, 0, 0)
    assert ecn.codepoint == ECT_0  # too few to decide
    ecn.on_ack(20, 0, 0)
    assert ecn.codepoint == NOT_ECT
    assert ecn.on_ack(20, 20, 20) == 0


def test_marking_ends_if_nothing_is_ever_acknowledged() -> None:
    ecn = EcnValidator()
    ecn.on_timeout(1)
    assert ecn.codepoint == ECT_0
    ecn.on_timeout(2)
    assert ecn.codepoint == NOT_ECT


def test_marking_continues_through_later_timeouts() -> None:
    ecn = EcnValidator()
    ecn.on_ack(1, 1, 0)
    ecn.on_timeout(9)
    assert ecn.codepoint == ECT_0


def test_a_new_path_is_validated_by_its_own_packets() -> None:
    """The peer's counts are totals of the connection; those of the old path do not count for the new one."""
    ecn = EcnValidator()
    ecn.on_ack(1000, 990, 10)
    ecn = ecn.for_new_path()
    assert ecn.on_ack(20, 1009, 11) == 1
    assert ecn.codepoint == ECT_0
    ecn.on_ack(20, 1009, 11)
    assert ecn.codepoint == NOT_ECT
    ecn = ecn.for_new_path()
    assert ecn.codepoint == ECT_0
    ecn.on_timeout(2)
    assert ecn.codepoint == NOT_ECT


def test_counts_wrap() -> None:
    ecn = EcnValidator()
    step = 1 << 30
    for total in range(step, 6 * step, step):
        ecn.on_ack(100, total % (1 << 32), 0)
    assert ecn.codepoint == ECT_0
    assert ecn.on_ack(100, (6 * step) % (1 << 32), 7) == 7
