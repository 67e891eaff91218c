"""What a campaign shows: a row of figures for each transport on each path at each size, and the verdicts.

Two transports are compared by the ratio of their goodputs, block by block. The verdict is `faster` or `slower` if the
whole 95% interval of the median ratio lies on one side of 1, and by more than the *margin*: MIN_DIFFERENCE, which no
user would notice, or the difference between the baseline and the A/A control if that is larger. The control is the
baseline run a second time: a difference that the method finds between a transport and itself, it cannot claim between
two others. The interval alone would be wrong in one of twenty comparisons; with the margin, identical transports are
distinguished far less often.

No pair that was run is left out, because what would leave it out (a failure, a mark) depends on how it ran: slow trials
would disappear, and the survivors would look fast. A failed transfer has a goodput of 0. A marked trial
(`toolkit.compare.records.MARKS`) counts as measured. A median tolerates some of them; if more than MARKED_SHARE of
either side's trials are marked, there is no claim. There is no claim either if the interval includes a failure and
therefore cannot show `no difference`, or if no transfer of either side arrived.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from toolkit.compare.records import (
    CONTROL_SUFFIX,
    UNRELIABLE,
    BackgroundFlowResult,
    Results,
    TimeSplit,
    Trial,
)
from toolkit.compare.stats import Estimate, estimated_median, median_absolute_deviation, paired_ratio
from toolkit.units import format_rate, format_ratio, format_seconds, format_size

FASTER, SLOWER, NO_DIFFERENCE, NO_CLAIM = "faster", "slower", "no difference", "no claim"
BASELINE = "baseline"
STEADY, SHORT = "steady", "short"
MIN_DIFFERENCE = 0.02
MARKED_SHARE = 0.2
"""Largest share of one side's trials that may be marked if there is to be a claim."""
_GIGABYTE = 1e9
_SHORT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class RowDelay:
    """Medians over trials of the round trip of a ping, in milliseconds: without a queue, and beside the transfer."""

    base: float
    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class Row:
    """One transport on one path at one size: medians over verified trials, None where there is no figure.

    A ratio, or an end of its interval, is infinite where trials of the baseline failed.

    trials, verified, unmarked: counted without the warm-up; `unmarked` is a part of `verified`
    goodput_bps, seconds: with their intervals; `deviation_bps` is the median absolute deviation
    ratio:            goodput relative to the baseline's trial in the same block, over `pairs` of trials
    margin:           smallest difference from 1 that is claimed; infinite where the A/A control failed
    verdict:          FASTER, SLOWER, NO_DIFFERENCE or NO_CLAIM; BASELINE for the baseline itself
    is_control:       whether this is the A/A control
    regime:           SHORT where handshake, ramp-up and tail took most of the time, else STEADY
    reasons, why:     where the time of the median trial went, and the sentence that explains it
    no_claim_because: why there is no verdict; empty where there is one
    """

    path: str
    payload_bytes: int
    transport: str
    trials: int
    verified: int
    unmarked: int
    is_control: bool
    goodput_bps: Estimate | None
    deviation_bps: float | None
    seconds: Estimate | None
    ratio: Estimate | None
    pairs: int
    margin: float
    verdict: str
    no_claim_because: str
    marks: tuple[str, ...]
    regime: str | None
    reasons: TimeSplit | None
    why: str
    retransmitted_packets: float | None
    wire_bytes_per_payload_byte: float | None
    sender_cpu_s_per_gb: float | None
    receiver_cpu_s_per_gb: float | None
    sender_peak_memory_bytes: float | None
    receiver_peak_memory_bytes: float | None
    delay_ms: RowDelay | None
    competition: BackgroundFlowResult | None


@dataclass(frozen=True, slots=True)
class PathVerdict:
    """What one path at one size shows: the rows compared there, and the verdicts as one sentence.

    where:    the path and the size, for example "40 ms, 4 MiB"
    sentence: the verdicts, without `where`
    is_claim: whether any transport has a verdict other than NO_CLAIM
    """

    path: str
    payload_bytes: int
    rows: Sequence[Row]
    where: str
    sentence: str
    is_claim: bool

    @property
    def text(self) -> str:
        """The sentence with the path and the size in front of it."""
        return f"{self.where}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that tables, plots and pages are made from: a campaign's records and what they show.

    rows:     one for each path, size and transport, in the campaign's order
    verdicts: one for each path and size; those without a claim come last
    """

    results: Results
    rows: Sequence[Row]
    verdicts: Sequence[PathVerdict]

    @property
    def headline(self) -> list[str]:
        """The verdicts as sentences."""
        return [verdict.text for verdict in self.verdicts]


def summarise(results: Results) -> Summary:
    """Compute the rows and verdicts of a campaign. Costly for a long campaign: call it once and pass the result on."""
    campaign = results.campaign
    rows: list[Row] = []
    verdicts: list[PathVerdict] = []
    for path in campaign.paths:
        for size in campaign.sizes:
            trials = [t for t in results.trials if (t.path, t.payload_bytes) == (path, size) and t.block >= 0]
            control = _ratio(trials, campaign.baseline + CONTROL_SUFFIX, campaign.baseline)
            margin = max(MIN_DIFFERENCE, _distance(control)) if control else MIN_DIFFERENCE
            cell = [_row(results, trials, path, size, label, margin) for label in campaign.transports]
            rows += cell
            verdicts.append(_path_verdict(results, cell))
    return Summary(results, rows, sorted(verdicts, key=lambda verdict: not verdict.is_claim))


def plain(record: Any) -> dict[str, object]:
    """A row, or another dataclass, as a JSON object, with None for infinite values, which JSON cannot express."""
    return {name: _finite(value) for name, value in asdict(record).items()}


def verdict_of(ratio: Estimate | None, margin: float) -> str:
    """The verdict that a ratio with its interval allows; NO_CLAIM without an interval."""
    if ratio is None or ratio.interval is None or math.isinf(margin):
        return NO_CLAIM
    if ratio.interval.low > 1 + margin:
        return FASTER
    if ratio.interval.high < 1 / (1 + margin):
        return SLOWER
    return NO_CLAIM if ratio.interval.low == 0 or math.isinf(ratio.interval.high) else NO_DIFFERENCE


def is_mostly_sound(trials: Sequence[Trial]) -> bool:
    """Whether few enough trials are marked for their median to be trusted."""
    return sum(bool(trial.marks) for trial in trials) <= MARKED_SHARE * len(trials)


def goodput_bps(trial: Trial) -> float:
    """The goodput of a trial; 0 if the transfer failed."""
    return trial.goodput_bps or 0.0 if trial.is_counted else 0.0


def _row(results: Results, cell: Sequence[Trial], path: str, size: int, label: str, margin: float) -> Row:
    campaign = results.campaign
    trials = [trial for trial in cell if trial.transport == label]
    base = [trial for trial in cell if trial.transport == campaign.baseline]
    good = [trial for trial in trials if trial.is_counted]
    goodputs = [goodput_bps(trial) for trial in good]
    seconds = [trial.seconds for trial in good if trial.seconds is not None]
    is_baseline = label == campaign.baseline
    ratio = None if is_baseline else _ratio(cell, label, campaign.baseline)
    verdict, no_claim_because = (BASELINE, "") if is_baseline else _verdict(trials, base, ratio, margin)
    middle = median_trial(good)
    return Row(
        path=path,
        payload_bytes=size,
        transport=label,
        trials=len(trials),
        verified=len(good),
        unmarked=sum(not trial.marks for trial in good),
        is_control=label == campaign.baseline + CONTROL_SUFFIX,
        goodput_bps=estimated_median(goodputs) if goodputs else None,
        deviation_bps=median_absolute_deviation(goodputs) if goodputs else None,
        seconds=estimated_median(seconds) if seconds else None,
        ratio=ratio,
        pairs=0 if is_baseline else len({trial.block for trial in trials} & {trial.block for trial in base}),
        margin=margin,
        verdict=verdict,
        no_claim_because=no_claim_because,
        marks=tuple(sorted({mark for trial in trials for mark in trial.marks})),
        regime=_regime(middle),
        reasons=middle.reasons if middle is not None else None,
        why=middle.why if middle is not None else next((t.error for t in trials if t.error), ""),
        retransmitted_packets=_median([t.retransmitted_packets for t in good]),
        wire_bytes_per_payload_byte=_median([t.cost.wire_bytes_per_payload_byte for t in good]),
        sender_cpu_s_per_gb=_per_gigabyte([(t.cost.cpu_seconds_sender, t.payload_bytes) for t in good]),
        receiver_cpu_s_per_gb=_per_gigabyte([(t.cost.cpu_seconds_receiver, t.payload_bytes) for t in good]),
        sender_peak_memory_bytes=_median([t.cost.peak_memory_bytes_sender for t in good]),
        receiver_peak_memory_bytes=_median([t.cost.peak_memory_bytes_receiver for t in good]),
        delay_ms=_delay(good),
        competition=_background_flow(good),
    )


def _ratio(cell: Sequence[Trial], label: str, baseline: str) -> Estimate | None:
    """Ratio over the blocks in which both were run; None if there is no such block, or one of the two never arrived."""
    own, base = ({t.block: t for t in cell if t.transport == name} for name in (label, baseline))
    blocks = sorted(own.keys() & base.keys())
    if not all(any(side[block].is_counted for block in blocks) for side in (own, base)):
        return None
    return paired_ratio([goodput_bps(own[block]) for block in blocks], [goodput_bps(base[block]) for block in blocks])


def _distance(ratio: Estimate) -> float:
    """Distance from 1; the same for a ratio and its inverse."""
    return max(ratio.value, 1 / ratio.value if ratio.value else math.inf) - 1


def _verdict(trials: Sequence[Trial], base: Sequence[Trial], ratio: Estimate | None, margin: float) -> tuple[str, str]:
    """The verdict on a transport against the baseline, and, if it is NO_CLAIM, the reason."""
    if not trials:
        return NO_CLAIM, "not run"
    if not any(trial.is_counted for trial in trials):
        return NO_CLAIM, "no transfer was verified"
    if not any(trial.is_counted for trial in base):
        return NO_CLAIM, "no transfer of the baseline was verified"
    for side, whose in ((trials, "of "), (base, "of the baseline's ")):
        if not is_mostly_sound(side):
            marked = [trial for trial in side if trial.marks]
            marks = ", ".join(sorted({mark for trial in marked for mark in trial.marks}))
            return NO_CLAIM, f"{len(marked)} {whose}{len(side)} trials marked {marks}"
    if ratio is None or ratio.interval is None:
        return NO_CLAIM, "too few pairs of trials for an interval"
    if math.isinf(margin):
        return NO_CLAIM, "the A/A control failed"
    verdict = verdict_of(ratio, margin)
    if verdict == NO_CLAIM:  # the interval includes a failure, whose ratio is 0 or infinite
        return NO_CLAIM, f"{_failures(trials)} of its trials failed, and {_failures(base)} of the baseline's"
    return verdict, ""


def median_trial(good: Sequence[Trial]) -> Trial | None:
    """The trial whose goodput is the median of the unmarked trials, or of all if every trial is marked."""
    chosen = sorted([t for t in good if not t.marks] or good, key=lambda trial: (goodput_bps(trial), trial.block))
    return chosen[(len(chosen) - 1) // 2] if chosen else None


def _regime(trial: Trial | None) -> str | None:
    if trial is None or trial.reasons is None or not trial.seconds:
        return None
    return SHORT if trial.reasons.startup_s > _SHORT_SHARE * trial.seconds else STEADY


def _delay(good: Sequence[Trial]) -> RowDelay | None:
    delays = [trial.delay for trial in good if trial.delay is not None]
    if not delays:
        return None
    return RowDelay(
        base=median(delay.base_ms for delay in delays),
        median=median(delay.median_ms for delay in delays),
        p95=median(delay.p95_ms for delay in delays),
    )


def _background_flow(good: Sequence[Trial]) -> BackgroundFlowResult | None:
    results = [trial.competitor for trial in good if trial.competitor is not None]
    if not results:
        return None
    return BackgroundFlowResult(
        goodput_bps_alone=median(result.goodput_bps_alone for result in results),
        goodput_bps_beside=median(result.goodput_bps_beside for result in results),
        jain=median(result.jain for result in results),
    )


def _failures(trials: Sequence[Trial]) -> str:
    return f"{sum(not trial.is_counted for trial in trials)} of {len(trials)}"


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_finite(each) for each in value)
    return None if isinstance(value, float) and math.isinf(value) else value


def _per_gigabyte(costs: Sequence[tuple[float | None, int]]) -> float | None:
    """Median of cost per gigabyte, from pairs of cost and payload size."""
    return _median([cost / (size / _GIGABYTE) if cost is not None else None for cost, size in costs])


def _median(samples: Sequence[float | None]) -> float | None:
    known = [sample for sample in samples if sample is not None]
    return median(known) if known else None


def _path_verdict(results: Results, cell: Sequence[Row]) -> PathVerdict:
    base = next(row for row in cell if row.transport == results.campaign.baseline)
    sentence, is_claim = _sentence(base, cell, results.campaign.repeats)
    where = f"{base.path}, {format_size(base.payload_bytes)}"
    return PathVerdict(base.path, base.payload_bytes, cell, where, sentence, is_claim)


def _sentence(base: Row, cell: Sequence[Row], blocks: int) -> tuple[str, bool]:
    """The verdicts on the rows of one path and size, and whether any of them is a claim."""
    others = [row for row in cell if not row.is_control and row is not base and UNRELIABLE not in row.marks]
    judged = [(row.ratio.value, row) for row in others if row.verdict != NO_CLAIM and row.ratio is not None]
    if not judged:
        reasons = {row.no_claim_because for row in others if row.no_claim_because}
        return f"no claim ({'; '.join(sorted(reasons)) or 'nothing to compare with'}).", False
    ranked = [row for _, row in sorted(judged, key=lambda item: -item[0])]
    parts = [_claim(row, base, blocks) for row in ranked]
    parts += [f"no claim on {row.transport} ({row.no_claim_because})" for row in others if row.verdict == NO_CLAIM]
    slowest = base if ranked[0].verdict == FASTER else ranked[-1] if ranked[-1].verdict == SLOWER else None
    reason = f" {slowest.transport}: {slowest.why}" if slowest is not None and slowest.why else ""
    return f"{'; '.join(parts)}.{reason}", True


def _claim(row: Row, base: Row, blocks: int) -> str:
    assert row.ratio is not None
    assert row.ratio.interval is not None
    low, high = row.ratio.interval
    pairs = f"{row.pairs} pairs" if row.pairs == blocks else f"{row.pairs} of {blocks} pairs"
    interval = f"95% interval {format_ratio(low)} to {format_ratio(high)}"
    figures = f"{format_ratio(row.ratio.value)} x its goodput in {pairs}, {interval}"
    if row.verdict != NO_DIFFERENCE and row.goodput_bps is not None and base.goodput_bps is not None:
        if row.regime == SHORT and row.seconds is not None and base.seconds is not None:
            figures += f"; {format_seconds(row.seconds.value)} against {format_seconds(base.seconds.value)}"
        else:
            figures += f"; {format_rate(row.goodput_bps.value)} against {format_rate(base.goodput_bps.value)}"
    for side in (row, base):
        if side.verified < side.trials:
            figures += f"; {side.trials - side.verified} of {side.trials} by {side.transport} failed and count as 0"
        if side.unmarked < side.verified:
            figures += f"; {side.verified - side.unmarked} of {side.trials} by {side.transport} are marked"
    if row.verdict == NO_DIFFERENCE:
        if verdict_of(row.ratio, MIN_DIFFERENCE) != NO_DIFFERENCE:
            figures += f"; the A/A control differs by {row.margin:.0%}"
        return f"no difference between {row.transport} and {base.transport} ({figures})"
    return f"{row.transport} is {row.verdict} than {base.transport} ({figures})"
