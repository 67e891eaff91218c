"""Waits, before a trial, for a moment in which nothing takes the processors away from it.

On a virtual machine whose host is shared, the hypervisor takes processor time in phases of seconds to minutes, and an
emulated link that does not get its processor in time is late. Waiting for a quiet moment leaves nothing out and repeats
nothing: it is over before the trial begins, whichever transport is next. A loop that only reads the clock shows what is
taken: where two readings are far apart, the processor did something else.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

QUIET_SHARE = 0.02
"""A processor of which no more than this is taken is quiet."""
_PROBE_S = 0.05
_PAUSE_S = 0.5
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


class QuietWait:
    """The waits of a campaign, which share one patience.

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

        patience_s: how long all waits together may last; none if it is not positive
        on_wait:    is called about every half second of a wait, with the seconds that are left; what it raises ends it
        measure:    returns how much of the processors is taken now
        """
        self.left_s = patience_s
        self._on_wait = on_wait
        self._measure = measure
        self._clock = clock
        self._sleep = sleep

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
