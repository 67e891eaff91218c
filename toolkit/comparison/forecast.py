"""How long a campaign takes: estimated before it begins, and from its own trials while it runs.

A trial takes what its transfer takes, and what is done around it. The latter is mostly the start of two Python
processes, so it is counted in starts of a process, which `start_seconds` measures: a machine that is slow, or busy now,
needs more for each. The transfer takes what rate, round trip and loss of the path allow (`transfer_seconds`), and where
a path sets no limit, what this machine can do, which again is relative to a start. A transport with a rate of its own
keeps to that.

While a campaign runs, cells that have been measured are expected to take what they took. Others take what was
estimated, times what the trials so far took in relation to their estimates.
"""

import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from toolkit.comparison.diagnosis import SEGMENT_BYTES, loss_response_bps
from toolkit.comparison.paths import LOOPBACK, PAYLOAD_SHARE, BenchPath
from toolkit.comparison.patience import measuring_s
from toolkit.comparison.plan import IPERF3, WARM_UP, Plan
from toolkit.comparison.records import CP, Setting, Trial
from toolkit.comparison.sampling import durations
from toolkit.comparison.timed import backlog_bytes

USUAL_START_S = 0.185
"""What `start_seconds` measures on the idle machine (two processors of 2024) that the constants here come from."""
_STARTS = {"tcp": 2.1, "udp": 3.2, "quic": 4.0, CP: 1.6}
"""What is done around a transfer, in starts of a process."""
_LOCAL_BPS = {"tcp": 6.3e9, "udp": 3.7e9, "quic": 0.15e9, CP: 5.6e9, IPERF3: 20e9}
"""Goodput where the path sets no limit, on the same machine, with all that a trial does to each byte besides."""
_PATH_S, _PROBE_S, _BACKGROUND_FLOW_S = 0.8, 2.2, 1.5
_ROUND_TRIPS = 3
"""Of a transfer beside its content: connection, offer, and digest."""
_INITIAL_WINDOW_BYTES = 14_600
_EARLY_LOSSES = 3
"""How many losses come before slow start and the large window that it leaves are over."""
_FILLED_SHARE = 0.97
"""How much of what a path carries a transfer without losses achieves."""
_SAMPLES = 3


class _PlannedCell(NamedTuple):
    path: str
    transport: str
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """The duration of a plan's trials; with a budget, of its pilot.

    start_s: how long a worker takes to start on this machine
    """

    plan: Plan
    start_s: float = USUAL_START_S

    def left_s(self, trials: Sequence[Trial] = (), repeated: Sequence[Trial] = ()) -> float:
        """How much longer the campaign, or its pilot, takes after these trials; `repeated` attempts come again."""
        estimates, opening_s = self._estimates(), self._opening_s()
        measured: dict[_PlannedCell, list[float]] = {}
        done: Counter[tuple[_PlannedCell, bool]] = Counter()
        took_s = estimated_s = 0.0
        opened: set[str] = set()
        taken_s = dict(durations((*trials, *repeated)))
        for trial in trials:
            cell = _PlannedCell(trial.path, trial.transport, trial.payload_bytes)
            done[cell, trial.block == WARM_UP] += 1
            took_s += taken_s[trial.position]
            estimated_s += estimates[cell]
            if trial.path in opened:
                measured.setdefault(cell, []).append(taken_s[trial.position])
            else:  # the first trial on a path takes the opening of the path, too
                opened.add(trial.path)
                estimated_s += opening_s[trial.path]
        factor = took_s / estimated_s if took_s and estimated_s else 1.0
        total_s = sum(factor * each for path, each in opening_s.items() if path not in opened)
        for cell, estimate_s in estimates.items():
            each_s = median(measured[cell]) if cell in measured else factor * estimate_s
            warm_ups = 1 if cell.payload_bytes == min(self.plan.sizes) else 0
            for is_warm_up, count in ((True, warm_ups), (False, self.plan.repeats)):
                total_s += max(0, count - done[cell, is_warm_up]) * each_s
        return total_s

    def _estimates(self) -> dict[_PlannedCell, float]:
        """Duration of one trial of each cell."""
        return {
            _PlannedCell(path.label, setting.label, size): self._trial_s(setting, path, size)
            for path in self.plan.paths
            for setting in self.plan.all_settings
            for size in self.plan.sizes
        }

    def _opening_s(self) -> dict[str, float]:
        """How long it takes until the first trial on each path begins."""
        return {
            path.label: 0.0 if path.kind == LOOPBACK else _PATH_S + (_PROBE_S if self.plan.is_probed else 0.0)
            for path in self.plan.paths
        }

    def around_s(self, setting: Setting) -> float:
        """What a trial takes beside its transfer."""
        beside_s = _BACKGROUND_FLOW_S if self.plan.background_flow is not None else 0.0
        measuring = measuring_s() if self.plan.patience_s else 0.0
        return self.start_s * _STARTS[setting.transport] + beside_s + measuring

    def _trial_s(self, setting: Setting, path: BenchPath, size: int) -> float:
        around_s = self.around_s(setting)
        local = setting.program if setting.program in _LOCAL_BPS else setting.transport
        local_bps = _LOCAL_BPS[str(local)] * USUAL_START_S / self.start_s
        if setting.rate_bps is not None:
            local_bps = min(local_bps, PAYLOAD_SHARE * setting.rate_bps)
        time_s = self.plan.time_s
        if time_s is None:
            return around_s + transfer_seconds(setting.congestion_control, path, size, local_bps)
        late_bytes = (backlog_bytes(path.rate_bps) or 0) + _INITIAL_WINDOW_BYTES
        late_s = 8 * late_bytes / _steady_bps(setting.congestion_control, path, local_bps)
        return around_s + time_s + _ROUND_TRIPS * path.rtt_s + late_s


def transfer_seconds(congestion_control: str | None, path: BenchPath, size_bytes: int, local_bps: float) -> float:
    """Estimated time from the first connect to the verified digest.

    Connection, offer and digest take round trips. So does slow start, which doubles the window until the path is full.
    If loss bounds the congestion control, what is sent until the first losses have had their effect passes at the rate
    of the path, and the rest at the goodput that loss allows.

    local_bps: what the machine is capable of, or the rate that the sender keeps to
    """
    ideal_bps = _ideal_bps(path, local_bps)
    full_bytes = max(_INITIAL_WINDOW_BYTES, ideal_bps * path.rtt_s / 8)
    early_bytes: float = size_bytes
    if loss_response_bps(congestion_control or "", path.loss, path.rtt_s) is not None:
        early_bytes = min(size_bytes, _EARLY_LOSSES * SEGMENT_BYTES / path.loss)
    rounds = math.log2(1 + min(early_bytes, full_bytes) / _INITIAL_WINDOW_BYTES)
    early_s = rounds * path.rtt_s + 8 * max(0.0, early_bytes - full_bytes) / ideal_bps
    late_s = 8 * (size_bytes - early_bytes) / _steady_bps(congestion_control, path, local_bps)
    return _ROUND_TRIPS * path.rtt_s + early_s + late_s


def _ideal_bps(path: BenchPath, local_bps: float) -> float:
    return min(_FILLED_SHARE * path.ideal_bps if path.ideal_bps else local_bps, local_bps)


def _steady_bps(congestion_control: str | None, path: BenchPath, local_bps: float) -> float:
    """Estimated goodput of a long transfer: what loss allows, and no more than the path carries."""
    allowed_bps = loss_response_bps(congestion_control or "", path.loss, path.rtt_s)
    return min(_ideal_bps(path, local_bps), allowed_bps if allowed_bps is not None else math.inf)


def start_seconds() -> float:
    """How long this machine takes now to start a process that loads what a worker does; a second or so in all."""
    found = []
    for _ in range(_SAMPLES):
        began_s = time.monotonic()
        subprocess.run([sys.executable, "-c", "import toolkit.comparison.worker"], check=True, stdin=subprocess.DEVNULL)
        found.append(time.monotonic() - began_s)
    return median(found)
