"""Delivery traces: the rules of mahimahi, checked by hand."""

import pytest

from toolkit.errors import UsageError
from toolkit.netmodel.mahimahi import parse_trace
from toolkit.netmodel.path import PathModel
from toolkit.netmodel.spec import PathSpec, QueueSpec

MS = 1_000_000


def deliveries(trace: tuple[int, ...], offered: list[tuple[float, int]]) -> list[float]:
    """(time in ms, bytes) of offered packets -> delivery times in ms."""
    path = PathModel(PathSpec(trace_ms=trace, queue=QueueSpec(limit_bytes=10**9)), 0, 1)
    came: list[float] = []
    for at_ms, size in offered:
        path.handle_packets(at_ms * MS, size)
        came += [at / MS for fate in path.poll_fates(at_ms * MS) for _, at in fate.deliveries()]
    return came


def test_a_packet_leaves_at_the_next_opportunity() -> None:
    assert deliveries((3, 7, 10), [(0, 1504), (0, 1504), (0, 1504), (0, 1504)]) == [3, 7, 10, 13]


def test_an_opportunity_with_an_empty_queue_is_lost() -> None:
    assert deliveries((3, 7, 10), [(5, 1504), (5, 1504)]) == [7, 10]
    assert deliveries((3, 7, 10), [(7, 1504)]) == [7]


def test_the_rest_of_an_opportunity_serves_the_next_packet() -> None:
    assert deliveries((3, 7, 10), [(0, 500), (0, 1004), (0, 100)]) == [3, 3, 7]


def test_the_rest_of_an_opportunity_does_not_wait_for_a_packet() -> None:
    assert deliveries((3, 7, 10), [(0, 500), (4, 500)]) == [3, 7]


def test_a_packet_may_need_several_opportunities() -> None:
    assert deliveries((3, 7, 10), [(0, 3000), (0, 8)]) == [7, 7]


def test_several_opportunities_at_the_same_time() -> None:
    assert deliveries((5, 5, 10), [(0, 1504), (0, 1504), (0, 1504)]) == [5, 5, 10]


def test_the_trace_repeats() -> None:
    assert deliveries((3, 7, 10), [(1000, 1504), (1000, 1504), (2001, 1504)]) == [1000, 1003, 2003]


def test_the_rate_is_the_average_of_the_trace() -> None:
    spec = PathSpec(trace_ms=tuple(range(1, 1001)), queue=QueueSpec(limit_bytes=10**9))
    assert spec.mean_rate_bps == pytest.approx(1504 * 8 * 1000)
    path = PathModel(spec, 0, 1)
    path.handle_packets(0, 1504, 3000)
    came = [at for fate in path.poll_fates(0) for _, at in fate.deliveries()]
    assert came == [n * MS for n in range(1, 3001)]


def test_a_file_is_parsed() -> None:
    assert parse_trace("# recorded on a train\n0\n5\n\n5\n 12 \n") == (0, 5, 5, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no delivery opportunity"),
        ("0\n0\n", "no delivery opportunity"),
        ("5\n4\n", "line 2: time goes back"),
        ("5\nsix\n", "line 2: 'six'"),
        ("-1\n", "line 1"),
        ("1.5\n", "line 1"),
        ("٣\n", "line 1"),
        ("9" * 13, "line 1"),
        ("\x1b[2J\n", "line 1"),
    ],
)
def test_an_error_names_its_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_trace(text, "up.trace")
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
