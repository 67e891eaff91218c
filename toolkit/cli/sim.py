"""`nettool sim`: simulate congestion controls on every combination of the given paths, and print a table.

The command line gives lists; each combination of their values is one experiment of `toolkit.simulator`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Annotated, ClassVar, TypeVar

from toolkit.cli.command import GroupDisplay, command, flag, number, option
from toolkit.cli.grid import GridArguments, simulate_grid
from toolkit.cli.help import GENERAL, is_typed
from toolkit.cli.link_options import DEFAULTS, LIST_FIELDS, PathArguments
from toolkit.cli.options import Json
from toolkit.cli.output import print_json, print_result, print_status, stderr_is_terminal
from toolkit.cli.values import positive_size_bytes
from toolkit.errors import ExitCode, TransferError, UsageError, printable_path
from toolkit.netmodel.notation import LinkText
from toolkit.netmodel.profiles import profile
from toolkit.netmodel.scenarios import SCENARIOS, SIZE_BYTES, scenario
from toolkit.netmodel.spec import LinkSpec
from toolkit.output_files import open_output
from toolkit.report.simulation import TRACE_HEADER, SimulationRow, as_json, table, trace_lines
from toolkit.rudp.congestion import base as congestion
from toolkit.simulator.notation import fixed_rate_bps, formatted, simulated_link
from toolkit.simulator.result import ExperimentResult
from toolkit.simulator.simulator import RECEIVE_WINDOW_BYTES, Experiment, FlowSpec, run
from toolkit.units import (
    format_duration_ns,
    format_size,
    parse_duration_ns,
    parse_size,
)

_MAX_FLOWS = 1000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FlowArguments:
    """What the simulated senders do."""

    PANEL: ClassVar[str] = "Flows"

    cc: Annotated[str, option("--cc", metavar="NAME[,...]", text="Congestion controls, for example bbr,cubic.")] = (
        congestion.DEFAULT_CONTROLLER
    )
    size: Annotated[
        str | None,
        option(
            "--size", metavar="SIZE", text="Bytes that each flow sends.", default="64MiB, unless --duration is given"
        ),
    ] = None
    duration: Annotated[
        str | None, option("--duration", metavar="TIME", text="Time that each flow sends, for example 60s.")
    ] = None
    flows: Annotated[
        int, number("--flows", low=1, high=_MAX_FLOWS, text="Number of flows that share the bottleneck.")
    ] = 1
    stagger: Annotated[
        str, option("--stagger", metavar="TIME", text="Delay between the starts of two flows, for example 5s.")
    ] = "0s"
    validate: Annotated[
        bool, flag("--validate", text="Add the round trip in which the receiver validates the sender's address.")
    ] = False
    receive_window: Annotated[
        str | None,
        option(
            "--receive-window",
            metavar="SIZE",
            text="Receive window at the beginning; it grows with the path.",
            default="8MiB, a quarter of the socket buffer",
        ),
    ] = None
    seed: Annotated[int, option("--seed", metavar="N", text="Seed of every random draw.")] = 1

    def spec(self) -> FlowSpec:
        """Return what one flow sends. Raises UsageError."""
        return FlowSpec(
            size_bytes=_size(self.size) if self.size or not self.duration else None,
            duration_ns=_duration_ns(self.duration) if self.duration else None,
            validates_address=self.validate,
            receive_window_bytes=RECEIVE_WINDOW_BYTES
            if self.receive_window is None
            else positive_size_bytes("--receive-window", self.receive_window),
        )


@command
def sim(
    flow: FlowArguments,
    path: Annotated[PathArguments, GroupDisplay(frozenset(LIST_FIELDS), {**DEFAULTS, "queue": "1bdp"})],
    scenarios: Annotated[
        str | None,
        option(
            "--scenario",
            metavar="NAME[,...]",
            text="Named scenario to start from, or all; the other path options override it.",
            panel=PathArguments.PANEL,
        ),
    ] = None,
    show_list: Annotated[bool, flag("--list", text="Print the scenarios, then exit.", panel=GENERAL)] = False,
    trace: Annotated[
        Path | None,
        option("--trace", metavar="FILE", text="Write windows, rates and RTTs over time as CSV.", panel=GENERAL),
    ] = None,
    json: Json = False,
    *,
    grid: GridArguments,
) -> int:
    """Simulate congestion control on any path, in virtual time.

    Runs nettool's own protocol engine over models of the path. A minute of traffic takes seconds, every rate and delay
    is possible, and the same command always prints the same figures. Each combination of the lists is one row.
    Impairments apply in both directions, and --queue also accepts multiples of the bandwidth-delay product, such as
    4bdp.

    \b
    Examples:
      nettool sim --cc bbr,cubic,newreno --loss 0%,1%,5%
      nettool sim --rate 10Gbit --rtt 300ms --size 4GiB
      nettool sim --flows 2 --duration 60s --queue 4bdp
      nettool sim --scenario all
      nettool sim --grid bench/fleet/simulated.toml --output results/grid.jsonl
    """
    if show_list:
        _print_scenarios(json)
        return ExitCode.OK
    if grid.grid is not None:
        return simulate_grid(
            grid, (flow, path, scenarios, trace) == (FlowArguments(), PathArguments(), None, None), json
        )
    if grid != GridArguments():
        raise UsageError("--workers, --scheduler, --output and --resume belong to --grid: add it, or leave them out")
    spec = flow.spec()
    links = list(_links(path, flow.seed, list(_bases(path.link, scenarios))))
    controls = _split(flow.cc, _known_control)
    rows = _run_all(spec, flow, product(links, controls), trace)
    if json:
        print_json("simulation", {"seed": flow.seed, "rows": [as_json(names, result) for names, result in rows]})
        return ExitCode.OK
    print_result(table(rows))
    print_result(
        f"\n{_payload(spec, flow.flows)}, seed {flow.seed}. The same command always prints the same figures.\n"
        "Goodput counts from the first packet of the handshake to the last acknowledgement. The ideal is the payload\n"
        "that the bottleneck carries and does not lose. The queue is the forward delay beyond propagation."
    )
    return ExitCode.OK


def _run_all(
    spec: FlowSpec,
    flow: FlowArguments,
    experiments: Iterable[tuple[tuple[dict[str, str], LinkSpec], str]],
    trace: Path | None,
) -> list[SimulationRow]:
    stagger_ns = parse_duration_ns(flow.stagger)
    if stagger_ns and flow.flows == 1 and is_typed("stagger"):
        raise UsageError("--stagger is the time between the starts of two flows: add --flows 2, or leave it out")
    rows: list[SimulationRow] = []
    with _TraceFile(trace) as sheet:
        for (names, link), control in experiments:
            if stderr_is_terminal():
                print_status(", ".join((*names.values(), control)))
            one = replace(spec, congestion_control=control, rate_bps=fixed_rate_bps(control, link))
            flows = [replace(one, start_ns=index * stagger_ns) for index in range(flow.flows)]
            result = run(Experiment(link, flows), sheet.interval_ns(link))
            rows.append(({**names, "cc": control}, result))
            sheet.write(len(rows), result)
    return rows


class _TraceFile:
    """The CSV file of --trace; does nothing if the option is absent."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __enter__(self) -> "_TraceFile":
        self._file = None if self._path is None else open_output(self._path, "--trace", TRACE_HEADER.encode())
        self._put([TRACE_HEADER])
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def interval_ns(self, link: LinkSpec) -> int | None:
        """Return the sampling interval, a quarter of the RTT but at least a millisecond; None without a file."""
        return None if self._file is None else max(1_000_000, link.rtt_ns // 4)

    def write(self, row: int, result: ExperimentResult) -> None:
        """Write the samples of row `row` of the table."""
        self._put(trace_lines(row, result.samples))

    def _put(self, lines: Iterable[str]) -> None:
        if self._file is None:
            return
        try:
            self._file.writelines(f"{line}\n".encode("ascii") for line in lines)
            self._file.flush()
        except OSError as error:
            with suppress(OSError):  # it would try again to write what it holds
                self._file.close()
            reason = f"{printable_path(self._path)}: {error.strerror}"
            raise TransferError(f"cannot write {reason}; choose another file") from None


def _print_scenarios(json: bool) -> None:
    if json:
        print_json("scenarios", {"scenarios": {one.name: one.meaning for one in SCENARIOS.values()}})
    else:
        print_result("\n".join(f"{one.name:12} {one.meaning}" for one in SCENARIOS.values()))


def _split(text: str, parse: Callable[[str], _T]) -> list[_T]:
    return [parse(part.strip()) for part in text.split(",")]


def _size(text: str | None) -> int:
    size_bytes = SIZE_BYTES if text is None else parse_size(text)
    if not size_bytes:
        raise UsageError("nothing to send: --size must be at least one byte")
    return size_bytes


def _duration_ns(text: str) -> int:
    duration_ns = parse_duration_ns(text)
    if not duration_ns:
        raise UsageError("no time to send: --duration must be longer than zero")
    return duration_ns


def _known_control(name: str) -> str:
    congestion.controller_factory(name)
    return name


def _bases(links: str | None, scenarios: str | None) -> Iterator[tuple[dict[str, str], LinkSpec | None]]:
    """Yield the links that the path options change, each with its column in the table; one None if none is named."""
    if links is not None and scenarios is not None:
        raise UsageError("a scenario contains a link: use either --link or --scenario")
    if links is not None:
        for name in _split(links, str):
            yield {"link": name}, profile(name).spec
    elif scenarios is not None:
        for name in list(SCENARIOS) if scenarios == "all" else _split(scenarios, str):
            yield {"scenario": name}, scenario(name).link
    else:
        yield {}, None


def _links(
    path: PathArguments, seed: int, bases: list[tuple[dict[str, str], LinkSpec | None]]
) -> Iterator[tuple[dict[str, str], LinkSpec]]:
    """Yield every combination of the lists, each with the table columns that distinguish it."""
    text = LinkText(**path.impairments(), changes=tuple(path.at or ()), both_ways=True, seed=seed)
    lists = {"rate": path.rate, "rtt": path.rtt, "loss": path.loss}
    for column, base in bases:
        given = {name: value or DEFAULTS[name] for name, value in lists.items() if value is not None or base is None}
        for values in product(*(_split(value, str) for value in given.values())):
            chosen = dict(zip(given, values, strict=True))
            one = replace(text, rate=chosen.get("rate"), rtt=chosen.get("rtt"), loss=chosen.get("loss"))
            names = {name: formatted(name, value) for name, value in chosen.items()}
            yield {**column, **names}, simulated_link(one, base)


def _payload(flow: FlowSpec, flows: int) -> str:
    parts = []
    if flow.size_bytes is not None:
        parts.append(format_size(flow.size_bytes))
    if flow.duration_ns is not None:
        parts.append(format_duration_ns(flow.duration_ns))
    return f"{flows} flow{'s' if flows > 1 else ''} of {' or '.join(parts)}"
