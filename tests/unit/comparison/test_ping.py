"""The delay that pings show: those that a full queue drops count."""

import pytest

from toolkit.comparison.ping import delay_summary


def test_the_delay_of_answered_pings() -> None:
    delay = delay_summary([40.0] * 50 + [60.0] * 50, 0, 39.5)
    assert delay is not None
    assert (delay.base_ms, delay.median_ms, delay.p95_ms, delay.lost) == (39.5, 50.0, 60.0, 0)
    assert delay_summary([], 10, 40.0) is None


def test_pings_that_the_queue_drops_count_as_the_longest_round_trip() -> None:
    delay = delay_summary([40.0] * 90 + [140.0] * 4, 6, None)
    assert delay is not None
    assert (delay.base_ms, delay.p95_ms, delay.lost) == (40.0, 140.0, 6)


@pytest.mark.parametrize(("lost", "counted"), [(5, 0), (9, 0), (30, 20)])
def test_pings_lost_at_random_do_not_count(lost: int, counted: int) -> None:
    """5% of a hundred pings are five; up to ten are within two standard deviations."""
    delay = delay_summary([40.0] * (100 - lost), lost, None, loss=0.05)
    assert delay is not None
    assert delay.lost == counted
    assert delay.p95_ms == 40.0
