"""The table of conditions: the settings under which trials ran, each said once, and where they differed between trials.

What all trials of a campaign have in common stands in the note. The columns show the rest: what differs from transport
to transport, what the kernel has tuned, and how much other work there was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from toolkit.comparison.conditions import SocketSettings, TrialConditions, counted_settings
from toolkit.comparison.machine_load import MachineLoad
from toolkit.comparison.records import Results
from toolkit.errors import printable
from toolkit.report.cells import EMPTY, Cell, Column, Columns, Table, build, key_columns, text_cell
from toolkit.units import format_size

CONDITIONS = "conditions"
_DIFFERS = "differs:"


@dataclass(frozen=True, slots=True)
class _Group:
    """The trials of one transport on one path at one size, and what they say of each setting."""

    path: str
    payload_bytes: int
    transport: str
    conditions: Sequence[TrialConditions]
    settings: Mapping[str, Mapping[str, int]]


def conditions_table(results: Results) -> Table:
    """A row for each transport, path and size whose trials recorded their conditions."""
    groups = _groups(results)
    names = dict.fromkeys(name for group in groups for name in group.settings)
    common = {name: text for name in names if (text := _common(groups, name)) is not None}
    columns: Columns[_Group] = [
        (Column("send buffer", True), partial(_buffer, of=lambda each: each.sender, name="send_buffer_bytes")),
        (Column("receive buffer", True), partial(_buffer, of=lambda each: each.receiver, name="receive_buffer_bytes")),
        *((Column(name), partial(_setting, name=name)) for name in names if name not in common),
        (Column("other work", True), partial(_share, of=lambda load: load.foreign_share)),
        (Column("hypervisor", True), partial(_share, of=lambda load: load.steal_share)),
    ]
    notes = [
        "Buffers are those at the end of a trial, the smallest and the largest.",
        "Other work, and the hypervisor: what they took of all processors, the median and the most in a trial.",
    ]
    if any(len(texts) > 1 for group in groups for texts in group.settings.values()):
        notes.append("A setting that differed between the trials of a row shows how many trials had each value.")
    if common:
        notes.append(f"The same in all trials: {'; '.join(f'{name} {text}' for name, text in common.items())}.")
    if results.campaign.host.governors:
        notes.append(f"CPU governor: {', '.join(printable(each, 40) for each in results.campaign.host.governors)}.")
    return build(CONDITIONS, "Conditions", " ".join(notes), [*key_columns(groups), *columns], groups)


def _groups(results: Results) -> list[_Group]:
    found = []
    for path in results.campaign.paths:
        for size in results.campaign.sizes:
            for transport in results.campaign.transports:
                known = [
                    trial.conditions
                    for trial in results.trials
                    if (trial.path, trial.payload_bytes, trial.transport) == (path, size, transport)
                    and trial.block >= 0
                    and trial.conditions is not None
                ]
                if known:
                    found.append(_Group(path, size, transport, known, counted_settings(known)))
    return found


def _common(groups: Sequence[_Group], name: str) -> str | None:
    """The one text that all trials have for a setting; None if there are several, or a group has none."""
    texts = {text for group in groups for text in group.settings.get(name, {"": 0})}
    return printable(texts.pop(), 200) if len(texts) == 1 else None


def _setting(group: _Group, name: str) -> Cell:
    texts = group.settings.get(name)
    if not texts:
        return EMPTY
    if len(texts) == 1:
        return text_cell(printable(next(iter(texts)), 200))
    counted = ", ".join(f"{printable(text, 200)} ({count})" for text, count in texts.items())
    return text_cell(f"{_DIFFERS} {counted}")


def _buffer(group: _Group, of: Callable[[TrialConditions], SocketSettings | None], name: str) -> Cell:
    ends = [end for each in group.conditions if (end := of(each)) is not None]
    sizes = [size for end in ends if (size := getattr(end, name)) is not None]
    if not sizes:
        return EMPTY
    low, high = format_size(min(sizes)), format_size(max(sizes))
    return Cell(low if low == high else f"{low} to {high}", max(sizes))


def _share(group: _Group, of: Callable[[MachineLoad], float]) -> Cell:
    shares = [of(each.load) for each in group.conditions if each.load is not None]
    if not shares:
        return EMPTY
    return Cell(f"{median(shares):.0%}, {max(shares):.0%}", median(shares))
