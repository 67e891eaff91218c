"""What a campaign shows: a row of figures for each transport on each path at each size, and the verdicts.

Two transports are compared by the ratio of their goodputs, block by block; `toolkit.compare.verdict` decides what the
interval of the median ratio shows. The A/A control, the baseline run a second time, shows what this machine can
resolve.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from toolkit.compare.factorial import Factorial, designs, factorial_text, factorials, mixes_factors
from toolkit.compare.pairs import PairedTrials, goodput_bps
from toolkit.compare.records import (
    CONTROL_SUFFIX,
    UNRELIABLE,
    BackgroundFlowResult,
    Campaign,
    Results,
    TimeSplit,
    Trial,
)
from toolkit.compare.stats import MIN_SAMPLES, Estimate, estimated_median, median_absolute_deviation
from toolkit.compare.verdict import (
    CLAIMS,
    EQUIVALENT,
    FASTER,
    INCONCLUSIVE,
    NO_CLAIM,
    SLOWER,
    Verdict,
    judge,
    to_settle,
)
from toolkit.units import format_fraction, format_rate, format_ratio, format_seconds, format_size

BASELINE = "baseline"
STEADY, SHORT = "steady", "short"
UNCHECKED = "Nothing checked what this machine can resolve: there was no A/A control."
_FIGURES = (
    "Figures: medians over verified trials; intervals between order statistics, which hold at least 95% whatever the "
    f"noise, none for fewer than {MIN_SAMPLES} samples; ratios are taken within blocks, where a failed transfer has a "
    "goodput of 0, and a pair of two failed transfers is left out."
)
_VERDICTS = (
    "Verdicts: faster or slower if the interval of the ratio excludes 1, also after Holm's correction for the number "
    "of comparisons ({comparisons}); equivalent if it lies within {margin} of 1; else inconclusive; no claim without "
    "an interval, or if more than a fifth of either side's trials are marked. {control}"
)
_CONTROL = (
    "If the interval of the A/A control leaves {margin}, only larger differences than that interval allows are claimed."
)
_NO_CONTROL = "There is no A/A control, so nothing checks what this machine can resolve."
_MIXED = (
    "{mixed} differs from {baseline} in both transport and congestion control: a difference between them does not say "
    "which of the two causes it."
)
_FACTORIALS = (
    "Same congestion control, other transport, and the reverse: main effects of a 2 x 2 design on the logarithm of "
    "goodput, computed within blocks; medians over blocks with 95% intervals. An interaction is named if its interval, "
    "corrected for the number of interactions in the campaign, excludes 1."
)
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
    censored:         pairs in which both transfers failed; `pairs` does not contain them
    margin:           the largest difference from 1 that the user calls negligible
    reach:            largest factor between the baseline and its A/A control that their interval allows, at least 1;
                      infinite if that is unknown, None without a control
    verdict:          FASTER, SLOWER, EQUIVALENT, INCONCLUSIVE or NO_CLAIM; BASELINE for the baseline itself
    is_negligible, because, more_blocks: see `toolkit.compare.verdict.Verdict`
    is_control:       whether this is the A/A control
    regime:           SHORT where handshake, ramp-up and tail took most of the time, else STEADY
    reasons, why:     where the time of the median trial went, and the sentence that explains it
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
    censored: int
    margin: float
    reach: float | None
    verdict: str
    is_negligible: bool
    because: str
    more_blocks: int | None
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

    where:      the path and the size, for example "40 ms, 4 MiB"
    sentence:   the verdicts, without `where`; what the factorials show comes first
    is_claim:   whether any transport is faster, slower or equivalent
    factorials: what transport and congestion control contribute, where combinations of both ran
    """

    path: str
    payload_bytes: int
    rows: Sequence[Row]
    where: str
    sentence: str
    is_claim: bool
    factorials: Sequence[Factorial] = ()

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

    @property
    def notes(self) -> list[str]:
        """What to know before reading the verdicts, as sentences."""
        campaign = self.results.campaign
        left_out = [f"{label} was left out: {reason}." for label, reason in campaign.left_out.items()]
        mixed = mixes_factors(campaign)
        if not mixed:
            return left_out
        return [*left_out, _MIXED.format(mixed=" and ".join(mixed), baseline=campaign.baseline)]


def summarise(results: Results) -> Summary:
    """Compute the rows and verdicts of a campaign. Costly for a long campaign: call it once and pass the result on."""
    campaign = results.campaign
    cells = [PairedTrials(results, path, size) for path in campaign.paths for size in campaign.sizes]
    judged = _judge(campaign, cells)
    rows: list[Row] = []
    verdicts: list[PathVerdict] = []
    for cell in cells:
        of_cell = [_row(cell, label, judged.get((cell, label))) for label in campaign.transports]
        rows += of_cell
        verdicts.append(_path_verdict(results, of_cell, factorials(cell)))
    return Summary(results, rows, sorted(verdicts, key=lambda verdict: not verdict.is_claim))


def judging(campaign: Campaign) -> list[str]:
    """How the figures and verdicts of `summarise` come about, as sentences."""
    margin = format_fraction(campaign.margin)
    is_controlled = campaign.baseline + CONTROL_SUFFIX in campaign.transports
    control = _CONTROL.format(margin=margin) if is_controlled else _NO_CONTROL
    verdicts = _VERDICTS.format(comparisons=campaign.comparison_count, margin=margin, control=control)
    return [_FIGURES, verdicts, *([_FACTORIALS] if designs(campaign) else [])]


def plain(record: Any) -> dict[str, object]:
    """A row, or another dataclass, as a JSON object, with None for infinite values, which JSON cannot express."""
    return {name: _finite(value) for name, value in asdict(record).items()}


def _judge(campaign: Campaign, cells: Sequence[PairedTrials]) -> Mapping[tuple[PairedTrials, str], Verdict]:
    """The verdict on each transport but the baseline, in each cell."""
    control = campaign.baseline + CONTROL_SUFFIX
    keys = [
        (cell, label) for cell in cells for label in campaign.transports if label not in (campaign.baseline, control)
    ]
    judged = dict(zip(keys, judge([cell.evidence(label) for cell, label in keys], campaign.margin), strict=True))
    if control in campaign.transports:
        judged |= {(cell, control): judge([cell.evidence(control)], campaign.margin)[0] for cell in cells}
    return judged


def _row(cell: PairedTrials, label: str, verdict: Verdict | None) -> Row:
    """`verdict`: None for the baseline."""
    trials = cell.trials(label)
    good = [trial for trial in trials if trial.is_counted]
    goodputs = [goodput_bps(trial) for trial in good]
    seconds = [trial.seconds for trial in good if trial.seconds is not None]
    ratios, censored = cell.pairs(label) if verdict is not None else ([], 0)
    middle = median_trial(good)
    return Row(
        path=cell.path,
        payload_bytes=cell.size,
        transport=label,
        trials=len(trials),
        verified=len(good),
        unmarked=sum(not trial.marks for trial in good),
        is_control=label == cell.campaign.baseline + CONTROL_SUFFIX,
        goodput_bps=estimated_median(goodputs) if goodputs else None,
        deviation_bps=median_absolute_deviation(goodputs) if goodputs else None,
        seconds=estimated_median(seconds) if seconds else None,
        ratio=cell.ratio(label) if verdict is not None else None,
        pairs=len(ratios),
        censored=censored,
        margin=cell.campaign.margin,
        reach=cell.reach,
        verdict=verdict.word if verdict is not None else BASELINE,
        is_negligible=verdict is not None and verdict.is_negligible,
        because=verdict.because if verdict is not None else "",
        more_blocks=verdict.more_blocks if verdict is not None else None,
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


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_finite(each) for each in value)
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and math.isinf(value) else value


def _per_gigabyte(costs: Sequence[tuple[float | None, int]]) -> float | None:
    """Median of cost per gigabyte, from pairs of cost and payload size."""
    return _median([cost / (size / _GIGABYTE) if cost is not None else None for cost, size in costs])


def _median(samples: Sequence[float | None]) -> float | None:
    known = [sample for sample in samples if sample is not None]
    return median(known) if known else None


def _path_verdict(results: Results, cell: Sequence[Row], factors: Sequence[Factorial]) -> PathVerdict:
    base = next(row for row in cell if row.transport == results.campaign.baseline)
    sentence, is_claim = _sentence(base, cell, results.campaign.repeats)
    where = f"{base.path}, {format_size(base.payload_bytes)}"
    if any(row.goodput_bps is not None for row in cell):
        sentence = " ".join([*(f"{factorial_text(each)}." for each in factors), sentence])
    return PathVerdict(base.path, base.payload_bytes, cell, where, sentence, is_claim, factors)


def _sentence(base: Row, cell: Sequence[Row], blocks: int) -> tuple[str, bool]:
    """The verdicts on the rows of one path and size, and whether any of them is a claim."""
    others = [row for row in cell if not row.is_control and row is not base and UNRELIABLE not in row.marks]
    judged = [(row.ratio.value, row) for row in others if row.verdict != NO_CLAIM and row.ratio is not None]
    if not judged:
        reasons = {row.because for row in others if row.because}
        return f"no claim ({'; '.join(sorted(reasons)) or 'nothing to compare with'}).", False
    ranked = [row for _, row in sorted(judged, key=lambda item: -item[0])]
    parts = [_finding(row, base, blocks) for row in ranked]
    parts += [f"no claim on {row.transport} ({row.because})" for row in others if row.verdict == NO_CLAIM]
    slowest = base if ranked[0].verdict == FASTER else ranked[-1] if ranked[-1].verdict == SLOWER else None
    reason = f" {slowest.transport}: {slowest.why}" if slowest is not None and slowest.why else ""
    unchecked = "" if any(row.is_control for row in cell) else f" {UNCHECKED}"
    return f"{'; '.join(parts)}.{unchecked}{reason}", any(row.verdict in CLAIMS for row in ranked)


def _finding(row: Row, base: Row, blocks: int) -> str:
    """One verdict in words, with the figures that it rests on."""
    figures = _figures(row, base, blocks)
    if row.verdict == EQUIVALENT:
        return f"{row.transport} and {base.transport} are equivalent within {format_fraction(row.margin)} ({figures})"
    if row.verdict == INCONCLUSIVE:
        reasons = [row.because or "these trials cannot tell which is faster, or whether they are equivalent"]
        reasons.append(to_settle(row.more_blocks))
        return f"{row.transport} against {base.transport} is inconclusive ({figures}): {'; '.join(reasons)}"
    by = f" by {_percent(row)}, which is negligible" if row.is_negligible else ""
    return f"{row.transport} is {row.verdict} than {base.transport}{by} ({figures})"


def _percent(row: Row) -> str:
    """How far a negligible ratio is from 1."""
    return "" if row.ratio is None else f"{abs(row.ratio.value - 1):.1%}"


def _figures(row: Row, base: Row, blocks: int) -> str:
    assert row.ratio is not None
    assert row.ratio.interval is not None
    low, high = row.ratio.interval
    pairs = f"{row.pairs} pairs" if row.pairs == blocks else f"{row.pairs} of {blocks} pairs"
    interval = f"95% interval {format_ratio(low)} to {format_ratio(high)}"
    figures = f"{format_ratio(row.ratio.value)} x its goodput in {pairs}, {interval}"
    if row.verdict in (FASTER, SLOWER) and row.goodput_bps is not None and base.goodput_bps is not None:
        if row.regime == SHORT and row.seconds is not None and base.seconds is not None:
            figures += f"; {format_seconds(row.seconds.value)} against {format_seconds(base.seconds.value)}"
        else:
            figures += f"; {format_rate(row.goodput_bps.value)} against {format_rate(base.goodput_bps.value)}"
    if row.censored:
        figures += f"; {row.censored} more, in which both failed, say nothing"
    for side in (row, base):
        if side.verified < side.trials:
            figures += f"; {side.trials - side.verified} of {side.trials} by {side.transport} failed and count as 0"
        if side.unmarked < side.verified:
            figures += f"; {side.verified - side.unmarked} of {side.trials} by {side.transport} are marked"
    return figures
