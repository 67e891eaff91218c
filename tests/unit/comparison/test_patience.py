"""The wait for quiet processors before a trial, and the repeats of disturbed trials."""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from toolkit.comparison import patience
from toolkit.comparison.conditions import TrialConditions
from toolkit.comparison.machine_load import MachineLoad
from toolkit.comparison.patience import Patience, taken_share
from toolkit.comparison.records import Probe, Trial

PROBE_S = 0.1


class Machine:
    """A machine of which this share is taken at each measurement, the last one for ever; measuring takes PROBE_S."""

    def __init__(self, shares: Sequence[float]) -> None:
        self.now_s = 0.0
        self.measured = 0
        self.calls: list[float] = []
        self._shares = shares

    def measure(self) -> float:
        self.sleep(PROBE_S)
        share = self._shares[min(self.measured, len(self._shares) - 1)]
        self.measured += 1
        return share

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, self.calls.append, self.measure, lambda: self.now_s, self.sleep)


def test_a_quiet_machine_is_not_waited_for() -> None:
    machine = Machine([0.0])
    assert machine.patience(10.0).wait() == 0.0
    assert machine.measured == 1


def test_a_busy_machine_is_waited_for_until_it_is_quiet() -> None:
    machine = Machine([0.4, 0.03, 0.02])
    assert machine.patience(10.0).wait() == pytest.approx(2 * (0.5 + PROBE_S))
    assert machine.measured == 3
    assert machine.calls == [10.0, pytest.approx(10.0 - 0.5 - PROBE_S)]


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


def test_a_reserve_is_kept() -> None:
    machine = Machine([0.4])
    waits = machine.patience(10.0)
    assert waits.wait(reserve_s=4.0) == pytest.approx(6.0, abs=1.5 * PROBE_S)
    assert waits.left_s == pytest.approx(4.0, abs=1.5 * PROBE_S)


TIMED = Trial(0, 0, "udp-bbr", "a", 0, verified=True, seconds=1.0, goodput_bps=1e6)
TRIAL_S = 2.0


class Runs:
    """Trials that take TRIAL_S each, during which the hypervisor takes these shares."""

    def __init__(self, machine: Machine, trial: Trial, steal_shares: Sequence[float], foreign_share: float = 0.0):
        self._machine, self._trial, self._shares = machine, trial, list(steal_shares)
        self._foreign_share = foreign_share

    def __call__(self) -> Trial:
        self._machine.sleep(TRIAL_S)
        load = MachineLoad(self._foreign_share, self._shares.pop(0))
        return replace(self._trial, conditions=TrialConditions(load=load))


def shares(trials: Sequence[Trial]) -> list[tuple[float, bool]]:
    loads = [trial.conditions.load for trial in trials if trial.conditions is not None]
    return [
        (load.steal_share, trial.is_repeated) for load, trial in zip(loads, trials, strict=True) if load is not None
    ]


def test_a_trial_that_the_hypervisor_disturbed_is_repeated_until_it_is_not() -> None:
    machine = Machine([0.4, 0.0])
    patience = machine.patience(20.0)
    attempts = list(patience.attempts(Runs(machine, TIMED, [0.3, 0.021, 0.02, 0.3])))
    assert shares(attempts) == [(0.3, True), (0.021, True), (0.02, False)]
    assert [trial.waited_s for trial in attempts] == [0.6, 0.0, 0.0]
    assert patience.left_s == pytest.approx(20.0 - 0.6 - 2 * TRIAL_S)


def test_a_disturbed_trial_counts_when_the_patience_is_used_up() -> None:
    machine = Machine([0.0])
    patience = machine.patience(10.0)
    attempts = list(patience.attempts(Runs(machine, TIMED, [0.3] * 3), reserve_s=5.0))
    assert shares(attempts) == [(0.3, True), (0.3, True), (0.3, False)]
    assert patience.left_s == pytest.approx(10.0 - 2 * TRIAL_S)
    later = list(machine.patience(0.0).attempts(Runs(machine, TIMED, [0.3])))
    assert shares(later) == [(0.3, False)]


def test_a_trial_that_takes_as_long_as_it_takes_is_not_repeated() -> None:
    machine, trial = Machine([0.0]), replace(TIMED, payload_bytes=1 << 20)
    assert shares(list(machine.patience(20.0).attempts(Runs(machine, trial, [0.3])))) == [(0.3, False)]


def test_whether_a_trial_failed_makes_no_difference() -> None:
    machine, trial = Machine([0.0]), replace(TIMED, verified=False, seconds=None, goodput_bps=None, error="lost")
    attempts = machine.patience(20.0).attempts(Runs(machine, trial, [0.3, 0.0]))
    assert shares(list(attempts)) == [(0.3, True), (0.0, False)]


PROBE = Probe("a", 1e8, None, 0.0, None, is_met=True, text="")
OFF = replace(PROBE, is_met=False)


@pytest.mark.parametrize(
    ("found", "patience_s", "kept"),
    [
        ([PROBE], 20.0, 1),
        ([OFF, PROBE], 20.0, 2),
        ([OFF, OFF, OFF, PROBE], 20.0, 3),
        ([OFF, PROBE], 0.0, 1),
        ([replace(PROBE, is_met=None)], 20.0, 1),
        ([None], 20.0, 0),
    ],
)
def test_a_path_is_measured_again_while_it_is_not_what_was_asked_for(
    found: list[Probe | None], patience_s: float, kept: int
) -> None:
    machine, expected = Machine([0.0]), found[:kept]

    def measure() -> Probe | None:
        machine.sleep(TRIAL_S)
        return found.pop(0)

    patience = machine.patience(patience_s)
    assert list(patience.probes(measure)) == expected
    assert patience.left_s == patience_s - TRIAL_S * max(0, kept - 1)


def test_other_programs_are_no_reason_to_repeat_a_trial() -> None:
    machine = Machine([0.0])
    attempts = list(machine.patience(20.0).attempts(Runs(machine, TIMED, [0.0], foreign_share=0.5)))
    assert shares(attempts) == [(0.0, False)]


def test_a_trial_without_a_known_load_is_not_repeated() -> None:
    assert list(Machine([0.0]).patience(20.0).attempts(lambda: TIMED)) == [TIMED]


@pytest.mark.parametrize("most_measured", [0, 64])
def test_a_share_is_measured_and_the_thread_may_run_anywhere_again(
    monkeypatch: pytest.MonkeyPatch, most_measured: int
) -> None:
    monkeypatch.setattr(patience, "_MAX_MEASURED", most_measured)
    usable = os.sched_getaffinity(0)
    assert 0.0 <= taken_share() <= 1.0
    assert os.sched_getaffinity(0) == usable


class Processors:
    """Two processors, of which these shares are taken; `only` is where this thread may run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, shares: Mapping[int, float]) -> None:
        self.only = set(shares)
        self._shares = shares
        monkeypatch.setattr("os.sched_getaffinity", lambda _thread: set(shares), raising=False)
        monkeypatch.setattr("os.sched_setaffinity", self.choose, raising=False)
        monkeypatch.setattr(patience, "_taken_share_here", self.measure)

    def choose(self, _thread: int, processors: set[int]) -> None:
        self.only = processors

    def measure(self) -> float:
        return self._shares[min(self.only)]


@pytest.mark.parametrize("shares", [{0: 0.1, 1: 0.3}, {0: 0.3, 1: 0.1}])
def test_of_several_processors_the_one_of_which_most_is_taken_counts(
    monkeypatch: pytest.MonkeyPatch, shares: Mapping[int, float]
) -> None:
    processors = Processors(monkeypatch, shares)
    assert taken_share() == 0.3
    assert processors.only == {0, 1}


def test_an_interrupt_leaves_the_thread_free_to_run_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    processors = Processors(monkeypatch, {0: 0.0, 1: 0.0})

    def interrupt() -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(patience, "_taken_share_here", interrupt)
    with pytest.raises(KeyboardInterrupt):
        taken_share()
    assert processors.only == {0, 1}


def test_where_the_processor_cannot_be_chosen_any_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    Processors(monkeypatch, {0: 0.2, 1: 0.2})

    def forbid(_thread: int, _processors: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr("os.sched_setaffinity", forbid, raising=False)
    assert taken_share() == 0.2


@pytest.mark.parametrize(("gap_ns", "share"), [(400_000, 0.5), (50_000, 0.0)])
def test_a_long_gap_between_two_readings_of_the_clock_is_time_that_was_taken(
    monkeypatch: pytest.MonkeyPatch, gap_ns: int, share: float
) -> None:
    """As many nanoseconds of small steps lie between two gaps; an interrupt is no gap."""
    now_ns, steps_ns = 0, itertools.cycle([gap_ns, *[1_000] * (gap_ns // 1_000)])

    def monotonic_ns() -> int:
        nonlocal now_ns
        now_ns += next(steps_ns)
        return now_ns

    monkeypatch.setattr("time.monotonic_ns", monotonic_ns)
    monkeypatch.setattr(patience, "_MAX_MEASURED", 0)
    assert taken_share() == pytest.approx(share, abs=0.01)
