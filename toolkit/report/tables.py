"""Tables of a campaign: cells that hold a text and the figure behind it.

A page sorts by the figure. Columns and tables that would be empty are left out. The tables depend on the saved records
only, so the same file gives the same tables on any machine.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from toolkit.comparison.packet_counts import DirectionAudit
from toolkit.comparison.records import BUSY_MACHINE, CPU_BOUND, BackgroundFlowResult, Probe, Results, Trial
from toolkit.comparison.rows import Row, RowDelay
from toolkit.comparison.stats import Estimate
from toolkit.comparison.summary import Summary
from toolkit.comparison.verdict import INCONCLUSIVE
from toolkit.errors import printable
from toolkit.report.cells import (
    EMPTY,
    Cell,
    Column,
    Columns,
    Table,
    build,
    figure_cell,
    key_columns,
    number_cell,
    text_cell,
)
from toolkit.report.conditions import conditions_table
from toolkit.report.labels import (
    NOTHING,
    REASONS,
    label,
    mark_meaning,
    path_label,
    rate_interval,
    ratio_interval,
    ratio_with_interval,
    seconds_interval,
    short_verdict,
    verdict_words,
)
from toolkit.units import format_fraction, format_rate, format_ratio, format_seconds, format_size

SPEED = "speed"
REASON = "reasons"
COST = "cost"
OTHER_TRAFFIC = "other-traffic"
ACCOUNTING = "accounting"
PROBES = "probes"
TROUBLE = "trouble"
_EXCEPTION = f", except that a side marked only {CPU_BOUND} may be called faster"


def tables(summary: Summary) -> list[Table]:
    """All tables that have rows; SPEED is always there and always first."""
    results, rows = summary.results, summary.rows
    made = [
        _speed(rows, label(results.campaign.baseline)),
        _reasons(rows),
        _cost(rows),
        _other_traffic(rows),
        _accounting(results, rows),
        conditions_table(results),
        _probes(results),
        _trouble(results),
    ]
    return [table for table in made if table.rows]


def imported_tables(rows: Sequence[Row]) -> list[Table]:
    """Tables for runs of other programs, which have no baseline and no verdict."""
    return [table for table in (_speed(rows, None), _cost(rows)) if table.rows]


def _speed(rows: Sequence[Row], baseline: str | None) -> Table:
    columns: Columns[Row] = [
        (Column("verdict"), lambda row: Cell(verdict_words(row), verdict_words(row), row.verdict)),
        (Column("goodput", True), _goodput),
        (Column("95% interval of goodput", True), lambda row: _estimate(row.goodput_bps, _rate_interval)),
        (Column(f"x {baseline}", True), lambda row: _estimate(row.ratio, lambda e: format_ratio(e.value))),
        (Column("95% interval of ratio", True), lambda row: _estimate(row.ratio, ratio_interval)),
        (Column("time", True), lambda row: _estimate(row.seconds, lambda e: format_seconds(e.value))),
        (Column("verified", True), lambda row: Cell(f"{row.verified}/{row.trials}", row.verified)),
        (Column("marks"), lambda row: text_cell(_marks(row.marks))),
        (Column("why", is_prose=True), lambda row: text_cell(printable(row.why, 400))),
    ]
    if baseline is None:
        columns = [(column, make) for column, make in columns if column.title != "verified"]
        note = "Each row is one run, as the program reported it: it ran for a fixed time and verified no digest."
    else:
        note = (
            f"Medians; a failed transfer is slower than any other. Ratios compare with {baseline} in the same block. "
        )
        if any(row.payload_bytes for row in rows):
            note += "Goodput is measured from the first connect to the receiver's verified digest."
        else:
            note += "Goodput is what had arrived when the time was up, measured from the first connect."
    if any(row.verdict == INCONCLUSIVE for row in rows):
        note += " Inconclusive: these trials cannot tell; it does not mean that there is no difference."
    marks = sorted({mark for row in rows for mark in row.marks})
    for mark in marks:
        note += f" {printable(mark)}: {mark_meaning(mark)}."
    if any(mark != BUSY_MACHINE for mark in marks):
        other = f"have a mark other than {BUSY_MACHINE}" if BUSY_MACHINE in marks else "are marked"
        note += f" If more than a fifth of the trials {other}, nothing is claimed"
        note += f"{_EXCEPTION}." if CPU_BOUND in marks else "."
    return build(SPEED, "Goodput and verdicts", note, [*key_columns(rows), *columns], rows)


def verdict_table(summary: Summary) -> Table:
    """What decides, in as few columns as a terminal has room for: SPEED has the rest."""
    rows, baseline = summary.rows, label(summary.results.campaign.baseline)
    columns: Columns[Row] = [
        (Column("goodput", True), _goodput),
        (Column(f"x {baseline} [95% interval]", True), _ratio_with_interval),
        (Column("verdict"), lambda row: text_cell(short_verdict(row))),
    ]
    return build(SPEED, "Goodput and verdicts", "", [*key_columns(rows), *columns], rows)


def _reasons(rows: Sequence[Row]) -> Table:
    timed = [row for row in rows if row.time_split and row.seconds]
    columns: Columns[Row] = [
        (Column("connected", True), lambda row: figure_cell(row.connect_s, format_seconds)),
        (Column("accepted", True), lambda row: figure_cell(row.accepted_s, format_seconds)),
        (Column("time", True), lambda row: Cell(format_seconds(_total_s(row)), _total_s(row))),
        (Column("95% interval", True), lambda row: _estimate(row.seconds, lambda e: seconds_interval(e.interval))),
        *((Column(name, True), partial(_share, key=key)) for key, name in REASONS.items()),
        (Column("regime"), lambda row: text_cell(row.regime or "")),
    ]
    note = "Connected: until connection and keys were there; accepted: until the receiver had accepted the offer. "
    note += "The shares are means over the trials of which there are at least 20 samples. "
    note += "Regime: a short transfer spends most of its time on handshake, ramp-up and tail."
    return build(REASON, "Where the time went", note, [*key_columns(rows), *columns], timed)


def _cost(rows: Sequence[Row]) -> Table:
    columns: Columns[Row] = [
        (Column("resent", True), lambda row: number_cell(row.retransmitted_packets, "{:.0f}")),
        (Column("per lost", True), lambda row: figure_cell(row.resent_per_lost, format_ratio)),
        (Column("CPU, sender", True), lambda row: number_cell(row.sender_cpu_s_per_gb, "{:.2f}")),
        (Column("CPU, receiver", True), lambda row: number_cell(row.receiver_cpu_s_per_gb, "{:.2f}")),
        (Column("memory, sender", True), lambda row: figure_cell(row.sender_peak_memory_bytes, format_size)),
        (Column("memory, receiver", True), lambda row: figure_cell(row.receiver_peak_memory_bytes, format_size)),
        (Column("wire bytes per byte", True), lambda row: number_cell(row.wire_bytes_per_payload_byte, "{:.3f}")),
    ]
    note = "Medians over verified trials. CPU: seconds of user and system time for 10^9 bytes of payload. Memory: peak "
    note += "resident set. Resent: packets, and those for each packet that the link lost, over all trials. Wire bytes: "
    note += "IP packets in both directions, for each byte of payload."
    figures = ("sender_cpu_s_per_gb", "retransmitted_packets")
    known = [row for row in rows if row.verified or any(getattr(row, name) is not None for name in figures)]
    return build(COST, "Cost, with CPU in seconds per gigabyte", note, [*key_columns(rows), *columns], known)


def _other_traffic(rows: Sequence[Row]) -> Table:
    known = [row for row in rows if row.delay_ms or row.competition]
    delays: list[tuple[str, Callable[[RowDelay], float]]] = [
        ("RTT, idle", lambda delay: delay.base),
        ("RTT, loaded", lambda delay: delay.median),
        ("RTT, loaded, p95", lambda delay: delay.p95),
    ]
    competitions: list[tuple[str, Callable[[BackgroundFlowResult], float], Callable[[float], str]]] = [
        ("other flow, alone", lambda flow: flow.goodput_bps_alone, format_rate),
        ("other flow, shared", lambda flow: flow.goodput_bps_beside, format_rate),
        ("slow-down", lambda flow: flow.slow_down, lambda value: f"{format_ratio(value)} x"),
        ("Jain's index", lambda flow: flow.jain, lambda value: f"{value:.3f}"),
    ]
    columns: Columns[Row] = [
        *((Column(title, True), partial(_delay, value=value)) for title, value in delays),
        *((Column(title, True), partial(_competition, value=value, form=form)) for title, value, form in competitions),
    ]
    note = "RTT of a ping before and during the transfer: the difference is the queue that the transfer builds. "
    note += "The other flow is a TCP flow that shares the path. Jain's index is 1 if both flows get the same goodput."
    return build(OTHER_TRAFFIC, "Effect on other traffic", note, [*key_columns(rows), *columns], known)


@dataclass(frozen=True, slots=True)
class _AuditGroup:
    """Where the packets from the sender to the receiver went, in each trial of one cell, whose row is `row`."""

    path: str
    payload_bytes: int
    transport: str
    audits: list[DirectionAudit]
    row: Row


def _accounting(results: Results, rows: Sequence[Row]) -> Table:
    of_row = {(row.path, row.payload_bytes, row.transport): row for row in rows}
    cells = {
        (path, size, name): _AuditGroup(path, size, name, [], of_row[path, size, name])
        for path in results.campaign.paths
        for size in results.campaign.sizes
        for name in results.campaign.transports
    }
    for trial in results.trials:
        cell = cells.get((trial.path, trial.payload_bytes, trial.transport))
        if trial.ledger is not None and trial.block >= 0 and cell is not None:
            cell.audits.append(trial.ledger.forward)
    counts: list[tuple[str, Callable[[DirectionAudit], int | None]]] = [
        ("sent", lambda audit: audit.sent),
        ("reached the link", lambda audit: audit.offered),
        ("lost by the link", lambda audit: audit.lost_by_link),
        ("dropped by its queue", lambda audit: audit.dropped_by_queue),
        ("duplicated", lambda audit: audit.duplicated),
        ("dropped by a host", lambda audit: audit.dropped_by_host),
        ("received", lambda audit: audit.received),
    ]
    columns: Columns[_AuditGroup] = [
        *((Column(title, True), partial(_median_count, count=count)) for title, count in counts),
        (Column("balance", True), lambda group: number_cell(max((a.balance for a in group.audits), key=abs), "{:.0f}")),
        (Column("loss asked for", True), lambda group: figure_cell(group.row.asked_loss, format_fraction)),
        (Column("loss seen", True), lambda group: _estimate(group.row.link_loss, _share_of)),
        (Column("95% interval", True), lambda group: _estimate(group.row.link_loss, _share_interval)),
    ]
    groups = [group for group in cells.values() if group.audits]
    note = "Packets from the sender to the receiver, medians. Balance is the worst of all trials; 0 means that every "
    note += (
        "packet is accounted for. Loss is that of the link over all trials, without drops of its queue; its interval "
    )
    note += "is that of independent losses."
    return build(ACCOUNTING, "Packet accounting", note, [*key_columns(groups), *columns], groups)


def _share_of(estimate: Estimate) -> str:
    return format_fraction(estimate.value)


def _share_interval(estimate: Estimate) -> str:
    if estimate.interval is None:
        return NOTHING
    return f"{format_fraction(estimate.interval.low)} to {format_fraction(estimate.interval.high)}"


def _probes(results: Results) -> Table:
    columns: Columns[Probe] = [
        (Column("path"), lambda probe: text_cell(path_label(probe.path))),
        (Column("rate", True), lambda probe: figure_cell(probe.rate_bps, format_rate)),
        (Column("rate back", True), lambda probe: figure_cell(probe.rate_back_bps, format_rate)),
        (
            Column("RTT, median", True),
            lambda probe: figure_cell(probe.rtt_ms.median if probe.rtt_ms else None, _format_ms),
        ),
        (Column("RTT, p99", True), lambda probe: figure_cell(probe.rtt_ms.p99 if probe.rtt_ms else None, _format_ms)),
        (Column("loss", True), lambda probe: figure_cell(probe.loss, format_fraction)),
        (Column("loss back", True), lambda probe: figure_cell(probe.loss_back, format_fraction)),
        (Column("emulator's CPU", True), lambda probe: figure_cell(probe.emulator_cpu_share, lambda v: f"{v:.0%}")),
        (
            Column("as specified"),
            lambda probe: text_cell("" if probe.is_met is None else "yes" if probe.is_met else "no"),
        ),
        (Column("details", is_prose=True), lambda probe: text_cell(printable(probe.text, 400))),
    ]
    note = "Each path, measured before the first transfer."
    return build(PROBES, "Measured paths", note, columns, results.probes)


def _trouble(results: Results) -> Table:
    common = _common_marks(results)
    listed = [t for t in results.trials if t.error or not set(common[t.path]).issuperset(t.marks)]
    columns: Columns[Trial] = [
        (Column("trial", True), lambda trial: Cell(str(trial.position + 1), trial.position)),
        (
            Column("block", True),
            lambda trial: Cell("warm-up" if trial.block < 0 else str(trial.block + 1), trial.block),
        ),
        (Column("marks"), lambda trial: text_cell(_marks(m for m in trial.marks if m not in common[trial.path]))),
        (Column("error", is_prose=True), lambda trial: text_cell(printable(trial.error or "", 400))),
    ]
    note = (
        "In a verdict, a failed transfer has a goodput of 0 and a marked one counts as measured. If more than a fifth "
        f"of either side's trials are marked, nothing is claimed{_EXCEPTION}. "
        "The mark busy-machine takes nothing away."
    )
    for path, marks in common.items():
        note += f" All trials on {path_label(path)} are marked {_marks(marks)}." if marks else ""
    return build(TROUBLE, "Failed or marked trials", note, [*key_columns(listed), *columns], listed)


def _common_marks(results: Results) -> dict[str, list[str]]:
    """Path -> the marks that all of its trials have."""
    marks: dict[str, list[set[str]]] = {}
    for trial in results.trials:
        marks.setdefault(trial.path, []).append(set(trial.marks))
    return {path: sorted(set.intersection(*each)) for path, each in marks.items()}


def _marks(marks: Iterable[str]) -> str:
    return ", ".join(printable(mark) for mark in marks)


def _format_ms(value: float) -> str:
    return format_seconds(value / 1e3)


def _rate_interval(estimate: Estimate) -> str:
    return rate_interval(estimate.interval)


def _estimate(estimate: Estimate | None, form: Callable[[Estimate], str]) -> Cell:
    return EMPTY if estimate is None else Cell(form(estimate), estimate.value)


def _goodput(row: Row) -> Cell:
    if row.goodput_bps is None:
        return Cell("failed" if row.trials else "not run", None)
    return Cell(format_rate(row.goodput_bps.value), row.goodput_bps.value)


def _ratio_with_interval(row: Row) -> Cell:
    return _estimate(row.ratio, ratio_with_interval)


def _total_s(row: Row) -> float:
    return sum(row.time_split.by_kind().values()) if row.time_split is not None else 0.0


def _share(row: Row, key: str) -> Cell:
    seconds, total = row.time_split.by_kind()[key] if row.time_split is not None else 0.0, _total_s(row)
    return Cell(f"{seconds / total:.0%}", seconds / total) if seconds and total else EMPTY


def _delay(row: Row, value: Callable[[RowDelay], float]) -> Cell:
    return EMPTY if row.delay_ms is None else figure_cell(value(row.delay_ms), _format_ms)


def _competition(row: Row, value: Callable[[BackgroundFlowResult], float], form: Callable[[float], str]) -> Cell:
    return EMPTY if row.competition is None else figure_cell(value(row.competition), form)


def _median_count(group: _AuditGroup, count: Callable[[DirectionAudit], int | None]) -> Cell:
    counts = [number for audit in group.audits if (number := count(audit)) is not None]
    return number_cell(median(counts) if counts else None, "{:.0f}")
