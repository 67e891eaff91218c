"""Several campaigns as one result: what holds from run to run, from seed to seed and from host to host.

A campaign's interval says how well it knows its own ratio. It says nothing of another day, another seed of the link or
another machine. Here the runs are the samples: each gives one ratio of a transport to the baseline on a path at a size,
the median over its blocks, and every run counts the same, however many blocks it has. Their logarithms are averaged,
and the interval is Student's for the mean of k runs: it contains the noise within the runs and the variance between
them, without estimating either by itself.

What it guarantees: it holds the mean of the logarithms in 95% of cases if the runs are a random sample of those that
the result is meant for, and if their logarithms are about normally distributed. Two runs on one host are no sample of
hosts. With two runs the interval is wide: the quantile is 12.7, with three 4.3, with six 2.6.

The variance between the runs is what remains of theirs beyond the noise within them (the method of moments, as
DerSimonian and Laird use it, Controlled Clinical Trials 7, 1986, here with equal weights). Where it is 0, these runs do
not show any; with few of them that is likely even if there is some.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import fmean, variance

from toolkit.comparison.pairs import PairedTrials
from toolkit.comparison.records import CONTROL_SUFFIX, Campaign, Results, Setting
from toolkit.comparison.stats import ERROR, Estimate, Interval, median_error
from toolkit.comparison.verdict import INCONCLUSIVE, Evidence, Verdict, judge
from toolkit.errors import UsageError, printable

_MIN_RUNS = 2


@dataclass(frozen=True, slots=True)
class MergedRow:
    """One transport on one path at one size, over several campaigns.

    runs:     how many campaigns have a ratio, and no reason to doubt it
    ratios:   that of each run, in the order of the campaigns; 0 or infinite where most transfers of one side failed
    ratio:    geometric mean, with the interval of Student's t; None without a run, or with a ratio of 0 or infinity
    between:  about the standard deviation of the true ratios from run to run, as a factor; 1 if these runs do not
              show any, None for one run
    verdict:  as in `toolkit.comparison.verdict`, about the mean; NO_CLAIM with one run
    because, more_runs: why it is inconclusive, or no claim; about how many more runs would settle it
    left_out: why runs were left out, one sentence each
    """

    path: str
    payload_bytes: int
    transport: str
    is_control: bool
    runs: int
    ratios: tuple[float, ...]
    ratio: Estimate | None
    between: float | None
    verdict: str
    is_negligible: bool
    because: str
    more_runs: int | None
    left_out: tuple[str, ...]


def merge(campaigns: Sequence[Results]) -> list[MergedRow]:
    """A row for each transport but the baseline, wherever a campaign has it, judged by the smallest margin.

    Raises UsageError if there are fewer than two campaigns, or one twice, or if they measured different things.
    """
    baselines = {results.campaign.baseline for results in campaigns}
    if len(campaigns) < _MIN_RUNS:
        raise UsageError("--merge combines campaigns: name two files of records or more")
    if len(baselines) > 1:
        raise UsageError(
            f"--merge needs one baseline in all campaigns, and these have {' and '.join(sorted(baselines))}"
        )
    if len({(each.campaign.started_unix_s, each.campaign.seed) for each in campaigns}) < len(campaigns):
        raise UsageError("--merge was given a campaign twice: each run may count once only")
    (baseline,) = baselines
    _require_one_question([results.campaign for results in campaigns])
    control = baseline + CONTROL_SUFFIX
    cells = list(
        dict.fromkeys(
            (path, size)
            for results in campaigns
            for path, size in product(results.campaign.paths, results.campaign.sizes)
        )
    )
    margin = min(results.campaign.margin for results in campaigns)
    pooled = {
        (path, size, label): _Runs(campaigns, path, size, label)
        for path, size in cells
        for label in dict.fromkeys(label for results in campaigns for label in results.campaign.transports)
        if label != baseline and not any(_is_yardstick(results, label) for results in campaigns)
    }
    pooled = {key: runs for key, runs in pooled.items() if runs.is_known}
    rivals = {key: runs for key, runs in pooled.items() if key[2] != control}
    controls = {key[:2]: runs for key, runs in pooled.items() if key[2] == control}
    evidence = [runs.evidence(controls.get(key[:2])) for key, runs in rivals.items()]
    verdicts = dict(zip(rivals, judge(evidence, margin), strict=True))
    verdicts |= {(*cell, control): judge([runs.evidence(None)], margin)[0] for cell, runs in controls.items()}
    return [runs.row(verdicts[key], is_control=key[2] == control) for key, runs in pooled.items()]


def mean_interval(logarithms: Sequence[float], error: float = ERROR, count: int | None = None) -> Interval | None:
    """Student's interval of the geometric mean, from the logarithms of ratios; None for fewer than two.

    count: instead of the interval of these runs, that to be expected of so many like them
    """
    number = count or len(logarithms)
    if len(logarithms) < _MIN_RUNS or number < _MIN_RUNS:
        return None
    half = student_quantile(number - 1, error) * math.sqrt(variance(logarithms) / number)
    middle = fmean(logarithms)
    return Interval(math.exp(middle - half), math.exp(middle + half))


def student_quantile(degrees: int, error: float = ERROR) -> float:
    """What Student's t of so many degrees of freedom exceeds, in either direction, with this probability."""
    from scipy.special import stdtrit  # slow to load

    return float(stdtrit(degrees, 1 - error / 2))


def _require_one_question(campaigns: Sequence[Campaign]) -> None:
    """Raises UsageError if the same name stands for different things in two campaigns."""
    first = campaigns[0]
    if any(each.time_s != first.time_s for each in campaigns):
        raise UsageError("--merge needs trials of one kind: those of all campaigns have to last for the same --time")
    if any(each.competitor != first.competitor for each in campaigns):
        raise UsageError("--merge needs the same background flow (--competitor), or none, in all campaigns")
    settings: dict[str, Setting] = {}
    for label, setting in (pair for each in campaigns for pair in each.transports.items()):
        if settings.setdefault(label, setting) != setting:
            raise UsageError(
                f"--merge cannot combine these campaigns: {printable(label, 40)} has other settings in one of them, "
                "such as encryption"
            )


def _is_yardstick(results: Results, label: str) -> bool:
    setting = results.campaign.transports.get(label)
    return setting is not None and setting.is_yardstick


class _Runs:
    """The ratios of one transport on one path at one size, a campaign each."""

    def __init__(self, campaigns: Sequence[Results], path: str, size: int, label: str) -> None:
        self._key = (path, size, label)
        self._estimates: list[Estimate] = []
        self._within: list[float] = []  # variances of the medians, of the logarithms
        self._left_out: list[str] = []
        for number, results in enumerate(campaigns, 1):
            campaign = results.campaign
            if path not in campaign.paths or size not in campaign.sizes or label not in campaign.transports:
                continue
            cell = PairedTrials(results, path, size)
            evidence = cell.evidence(label)
            sides = [cell.trials(name) for name in (label, campaign.baseline)]
            own, base = (any(trial.is_counted for trial in side) for side in sides)
            if all(sides) and own != base:  # to leave out a run because all of it failed would hide that
                self._estimates.append(Estimate(0.0 if base else math.inf, None))
            elif evidence.doubt or evidence.ratio is None:
                self._left_out.append(f"campaign {number}: {evidence.doubt or 'too few transfers arrived'}")
            else:
                self._estimates.append(evidence.ratio)
                blocks = [math.log(ratio) for ratio in cell.pairs(label)[0] if 0 < ratio < math.inf]
                error = median_error(blocks)
                self._within += [error * error] if error is not None else []

    @property
    def is_known(self) -> bool:
        return bool(self._estimates or self._left_out)

    @property
    def _ratios(self) -> tuple[float, ...]:
        return tuple(estimate.value for estimate in self._estimates)

    @property
    def _logarithms(self) -> list[float]:
        """Empty if there is one that is not finite."""
        ratios = self._ratios
        return [math.log(ratio) for ratio in ratios] if all(0 < ratio < math.inf for ratio in ratios) else []

    def evidence(self, control: "_Runs | None") -> Evidence:
        """What the verdict on the mean rests on."""
        doubt = ""
        if not self._estimates:
            doubt = "no campaign has a ratio"
        elif not self._logarithms:
            doubt = "in at least one campaign, most transfers of one side failed"
        elif len(self._estimates) < _MIN_RUNS:
            doubt = "a single campaign says nothing of others"
        return Evidence(
            ratio=self._mean(),
            interval=partial(mean_interval, self._logarithms),
            samples=len(self._estimates),
            control=partial(mean_interval, control._logarithms) if control is not None else None,
            doubt=doubt,
        )

    def row(self, verdict: Verdict, *, is_control: bool) -> MergedRow:
        return MergedRow(
            *self._key,
            is_control=is_control,
            runs=len(self._estimates),
            ratios=self._ratios,
            ratio=self._mean(),
            between=self._between(),
            verdict=verdict.word,
            is_negligible=verdict.is_negligible,
            because=verdict.because.replace("this machine resolves", "these runs resolve"),
            more_runs=verdict.more_blocks if verdict.word == INCONCLUSIVE else None,
            left_out=tuple(self._left_out),
        )

    def _mean(self) -> Estimate | None:
        logarithms = self._logarithms
        return Estimate(math.exp(fmean(logarithms)), mean_interval(logarithms)) if logarithms else None

    def _between(self) -> float | None:
        """What remains of the variance of the runs beyond the noise within them, which their blocks show."""
        logarithms = self._logarithms
        if len(logarithms) < _MIN_RUNS:
            return None
        within = fmean(self._within) if self._within else 0.0
        return math.exp(math.sqrt(max(0.0, variance(logarithms) - within)))
