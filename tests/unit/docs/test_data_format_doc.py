"""docs/data-format.md names every kind of object that is written for programs, and their fields."""

import ast
import re
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from tests.support.background import PATIENCE_S, together
from toolkit.channel import Address, TransportOptions
from toolkit.comparison.diff import CellChange
from toolkit.comparison.records import MARKS, Campaign, Outage, Probe, Trial
from toolkit.emulator.accounting import EMULATOR, KERNEL, LinkAccounting, PathAccounting
from toolkit.emulator.check import Finding
from toolkit.netmodel.path import DROP_REASONS
from toolkit.report.simulation import as_json
from toolkit.simulator.result import ExperimentResult, FlowResult
from toolkit.transports.registry import transport

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "data-format.md").read_text("utf-8")
OUTCOME = ExperimentResult([], 1, 1.0, None, 0.0, 0.0, None, [])
LEDGER = LinkAccounting("tun", 1, PathAccounting(), PathAccounting(), 1)


def words(text: str) -> set[str]:
    return set(re.findall(r"`([\w.-]+)`", text))


def sections() -> dict[str, str]:
    """Kind -> all that stands under the headings that name it."""
    found: dict[str, str] = {}
    for heading, text in re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL):
        for kind in words(heading):
            found[kind] = found.get(kind, "") + text
    return found


def emitted() -> set[str]:
    """The kinds that commands print."""
    calls = [
        node
        for path in (ROOT / "toolkit" / "cli").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print_json"
    ]
    kinds = [call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)]
    assert len(kinds) == len(calls)
    return {str(kind) for kind in kinds}


def test_every_kind_has_a_section_and_every_section_a_kind() -> None:
    assert set(sections()) == emitted() | {"campaign", "probe", "trial", "rows", "cell", "outage"}  # of files


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("campaign", {field.name for field in fields(Campaign)}),
        ("probe", {field.name for field in fields(Probe)}),
        ("trial", {field.name for field in fields(Trial)} | set(MARKS)),
        ("outage", {field.name for field in fields(Outage)}),
        ("diff", {field.name for field in fields(CellChange)}),
        ("link", {*LEDGER.to_json(), *LEDGER.forward.to_json(), *DROP_REASONS, EMULATOR, KERNEL}),
        ("link-check", set(Finding("", "", "", None).to_json())),
        ("simulation", {*as_json({}, OUTCOME), *(field.name for field in fields(FlowResult))} - {"progress"}),
    ],
)
def test_the_section_names_every_field(kind: str, names: set[str]) -> None:
    assert names - words(sections()[kind]) == set()


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_the_table_names_exactly_the_counters_of_each_transport(name: str) -> None:
    section = PAGE.partition("## Counters of the transports\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    listed = {counter for names, transports, *_ in rows if name.upper() in transports for counter in words(names)}
    listener = transport(name).listen(Address("127.0.0.1", 0), TransportOptions())
    with closing(listener):
        channels = together(
            lambda: transport(name).connect(listener.address, TransportOptions()), lambda: listener.accept(PATIENCE_S)
        )
        for channel in channels:
            with closing(channel):
                assert set(channel.statistics()) == listed
