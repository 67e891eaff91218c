"""A grid over a dask cluster: complete, in order, resumable, and bounded in what is with the scheduler."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet_files import grid_file
from toolkit.cli.app import invoke
from toolkit.errors import UnreachableError, UsageError
from toolkit.fleet import grid_run
from toolkit.fleet.grid import Grid, GridCell, read_grid
from toolkit.fleet.grid_file import GridFile

TEXT = 'cc = ["bbr", "cubic"]\nsizes = ["10kB", "20kB"]\n[link]\nrate = ["5Mbit", "20Mbit"]\nqueue = ["1bdp", "2bdp"]\n'


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return read_grid(grid_file(tmp_path, TEXT))


def run(client: Any, grid: Grid, path: Path, stop_after: int | None = None) -> list[int]:
    """The cells that were run, in the order in which they were done."""
    done: list[int] = []

    def on_cell(cell: GridCell) -> None:
        done.append(cell.number)
        if len(done) == stop_after:
            raise KeyboardInterrupt

    with GridFile(path, grid.header(), grid.size, is_resumed=path.exists()) as file:
        assert grid_run.run_grid(client, grid, file, on_cell) == {}
    return done


def test_what_dask_logs_is_not_shown() -> None:
    """An interrupted grid had a traceback of tornado's behind its one line."""
    script = (
        "import logging; from toolkit.fleet.dask_client import distributed; distributed(); "
        "print([name for name in ('distributed', 'distributed.client', 'tornado', 'tornado.application', 'asyncio') "
        "if logging.getLogger(name).isEnabledFor(logging.ERROR)])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (shown.stdout, shown.stderr) == ("[]\n", "")


def test_the_file_depends_on_the_grid_only(client: Any, grid: Grid, tmp_path: Path) -> None:
    assert sorted(run(client, grid, tmp_path / "one.jsonl")) == list(range(grid.size))
    expected = "".join(f"{line}\n" for line in (grid.header(), *(cell.line() for cell in grid.cells())))
    assert (tmp_path / "one.jsonl").read_text() == expected


def test_an_interrupted_grid_goes_on_and_runs_nothing_twice(client: Any, grid: Grid, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    run(client, grid, whole)
    with pytest.raises(KeyboardInterrupt):
        run(client, grid, path, stop_after=5)
    assert len(path.read_text().splitlines()) == 1 + 5
    assert len(run(client, grid, path)) == grid.size - 5
    assert path.read_bytes() == whole.read_bytes()


def test_only_a_window_of_cells_is_with_the_scheduler(
    client: Any, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_run, "CELLS_PER_THREAD", 1)
    taken: list[int] = []
    real = Grid.cells

    def counted(of: Grid) -> Any:
        for cell in real(of):
            taken.append(cell.number)
            yield cell

    monkeypatch.setattr(Grid, "cells", counted)
    ahead: list[int] = []
    with GridFile(tmp_path / "grid.jsonl", grid.header(), grid.size, is_resumed=False) as file:
        grid_run.run_grid(client, grid, file, lambda _cell: ahead.append(len(taken) - len(ahead)))
    assert max(ahead) <= 2


def test_a_cell_that_fails_costs_only_itself(
    client: Any, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GridCell.line

    def sometimes(cell: GridCell) -> str:
        if cell.number == 3:
            raise ValueError("no such path")
        return real(cell)

    monkeypatch.setattr(GridCell, "line", sometimes)
    with GridFile(tmp_path / "grid.jsonl", grid.header(), grid.size, is_resumed=False) as file:
        assert grid_run.run_grid(client, grid, file, lambda _cell: None) == {3: "no such path"}
        assert (file.count, file.is_done(3)) == (grid.size - 1, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "GRID"], "--grid needs a file for its results"),
        (["--grid", "GRID", "--output", "OUT", "--workers", "1", "--scheduler", "tcp://h:1"], "give one of them"),
        (["--grid", "GRID", "--output", "OUT", "--scheduler", "h:1"], "'h:1' is no scheduler: write tcp://HOST:PORT"),
        (["--grid", "GRID", "--output", "OUT", "--cc", "cubic"], "leave out the options for flows and paths"),
        (["--output", "OUT"], "belong to --grid"),
        (["--grid", "missing.toml", "--output", "OUT"], "cannot read missing.toml"),
    ],
)
def test_bad_input_is_one_line_and_creates_no_file(tmp_path: Path, arguments: list[str], message: str) -> None:
    path = grid_file(tmp_path, TEXT)
    names = {"GRID": str(path), "OUT": str(tmp_path / "out.jsonl")}
    with pytest.raises(UsageError, match=message):
        invoke(["sim", *(names.get(word, word) for word in arguments)])
    assert not (tmp_path / "out.jsonl").exists()


def test_without_dask_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.fleet.dask_client.find_spec", lambda _name: None)
    path = grid_file(tmp_path, TEXT)
    with pytest.raises(UsageError, match=r"pip install 'nettool\[fleet\]'"):
        invoke(["sim", "--grid", str(path), "--output", str(tmp_path / "out.jsonl")])
    assert not (tmp_path / "out.jsonl").exists()


def test_a_scheduler_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.fleet.dask_client.CONNECT_S", 0.2)
    path = grid_file(tmp_path, TEXT)
    with pytest.raises(UnreachableError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:1"):
        invoke(["sim", "--grid", str(path), "--output", str(tmp_path / "o.jsonl"), "--scheduler", "tcp://127.0.0.1:1"])


def test_two_grids_on_one_scheduler_do_not_get_each_other_s_results(client: Any, grid: Grid, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(TEXT.replace("10kB", "30kB"))
    other = read_grid(path)
    own = tmp_path / "own.jsonl"

    def run_other(cell: GridCell) -> None:
        if cell.number == 0:  # while this grid's other cells are with the scheduler
            with GridFile(tmp_path / "other.jsonl", other.header(), other.size, is_resumed=False) as file:
                grid_run.run_grid(client, other, file, lambda _cell: None)

    with GridFile(own, grid.header(), grid.size, is_resumed=False) as file:
        grid_run.run_grid(client, grid, file, run_other)
    for each, name in ((grid, "own"), (other, "other")):
        expected = "".join(f"{line}\n" for line in (each.header(), *(cell.line() for cell in each.cells())))
        assert (tmp_path / f"{name}.jsonl").read_text() == expected


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ModuleNotFoundError("toolkit"), "worker at a has no nettool"),
        ("0.1", r"worker at a has nettool 0\.1, and this"),
    ],
)
def test_a_worker_without_this_nettool_is_named_before_it_gets_a_cell(
    client: Any, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: object, message: str
) -> None:
    monkeypatch.setattr(type(client), "run", lambda *_, **__: {"a": answer})
    with (
        GridFile(tmp_path / "grid.jsonl", grid.header(), grid.size, is_resumed=False) as file,
        pytest.raises(UsageError, match=message),
    ):
        grid_run.run_grid(client, grid, file, lambda _cell: None)
    assert file.count == 0


def test_a_worker_of_another_version_that_comes_later_ends_the_grid(
    client: Any, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = grid_run._line
    monkeypatch.setattr(grid_run, "_line", lambda cell, _version: real(cell, "9.9"))
    with (
        GridFile(tmp_path / "grid.jsonl", grid.header(), grid.size, is_resumed=False) as file,
        pytest.raises(UsageError, match=r"a worker has nettool .*, and this machine 9\.9: install the same"),
    ):
        grid_run.run_grid(client, grid, file, lambda _cell: None)
