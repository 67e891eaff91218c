"""What a path to another machine can do, measured by two short transfers each way over UDP before the first trial.

The first lets BBR find the rate. The second sends a quarter of that rate, so that it fills no queue by itself: what is
lost then is lost by the path, or beside other traffic. Loss is what the sender had to repeat, without what a socket of
the receiving host dropped. Each direction has a rate and a loss of its own, from content that went this way.

From rate and round trip of the direction of the trials follows how long a timed trial should take (`fitting_time_s`).
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from toolkit.comparison.endpoint_result import EndpointResult, Samples
from toolkit.comparison.forecast import Forecast
from toolkit.comparison.paths import BenchPath
from toolkit.comparison.plan import Plan
from toolkit.comparison.records import Probe, RoundTrips
from toolkit.comparison.stats import Estimate, proportion
from toolkit.comparison.timed import until
from toolkit.errors import NettoolError
from toolkit.units import format_duration_ns, format_fraction, format_rate, rate_of

_LEAST_S, _MOST_S, _ROUND_TRIPS = 0.5, 5.0, 20
"""A probe's transfer lasts so many round trips, within these limits: BBR needs some ten to fill a path."""
_SLOW_SHARE = 0.25
_INITIAL_WINDOW_BYTES = 14_600
_RAMP_UPS = 10
_LEAST_TIME_S, _MOST_TIME_S = 1.0, 10.0
_PILOT_SHARE = 0.6
"""How much of a budget the pilot may take."""


Transfer = Callable[[float | None, float], EndpointResult]
"""Moves content over UDP at this rate, or as BBR likes without one, for this time.

Returns what the sender reports, with samples until its end. Raises NettoolError.
"""


class _Figures(NamedTuple):
    """What two transfers show of one direction; None where they do not."""

    rate_bps: float | None = None
    loss: Estimate | None = None
    rtt_ms: float | None = None


def probe_remote(path: BenchPath, rtt_ms: float | None, transfer: Transfer, transfer_back: Transfer) -> Probe:
    """Measure a path in both directions.

    rtt_ms: what the first exchange took
    transfer, transfer_back: in the direction of the trials, and in the other one
    """
    seconds = min(_MOST_S, max(_LEAST_S, _ROUND_TRIPS * (rtt_ms or 0.0) / 1e3))
    there, error = _measured(transfer, seconds)
    back = _Figures()
    if error is None:
        back, error = _measured(transfer_back, seconds)
    rtt_ms = there.rtt_ms or back.rtt_ms or rtt_ms
    ways = ((back, "from here"), (there, "to here")) if path.is_reverse else ((there, "from here"), (back, "to here"))
    found = [", ".join(f"{format_rate(way.rate_bps)} {name}" for way, name in ways if way.rate_bps)]
    found += [f"round trip {format_duration_ns(rtt_ms * 1e6)}"] if rtt_ms is not None else []
    losses = [f"{_in_words(way.loss)} {name}" for way, name in ways if way.loss is not None]
    found += [f"loss {' and '.join(losses)}"] if losses else []
    what = "the rest" if there.rate_bps else "UDP"
    found += [f"{what} could not be measured ({error})"] if error is not None else []
    return Probe(
        path=path.label,
        rate_bps=there.rate_bps,
        rate_back_bps=back.rate_bps,
        rtt_ms=RoundTrips(rtt_ms, rtt_ms) if rtt_ms is not None else None,
        loss=there.loss.value if there.loss is not None else None,
        loss_back=back.loss.value if back.loss is not None else None,
        emulator_cpu_share=None,
        is_met=None,
        text="; ".join(filter(None, found)) or "not measured",
    )


def fitting_time_s(plan: Plan, probe: Probe) -> float:
    """The time of a trial on this path: ten times as long as slow start takes, as far as the budget allows."""
    rtt_s = probe.rtt_ms.median / 1e3 if probe.rtt_ms is not None else 0.0
    window_bytes = (probe.rate_bps or 0.0) * rtt_s / 8
    ramp_up_s = rtt_s * math.log2(1 + window_bytes / _INITIAL_WINDOW_BYTES)
    wanted_s = min(_MOST_TIME_S, max(_LEAST_TIME_S, _RAMP_UPS * ramp_up_s))
    if plan.budget_s is None:
        return round(wanted_s, 1)
    around_s = max(map(Forecast(plan).around_s, plan.all_settings))
    affordable_s = _PILOT_SHARE * plan.budget_s / plan.trial_count - around_s
    return round(max(_LEAST_TIME_S, min(wanted_s, affordable_s)), 1)


def _delivery_bps(sender: EndpointResult, time_s: float) -> float | None:
    """The rate while content was made up; if a busy machine saw none in that time, the rate until the end."""
    samples = sender.series
    if samples is None or not samples.t_s:
        return None
    return _rate_bps(until(samples, time_s)) or _rate_bps(samples)


def _rate_bps(samples: Samples) -> float | None:
    """The rate in the second half, when slow start is over, or the rate of the whole if that is higher.

    It is higher if one of the machines was too busy in the second half.
    """
    half = bisect_left(samples.t_s, samples.t_s[-1] / 2)
    rates_bps = []
    for start in (0, half):
        seconds = samples.t_s[-1] - samples.t_s[start]
        size_bytes = int(samples.delivered_bytes[-1] - samples.delivered_bytes[start])
        rates_bps.append((rate_of(size_bytes, seconds) or 0.0) if seconds else 0.0)
    return max(rates_bps) or None


def _measured(transfer: Transfer, seconds: float) -> tuple[_Figures, NettoolError | None]:
    """What two transfers show of one direction, and the error that ended them early."""
    found = _Figures()
    try:
        rate_bps = _delivery_bps(transfer(None, seconds), seconds)
        if rate_bps:
            found = _Figures(rate_bps)
            sender = transfer(_SLOW_SHARE * rate_bps, seconds)
            found = _Figures(rate_bps, _loss(sender), sender.rtt_min_ms)
    except NettoolError as error:
        return found, error
    return found, None


def _loss(sender: EndpointResult) -> Estimate | None:
    lost, spurious, dropped = (
        int(sender.counters.get(name, 0)) for name in ("packets_lost", "packets_spuriously_lost", "peer_socket_drops")
    )
    return _share(lost - spurious - dropped, sender.packets_sent)


def _share(lost: int, sent: int | None) -> Estimate | None:
    """None if nothing was sent, or the other machine reports less than that."""
    return proportion(min(max(0, lost), sent), sent) if sent is not None and sent > 0 else None


def _in_words(loss: Estimate) -> str:
    assert loss.interval is not None
    low, high = (format_fraction(float(f"{end:.1g}")) for end in loss.interval)
    return f"{format_fraction(float(f'{loss.value:.2g}'))} ({low} to {high})"
