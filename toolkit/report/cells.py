"""Cells, columns and tables, and how they are built from items: a text with the figure behind it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from toolkit.report.labels import NOTHING, label, path_label
from toolkit.units import format_size

Value = float | str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    value:   the sort key: a number, the text itself, or None if there is no figure
    verdict: in a verdict column, the verdict without its reason; else ""
    """

    text: str
    value: Value
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """`is_figure`: numbers, aligned right. `is_prose`: sentences, which may take several lines."""

    title: str
    is_figure: bool = False
    is_prose: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`name` tells tables apart (`toolkit.report.tables`); `note` says how to read the table.

    Each row has one cell for each column.
    """

    name: str
    title: str
    note: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @property
    def without_prose(self) -> "Table":
        """The table without its columns of sentences."""
        kept = [n for n, column in enumerate(self.columns) if not column.is_prose]
        rows = [[row[n] for n in kept] for row in self.rows]
        return Table(self.name, self.title, self.note, [self.columns[n] for n in kept], rows)


class Keyed(Protocol):
    """An item that belongs to one transport on one path at one size."""

    @property
    def path(self) -> str: ...
    @property
    def payload_bytes(self) -> int: ...
    @property
    def transport(self) -> str: ...


Item = TypeVar("Item")
KeyedItem = TypeVar("KeyedItem", bound=Keyed)
Columns = list[tuple[Column, Callable[[Item], Cell]]]
"""Each column with the function that makes its cell from a row of data."""

EMPTY = Cell(NOTHING, None)


def build(name: str, title: str, note: str, columns: Columns[Item], items: Sequence[Item]) -> Table:
    """Make the cells and leave out the columns that are empty in every row."""
    rows = [[make(item) for _, make in columns] for item in items]
    kept = [number for number in range(len(columns)) if any(row[number].text != NOTHING for row in rows)]
    return Table(name, title, note, [columns[n][0] for n in kept], [[row[n] for n in kept] for row in rows])


def key_columns(items: Sequence[KeyedItem]) -> Columns[KeyedItem]:
    """Path, size and transport. A size that all items share is in the caption instead."""
    keys: Columns[KeyedItem] = [(Column("path"), lambda item: text_cell(path_label(item.path)))]
    if len({item.payload_bytes for item in items}) > 1:
        keys.append((Column("size", True), lambda item: figure_cell(item.payload_bytes, format_size)))
    return [*keys, (Column("transport"), lambda item: text_cell(label(item.transport)))]


def text_cell(text: str) -> Cell:
    """A text, which is its own sort key."""
    return Cell(text, text) if text and text != NOTHING else EMPTY


def number_cell(value: float | None, form: str) -> Cell:
    """A figure in a format like `{:.2f}`; EMPTY for None."""
    return EMPTY if value is None else Cell(form.format(value), value)


def figure_cell(value: float | None, form: Callable[[float], str]) -> Cell:
    """A figure, formatted by a function; EMPTY for None."""
    return EMPTY if value is None else Cell(form(value), value)
