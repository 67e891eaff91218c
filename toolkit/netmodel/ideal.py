"""The upper bound of goodput on a path, whatever the protocol.

A bottleneck of rate R delivers at most R x p/P x (1 - L), where p of the P bytes of a packet are payload and a share L
of the packets is lost behind the bottleneck. For a path that changes, the bound is summed over its periods; a blackout
contributes nothing. Round trips, handshakes and ramp-up are not deducted: the ideal sender runs at full rate from the
first nanosecond.
"""

from collections.abc import Iterator

from toolkit.netmodel.spec import LinkChange, PathSpec

_FOREVER_NS = float("inf")


def _periods(path: PathSpec) -> Iterator[tuple[float, float, float]]:
    """(start ns, end ns, bit/s of IP packets that arrive intact) from time 0 on; the last period never ends."""
    blackouts = [(c.at_ns, c.at_ns + c.blackout_ns) for c in path.changes if c.blackout_ns is not None]
    edges = sorted({0, *(c.at_ns for c in path.changes), *(end for _, end in blackouts)})
    changes: list[LinkChange] = list(path.changes)
    rate, loss = path.mean_rate_bps or 0.0, path.loss
    intact_share = (1 - path.corrupt) * (1 - (path.burst.mean_loss if path.burst else 0.0))
    for start, end in zip(edges, [*edges[1:], _FOREVER_NS], strict=True):
        while changes and changes[0].at_ns <= start:
            change = changes.pop(0)
            rate = rate if change.rate_bps is None else change.rate_bps
            loss = loss if change.loss is None else change.loss
        is_down = any(low <= start < high for low, high in blackouts)
        yield start, end, 0.0 if is_down else rate * (1 - loss) * intact_share


def ideal_ns(path: PathSpec, payload_share: float, size_bytes: int, start_ns: int) -> float | None:
    """The shortest time in which `size_bytes` of payload can cross from `start_ns` on.

    `payload_share` is the payload's part of an IP packet. None for a path without a bottleneck.
    """
    if path.mean_rate_bps is None:
        return None
    left_bits = 8.0 * size_bytes / payload_share
    for start, end, bps in _periods(path):
        begin = max(start, start_ns)
        if end <= begin:
            continue
        carried = bps * (end - begin) / 1e9 if bps else 0.0
        if carried >= left_bits:
            return begin + left_bits / bps * 1e9 - start_ns
        left_bits -= carried
    return _FOREVER_NS


def ideal_bytes(path: PathSpec, payload_share: float, start_ns: int, end_ns: int) -> float | None:
    """The most payload that can arrive between the two times; None for a path without a bottleneck."""
    if path.mean_rate_bps is None:
        return None
    bits = sum(
        bps * max(0.0, min(end, end_ns) - max(start, start_ns)) / 1e9 for start, end, bps in _periods(path) if bps
    )
    return bits / 8 * payload_share
