"""Campaigns with a known truth: what the statistics, the tables and the plots are tried on.

Noise is what real campaigns show: a factor of its own for each trial, a factor that a block's trials share,
and now and then a trial that something else disturbed. All drawn from the seed, so that a campaign can be
made again; host and times are fixed, so that what is made from it is the same everywhere.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.compare.records import CONTROL_SUFFIX, Campaign, Probe, Results, Trial

HOST: Mapping[str, object] = {
    "nettool": "0.1.0",
    "python": "3.11.2",
    "system": "Linux",
    "kernel": "6.1",
    "machine": "x86_64",
    "cpu": "A Processor",
    "cores": 2,
    "memory_bytes": 8 << 30,
    "load_1min": 0.1,
    "sysctl": {},
}
_POINTS = 60


@dataclass(frozen=True, slots=True)
class Truth:
    """What is put in.

    goodput_bps:   (transport, path) -> the true figure; transports named like `tcp-cubic`
    repeats:       blocks
    noise:         standard deviation of the logarithm of a trial's own factor
    drift:         of the factor that the trials of a block share
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
    """A whole campaign by that truth; the same seed gives the same."""
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
        transports={label: _transport(label) for label in labels},
        paths={path: _path(path, truth, number) for number, path in enumerate(paths)},
        sizes=list(truth.sizes),
        storage="/dev/shm (memory)",
        host=HOST,
        method=["Figures made up by tests.support.synthetic_campaign."],
        command=["nettool", "bench", "link"],
    )
    trials: list[Trial] = []
    for path in paths:
        for block in range(-1, truth.repeats):
            turns = [(label, size) for label in labels for size in truth.sizes]
            drift = generator.gauss(0, truth.drift)
            for label, size in generator.sample(turns, len(turns)):
                true_bps = truth.goodput_bps[label.removesuffix(CONTROL_SUFFIX), path]
                goodput_bps = true_bps * 2.718281828 ** (drift + generator.gauss(0, truth.noise))
                if generator.random() < truth.disturbed:
                    goodput_bps /= 1 + generator.random()
                trials.append(_trial(truth, path, block, len(trials), label, size, goodput_bps))
    probes = [
        Probe(
            path, truth.rate_bps, {"median": truth.rtt_ms + 0.1, "p99": truth.rtt_ms + 0.6}, 0.0, 0.1, True, "as asked"
        )
        for path in paths
    ]
    return Results(campaign, trials, probes)


def _transport(label: str) -> dict[str, object]:
    transport, _, congestion_control = label.removesuffix(CONTROL_SUFFIX).partition("-")
    return {"transport": transport, "congestion_control": congestion_control, "program": None, "rate_bps": None}


def _path(label: str, truth: Truth, number: int) -> dict[str, object]:
    loss = (0.0, 0.001, 0.01, 0.05)[number % 4]
    return {
        "kind": "link",
        "rate_bps": truth.rate_bps,
        "rtt_ms": truth.rtt_ms,
        "loss": loss,
        "burst": None,
        "jitter_ms": 0.0,
        "queue": None,
        "text": label,
        "seed": 1,
        "ideal_bps": truth.rate_bps * 1448 / 1500 * (1 - loss),
    }


def _trial(truth: Truth, path: str, block: int, position: int, label: str, size: int, goodput_bps: float) -> Trial:
    seconds = 8 * size / goodput_bps
    rtt_s = truth.rtt_ms / 1e3
    start_s = min(rtt_s, seconds / 4)
    reasons = {
        "handshake_s": start_s,
        "ramp_up_s": start_s,
        "recovery_s": 0.0,
        "window_limited_s": 0.0,
        "cpu_bound_s": 0.0,
        "tail_s": start_s,
    }
    reasons["steady_s"] = seconds - sum(reasons.values())
    times_s = [seconds * (point + 1) / _POINTS for point in range(_POINTS)]
    end = {"bytes": size, "cpu_seconds": size * 4e-10, "digest": "0" * 32, "goodput_bps": goodput_bps}
    retransmitted = size // 100_000
    sent = size // 1448 + retransmitted
    way = {"sent": sent, "offered": sent, "delivered": sent - retransmitted, "received": sent - retransmitted}
    way |= {"lost_by_link": retransmitted, "dropped_by_queue": 0, "duplicated": 0, "dropped_by_host": 0, "balance": 0}
    return Trial(
        block=block,
        position=position,
        transport=label,
        path=path,
        payload_bytes=size,
        verified=True,
        seconds=seconds,
        goodput_bps=goodput_bps,
        sender=end,
        receiver=end,
        ledger={**way, "wire_bytes": sent * 1500, "forward": way, "backward": dict.fromkeys(way, 0)},
        cost={
            "cpu_seconds_sender": size * 4e-10,
            "cpu_seconds_receiver": size * 5e-10,
            "peak_memory_bytes_sender": 60e6,
            "peak_memory_bytes_receiver": 64e6,
            "wire_bytes_per_payload_byte": sent * 1500 / size,
        },
        retransmitted_packets=retransmitted,
        reasons=reasons,
        why=f"It ran at {goodput_bps / truth.rate_bps:.0%} of the link's rate.",
        delay={"base_ms": truth.rtt_ms, "median_ms": truth.rtt_ms + 5, "p95_ms": truth.rtt_ms + 20},
        series={
            "t_s": times_s,
            "delivered_bytes": [size * t / seconds for t in times_s],
            "congestion_window_bytes": [goodput_bps / 8 * rtt_s * (1 + point % 10 / 10) for point in range(_POINTS)],
            "rtt_ms": [truth.rtt_ms + point % 7 for point in range(_POINTS)],
        },
        link_seed=1000 + block,
    )
