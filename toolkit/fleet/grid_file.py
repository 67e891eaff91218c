"""The file of a grid's results: JSON lines that are kept as they come, and put into the order of cells at the end.

A line is written and flushed as soon as its cell is done, so that whatever ends a run costs only the cells that were
running. The finished file depends on nothing but the grid: not on who computed which cell, and when. Memory holds one
bit for each cell, and when the lines are sorted, eight bytes.
"""

import json
import os
from array import array
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from toolkit.errors import TransferError, UsageError, printable_path


class GridFile:
    """Results of a grid, open for more; a context manager that closes the file, and removes a new one without any."""

    def __init__(self, path: Path, header: str, size: int, *, is_resumed: bool) -> None:
        """header: the first line, which says what the grid is; size: number of its cells

        Raises UsageError if `path` has something else in it, or has results and `is_resumed` is False, and
        TransferError if it cannot be written.
        """
        self._path, self._shown = path, printable_path(path)
        self._header = header.encode()
        self._done = bytearray((size + 7) // 8)
        self._size = size
        self.count = 0
        self._is_new = not path.exists()
        try:
            has_results = path.exists() and path.stat().st_size > 0
            if has_results and not is_resumed:
                raise UsageError(f"{self._shown} is not empty: --resume continues it, or choose another --output")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if has_results else "wb")
            try:
                if has_results:
                    self._read()
                else:
                    self._append(self._header)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise self._cannot_write(error) from None

    def __enter__(self) -> "GridFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):  # a line that could not be written was reported, and stays in the buffer
            self._file.close()
        if self._is_new and not self.count:  # a run that did not begin needs no --resume
            self._path.unlink(missing_ok=True)

    def is_done(self, cell: int) -> bool:
        """Whether the result of this cell is in the file."""
        return bool(self._done[cell >> 3] >> (cell & 7) & 1)

    def write(self, cell: int, line: str) -> None:
        """Keep the result of a cell, unless it is there already. Raises TransferError."""
        if self.is_done(cell):
            return
        try:
            self._append(line.encode())
        except OSError as error:
            raise self._cannot_write(error) from None
        self._mark(cell)

    def sort(self) -> None:
        """Put the lines into the order of their cells. The file is replaced as a whole. Raises TransferError."""
        offsets = array("q", [-1]) * self._size
        is_sorted, last = True, -1
        sorted_path = self._path.with_name(f".{self._path.name}.sorted")
        try:
            with self._path.open("rb") as unsorted:
                at = len(unsorted.readline())
                for line in unsorted:
                    cell = _cell_of(line)
                    if cell is not None:
                        is_sorted, last, offsets[cell] = is_sorted and cell > last, cell, at
                    at += len(line)
                if is_sorted:
                    return
                with sorted_path.open("wb") as ordered:
                    ordered.write(self._header + b"\n")
                    for offset in offsets:
                        if offset >= 0:
                            unsorted.seek(offset)
                            ordered.write(unsorted.readline())
                    ordered.flush()
                    os.fsync(ordered.fileno())
            sorted_path.replace(self._path)
        except OSError as error:
            sorted_path.unlink(missing_ok=True)
            raise self._cannot_write(error) from None

    def _read(self) -> None:
        """Note which cells are done, and drop a last line that was cut short."""
        if self._file.readline().rstrip(b"\n") != self._header:
            raise UsageError(
                f"{self._shown} has not the results of this grid in this version of nettool: choose another --output"
            )
        end = self._file.tell()
        for line in self._file:
            cell = _cell_of(line)
            if cell is None or cell >= self._size:
                if line.endswith(b"\n"):
                    raise UsageError(f"{self._shown} has a line that is no result of a grid: choose another --output")
                break
            if not self.is_done(cell):
                self._mark(cell)
            end += len(line)
        self._file.seek(end)
        self._file.truncate()

    def _append(self, line: bytes) -> None:
        self._file.write(line + b"\n")
        self._file.flush()

    def _mark(self, cell: int) -> None:
        self._done[cell >> 3] |= 1 << (cell & 7)
        self.count += 1

    def _cannot_write(self, error: OSError) -> TransferError:
        return TransferError(f"cannot write {self._shown}: {error.strerror}; choose another --output")

    _file: BinaryIO


def _cell_of(line: bytes) -> int | None:
    """The number of the cell of a whole line; None if it is none."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    cell = entry.get("cell") if isinstance(entry, dict) and entry.get("kind") == "cell" else None
    return cell if type(cell) is int and cell >= 0 else None
