"""Waits for quiet processors before a trial, and repeats a trial during which the hypervisor took them away.

On a virtual machine whose host is shared, the hypervisor takes processor time in phases of seconds to minutes, and an
emulated link that does not get its processor in time is late. A wait is over before the trial begins, whichever
transport is next. A loop that only reads the clock shows what is taken: where two readings are far apart, the processor
did something else.

Whether a trial is repeated depends on what the hypervisor took during its time, and on nothing that it measured, not
even whether it failed. Only timed trials are repeated: a slow transfer of a file gives the hypervisor more time to
disturb it than a fast one, and the slow ones would be left out more often.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from toolkit.comparison.records import Probe, Trial

QUIET_SHARE = 0.02
"""A processor of which no more than this is taken is quiet."""
DISTURBED_SHARE = 0.02
"""A trial during which the hypervisor took more of the time of all processors was disturbed."""
_PROBE_S = 0.05
_PAUSE_S = 0.5
_MAX_PROBES = 3
_GAP_NS = 100_000
"""Two readings of the clock are less than a microsecond apart, and some tens of microseconds around an interrupt."""
_MAX_MEASURED = 4
"""Where there are more processors, only the one that the scheduler chooses is measured: the trial does not need all."""


def taken_share() -> float:
    """Return the largest share of time, 0 to 1, that any one processor was taken from this thread."""
    if _measured_processors() == 1:
        return _taken_share_here()
    usable = os.sched_getaffinity(0)
    shares = []
    try:
        for processor in sorted(usable):
            with suppress(OSError):  # a sandbox may forbid it, and processors may be taken away: then of any processor
                os.sched_setaffinity(0, {processor})
            shares.append(_taken_share_here())
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, usable)
    return max(shares)


def measuring_s() -> float:
    """Return how long `taken_share` takes."""
    return _PROBE_S * _measured_processors()


def _measured_processors() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return usable if usable <= _MAX_MEASURED else 1


def _taken_share_here() -> float:
    taken_ns = 0
    last_ns = started_ns = time.monotonic_ns()
    end_ns = started_ns + int(_PROBE_S * 1e9)
    while last_ns < end_ns:
        now_ns = time.monotonic_ns()
        if now_ns - last_ns > _GAP_NS:
            taken_ns += now_ns - last_ns
        last_ns = now_ns
    return taken_ns / (last_ns - started_ns)


class Patience:
    """The time that a campaign may spend on waits, on repeated trials, and on probes of a path that was not met.

    left_s: what is left of it
    """

    def __init__(
        self,
        patience_s: float,
        on_wait: Callable[[float], object] = lambda _left_s: None,
        measure: Callable[[], float] = taken_share,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Start with all of the patience.

        patience_s: how long all waits and repeated trials together may last; none if it is not positive
        on_wait:    is called about every half second of a wait, with the seconds that are left; what it raises ends it
        measure:    returns how much of the processors is taken now
        """
        self.left_s = patience_s
        self._on_wait = on_wait
        self._measure = measure
        self._clock = clock
        self._sleep = sleep

    def attempts(self, run: Callable[[], Trial], reserve_s: float = 0.0) -> Iterator[Trial]:
        """Wait and `run` a trial, and again while it was disturbed and more than `reserve_s` of the patience is left.

        Yields each attempt as soon as it is over, with its wait; all but the last are marked as repeated.
        """
        while True:
            waited_s = round(self.wait(reserve_s), 3)
            started_s = self._clock()
            trial = replace(run(), waited_s=waited_s)
            took_s = self._clock() - started_s
            if not _is_disturbed(trial) or self.left_s - took_s <= reserve_s:
                break
            self.left_s -= took_s
            yield replace(trial, is_repeated=True)
        yield trial

    def probes(self, measure: Callable[[], Probe | None], reserve_s: float = 0.0) -> Iterator[Probe]:
        """Wait and measure a path, and again, up to three times, while it is not met and patience is left.

        A path that was met once can be carried; whether the link kept to its schedule later, each trial shows.
        """
        for left in reversed(range(_MAX_PROBES)):
            self.wait(reserve_s)
            started_s = self._clock()
            probe = measure()
            if probe is None:
                return
            yield probe
            took_s = self._clock() - started_s
            if probe.is_met is not False or not left or self.left_s - took_s <= reserve_s:
                return
            self.left_s -= took_s

    def wait(self, reserve_s: float = 0.0) -> float:
        """Wait until the processors are quiet, or no more than `reserve_s` of the patience is left.

        Returns the seconds waited, without the last measurement if it found the processors quiet.
        """
        waited_s = 0.0
        while self.left_s > reserve_s:
            started_s = self._clock()
            if self._measure() <= QUIET_SHARE:
                break
            self._on_wait(self.left_s - reserve_s)
            self._sleep(min(_PAUSE_S, self.left_s - reserve_s))
            passed_s = self._clock() - started_s
            self.left_s -= passed_s
            waited_s += passed_s
        return waited_s


def _is_disturbed(trial: Trial) -> bool:
    """Whether the hypervisor took too much from a timed trial."""
    load = None if trial.conditions is None else trial.conditions.load
    return trial.payload_bytes == 0 and load is not None and load.steal_share > DISTURBED_SHARE
