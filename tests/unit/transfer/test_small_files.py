"""Small files at the sender: read at once, and only as they were offered."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sessions import origin_of
from toolkit.transfer.small_files import SMALL_BYTES, is_small, read_small
from toolkit.transfer.sources import SourceChangedError


@pytest.mark.parametrize("size_bytes", [0, 1, 4096, SMALL_BYTES])
def test_a_small_file_is_read_whole(tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := os.urandom(size_bytes))
    origin = origin_of(path)
    assert is_small(origin)
    assert read_small(origin) == content


def test_larger_files_and_files_with_holes_are_not_small(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(SMALL_BYTES + 1))
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(SMALL_BYTES)
    assert not is_small(origin_of(tmp_path / "large"))
    assert not is_small(origin_of(tmp_path / "sparse"))


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _change(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # what is left is the change time


def _replace_by_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_grow, "grew"),
        (_change, "changed"),
        (lambda path: os.truncate(path, 3), "changed"),
        (_replace_by_a_fifo, "changed"),
        (Path.unlink, "no such file"),
    ],
)
def test_a_small_file_that_changes_before_it_is_read_is_not_sent(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    origin = origin_of(path)
    change(path)
    with pytest.raises(SourceChangedError, match=reason):
        read_small(origin)


@pytest.mark.parametrize(
    ("read", "reason"),
    [(lambda count: bytes(count)[:0], "changed"), (lambda count: b"x" * count, "it has content, but a size of 0")],
)
def test_a_small_file_that_holds_something_else_than_its_size_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[int], bytes], reason: str
) -> None:
    """As file systems in user space have them."""
    path = tmp_path / "file"
    path.write_bytes(b"" if "size of 0" in reason else b"content")
    origin = origin_of(path)
    monkeypatch.setattr(os, "read", lambda _descriptor, count: read(count))
    with pytest.raises(SourceChangedError, match=reason):
        read_small(origin)


def test_a_small_file_is_read_to_its_end_if_reads_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := os.urandom(1000))
    origin = origin_of(path)
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, count: read(descriptor, min(count, 300)))
    assert read_small(origin) == content
