"""One simulated experiment: a link and the flows over it, and the figures that come of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.netmodel.ideal import ideal_bytes, ideal_ns
from toolkit.netmodel.spec import LinkSpec
from toolkit.rudp.wire import HEADER_BYTES
from toolkit.simulator.result import FlowResult, Sample, fairness
from toolkit.simulator.simulator import DEFAULT_LIMIT_NS, IP_UDP_BYTES, FlowSpec, Simulator
from toolkit.units import rate_of, to_seconds


@dataclass(frozen=True, slots=True)
class Experiment:
    """`limit_ns` of virtual time end it, finished or not."""

    link: LinkSpec
    flows: Sequence[FlowSpec]
    limit_ns: int = DEFAULT_LIMIT_NS


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """Rates in bits of payload per second, over all flows; times in ns.

    duration_ns:    from the first packet of the first flow to the end of the last
    ideal_bps:      what the path could have carried (`toolkit.netmodel.ideal`); None without a bottleneck
    ideal_share:    goodput to that
    queue_*_ns:     delay in the queue of the forward path, over its packets
    jain_index:     None for a single flow
    """

    flows: list[FlowResult]
    duration_ns: int
    goodput_bps: float
    ideal_bps: float | None
    queue_mean_ns: float
    queue_p95_ns: float
    jain_index: float | None
    samples: list[Sample]

    @property
    def ideal_share(self) -> float | None:
        """Goodput to the ideal."""
        return self.goodput_bps / self.ideal_bps if self.ideal_bps else None

    @property
    def is_finished(self) -> bool:
        """Every flow had all of its bytes acknowledged."""
        return all(flow.finished_ns is not None for flow in self.flows)

    @property
    def retransmission_ratio(self) -> float | None:
        """Retransmitted bytes to bytes that were lost, over all flows; None where nothing was lost."""
        lost = sum(flow.lost_bytes for flow in self.flows)
        return sum(flow.retransmitted_bytes for flow in self.flows) / lost if lost else None


def payload_share(link: LinkSpec) -> float:
    """The payload's part of a full IP packet on `link`."""
    return (link.mtu_bytes - IP_UDP_BYTES - HEADER_BYTES) / link.mtu_bytes


def run(experiment: Experiment, sample_interval_ns: int | None = None) -> ExperimentResult:
    """Simulate it. The same experiment gives the same outcome."""
    link = experiment.link
    simulator = Simulator(link, experiment.flows, sample_interval_ns)
    flows = simulator.run(experiment.limit_ns)
    start_ns = min(flow.start_ns for flow in flows)
    end_ns = max(flow.end_ns for flow in flows)
    landed_bytes = sum(flow.landed_bytes for flow in flows)
    duration_s = to_seconds(end_ns - start_ns)
    if all(flow.finished_ns is not None for flow in flows):
        shortest_ns = ideal_ns(link.forward, payload_share(link), landed_bytes, start_ns)
        ideal_bps = None if shortest_ns is None else rate_of(landed_bytes, shortest_ns / 1e9)
    else:
        most_bytes = ideal_bytes(link.forward, payload_share(link), start_ns, end_ns)
        ideal_bps = None if most_bytes is None else rate_of(int(most_bytes), duration_s)
    return ExperimentResult(
        flows=flows,
        duration_ns=end_ns - start_ns,
        goodput_bps=rate_of(landed_bytes, duration_s),
        ideal_bps=ideal_bps,
        queue_mean_ns=simulator.queueing.mean_ns,
        queue_p95_ns=simulator.queueing.percentile_ns(95),
        jain_index=fairness(flows),
        samples=simulator.samples,
    )
