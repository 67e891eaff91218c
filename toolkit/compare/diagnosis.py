"""Why a transfer took the time it took: where the time went, and one sentence that explains it.

The time is split into kinds that sum to the whole, by the same rules for every transport:

    handshake       until the connection is established
    ramp-up         from then until the rate first reaches nine tenths of its later average
    cpu-bound       an endpoint has work, on a processor or waiting for one, for more than 85% of an interval
    window-limited  the receive window, or the send buffer, limits the sender for most of an interval
    recovery        losses are being repaired and the rate is below four fifths of what the path carries, or is
                    rising again from there
    tail            from the acknowledgement of the last content to the verified digest
    steady          everything else

Each interval between two samples (`toolkit.compare.sampler`) has one kind: the first that applies, in the order
handshake, tail, cpu-bound, window-limited, ramp-up, recovery.

What loss lets a congestion control reach follows the models of its own authors:

    Reno    W = sqrt(3 / (2 p))                       Mathis et al. 1997; RFC 9438 calls it the AIMD average
    CUBIC   W = (C (3 + b) / (4 (1 - b)))^(1/4) RTT^(3/4) / p^(3/4), and no less than Reno's
                                                      RFC 9438 section 5.1, with C = 0.4 and b = 0.7

W is in segments, p is the share of packets lost independently, and the rate is W segments per round trip. BBR has no
such response: it follows the delivery rate and tolerates some loss (draft-ietf-ccwg-bbr section 2.5).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from toolkit.compare.endpoint_result import EndpointResult, Samples
from toolkit.compare.records import TimeSplit, TrialSeries
from toolkit.units import format_fraction, format_rate, format_seconds, format_size

BUSY_SHARE = 0.85
MIN_SAMPLES = 20
"""Of a transfer with fewer samples nothing is said of what limited it."""
SEGMENT_BYTES = 1448
LOSS_BASED = frozenset(("cubic", "reno", "newreno"))
_RENO_LIKE = frozenset(("reno", "newreno"))
_CUBIC_C, _CUBIC_BETA = 0.4, 0.7
_HELD_SHARE = 0.5
_RAMPED_SHARE = 0.9
_RECOVERED_SHARE = 0.8
_DOMINANT_SHARE = 0.5
_LOSSY_SHARE = 0.25
_FILLED_SHARE = 0.85
_KEPT_POINTS = 200

_Array = NDArray[np.float64]


def split_time(
    seconds: float,
    connect_s: float,
    payload_bytes: int,
    sender: Samples,
    receiver: Samples | None,
    ideal_bps: float | None,
    rtt_s: float,
) -> TimeSplit:
    """Split `seconds` into kinds.

    receiver:  with times on the sender's clock; None where it is not known
    ideal_bps: payload rate of the path; None without a limit
    """
    times = np.clip(np.asarray(sender.t_s, np.float64), 0.0, seconds)
    delivered = scale_to_payload(sender.delivered_bytes, payload_bytes)
    ramped_s = _ramped_s(times, delivered, connect_s, rtt_s)
    last_s = _last_s(times, delivered, payload_bytes, seconds)
    rates = _rates(times, delivered, max(rtt_s, 0.02))
    busy = _shares(times, np.asarray(sender.busy_s, np.float64))
    if receiver is not None and len(receiver.t_s) > 1:
        receiver_busy_s = np.interp(times, receiver.t_s, receiver.busy_s)
        busy = np.maximum(busy, _shares(times, receiver_busy_s))
    held = _shares(times, np.asarray(sender.receiver_limited_s, np.float64))
    recovering = _shares(times, np.asarray(sender.recovering_s, np.float64)) > _HELD_SHARE
    kinds = dict.fromkeys(TimeSplit().by_kind(), 0.0)
    kinds["handshake_s"] = min(connect_s, seconds)
    for index in range(len(times) - 1):
        start, end = max(times[index], connect_s), min(times[index + 1], last_s)
        if end <= start:
            continue
        if busy[index] > BUSY_SHARE:
            kind = "cpu_bound_s"
        elif held[index] > _HELD_SHARE:
            kind = "window_limited_s"
        elif start < ramped_s:
            kind = "ramp_up_s"
        elif ideal_bps is None:
            kind = "recovery_s" if recovering[index] else "steady_s"
        elif sender.retransmitted_packets[index] and rates[index] < _RECOVERED_SHARE * ideal_bps:
            kind = "recovery_s"
        else:
            kind = "steady_s"
        kinds[kind] += float(end - start)
    kinds["tail_s"] = max(0.0, seconds - max(last_s, connect_s))
    kinds["steady_s"] += max(0.0, seconds - sum(kinds.values()))
    return TimeSplit(**kinds)


def busy_share(samples: Samples, seconds: float) -> float:
    """Share of the whole time for which an endpoint had work."""
    return samples.busy_s[-1] / seconds if seconds > 0 else 0.0


def thinned(sender: Samples, payload_bytes: int) -> TrialSeries:
    """The series of a trial's record: what plots need, at about 200 points."""
    count = len(sender.t_s)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _KEPT_POINTS)).astype(int))
    delivered = scale_to_payload(sender.delivered_bytes, payload_bytes)
    return TrialSeries(
        t_s=[round(float(sender.t_s[i]), 4) for i in chosen],
        delivered_bytes=[round(float(delivered[i])) for i in chosen],
        congestion_window_bytes=[sender.congestion_window_bytes[i] or None for i in chosen],
        rtt_ms=[round(sender.rtt_ms[i], 3) or None for i in chosen],
    )


def scale_to_payload(delivered: Sequence[float], payload_bytes: int) -> _Array:
    """The acknowledged bytes include headers and messages: scale them so that they end at the payload's size."""
    column = np.asarray(delivered, np.float64)
    return column * (payload_bytes / column[-1]) if column[-1] else column


def on_sender_clock(sender: EndpointResult, receiver: EndpointResult) -> Samples | None:
    """The receiver's samples with the sender's time; None if the two share no clock."""
    if receiver.series is None or receiver.started_s is None or sender.started_s is None:
        return None
    shift_s = receiver.started_s - sender.started_s
    return replace(receiver.series, t_s=[t + shift_s for t in receiver.series.t_s])


def _shares(times: _Array, totals: _Array) -> _Array:
    return np.diff(totals) / np.maximum(np.diff(times), 1e-9)


def _rates(times: _Array, delivered: _Array, window_s: float) -> _Array:
    """For each interval, the rate in bits per second over the `window_s` that end with it."""
    ends = times[1:]
    starts = np.maximum(ends - window_s, 0.0)
    return 8 * (delivered[1:] - np.interp(starts, times, delivered)) / np.maximum(ends - starts, 1e-9)


def _ramped_s(times: _Array, delivered: _Array, connect_s: float, rtt_s: float) -> float:
    """When the rate first came close to the average of the time that follows."""
    rates = _rates(times, delivered, max(rtt_s, 0.01))
    left_s = times[-1] - times[1:]
    rest = 8 * (delivered[-1] - delivered[1:]) / np.maximum(left_s, 1e-9)
    is_fast = (rates >= _RAMPED_SHARE * rest) & (delivered[1:] > 0) & (times[1:] > connect_s)
    return float(times[1:][np.argmax(is_fast)]) if is_fast.any() else float(times[-1])


def _last_s(times: _Array, delivered: _Array, payload_bytes: int, seconds: float) -> float:
    """When the last content was acknowledged."""
    is_done = delivered >= 0.999 * payload_bytes
    return float(times[np.argmax(is_done)]) if is_done.any() else seconds


@dataclass(frozen=True, slots=True)
class Facts:
    """What the explanation is made from.

    reasons:      they sum to `seconds`
    ideal_bps, loss, rtt_s: of the path; None, 0 and the measured round trip on a path that nettool does not create
    busy_sender, busy_receiver: share of the time for which an endpoint had work
    """

    congestion_control: str
    seconds: float
    goodput_bps: float
    reasons: TimeSplit
    retransmitted_packets: int
    ideal_bps: float | None
    loss: float
    rtt_s: float
    busy_sender: float
    busy_receiver: float


def explanation(facts: Facts) -> str:
    """One sentence that names the largest part of the time, with the figures that show it."""
    shares = {kind: value / facts.seconds for kind, value in facts.reasons.by_kind().items()}
    if shares["cpu_bound_s"] >= _DOMINANT_SHARE:
        return _cpu_bound(facts, shares["cpu_bound_s"])
    if facts.reasons.startup_s > _DOMINANT_SHARE * facts.seconds:
        return _short(facts)
    if shares["window_limited_s"] >= _DOMINANT_SHARE:
        return _window_limited(facts, shares["window_limited_s"])
    if facts.ideal_bps is not None and facts.goodput_bps >= _FILLED_SHARE * facts.ideal_bps:
        share = format_fraction(round(facts.goodput_bps / facts.ideal_bps, 2))
        resent = f", {facts.retransmitted_packets} packets resent" if facts.retransmitted_packets else ""
        return f"It filled the path: {share} of the {format_rate(facts.ideal_bps)} of payload the path carries{resent}."
    if shares["recovery_s"] >= _LOSSY_SHARE:
        return _lossy(facts, shares["recovery_s"])
    if facts.ideal_bps is None:
        return "The path showed no limit: the two endpoints set the pace."
    words = {
        "ramp_up_s": "ramp-up",
        "recovery_s": "loss recovery",
        "tail_s": "its tail",
        "cpu_bound_s": "waiting for a processor",
    }
    largest = max(shares, key=lambda kind: shares[kind])
    part = f", most of it in {words[largest]}" if largest in words else ""
    share = format_fraction(round(facts.goodput_bps / facts.ideal_bps, 2))
    return f"It reached {share} of what the path carries over {format_seconds(facts.seconds)}{part}."


def _cpu_bound(facts: Facts, share: float) -> str:
    who = "sender" if facts.busy_sender >= facts.busy_receiver else "receiver"
    busy = min(1.0, max(facts.busy_sender, facts.busy_receiver))
    return (
        f"A processor was the limit for {_percent(share)} of the time: the {who} was busy for {_percent(busy)} of it."
    )


def _short(facts: Facts) -> str:
    reasons = facts.reasons
    named = (
        (reasons.handshake_s, "handshake"),
        (reasons.ramp_up_s, "ramp-up"),
        (reasons.tail_s, "waiting for the digest to be verified"),
    )
    parts = [f"{format_seconds(value)} of {word}" for value, word in named if value > 0.05 * facts.seconds]
    bdp = ""
    if facts.ideal_bps is not None and facts.rtt_s:
        bdp = f"; the path holds {format_size(facts.ideal_bps * facts.rtt_s / 8)} in a round trip"
    return f"It ended before it reached full speed: {_joined(parts)} out of {format_seconds(facts.seconds)}{bdp}."


def _window_limited(facts: Facts, share: float) -> str:
    needs = ""
    if facts.ideal_bps is not None and facts.rtt_s:
        needs = f"; filling the path takes {format_size(facts.ideal_bps * facts.rtt_s / 8)}"
    return f"The receive window or the send buffer limited it for {_percent(share)} of the time{needs}."


def _lossy(facts: Facts, share: float) -> str:
    text = f"Loss recovery slowed it for {_percent(share)} of the time ({facts.retransmitted_packets} packets resent)"
    response = loss_response_bps(facts.congestion_control, facts.loss, facts.rtt_s)
    if response is not None and (facts.ideal_bps is None or response < facts.ideal_bps):
        carries = f" of the {format_rate(facts.ideal_bps)} the path carries" if facts.ideal_bps else ""
        model = "Mathis et al." if facts.congestion_control in _RENO_LIKE else "RFC 9438"
        return (
            f"{text}: at {format_fraction(facts.loss)} loss and {format_seconds(facts.rtt_s)}, "
            f"{facts.congestion_control} can reach {format_rate(_rounded(response))}{carries} ({model}); "
            f"it reached {format_rate(_rounded(facts.goodput_bps))}."
        )
    if facts.loss == 0:
        return f"{text}: the path itself loses nothing, so its queue overflowed."
    return f"{text}."


def loss_response_bps(congestion_control: str, loss: float, rtt_s: float) -> float | None:
    """Goodput in bits per second; None if loss does not bound this congestion control, or there is no loss."""
    if loss <= 0 or rtt_s <= 0 or congestion_control not in LOSS_BASED:
        return None
    window = math.sqrt(1.5 / loss)
    if congestion_control not in _RENO_LIKE:
        cubic = (_CUBIC_C * (3 + _CUBIC_BETA) / (4 * (1 - _CUBIC_BETA))) ** 0.25 * (rtt_s / loss) ** 0.75
        window = max(window, cubic)
    return 8 * SEGMENT_BYTES * window / rtt_s * (1 - loss)


def expected_bps(congestion_control: str | None, ideal_bps: float, loss: float, rtt_s: float) -> float:
    """Estimated goodput, for planning: what loss allows, and no more than the path carries."""
    allowed = loss_response_bps(congestion_control or "", loss, rtt_s)
    return min(ideal_bps, allowed) if allowed is not None else 0.85 * ideal_bps


def _percent(share: float) -> str:
    return f"{min(1.0, share):.0%}"


def _rounded(rate_bps: float) -> float:
    return float(f"{rate_bps:.3g}")


def _joined(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts) or "start and end"
