"""Where the time of a transfer went, and what loss lets a congestion control reach.

The time is split into kinds that sum to the whole, by the same rules for every transport:

    handshake       until the connection is established
    ramp-up         from then until the rate first reaches nine tenths of its later average
    cpu-bound       an endpoint uses a processor for more than 85% of an interval
    waiting         an endpoint uses a processor or waits for one, which others use, for more than 85% of an interval
    window-limited  the receive window, or the send buffer, limits the sender for most of an interval
    recovery        the sender repairs losses for most of an interval, and the rate is below four fifths of what the
                    path carries
    congestion-limited
                    the rate is below four fifths of what the path carries, and none of the above
    tail            from the acknowledgement of the last content to the verified digest
    steady          everything else

Each interval between two samples (`toolkit.comparison.sampler`) has one kind: the first that applies, in the order
handshake, tail, cpu-bound, waiting, window-limited, recovery, ramp-up, congestion-limited. Where it is not known what
the path carries, recovery needs no low rate, and nothing is congestion-limited.

What loss lets a congestion control reach follows the models of its own authors:

    Reno    W = sqrt(3 / (2 p))                       Mathis et al. 1997; RFC 9438 calls it the AIMD average
    CUBIC   W = (C (3 + b) / (4 (1 - b)))^(1/4) RTT^(3/4) / p^(3/4), and no less than Reno's
                                                      RFC 9438 section 5.1, with C = 0.4 and b = 0.7

W is in segments, p is the share of packets lost independently, and the rate is W segments per round trip. BBR has no
such response: it follows the delivery rate and tolerates some loss (draft-ietf-ccwg-bbr section 2.5).
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from toolkit.comparison.endpoint_result import EndpointResult, Samples
from toolkit.comparison.records import TimeSplit, TrialSeries

BUSY_SHARE = 0.85
MIN_SAMPLES = 20
"""Of a transfer with fewer samples nothing is said of what limited it."""
SEGMENT_BYTES = 1448
LOSS_BASED = frozenset(("cubic", "reno", "newreno"))
RENO_LIKE = frozenset(("reno", "newreno"))
_CUBIC_C, _CUBIC_BETA = 0.4, 0.7
_HELD_SHARE = 0.5
_RAMPED_SHARE = 0.9
_RECOVERED_SHARE = 0.8
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
    busy, wanted = _processor_shares(times, sender)
    if receiver is not None and len(receiver.t_s) > 1:
        own = _processor_shares(times, receiver)
        busy, wanted = np.maximum(busy, own[0]), np.maximum(wanted, own[1])
    held = _shares(times, np.asarray(sender.receiver_limited_s, np.float64))
    recovering = _shares(times, np.asarray(sender.recovering_s, np.float64)) > _HELD_SHARE
    kinds = dict.fromkeys(TimeSplit().by_kind(), 0.0)
    kinds["handshake_s"] = min(connect_s, seconds)
    for index in range(len(times) - 1):
        start, end = max(times[index], connect_s), min(times[index + 1], last_s)
        if end <= start:
            continue
        is_slow = ideal_bps is not None and rates[index] < _RECOVERED_SHARE * ideal_bps
        if busy[index] > BUSY_SHARE:
            kind = "cpu_bound_s"
        elif wanted[index] > BUSY_SHARE:
            kind = "waiting_s"
        elif held[index] > _HELD_SHARE:
            kind = "window_limited_s"
        elif recovering[index] and (is_slow or ideal_bps is None):
            kind = "recovery_s"
        elif start < ramped_s:
            kind = "ramp_up_s"
        else:
            kind = "congestion_limited_s" if is_slow else "steady_s"
        kinds[kind] += float(end - start)
    kinds["tail_s"] = max(0.0, seconds - max(last_s, connect_s))
    kinds["steady_s"] += max(0.0, seconds - sum(kinds.values()))
    return TimeSplit(**kinds)


def _processor_shares(times: _Array, samples: Samples) -> tuple[_Array, _Array]:
    """For each interval: the share of it on a processor, and that on a processor or waiting for one."""
    busy_s = np.interp(times, samples.t_s, samples.busy_s)
    waiting_s = np.interp(times, samples.t_s, samples.waiting_s) if samples.waiting_s else np.zeros_like(times)
    return _shares(times, busy_s), _shares(times, busy_s + waiting_s)


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


def loss_response_bps(congestion_control: str, loss: float, rtt_s: float) -> float | None:
    """Goodput in bits per second; None if loss does not bound this congestion control, or there is no loss."""
    if loss <= 0 or rtt_s <= 0 or congestion_control not in LOSS_BASED:
        return None
    window = math.sqrt(1.5 / loss)
    if congestion_control not in RENO_LIKE:
        cubic = (_CUBIC_C * (3 + _CUBIC_BETA) / (4 * (1 - _CUBIC_BETA))) ** 0.25 * (rtt_s / loss) ** 0.75
        window = max(window, cubic)
    return 8 * SEGMENT_BYTES * window / rtt_s * (1 - loss)
