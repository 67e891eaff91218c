"""The record of a quick check of a link, made before anything that crosses the link is believed."""

import statistics

from toolkit.comparison.paths import BenchPath
from toolkit.comparison.records import Probe, RoundTrips
from toolkit.comparison.stats import quantile
from toolkit.emulator.check import QUICK_CHECK, LinkCheck, check
from toolkit.emulator.link import Link


def probe(path: BenchPath, link: Link) -> Probe:
    """Check an open link from the sender to the receiver; check again if it misses its specification.

    The second check is for a host that was busy during the first. Raises NettoolError if the link closes meanwhile.
    """
    result = check(link, QUICK_CHECK)
    if result.is_met is False and not link.spec.is_bare:
        result = check(link, QUICK_CHECK)
    return _record(path, result, link)


def _record(path: BenchPath, result: LinkCheck, link: Link) -> Probe:
    """A LAN without a rate has no specification to meet: it is as fast as this kernel."""
    (forward,) = result.directions
    is_met = None if link.spec.is_bare else result.is_met
    text = "; ".join(f"{f.metric}: {f.measured} (requested: {f.requested})" for f in result.findings)
    if link.notice is not None:
        text = f"{link.notice}; {text}"
    rtt_ms = None
    if result.round_trips_ns:
        round_trips_ms = [round_trip_ns / 1e6 for round_trip_ns in result.round_trips_ns]
        rtt_ms = RoundTrips(statistics.median(round_trips_ms), quantile(round_trips_ms, 0.99))
    return Probe(
        path=path.label,
        rate_bps=forward.rate_bps,
        rtt_ms=rtt_ms,
        loss=forward.loss,
        emulator_cpu_share=forward.cpu_share,
        is_met=is_met,
        text=f"{text}. NOT met: {result.verdict}" if is_met is False else text,
        bottleneck=link.bottleneck(),
    )
