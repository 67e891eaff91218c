"""Why a transfer took the time that it took, in one sentence that a person understands."""

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.compare.theory import loss_response_bps, model_name
from toolkit.units import format_fraction, format_rate, format_seconds, format_size

_MATTERS = 0.5
_FULL = 0.85


@dataclass(frozen=True, slots=True)
class Facts:
    """What the sentence is made of.

    reasons:      `toolkit.compare.diagnosis.KINDS`; they sum to `seconds`
    ideal_bps, loss, rtt_s: of the path; None, 0 and the measured one where it is not ours
    busy_sender, busy_receiver: share of the time that an end had work
    """

    congestion_control: str
    seconds: float
    goodput_bps: float
    reasons: Mapping[str, float]
    retransmitted_packets: int
    ideal_bps: float | None
    loss: float
    rtt_s: float
    busy_sender: float
    busy_receiver: float


def sentence(facts: Facts) -> str:
    """The largest part of the time, with the figures that show it."""
    shares = {kind: value / facts.seconds for kind, value in facts.reasons.items()} if facts.seconds else {}
    start = sum(shares.get(kind, 0.0) for kind in ("handshake_s", "ramp_up_s", "tail_s"))
    if shares.get("cpu_bound_s", 0.0) >= _MATTERS:
        return _cpu_bound(facts, shares["cpu_bound_s"])
    if start > _MATTERS:
        return _short(facts)
    if shares.get("window_limited_s", 0.0) >= _MATTERS:
        return _window_limited(facts, shares["window_limited_s"])
    if facts.ideal_bps is not None and facts.goodput_bps >= _FULL * facts.ideal_bps:
        share = format_fraction(round(facts.goodput_bps / facts.ideal_bps, 2))
        resent = f", resending {facts.retransmitted_packets} packets" if facts.retransmitted_packets else ""
        return f"It filled the path: {share} of the {format_rate(facts.ideal_bps)} of payload that it carries{resent}."
    if shares.get("recovery_s", 0.0) >= 0.25:
        return _lossy(facts, shares["recovery_s"])
    largest = max(shares, key=lambda kind: shares[kind], default="steady_s")
    if facts.ideal_bps is None:
        return "No limit of the path's showed: the two ends set the pace."
    words = {
        "ramp_up_s": "ramping up",
        "recovery_s": "recovering from loss",
        "tail_s": "its tail",
        "cpu_bound_s": "work",
    }
    part = f", most of it in {words[largest]}" if largest in words else ""
    share = format_fraction(round(facts.goodput_bps / facts.ideal_bps, 2))
    return f"It reached {share} of what the path carries over {format_seconds(facts.seconds)}{part}."


def _cpu_bound(facts: Facts, share: float) -> str:
    who = "sender" if facts.busy_sender >= facts.busy_receiver else "receiver"
    busy = min(1.0, max(facts.busy_sender, facts.busy_receiver))
    return (
        f"A processor was the limit for {_percent(share)} of the time: the {who} had work for {_percent(busy)} of it."
    )


def _short(facts: Facts) -> str:
    reasons = facts.reasons
    parts = [
        f"{format_seconds(reasons[kind])} of {word}"
        for kind, word in (
            ("handshake_s", "handshake"),
            ("ramp_up_s", "ramp-up"),
            ("tail_s", "waiting for the verdict"),
        )
        if reasons.get(kind, 0.0) > 0.05 * facts.seconds
    ]
    bdp = ""
    if facts.ideal_bps is not None and facts.rtt_s:
        bdp = f"; the path holds {format_size(facts.ideal_bps * facts.rtt_s / 8)} in a round trip"
    return f"It was over before it was up to speed: {_joined(parts)} of {format_seconds(facts.seconds)}{bdp}."


def _window_limited(facts: Facts, share: float) -> str:
    needs = ""
    if facts.ideal_bps is not None and facts.rtt_s:
        needs = f"; to fill the path it takes {format_size(facts.ideal_bps * facts.rtt_s / 8)}"
    return f"The receiver's window or the sender's buffer held it for {_percent(share)} of the time{needs}."


def _lossy(facts: Facts, share: float) -> str:
    resent = f"{facts.retransmitted_packets} packets resent"
    text = f"Loss held it down for {_percent(share)} of the time ({resent})"
    response = loss_response_bps(facts.congestion_control, facts.loss, facts.rtt_s)
    if response is not None and (facts.ideal_bps is None or response < facts.ideal_bps):
        carries = f" of the {format_rate(facts.ideal_bps)} that the path carries" if facts.ideal_bps else ""
        return (
            f"{text}: {facts.congestion_control} at {format_fraction(facts.loss)} loss and "
            f"{format_seconds(facts.rtt_s)} is good for {format_rate(_rounded(response))}{carries} "
            f"({model_name(facts.congestion_control)}), and reached {format_rate(_rounded(facts.goodput_bps))}."
        )
    if facts.loss == 0:
        return f"{text}: the path loses nothing by itself, so its queue overflowed."
    return f"{text}."


def _percent(share: float) -> str:
    return f"{min(1.0, share):.0%}"


def _rounded(rate_bps: float) -> float:
    return float(f"{rate_bps:.3g}")


def _joined(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts) or "start and end"
