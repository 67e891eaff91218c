"""What else the machine did during a transfer: the processor time of other programs, and what the hypervisor took.

/proc/stat counts the time of all processors in ticks of 10 ms. What the processes of the campaign used (this one and
its descendants, from /proc/PID/stat) is subtracted from the time that programs used. Interrupts are in neither: the
network's belong to the transfer. At a tick's resolution, a transfer of half a second on two processors is known to
within a few per cent.

Read: Documentation/filesystems/proc.rst (sections 1.1 and 1.7) and Documentation/accounting/psi.rst of the kernel.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BUSY_SHARE = 0.1
"""Other work and the hypervisor together may take this share of all processors before a trial is marked."""
_PROC = Path("/proc")
_STAT = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_PROGRAMS = ("user", "nice", "system")
_UTIME, _CSTIME = 11, 14  # counted from the field behind the name in parentheses, field 3 of proc(5)
_PPID = 1


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """What competed with a transfer for the processors, as shares of the time of all of them.

    foreign_share: used by programs that do not belong to the campaign
    steal_share:   taken by the hypervisor
    pressure:      share of the time in which some task, possibly the transfer's, waited for a processor (PSI); None
                   where the kernel does not report it
    """

    foreign_share: float
    steal_share: float
    pressure: float | None = None

    @property
    def taken_share(self) -> float:
        """Used by other programs, or taken by the hypervisor."""
        return self.foreign_share + self.steal_share

    @property
    def is_busy(self) -> bool:
        """Whether so little was left to the transfer that its trial is marked."""
        return self.taken_share > BUSY_SHARE


class LoadMeter:
    """Measures the load from now on: for `time_s`, or until `load` is called if that is earlier or there is no time."""

    def __init__(self, read: "Callable[[], LoadCounters | None]", time_s: float | None = None) -> None:
        """`read` returns the counters; another thread calls it when the time is up."""
        self._read = read
        self._before = read()
        self._after: LoadCounters | None = None
        self._timer = None if time_s is None else threading.Timer(time_s, self._end)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def _end(self) -> None:
        self._after = self._read()

    def load(self) -> MachineLoad | None:
        """The load; None where it is not known. Call it once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        return load_between(self._before, self._after or self._read())


@dataclass(frozen=True, slots=True)
class LoadCounters:
    """The counters at one moment: ticks of all processors by kind, ticks of own processes, PSI in us, and the time."""

    ticks: Mapping[str, int]
    own_ticks: int
    pressure_us: int | None
    time_s: float


def read_counters(proc: Path = _PROC) -> LoadCounters | None:
    """The counters now; None where the system has no /proc/stat."""
    try:
        ticks = parse_stat((proc / "stat").read_text())
    except (OSError, ValueError):
        return None
    pressure_us = None
    with suppress(OSError, ValueError):
        pressure_us = parse_pressure((proc / "pressure/cpu").read_text())
    return LoadCounters(ticks, _own_ticks(proc, os.getpid()), pressure_us, time.monotonic())


def load_between(start: LoadCounters | None, end: LoadCounters | None) -> MachineLoad | None:
    """The load between two readings; None if either is missing, or no time has passed."""
    if start is None or end is None:
        return None
    spent = {name: end.ticks[name] - start.ticks[name] for name in _STAT}
    total = sum(spent.values())
    seconds = end.time_s - start.time_s
    if total <= 0 or seconds <= 0:
        return None
    foreign = sum(spent[name] for name in _PROGRAMS) - (end.own_ticks - start.own_ticks)
    pressure = None
    if start.pressure_us is not None and end.pressure_us is not None:
        pressure = min(1.0, max(0.0, (end.pressure_us - start.pressure_us) / 1e6 / seconds))
    return MachineLoad(
        foreign_share=round(min(1.0, max(0.0, foreign / total)), 4),
        steal_share=round(min(1.0, max(0.0, spent["steal"] / total)), 4),
        pressure=round(pressure, 4) if pressure is not None else None,
    )


def parse_stat(text: str) -> dict[str, int]:
    """The first line of /proc/stat: ticks of all processors by kind. Raises ValueError."""
    name, *values = text.partition("\n")[0].split()
    if name != "cpu" or len(values) < len(_STAT):
        raise ValueError("the first line is not that of all processors")
    return dict(zip(_STAT, map(int, values), strict=False))


def parse_pressure(text: str) -> int:
    """/proc/pressure/cpu: microseconds in which some task waited, since the system started. Raises ValueError."""
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind == "some":
            return int(dict(field.split("=") for field in fields)["total"])
    raise ValueError("there is no line 'some'")


def _own_ticks(proc: Path, root: int) -> int:
    """Ticks of a process and of all its descendants, including those that it has waited for."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):  # it has just ended
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[_PPID])
            ticks[int(entry.name)] = sum(map(int, fields[_UTIME : _CSTIME + 1]))
    return sum(used for process, used in ticks.items() if _descends(process, root, parents))


def _descends(process: int, root: int, parents: Mapping[int, int]) -> bool:
    while process != root and process in parents:
        process = parents[process]
    return process == root
