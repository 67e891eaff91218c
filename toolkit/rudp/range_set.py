"""Sets of integers as sorted, disjoint, half-open intervals: packet numbers, and ranges of stream offsets.

Nearly every addition extends the last interval, in O(1). Any other takes a bisection and a splice of a list:
O(log n) comparisons and a memmove, where n is the number of intervals.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class RangeSet:
    """A set of integers. `add` and `remove` return what they changed."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        """The number of intervals."""
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __contains__(self, value: int) -> bool:
        i = bisect_right(self._starts, value) - 1
        return i >= 0 and value < self._ends[i]

    @property
    def first(self) -> tuple[int, int]:
        """The lowest interval. Raises IndexError if the set is empty."""
        return self._starts[0], self._ends[0]

    @property
    def last(self) -> tuple[int, int]:
        """The highest interval. Raises IndexError if the set is empty."""
        return self._starts[-1], self._ends[-1]

    def size(self) -> int:
        """The number of integers in the set. O(n)."""
        return sum(self._ends) - sum(self._starts)

    def contiguous_end(self, start: int = 0) -> int:
        """The first integer at or after `start` that is not in the set."""
        i = bisect_right(self._starts, start) - 1
        return max(start, self._ends[i]) if i >= 0 else start

    def next_start(self, value: int, limit: int) -> int:
        """The first integer in [value, limit) that is in the set; `limit` if the set contains no such integer."""
        i = bisect_right(self._ends, value)
        return min(limit, max(value, self._starts[i])) if i < len(self._starts) else limit

    def touches(self, start: int, end: int) -> bool:
        """Whether [start, end) overlaps or adjoins an interval, so that adding it makes no new one."""
        low = bisect_left(self._ends, start)
        return low < len(self._starts) and self._starts[low] <= end

    def newest_first(self, floor: int, limit: int) -> list[tuple[int, int]]:
        """At most `limit` intervals in descending order, without those that end at or below `floor`."""
        taken: list[tuple[int, int]] = []
        for i in range(len(self._starts) - 1, -1, -1):
            if len(taken) == limit or self._ends[i] <= floor:
                break
            taken.append((self._starts[i], self._ends[i]))
        return taken

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Add [start, end); return the parts that are new, in order."""
        starts, ends = self._starts, self._ends
        if start >= end:
            return []
        if not starts or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            return [(start, end)]
        if start == ends[-1]:
            ends[-1] = end
            return [(start, end)]
        low = bisect_left(ends, start)  # first interval that ends at or after start
        high = bisect_right(starts, end)  # first interval that begins after end
        added = []
        cursor = start
        for i in range(low, high):
            if cursor < starts[i]:
                added.append((cursor, starts[i]))
            cursor = max(cursor, ends[i])
        if cursor < end:
            added.append((cursor, end))
        if low < high:
            start = min(start, starts[low])
            end = max(end, ends[high - 1])
        starts[low:high] = [start]
        ends[low:high] = [end]
        return added

    def remove(self, start: int, end: int) -> int:
        """Remove [start, end); return how many integers that removed."""
        starts, ends = self._starts, self._ends
        if start >= end or not starts:
            return 0
        low = bisect_right(ends, start)  # first interval that ends after start
        high = bisect_left(starts, end)  # first interval that begins at or after end
        if low >= high:
            return 0
        before = sum(ends[low:high]) - sum(starts[low:high])
        kept_starts, kept_ends = [], []
        if starts[low] < start:
            kept_starts.append(starts[low])
            kept_ends.append(start)
        if ends[high - 1] > end:
            kept_starts.append(end)
            kept_ends.append(ends[high - 1])
        starts[low:high] = kept_starts
        ends[low:high] = kept_ends
        return before - (sum(kept_ends) - sum(kept_starts))
