"""The file of a grid keeps every result at once, survives being cut short, and ends in the order of the cells."""

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolkit.errors import TransferError, UsageError
from toolkit.fleet.grid_file import GridFile

HEADER = '{"kind": "grid"}'


def line(cell: int) -> str:
    return json.dumps({"kind": "cell", "cell": cell, "goodput_bps": cell * 10})


@contextmanager
def limited(size_bytes: int) -> Iterator[None]:
    """No file may grow beyond this size while the block runs, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def opened(path: Path, *, is_resumed: bool = False, header: str = HEADER) -> GridFile:
    return GridFile(path, header, 10, is_resumed=is_resumed)


def test_results_are_in_the_file_at_once_and_in_order_after_sorting(tmp_path: Path) -> None:
    path = tmp_path / "new" / "grid.jsonl"
    with opened(path) as file:
        for cell in (7, 0, 3):
            file.write(cell, line(cell))
        assert path.read_text().splitlines() == [HEADER, line(7), line(0), line(3)]
        file.sort()
    assert path.read_text() == "".join(f"{each}\n" for each in (HEADER, line(0), line(3), line(7)))
    assert [each.name for each in path.parent.iterdir()] == ["grid.jsonl"]


def test_a_resumed_file_knows_what_is_done_and_drops_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "grid.jsonl"
    path.write_text(f"{HEADER}\n{line(4)}\n{line(2)}\n{line(5)[:-3]}")
    with opened(path, is_resumed=True) as file:
        assert (file.count, file.is_done(2), file.is_done(4), file.is_done(5)) == (2, True, True, False)
        file.write(5, line(5))
        file.write(4, "not written a second time")
        file.sort()
    assert path.read_text().splitlines() == [HEADER, line(2), line(4), line(5)]


def test_a_line_that_is_whole_but_for_its_newline_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "grid.jsonl"
    path.write_text(f"{HEADER}\n{line(4)}\n{line(5)}")
    with opened(path, is_resumed=True) as file:
        assert not file.is_done(5)
        file.write(5, line(5))
    assert path.read_text().splitlines() == [HEADER, line(4), line(5)]


def test_an_empty_file_is_begun_even_when_resuming(tmp_path: Path) -> None:
    path = tmp_path / "grid.jsonl"
    path.touch()
    with opened(path, is_resumed=True) as file:
        assert file.count == 0
    assert path.read_text() == f"{HEADER}\n"


@pytest.mark.parametrize(
    ("content", "is_resumed", "message"),
    [
        (f"{HEADER}\n", False, "is not empty: --resume continues it"),
        ('{"kind": "another"}\n', True, "has not the results of this grid"),
        (f"{HEADER}\nnonsense\n{line(1)}\n", True, "no result of a grid"),
        (f"{HEADER}\n{line(10)}\n{line(1)}\n", True, "no result of a grid"),
    ],
)
def test_a_file_that_holds_something_else_is_left_alone(
    tmp_path: Path, content: str, is_resumed: bool, message: str
) -> None:
    path = tmp_path / "grid.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        opened(path, is_resumed=is_resumed)
    assert path.read_text() == content


def test_a_new_file_without_results_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "grid.jsonl"
    with opened(path):
        assert path.exists()
    assert not path.exists()


def test_a_full_disk_is_one_line_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "grid.jsonl"
    with limited(len(f"{HEADER}\n{line(1)}\n") + 5), opened(path) as file:
        file.write(1, line(1))
        with pytest.raises(TransferError, match="cannot write"):
            file.write(2, line(2))
    with opened(path, is_resumed=True) as file:
        assert (file.count, file.is_done(1)) == (1, True)
