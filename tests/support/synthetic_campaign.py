"""Campaigns with a known truth, for testing the statistics, the tables and the plots.

The noise resembles that of real campaigns: a random factor for each trial, a factor that the trials of a block share,
and an occasional trial that something else disturbed. Everything is drawn from the seed, and host and times are fixed,
so that the same arguments give the same campaign everywhere.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.host_info import HostInfo
from toolkit.comparison.packet_counts import DirectionAudit, PacketAudit
from toolkit.comparison.records import (
    CONTROL_SUFFIX,
    Campaign,
    DelaySummary,
    PathRecord,
    Probe,
    Results,
    RoundTrips,
    Setting,
    TimeSplit,
    Trial,
    TrialCost,
    TrialSeries,
)

HOST = HostInfo("0.1.0", "3.11.2", "Linux", "6.1", "x86_64", "A Processor", 2, 8 << 30, 0.1)
_POINTS = 60


@dataclass(frozen=True, slots=True)
class Truth:
    """What a synthetic campaign is made from.

    goodput_bps:   (transport, path) -> true goodput; transports are named like `tcp-cubic`
    repeats:       number of blocks
    noise:         standard deviation of the logarithm of a trial's own factor
    drift:         the same for the factor that the trials of a block share
    disturbed:     share of trials that take up to twice their time
    """

    goodput_bps: Mapping[tuple[str, str], float]
    baseline: str = "tcp-cubic"
    sizes: Sequence[int] = (100_000_000,)
    repeats: int = 10
    noise: float = 0.03
    drift: float = 0.10
    disturbed: float = 0.0
    rtt_ms: float = 40.0
    rate_bps: float = 100e6
    with_control: bool = True


def make_results(truth: Truth, seed: int) -> Results:
    """A whole campaign; the same seed gives the same campaign."""
    generator = random.Random(seed)
    labels = list(dict.fromkeys(transport for transport, _ in truth.goodput_bps))
    if truth.with_control:
        labels.append(truth.baseline + CONTROL_SUFFIX)
    paths = list(dict.fromkeys(path for _, path in truth.goodput_bps))
    campaign = Campaign(
        name="link",
        started_unix_s=1_700_000_000.0,
        seed=seed,
        repeats=truth.repeats,
        baseline=truth.baseline,
        transports={label: _setting(label) for label in labels},
        paths={path: _path(path, truth, number) for number, path in enumerate(paths)},
        sizes=list(truth.sizes),
        storage="/dev/shm (memory)",
        host=HOST,
        method=["Synthetic figures from tests.support.synthetic_campaign."],
        command=["nettool", "bench", "link"],
    )
    trials: list[Trial] = []
    for path in paths:
        for block in range(-1, truth.repeats):
            cells = [(label, size) for label in labels for size in truth.sizes]
            drift = generator.gauss(0, truth.drift)
            for label, size in generator.sample(cells, len(cells)):
                true_bps = truth.goodput_bps[label.removesuffix(CONTROL_SUFFIX), path]
                goodput_bps = true_bps * 2.718281828 ** (drift + generator.gauss(0, truth.noise))
                if generator.random() < truth.disturbed:
                    goodput_bps /= 1 + generator.random()
                trials.append(_trial(truth, path, block, len(trials), label, size, goodput_bps))
    rtt_ms = RoundTrips(truth.rtt_ms + 0.1, truth.rtt_ms + 0.6)
    probes = [Probe(path, truth.rate_bps, rtt_ms, 0.0, 0.1, True, "as specified") for path in paths]
    return Results(campaign, trials, probes)


def _setting(label: str) -> Setting:
    transport, _, congestion_control = label.removesuffix(CONTROL_SUFFIX).partition("-")
    return Setting(label, transport, congestion_control)


def _path(label: str, truth: Truth, number: int) -> PathRecord:
    loss = (0.0, 0.001, 0.01, 0.05)[number % 4]
    return PathRecord(
        kind="link",
        rate_bps=truth.rate_bps,
        rtt_ms=truth.rtt_ms,
        loss=loss,
        jitter_ms=0.0,
        text=label,
        seed=1,
        ideal_bps=truth.rate_bps * 1448 / 1500 * (1 - loss),
    )


def _trial(truth: Truth, path: str, block: int, position: int, label: str, size: int, goodput_bps: float) -> Trial:
    seconds = 8 * size / goodput_bps
    rtt_s = truth.rtt_ms / 1e3
    start_s = min(rtt_s, seconds / 4)
    times_s = [seconds * (point + 1) / _POINTS for point in range(_POINTS)]
    endpoint = EndpointResult(size, cpu_seconds=size * 4e-10, digest="0" * 32, goodput_bps=goodput_bps)
    retransmitted = size // 100_000
    sent = size // 1448 + retransmitted
    arrived = sent - retransmitted
    forward = DirectionAudit(sent, sent, retransmitted, delivered=arrived, received=arrived)
    return Trial(
        block=block,
        position=position,
        transport=label,
        path=path,
        payload_bytes=size,
        verified=True,
        seconds=seconds,
        goodput_bps=goodput_bps,
        sender=endpoint,
        receiver=endpoint,
        ledger=PacketAudit(forward, DirectionAudit(0, received=0), wire_bytes=sent * 1500),
        cost=TrialCost(size * 4e-10, size * 5e-10, 60e6, 64e6, sent * 1500 / size),
        retransmitted_packets=retransmitted,
        time_split=TimeSplit(start_s, start_s, tail_s=start_s, steady_s=seconds - 3 * start_s),
        why=f"It ran at {goodput_bps / truth.rate_bps:.0%} of the link's rate.",
        delay=DelaySummary(truth.rtt_ms, truth.rtt_ms + 5, truth.rtt_ms + 20),
        series=TrialSeries(
            t_s=times_s,
            delivered_bytes=[size * t / seconds for t in times_s],
            congestion_window_bytes=[goodput_bps / 8 * rtt_s * (1 + point % 10 / 10) for point in range(_POINTS)],
            rtt_ms=[truth.rtt_ms + point % 7 for point in range(_POINTS)],
        ),
        link_seed=1000 + block,
    )
