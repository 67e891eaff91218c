"""The directories of a sender: whatever others swap while a tree is scanned or sent, nothing leads out of it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.sessions import XXH3
from toolkit.transfer.scan import SkippedEntry, SourceEntry, check_sources, scan
from toolkit.transfer.source_tree import MAX_OPEN_DIRECTORIES, SourceDirectories
from toolkit.transfer.sources import CHANGED, FileIdentity, FileSource, SourceChangedError

SECRET = b"of another user"


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def directories() -> Iterator[SourceDirectories]:
    before = open_descriptors()
    yield (opened := SourceDirectories())
    opened.close()
    assert open_descriptors() == before


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A tree that is not sent, with the same names as `tree`."""
    path = tmp_path / "outside"
    (path / "b").mkdir(parents=True)
    for name in ("x", "y", "b/x"):
        (path / name).write_bytes(SECRET)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    (path / "a" / "b").mkdir(parents=True)
    for name in ("a/b/x", "a/x", "a/y", "z"):
        (path / name).write_bytes(b"our own content")
    return path


def swap(path: Path, outside: Path) -> None:
    """Put a link to another tree, or to a file, in the place of `path`."""
    path.rename(path.with_name(f"{path.name}-moved"))
    path.symlink_to(outside)


def scan_and(
    tree: Path, directories: SourceDirectories, at: bytes, change: Callable[[], None]
) -> tuple[list[SourceEntry], list[SkippedEntry]]:
    """Scan a tree and change it as soon as the entry `at` has been found, before what is below is listed."""
    entries, skipped = [], []
    for entry in scan(check_sources([tree], recursive=True, stream_name=""), directories, skipped.append):
        entries.append(entry)
        if entry.entry.path == at:
            change()
    return entries, skipped


def content_of(entries: list[SourceEntry]) -> dict[bytes, bytes]:
    """What a sender reads for each file, except those that can no longer be sent."""
    found = {}
    for entry in entries:
        if entry.origin is None:
            continue
        source = FileSource(entry.origin, XXH3)
        buffer = bytearray(entry.entry.size_bytes or 0)
        source.read_into(0, memoryview(buffer))
        try:
            source.finish()
            found[entry.entry.path] = bytes(buffer)
        except SourceChangedError:
            pass
        source.close()
    return found


def test_a_directory_that_becomes_a_link_before_it_is_listed_leads_nowhere(
    tree: Path, outside: Path, directories: SourceDirectories
) -> None:
    entries, skipped = scan_and(tree, directories, b"tree/a", lambda: swap(tree / "a", outside))
    assert content_of(entries) == {b"tree/z": b"our own content"}
    assert skipped == [SkippedEntry(b"tree/a", CHANGED, is_failure=True)]


def test_a_parent_that_becomes_a_link_while_its_content_is_listed_leads_nowhere(
    tree: Path, outside: Path, directories: SourceDirectories
) -> None:
    entries, _ = scan_and(tree, directories, b"tree/a/b", lambda: swap(tree / "a", outside))
    assert {entry.entry.path for entry in entries} > {b"tree/a/b/x", b"tree/a/x", b"tree/z"}
    assert set(content_of(entries).values()) == {b"our own content"}


@pytest.mark.parametrize("kept_open", [1, MAX_OPEN_DIRECTORIES])
@pytest.mark.parametrize("swapped", ["", "a", "a/b", "a/b/x"])
def test_what_becomes_a_link_between_scan_and_open_leads_nowhere(
    tree: Path,
    outside: Path,
    directories: SourceDirectories,
    monkeypatch: pytest.MonkeyPatch,
    kept_open: int,
    swapped: str,
) -> None:
    monkeypatch.setattr("toolkit.transfer.source_tree.MAX_OPEN_DIRECTORIES", kept_open)
    target = {"a": outside, "a/b": outside / "b", "a/b/x": outside / "x"}.get(swapped, outside)
    entries, _ = scan_and(tree, directories, b"tree/z", lambda: swap(tree / swapped, target))
    found = content_of(entries)
    assert set(found.values()) <= {b"our own content"}
    if swapped == "a/b/x":
        assert set(found) == {b"tree/a/x", b"tree/a/y", b"tree/z"}


def test_a_link_whose_target_is_the_very_file_is_not_followed_either(
    tree: Path, directories: SourceDirectories
) -> None:
    """Even if its identity were the one that is expected."""
    entries, _ = scan_and(tree, directories, b"tree/z", lambda: None)
    (tree / "a" / "x").rename(tree / "elsewhere")
    (tree / "a" / "x").symlink_to(tree / "elsewhere")
    origin = next(entry.origin for entry in entries if entry.entry.path == b"tree/a/x")
    assert origin is not None
    expecting = replace(origin, identity=FileIdentity.of((tree / "elsewhere").stat()))
    with pytest.raises(SourceChangedError, match="tree/a/x: changed"):
        expecting.open()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
@pytest.mark.parametrize("at", [b"tree/a/b/x", b"tree/a/x", b"tree/z"])
@pytest.mark.timeout(30)
def test_a_special_file_that_takes_the_place_of_a_file_never_blocks(
    tree: Path, directories: SourceDirectories, make: Callable[[Path], object], at: bytes
) -> None:
    """Before its entry is made, right after that, and once everything is scanned."""

    def put() -> None:
        (tree / "a" / "x").unlink()
        make(tree / "a" / "x")

    entries, skipped = scan_and(tree, directories, at, put)
    assert set(content_of(entries)) == {b"tree/a/b/x", b"tree/a/y", b"tree/z"}
    assert all(one.path == b"tree/a/x" for one in skipped)


def test_another_directory_in_the_place_of_one_is_noticed_when_it_is_opened_again(
    tree: Path, directories: SourceDirectories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.source_tree.MAX_OPEN_DIRECTORIES", 1)
    entries, _ = scan_and(tree, directories, b"tree/z", lambda: None)
    (tree / "a").rename(tree / "moved")
    (tree / "a").mkdir()
    (tree / "moved" / "x").rename(tree / "a" / "x")
    origin = next(entry.origin for entry in entries if entry.entry.path == b"tree/a/x")
    assert origin is not None
    with pytest.raises(SourceChangedError, match="another directory took its place"):
        origin.open()


def test_a_link_that_the_user_names_is_followed(tree: Path, tmp_path: Path, directories: SourceDirectories) -> None:
    (tmp_path / "link").symlink_to(tree)
    entries, skipped = scan_and(tmp_path / "link", directories, b"", lambda: None)
    assert len(content_of(entries)) == 4
    assert not skipped


def test_few_directories_are_open_however_deep_and_wide_the_tree(
    tmp_path: Path, directories: SourceDirectories
) -> None:
    here = tmp_path / "tree"
    for number in range(60):
        (here / f"wide-{number}").mkdir(parents=True)
        (here / f"wide-{number}" / "file").write_bytes(b"x")
        here = here / "deep"
    before = open_descriptors()
    most = 0
    entries = []
    for entry in scan(check_sources([tmp_path / "tree"], True, ""), directories, lambda _: None):
        entries.append(entry)
        most = max(most, open_descriptors())
    found = content_of(entries[::-1])
    assert len(found) == 60
    assert max(most, open_descriptors()) <= before + MAX_OPEN_DIRECTORIES + 1


def test_a_file_can_be_read_after_the_session_has_closed_its_directories(
    tree: Path, directories: SourceDirectories
) -> None:
    """A channel may still send what it was given."""
    entries, _ = scan_and(tree, directories, b"", lambda: None)
    before = open_descriptors()
    directories.close()
    assert len(content_of(entries)) == 4
    assert open_descriptors() < before


def test_a_path_that_no_message_can_hold_is_a_failure_of_its_own(
    tmp_path: Path, directories: SourceDirectories
) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(300):
            os.mkdir("d" * 255, dir_fd=here)
            below = os.open("d" * 255, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    try:
        entries, skipped = scan_and(tmp_path / ("d" * 255), directories, b"", lambda: None)
    finally:
        subprocess.run(["rm", "-r", tmp_path / ("d" * 255)], check=True)
    assert all(entry.entry.encode() for entry in entries)
    assert [one.reason for one in skipped] == ["its path is too long"]
