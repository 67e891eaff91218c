"""What `nettool diff` shows and when --fail-if applies."""

from dataclasses import replace

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.diff import CellChange, compare
from toolkit.comparison.records import Results
from toolkit.report.changes import CONDITIONS, applies, changes_text, flat_change


def changed(factor: float, *, arrives: bool = True) -> CellChange:
    """One transport whose goodput has changed by a factor."""
    old = campaign()
    trials = [
        replace(t, goodput_bps=factor * t.goodput_bps, verified=arrives) if t.goodput_bps else t for t in old.trials
    ]
    return compare(old, replace(old, trials=trials))[0]


def campaign(path: str = "a") -> Results:
    return make_results(Truth({("tcp-cubic", path): 90e6}, repeats=9, noise=0.001, with_control=False), 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed(0.5), ["slower"]),
        (changed(2.0), ["faster"]),
        (changed(0.99), []),  # negligible
        (changed(1.0), []),
        (changed(1.0, arrives=False), ["slower", "no-claim"]),
        (compare(campaign("a"), campaign("b"))[0], ["missing"]),
        (compare(campaign("a"), campaign("b"))[1], ["missing"]),
    ],
)
def test_the_conditions_of_fail_if(change: CellChange, expected: list[str]) -> None:
    assert [condition for condition in CONDITIONS if applies(change, [condition])] == expected
    assert not applies(change, [])


def test_a_change_is_one_line_and_failures_are_named() -> None:
    lines = changes_text([changed(0.5), changed(1.0, arrives=False)], ["kernel: 6.1 -> 6.9"], 100).split("\n")
    assert lines[3].endswith("slower")
    assert " failed " in lines[4]
    assert "The two campaigns differ: kernel: 6.1 -> 6.9." in lines
    assert lines[-1] == "a, 95.37 MiB, tcp-cubic: too few transfers arrived."
    assert max(map(len, changes_text([changed(0.5)], [], 50).split("\n"))) <= 50


def test_a_flat_change_has_plain_values() -> None:
    flat = flat_change(changed(0.5))
    assert flat["ratio"] == pytest.approx(0.5)
    assert all(value is None or isinstance(value, str | int | float) for value in flat.values())
