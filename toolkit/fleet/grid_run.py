"""Runs a grid: its cells go to the workers of a dask scheduler, a few at a time, and their lines into the file.

dask decides where a cell runs, and runs it again if its worker dies. Only a window of cells is with the scheduler, so
that its memory and ours are the same for a hundred cells and a million; workers that come later get their share.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from toolkit import __version__
from toolkit.errors import UnreachableError, UsageError, printable
from toolkit.fleet.dask_client import WORKERS_S, check_versions, distributed
from toolkit.fleet.grid import Grid, GridCell
from toolkit.fleet.grid_file import GridFile

CELLS_PER_THREAD = 4
"""Cells that are with the scheduler for each thread of a worker: one runs, and the next are there before it ends."""
_RECOUNT_S = 2.0


class OtherVersionError(UsageError):
    """A worker has another version of nettool."""


def run_grid(client: Any, grid: Grid, file: GridFile, on_cell: Callable[[GridCell], None]) -> dict[int, str]:
    """Run the cells that are not in `file`, and return those that failed: number -> reason.

    client:  of dask.distributed
    on_cell: called for each cell that is done

    Raises UnreachableError if the scheduler has no worker, or is lost, and UsageError if a worker has another version
    of nettool; what was done is in the file.
    """
    module = distributed()
    left = (cell for cell in grid.cells() if not file.is_done(cell.number))
    window = _Window(client)
    check_versions(client)
    run = secrets.token_hex(4)  # the scheduler gives two clients that use the same key the same result
    running: dict[Any, GridCell] = {}
    failed: dict[int, str] = {}
    arriving = module.as_completed(with_results=True, raise_errors=False)

    def submit(count: int) -> None:
        for cell in _first(left, count):
            future = client.submit(_line, cell, __version__, key=f"cell-{run}-{cell.number}", pure=False)
            running[future] = cell
            arriving.add(future)

    try:
        submit(window.size())
        while running:
            future, result = next(arriving)
            cell = running.pop(future)
            if future.status == "finished":
                file.write(cell.number, result)
                on_cell(cell)
            elif future.status == "cancelled":
                raise _lost()
            elif isinstance(error := _error(result), OtherVersionError):
                raise error
            else:
                failed[cell.number] = _reason(error)
            future.release()
            submit(window.size() - len(running))
    except (OSError, TimeoutError, StopIteration, module.CancelledError):
        raise _lost() from None
    file.sort()
    return failed


class _Window:
    """How many cells may be with the scheduler: CELLS_PER_THREAD for each thread that it has now."""

    def __init__(self, client: Any) -> None:
        """Raises UnreachableError if no worker comes within WORKERS_S."""
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError:
            raise UnreachableError(
                "the scheduler has no worker; start some with: dask worker --nthreads 1 tcp://HOST:PORT"
            ) from None
        self._client = client
        self._counted_s = 0.0
        self._size = 0

    def size(self) -> int:
        """The number of cells; at least one thread's, so that a worker that comes back finds work."""
        if time.monotonic() - self._counted_s > _RECOUNT_S:
            self._size = CELLS_PER_THREAD * max(1, sum(self._client.nthreads().values()))
            self._counted_s = time.monotonic()
        return self._size


def _first(cells: Iterator[GridCell], count: int) -> Iterator[GridCell]:
    for _ in range(count):
        cell = next(cells, None)
        if cell is None:
            return
        yield cell


def _line(cell: GridCell, version: str) -> str:
    """The task of a cell, on a worker; workers may come while a grid runs, so each checks its version."""
    if version != __version__:
        raise OtherVersionError(f"a worker has nettool {__version__}, and this machine {version}: install the same")
    return cell.line()


def _error(result: Any) -> Any:
    """Why a cell failed: `result` is what dask gives instead, an exception with its type and traceback."""
    return result[1] if isinstance(result, tuple) and len(result) == 3 else result


def _reason(error: Any) -> str:
    return printable(str(error) or type(error).__name__, 200)


def _lost() -> UnreachableError:
    return UnreachableError("the connection to the dask scheduler is lost; run the command again with --resume")
