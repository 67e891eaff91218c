"""`nettool sim`: paths and congestion controls as lists, one simulated experiment for each combination, and a table."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from toolkit.cli.common import emit, emit_json, is_terminal, say
from toolkit.cli.options import Json
from toolkit.errors import TransferError, UsageError, printable
from toolkit.link.scenarios import SCENARIOS, SIZE_BYTES, scenario
from toolkit.link.sim_experiment import Experiment, Outcome, run
from toolkit.link.simulator import IP_UDP_BYTES, FlowSpec
from toolkit.link.spec import BurstLoss, LinkSpec, PathSpec, QueueSpec
from toolkit.report.simulation import TRACE_HEADER, Row, as_json, table, trace_lines
from toolkit.rudp.congestion import registry as congestion
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

_DEFAULT_RATE = "100Mbit"
_DEFAULT_RTT = "40ms"
_DEFAULT_LOSS = "0%"
_MAX_FLOWS = 1000
_T = TypeVar("_T")


def sim(
    cc: Annotated[
        str, typer.Option("--cc", metavar="LIST", help="Congestion controls, like bbr,cubic.")
    ] = congestion.DEFAULT,
    rate: Annotated[
        str | None, typer.Option(metavar="LIST", help=f"Of the bottleneck. [default: {_DEFAULT_RATE}]")
    ] = None,
    rtt: Annotated[
        str | None, typer.Option(metavar="LIST", help=f"Without any queue. [default: {_DEFAULT_RTT}]")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="LIST", help=f"Each way, at random. [default: {_DEFAULT_LOSS}]")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of each flow. [default: 64MiB, without --duration]")
    ] = None,
    duration: Annotated[str | None, typer.Option(metavar="TIME", help="How long each flow sends.")] = None,
    flows: Annotated[int, typer.Option(min=1, max=_MAX_FLOWS, metavar="N", help="How many share the link.")] = 1,
    stagger: Annotated[str, typer.Option(metavar="TIME", help="From one flow's start to the next one's.")] = "0s",
    queue: Annotated[
        str, typer.Option(metavar="SIZE", help="Before the bottleneck, like 4bdp, 256KiB or 50ms.")
    ] = "1bdp",
    codel: Annotated[bool, typer.Option("--codel", help="CoDel (RFC 8289) manages the queue.")] = False,
    burst: Annotated[
        str | None, typer.Option(metavar="SHARE:TIME", help="Loss in bursts of TIME, SHARE of the time, like 2%:1ms.")
    ] = None,
    jitter: Annotated[str, typer.Option(metavar="TIME", help="Mean random delay, in order.")] = "0ms",
    validate: Annotated[bool, typer.Option("--validate", help="The receiver demands a proved address first.")] = False,
    scenarios: Annotated[
        str | None, typer.Option("--scenario", metavar="LIST", help="Named paths instead of these, or all.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show the scenarios and exit.")] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of every random draw.")] = 1,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write windows, rates and RTTs over time as CSV.")
    ] = None,
    json: Json = False,
) -> None:
    """Simulate congestion controls over any path, in virtual time.

    Runs the protocol's own engine over a model of the path, so that a minute takes a second, a path that no
    desk has needs no desk, and the same command gives the same figures.

    \b
    nettool sim --cc bbr,cubic,newreno --loss 0,1%,5%
    nettool sim --rate 10Gbit --rtt 300ms --size 4GiB
    nettool sim --flows 2 --duration 60s --queue 4bdp
    nettool sim --scenario all
    """
    if show_list:
        emit("\n".join(f"{one.name:12} {one.meaning}" for one in SCENARIOS.values()))
        return
    if scenarios is not None and (rate, rtt, loss, burst, queue, codel, jitter) != (
        None, None, None, None, "1bdp", False, "0ms",
    ):  # fmt: skip
        raise UsageError("a scenario brings its own path: leave out --rate, --rtt, --loss and what else makes one")
    flow = FlowSpec(
        size_bytes=_size(size) if size or not duration else None,
        duration_ns=parse_duration_ns(duration) if duration else None,
        validates_address=validate,
    )
    stagger_ns = parse_duration_ns(stagger)
    if scenarios is not None:
        links = _scenario_links(scenarios, seed)
    else:
        links = _links(
            _list(rate or _DEFAULT_RATE, parse_rate),
            _list(rtt or _DEFAULT_RTT, parse_duration_ns),
            _list(loss or _DEFAULT_LOSS, _parse_loss),
            PathSpec(
                queue=QueueSpec(codel=codel),
                burst=_parse_burst(burst) if burst else None,
                jitter_ns=parse_duration_ns(jitter),
            ),
            queue,
            seed,
        )
    controls = _list(cc, _known)
    rows: list[Row] = []
    with _Trace(trace) as sheet:
        for names, link in links:
            for control in controls:
                specs = [
                    replace(
                        flow,
                        congestion_control=control,
                        start_ns=index * stagger_ns,
                        rate_bps=_target_bps(control, link),
                    )
                    for index in range(flows)
                ]
                if is_terminal():
                    say(f"{', '.join(names.values())}, {control}")
                outcome = run(Experiment(link, specs), sheet.interval_ns(link))
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
            self._file = None if self._path is None else self._path.open("w", encoding="utf-8")
        except OSError as error:
            raise TransferError(f"cannot write {printable(str(self._path))}: {error.strerror}") from None
        self._put([TRACE_HEADER])
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def interval_ns(self, link: LinkSpec) -> int | None:
        """Four samples a round trip, and no more than one a millisecond; None where nobody reads them."""
        return None if self._file is None else max(1_000_000, link.rtt_ns // 4)

    def write(self, row: int, outcome: Outcome) -> None:
        """The samples of the table's line `row`."""
        self._put(trace_lines(row, outcome.samples))

    def _put(self, lines: object) -> None:
        if self._file is None:
            return
        try:
            self._file.writelines(f"{line}\n" for line in lines)  # type: ignore[attr-defined]
        except OSError as error:
            raise TransferError(f"cannot write {printable(str(self._path))}: {error.strerror}") from None


def _list(text: str, parse: Callable[[str], _T]) -> list[_T]:
    return [parse(part.strip()) for part in text.split(",")]


def _size(text: str | None) -> int:
    size_bytes = SIZE_BYTES if text is None else parse_size(text)
    if not size_bytes:
        raise UsageError("nothing to send: a --size of 1 byte is the least")
    return size_bytes


def _parse_loss(text: str) -> float:
    return 0.0 if text == "0" else parse_fraction(text)


def _parse_burst(text: str) -> BurstLoss:
    share, colon, mean = text.partition(":")
    if not colon:
        raise UsageError(f"'{printable(text, 40)}' is no burst loss: write a share of the time and a mean, like 2%:1ms")
    return BurstLoss.from_share(parse_fraction(share), parse_duration_ns(mean))


def _known(name: str) -> str:
    congestion.controller(name)
    return name


def _target_bps(control: str, link: LinkSpec) -> float | None:
    """The controller `rate` is told the rate of the link, as a user who knows the path would."""
    rate_bps = link.forward.mean_rate_bps
    return rate_bps * (link.mtu_bytes - IP_UDP_BYTES) / link.mtu_bytes if control == "rate" and rate_bps else None


def _queue(text: str, base: QueueSpec, rate_bps: float, rtt_ns: int) -> QueueSpec:
    """`text` as 4bdp, a size or a time."""
    if text.lower().endswith("bdp"):
        try:
            factor = float(text[:-3])
        except ValueError:
            factor = 0.0
        if not 0 < factor <= 1000:
            raise UsageError(f"'{printable(text, 40)}' is no queue: write it like 4bdp, 256KiB or 50ms")
        return base if factor == 1 else replace(base, limit_bytes=max(3000, int(factor * rate_bps * rtt_ns / 8e9)))
    if text.endswith("s"):
        return replace(base, limit_ns=parse_duration_ns(text))
    return replace(base, limit_bytes=parse_size(text))


def _links(
    rates: list[float], rtts: list[int], losses: list[float], base: PathSpec, queue: str, seed: int
) -> Iterator[tuple[dict[str, str], LinkSpec]]:
    for rate_bps, rtt_ns, loss in product(rates, rtts, losses):
        path = replace(base, rate_bps=rate_bps, loss=loss, queue=_queue(queue, base.queue, rate_bps, rtt_ns))
        names = {
            "rate": format_rate(rate_bps),
            "RTT": format_duration_ns(rtt_ns),
            "loss": format_fraction(loss),
        }
        forward, backward = replace(path, delay_ns=rtt_ns - rtt_ns // 2), replace(path, delay_ns=rtt_ns // 2)
        yield names, LinkSpec(forward, backward, seed=seed)


def _scenario_links(text: str, seed: int) -> Iterator[tuple[dict[str, str], LinkSpec]]:
    for name in list(SCENARIOS) if text == "all" else _list(text, str):
        yield {"scenario": name}, scenario(name).link(seed)


def _payload(flow: FlowSpec, flows: int) -> str:
    parts = []
    if flow.size_bytes is not None:
        parts.append(format_size(flow.size_bytes))
    if flow.duration_ns is not None:
        parts.append(format_duration_ns(flow.duration_ns))
    return f"{flows} flow{'s' if flows > 1 else ''} of {' or '.join(parts)}"
