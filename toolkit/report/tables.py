"""Tables from records: the same file gives the same table, on any machine and at any time."""

from collections.abc import Mapping, Sequence
from time import gmtime, strftime
from typing import Any

from tabulate import tabulate

from toolkit.bench.record import Campaign, Results
from toolkit.bench.stats import MIN_SAMPLES, Estimate
from toolkit.report.summary import CellSummary, summarise
from toolkit.units import format_fraction, format_rate, format_size

_NOTHING = "-"


def comparison(results: Results, table_format: str = "simple") -> str:
    """The table of a campaign and, under it, what it was measured on and how to read it."""
    summaries = summarise(results)
    baseline = results.campaign.baseline
    headers = [
        "transport",
        "goodput",
        "spread",
        f"x {baseline}",
        "95% interval",
        "CPU s/GB\nsender",
        "CPU s/GB\nreceiver",
        "packets\nresent",
        "verified",
    ]
    rows = [_row(summary, baseline) for summary in summaries]
    table = tabulate(rows, headers, tablefmt=table_format, disable_numparse=True, colalign=["left"] + ["right"] * 8)
    return f"{table}\n\n{_caption(results.campaign, summaries)}"


def _row(summary: CellSummary, baseline: str) -> list[str]:
    return [
        summary.label,
        format_rate(summary.goodput_bps.value) if summary.goodput_bps else "failed",
        _spread(summary),
        "1" if summary.label == baseline else _value(summary.ratio),
        _interval(summary.ratio),
        _number(summary.sender_cpu_s_per_gb),
        _number(summary.receiver_cpu_s_per_gb),
        f"{summary.packets_retransmitted:.0f}" if summary.packets_retransmitted is not None else _NOTHING,
        f"{summary.verified}/{summary.trials}",
    ]


def _spread(summary: CellSummary) -> str:
    if summary.goodput_bps is None or summary.deviation_bps is None or not summary.goodput_bps.value:
        return _NOTHING
    return f"± {format_fraction(round(summary.deviation_bps / summary.goodput_bps.value, 3))}"


def _value(estimate: Estimate | None) -> str:
    return f"{estimate.value:.2f}" if estimate else _NOTHING


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.interval is None:
        return _NOTHING
    return f"{estimate.interval.low:.2f} to {estimate.interval.high:.2f}"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _caption(campaign: Campaign, summaries: Sequence[CellSummary]) -> str:
    host: Mapping[str, Any] = campaign.host
    started = strftime("%Y-%m-%d %H:%M UTC", gmtime(campaign.started_unix_s))
    lines = [
        f"{campaign.name}: one file of {format_size(campaign.payload_bytes)} in {campaign.storage}.",
        f"{campaign.repeats} blocks in random order (seed {campaign.seed}), after a warm-up of each.",
        "Goodput: from the first connect to the verified digest; median, and median absolute deviation from it.",
        f"{host['cores']} cores of {host['cpu']}, {host['system']} {host['kernel']}.",
        f"nettool {host['nettool']}, Python {host['python']}, {started}.",
    ]
    load = host.get("load_1min", 0)
    if load > host["cores"] / 2:
        lines.append(f"The machine was busy when this began (load {load}): expect lower figures, and more spread.")
    if any(summary.ratio is not None and summary.ratio.interval is None for summary in summaries):
        lines.append(f"Fewer than {MIN_SAMPLES} pairs hold no 95% interval; --repeat {MIN_SAMPLES} or more gives one.")
    return "\n".join(lines)
