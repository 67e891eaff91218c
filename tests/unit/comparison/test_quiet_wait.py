"""The wait for quiet processors before a trial."""

import os
from collections.abc import Sequence

import pytest

from toolkit.comparison import quiet_wait
from toolkit.comparison.quiet_wait import QuietWait, taken_share

PROBE_S = 0.1


class Machine:
    """A machine of which this share is taken at each measurement, the last one for ever; measuring takes PROBE_S."""

    def __init__(self, shares: Sequence[float]) -> None:
        self.now_s = 0.0
        self.measured = 0
        self.told: list[float] = []
        self._shares = shares

    def measure(self) -> float:
        self.sleep(PROBE_S)
        share = self._shares[min(self.measured, len(self._shares) - 1)]
        self.measured += 1
        return share

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def patience(self, seconds: float) -> QuietWait:
        return QuietWait(seconds, self.told.append, self.measure, lambda: self.now_s, self.sleep)


def test_a_quiet_machine_is_not_waited_for() -> None:
    machine = Machine([0.0])
    assert machine.patience(10.0).wait() == 0.0
    assert machine.measured == 1


def test_a_busy_machine_is_waited_for_until_it_is_quiet() -> None:
    machine = Machine([0.4, 0.03, 0.02])
    assert machine.patience(10.0).wait() == pytest.approx(2 * (0.5 + PROBE_S))
    assert machine.measured == 3
    assert machine.told == [10.0, pytest.approx(10.0 - 0.5 - PROBE_S)]


def test_all_trials_share_one_patience() -> None:
    machine = Machine([0.4] * 6 + [0.0, 0.4])
    waits = machine.patience(5.0)
    first_s, second_s, third_s = waits.wait(), waits.wait(), waits.wait()
    assert first_s == pytest.approx(6 * (0.5 + PROBE_S))
    assert first_s + second_s == pytest.approx(5.0, abs=PROBE_S)
    assert third_s == 0.0


def test_without_patience_nothing_is_measured() -> None:
    machine = Machine([0.4])
    assert machine.patience(0.0).wait() == 0.0
    assert machine.measured == 0


@pytest.mark.parametrize("most_pinned", [0, 64])
def test_a_share_is_measured_and_the_thread_may_run_anywhere_again(
    monkeypatch: pytest.MonkeyPatch, most_pinned: int
) -> None:
    monkeypatch.setattr(quiet_wait, "_MAX_PINNED", most_pinned)
    usable = os.sched_getaffinity(0)
    assert 0.0 <= taken_share() <= 1.0
    assert os.sched_getaffinity(0) == usable


def test_a_gap_between_two_readings_of_the_clock_is_time_that_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0

    def monotonic_ns() -> int:
        nonlocal now_ns
        now_ns += 25_000_000 if now_ns == 50_000_000 else 100_000
        return now_ns

    monkeypatch.setattr("time.monotonic_ns", monotonic_ns)
    monkeypatch.setattr(quiet_wait, "_MAX_PINNED", 0)
    assert taken_share() == pytest.approx(0.25, abs=0.01)
