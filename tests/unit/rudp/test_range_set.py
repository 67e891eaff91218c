"""Edge cases of RangeSet; the property tests compare it with a model."""

import pytest

from toolkit.rudp.range_set import RangeSet


def ranges_of(*intervals: tuple[int, int]) -> RangeSet:
    ranges = RangeSet()
    for start, end in intervals:
        ranges.add(start, end)
    return ranges


def test_an_empty_set_has_no_first_and_no_last() -> None:
    ranges = RangeSet()
    assert not ranges
    assert 0 not in ranges
    assert ranges.contiguous_end() == 0
    assert ranges.next_start(3, 9) == 9
    for edge in ("first", "last"):
        with pytest.raises(IndexError):
            getattr(ranges, edge)


@pytest.mark.parametrize(
    ("added", "new", "after"),
    [
        ((5, 5), [], [(10, 20), (30, 40)]),  # empty
        ((9, 5), [], [(10, 20), (30, 40)]),
        ((40, 50), [(40, 50)], [(10, 20), (30, 50)]),  # the common case
        ((50, 60), [(50, 60)], [(10, 20), (30, 40), (50, 60)]),
        ((12, 18), [], [(10, 20), (30, 40)]),
        ((20, 30), [(20, 30)], [(10, 40)]),  # exactly a hole
        ((19, 31), [(20, 30)], [(10, 40)]),
        ((0, 10), [(0, 10)], [(0, 20), (30, 40)]),  # adjacent below
        ((0, 99), [(0, 10), (20, 30), (40, 99)], [(0, 99)]),
    ],
)
def test_add_returns_what_is_new(
    added: tuple[int, int], new: list[tuple[int, int]], after: list[tuple[int, int]]
) -> None:
    ranges = ranges_of((10, 20), (30, 40))
    assert ranges.add(*added) == new
    assert list(ranges) == after


@pytest.mark.parametrize(
    ("removed", "count", "after"),
    [
        ((0, 10), 0, [(10, 20), (30, 40)]),
        ((20, 30), 0, [(10, 20), (30, 40)]),
        ((12, 15), 3, [(10, 12), (15, 20), (30, 40)]),  # a new hole
        ((15, 35), 10, [(10, 15), (35, 40)]),
        ((10, 40), 20, []),
        ((0, 1 << 62), 20, []),
    ],
)
def test_remove_returns_how_many_were_removed(
    removed: tuple[int, int], count: int, after: list[tuple[int, int]]
) -> None:
    ranges = ranges_of((10, 20), (30, 40))
    assert ranges.remove(*removed) == count
    assert list(ranges) == after
