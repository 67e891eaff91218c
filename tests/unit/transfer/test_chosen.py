"""A destination whose user decides about each entry."""

import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.background import Background
from tests.support.sessions import XXH3, Ends, file_entry
from toolkit.errors import RefusedError
from toolkit.transfer import Comparison, SendOptions, TransferResult, receive, send
from toolkit.transfer.chosen import ChosenDestination
from toolkit.transfer.destination import RefusedEntryError
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.manifest import MAX_ENCODED_PATH_BYTES, Entry
from toolkit.transfer.messages import EntryStatus
from toolkit.transfer.storage import Storage


def transfer(
    ends: Ends, root: Path, tree: Path, choose: Callable[[Entry], Entry], update: Comparison | None = None
) -> TransferResult:
    receiving = Background(
        lambda: receive(ends[1], lambda: ChosenDestination(Storage(root, overwrite=False, durable=False), choose))
    )
    try:
        return send(ends[0], [tree], SendOptions(recursive=True, update=update))
    finally:
        receiving.outcome()


def without_text(entry: Entry) -> Entry:
    if entry.path.endswith(b".txt"):
        raise RefusedEntryError("no text, please")
    return entry


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    for name in ("a.txt", "b.bin", "c.bin"):
        (path / name).write_text(name)
    return path


def content_of(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_what_is_refused_is_left_out(ends: Ends, root: Path, tree: Path) -> None:
    with pytest.raises(RefusedError, match="no text, please"):
        transfer(ends, root, tree, without_text)
    assert content_of(root) == {"tree/b.bin": "b.bin", "tree/c.bin": "c.bin"}


@pytest.mark.parametrize("update", Comparison)
def test_files_that_are_there_are_compared_with_the_right_ones(
    ends: Ends, root: Path, tree: Path, update: Comparison
) -> None:
    (root / "tree").mkdir()
    (root / "tree" / "c.bin").write_text("c.bin")
    mtime_ns = (tree / "c.bin").stat().st_mtime_ns
    os.utime(root / "tree" / "c.bin", ns=(mtime_ns, mtime_ns))
    with pytest.raises(RefusedError) as caught:
        transfer(ends, root, tree, without_text, update)
    assert isinstance(caught.value.result, TransferResult)
    assert (caught.value.result.files, caught.value.result.unchanged) == (1, 1)


def test_a_new_name_may_be_in_directories_of_its_own(ends: Ends, root: Path, tree: Path) -> None:
    def rename(entry: Entry) -> Entry:
        return replace(entry, path=entry.path.replace(b"tree/b", b"by/letter/b"))

    result = transfer(ends, root, tree, rename)
    assert content_of(root) == {"tree/a.txt": "a.txt", "by/letter/b.bin": "b.bin", "tree/c.bin": "c.bin"}
    assert [file.name for file in result.delivered] == ["tree/a.txt", "tree/b.bin", "tree/c.bin"]


@pytest.mark.parametrize("name", [b"../escaped", b"/tmp/escaped", b""])
def test_new_names_are_checked_like_those_of_a_sender(ends: Ends, root: Path, tree: Path, name: bytes) -> None:
    with pytest.raises(RefusedError):
        transfer(ends, root, tree, lambda entry: replace(entry, path=name) if b"a.txt" in entry.path else entry)
    assert sorted(content_of(root)) == ["tree/b.bin", "tree/c.bin"]
    assert not (root.parent / "escaped").exists()


@pytest.mark.parametrize("name", [b"made/../a", b"made/" + b"n" * 300, b"made/.nettool-0123456789abcdef.part"])
def test_no_directory_is_made_for_a_name_that_is_refused(root: Path, name: bytes) -> None:
    storage = Storage(root, overwrite=False, durable=False)
    files = IncomingFiles(ChosenDestination(storage, lambda entry: replace(entry, path=name)))
    (outcome,) = files.offer([file_entry(b"a")], XXH3)
    assert outcome.status is EntryStatus.REFUSED
    assert not list(root.iterdir())
    files.close(complete=True)


def test_names_that_a_sender_makes_long_and_deep_take_little_memory(root: Path) -> None:
    def into_a_folder(entry: Entry) -> Entry:
        return replace(entry, path=b"folder/" + entry.path)

    files = IncomingFiles(ChosenDestination(Storage(root, overwrite=False, durable=False), into_a_folder))
    path = b"/".join([b"n"] * 4000)
    assert len(path) < MAX_ENCODED_PATH_BYTES
    tracemalloc.start()
    try:
        (outcome,) = files.offer([file_entry(path)], XXH3)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.status is EntryStatus.REFUSED
    assert peak_bytes < 2_000_000
    files.close(complete=True)


def test_the_receiver_knows_the_path_that_was_chosen(ends: Ends, root: Path, tree: Path) -> None:
    def rename(entry: Entry) -> Entry:
        return replace(entry, path=entry.path.replace(b"tree/b", b"other/b"))

    def open_destination() -> ChosenDestination:
        return ChosenDestination(Storage(root, overwrite=False, durable=False), rename)

    receiving = Background(lambda: receive(ends[1], open_destination))
    send(ends[0], [tree], SendOptions(recursive=True))
    assert {(file.name, str(file.path)) for file in receiving.outcome().delivered} == {
        ("tree/a.txt", "tree/a.txt"),
        ("tree/b.bin", "other/b.bin"),
        ("tree/c.bin", "tree/c.bin"),
    }
