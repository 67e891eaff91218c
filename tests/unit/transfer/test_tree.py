"""The receiving directory: no symbolic link leads out of it, and few directories stay open."""

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.sessions import XXH3, deliver, directory_entry, file_entry
from toolkit.transfer.attributes import Attributes
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.storage import Storage
from toolkit.transfer.tree import Tree


def test_symbolic_links_are_not_followed(files: IncomingFiles, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    (root / "to-directory").symlink_to(outside)
    (root / "to-file").symlink_to(outside / "file")
    (root / "dangling").symlink_to(outside / "new")
    entries = [
        directory_entry(b"to-directory"),
        file_entry(b"to-directory/new"),
        file_entry(b"to-directory/file"),
        file_entry(b"to-file"),
        file_entry(b"dangling"),
    ]
    for outcome in files.offer(entries, XXH3):
        assert outcome == EntryOutcome(EntryStatus.REFUSED, "a symbolic link is in the way")
    overwriting = IncomingFiles(Storage(root, overwrite=True, durable=False))
    try:
        assert {outcome.status for outcome in overwriting.offer(entries, XXH3)} == {EntryStatus.REFUSED}
    finally:
        overwriting.close(complete=True)
    assert {path.name for path in outside.iterdir()} == {"file"}
    assert (outside / "file").read_bytes() == b"theirs"


def test_a_symbolic_link_created_after_the_offer_is_not_followed(
    files: IncomingFiles, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    files.offer([directory_entry(b"d"), file_entry(b"d/a"), file_entry(b"b")], XXH3)
    os.rename(root / "d", root / "moved")
    (root / "d").symlink_to(outside)
    (root / "b").symlink_to(outside / "b")
    assert deliver(files, 1, b"hello").status is EntryStatus.OK
    assert deliver(files, 2, b"hello").status is EntryStatus.REFUSED
    assert not list(outside.iterdir())
    assert (root / "moved" / "a").read_bytes() == b"hello"


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_file_that_is_taken_away_as_soon_as_it_has_its_name_was_delivered(
    mode: int, files: IncomingFiles, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a program that waits for new files and moves each to where it belongs."""
    root.chmod(mode)
    publish_new = Tree._publish_new

    def publish_and_take(tree: Tree, *arguments: Any) -> None:
        publish_new(tree, *arguments)
        (root / "a").rename(tmp_path / "taken")

    monkeypatch.setattr(Tree, "_publish_new", publish_and_take)
    files.offer([file_entry(b"a")], XXH3)
    assert deliver(files, 0, b"hello").status is EntryStatus.OK
    assert (tmp_path / "taken").read_bytes() == b"hello"


def test_a_temporary_file_that_is_renamed_after_its_publication_fails_nothing(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.chmod(0o777)
    link = os.link

    def link_and_rename(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        (temporary,) = root.glob(".nettool-*")
        temporary.rename(root / "renamed")

    monkeypatch.setattr(os, "link", link_and_rename)
    files.offer([file_entry(b"a")], XXH3)
    assert deliver(files, 0, b"hello").status is EntryStatus.OK
    assert (root / "a").read_bytes() == b"hello"


def test_few_directories_stay_open(files: IncomingFiles, root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    entries = [
        entry for number in range(50) for entry in (directory_entry(b"d%d" % number), file_entry(b"d%d/a" % number))
    ]
    files.offer(entries, XXH3)
    for number in range(50):
        assert deliver(files, 2 * number + 1, b"hello").status is EntryStatus.OK
    assert len(os.listdir("/proc/self/fd")) < before + 20
    assert len(list(root.rglob("a"))) == 50


def test_the_directories_of_a_session_are_bounded_in_memory(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is that of their paths, so that long ones count for more."""
    monkeypatch.setattr("toolkit.transfer.tree.MAX_DIRECTORY_BYTES", 3000)
    outcomes = files.offer([directory_entry(b"%d" % number) for number in range(100)], XXH3)
    made = [outcome.status for outcome in outcomes].count(EntryStatus.OK)
    assert 10 < made < 30
    assert len(list(root.iterdir())) == made
    assert f"too many directories in one session, after {made}" in outcomes[-1].reason
    other = IncomingFiles(Storage(root, overwrite=False, durable=False))
    long = [directory_entry(b"x" * 200 + b"%d" % number) for number in range(100)]
    assert [outcome.status for outcome in other.offer(long, XXH3)].count(EntryStatus.OK) < made
    other.close(complete=False)


def test_the_attributes_of_directories_take_no_more_memory_than_is_counted(files: IncomingFiles) -> None:
    def offer(number: int) -> None:
        xattrs = tuple((b"user.%d" % name, b"") for name in range(1000))
        files.offer([replace(directory_entry(b"%d" % number), attributes=Attributes(xattrs=xattrs))], XXH3)

    offer(0)
    tracemalloc.start()
    try:
        for number in range(1, 20):
            offer(number)
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken_bytes < 19 * 20_000
