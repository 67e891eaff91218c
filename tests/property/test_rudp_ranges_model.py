"""RangeSet agrees with a plain set of integers over sequences of operations."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.repetitions import examples
from toolkit.rudp.range_set import RangeSet

TOP = 60
values = st.integers(0, TOP)


def intervals_of(model: set[int]) -> list[tuple[int, int]]:
    """Maximal runs of a set."""
    starts = [v for v in sorted(model) if v - 1 not in model]
    ends = [v + 1 for v in sorted(model) if v + 1 not in model]
    return list(zip(starts, ends, strict=True))


class RangeSetMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ranges = RangeSet()
        self.model: set[int] = set()

    @rule(start=values, end=values)
    def add(self, start: int, end: int) -> None:
        fresh = set(range(start, end)) - self.model
        assert self.ranges.add(start, end) == intervals_of(fresh)
        self.model |= fresh

    @rule(length=st.integers(1, 3))
    def append(self, length: int) -> None:
        """The common case: the next range."""
        start = max(self.model, default=-1) + 1
        assert self.ranges.add(start, start + length) == [(start, start + length)]
        self.model |= set(range(start, start + length))

    @rule(start=values, end=values)
    def remove(self, start: int, end: int) -> None:
        gone = set(range(start, end)) & self.model
        assert self.ranges.remove(start, end) == len(gone)
        self.model -= gone

    @rule(value=values)
    def contains(self, value: int) -> None:
        assert (value in self.ranges) == (value in self.model)

    @rule(start=values)
    def contiguous_end(self, start: int) -> None:
        end = start
        while end in self.model:
            end += 1
        assert self.ranges.contiguous_end(start) == end

    @rule(value=values, limit=values)
    def next_start(self, value: int, limit: int) -> None:
        inside = [v for v in self.model if value <= v < limit]
        if value <= limit:
            assert self.ranges.next_start(value, limit) == min(inside, default=limit)

    @rule(start=values, end=values)
    def touches(self, start: int, end: int) -> None:
        if start < end:
            grown = intervals_of(self.model | set(range(start, end)))
            assert self.ranges.touches(start, end) == (len(grown) <= len(intervals_of(self.model)))

    @rule(floor=values, limit=st.integers(0, 5))
    def newest_first(self, floor: int, limit: int) -> None:
        expected = [i for i in reversed(intervals_of(self.model)) if i[1] > floor][:limit]
        assert self.ranges.newest_first(floor, limit) == expected

    @invariant()
    def agrees(self) -> None:
        expected = intervals_of(self.model)
        assert list(self.ranges) == expected
        assert len(self.ranges) == len(expected)
        assert bool(self.ranges) == bool(expected)
        assert self.ranges.size() == len(self.model)
        if expected:
            assert self.ranges.first == expected[0]
            assert self.ranges.last == expected[-1]


TestRangeSet = RangeSetMachine.TestCase
TestRangeSet.settings = settings(max_examples=examples(150), stateful_step_count=30)


@given(st.lists(st.tuples(st.integers(0, 1 << 62), st.integers(1, 1 << 20)), max_size=40))
def test_intervals_stay_sorted_and_disjoint(added: list[tuple[int, int]]) -> None:
    ranges = RangeSet()
    for start, length in added:
        ranges.add(start, start + length)
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))
