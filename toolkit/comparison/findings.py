"""Verdicts as sentences: first the finding with its figures, then what stands behind it.

A finding repeats what a row of the table shows. The remarks say only what the table does not: why a verdict is
inconclusive and what would settle it, failures and marks, why the slowest was slow, and what the winner cost.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from toolkit.comparison.factorial import Factorial, factorial_text
from toolkit.comparison.pairs import counted_marks
from toolkit.comparison.records import CPU_BOUND, UNRELIABLE, Results
from toolkit.comparison.rows import BASELINE, SHORT, YARDSTICK, Row
from toolkit.comparison.verdict import CLAIMS, EQUIVALENT, FASTER, INCONCLUSIVE, NO_CLAIM, SLOWER, could_find, to_settle
from toolkit.units import format_fraction, format_rate, format_ratio, format_seconds, format_size

UNCHECKED = "Nothing checked what this machine can resolve: there was no A/A control."
_NOTHING = "There is nothing to compare it with."
_SHORTEST_QUEUE_S = 0.5e-3
"""An emulated link holds packets for 0.4 ms to write them together: less is no queue that a transfer has caused."""
_STILL = ": with more processor time it would have been faster still"
_CANNOT_TELL = "these trials cannot tell which is faster, or whether they are equivalent"


@dataclass(frozen=True, slots=True)
class PathVerdict:
    """What one path at one size shows: the rows compared there, and the verdicts in words.

    where:      the path and the size, for example "40 ms, 4 MiB"
    effects:    what transport and congestion control contribute, as sentences
    findings:   the verdicts with the figures that they rest on, as sentences
    remarks:    what the figures do not say, as sentences
    details:    the remarks, and what took each transport its time, or why it failed, as sentences
    is_claim:   whether any transport is faster, slower or equivalent
    factorials: what `effects` are made from, where combinations of both ran
    """

    path: str
    payload_bytes: int
    rows: Sequence[Row]
    where: str
    effects: Sequence[str]
    findings: Sequence[str]
    remarks: Sequence[str]
    details: Sequence[str]
    is_claim: bool
    factorials: Sequence[Factorial] = ()

    @property
    def sentence(self) -> str:
        """The effects, the verdicts and the remarks, without `where`."""
        return " ".join((*self.effects, *self.findings, *self.remarks))

    @property
    def effects_in_doubt(self) -> Sequence[str]:
        """Those of `effects` that say why there is no claim, or how the two interact; figures show the others."""
        shown = zip(self.effects, self.factorials, strict=False)
        return [
            text
            for text, found in shown
            if found.doubt or found.interacts or any(each is not None and each.because for each in found.verdicts)
        ]

    @property
    def text(self) -> str:
        """The sentence with the path and the size in front of it."""
        return f"{self.where}: {self.sentence}"


def path_verdict(results: Results, rows: Sequence[Row], factors: Sequence[Factorial] = ()) -> PathVerdict:
    """The verdicts on the rows of one path and size."""
    base = next(row for row in rows if row.transport == results.campaign.baseline)
    others = [
        row
        for row in rows
        if not row.is_control and row.verdict not in (BASELINE, YARDSTICK) and UNRELIABLE not in row.marks
    ]
    ranked = sorted((row for row in others if row.verdict != NO_CLAIM), key=lambda row: -_value(row))
    findings = [_finding(row, base) for row in ranked]
    effects = [factorial_text(each) for each in factors] if any(row.goodput_bps for row in rows) else []
    remarks = [*_unfit(others), *_remarks(ranked, base, rows), *(() if others else (_NOTHING,))]
    whys = [f"{row.transport}: {row.why}" for row in rows if row.why and not row.is_control]
    labels = [row.transport for row in rows]
    return PathVerdict(
        path=base.path,
        payload_bytes=base.payload_bytes,
        rows=rows,
        where=f"{base.path}, {base.content}",
        effects=[f"{text[:1].upper()}{text[1:]}." for text in effects],
        findings=findings,
        remarks=_together(remarks, labels),
        details=_together([*remarks, *whys], labels),
        is_claim=any(row.verdict in CLAIMS for row in ranked),
        factorials=factors,
    )


def _together(remarks: Iterable[str], labels: Sequence[str]) -> list[str]:
    """The remarks without repetition: what is said of several transports is said once, with all their names."""
    about: dict[str, list[str]] = {}
    for remark in remarks:
        name = next((label for label in labels if remark.startswith(f"{label}: ")), "")
        names = about.setdefault(remark.removeprefix(f"{name}: ") if name else remark, [])
        if name and name not in names:
            names.append(name)
    return [f"{', '.join(names)}: {text}" if names else text for text, names in about.items()]


def _unfit(rows: Sequence[Row]) -> Iterator[str]:
    """On which transports nothing is claimed, and why: each reason once."""
    because: dict[str, list[str]] = {}
    for row in rows:
        if row.verdict == NO_CLAIM:
            because.setdefault(row.because, []).append(row.transport)
    for reason, names in because.items():
        yield f"No claim on {', '.join(names)}: {reason}."


def _value(row: Row) -> float:
    return row.ratio.value if row.ratio is not None else 0.0


def _finding(row: Row, base: Row) -> str:
    """One verdict with the figures that it rests on."""
    figures = _figures(row, base)
    if row.verdict == EQUIVALENT:
        return f"{row.transport} and {base.transport} are equivalent within {format_fraction(row.margin)} ({figures})."
    if row.verdict == INCONCLUSIVE:
        return f"{row.transport} against {base.transport} is inconclusive ({figures})."
    by = f" by {_percent(row)}, which is negligible" if row.is_negligible else ""
    return f"{row.transport} is {row.verdict} than {base.transport}{by} ({figures})."


def _percent(row: Row) -> str:
    """How far a negligible ratio is from 1."""
    return "" if row.ratio is None else f"{abs(row.ratio.value - 1):.1%}"


def _figures(row: Row, base: Row) -> str:
    assert row.ratio is not None
    assert row.ratio.interval is not None
    low, high = row.ratio.interval
    blocks = max(row.trials, base.trials)
    pairs = f"{row.pairs} pairs" if row.pairs == blocks else f"{row.pairs} of {blocks} pairs"
    interval = f"95% interval {format_ratio(low)} to {format_ratio(high)}"
    figures = f"{format_ratio(row.ratio.value)} x its goodput in {pairs}, {interval}"
    if row.verdict in (FASTER, SLOWER) and row.goodput_bps is not None and base.goodput_bps is not None:
        if row.regime == SHORT and row.seconds is not None and base.seconds is not None:
            figures += f"; {format_seconds(row.seconds.value)} against {format_seconds(base.seconds.value)}"
        else:
            figures += f"; {format_rate(row.goodput_bps.value)} against {format_rate(base.goodput_bps.value)}"
    return figures


def _remarks(ranked: Sequence[Row], base: Row, rows: Sequence[Row]) -> Iterator[str]:
    for row in ranked:
        if row.verdict == INCONCLUSIVE:
            finest = could_find(row.resolution)
            yield f"{row.transport}: {row.because or _CANNOT_TELL}."
            yield f"{row.transport}: {finest}; {to_settle(row.more_blocks)}."
        elif row.verdict == EQUIVALENT:
            yield f"{row.transport}: {could_find(row.resolution)}."
    for row in (*ranked, base) if ranked else ():
        yield from _flaws(row, base)
    if ranked and not any(row.is_control for row in rows):
        yield UNCHECKED
    slowest, winner = _ends(ranked, base)
    if slowest is not None and slowest.why:
        yield f"{slowest.transport}: {slowest.why}"
    if winner is not None:
        yield from _price(winner, base if winner is not base else slowest)


def _flaws(row: Row, base: Row) -> Iterator[str]:
    if row.unequal_load is not None and row.load_share is not None and base.load_share is not None:
        yield (
            f"{row.transport}: other work did not disturb both sides alike: in the median it took "
            f"{format_fraction(row.load_share)} of all processors during its trials, and "
            f"{format_fraction(base.load_share)} during those of {base.transport}."
        )
    if row.is_loss_off and row.link_loss is not None and row.asked_loss is not None:
        seen, asked = format_fraction(row.link_loss.value), format_fraction(row.asked_loss)
        yield f"{row.transport}: the link lost {seen} of its packets, where {asked} was asked for."
    if row.drift is not None:
        change = format_ratio(row.drift)
        yield f"{row.transport} drifted: from the first trial to the last its goodput changed by a factor of {change}."
    if row.verified < row.trials:
        yield f"{row.transport}: {row.trials - row.verified} of {row.trials} transfers failed and count as 0."
    if row.unmarked < row.verified:
        marked = row.verified - row.unmarked
        marks = counted_marks(dict(zip(row.marks, row.mark_counts, strict=True)), marked)
        still = _STILL if row.verdict == FASTER and CPU_BOUND in row.marks else ""
        yield f"{row.transport}: {marked} of {row.trials} trials are marked {marks}{still}."
    if row.censored:
        yield f"{row.transport}: {row.censored} more pairs, in which both transfers failed, say nothing."


def _ends(ranked: Sequence[Row], base: Row) -> tuple[Row | None, Row | None]:
    """The slowest and the fastest transport, if the verdicts name them."""
    if not ranked:
        return None, None
    if ranked[0].verdict == FASTER:
        return (ranked[-1] if ranked[-1].verdict == SLOWER else base), ranked[0]
    return (ranked[-1], base) if ranked[-1].verdict == SLOWER else (None, None)


def _price(winner: Row, other: Row | None) -> Iterator[str]:
    """What the fastest spent to be fast, each figure beside the other's.

    In timed trials the fastest has moved more, so that each figure comes with what was moved. To divide by it would say
    little where a transfer is short or slow: most of its processor time does not depend on how much it moves.
    """
    parts = [
        part
        for part in (
            _beside("spent {} of processor time at both ends", _cpu, winner, other, _moved),
            _beside("added {} of queueing delay", _queue, winner, other),
            _resent(winner),
        )
        if part
    ]
    if parts:
        yield f"{winner.transport} {', '.join(parts[:-1])}{' and ' if parts[1:] else ''}{parts[-1]}."


def _resent(row: Row) -> str:
    if row.resent_per_lost is None:
        return ""
    return f"resent {format_ratio(row.resent_per_lost)} packets for each one lost"


def _beside(
    words: str, figure: Callable[[Row], str], row: Row, other: Row | None, moved: Callable[[Row], str] = lambda _: ""
) -> str:
    """A figure in words, with that of the other transport in brackets; empty if it is not known."""
    own, its = figure(row), figure(other) if other is not None else ""
    if not own:
        return ""
    rest = f" ({other.transport}: {its}{moved(other)})" if other is not None and its else ""
    return words.format(own) + moved(row) + rest


def _cpu(row: Row) -> str:
    seconds = _cpu_s(row)
    return format_seconds(seconds) if seconds is not None else ""


def _moved(row: Row) -> str:
    """What processor time was spent on, where that is not the same for all transports."""
    return f" for {format_size(row.content_bytes)}" if row.content_bytes and not row.payload_bytes else ""


def _queue(row: Row) -> str:
    seconds = _queue_s(row)
    if seconds is None:
        return ""
    return format_seconds(seconds) if seconds >= _SHORTEST_QUEUE_S else f"less than {format_seconds(_SHORTEST_QUEUE_S)}"


def _queue_s(row: Row) -> float | None:
    return max(0.0, row.delay_ms.median - row.delay_ms.base) / 1e3 if row.delay_ms is not None else None


def _cpu_s(row: Row) -> float | None:
    """Processor time of both ends for what a trial moved; None unless both are known."""
    if row.sender_cpu_s_per_gb is None or row.receiver_cpu_s_per_gb is None or not row.content_bytes:
        return None
    return (row.sender_cpu_s_per_gb + row.receiver_cpu_s_per_gb) * row.content_bytes / 1e9
