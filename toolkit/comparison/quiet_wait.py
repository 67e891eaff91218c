"""Waits, before a trial, for a moment in which nothing takes the processors away from it.

On a virtual machine whose host is shared, the hypervisor takes processor time in phases of seconds to minutes, and an
emulated link that does not get its processor in time is late. Waiting for a quiet moment leaves nothing out and repeats
nothing: it is over before the trial begins, whichever transport is next. A loop that only reads the clock shows what is
taken: where two readings are far apart, the processor did something else.
"""

import os
import time
from collections.abc import Callable

QUIET_SHARE = 0.02
"""A processor of which no more than this is taken is quiet."""
_PROBE_S = 0.1
_PAUSE_S = 0.5
_GAP_NS = 500_000
"""Two readings of the clock are less than a microsecond apart, and some microseconds with an interrupt in between."""
_MAX_PINNED = 4
"""Where there are more processors, one that is busy is no obstacle: the scheduler finds another."""


def taken_share() -> float:
    """How much of a processor is taken from this thread, of that processor where it is most; 0.1 s for each."""
    if not hasattr(os, "sched_setaffinity"):
        return _taken_share_here()
    usable = os.sched_getaffinity(0)
    if len(usable) > _MAX_PINNED:
        return _taken_share_here()
    shares = []
    try:
        for processor in sorted(usable):
            os.sched_setaffinity(0, {processor})
            shares.append(_taken_share_here())
    finally:
        os.sched_setaffinity(0, usable)
    return max(shares)


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
    """The waits of a campaign: all its trials share one patience."""

    def __init__(
        self,
        patience_s: float,
        on_wait: Callable[[float], object] = lambda _left_s: None,
        measure: Callable[[], float] = taken_share,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begin with all of it.

        on_wait: is called about every half second of a wait, with the seconds that are left; what it raises ends it
        measure: how much of the processors is taken now
        """
        self._left_s = patience_s
        self._on_wait = on_wait
        self._measure = measure
        self._clock = clock
        self._sleep = sleep

    def wait(self) -> float:
        """Return when the processors are quiet, or the patience is used up; how many seconds they were not quiet."""
        waited_s = 0.0
        while self._left_s > 0:
            started_s = self._clock()
            if self._measure() <= QUIET_SHARE:
                break
            self._on_wait(self._left_s)
            self._sleep(min(_PAUSE_S, self._left_s))
            passed_s = self._clock() - started_s
            self._left_s -= passed_s
            waited_s += passed_s
        return waited_s
