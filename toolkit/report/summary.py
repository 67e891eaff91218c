"""From the trials of a campaign to one row of figures a cell. Only verified trials count, and no warm-up."""

from dataclasses import dataclass
from statistics import median

from toolkit.bench.record import Results, Trial
from toolkit.bench.stats import Estimate, bootstrap_median, median_absolute_deviation, paired_ratio

_GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class CellSummary:
    """What the trials of one cell come to.

    goodput_bps:       median over the trials, with its interval
    deviation_bps:     median absolute deviation
    ratio:             to the baseline's trial of the same block; None for the baseline, and without any pair
    sender_cpu_s_per_gb, receiver_cpu_s_per_gb:  processor seconds (user and system) per 10^9 bytes of payload
    packets_retransmitted:  median; None where the transport does not tell
    """

    label: str
    verified: int
    trials: int
    goodput_bps: Estimate | None
    deviation_bps: float | None
    ratio: Estimate | None
    sender_cpu_s_per_gb: float | None
    receiver_cpu_s_per_gb: float | None
    packets_retransmitted: float | None


def summarise(results: Results) -> list[CellSummary]:
    """One summary a cell, in the order of the campaign."""
    return [_summary(results, label) for label in results.campaign.cells]


def _summary(results: Results, label: str) -> CellSummary:
    trials = [trial for trial in results.trials if trial.cell == label and trial.block >= 0]
    good = [trial for trial in trials if trial.verified]
    goodputs = [_goodput(trial) for trial in good]
    retransmitted = [t.sender["packets_retransmitted"] for t in good if "packets_retransmitted" in t.sender]
    return CellSummary(
        label=label,
        verified=len(good),
        trials=len(trials),
        goodput_bps=bootstrap_median(goodputs, results.campaign.seed) if goodputs else None,
        deviation_bps=median_absolute_deviation(goodputs) if goodputs else None,
        ratio=_ratio(results, label),
        sender_cpu_s_per_gb=_median([_cpu_per_gb(t.sender) for t in good]),
        receiver_cpu_s_per_gb=_median([_cpu_per_gb(t.receiver) for t in good]),
        packets_retransmitted=_median(retransmitted),
    )


def _ratio(results: Results, label: str) -> Estimate | None:
    baseline = results.campaign.baseline
    if label == baseline:
        return None
    by_block = {(t.block, t.cell): _goodput(t) for t in results.trials if t.verified and t.block >= 0}
    pairs = [
        (goodput, by_block[block, baseline])
        for (block, cell), goodput in by_block.items()
        if cell == label and (block, baseline) in by_block
    ]
    if not pairs:
        return None
    own, base = zip(*pairs, strict=True)
    return paired_ratio(own, base, results.campaign.seed)


def _goodput(trial: Trial) -> float:
    return float(trial.sender["goodput_bps"])


def _cpu_per_gb(end: object) -> float:
    if not isinstance(end, dict):
        raise TypeError(end)
    return float(end["cpu_seconds"]) / (float(end["bytes"]) / _GIGABYTE)


def _median(samples: list[float]) -> float | None:
    return median(samples) if samples else None
