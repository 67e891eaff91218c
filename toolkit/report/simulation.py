"""Simulated experiments as a table, as a JSON object, and their course over time as CSV."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from toolkit.simulator.experiment import ExperimentResult
from toolkit.simulator.result import Sample
from toolkit.units import format_duration_ns, format_rate, format_size

_NOTHING = "-"
TRACE_HEADER = ",".join(("row", *Sample._fields))

Row = tuple[dict[str, str], ExperimentResult]
"""What was varied, by column, and what came of it."""


def table(rows: Sequence[Row]) -> str:
    """One line for each experiment, and under them why one failed."""
    varied = list(rows[0][0])
    headers = [
        *varied,
        "time",
        "goodput",
        "of ideal",
        "resent /\nlost",
        "lost by\nthe link",
        "queue\nmean",
        "queue\np95",
        "Jain",
    ]
    lines = [[*names.values(), *_figures(outcome)] for names, outcome in rows]
    align = ["left"] * len(varied) + ["right"] * (len(headers) - len(varied))
    reasons = [f"{', '.join(names.values())}: {failure}" for names, outcome in rows if (failure := _failure(outcome))]
    return "\n".join([tabulate(lines, headers, disable_numparse=True, colalign=align), *reasons])


def _failure(outcome: ExperimentResult) -> str:
    """Why the first flow that failed did so; empty where none did."""
    return next((flow.failure for flow in outcome.flows if flow.failure), "")


def _figures(outcome: ExperimentResult) -> list[str]:
    share, ratio, jain = outcome.ideal_share, outcome.retransmission_ratio, outcome.jain_index
    return [
        "failed" if _failure(outcome) else format_duration_ns(outcome.duration_ns),
        format_rate(outcome.goodput_bps),
        _NOTHING if share is None else f"{share:.3f}",
        _NOTHING if ratio is None else f"{ratio:.2f}",
        format_size(sum(flow.lost_bytes for flow in outcome.flows)),
        format_duration_ns(outcome.queue_mean_ns),
        format_duration_ns(outcome.queue_p95_ns),
        _NOTHING if jain is None else f"{jain:.3f}",
    ]


def as_json(names: dict[str, str], outcome: ExperimentResult) -> dict[str, Any]:
    """One row with all that is known of it but its course over time."""
    flows = []
    for flow in outcome.flows:
        fields = asdict(flow)
        del fields["progress"]
        flows.append({**fields, "goodput_bps": flow.goodput_bps})
    return {
        **names,
        "duration_ns": outcome.duration_ns,
        "goodput_bps": outcome.goodput_bps,
        "ideal_bps": outcome.ideal_bps,
        "ideal_share": outcome.ideal_share,
        "retransmission_ratio": outcome.retransmission_ratio,
        "queue_mean_ns": outcome.queue_mean_ns,
        "queue_p95_ns": outcome.queue_p95_ns,
        "jain_index": outcome.jain_index,
        "finished": outcome.is_finished,
        "flows": flows,
    }


def trace_lines(row: int, samples: Iterable[Sample]) -> Iterable[str]:
    """The samples of one row as CSV."""
    for sample in samples:
        yield ",".join(str(round(value) if isinstance(value, float) else value) for value in (row, *sample))
