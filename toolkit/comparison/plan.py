"""What a campaign measures, and in which order.

A **cell** is one transport on one path at one size. A **block** holds every transport at every size once, on one path.
The trials of a block run one after the other, in an order drawn anew for each block, so that whatever drifts (heat,
other work, the page cache) favours no transport by its place, and the results of a block are pairs: a randomised
complete block design. The link draws the same random numbers in every trial of a block. Each transport runs once before
the first block, to warm up; that trial is recorded but counts in no figure. With a budget, the blocks of the plan are a
pilot, and `toolkit.comparison.sampling` decides which further ones follow.
"""

import random
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from toolkit.channel import Address
from toolkit.comparison.host_info import host_info
from toolkit.comparison.paths import LOOPBACK, REMOTE, BenchPath
from toolkit.comparison.patience import DISTURBED_SHARE, QUIET_SHARE
from toolkit.comparison.records import CONTROL_SUFFIX, CP, DEFAULT_LIMIT_S, PLAINTEXT_SUFFIX, Campaign, Setting
from toolkit.comparison.verdict import DEFAULT_MARGIN, MAX_MARGIN, least_blocks
from toolkit.errors import UsageError, printable
from toolkit.rudp.congestion.base import DEFAULT_CONTROLLER as UDP_DEFAULT
from toolkit.security.credentials import Credential, NoCredential
from toolkit.units import check_sending_rate, format_fraction, format_seconds, parse_rate

WARM_UP = -1
TCP_DEFAULT = "cubic"
"""Named explicitly rather than left to the kernel's default, so that figures from two hosts mean the same."""
FIXED_RATE = "rate"
"""The congestion control of UDP that does nothing but keep to a rate."""
IPERF3, AIOQUIC = "iperf3", "aioquic"
MIN_PAYLOAD_BYTES = 1 << 10
MAX_REPEATS = 1000
DEFAULT_BUDGET_S = 360.0
_LEAST_PILOT = 8
MAX_BUDGET_S = MAX_LIMIT_S = 30 * 24 * 3600.0
MIN_TIME_S, MAX_TIME_S = 0.1, 3600.0
MAX_SEED = (1 << 32) - 1  # the largest that numpy's generator accepts
_TRANSPORTS = (
    "tcp or udp, with a congestion control like tcp-bbr and without encryption like udp-bbr+plaintext, or quic, "
    "iperf3-tcp, iperf3-udp, cp"
)
_NO_CREDENTIAL = NoCredential()
_BLOCKS = (
    "Randomised blocks: each of {repeats} blocks runs every transport once at each size, in a new random order "
    "(seed {seed}), after a warm-up of each transport."
)
_BUDGET = (
    "Budget: after these blocks, the pilot, further blocks of single sizes and paths run where the interval of a ratio "
    "is widest, until each is narrower than the margin ({margin}) or {budget} have passed. Only the width of intervals "
    "decides, and they hold wherever that stops."
)
_PATIENCE = (
    "Patience: each trial but the warm-ups waits before it begins until at most {share} of any processor that is "
    "measured is taken by something else. {repeats}All of this lasts at most {patience}, divided between the paths."
)
_REPEATS = (
    "A trial is repeated if the hypervisor took more than {share} of all processors during its time; only the last "
    "attempt counts. "
)
_TIME = (
    "Time: from the sender's first connect to the receiver's verified digest, for every transport. Sender and receiver "
    "are separate processes that have loaded everything before the clock starts."
)
_TIMED = (
    "Time: goodput is what had arrived in order {time} after the sender's first connect. What is on the way then "
    "arrives later, and both ends compare the digests of all of it. Sender and receiver are separate "
    "processes that have loaded everything before the clock starts."
)
_TIMED_REMOTE = (
    "Time: the sender makes up content for {time}; goodput is all of it, divided by the time from its first connect to "
    "the receiver's verified digest, because the two machines share no clock. The sender is a process that has loaded "
    "everything before the clock starts."
)
_REVERSE = (
    "Reverse: nettool serve on the other machine makes up the content and sends it, also where it ends at a size; this "
    "machine, which connects, receives it, and its clock counts."
)
_ENCRYPTION = (
    "Encryption: nettool's own transports and quic encrypt everything, except where a label says +plaintext; iperf3 "
    "encrypts nothing. Receivers on this machine accept one session from anyone, on loopback or in their own namespace."
)
_LINKS = (
    "Links: emulated by nettool itself, probed before the first trial, and driven by the same random numbers for every "
    "transport of a block. A trial whose packets do not balance from end to end is marked."
)


class TrialSpec(NamedTuple):
    """One trial to run; `block` is WARM_UP, or counts from 0."""

    block: int
    setting: Setting
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign has to do. The first TCP transport, or else the first transport, is the baseline.

    settings:        transports, without the control
    sizes:           file sizes in bytes
    folder:          where the files are kept meanwhile; None for memory, if they fit
    is_controlled:   whether the baseline runs a second time, as the A/A control
    is_probed:       whether links are measured before the first trial
    limit_s:         time limit of one transfer
    background_flow: setting of the flow that shares the path with each transfer; None for none
    remote_address:  of `nettool serve`, for the one path of a remote campaign
    remote_wait_s:   how long to wait for the remote `nettool serve`
    remote_credential: what proves to it that this machine may come in
    margin:          the largest difference between two goodputs that counts as negligible
    left_out:        label -> why this host cannot run a transport of the scenario
    is_time_open:    whether `time_s` is replaced when the remote path has been measured
    repeats, budget_s, time_s, patience_s: see `toolkit.comparison.records.Campaign`

    Raises UsageError if the plan makes no sense.
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
    background_flow: Setting | None = None
    remote_address: Address | None = None
    remote_wait_s: float = 0.0
    remote_credential: Credential = _NO_CREDENTIAL
    margin: float = DEFAULT_MARGIN
    left_out: Mapping[str, str] = field(default_factory=dict)
    budget_s: float | None = None
    time_s: float | None = None
    is_time_open: bool = False
    patience_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.settings or not self.paths or not self.sizes:
            raise UsageError("a campaign needs a transport, a path and a size")
        _require_installed(self.settings)
        if any(each.is_yardstick for each in self.settings) and any(path.kind != LOOPBACK for path in self.paths):
            raise UsageError("cp passes no network, so only 'bench loopback' can compare with it: leave it out")
        if self.time_s is not None:
            _require_timed(self)
        elif min(self.sizes) < MIN_PAYLOAD_BYTES:
            raise UsageError("a file under 1KiB measures only the handshake: choose a larger one with `sizes`")
        if len(set(self.sizes)) < len(self.sizes):
            raise UsageError("`sizes` lists a size twice: once is enough, `repeats` repeats every trial")
        if not 0 < self.repeats <= MAX_REPEATS:
            raise UsageError(f"`repeats` must be from 1 to {MAX_REPEATS}")
        if not 0 < self.limit_s <= MAX_LIMIT_S:
            raise UsageError("`limit` must be more than 0 and at most 30 days: 5min is usual")
        if self.budget_s is not None and not 0 < self.budget_s <= MAX_BUDGET_S:
            raise UsageError("`budget` must be more than 0 and at most 30 days")
        if not 0 <= self.patience_s <= MAX_BUDGET_S:
            raise UsageError("`patience` must be from 0 to 30 days")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"`seed` must be from 0 to {MAX_SEED}")
        if not 0 < self.margin <= MAX_MARGIN:
            raise UsageError(f"`margin` must be more than 0% and at most {MAX_MARGIN:.0%}: 5% is usual")

    @property
    def file_sizes(self) -> list[int]:
        """Sizes of the files that are sent: none in timed trials."""
        return list(self.sizes) if self.time_s is None else []

    @property
    def all_settings(self) -> list[Setting]:
        """The settings and, after them, the control if there is one."""
        return with_control(self.settings) if self.is_controlled else list(self.settings)

    @property
    def comparison_count(self) -> int:
        """How many verdicts the campaign will have, without those on the control."""
        return comparisons(self.settings, self.paths, self.sizes)

    @property
    def trial_count(self) -> int:
        """Number of all trials, warm-ups included; with a budget, of those up to the end of the pilot."""
        return len(self.paths) * len(self.all_settings) * (1 + self.repeats * len(self.sizes))

    def campaign(self, storage: str) -> Campaign:
        """The first record of the campaign."""
        return Campaign(
            name=self.name,
            started_unix_s=time.time(),
            seed=self.seed,
            repeats=self.repeats,
            baseline=baseline_of(self.settings).label,
            transports={setting.label: setting for setting in self.all_settings},
            paths={path.label: path.record() for path in self.paths},
            sizes=list(self.sizes),
            storage=storage,
            host=host_info(),
            method=_method(self),
            command=["nettool", *_without_code(sys.argv[1:])],
            is_probed=self.is_probed,
            limit_s=self.limit_s,
            competitor=self.background_flow,
            margin=self.margin,
            left_out=self.left_out,
            budget_s=self.budget_s,
            time_s=self.time_s,
            patience_s=self.patience_s,
        )


def _without_code(words: Sequence[str]) -> list[str]:
    """The command line without the value of --code: records are shared, and a code is secret until it is used."""
    shown = ["--code=..." if word.startswith("--code=") else word for word in words]
    return ["..." if number and shown[number - 1] == "--code" else word for number, word in enumerate(shown)]


def parse_transports(text: str, tcp_congestion_control: str = TCP_DEFAULT) -> list[Setting]:
    """Parse a list like `tcp,udp-bbr+plaintext,udp-rate=50Mbit,quic`; a rate is a limit. Raises UsageError."""
    settings = [_parse(word.strip(), tcp_congestion_control) for word in text.split(",")]
    if len({setting.label for setting in settings}) < len(settings):
        raise UsageError(f"'{printable(text, 40)}' lists a transport twice: once is enough, `repeats` repeats it")
    return settings


def takes_congestion_control(text: str) -> bool:
    """Whether such a list has a transport `tcp`, whose congestion control is chosen apart. Raises UsageError."""
    return parse_transports(text, "one") != parse_transports(text, "another")


def _parse(word: str, tcp_congestion_control: str) -> Setting:
    full_name, equals, rate = word.partition("=")
    rate_bps = parse_rate(rate) if equals else None
    if rate_bps is not None:
        check_sending_rate(rate_bps)
    name = full_name.removesuffix(PLAINTEXT_SUFFIX)
    is_encrypted = name == full_name
    program, is_outside, rest = name.partition("-")
    if not is_encrypted and program not in ("tcp", "udp"):
        raise UsageError(
            f"'{printable(word, 40)}' is not possible: only nettool's own tcp and udp have a plaintext mode"
        )
    if word == CP:
        return Setting(CP, CP, None, CP)
    if name == "quic" or (program == "quic" and rest):
        if rate_bps is not None:
            raise UsageError(f"'{printable(word, 40)}' is not possible: aioquic keeps to no rate; leave the rate out")
        return Setting(word, "quic", rest or None, AIOQUIC, rate_bps, is_encrypted=True)
    if program == IPERF3 and is_outside:
        transport, _, chosen = rest.partition("-")
        if transport == "tcp":
            return Setting(word, "tcp", chosen or tcp_congestion_control, IPERF3, rate_bps)
        if rest == "udp":
            return Setting(word, "udp", None, IPERF3, rate_bps)
    transport, _, chosen = name.partition("-")
    defaults = {"tcp": tcp_congestion_control, "udp": UDP_DEFAULT}
    if transport not in defaults or "+" in name:
        raise UsageError(f"unknown transport '{printable(word, 40)}': write {_TRANSPORTS}")
    control = chosen or defaults[transport]
    label = f"{transport}-{control}{'' if is_encrypted else PLAINTEXT_SUFFIX}{equals}{rate}"
    return Setting(label, transport, control, None, rate_bps, is_encrypted)


def baseline_of(settings: Sequence[Setting]) -> Setting:
    """The setting that ratios are relative to: nettool's first TCP, or else the first."""
    own = (s for s in settings if s.transport == "tcp" and s.program is None)
    return next(own, next((s for s in settings if not s.is_yardstick), settings[0]))


def with_control(settings: Sequence[Setting]) -> list[Setting]:
    """The settings and, after them, the A/A control."""
    base = baseline_of(settings)
    return [*settings, replace(base, label=base.label + CONTROL_SUFFIX)]


def schedule(settings: Sequence[Setting], sizes: Sequence[int], repeats: int, seed: int) -> Iterator[TrialSpec]:
    """A warm-up of every transport at the smallest size, then `repeats` blocks; the same seed gives the same order."""
    generator = random.Random(seed)
    for setting in generator.sample(settings, len(settings)):
        yield TrialSpec(WARM_UP, setting, min(sizes))
    cells = [(setting, size) for setting in settings for size in sizes]
    for block in range(repeats):
        for setting, size in generator.sample(cells, len(cells)):
            yield TrialSpec(block, setting, size)


def further_block(settings: Sequence[Setting], size: int, block: int, seed: int) -> list[TrialSpec]:
    """A block after the pilot, for one size; its order depends only on the arguments."""
    generator = random.Random(f"{seed} {size} {block}")
    return [TrialSpec(block, setting, size) for setting in generator.sample(settings, len(settings))]


def comparisons(settings: Sequence[Setting], paths: Sequence[BenchPath], sizes: Sequence[int]) -> int:
    """How many comparisons with the baseline there are."""
    compared = [setting for setting in settings if not setting.is_yardstick]
    return max(0, len(compared) - 1) * len(paths) * len(sizes)


def pilot_blocks(count: int) -> int:
    """The number of blocks that every path and size has at least, in a campaign with a budget and so many comparisons.

    Eight are enough to see how wide intervals are, and an interval of eight ratios uses up little of the error that all
    looks share (`toolkit.comparison.looks`).
    """
    return max(_LEAST_PILOT, least_blocks(count, is_budgeted=True))


def _require_installed(settings: Sequence[Setting]) -> None:
    programs = {setting.program for setting in settings}
    if IPERF3 in programs and shutil.which(IPERF3) is None:
        raise UsageError("iperf3 is not installed: install it (apt install iperf3), or leave it out of `transports`")
    if AIOQUIC in programs and find_spec("aioquic") is None:
        raise UsageError("quic needs aioquic, which is not installed: pip install 'nettool[quic]', or leave quic out")


def _require_timed(plan: Plan) -> None:
    assert plan.time_s is not None
    if not MIN_TIME_S <= plan.time_s <= MAX_TIME_S:
        raise UsageError(f"`time` must be from {format_seconds(MIN_TIME_S)} to {format_seconds(MAX_TIME_S)}")
    if list(plan.sizes) != [0]:
        raise UsageError("`time` measures what arrives in a time, and `sizes` how long a file takes: give one")
    outside = next((each.label for each in plan.settings if each.program is not None), None)
    if outside is not None:
        raise UsageError(f"`time` measures nettool's own transports: leave {outside} out, or give `sizes`")


def _method(plan: Plan) -> list[str]:
    lines = [_BLOCKS.format(repeats=plan.repeats, seed=plan.seed)]
    if plan.budget_s is not None:
        lines.append(_BUDGET.format(margin=format_fraction(plan.margin), budget=format_seconds(plan.budget_s)))
    if plan.patience_s:
        share, patience = format_fraction(QUIET_SHARE), format_seconds(plan.patience_s)
        repeats = "" if plan.time_s is None else _REPEATS.format(share=format_fraction(DISTURBED_SHARE))
        lines.append(_PATIENCE.format(share=share, repeats=repeats, patience=patience))
    timed = _TIMED_REMOTE if any(path.kind == REMOTE for path in plan.paths) else _TIMED
    lines += [_TIME if plan.time_s is None else timed.format(time=format_seconds(plan.time_s)), _ENCRYPTION]
    if any(path.is_reverse for path in plan.paths):
        lines.append(_REVERSE)
    if any(path.spec is not None and not path.spec.is_bare for path in plan.paths):
        lines.append(_LINKS)
    if plan.background_flow is not None:
        lines.append(f"Background flow: {plan.background_flow.label} shares the path, and starts before each transfer.")
    return lines
