"""Tables from records: the same file gives the same table, on any machine and at any time.

A cell keeps the figure beside its text, so that a page can sort by it. A table, or a column of one, that
would have nothing to show is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from toolkit.compare.comparison import Row, summarise
from toolkit.compare.records import Results, Trial
from toolkit.errors import printable
from toolkit.report.labels import (
    NOTHING,
    REASONS,
    label,
    mark_meaning,
    rate_interval,
    ratio,
    ratio_interval,
    seconds_interval,
    verdict_words,
)
from toolkit.units import format_fraction, format_rate, format_seconds, format_size

Value = float | str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, and what it is sorted by: a number, the text itself, or None where there is no figure."""

    text: str
    value: Value


@dataclass(frozen=True, slots=True)
class Column:
    """`is_figure`: numbers, set to the right; `is_prose`: sentences, which may take several lines."""

    title: str
    is_figure: bool = False
    is_prose: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """name: of SPEED and its like; `note`: how to read it; every row is as long as `columns`."""

    name: str
    title: str
    note: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


SPEED, REASON, COST, COMPANY, LEDGER, PROBES, TROUBLE = (
    "speed",
    "reasons",
    "cost",
    "company",
    "ledger",
    "probes",
    "trouble",
)

_EMPTY = Cell(NOTHING, None)
_Maker = Callable[[Any], Cell]
_Spec = Sequence[tuple[Column, _Maker]]


def tables(results: Results) -> list[Table]:
    """All that a campaign has figures for; the one of speeds first, and always."""
    rows = summarise(results).rows
    made = [
        _speed(rows, label(results.campaign.baseline)),
        _reasons(rows),
        _cost(rows),
        _company(rows),
        _ledger(results),
        _probes(results),
        _trouble(results),
    ]
    return [table for table in made if table.rows]


def imported_tables(rows: Sequence[Row]) -> list[Table]:
    """The same columns for other programs' runs, which have neither a baseline nor a verdict."""
    return [table for table in (_speed(rows, None), _cost(rows)) if table.rows]


def _speed(rows: Sequence[Row], baseline: str | None) -> Table:
    own: list[tuple[Column, _Maker]] = [
        (Column("verdict"), lambda row: _text(verdict_words(row))),
        (Column("goodput", True), _goodput),
        (
            Column("95% interval of goodput", True),
            lambda row: _estimated(row.goodput_bps, lambda e: rate_interval(e.interval)),
        ),
        (Column(f"x {baseline}", True), lambda row: _estimated(row.ratio, lambda e: ratio(e.value))),
        (Column("95% interval of ratio", True), lambda row: _estimated(row.ratio, ratio_interval)),
        (Column("time", True), lambda row: _estimated(row.seconds, lambda e: format_seconds(e.value))),
        (Column("resent", True), lambda row: _number(row.retransmitted_packets, "{:.0f}")),
        (Column("verified", True), lambda row: Cell(f"{row.verified}/{row.trials}", row.verified)),
        (Column("marks"), lambda row: _text(", ".join(printable(mark) for mark in row.marks))),
        (Column("why", is_prose=True), lambda row: _text(printable(row.why, 400))),
    ]
    if baseline is None:
        own = [(column, make) for column, make in own if column.title != "verified"]
        note = "One run a row, as the program told of it: for a time, not to a verified digest; resent: packets."
    else:
        note = (
            f"Medians over verified trials, and what they are of {baseline}'s in the same block; resent: packets. "
            "Goodput counts from the first connect to the receiver's verified digest."
        )
    marks = sorted({mark for row in rows for mark in row.marks})
    for mark in marks:
        note += f" {printable(mark)}: {mark_meaning(mark)}."
    if marks:
        note += " Where more than a fifth of the trials are marked, nothing is claimed."
    return _build(SPEED, "Goodput and verdicts", note, [*_keys(rows), *own], rows)


def _reasons(rows: Sequence[Row]) -> Table:
    told = [row for row in rows if row.reasons and row.seconds]
    own: list[tuple[Column, _Maker]] = [
        (Column("time", True), lambda row: Cell(format_seconds(_total(row)), _total(row))),
        (Column("95% interval", True), lambda row: _estimated(row.seconds, lambda e: seconds_interval(e.interval))),
    ]
    for key, name in REASONS.items():
        own.append((Column(name, True), partial(_share, key=key)))
    own.append((Column("kind"), lambda row: _text(row.regime or "")))
    note = (
        "What the time of the median trial went into, as a share of it. "
        "Kind: a short transfer spends most of it on handshake, ramp-up and tail."
    )
    return _build(REASON, "Where the time went", note, [*_keys(rows), *own], told)


def _cost(rows: Sequence[Row]) -> Table:
    own: _Spec = [
        (Column("CPU s/GB, sender", True), lambda row: _number(row.sender_cpu_s_per_gb, "{:.2f}")),
        (Column("CPU s/GB, receiver", True), lambda row: _number(row.receiver_cpu_s_per_gb, "{:.2f}")),
        (Column("memory, sender", True), lambda row: _size(row.sender_peak_memory_bytes)),
        (Column("memory, receiver", True), lambda row: _size(row.receiver_peak_memory_bytes)),
        (Column("wire bytes per byte", True), lambda row: _number(row.wire_bytes_per_payload_byte, "{:.3f}")),
    ]
    note = "Medians. Processor seconds (user and system) per 10^9 bytes of payload; the most memory that was resident; "
    note += "bytes of IP packets both ways for each byte of payload."
    told = [row for row in rows if row.verified or row.sender_cpu_s_per_gb is not None]
    return _build(COST, "What it cost", note, [*_keys(rows), *own], told)


def _company(rows: Sequence[Row]) -> Table:
    told = [row for row in rows if row.delay_ms or row.competition]
    own: _Spec = [
        (Column("RTT alone", True), lambda row: _delay(row, "base")),
        (Column("RTT beside", True), lambda row: _delay(row, "median")),
        (Column("RTT beside, p95", True), lambda row: _delay(row, "p95")),
        (Column("other flow alone", True), lambda row: _competition(row, "goodput_bps_alone", format_rate)),
        (Column("other flow beside", True), lambda row: _competition(row, "goodput_bps_beside", format_rate)),
        (Column("slowed down", True), lambda row: _competition(row, "slow_down", lambda v: f"{ratio(v)} x")),
        (Column("Jain", True), lambda row: _competition(row, "jain", lambda v: f"{v:.3f}")),
    ]
    note = "RTT of a ping alone and beside the transfer: the difference is the queue that the transfer builds. "
    note += "The other flow is a TCP one that shares the path; Jain's index is 1 where both get the same."
    return _build(COMPANY, "What it does to others", note, [*_keys(rows), *own], told)


def _ledger(results: Results) -> Table:
    groups: dict[tuple[str, int, str], list[Trial]] = {}
    for trial in results.trials:
        if trial.ledger is not None and trial.block >= 0:
            groups.setdefault(_cell_key(trial), []).append(trial)
    names = {
        "sent": "sent",
        "offered": "came to the link",
        "lost_by_link": "lost by the link",
        "dropped_by_queue": "dropped by its queue",
        "duplicated": "duplicated",
        "dropped_by_host": "dropped by a host",
        "received": "received",
    }
    own: list[tuple[Column, _Maker]] = [
        (Column(title, True), partial(_count, name=name)) for name, title in names.items()
    ]
    own.append((Column("balance", True), _worst_balance))
    own = [(column, partial(_of_group, make, groups)) for column, make in own]
    order = {key: position for position, key in enumerate(_order(results))}
    firsts = [group[0] for _, group in sorted(groups.items(), key=lambda item: order.get(item[0], len(order)))]
    note = "Packets from the sender to the receiver, medians; balance: the worst of all trials, 0 where each packet is "
    note += "accounted for."
    return _build(LEDGER, "The ledger of packets", note, [*_keys(firsts), *own], firsts)


def _probes(results: Results) -> Table:
    own: _Spec = [
        (Column("path"), lambda probe: _text(label(probe.path))),
        (Column("rate", True), lambda p: _formatted(p.rate_bps, format_rate)),
        (Column("RTT, median", True), lambda p: _formatted((p.rtt_ms or {}).get("median"), _ms)),
        (Column("RTT, p99", True), lambda p: _formatted((p.rtt_ms or {}).get("p99"), _ms)),
        (Column("loss", True), lambda p: _formatted(p.loss, format_fraction)),
        (Column("emulator's CPU", True), lambda p: _formatted(p.emulator_cpu_share, lambda v: f"{v:.0%}")),
        (Column("as asked"), lambda p: _text({True: "yes", False: "no"}.get(p.is_met, NOTHING))),
        (Column("in words", is_prose=True), lambda p: _text(printable(p.text, 400))),
    ]
    note = "Each path, measured before anything was sent over it."
    return _build(PROBES, "The paths as measured", note, own, results.probes)


def _trouble(results: Results) -> Table:
    bad = [trial for trial in results.trials if trial.error or trial.marks]
    own: _Spec = [
        (Column("trial", True), lambda t: Cell(str(t.position + 1), t.position)),
        (Column("block", True), lambda t: Cell("warm-up" if t.block < 0 else str(t.block + 1), t.block)),
        (Column("marks"), lambda t: _text(", ".join(printable(mark) for mark in t.marks))),
        (Column("error", is_prose=True), lambda t: _text(printable(t.error or "", 400))),
    ]
    note = "In a verdict a transfer that failed has a goodput of 0; a marked one counts as it was measured, and where "
    note += "more than a fifth of a side's trials are marked, nothing is claimed."
    return _build(TROUBLE, "Trials that failed or are marked", note, [*_keys(bad), *own], bad)


def _build(name: str, title: str, note: str, spec: _Spec, items: Sequence[Any]) -> Table:
    """Columns without any figure are left out."""
    rows = [[make(item) for _, make in spec] for item in items]
    kept = [number for number in range(len(spec)) if any(row[number].text != NOTHING for row in rows)]
    return Table(name, title, note, [spec[number][0] for number in kept], [[row[n] for n in kept] for row in rows])


def _keys(items: Sequence[Any]) -> list[tuple[Column, _Maker]]:
    """Path, size and transport; a size that is everywhere the same is said in the caption once."""
    keys: list[tuple[Column, _Maker]] = [(Column("path"), lambda item: _text(label(item.path)))]
    if len({item.payload_bytes for item in items}) > 1:
        keys.append((Column("size", True), lambda item: _size(item.payload_bytes)))
    return [*keys, (Column("transport"), lambda item: _text(label(item.transport)))]


def _order(results: Results) -> list[tuple[str, int, str]]:
    campaign = results.campaign
    return [(path, size, label) for path in campaign.paths for size in campaign.sizes for label in campaign.transports]


def _cell_key(trial: Trial) -> tuple[str, int, str]:
    return trial.path, trial.payload_bytes, trial.transport


def _of_group(
    make: Callable[[Sequence[Trial]], Cell], groups: Mapping[tuple[str, int, str], Sequence[Trial]], first: Trial
) -> Cell:
    return make(groups[_cell_key(first)])


def _text(text: str) -> Cell:
    return Cell(text, text) if text and text != NOTHING else _EMPTY


def _number(value: float | None, form: str) -> Cell:
    return _EMPTY if value is None else Cell(form.format(value), value)


def _formatted(value: float | None, form: Callable[[float], str]) -> Cell:
    return _EMPTY if value is None else Cell(form(value), value)


def _size(value: float | None) -> Cell:
    return _formatted(value, format_size)


def _ms(value: float) -> str:
    return format_seconds(value / 1e3)


def _estimated(estimate: Any, form: Callable[[Any], str]) -> Cell:
    return _EMPTY if estimate is None else Cell(form(estimate), estimate.value)


def _goodput(row: Row) -> Cell:
    if row.goodput_bps is None:
        return Cell("failed" if row.trials else "not run", None)
    return Cell(format_rate(row.goodput_bps.value), row.goodput_bps.value)


def _total(row: Row) -> float:
    return sum((row.reasons or {}).values())


def _share(row: Row, key: str) -> Cell:
    seconds, total = (row.reasons or {}).get(key, 0.0), _total(row)
    return Cell(f"{seconds / total:.0%}", seconds / total) if seconds and total else _EMPTY


def _delay(row: Row, name: str) -> Cell:
    return _formatted((row.delay_ms or {}).get(name), _ms)


def _competition(row: Row, name: str, form: Callable[[float], str]) -> Cell:
    return _EMPTY if row.competition is None else _formatted(getattr(row.competition, name), form)


def _told(group: Sequence[Trial], name: str) -> list[float]:
    ledgers: list[Mapping[str, Any]] = [trial.ledger for trial in group if trial.ledger is not None]
    return [ledger[name] for ledger in ledgers if isinstance(ledger.get(name), int | float)]


def _count(group: Sequence[Trial], name: str) -> Cell:
    told = _told(group, name)
    return _number(median(told) if told else None, "{:.0f}")


def _worst_balance(group: Sequence[Trial]) -> Cell:
    told = _told(group, "balance")
    return _number(max(told, key=abs) if told else None, "{:.0f}")
