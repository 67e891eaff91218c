"""What the records of a fleet show of each pair of hosts, and which pairs stand out: figures, before any layout."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.comparison.records import CONTROL_SUFFIX, Outage, Trial
from toolkit.comparison.rows import BASELINE, Row
from toolkit.comparison.summary import Summary
from toolkit.errors import ExitCode, UsageError, printable
from toolkit.report.labels import label
from toolkit.units import format_fraction, format_rate, format_ratio

SLOW_SHARE = 0.5
"""A pair is slow below this share of what is usual: see `_usual_bps`."""
LOSSY_SHARE = 0.005
ASYMMETRIC_FACTOR = 2.0
_GROUP, _GROUP_SHARE, _SHOWN_DETAILS = 3, 0.8, 3


@dataclass(frozen=True, slots=True, eq=False)
class PairFigures:
    """One direction between two hosts at one size.

    rows:   transport -> its row, without the A/A control
    resent: transport -> the share of its packets that it sent again, the median over trials that arrived
    rtt_ms: the smallest round trip that a transfer has seen, the median over trials; None where none arrived
    outage: why the pair was given up; None if it was not
    failure: transport -> why none of its trials arrived, for those of which none did
    unconnected: those of them of which no trial even connected
    """

    sender: str
    receiver: str
    payload_bytes: int
    content: str
    rows: Mapping[str, Row]
    resent: Mapping[str, float]
    rtt_ms: float | None
    outage: Outage | None
    failure: Mapping[str, str]
    unconnected: Container[str] = ()

    @property
    def goodput_bps(self) -> float | None:
        """That of the fastest transport; None if nothing arrived."""
        known = [row.goodput_bps.value for row in self.rows.values() if row.goodput_bps is not None]
        return max(known, default=None)

    @property
    def rivals(self) -> Sequence[Row]:
        """The rows that are compared with the baseline."""
        return [row for row in self.rows.values() if row.verdict != BASELINE]

    @property
    def reason(self) -> str:
        """Why the figures are as they are, or why there are none."""
        if self.outage is not None:
            return f"{self.outage.host} was missing: {printable(self.outage.reason)}"
        whys = [f"{row.transport}: {printable(row.why)}" for row in self.rows.values() if row.why]
        becauses = [f"{row.transport}: {printable(row.because)}" for row in self.rivals if row.because]
        return " ".join([*becauses, *whys])


def hosts_of(summary: Summary) -> list[str]:
    """The hosts in the order of the mesh file. Raises UsageError if the records are not of a fleet."""
    paths = summary.results.campaign.paths.values()
    if not all(path.sender and path.receiver for path in paths):
        raise UsageError("these records are not of a fleet: 'nettool report' shows them")
    named = [name for path in paths for name in (path.sender, path.receiver) if name is not None]
    return list(dict.fromkeys([*summary.results.campaign.hosts, *named]))


def pair_figures(summary: Summary) -> list[PairFigures]:
    """The figures of every pair and size, in the order of the records. Raises as `hosts_of`."""
    hosts_of(summary)
    campaign = summary.results.campaign
    trials: dict[tuple[str, int, str], list[Trial]] = {}
    for trial in summary.results.trials:
        trials.setdefault((trial.path, trial.payload_bytes, trial.transport), []).append(trial)
    given_up = {each.path: each for each in summary.results.outages if each.is_final}
    rows: dict[tuple[str, int], dict[str, Row]] = {}
    for row in summary.rows:
        if not row.transport.endswith(CONTROL_SUFFIX):
            rows.setdefault((row.path, row.payload_bytes), {})[row.transport] = row
    found = []
    for (path, size), of_pair in rows.items():
        record = campaign.paths[path]
        own = {name: trials.get((path, size, name), []) for name in of_pair}
        is_complete = all(len(each) >= campaign.repeats for each in own.values())
        round_trips = [
            t.sender.rtt_min_ms for each in own.values() for t in each if t.is_counted and t.sender.rtt_min_ms
        ]
        found.append(
            PairFigures(
                sender=str(record.sender),
                receiver=str(record.receiver),
                payload_bytes=size,
                content=campaign.content_text(size),
                rows=of_pair,
                resent={name: share for name, each in own.items() if (share := _resent(each)) is not None},
                rtt_ms=median(round_trips) if round_trips else None,
                outage=None if is_complete else given_up.get(path),
                failure={
                    name: printable(each[-1].error or "no transfer was verified")
                    for name, each in own.items()
                    if each and not any(trial.is_counted for trial in each)
                },
                unconnected=[
                    name
                    for name, each in own.items()
                    if each and all(trial.sender.exit_code == ExitCode.UNREACHABLE for trial in each)
                ],
            )
        )
    return found


def stand_outs(pairs: Sequence[PairFigures]) -> list[str]:
    """What an engineer looks at first, as sentences: missing pairs, transports that fail, slow and lossy
    pairs, and those whose two directions differ. What holds of most pairs from or to a host is one sentence. Each size
    is looked at by itself, and named where the sentence does not hold for all."""
    by_content: dict[str, list[PairFigures]] = {}
    for pair in pairs:
        by_content.setdefault(pair.content, []).append(pair)
    found: dict[str, list[str]] = {}
    for content, these in by_content.items():
        for line in _stand_outs_of_size(these):
            found.setdefault(line, []).append(content)
    return [
        line if len(contents) == len(by_content) else f"{', '.join(contents)}: {line}"
        for line, contents in found.items()
    ]


def _stand_outs_of_size(pairs: Sequence[PairFigures]) -> Iterator[str]:
    goodputs = {(pair.sender, pair.receiver): pair.goodput_bps for pair in pairs if pair.goodput_bps}
    usual_bps = _usual_bps(goodputs)
    found: dict[str, dict[PairFigures, str]] = {}
    for pair in pairs:
        for what, detail in _remarkable(pair, goodputs.get((pair.receiver, pair.sender)), usual_bps):
            found.setdefault(what, {})[pair] = detail
    for what, these in found.items():
        yield from _grouped(what, these, pairs)


def _usual_bps(goodputs: Mapping[tuple[str, str], float]) -> float:
    """The median over the hosts of the median over each one's pairs; 0 without any.

    Three slow hosts of eight are in more than half of the pairs, so that the median of these is itself slow.
    """
    of_hosts: dict[str, list[float]] = {}
    for pair, goodput_bps in goodputs.items():
        for host in pair:
            of_hosts.setdefault(host, []).append(goodput_bps)
    return median(map(median, of_hosts.values())) if of_hosts else 0.0


def _remarkable(pair: PairFigures, back_bps: float | None, usual_bps: float) -> Iterator[tuple[str, str]]:
    """What stands out of a pair: the end of a sentence that begins with its name, and a detail of this pair.

    back_bps:  goodput in the other direction; None if nothing arrived there
    usual_bps: see `_usual_bps`
    """
    if pair.outage is not None:
        yield "is incomplete", pair.reason
    goodput_bps = pair.goodput_bps
    if goodput_bps is None:
        if pair.failure and pair.outage is None:
            is_connected = any(name not in pair.unconnected for name in pair.failure)
            yield "completes no transfer" if is_connected else "never connects", next(iter(pair.failure.values()))
        return
    for name, failure in pair.failure.items():
        what = "never connects" if name in pair.unconnected else "completes no transfer"
        yield f"{what} over {name}, while others get through", failure
    if goodput_bps < SLOW_SHARE * usual_bps:
        yield f"is slow (a typical host's median is {format_rate(usual_bps)})", f"{format_rate(goodput_bps)} at best"
    factor = (back_bps or 0.0) / goodput_bps
    if factor > ASYMMETRIC_FACTOR:
        yield "is slower than the way back", f"by a factor of {format_ratio(factor)}"
    if pair.resent and min(pair.resent.values()) >= LOSSY_SHARE:
        share = format_fraction(round(min(pair.resent.values()), 4))
        is_all = pair.resent.keys() == pair.rows.keys()  # of one that does not arrive, nothing is known
        who = "every transport" if is_all else ", ".join(label(name) for name in pair.resent)
        yield "loses packets", f"{who} sends {share} or more again"


def _grouped(what: str, found: Mapping[PairFigures, str], pairs: Sequence[PairFigures]) -> Iterator[str]:
    """One sentence for each host of which most pairs, as the sender or as the receiver, are among `found`."""
    left = dict(found)
    for role, sentence in (("sender", "{host} to {others}"), ("receiver", "{others} to {host}")):
        for host in dict.fromkeys(getattr(pair, role) for pair in found):
            own = [pair for pair in pairs if getattr(pair, role) == host]
            these = [pair for pair in own if pair in found]
            if len(these) >= max(_GROUP, _GROUP_SHARE * len(own)) and any(pair in left for pair in these):
                details = list(dict.fromkeys(left.pop(pair, found[pair]) for pair in these))
                more = f"; and {len(details) - _SHOWN_DETAILS} more" if len(details) > _SHOWN_DETAILS else ""
                others = "every other host" if these == own else f"{len(these)} of {len(own)} hosts"
                start = sentence.format(host=printable(host, 40), others=others)
                yield f"{start[0].upper() if role == 'receiver' else start[0]}{start[1:]} {what}: " + (
                    "; ".join(details[:_SHOWN_DETAILS]) + f"{more}."
                )
    for pair, detail in left.items():
        yield f"{_name(pair)} {what}: {detail}."


def _name(pair: PairFigures) -> str:
    return printable(f"{pair.sender} to {pair.receiver}", 80)


def _resent(trials: Sequence[Trial]) -> float | None:
    shares = []
    for trial in trials:
        segments = trial.sender.counters.get("data_packets_sent")  # TCP's other count includes acknowledgements
        sent = segments if isinstance(segments, int | float) else trial.sender.packets_sent
        if trial.is_counted and sent and trial.retransmitted_packets is not None:
            shares.append(trial.retransmitted_packets / sent)
    return median(shares) if shares else None
