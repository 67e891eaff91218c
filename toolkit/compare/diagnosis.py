"""Where the time of a transfer went, in kinds that sum up to it; the same rules for every transport.

    handshake       until the connection stood
    ramp-up         from there until the rate first was nine tenths of what it later was on average
    cpu-bound       an end had work, on a processor or waiting for one, for more than 85% of an interval
    window-limited  the receiver's window, or the sender's buffer, held the sender for most of an interval
    recovery        losses were being repaired, and the rate was under four fifths of what the path carries; also the
                    way back up from there
    tail            from the acknowledgement of the last content to the verified digest
    steady          everything else

Each interval between two samples (`toolkit.compare.sampler`) is of one kind, the first in the order handshake, tail,
cpu-bound, window-limited, ramp-up, recovery that it meets.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("handshake_s", "ramp_up_s", "recovery_s", "window_limited_s", "cpu_bound_s", "tail_s", "steady_s")
BUSY_SHARE = 0.85
_HELD_SHARE = 0.5
_RAMPED_SHARE = 0.9
_FULL_SHARE = 0.8
_KEPT_POINTS = 200

Series = Mapping[str, Sequence[float]]
_Array = NDArray[np.float64]


def split(
    seconds: float,
    connect_s: float,
    payload_bytes: int,
    sender: Series,
    receiver: Series | None,
    ideal_bps: float | None,
    rtt_s: float,
) -> dict[str, float]:
    """Seconds of each of KINDS. `receiver` has times of the sender's clock; `ideal_bps` None for no known limit."""
    times = np.clip(np.asarray(sender["t_s"], np.float64), 0.0, seconds)
    delivered = scaled(sender["delivered_bytes"], payload_bytes)
    kinds = dict.fromkeys(KINDS, 0.0)
    kinds["handshake_s"] = min(connect_s, seconds)
    ramped_s = _ramped_s(times, delivered, connect_s, rtt_s)
    last_s = _last_s(times, delivered, payload_bytes, seconds)
    rates = _rates(times, delivered, max(rtt_s, 0.02))
    busy = _shares(times, np.asarray(sender["busy_s"], np.float64))
    if receiver is not None and len(receiver["t_s"]) > 1:
        theirs = np.interp(times, receiver["t_s"], receiver["busy_s"])
        busy = np.maximum(busy, _shares(times, theirs))
    held = _shares(times, np.asarray(sender["receiver_limited_s"], np.float64))
    recovering = _shares(times, np.asarray(sender["recovering_s"], np.float64)) > _HELD_SHARE
    resent = np.asarray(sender["retransmitted_packets"], np.float64)
    edges = [connect_s, last_s]
    for index in range(len(times) - 1):
        start, end = max(times[index], edges[0]), min(times[index + 1], edges[1])
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
        elif resent[index] and rates[index] < _FULL_SHARE * ideal_bps:
            kind = "recovery_s"
        else:
            kind = "steady_s"
        kinds[kind] += float(end - start)
    kinds["tail_s"] = max(0.0, seconds - max(last_s, connect_s))
    kinds["steady_s"] += max(0.0, seconds - sum(kinds.values()))
    return kinds


def busy_share(series: Series, seconds: float) -> float:
    """Of the whole time, how much an end had work."""
    return float(series["busy_s"][-1]) / seconds if seconds > 0 else 0.0


def kept(sender: Series, payload_bytes: int) -> dict[str, list[float | None]]:
    """The record's `series`: what plots need, thinned out."""
    count = len(sender["t_s"])
    chosen = np.unique(np.linspace(0, count - 1, min(count, _KEPT_POINTS)).astype(int))
    delivered = scaled(sender["delivered_bytes"], payload_bytes)
    return {
        "t_s": [round(float(sender["t_s"][i]), 4) for i in chosen],
        "delivered_bytes": [round(float(delivered[i])) for i in chosen],
        "congestion_window_bytes": [sender["congestion_window_bytes"][i] or None for i in chosen],
        "rtt_ms": [round(sender["rtt_ms"][i], 3) or None for i in chosen],
    }


def scaled(delivered: Sequence[float], payload_bytes: int) -> _Array:
    """Payload: what was acknowledged counts headers and messages, too, and comes to the payload in the end."""
    column = np.asarray(delivered, np.float64)
    return column * (payload_bytes / column[-1]) if column[-1] else column


def receiver_on(sender: Mapping[str, Any], receiver: Mapping[str, Any]) -> dict[str, list[float]] | None:
    """The receiver's series with the sender's time; None where they share no clock."""
    if "series" not in receiver or "started_s" not in receiver or "started_s" not in sender:
        return None
    shift_s = receiver["started_s"] - sender["started_s"]
    return {"t_s": [t + shift_s for t in receiver["series"]["t_s"]], "busy_s": list(receiver["series"]["busy_s"])}


def _shares(times: _Array, totals: _Array) -> _Array:
    return np.diff(totals) / np.maximum(np.diff(times), 1e-9)


def _rates(times: _Array, delivered: _Array, window_s: float) -> _Array:
    """For each interval the rate in bits per second over `window_s` that ends with it."""
    ends = times[1:]
    starts = np.maximum(ends - window_s, 0.0)
    return 8 * (delivered[1:] - np.interp(starts, times, delivered)) / np.maximum(ends - starts, 1e-9)


def _ramped_s(times: _Array, delivered: _Array, connect_s: float, rtt_s: float) -> float:
    """When it first was about as fast as it was on average from then on."""
    rates = _rates(times, delivered, max(rtt_s, 0.01))
    left_s = times[-1] - times[1:]
    rest = 8 * (delivered[-1] - delivered[1:]) / np.maximum(left_s, 1e-9)
    is_fast = (rates >= _RAMPED_SHARE * rest) & (delivered[1:] > 0) & (times[1:] > connect_s)
    return float(times[1:][np.argmax(is_fast)]) if is_fast.any() else float(times[-1])


def _last_s(times: _Array, delivered: _Array, payload_bytes: int, seconds: float) -> float:
    """When the last content was acknowledged."""
    is_done = delivered >= 0.999 * payload_bytes
    return float(times[np.argmax(is_done)]) if is_done.any() else seconds
