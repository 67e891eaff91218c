"""A campaign from what a user asked for to its records, over loopback."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.bench.fingerprint import host_fingerprint
from toolkit.bench.matrix import Cell, schedule
from toolkit.bench.record import Campaign, Results, Trial
from toolkit.bench.runner import run_trial
from toolkit.bench.workspace import workspace
from toolkit.errors import UsageError, printable
from toolkit.rudp.congestion.registry import DEFAULT as UDP_DEFAULT

TCP_DEFAULT = "cubic"
"""Named rather than left to the kernel's default, so that two hosts' figures mean the same."""

MIN_PAYLOAD_BYTES = 1 << 20
MAX_REPEATS = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """What a loopback campaign is asked to do; the first TCP cell, or else the first, is the baseline."""

    cells: Sequence[Cell]
    payload_bytes: int
    repeats: int
    seed: int
    folder: Path | None

    def __post_init__(self) -> None:
        if self.payload_bytes < MIN_PAYLOAD_BYTES:
            raise UsageError("a file under 1MiB measures the start of a transfer only: ask for a larger --size")
        if not 0 < self.repeats <= MAX_REPEATS:
            raise UsageError(f"--repeat must be from 1 to {MAX_REPEATS}")

    @property
    def baseline(self) -> str:
        """The label that ratios are taken to."""
        return next((cell.label for cell in self.cells if cell.transport == "tcp"), self.cells[0].label)


def parse_cells(text: str, tcp_congestion_control: str) -> list[Cell]:
    """`tcp,udp,udp-cubic`: transports, each with a congestion control or its default. Raises UsageError."""
    defaults = {"tcp": tcp_congestion_control, "udp": UDP_DEFAULT}
    cells = []
    for word in text.split(","):
        transport, _, chosen = word.strip().partition("-")
        if transport not in defaults:
            raise UsageError(f"'{printable(word, 40)}' is no transport: write tcp or udp, or like tcp-bbr")
        congestion_control = chosen or defaults[transport]
        cells.append(Cell(f"{transport}-{congestion_control}", transport, congestion_control))
    if len({cell.label for cell in cells}) < len(cells):
        raise UsageError(f"'{printable(text, 40)}' names a transport twice: once is enough, it is repeated anyway")
    return cells


def run_loopback(plan: Plan, write: Callable[[Campaign | Trial], None]) -> Results:
    """Run the plan; each record is handed out as soon as it is there. Raises TransferError."""
    with workspace(plan.payload_bytes, plan.seed, plan.folder) as place:
        campaign = Campaign(
            name="loopback",
            started_unix_s=time.time(),
            seed=plan.seed,
            payload_bytes=plan.payload_bytes,
            repeats=plan.repeats,
            cells={cell.label: asdict(cell) for cell in plan.cells},
            baseline=plan.baseline,
            storage=place.storage,
            host=host_fingerprint(),
        )
        write(campaign)
        trials = []
        for position, turn in enumerate(schedule(plan.cells, plan.repeats, plan.seed)):
            trial = run_trial(turn, position, place)
            write(trial)
            trials.append(trial)
    return Results(campaign, trials)
