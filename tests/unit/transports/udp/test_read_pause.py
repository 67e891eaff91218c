"""When a receiver reads its socket again: seldom while content trickles in, at once after a silence."""

import pytest

from toolkit.transports.udp.read_pause import ReadPause

US, MS = 1_000, 1_000_000
NOW_NS = 1_000 * MS


def pauses(datagrams_per_read: list[int], max_ack_delay_ns: int) -> list[int]:
    """The pause after each read, in microseconds."""
    pause, total, left = ReadPause(), 0, []
    for number, datagrams in enumerate(datagrams_per_read):
        now_ns = NOW_NS + number * 10 * MS
        total += datagrams
        pause.on_content(now_ns, total, max_ack_delay_ns)
        left.append(pause.left_ns(now_ns, ()) // US)
    return left


def test_single_datagrams_make_longer_pauses_up_to_a_millisecond() -> None:
    assert pauses([1] * 5, 25 * MS) == [400, 800, 1000, 1000, 1000]


def test_reads_of_many_datagrams_make_shorter_ones() -> None:
    assert pauses([1, 1, 1, 17, 17, 17, 17], 25 * MS)[2:] == [1000, 500, 250, 200, 200]
    assert pauses([1, 1, 12, 12], 25 * MS) == [400, 800, 800, 800]


def test_a_pause_is_an_eighth_of_the_time_that_acknowledgements_may_wait() -> None:
    assert pauses([1] * 4, 4 * MS) == [400, 500, 500, 500]


@pytest.mark.parametrize("max_ack_delay_ns", [1 * MS, 1_599 * US])
def test_where_acknowledgements_are_wanted_at_once_there_is_none(max_ack_delay_ns: int) -> None:
    assert pauses([1] * 4, max_ack_delay_ns) == [0] * 4


def test_something_else_to_do_ends_a_pause() -> None:
    pause = ReadPause()
    pause.on_content(NOW_NS, 1, 25 * MS)
    assert pause.left_ns(NOW_NS + 100 * US, ()) == 300 * US
    assert pause.left_ns(NOW_NS + 100 * US, (NOW_NS + 150 * US, NOW_NS + MS)) == 50 * US
    assert pause.left_ns(NOW_NS + 100 * US, (NOW_NS,)) == 0


def test_what_arrives_after_a_silence_is_read_at_once() -> None:
    pause = ReadPause()
    assert pause.left_ns(NOW_NS, ()) == 0
    pause.on_content(NOW_NS, 1, 25 * MS)
    assert pause.left_ns(NOW_NS + 2 * MS, ()) == 0
