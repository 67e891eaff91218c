"""Congestion control on every path for which it has a bar, in the simulator; compare two versions of it.

    python bench/congestion.py [GROUP ...] [--only TEXT] [--cc bbr] [--jobs 2] [--save FILE] [--against FILE]

Without a group, all of them run; `--only` keeps the cases whose names contain a text. Each line is one case: its share
of the ideal, the time, what was resent as a share of the packets and per packet that the link lost, the 95th percentile
of the queueing delay, and Jain's index. `--save` writes the figures as JSON; `--against` prints the share and the
resent packets that such a file has for the same case.
Two columns are the processor time that the engine takes at each end, without the simulator and the making and checking
of data, in seconds per simulated second. It is an upper bound: it is sampled, a sample during the copying of data often
counts for the engine's function that called it, and a busy machine makes it larger. Run such a case alone.
The column "misses" names the figures that miss the bar of their case. All groups take about five minutes on two cores.
"""

import argparse
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType

from tabulate import tabulate

from toolkit.netmodel.ideal import ideal_bytes
from toolkit.netmodel.profiles import profile
from toolkit.netmodel.scenarios import SCENARIOS
from toolkit.netmodel.spec import LinkChange, LinkSpec, PathSpec, QueueSpec
from toolkit.rudp.congestion.base import PathMemory
from toolkit.simulator.host import ClientHost
from toolkit.simulator.result import ExperimentResult, jain_index
from toolkit.simulator.simulator import Experiment, FlowSpec, payload_share, run

MS = 1_000_000
SECOND = 1_000_000_000
MIB = 1 << 20
GEO_BPS = 9.8133e6
GEO_RTT_NS = 600_900_000
"""What BBR measures on the profile geo."""
SAMPLE_S = 0.002
"""How often the processor time is sampled."""


@dataclass(frozen=True)
class Bar:
    """What a case must show: at least `share` of the ideal and `jain`, at most the others. None: no such bar.

    resent: share of the packets; resent_beyond: the same, beyond 1.1 times what the link lost
    cpu_s:  processor time of the engine at each end, in seconds per simulated second
    """

    share: float | None = None
    resent: float | None = None
    resent_beyond: float | None = None
    queue_ms: float | None = None
    jain: float | None = None
    cpu_s: float | None = None


@dataclass(frozen=True)
class Case:
    """`flows` over `link`. Jain's index is that of the time from `fair_from_ns` to the end.

    share_from_ns: the share of the ideal counts from there, of the first flow; 0 for the whole time of all flows
    """

    name: str
    link: LinkSpec
    flows: tuple[FlowSpec, ...]
    bar: Bar = field(default_factory=Bar)
    fair_from_ns: int = 0
    share_from_ns: int = 0


@dataclass(frozen=True)
class Figures:
    """The result of a case; shares of 1, times in seconds, delays in ms."""

    share: float
    time_s: float
    resent: float
    lost: float
    queue_p95_ms: float
    jain: float | None
    sender_cpu_s: float
    receiver_cpu_s: float

    @classmethod
    def of(cls, case: Case, result: ExperimentResult, cpu_s: tuple[float, float]) -> "Figures":
        payload_bytes = sum(flow.sent_payload_bytes for flow in result.flows)
        shares = [float(flow.delivered_between(case.fair_from_ns, flow.end_ns)) for flow in result.flows]
        share = result.ideal_share or 0.0
        if case.share_from_ns:
            flow = result.flows[0]
            most = ideal_bytes(case.link.forward, payload_share(case.link), case.share_from_ns, flow.end_ns) or 1.0
            share = flow.delivered_between(case.share_from_ns, flow.end_ns) / most
        return cls(
            share=share,
            time_s=result.duration_ns / 1e9,
            resent=sum(flow.retransmitted_bytes for flow in result.flows) / payload_bytes,
            lost=sum(flow.lost_bytes for flow in result.flows) / payload_bytes,
            queue_p95_ms=result.queue_p95_ns / 1e6,
            jain=jain_index(shares) if len(shares) > 1 else None,
            sender_cpu_s=cpu_s[0] * 1e9 / result.duration_ns,
            receiver_cpu_s=cpu_s[1] * 1e9 / result.duration_ns,
        )

    def misses(self, bar: Bar, loss: float) -> str:
        """Name the figures that miss `bar`, on a path that loses the share `loss` at random."""
        checks = {
            "share": bar.share is not None and self.share < bar.share,
            "resent": (bar.resent is not None and self.resent > bar.resent)
            or (bar.resent_beyond is not None and self.resent > 1.1 * loss + bar.resent_beyond),
            "queue": bar.queue_ms is not None and self.queue_p95_ms > bar.queue_ms,
            "Jain": bar.jain is not None and self.jain is not None and self.jain < bar.jain,
            "CPU": bar.cpu_s is not None and max(self.sender_cpu_s, self.receiver_cpu_s) > bar.cpu_s,
        }
        return ", ".join(name for name, is_missed in checks.items() if is_missed)


def link_of(rate_bps: float, rtt_ms: float, queue_bytes: int | None = None, loss: float = 0.0) -> LinkSpec:
    """A symmetric link; its queue holds one bandwidth-delay product unless `queue_bytes` is given."""
    path = PathSpec(
        rate_bps=rate_bps, delay_ns=int(rtt_ms * MS / 2), loss=loss, queue=QueueSpec(limit_bytes=queue_bytes)
    )
    return LinkSpec(path, path)


def changing(link: LinkSpec, *changes: LinkChange) -> LinkSpec:
    """The link with `changes` in both directions."""
    return replace(
        link, forward=replace(link.forward, changes=changes), backward=replace(link.backward, changes=changes)
    )


def file_of(size_bytes: int) -> tuple[FlowSpec, ...]:
    """One flow that sends a file."""
    return (FlowSpec(size_bytes=size_bytes),)


def flows_of(seconds: float, *controls: str, stagger_s: float = 0.0) -> tuple[FlowSpec, ...]:
    """Flows of this duration, started `stagger_s` after one another."""
    return tuple(
        FlowSpec(control, duration_ns=int(seconds * SECOND), start_ns=int(index * stagger_s * SECOND))
        for index, control in enumerate(controls)
    )


def lan() -> Iterator[Case]:
    """Queues of a LAN: 60 packets, and those of a bucket filter."""
    for queue_bytes in (90_000, 500_000):
        link = link_of(1e9, 0.2, queue_bytes)
        yield Case(
            f"1 Gbit/s 0.2 ms, queue {queue_bytes // 1000} kB, 64 MiB", link, file_of(64 * MIB), Bar(0.97, 0.005)
        )
    yield Case("1 Gbit/s 0.2 ms, queue 90 kB, 1 MiB", link_of(1e9, 0.2, 90_000), file_of(MIB), Bar(resent=0.02))


def start() -> Iterator[Case]:
    """A file that ends while the flow is still starting."""
    for loss in (0.0, 0.001, 0.01, 0.05):
        for seed in (1, 2, 3):
            link = replace(link_of(100e6, 40, loss=loss), seed=seed)
            bar = Bar(resent_beyond=0.01, queue_ms=20)
            yield Case(f"100 Mbit/s 40 ms, loss {loss:.1%}, 2.5 MiB, seed {seed}", link, file_of(5 * MIB // 2), bar)
    geo = profile("geo").spec
    yield Case("geo, 10 MiB", geo, file_of(10 * MIB), Bar(0.75))
    for part, bar in ((1.0, Bar(0.85)), (0.5, Bar(0.75)), (2.0, Bar(0.75)), (10.0, Bar(0.75))):
        memory = PathMemory(part * GEO_BPS, GEO_RTT_NS)
        flows = (FlowSpec(size_bytes=10 * MIB, memory=memory),)
        yield Case(f"geo, 10 MiB, {part} of the rate remembered", geo, flows, bar)
    other = (FlowSpec(size_bytes=10 * MIB, memory=PathMemory(10 * GEO_BPS, GEO_RTT_NS // 2)),)
    yield Case("geo, 10 MiB, memory of another path", geo, other, Bar(0.75))


def bulk() -> Iterator[Case]:
    """Long transfers over a path with random loss."""
    for loss, size_mib, share in ((0.0, 256, 0.97), (0.001, 256, 0.97), (0.01, 256, 0.97), (0.05, 256, 0.97)):
        link = link_of(100e6, 40, loss=loss)
        yield Case(f"100 Mbit/s 40 ms, loss {loss:.1%}, {size_mib} MiB", link, file_of(size_mib * MIB), Bar(share))
    for loss in (0.0, 0.01, 0.1):
        link = link_of(100e6, 40, loss=loss)
        yield Case(f"100 Mbit/s 40 ms, loss {loss:.1%}, 64 MiB", link, file_of(64 * MIB))
    for loss in (0.0, 0.01):
        link = link_of(1e9, 20, loss=loss)
        yield Case(f"1 Gbit/s 20 ms, loss {loss:.1%}, 512 MiB", link, file_of(512 * MIB))


def shallow() -> Iterator[Case]:
    """Queues of a small part of a bandwidth-delay product."""
    yield Case("100 Mbit/s 100 ms, 60 kB, 128 MiB", link_of(100e6, 100, 60_000), file_of(128 * MIB), Bar(0.9, 0.03))
    for loss in (0.0, 0.01):
        link = link_of(1e9, 20, 125_000, loss)
        yield Case(f"1 Gbit/s 20 ms, 125 kB, loss {loss:.1%}, 512 MiB", link, file_of(512 * MIB), Bar(0.85))
    for loss in (0.0, 0.05):
        link = link_of(20e6, 40, 25_000, loss)
        yield Case(
            f"20 Mbit/s 40 ms, 25 kB, loss {loss:.1%}, 8 MiB", link, file_of(8 * MIB), Bar(0.88, 0.03 + 1.1 * loss)
        )
    yield Case("100 Mbit/s 40 ms, 25 kB, 32 MiB", link_of(100e6, 40, 25_000), file_of(32 * MIB), Bar(0.75, 0.08))


def distant() -> Iterator[Case]:
    """Very high bandwidth-delay products: the share after the start, and what the engine costs."""
    for seed in (1, 2, 3):
        yield Case(
            f"100 Mbit/s 1 s, loss 30.0%, from 24 to 40 s, seed {seed}",
            replace(link_of(100e6, 1000, loss=0.3), seed=seed),
            flows_of(40, "bbr"),
            Bar(0.9),
            share_from_ns=24 * SECOND,
        )
    yield Case(
        "1 Gbit/s 1 s, loss 5.0%, from 10 to 20 s",
        link_of(1e9, 1000, loss=0.05),
        flows_of(20, "bbr"),
        Bar(800 / 919),  # 800 Mbit/s
        share_from_ns=10 * SECOND,
    )
    yield Case(
        "10 Gbit/s 100 ms, loss 0.01%, from 1 to 4 s",
        link_of(10e9, 100, loss=0.0001),
        flows_of(4, "bbr"),
        Bar(0.9, cpu_s=1.0),
        share_from_ns=SECOND,
    )
    for rtt_ms in (40, 80, 167, 300):
        flows = (FlowSpec(size_bytes=512 * MIB, receive_window_bytes=1 << 30),)
        yield Case(f"1 Gbit/s {rtt_ms} ms, 512 MiB, unlimited window", link_of(1e9, rtt_ms), flows)


def steps() -> Iterator[Case]:
    """Paths that change while data flows."""
    plain, bar = link_of(100e6, 40), Bar(0.85)
    longer = LinkChange(3 * SECOND, delay_ns=40 * MS)
    yield Case("RTT 40 to 80 ms at 3 s, 20 s", changing(plain, longer), flows_of(20, "bbr"), bar)
    back = LinkChange(13 * SECOND, delay_ns=20 * MS)
    yield Case("RTT 40 to 80 ms at 3 s, back at 13 s, 23 s", changing(plain, longer, back), flows_of(23, "bbr"), bar)
    far = LinkChange(3 * SECOND, delay_ns=100 * MS)
    yield Case("RTT 40 to 200 ms at 3 s, 20 s", changing(plain, far), flows_of(20, "bbr"), bar)
    deep = link_of(100e6, 40, 2_000_000)
    yield Case("RTT 40 to 80 ms at 3 s, queue 4 BDP, 20 s", changing(deep, longer), flows_of(20, "bbr"), bar)
    lossy = link_of(100e6, 40, loss=0.01)
    yield Case("RTT 40 to 80 ms at 3 s, loss 1%, 20 s", changing(lossy, longer), flows_of(20, "bbr"), bar)
    halved = LinkChange(4 * SECOND, rate_bps=50e6), LinkChange(8 * SECOND, rate_bps=100e6)
    yield Case("rate halved at 4 s, doubled at 8 s, 12 s", changing(plain, *halved), flows_of(12, "bbr"), bar)
    for seconds in (2, 25):
        link = changing(plain, LinkChange(2 * SECOND, blackout_ns=seconds * SECOND))
        yield Case(f"blackout of {seconds} s, 128 MiB", link, file_of(128 * MIB), bar)


def fair() -> Iterator[Case]:
    """Several flows."""
    for rate_bps, queue_bytes in ((100e6, None), (20e6, None), (10e6, None), (10e6, 200_000)):
        link = link_of(rate_bps, 40, queue_bytes)
        name = f"{rate_bps / 1e6:.0f} Mbit/s 40 ms, {'4 BDP' if queue_bytes else '1 BDP'}"
        flows = flows_of(20, "bbr", "bbr", stagger_s=3)
        yield Case(f"two bbr 3 s apart, {name}", link, flows, Bar(0.85, jain=0.95), 11_500 * MS)
    for rate_bps in (10e6, 20e6):
        four = flows_of(10, *["bbr"] * 4)
        bar = Bar(0.85, jain=0.95)
        yield Case(f"four bbr, {rate_bps / 1e6:.0f} Mbit/s 40 ms, 1 BDP", link_of(rate_bps, 40), four, bar, 3 * SECOND)
    for rate_bps, bdp in ((5e6, 0.5), (10e6, 0.5), (10e6, 1.0), (10e6, 4.0)):
        link = link_of(rate_bps, 40, int(bdp * rate_bps * 0.04 / 8))
        name = f"bbr and cubic, {rate_bps / 1e6:.0f} Mbit/s 40 ms, {bdp} BDP"
        # A quarter of an equal share for the smaller flow is an index of 0.64.
        yield Case(name, link, flows_of(15, "bbr", "cubic"), Bar(0.85, jain=0.64), 5 * SECOND)
    link = link_of(100e6, 40)
    yield Case("bbr and four cubic, 100 Mbit/s 40 ms", link, flows_of(20, "bbr", *["cubic"] * 4), Bar(0.85), 5 * SECOND)


def scenarios() -> Iterator[Case]:
    """The named scenarios."""
    for name, scenario in SCENARIOS.items():
        yield Case(name, scenario.link, file_of(64 * MIB), Bar(0.85))


def seeds() -> Iterator[Case]:
    """The scenario jitter with 90 seeds."""
    for seed in range(1, 91):
        yield Case(f"jitter, seed {seed}", replace(SCENARIOS["jitter"].link, seed=seed), file_of(64 * MIB), Bar(0.85))


GROUPS = {group.__name__: group for group in (lan, start, bulk, shallow, distant, steps, fair, scenarios, seeds)}


def measure(case: Case, control: str) -> Figures:
    """Run one case, with `control` in the place of bbr."""
    flows = tuple(
        replace(flow, congestion_control=control) if flow.congestion_control == "bbr" else flow for flow in case.flows
    )
    with engine_time() as samples:
        begin_s = time.process_time()
        result = run(Experiment(case.link, flows))
        total_s = time.process_time() - begin_s
    each_s = total_s / max(samples.total(), 1)
    return Figures.of(case, result, (samples["sender"] * each_s, samples["receiver"] * each_s))


@contextmanager
def engine_time() -> Iterator[Counter[str]]:
    """Count samples of the processor time: those within the engine of the sender and of the receiver, and others."""
    samples: Counter[str] = Counter()

    def sample(_signal: int, frame: FrameType | None) -> None:
        side = "other"
        is_engine: bool | None = None
        while frame is not None:
            file = frame.f_code.co_filename
            if is_engine is None and "/toolkit/" in file:
                is_engine = "/toolkit/rudp/" in file  # the innermost function of this package
            if is_engine and frame.f_code.co_qualname == "Host._drive":
                side = "sender" if isinstance(frame.f_locals["self"], ClientHost) else "receiver"
                break
            frame = frame.f_back
        samples[side] += 1

    before = signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)
    try:
        yield samples
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def row_of(case: Case, figures: Figures, before: dict[str, float] | None) -> list[str]:
    """One line of the table."""
    jain = "" if figures.jain is None else f"{figures.jain:.3f}"
    row = [case.name, f"{figures.share:.3f}", f"{figures.time_s:.3f}", f"{figures.resent:.2%}", f"{figures.lost:.2%}"]
    row += [f"{figures.queue_p95_ms:.1f}", jain, f"{figures.sender_cpu_s:.2f}", f"{figures.receiver_cpu_s:.2f}"]
    row += [figures.misses(case.bar, case.link.forward.loss)]
    if before is not None:
        jain_before = "" if before["jain"] is None else f"{before['jain']:.3f}"
        row += [f"{before['share']:.3f}", f"{before['resent']:.2%}", f"{before['queue_p95_ms']:.1f}", jain_before]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--only", default="", metavar="TEXT", help="run the cases whose names contain this")
    parser.add_argument("--cc", default="bbr")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"unknown group {', '.join(unknown)}: choose from {', '.join(GROUPS)}")
    cases = [case for name in options.groups or GROUPS for case in GROUPS[name]() if options.only in case.name]
    with ProcessPoolExecutor(options.jobs) as pool:
        results = list(pool.map(partial(measure, control=options.cc), cases))
    old = json.loads(options.against.read_text("utf-8")) if options.against else {}
    headers = ["case", "share", "time s", "resent", "lost", "p95 ms", "Jain", "CPU snd", "CPU rcv", "misses"]
    headers += ["share", "resent", "p95 ms", "Jain before"] if old else []
    rows = [row_of(case, figures, old.get(case.name)) for case, figures in zip(cases, results, strict=True)]
    print(tabulate(rows, headers, disable_numparse=True))
    if options.save:
        figures_of = {case.name: asdict(figures) for case, figures in zip(cases, results, strict=True)}
        options.save.write_text(json.dumps(old | figures_of, indent=1), "utf-8")


if __name__ == "__main__":
    main()
