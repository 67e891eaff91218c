"""Rows of figures: one transport on one path at one size, as medians over its trials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.comparison.drift import drift
from toolkit.comparison.explanation import Facts, explanation_of_all, facts_of, mean_split
from toolkit.comparison.pairs import PairedTrials, goodput_bps, link_loss, loads, loses_independently, mark_counts
from toolkit.comparison.paths import LINK
from toolkit.comparison.records import CONTROL_SUFFIX, BackgroundFlowResult, TimeSplit, Trial
from toolkit.comparison.stats import ERROR, Estimate, estimated_median, median_absolute_deviation
from toolkit.comparison.verdict import Verdict

BASELINE, YARDSTICK = "baseline", "yardstick"
STEADY, SHORT = "steady", "short"
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
    """One transport on one path at one size: medians over trials, None where there is no figure.

    In goodput, time and ratio a failed transfer is slower than any other, as in the verdict; other figures are those of
    verified trials. A ratio, or an end of its interval, is infinite where trials of the baseline failed, and so is the
    end of an interval of the time where trials of the transport failed.

    trials, verified, unmarked: counted without the warm-up; `unmarked` is a part of `verified`
    marks, mark_counts: of the trials, and how many verified ones have each
    goodput_bps, seconds: with their intervals; `deviation_bps` is the median absolute deviation
    block_ratios:     ratio in each block, in the order of time, without `censored` ones
    ratio:            goodput relative to the baseline's trial in the same block, over `pairs` of trials
    censored:         pairs in which both transfers failed; `pairs` does not contain them
    margin:           the largest difference from 1 that the user calls negligible
    reach:            largest factor between the baseline and its A/A control that their interval allows, at least 1;
                      infinite if that is unknown, None without a control
    verdict:          FASTER, SLOWER, EQUIVALENT, INCONCLUSIVE or NO_CLAIM; BASELINE for the baseline itself,
                      YARDSTICK for a copy without a network
    is_negligible, because, more_blocks, resolution: see `toolkit.comparison.verdict.Verdict`
    is_control:       whether this is the A/A control
    drift:            goodput of the last trial relative to the first, along the trend that goodput had in the course of
                      the campaign; None where none was found among all of the campaign's transports, paths and sizes
    content:          the size of the file, or the duration of timed trials, in words
    content_bytes:    sent in a trial; in timed trials, all of it, also what arrived after the time
    regime:           None in timed trials; SHORT where handshake, ramp-up and tail took most of the time, else STEADY
    link_loss:        share of the packets from sender to receiver that the link lost in all trials, without those that
                      its queue dropped; None without a link. The interval is that of independent losses
    load_share:       of all processors that other work took during a trial, the median; None where it is not known
    unequal_load:     how much more of them it took than beside the baseline, if the pairs show a difference
    asked_loss:       the share that the path was asked to lose; None where it varies with time
    is_loss_off:      whether the interval of the loss leaves out what was asked for, also among all of the campaign
    connect_s, accepted_s: from the first connect until connection and keys were there, and until the receiver had
                      accepted the offer
    resent_per_lost:  packets resent for each one, pings left out, that the link lost or its queue dropped, over all
                      trials
    time_split, why:  where the time went, the mean over all trials with enough samples, and a sentence about all trials
    """

    path: str
    payload_bytes: int
    content: str
    content_bytes: float | None
    transport: str
    trials: int
    verified: int
    unmarked: int
    is_control: bool
    goodput_bps: Estimate | None
    deviation_bps: float | None
    seconds: Estimate | None
    ratio: Estimate | None
    block_ratios: tuple[float, ...]
    pairs: int
    censored: int
    margin: float
    reach: float | None
    verdict: str
    is_negligible: bool
    because: str
    more_blocks: int | None
    resolution: float | None
    marks: tuple[str, ...]
    drift: float | None
    regime: str | None
    time_split: TimeSplit | None
    why: str
    retransmitted_packets: float | None
    link_loss: Estimate | None
    asked_loss: float | None
    is_loss_off: bool
    resent_per_lost: float | None
    wire_bytes_per_payload_byte: float | None
    sender_cpu_s_per_gb: float | None
    receiver_cpu_s_per_gb: float | None
    sender_peak_memory_bytes: float | None
    receiver_peak_memory_bytes: float | None
    delay_ms: RowDelay | None
    competition: BackgroundFlowResult | None
    connect_s: float | None = None
    accepted_s: float | None = None
    load_share: float | None = None
    unequal_load: float | None = None
    mark_counts: tuple[int, ...] = ()


def make_row(cell: PairedTrials, label: str, verdict: Verdict | None) -> Row:
    """The row of one transport of a cell. `verdict`: None for the baseline and for a yardstick."""
    trials = cell.trials(label)
    good = [trial for trial in trials if trial.is_counted]
    goodputs = [goodput_bps(trial) for trial in trials]
    seconds = [trial.seconds if trial.is_counted and trial.seconds is not None else math.inf for trial in trials]
    link, setting = cell.campaign.paths[cell.path], cell.campaign.transports[label]
    is_compared = verdict is not None or setting.is_yardstick
    ratios, censored = cell.pairs(label) if is_compared else ([], 0)
    facts = [each for trial in good if (each := facts_of(trial, link, setting.congestion_control)) is not None]
    why = explanation_of_all(facts) if len(facts) > 1 else "".join(trial.why for trial in good[:1])
    audited = trials if link.kind == LINK else []
    asked_loss = link.loss if loses_independently(link) else None
    return Row(
        path=cell.path,
        payload_bytes=cell.size,
        content=cell.campaign.content_text(cell.size),
        content_bytes=_median([t.content_bytes for t in good]),
        transport=label,
        trials=len(trials),
        verified=len(good),
        unmarked=sum(not trial.marks for trial in good),
        is_control=label == cell.campaign.baseline + CONTROL_SUFFIX,
        goodput_bps=_median_of_arrived(goodputs, cell.campaign.first_look),
        deviation_bps=median_absolute_deviation(goodputs) if good else None,
        seconds=_median_of_arrived(seconds, cell.campaign.first_look),
        ratio=cell.ratio(label) if is_compared else None,
        block_ratios=tuple(ratios),
        pairs=len(ratios),
        censored=censored,
        margin=cell.campaign.margin,
        reach=cell.reach,
        verdict=verdict.word if verdict is not None else YARDSTICK if setting.is_yardstick else BASELINE,
        is_negligible=verdict is not None and verdict.is_negligible,
        because=verdict.because if verdict is not None else "",
        more_blocks=verdict.more_blocks if verdict is not None else None,
        resolution=verdict.resolution if verdict is not None else None,
        marks=tuple(mark_counts(trials)),
        mark_counts=tuple(mark_counts(good).get(mark, 0) for mark in mark_counts(trials)),
        drift=_drift(cell, trials),
        regime=_regime(facts) if cell.campaign.time_s is None else None,
        time_split=mean_split(facts),
        why=why or next((t.error for t in trials if t.error), ""),
        connect_s=_median([t.connect_s for t in good]),
        accepted_s=_median([t.sender.accepted_s for t in good]),
        retransmitted_packets=_median([t.retransmitted_packets for t in good]),
        link_loss=link_loss(audited),
        asked_loss=asked_loss,
        is_loss_off=asked_loss is not None and _is_off(link_loss(audited, ERROR / cell.row_count), asked_loss),
        resent_per_lost=_resent_per_lost(good) if audited else None,
        wire_bytes_per_payload_byte=_median([t.cost.wire_bytes_per_payload_byte for t in good]),
        sender_cpu_s_per_gb=_per_gigabyte([(t.cost.cpu_seconds_sender, t.content_bytes) for t in good]),
        receiver_cpu_s_per_gb=_per_gigabyte([(t.cost.cpu_seconds_receiver, t.content_bytes) for t in good]),
        sender_peak_memory_bytes=_median([t.cost.peak_memory_bytes_sender for t in good]),
        receiver_peak_memory_bytes=_median([t.cost.peak_memory_bytes_receiver for t in good]),
        delay_ms=_delay(good),
        competition=_background_flow(good),
        load_share=_median(list(loads(trials).values())),
        unequal_load=cell.unequal_load(label),
    )


def median_trial(good: Sequence[Trial]) -> Trial | None:
    """The trial whose goodput is the median of the unmarked trials, or of all if every trial is marked."""
    chosen = sorted([t for t in good if not t.marks] or good, key=lambda trial: (goodput_bps(trial), trial.block))
    return chosen[(len(chosen) - 1) // 2] if chosen else None


def _drift(cell: PairedTrials, trials: Sequence[Trial]) -> float | None:
    found = drift([goodput_bps(trial) for trial in sorted(trials, key=lambda trial: trial.position)])
    return found.factor if found is not None and found.p <= ERROR / cell.row_count else None


def _is_off(seen: Estimate | None, asked: float) -> bool:
    return seen is not None and seen.interval is not None and not seen.interval.low <= asked <= seen.interval.high


def _regime(facts: Sequence[Facts]) -> str | None:
    """SHORT if most transfers are; one of which there are too few samples is."""
    if not facts:
        return None
    short = sum(each.time_split is None or each.time_split.startup_s > _SHORT_SHARE * each.seconds for each in facts)
    return SHORT if 2 * short > len(facts) else STEADY


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


def _median_of_arrived(samples: Sequence[float], first_look: int | None) -> Estimate | None:
    """The median, where a failed transfer is slower than any other; None if that is what stands in the middle."""
    ordered = sorted(samples)
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    has_arrived = middle and all(0 < sample < math.inf for sample in middle)
    return estimated_median(samples, first_look) if has_arrived else None


def _resent_per_lost(good: Sequence[Trial]) -> float | None:
    """None if the link's own count is not known, or it lost nothing.

    Nobody resends a ping, and beside a slow transfer a good part of what is lost are pings.
    """
    counted = [
        (trial.retransmitted_packets, audit.lost_by_link + audit.dropped_by_queue - audit.lost_pings)
        for trial in good
        if trial.ledger is not None and trial.retransmitted_packets is not None
        for audit in (trial.ledger.forward,)
    ]
    lost = sum(count for _, count in counted)
    return sum(resent for resent, _ in counted) / lost if lost > 0 else None


def _per_gigabyte(costs: Sequence[tuple[float | None, int]]) -> float | None:
    """Median of cost per gigabyte, from pairs of cost and payload size."""
    return _median([cost / (size / _GIGABYTE) if cost is not None else None for cost, size in costs])


def _median(samples: Sequence[float | None]) -> float | None:
    known = [sample for sample in samples if sample is not None]
    return median(known) if known else None
