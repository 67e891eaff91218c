"""Parse links as users write them, on a command line or in a scenario file.

    burst     1%:20ms  or  1%:20ms:50%      share of the time, mean length, loss in a burst (default 100%)
    queue     500kB | 50ms | codel | codel,1MB | codel,ecn | 200kB,ecn=5ms
    change    at 5s rate 20Mbit | at 5s rtt 80ms | at 5s loss 2% | at 5s blackout 300ms

Rate, RTT, queue and their changes apply to both directions. Impairments (loss, bursts, jitter, duplication, corruption,
reordering) apply from near to far only, unless `both_ways` is set: `--loss 1%` then costs a ping 1% and not 2%.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from toolkit.errors import UsageError, printable
from toolkit.netmodel.spec import BurstLoss, LinkChange, LinkSpec, PathSpec, QueueSpec
from toolkit.units import parse_duration_ns, parse_fraction, parse_rate, parse_size


@dataclass(frozen=True, slots=True)
class LinkText:
    """A link as its user wrote it, named like the options of `nettool link`; None for an option not given."""

    rate: str | None = None
    rate_back: str | None = None
    rtt: str | None = None
    delay_back: str | None = None
    jitter: str | None = None
    jitter_reorders: bool = False
    loss: str | None = None
    burst: str | None = None
    duplicate: str | None = None
    corrupt: str | None = None
    reorder: str | None = None
    queue: str | None = None
    trace: tuple[int, ...] | None = None
    trace_back: tuple[int, ...] | None = None
    changes: tuple[str, ...] = ()
    both_ways: bool = False
    mtu: int | None = None
    seed: int | None = None


def link_spec(text: LinkText, base: LinkSpec | None = None) -> LinkSpec:
    """`base` (default: a link without limits) with the options of `text` applied. Raises UsageError."""
    base = base or LinkSpec()
    forward = _with_limits(base.forward, text.rate, text.trace, text)
    is_asymmetric = text.rate_back is not None or text.trace_back is not None
    backward = _with_limits(
        base.backward,
        text.rate_back if is_asymmetric else text.rate,
        text.trace_back if is_asymmetric else text.trace,
        text,
    )
    impairments = _impairments(text)
    changes = [parse_change(change) for change in text.changes]
    forward = replace(forward, **impairments, changes=_merge_changes(forward, changes))
    if text.delay_back is not None:
        forward, backward = _with_delays(forward, backward, text)
    if text.both_ways:
        backward = replace(backward, **impairments, changes=_merge_changes(backward, changes))
    else:
        lossless = [replace(change, loss=None) for change in changes]
        backward = replace(backward, changes=_merge_changes(backward, lossless))
    return replace(
        base,
        forward=forward,
        backward=backward,
        mtu_bytes=base.mtu_bytes if text.mtu is None else text.mtu,
        seed=base.seed if text.seed is None else text.seed,
    )


def _with_limits(path: PathSpec, rate: str | None, trace: tuple[int, ...] | None, text: LinkText) -> PathSpec:
    if rate is not None and trace is not None:
        raise UsageError("a path has a rate or a delivery trace, not both: leave one of them out")
    if rate is not None:
        path = replace(path, rate_bps=parse_rate(rate), trace_ms=None)
    if trace is not None:
        path = replace(path, rate_bps=None, trace_ms=trace)
    if text.rtt is not None:
        path = replace(path, delay_ns=parse_duration_ns(text.rtt) // 2)
    if text.queue is not None:
        path = replace(path, queue=parse_queue(text.queue))
    return path


def _with_delays(forward: PathSpec, backward: PathSpec, text: LinkText) -> tuple[PathSpec, PathSpec]:
    """The two paths with the round trip divided as `delay_back` says."""
    rtt_ns, back_ns = forward.delay_ns + backward.delay_ns, parse_duration_ns(text.delay_back or "")
    if back_ns > rtt_ns:
        raise UsageError("`delay_back` is a part of the round trip: choose a time of at most `rtt`")
    return replace(forward, delay_ns=rtt_ns - back_ns), replace(backward, delay_ns=back_ns)


def _impairments(text: LinkText) -> dict[str, Any]:
    """The impairments in `text` as fields of a PathSpec."""
    impairments: dict[str, Any] = {
        name: parse_fraction(value)
        for name, value in (
            ("loss", text.loss),
            ("duplicate", text.duplicate),
            ("corrupt", text.corrupt),
            ("reorder", text.reorder),
        )
        if value is not None
    }
    if text.jitter is not None:
        impairments |= {"jitter_ns": parse_duration_ns(text.jitter), "jitter_reorders": text.jitter_reorders}
    elif text.jitter_reorders:
        raise UsageError("`jitter_reorders` needs `jitter`: add it, for example of 2ms")
    if text.burst is not None:
        impairments["burst"] = parse_burst(text.burst)
    return impairments


def _merge_changes(path: PathSpec, changes: Iterable[LinkChange]) -> tuple[LinkChange, ...]:
    return tuple(sorted((*path.changes, *changes), key=lambda change: change.at_ns))


def parse_burst(text: str) -> BurstLoss:
    """`SHARE:LENGTH` or `SHARE:LENGTH:LOSS`. Raises UsageError."""
    share, _, rest = text.partition(":")
    length, _, loss = rest.partition(":")
    if not length:
        shown = printable(text, 40)
        raise UsageError(f"'{shown}' is not a burst: write its share of the time and its mean length, like 1%:20ms")
    return BurstLoss.from_share(parse_fraction(share), parse_duration_ns(length), parse_fraction(loss) if loss else 1.0)


def parse_queue(text: str) -> QueueSpec:
    """Comma-separated: a size in bytes or in time, `codel`, `ecn` or `ecn=TIME`. Raises UsageError."""
    queue = QueueSpec()
    for word in text.split(","):
        name, _, value = word.strip().partition("=")
        if name == "codel" and not value:
            queue = replace(queue, codel=True)
        elif name == "ecn" and value:
            queue = replace(queue, ecn_threshold_ns=parse_duration_ns(value))
        elif name == "ecn":
            queue = replace(queue, ecn=True)
        elif name.endswith("s"):  # every unit of time ends in s, no unit of size does
            queue = replace(queue, limit_ns=parse_duration_ns(name))
        else:
            queue = replace(queue, limit_bytes=parse_size(name))
    if queue.ecn and not queue.codel:
        raise UsageError("'ecn' without a threshold needs CoDel: write codel,ecn, or a threshold like 200kB,ecn=5ms")
    return queue


def parse_change(text: str) -> LinkChange:
    """`at TIME WHAT VALUE`, the word `at` being optional. Raises UsageError."""
    words = text.split()
    if words and words[0] == "at":
        words = words[1:]
    if len(words) != 3:
        raise UsageError(f"'{printable(text, 40)}' is not a change: write it like 'at 5s rate 20Mbit'")
    at_ns = parse_duration_ns(words[0])
    match words[1]:
        case "rate":
            return LinkChange(at_ns, rate_bps=parse_rate(words[2]))
        case "rtt":
            return LinkChange(at_ns, delay_ns=parse_duration_ns(words[2]) // 2)
        case "loss":
            return LinkChange(at_ns, loss=parse_fraction(words[2]))
        case "blackout":
            return LinkChange(at_ns, blackout_ns=parse_duration_ns(words[2]))
    raise UsageError(f"'{printable(words[1], 40)}' cannot change: choose rate, rtt, loss or blackout")
