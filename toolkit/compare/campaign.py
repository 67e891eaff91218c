"""A campaign from what a user asked for to its records."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.channel import Address
from toolkit.compare.background_flow import Competitor
from toolkit.compare.host_info import host_fingerprint
from toolkit.compare.paths import LINK, LOOPBACK, REMOTE, BenchPath
from toolkit.compare.plan import WARM_UP, Setting, Turn, baseline_of, refuse_missing, schedule, with_control
from toolkit.compare.records import DEFAULT_LIMIT_S, EMULATOR_LATE, Campaign, Probe, Results, Trial, newest
from toolkit.compare.remote import RemotePlace
from toolkit.compare.stats import MIN_SAMPLES
from toolkit.compare.testbed import LinkPlace, Loopback, Place
from toolkit.compare.theory import expected_bps
from toolkit.compare.trial import run_trial
from toolkit.compare.workspace import Workspace, workspace
from toolkit.errors import UsageError

MIN_PAYLOAD_BYTES = 1 << 10
MAX_REPEATS = 1000
MAX_SEED = (1 << 32) - 1  # what numpy's generator takes
_TRIAL_S, _PATH_S, _PROBE_S = 1.3, 0.8, 2.5
_AGAIN = 1
"""How often a trial is run again at once that something else on this machine has disturbed."""
_FAST_BPS = {"tcp": 12e9, "udp": 3e9, "quic": 0.15e9}

_BLOCKS = (
    "Randomised blocks: each of {repeats} blocks holds every transport once at each size, in an order drawn anew "
    "(seed {seed}), after a warm-up of each."
)
_TIME = (
    "Time: from the sender's first connect to the receiver's verified digest, for every transport; sender and receiver "
    "are processes of their own that have loaded everything by then."
)
_FIGURES = (
    "Figures: medians over verified trials; 95% intervals from order statistics (Hettmansperger and Sheather), none "
    f"under {MIN_SAMPLES} samples; ratios are taken within blocks, where a transfer that failed has a goodput of 0."
)
_VERDICTS = (
    "Verdicts: faster or slower where the whole interval of the ratio lies beyond 1 by more than 2%, and by more than "
    "the A/A control differs from the baseline; else no difference; no claim without an interval, nor where more than "
    "a fifth of a side's trials are marked."
)
_LINKS = (
    "Links are emulated by nettool itself, are probed first, and draw the same random numbers for every transport of a "
    "block; the ledger of packets balances from end to end, or the trial is marked."
)

Record = Campaign | Probe | Trial


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign is asked to do; the first TCP, or else the first transport, is the baseline.

    settings:       transports, without the control
    sizes:          bytes of the file
    folder:         where the files lie meanwhile; None for memory, where they fit
    is_controlled:  whether the baseline runs once more, as the A/A control
    is_probed:      whether links are measured first
    limit_s:        for one transfer
    competitor:     a flow beside each transfer
    remote_address: of `nettool serve`, for the one path of a remote campaign
    remote_wait_s:  how long a remote `nettool serve` is waited for
    """

    name: str
    settings: Sequence[Setting]
    paths: Sequence[BenchPath]
    sizes: Sequence[int]
    repeats: int
    seed: int
    folder: Path | None = None
    is_controlled: bool = True
    is_probed: bool = True
    limit_s: float = DEFAULT_LIMIT_S
    competitor: Setting | None = None
    remote_address: Address | None = None
    remote_wait_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.settings or not self.paths or not self.sizes:
            raise UsageError("a campaign needs a transport, a path and a size")
        refuse_missing(self.settings)
        if min(self.sizes) < MIN_PAYLOAD_BYTES:
            raise UsageError("a file under 1KiB measures the handshake only: ask for a larger --size")
        if len(set(self.sizes)) < len(self.sizes):
            raise UsageError("--size names a size twice: once is enough, it is repeated anyway")
        if not 0 < self.repeats <= MAX_REPEATS:
            raise UsageError(f"--repeat must be from 1 to {MAX_REPEATS}")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"--seed must be from 0 to {MAX_SEED}")

    @property
    def all_settings(self) -> list[Setting]:
        """With the control, if there is one."""
        return with_control(self.settings) if self.is_controlled else list(self.settings)

    @property
    def turns_per_path(self) -> int:
        """Trials on each path, the warm-up counted in."""
        return len(self.all_settings) * (1 + self.repeats * len(self.sizes))

    @property
    def turns(self) -> int:
        """All trials."""
        return self.turns_per_path * len(self.paths)

    def expected_seconds(self) -> float:
        """About how long it takes: what loss and rate allow, and what each start costs."""
        total_s = 0.0
        for path in self.paths:
            total_s += _PATH_S + (_PROBE_S if self.is_probed and path.kind != LOOPBACK else 0.0)
            for setting in self.all_settings:
                each = [_expected_trial_s(setting, path, size) for size in self.sizes]
                beside_s = 1.5 if self.competitor is not None else 0.0
                total_s += each[self.sizes.index(min(self.sizes))] + self.repeats * sum(one + beside_s for one in each)
        return total_s

    def campaign(self, storage: str) -> Campaign:
        """The record's first line."""
        return Campaign(
            name=self.name,
            started_unix_s=time.time(),
            seed=self.seed,
            repeats=self.repeats,
            baseline=baseline_of(self.settings).label,
            transports={setting.label: asdict(setting) for setting in self.all_settings},
            paths={path.label: path.to_json() for path in self.paths},
            sizes=list(self.sizes),
            storage=storage,
            host=host_fingerprint(),
            method=_method(self),
            command=["nettool", *sys.argv[1:]],
            is_probed=self.is_probed,
            limit_s=self.limit_s,
            competitor=asdict(self.competitor) if self.competitor is not None else None,
        )


def run(plan: Plan, write: Callable[[Record], None], done: Results | None = None) -> Results:
    """Run the plan, but for the trials that `done` holds; each record is handed out as soon as it is there.

    Raises NettoolError where a path cannot be made, or nothing can be kept; what was handed out until then stands.
    """
    trials = list(done.trials) if done is not None else []
    probes = list(done.probes) if done is not None else []
    finished = {(t.path, t.block, t.transport, t.payload_bytes) for t in trials}  # a failure stands as well
    with workspace(plan.sizes, plan.seed, plan.folder) as files:
        campaign = plan.campaign(files.storage) if done is None else done.campaign
        is_written = done is not None
        for number, path in enumerate(plan.paths):
            turns = [
                turn
                for turn in schedule(plan.all_settings, plan.sizes, plan.repeats, _path_seed(plan.seed, number))
                if (path.label, turn.block, turn.setting.label, turn.payload_bytes) not in finished
            ]
            if all(turn.block == WARM_UP for turn in turns):
                continue
            for record in _over(plan, path, number, turns, 1 + max((t.position for t in trials), default=-1), files):
                if not is_written:  # not before there is a path to measure
                    write(campaign)
                    is_written = True
                write(record)
                (trials if isinstance(record, Trial) else probes).append(record)  # type: ignore[arg-type]
    return Results(campaign, newest(trials), probes)


def _over(
    plan: Plan, path: BenchPath, number: int, turns: Sequence[Turn], position: int, files: Workspace
) -> Iterator[Probe | Trial]:
    with place_of(plan, path) as place:
        probed = place.probe() if plan.is_probed else None
        if probed is not None:
            yield probed
        competitor = Competitor(plan.competitor) if plan.competitor is not None else None
        if competitor is not None:
            competitor.measure_alone(place, link_seed(plan.seed, number, WARM_UP))
        for turn in turns:
            seed = link_seed(plan.seed, number, turn.block)
            for _ in range(1 + _AGAIN):
                trial = run_trial(place, turn, position, files, seed, probed, plan.limit_s, competitor)
                position += 1
                yield trial
                if EMULATOR_LATE not in trial.marks or turn.block == WARM_UP:
                    break


def place_of(plan: Plan, path: BenchPath) -> AbstractContextManager[Place]:
    """The place that a path's trials run at."""
    if path.kind == LOOPBACK:
        return Loopback(path)
    if path.kind == REMOTE:
        assert plan.remote_address is not None
        return RemotePlace(path, plan.remote_address, plan.remote_wait_s, max(plan.sizes))
    return LinkPlace(path)


def link_seed(seed: int, path_number: int, block: int) -> int:
    """Of the link's random draws: the same for every transport and size of a block."""
    return _path_seed(seed, path_number) * MAX_REPEATS + block + 1


def _path_seed(seed: int, path_number: int) -> int:
    return seed * 1009 + path_number


def _expected_trial_s(setting: Setting, path: BenchPath, size: int) -> float:
    fast_bps = _FAST_BPS[setting.transport]
    ideal_bps = min(path.ideal_bps or fast_bps, fast_bps)
    rate_bps = expected_bps(setting.congestion_control, ideal_bps, path.loss, path.rtt_s)
    return _TRIAL_S + 8 * size / rate_bps + 6 * path.rtt_s


def _method(plan: Plan) -> list[str]:
    lines = [_BLOCKS.format(repeats=plan.repeats, seed=plan.seed), _TIME, _FIGURES, _VERDICTS]
    if any(path.kind == LINK for path in plan.paths):
        lines.append(_LINKS)
    if plan.competitor is not None:
        lines.append(f"Beside each transfer runs a flow of {plan.competitor.label} that was there before it.")
    return lines
