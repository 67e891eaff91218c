"""Simulated experiments as a table, as JSON objects, and as a CSV trace over time."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from toolkit.report.labels import NOTHING
from toolkit.simulator.result import ExperimentResult, FlowSample
from toolkit.units import format_duration_ns, format_rate, format_size

TRACE_HEADER = ",".join(("row", *FlowSample._fields))

SimulationRow = tuple[dict[str, str], ExperimentResult]
"""The varied parameters by column title, and the result."""


def table(experiments: Sequence[SimulationRow]) -> str:
    """One line for each experiment, followed by the reasons of those that failed."""
    parameters = list(experiments[0][0])
    headers = [
        *parameters,
        "time",
        "goodput",
        "of ideal",
        "resent /\nlost",
        "lost by\nthe link",
        "queue\nmean",
        "queue\np95",
        "Jain",
    ]
    lines = [[*values.values(), *_figures(result)] for values, result in experiments]
    align = ["left"] * len(parameters) + ["right"] * (len(headers) - len(parameters))
    failures = [
        f"{', '.join(values.values())}: {failure}" for values, result in experiments if (failure := _failure(result))
    ]
    return "\n".join([tabulate(lines, headers, disable_numparse=True, colalign=align), *failures])


def as_json(parameters: dict[str, str], result: ExperimentResult) -> dict[str, Any]:
    """One experiment as a JSON object, without its trace over time."""
    flows = []
    for flow in result.flows:
        fields = asdict(flow)
        del fields["progress"]
        flows.append({**fields, "goodput_bps": flow.goodput_bps})
    return {
        **parameters,
        "duration_ns": result.duration_ns,
        "goodput_bps": result.goodput_bps,
        "ideal_bps": result.ideal_bps,
        "ideal_share": result.ideal_share,
        "retransmission_ratio": result.retransmission_ratio,
        "queue_mean_ns": result.queue_mean_ns,
        "queue_p95_ns": result.queue_p95_ns,
        "jain_index": result.jain_index,
        "finished": result.is_finished,
        "flows": flows,
    }


def trace_lines(row: int, samples: Iterable[FlowSample]) -> Iterable[str]:
    """The samples of the experiment in table row `row` as lines of CSV, in the order of TRACE_HEADER."""
    for sample in samples:
        yield ",".join(str(round(value) if isinstance(value, float) else value) for value in (row, *sample))


def _failure(result: ExperimentResult) -> str:
    """The failure of the first flow that failed, or ""."""
    return next((flow.failure for flow in result.flows if flow.failure), "")


def _figures(result: ExperimentResult) -> list[str]:
    share, ratio, jain = result.ideal_share, result.retransmission_ratio, result.jain_index
    return [
        "failed" if _failure(result) else format_duration_ns(result.duration_ns),
        format_rate(result.goodput_bps),
        NOTHING if share is None else f"{share:.3f}",
        NOTHING if ratio is None else f"{ratio:.2f}",
        format_size(sum(flow.lost_bytes for flow in result.flows)),
        format_duration_ns(result.queue_mean_ns),
        format_duration_ns(result.queue_p95_ns),
        NOTHING if jain is None else f"{jain:.3f}",
    ]
