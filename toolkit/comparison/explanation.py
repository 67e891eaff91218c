"""Why a transfer took the time it took, as one sentence: of a single trial, or of all trials of a transport.

A sentence rests on samples (`toolkit.comparison.diagnosis`), and names a limit only where there are enough of them. For
several trials it names the limit that most of them show, and says how many do. Of a path to another machine nobody
knows what it carries, and a path that changes carries no one rate: where no limit shows at the sender, a rate over such
a path is left unexplained.

A model of a congestion control is quoted only where it applies, in a steady state that losses shaped, and where the
measurement does not contradict it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean

from toolkit.comparison.diagnosis import MIN_SAMPLES, RENO_LIKE, SEGMENT_BYTES, loss_response_bps
from toolkit.comparison.pairs import link_packets, loses_independently
from toolkit.comparison.paths import REMOTE
from toolkit.comparison.records import PathRecord, TimeSplit, Trial
from toolkit.units import format_fraction, format_rate, format_seconds, format_size

_DOMINANT_SHARE = 0.5
_LOSSY_SHARE = 0.25
_FILLED_SHARE = 0.85
_WASTED_SHARE, _WASTED_FACTOR = 0.05, 2.0
"""Much is sent again if it is more than this share of all packets, and than this multiple of the path's loss."""
_MODEL_LOSSES, _MODEL_LOW, _MODEL_HIGH = 20, 0.5, 1.25
"""A model is quoted after that many losses, if the goodput is between these multiples of what it says."""


class Limit(StrEnum):
    """What limited a transfer. The value completes "limited by"."""

    UNKNOWN = "nothing that the samples could tell: there are too few"
    PROCESSOR = "a processor"
    WAITING = "waiting for a processor"
    SHORTNESS = "its shortness"
    WINDOW = "the receive window or the send buffer"
    PATH = "the path"
    RECOVERY = "loss recovery"
    CONGESTION = "the congestion control"
    ENDPOINTS = "the endpoints"
    UNSEEN = "nothing that shows at the sender"
    NONE = "several things"


@dataclass(frozen=True, slots=True)
class Facts:
    """What an explanation is made from.

    time_split:   they sum to `seconds`; None if there were fewer than MIN_SAMPLES samples
    handshake_s:  measured by itself
    ideal_bps, loss, rtt_s: of the path; None, 0 and the measured round trip on a path that nettool does not create.
                  Where losses come in bursts or change, `loss` is what the trial's packets met
    is_loss_even: whether the link loses each packet with the same probability, as the models suppose
    queue_drops:  packets that the path's queue dropped; None if unknown
    is_real:      whether the path leads to another machine, so that it may have any limit
    is_changing:  whether rate, delay or loss of the path change in the course of a trial; then `ideal_bps` is None
    busy_sender, busy_receiver: processor time as a share of the whole time
    """

    congestion_control: str
    seconds: float
    handshake_s: float
    goodput_bps: float
    time_split: TimeSplit | None
    retransmitted_packets: float
    ideal_bps: float | None
    loss: float
    rtt_s: float
    busy_sender: float
    busy_receiver: float
    queue_drops: float | None = None
    is_real: bool = False
    is_changing: bool = False
    is_loss_even: bool = True

    @property
    def resent_share(self) -> float:
        """Packets sent again, as a share of all that carry content."""
        once = self.goodput_bps * self.seconds / 8 / SEGMENT_BYTES
        return self.retransmitted_packets / max(once + self.retransmitted_packets, 1.0)


def facts_of(trial: Trial, path: PathRecord, congestion_control: str | None) -> Facts | None:
    """The facts of a recorded trial; None if it failed or reported too little."""
    if not trial.verified or not trial.seconds or not trial.goodput_bps or trial.series is None:
        return None
    sender, (lost, passed) = trial.sender, link_packets([trial])
    is_loss_even, is_changing = loses_independently(path), "changes" in path.link
    audit = trial.ledger.forward if trial.ledger is not None else None
    return Facts(
        congestion_control=sender.congestion_control or congestion_control or "",
        seconds=trial.seconds,
        handshake_s=trial.connect_s or 0.0,
        goodput_bps=trial.goodput_bps,
        time_split=trial.time_split if len(trial.series.t_s) >= MIN_SAMPLES else None,
        retransmitted_packets=trial.retransmitted_packets or 0,
        ideal_bps=None if is_changing else path.ideal_bps,
        loss=(path.loss or 0.0) if is_loss_even or passed <= 0 else lost / passed,
        rtt_s=(path.rtt_ms or sender.rtt_min_ms or 0.0) / 1e3,
        busy_sender=(trial.cost.cpu_seconds_sender or 0.0) / (sender.seconds or trial.seconds),
        busy_receiver=(trial.cost.cpu_seconds_receiver or 0.0) / (sender.seconds or trial.seconds),
        queue_drops=audit.dropped_by_queue if audit is not None else None,
        is_real=path.kind == REMOTE,
        is_changing=is_changing,
        is_loss_even=is_loss_even,
    )


def limit(facts: Facts) -> Limit:
    """What limited one transfer."""
    time_split, seconds = facts.time_split, facts.seconds
    if time_split is None:
        return Limit.UNKNOWN
    if time_split.cpu_bound_s >= _DOMINANT_SHARE * seconds:
        return Limit.PROCESSOR
    if time_split.waiting_s >= _DOMINANT_SHARE * seconds:
        return Limit.WAITING
    if time_split.startup_s > _DOMINANT_SHARE * seconds:
        return Limit.SHORTNESS
    if time_split.window_limited_s >= _DOMINANT_SHARE * seconds:
        return Limit.WINDOW
    if facts.is_real or facts.is_changing:
        return Limit.UNSEEN
    if facts.ideal_bps is None:
        return Limit.RECOVERY if time_split.recovery_s >= _LOSSY_SHARE * seconds else Limit.ENDPOINTS
    if facts.goodput_bps >= _FILLED_SHARE * facts.ideal_bps:
        return Limit.PATH
    if time_split.congestion_limited_s + time_split.recovery_s >= _LOSSY_SHARE * seconds:
        return Limit.RECOVERY if time_split.recovery_s >= time_split.congestion_limited_s else Limit.CONGESTION
    return Limit.NONE


def explanation(facts: Facts) -> str:
    """One sentence about a single transfer."""
    return _sentence(facts, limit(facts))


def explanation_of_all(every: Sequence[Facts]) -> str:
    """One sentence about all trials of a transport, with how many of them agree. Empty without any."""
    if not every:
        return ""
    limits = [limit(facts) for facts in every]
    counts = Counter(limits).most_common()
    found, count = counts[0]
    if 2 * count <= len(every):
        shown = ", ".join(f"{number} of {len(every)} by {word}" for word, number in counts)
        return f"Its trials disagree on what limited them: {shown}."
    text = _sentence(_pooled([facts for facts, one in zip(every, limits, strict=True) if one == found]), found)
    return f"{text[:-1]} ({count} of {len(every)} trials)."


def mean_split(every: Sequence[Facts]) -> TimeSplit | None:
    """The mean over all trials that have enough samples; None without any."""
    splits = [facts.time_split.by_kind() for facts in every if facts.time_split is not None]
    return TimeSplit(**{kind: fmean(split[kind] for split in splits) for kind in splits[0]}) if splits else None


def _pooled(every: Sequence[Facts]) -> Facts:
    """The means of the figures. Goodput is that of all content in all the time, so that figures fit each other."""
    seconds = fmean(facts.seconds for facts in every)
    drops = [facts.queue_drops for facts in every if facts.queue_drops is not None]
    return replace(
        every[0],
        seconds=seconds,
        handshake_s=fmean(facts.handshake_s for facts in every),
        goodput_bps=fmean(facts.goodput_bps * facts.seconds for facts in every) / seconds,
        time_split=mean_split(every),
        retransmitted_packets=fmean(facts.retransmitted_packets for facts in every),
        loss=fmean(facts.loss for facts in every),
        rtt_s=fmean(facts.rtt_s for facts in every),
        busy_sender=fmean(facts.busy_sender for facts in every),
        busy_receiver=fmean(facts.busy_receiver for facts in every),
        queue_drops=fmean(drops) if drops else None,
    )


def _sentence(facts: Facts, found: Limit) -> str:
    if facts.time_split is None:
        handshake = f"{format_seconds(facts.handshake_s)} of it for the handshake"
        return f"It took {format_seconds(facts.seconds)}, {handshake}: too short for samples to tell what limited it."
    shares = {kind: value / facts.seconds for kind, value in facts.time_split.by_kind().items()}
    match found:
        case Limit.PROCESSOR:
            return _processor(facts, shares["cpu_bound_s"])
        case Limit.WAITING:
            share = _percent(shares["waiting_s"])
            return f"An endpoint waited for {share} of the time for a processor that another process used."
        case Limit.SHORTNESS:
            return _short(facts, facts.time_split)
        case Limit.WINDOW:
            needs = f"; filling the path takes {_bdp(facts)}" if facts.ideal_bps is not None and facts.rtt_s else ""
            share = _percent(shares["window_limited_s"])
            return f"The receive window or the send buffer limited it for {share} of the time{needs}."
        case Limit.PATH:
            return _filled(facts)
        case Limit.RECOVERY | Limit.CONGESTION:
            return _lossy(facts, shares)
        case Limit.ENDPOINTS:
            return "The path has no limit of its own: the two endpoints set the pace."
        case Limit.UNSEEN:
            return _unseen(facts, shares)
    share = format_fraction(round(facts.goodput_bps / (facts.ideal_bps or facts.goodput_bps), 2))
    return f"It reached {share} of what the path carries over {format_seconds(facts.seconds)}, without a single limit."


def _processor(facts: Facts, share: float) -> str:
    who = "sender" if facts.busy_sender >= facts.busy_receiver else "receiver"
    busy = max(facts.busy_sender, facts.busy_receiver)
    return (
        f"A processor was the limit for {_percent(share)} of the time: the {who} used one for {_percent(busy)} of it."
    )


def _short(facts: Facts, time_split: TimeSplit) -> str:
    named = (
        (time_split.handshake_s, "handshake"),
        (time_split.ramp_up_s, "ramp-up"),
        (time_split.tail_s, "waiting for the digest to be verified"),
    )
    parts = [f"{format_seconds(value)} of {word}" for value, word in named if value > 0.05 * facts.seconds]
    holds = f"; the path holds {_bdp(facts)} in a round trip" if facts.ideal_bps is not None and facts.rtt_s else ""
    return f"Start and end took most of its time: {_joined(parts)} out of {format_seconds(facts.seconds)}{holds}."


def _filled(facts: Facts) -> str:
    assert facts.ideal_bps is not None
    share = format_fraction(round(facts.goodput_bps / facts.ideal_bps, 2))
    carries = f"{share} of the {format_rate(_rounded(facts.ideal_bps))} of payload the path carries"
    wasted = facts.resent_share
    if wasted > max(_WASTED_SHARE, _WASTED_FACTOR * facts.loss):
        queue = f", and the queue dropped {facts.queue_drops:.0f}" if facts.queue_drops else ""
        lost = f" where the link loses {format_fraction(facts.loss)}{queue}"
        return f"It delivered {carries}, but sent {_percent(wasted)} of its packets again{lost}."
    resent = f", {facts.retransmitted_packets:.0f} packets resent" if facts.retransmitted_packets >= 1 else ""
    return f"It filled the path: {carries}{resent}."


def _lossy(facts: Facts, shares: dict[str, float]) -> str:
    parts = []
    if shares["recovery_s"] >= 0.01:
        parts.append(f"repaired losses for {_percent(shares['recovery_s'])} of the time")
    if shares["congestion_limited_s"] >= 0.01:
        name = facts.congestion_control or "the congestion control"
        of_what = "it" if parts else "the time"
        parts.append(f"was held back by {name} for {_percent(shares['congestion_limited_s'])} of {of_what}")
    text = f"It {' and '.join(parts)} ({facts.retransmitted_packets:.0f} packets resent)"
    model = _model(facts)
    if model:
        return f"{text}; {model}."
    if facts.loss == 0 and facts.queue_drops:
        return f"{text}; the link loses nothing, but its queue dropped {facts.queue_drops:.0f} packets."
    return f"{text}."


def _unseen(facts: Facts, shares: dict[str, float]) -> str:
    """What was sampled, where none of it explains the rate."""
    carries = "is not known" if facts.is_real else "changes"
    lacked = _percent(shares["cpu_bound_s"] + shares["waiting_s"])
    return (
        f"No limit shows at the sender, and what the path carries {carries}: it repaired losses for "
        f"{_percent(shares['recovery_s'])} of the time ({facts.retransmitted_packets:.0f} packets resent), met the "
        f"receive window or the send buffer for {_percent(shares['window_limited_s'])}, and was short of processor "
        f"time for {lacked}."
    )


def _model(facts: Facts) -> str:
    """What a model says; empty where it does not apply, or the measurement contradicts it."""
    response = loss_response_bps(facts.congestion_control, facts.loss, facts.rtt_s)
    if response is None or not facts.is_loss_even or facts.retransmitted_packets < _MODEL_LOSSES:
        return ""
    if facts.ideal_bps is not None and response >= facts.ideal_bps:
        return ""
    if not _MODEL_LOW * response <= facts.goodput_bps <= _MODEL_HIGH * response:
        return ""
    source = "Mathis et al." if facts.congestion_control in RENO_LIKE else "RFC 9438"
    return (
        f"at {format_fraction(facts.loss)} loss and {format_seconds(facts.rtt_s)}, {facts.congestion_control} reaches "
        f"about {format_rate(_rounded(response))} ({source}), and this was {format_rate(_rounded(facts.goodput_bps))}"
    )


def _bdp(facts: Facts) -> str:
    return format_size((facts.ideal_bps or 0.0) * facts.rtt_s / 8)


def _percent(share: float) -> str:
    return f"{min(1.0, share):.0%}"


def _rounded(rate_bps: float) -> float:
    return float(f"{rate_bps:.3g}")


def _joined(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts) or "start and end"
