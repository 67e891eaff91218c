"""What else a machine did, from the counters of an invented one."""

import os
import threading
from pathlib import Path

import pytest

from tests.support.background import PATIENCE_S
from toolkit.comparison.machine_load import (
    BUSY_SHARE,
    LoadCounters,
    LoadMeter,
    MachineLoad,
    load_between,
    read_counters,
)


def machine(folder: Path, stat: str, own: int = 0, child: int = 0, stranger: int = 0, pressure_us: int = 0) -> Path:
    """A /proc with these ticks; `own` and `child` belong to this process, `stranger` does not."""
    processes = {os.getpid(): (1, own), 99_999_998: (os.getpid(), child), 99_999_999: (1, stranger)}
    for number, (parent, ticks) in processes.items():
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        fields = f"S {parent} 0 0 0 0 0 0 0 0 0 {ticks} 0 0 0 20 0"
        (folder / str(number) / "stat").write_text(f"{number} (a ) name) {fields}")
    (folder / "stat").write_text(f"cpu  {stat}\ncpu0 1 2 3\n")
    (folder / "pressure").mkdir(exist_ok=True)
    (folder / "pressure" / "cpu").write_text(f"some avg10=0.00 avg60=0.00 avg300=0.00 total={pressure_us}\n")
    (folder / "self").mkdir(exist_ok=True)
    return folder


def test_what_belongs_to_the_campaign_is_not_foreign(tmp_path: Path) -> None:
    before = read_counters(machine(tmp_path, "0 0 0 0 0 0 0 0 0 0"))
    #                      user nice system idle iowait irq softirq steal
    after = read_counters(machine(tmp_path, "60 5 15 100 0 5 5 10 0 0", own=10, child=40, stranger=30))
    load = load_between(before, after)
    assert load is not None
    assert (load.foreign_share, load.steal_share) == (0.15, 0.05)  # of 200 ticks: 80 by programs, 50 of them our own
    assert load.is_busy
    assert load.pressure == 0.0


@pytest.mark.parametrize(
    ("foreign", "steal", "is_busy"), [(BUSY_SHARE, 0.0, False), (BUSY_SHARE, 0.001, True), (0.0, 0.2, True)]
)
def test_the_share_from_which_on_a_machine_is_busy(foreign: float, steal: float, is_busy: bool) -> None:
    assert MachineLoad(foreign, steal).is_busy == is_busy


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert read_counters(tmp_path) is None
    (tmp_path / "stat").write_text("cpu 1 2 3\n")
    assert read_counters(tmp_path) is None
    counters = read_counters(machine(tmp_path, "1 1 1 1 1 1 1 1"))
    assert load_between(None, counters) is None
    assert load_between(counters, counters) is None
    (tmp_path / "pressure" / "cpu").write_text("nothing")
    unknown = read_counters(machine_without_pressure(tmp_path))
    assert unknown is not None
    assert unknown.pressure_us is None


@pytest.mark.parametrize(("time_s", "share"), [(None, 0.2), (60.0, 0.2), (0.0, 0.1)])
def test_a_meter_reads_at_its_time_or_when_it_is_asked_earlier(
    tmp_path: Path, time_s: float | None, share: float
) -> None:
    """The hypervisor takes 10 of 100 ticks until the second reading, and 30 of the next 100."""
    ticks = iter(["0 0 0 0 0 0 0 0", "0 0 0 90 0 0 0 10", "0 0 0 160 0 0 0 40"])
    counters = [read_counters(machine(tmp_path, next(ticks))) for _ in range(3)]
    readings = [counters[0], counters[2]] if share == 0.2 else counters
    is_read = threading.Event()

    def read() -> LoadCounters | None:
        if len(readings) < 3:
            is_read.set()
        return readings.pop(0)

    meter = LoadMeter(read, time_s)
    if time_s == 0.0:
        assert is_read.wait(PATIENCE_S)
    load = meter.load()
    assert load is not None
    assert load.steal_share == share


def machine_without_pressure(folder: Path) -> Path:
    (folder / "pressure" / "cpu").unlink()
    return folder
