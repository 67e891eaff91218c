"""A grid of simulated paths: a TOML file, and the cells that it stands for.

    cc = ["bbr", "cubic"]           # congestion controls
    sizes = ["4MiB"]                # or `time = ["10s"]`
    seeds = 3                       # how often each path is simulated, from `seed` on
    seed = 1
    flows = 1                       # with `stagger = "5s"` between their starts

    [link]                          # options of `nettool link`, and queues like "4bdp"; [[link]] for several tables
    rate = ["10Mbit", "100Mbit"]
    rtt = ["10ms", "40ms", "160ms"]
    loss = ["0%", "0.1%", "1%"]

Every combination is a cell, and its number is its place in the order of the file. A cell needs nothing but itself and
gives the same line of JSON on every machine. Impairments apply in both directions, as in `nettool sim`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.comparison.toml_table import TomlTable, read_toml
from toolkit.errors import UsageError, printable_path
from toolkit.netmodel.notation import LinkText
from toolkit.netmodel.profiles import profile
from toolkit.netmodel.scenarios import scenario
from toolkit.netmodel.spec import LinkSpec
from toolkit.report.simulation import as_json
from toolkit.rudp.congestion import base as congestion
from toolkit.simulator.notation import fixed_rate_bps, formatted, simulated_link
from toolkit.simulator.simulator import Experiment, FlowSpec, run
from toolkit.units import parse_duration_ns, parse_size

SCHEMA = 1
MAX_CELLS = 10_000_000
_MAX_SEED = (1 << 32) - 1
_MAX_FLOWS = 1000
_TYPES: Mapping[str, type] = {"both_ways": bool, "jitter_reorders": bool, "mtu": int}
"""Types of the options of a link that are not text."""
_BASES = ("link", "scenario")
_DEFAULTS = {"rate": ["100Mbit"], "rtt": ["40ms"], "loss": ["0%"]}
"""What `nettool sim` assumes too, for a link that starts from no named one."""


@dataclass(frozen=True, slots=True)
class GridCell:
    """One simulation.

    number: its place in the grid, from 0
    names:  what distinguishes it from the others: key -> value, as text
    flows:  what the senders do, without the fields that depend on the link
    """

    number: int
    names: Mapping[str, str]
    link: LinkSpec
    flows: Sequence[FlowSpec]

    def line(self) -> str:
        """Simulate it; the result as a line of JSON, without the newline (docs/data-format.md)."""
        control = self.flows[0].congestion_control
        rate_bps = fixed_rate_bps(control, self.link)
        flows = [replace(flow, rate_bps=rate_bps) for flow in self.flows]
        result = as_json(dict(self.names), run(Experiment(self.link, flows)))
        return json.dumps({"schema": SCHEMA, "kind": "cell", "cell": self.number, **result}, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Grid:
    """What a grid file says; `cells` makes the cells one after the other, so that any number fits into memory.

    links:    one for each [link] table: option -> its values
    controls: names of congestion controls
    content:  sizes or durations, as (key, text): ("size", "4MiB") or ("time", "10s")
    seeds:    of the links
    """

    links: Sequence[Mapping[str, Sequence[Any]]]
    controls: Sequence[str]
    content: Sequence[tuple[str, str]]
    seeds: Sequence[int]
    flows: int = 1
    stagger_ns: int = 0

    @property
    def size(self) -> int:
        """Number of cells."""
        links = 0
        for table in self.links:
            combinations = 1
            for values in _varied(table).values():
                combinations *= len(values)
            links += combinations
        return links * len(self.content) * len(self.controls) * len(self.seeds)

    def cells(self) -> Iterator[GridCell]:
        """The cells in their order. Raises UsageError if a link makes no sense."""
        numbers = iter(range(self.size))
        for names, text, base in self._texts():
            link = simulated_link(text, base)
            for (key, content), control, seed in product(self.content, self.controls, self.seeds):
                flows = [replace(_flow(key, content), congestion_control=control)] * self.flows
                flows = [replace(flow, start_ns=place * self.stagger_ns) for place, flow in enumerate(flows)]
                of_cell = {**names, key: content, "cc": control, "seed": str(seed)}
                yield GridCell(next(numbers), of_cell, replace(link, seed=seed), flows)

    def check(self) -> None:
        """Raise UsageError if any cell cannot be simulated, before the first one is."""
        if self.size > MAX_CELLS:
            raise UsageError(f"a grid has at most {MAX_CELLS:,} cells, and this one {self.size:,}: make several of it")
        for _names, text, base in self._texts():
            simulated_link(text, base)

    def header(self) -> str:
        """The first line of the file of results: what was asked, so that a later run can tell whether it goes on."""
        grid = {
            "links": [{name: list(values) for name, values in table.items()} for table in self.links],
            "cc": list(self.controls),
            "content": [list(each) for each in self.content],
            "seeds": list(self.seeds),
            "flows": self.flows,
            "stagger_ns": self.stagger_ns,
        }
        return json.dumps({"schema": SCHEMA, "kind": "grid", "version": __version__, "cells": self.size, "grid": grid})

    def _texts(self) -> Iterator[tuple[dict[str, str], LinkText, LinkSpec | None]]:
        """Every link: what distinguishes it, its text, and the named link that the text changes."""
        for table in self.links:
            varied = _varied(table)
            for values in product(*varied.values()):
                chosen = dict(zip(varied, values, strict=True))
                names = {name: formatted(name, str(value)) for name, value in chosen.items()}
                words = {name: value for name, value in chosen.items() if name not in _BASES}
                text = replace(LinkText(both_ways=True, changes=tuple(table.get("changes", ()))), **words)
                yield names, text, _base(chosen)


def read_grid(path: Path) -> Grid:
    """Raises UsageError, with one line that names the key, if the file is not a grid."""
    shown = printable_path(path)
    table = TomlTable(read_toml(path, "a grid"), shown)
    controls = table.list(str, "cc") or [congestion.DEFAULT_CONTROLLER]
    sizes, times = table.list(str, "sizes"), table.list(str, "time")
    first, count = table.take(int, "seed"), table.take(int, "seeds")
    flows, stagger = table.take(int, "flows"), table.take(str, "stagger")
    links = [_link(TomlTable(each, f"{shown}, [link]")) for each in table.list(dict, "link") or [{}]]
    table.finish()
    if bool(sizes) == bool(times):
        raise UsageError(f"{shown}: give 'sizes' or 'time': how much each flow sends, or for how long")
    start, number = 1 if first is None else first, 1 if count is None else count
    if not 0 <= start <= _MAX_SEED - number or not number >= 1:
        raise UsageError(f"{shown}: 'seed' must be from 0 to {_MAX_SEED}, and 'seeds' at least 1")
    if flows is not None and not 1 <= flows <= _MAX_FLOWS:
        raise UsageError(f"{shown}: 'flows' must be from 1 to {_MAX_FLOWS}")
    content = [*(("size", each) for each in sizes), *(("time", each) for each in times)]
    try:
        for name in controls:
            congestion.controller_factory(name)
        for key, text in content:
            _flow(key, text)
        stagger_ns = 0 if stagger is None else parse_duration_ns(stagger)
        grid = Grid(links, controls, content, range(start, start + number), flows or 1, stagger_ns)
        grid.check()
    except UsageError as error:
        raise UsageError(f"{shown}: {error}") from None
    return grid


def _link(table: TomlTable) -> Mapping[str, Sequence[Any]]:
    known = [each.name for each in fields(LinkText) if each.name not in ("trace", "trace_back", "seed")]
    written: dict[str, Sequence[Any]] = {name: table.list(_TYPES.get(name, str), name) for name in (*_BASES, *known)}
    table.finish()
    given = {name: values for name, values in written.items() if values}
    if not any(name in given for name in _BASES):
        given = {**_DEFAULTS, **given}
    if all(name in given for name in _BASES):
        raise UsageError(f"{table.where}: a scenario contains a link: give 'link' or 'scenario'")
    return given


def _varied(table: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The options whose values are combined: all but the changes, which belong together."""
    return {name: values for name, values in table.items() if name != "changes"}


def _base(chosen: Mapping[str, Any]) -> LinkSpec | None:
    if "link" in chosen:
        return profile(chosen["link"]).spec
    return scenario(chosen["scenario"]).link if "scenario" in chosen else None


def _flow(key: str, text: str) -> FlowSpec:
    value = parse_size(text) if key == "size" else parse_duration_ns(text)
    if not value:
        raise UsageError(f"nothing to send: '{'sizes' if key == 'size' else 'time'}' must be more than zero")
    return FlowSpec(size_bytes=value) if key == "size" else FlowSpec(duration_ns=value)
