"""Links, transfers and figures for tests of congestion control on the product's simulator.

Every link is symmetric, and its buffer is given in bandwidth-delay products (BDP). Goodput and shares count payload.
"""

from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from toolkit.netmodel.spec import LinkSpec, PathSpec, QueueSpec
from toolkit.rudp.congestion import base
from toolkit.rudp.congestion.base import CongestionController, ControllerFactory
from toolkit.simulator.result import ExperimentResult, FlowResult
from toolkit.simulator.simulator import Experiment, FlowSpec, run

MS = 1_000_000
SECOND = 1_000_000_000
MIB = 1 << 20
SAMPLE_INTERVAL_NS = 10 * MS


def link_of(rate_bps: float, rtt_ns: int = 40 * MS, buffer_bdp: float = 1.0, seed: int = 1, **path: Any) -> LinkSpec:
    """A link with a drop-tail buffer of `buffer_bdp`; `path` are further fields of `PathSpec`, `queue` included."""
    bdp_bytes = rate_bps * rtt_ns / 8e9
    fields = {"queue": QueueSpec(limit_bytes=int(buffer_bdp * bdp_bytes))} | path
    both = PathSpec(rate_bps=rate_bps, delay_ns=rtt_ns // 2, **fields)
    return LinkSpec(both, both, seed=seed)


def transfer(link: LinkSpec, size_bytes: int, control: str = "bbr", rate_bps: float | None = None) -> ExperimentResult:
    """Transfer `size_bytes` with one flow, with RTT samples. Fails unless the flow finishes."""
    result = simulate(link, [FlowSpec(control, size_bytes=size_bytes, rate_bps=rate_bps)])
    assert result.is_finished
    return result


def simulate(link: LinkSpec, flows: Sequence[FlowSpec]) -> ExperimentResult:
    """Run `flows`, with RTT samples."""
    return run(Experiment(link, flows), SAMPLE_INTERVAL_NS)


def goodput_bps(flow: FlowResult, from_ns: int, to_ns: int) -> float:
    """Payload received between two times, in bits per second."""
    return flow.delivered_between(from_ns, to_ns) * 8e9 / (to_ns - from_ns)


def ideal_share(result: ExperimentResult) -> float:
    """Goodput divided by the ideal goodput of the link."""
    assert result.ideal_share is not None
    return result.ideal_share


def queue_drop_share(result: ExperimentResult) -> float:
    """The share of all data packets that a full queue dropped."""
    dropped = sum(flow.lost_packets.get("queue", 0) for flow in result.flows)
    return dropped / sum(flow.packets_sent for flow in result.flows)


def rtt_percentile_ms(result: ExperimentResult, percent: int, from_ns: int) -> float:
    """Percentile of the smoothed RTT, over the samples of all flows since `from_ns`."""
    rtts = sorted(sample.smoothed_rtt_ns for sample in result.samples if sample.time_ns >= from_ns)
    return rtts[len(rtts) * percent // 100] / MS


def install_controller(monkeypatch: pytest.MonkeyPatch, name: str, factory: ControllerFactory) -> None:
    """Make `factory` available as the congestion control `name`, as the entry point of another package would."""

    class LoadedEntryPoint(EntryPoint):
        def load(self) -> ControllerFactory:
            return factory

    found = EntryPoints([LoadedEntryPoint(name, "tests:factory", base.ENTRY_POINT_GROUP)])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found.select(group=group))


def record_controllers(monkeypatch: pytest.MonkeyPatch, control: str) -> list[CongestionController]:
    """Install "recorded": it creates controllers of the kind `control` and adds them to the list returned.

    The client of a flow, which sends, creates its controller first.
    """
    created: list[CongestionController] = []

    def create(datagram_bytes: int, rate_bps: float | None, seed: int) -> CongestionController:
        created.append(base.controller_factory(control)(datagram_bytes, rate_bps, seed))
        return created[-1]

    install_controller(monkeypatch, "recorded", create)
    return created
