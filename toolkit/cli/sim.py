"""`nettool sim`: paths and congestion controls as lists, one simulated experiment for each combination, and a table."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Annotated, TypeVar

import typer

from toolkit.cli.common import emit, emit_json, is_terminal, say
from toolkit.cli.options import Json, option, reported
from toolkit.errors import TransferError, UsageError, printable
from toolkit.netmodel.notation import LinkText, link_spec
from toolkit.netmodel.profiles import profile
from toolkit.netmodel.scenarios import SCENARIOS, SIZE_BYTES, scenario
from toolkit.netmodel.spec import LinkSpec
from toolkit.report.simulation import TRACE_HEADER, Row, as_json, table, trace_lines
from toolkit.rudp.congestion import base as congestion
from toolkit.simulator.experiment import Experiment, ExperimentResult, run
from toolkit.simulator.simulator import IP_UDP_BYTES, FlowSpec
from toolkit.units import (
    format_duration_ns,
    format_fraction,
    format_rate,
    format_size,
    parse_duration_ns,
    parse_fraction,
    parse_rate,
    parse_size,
)

_DEFAULTS = {"rate": "100Mbit", "rtt": "40ms", "loss": "0%"}
_MAX_FLOWS = 1000
_BDP = re.compile(r"(\d{1,4}(?:\.\d{1,6})?)bdp", re.IGNORECASE)
_T = TypeVar("_T")


@reported
def sim(
    cc: Annotated[
        str, option("--cc", metavar="LIST", text="Congestion controls, like bbr,cubic.")
    ] = congestion.DEFAULT_CONTROLLER,
    rate: Annotated[str | None, option("--rate", metavar="LIST", text="Of the bottleneck. [default: 100Mbit]")] = None,
    rtt: Annotated[str | None, option("--rtt", metavar="LIST", text="Without any queue. [default: 40ms]")] = None,
    loss: Annotated[str | None, option("--loss", metavar="LIST", text="Each way, at random. [default: 0%]")] = None,
    size: Annotated[
        str | None, option("--size", metavar="SIZE", text="Of each flow. [default: 64MiB, without --duration]")
    ] = None,
    duration: Annotated[str | None, option("--duration", metavar="TIME", text="How long each flow sends.")] = None,
    flows: Annotated[int, typer.Option(min=1, max=_MAX_FLOWS, metavar="N", help="How many share the link.")] = 1,
    stagger: Annotated[str, option("--stagger", metavar="TIME", text="From one flow's start to the next.")] = "0s",
    queue: Annotated[
        str | None, option("--queue", metavar="QUEUE", text="4bdp, 500kB, 50ms, codel or codel,ecn. [default: 1bdp]")
    ] = None,
    burst: Annotated[
        str | None, option("--burst", metavar="SHARE:TIME", text="Bad periods: 2%:1ms loses all in them.")
    ] = None,
    jitter: Annotated[str | None, option("--jitter", metavar="TIME", text="Mean of a random delay, in order.")] = None,
    reorder: Annotated[str | None, option("--reorder", metavar="SHARE", text="Packets held back by 5 ms.")] = None,
    at: Annotated[
        list[str] | None,
        option("--at", metavar="CHANGE", text="'5s rate 20Mbit', or rtt, loss, blackout; repeatable."),
    ] = None,
    link: Annotated[
        str | None, option("--link", metavar="LIST", text="Links by name (nettool link --list), changed by the rest.")
    ] = None,
    scenarios: Annotated[
        str | None, option("--scenario", metavar="LIST", text="Scenarios by name, or all; changed by the rest.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show the scenarios.")] = False,
    validate: Annotated[bool, typer.Option("--validate", help="The receiver demands a proved address first.")] = False,
    seed: Annotated[int, option("--seed", metavar="N", text="Of every random draw.")] = 1,
    trace: Annotated[
        Path | None, option("--trace", metavar="FILE", text="Windows, rates and RTTs over time, as CSV.")
    ] = None,
    json: Json = False,
) -> None:
    """Simulate congestion controls over any path, in virtual time.

    Runs the protocol's own engine over models of the path: a minute takes seconds, no path is too fast or too
    long, and the same command gives the same figures. Each combination of the lists is a line of the table.

    \b
    nettool sim --cc bbr,cubic,newreno --loss 0%,1%,5%
    nettool sim --rate 10Gbit --rtt 300ms --size 4GiB
    nettool sim --flows 2 --duration 60s --queue 4bdp
    nettool sim --scenario all
    """
    if show_list:
        _show_list(json)
        return
    flow = FlowSpec(
        size_bytes=_size(size) if size or not duration else None,
        duration_ns=_duration_ns(duration) if duration else None,
        validates_address=validate,
    )
    stagger_ns = parse_duration_ns(stagger)
    text = LinkText(
        burst=burst, jitter=jitter, reorder=reorder, changes=tuple(at or ()), queue=queue, both_ways=True, seed=seed
    )
    links = list(_links(text, rate, rtt, loss, list(_bases(link, scenarios))))
    controls = _list(cc, _known)
    rows: list[Row] = []
    with _Trace(trace) as sheet:
        for (names, spec), control in product(links, controls):
            if is_terminal():
                say(", ".join((*names.values(), control)))
            one = replace(flow, congestion_control=control, rate_bps=_target_bps(control, spec))
            experiment = Experiment(spec, [replace(one, start_ns=index * stagger_ns) for index in range(flows)])
            outcome = run(experiment, sheet.interval_ns(spec))
            rows.append(({**names, "cc": control}, outcome))
            sheet.write(len(rows), outcome)
    if json:
        emit_json("simulation", {"seed": seed, "rows": [as_json(names, outcome) for names, outcome in rows]})
        return
    emit(table(rows))
    emit(
        f"\n{_payload(flow, flows)}, seed {seed}. Virtual time: the same command gives the same figures.\n"
        "Goodput counts from the first packet of the handshake to the last acknowledgement; the ideal is what the\n"
        "bottleneck carries of payload and does not lose. Queue: delay on the way there, beyond propagation."
    )


class _Trace:
    """The CSV file of --trace, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __enter__(self) -> "_Trace":
        try:
            self._file = None if self._path is None else self._path.open("w", encoding="ascii")
        except OSError as error:
            raise self._cannot_write(error) from None
        self._put([TRACE_HEADER])
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def interval_ns(self, link: LinkSpec) -> int | None:
        """Four samples a round trip, and no more than one a millisecond; None where nobody reads them."""
        return None if self._file is None else max(1_000_000, link.rtt_ns // 4)

    def write(self, row: int, outcome: ExperimentResult) -> None:
        """The samples of the table's line `row`."""
        self._put(trace_lines(row, outcome.samples))

    def _put(self, lines: Iterable[str]) -> None:
        if self._file is None:
            return
        try:
            self._file.writelines(f"{line}\n" for line in lines)
            self._file.flush()
        except OSError as error:
            raise self._cannot_write(error) from None

    def _cannot_write(self, error: OSError) -> TransferError:
        return TransferError(f"cannot write {printable(str(self._path), 80)}: {error.strerror}")


def _show_list(json: bool) -> None:
    if json:
        emit_json("scenarios", {"scenarios": {one.name: one.meaning for one in SCENARIOS.values()}})
    else:
        emit("\n".join(f"{one.name:12} {one.meaning}" for one in SCENARIOS.values()))


def _list(text: str, parse: Callable[[str], _T]) -> list[_T]:
    return [parse(part.strip()) for part in text.split(",")]


def _size(text: str | None) -> int:
    size_bytes = SIZE_BYTES if text is None else parse_size(text)
    if not size_bytes:
        raise UsageError("there is nothing to send: --size is one byte or more")
    return size_bytes


def _duration_ns(text: str) -> int:
    duration_ns = parse_duration_ns(text)
    if not duration_ns:
        raise UsageError("no time to send in: --duration is longer than nothing")
    return duration_ns


def _known(name: str) -> str:
    congestion.controller_factory(name)
    return name


def _target_bps(control: str, link: LinkSpec) -> float | None:
    """The controller `rate` is told the rate of the link, as a user who knows the path would."""
    rate_bps = link.forward.mean_rate_bps
    return rate_bps * (link.mtu_bytes - IP_UDP_BYTES) / link.mtu_bytes if control == "rate" and rate_bps else None


def _bases(links: str | None, scenarios: str | None) -> Iterator[tuple[dict[str, str], LinkSpec | None]]:
    """What the options change: links with names, or scenarios, or nothing."""
    if links is not None and scenarios is not None:
        raise UsageError("a scenario brings its own link: leave out --link or --scenario")
    if links is not None:
        for name in _list(links, str):
            yield {"link": name}, profile(name).spec
    elif scenarios is not None:
        for name in list(SCENARIOS) if scenarios == "all" else _list(scenarios, str):
            yield {"scenario": name}, scenario(name).link
    else:
        yield {}, None


def _links(
    text: LinkText,
    rates: str | None,
    rtts: str | None,
    losses: str | None,
    bases: list[tuple[dict[str, str], LinkSpec | None]],
) -> Iterator[tuple[dict[str, str], LinkSpec]]:
    """Every combination of what was written, with the columns that tell it from the others."""
    asked = {"rate": rates, "rtt": rtts, "loss": losses}
    for column, base in bases:
        written = {name: value or _DEFAULTS[name] for name, value in asked.items() if value is not None or base is None}
        for values in product(*(_list(value, str) for value in written.values())):
            chosen = dict(zip(written, values, strict=True))
            plain = replace(text, queue=None, rate=chosen.get("rate"), rtt=chosen.get("rtt"), loss=chosen.get("loss"))
            link = link_spec(replace(plain, queue=_in_bytes(text.queue, link_spec(plain, base))), base)
            if link.forward.mean_rate_bps is None:
                raise UsageError("without a bottleneck nothing takes time: give the link a --rate, like 1Gbit")
            yield {**column, **{name: _shown(name, value) for name, value in chosen.items()}}, link


def _shown(name: str, value: str) -> str:
    if name == "rate":
        return format_rate(parse_rate(value))
    return format_duration_ns(parse_duration_ns(value)) if name == "rtt" else format_fraction(parse_fraction(value))


def _in_bytes(queue: str | None, link: LinkSpec) -> str | None:
    """`queue` with bandwidth-delay products of `link` turned into bytes."""
    rate_bps = link.forward.mean_rate_bps or 0.0
    return queue and _BDP.sub(lambda found: str(int(float(found[1]) * rate_bps * link.rtt_ns / 8e9)), queue)


def _payload(flow: FlowSpec, flows: int) -> str:
    parts = []
    if flow.size_bytes is not None:
        parts.append(format_size(flow.size_bytes))
    if flow.duration_ns is not None:
        parts.append(format_duration_ns(flow.duration_ns))
    return f"{flows} flow{'s' if flows > 1 else ''} of {' or '.join(parts)}"
