"""The destination that writes files: final names only for verified files, and nothing left of the others."""

import errno
import os
import threading
from pathlib import Path

import pytest

from tests.support.sessions import MTIME_NS, XXH3, commit, deliver, directory_entry, file_entry
from toolkit.errors import TransferError, UsageError
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.manifest import MAX_FILE_BYTES, Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.open_files import OPEN_FILES
from toolkit.transfer.storage import Storage


def test_a_file_gets_its_name_when_it_is_verified(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a", mode=0o600)], XXH3)
    assert not list(root.iterdir())
    files.write(0, 3, memoryview(b"lo"))
    (part,) = root.iterdir()
    assert part.name.startswith(".nettool-")
    assert part.stat().st_mode & 0o777 == 0o600
    files.write(0, 0, memoryview(b"hel"))
    assert not (root / "a").exists()
    assert commit(files, 0, b"hello").status is EntryStatus.OK
    assert [path.name for path in root.iterdir()] == ["a"]
    assert (root / "a").read_bytes() == b"hello"
    assert (root / "a").stat().st_mtime_ns == MTIME_NS


def test_a_file_with_a_wrong_digest_is_removed(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a")], XXH3)
    files.write(0, 0, memoryview(b"hellO"))
    assert commit(files, 0, b"hello").status is EntryStatus.MISMATCHED
    assert not list(root.iterdir())


def test_permission_bits_are_set_and_special_bits_are_not(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a", mode=0o777)], XXH3)
    deliver(files, 0, b"hello")
    assert (root / "a").stat().st_mode & 0o7777 == 0o777


@pytest.mark.parametrize("mtime_ns", [-(2**63), -1, 0, 2**63 - 1])
def test_any_modification_time_is_accepted(files: IncomingFiles, root: Path, mtime_ns: int) -> None:
    files.offer([Entry(EntryKind.FILE, b"a", 0o644, mtime_ns, 5, 5)], XXH3)
    assert deliver(files, 0, b"hello").status is EntryStatus.OK
    assert (root / "a").read_bytes() == b"hello"


def test_bad_names_are_refused_and_nothing_is_created(files: IncomingFiles, root: Path) -> None:
    names = [b"../out", b"/out", b"a/../../out", b"-rf", b"a\0", b"a\x1b[2J", b"", b".", b"x" * 256]
    entries = [entry(name) for name in names for entry in (file_entry, directory_entry)]
    outcomes = files.offer(entries, XXH3)
    assert {outcome.status for outcome in outcomes} == {EntryStatus.REFUSED}
    assert all(outcome.reason for outcome in outcomes)
    assert not list(root.iterdir())
    assert [path.name for path in root.parent.iterdir()] == ["root"]


def test_a_directory_that_cannot_be_opened_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UsageError, match="name an existing directory"):
            Storage(path, overwrite=False, durable=False)


# Files that exist.


def test_a_file_created_meanwhile_by_another_process_is_not_replaced(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a")], XXH3)
    files.write(0, 0, memoryview(b"hel"))
    (root / "a").write_bytes(b"mine")
    files.write(0, 3, memoryview(b"lo"))
    outcome = commit(files, 0, b"hello")
    assert outcome.status is EntryStatus.REFUSED
    assert "already exists" in outcome.reason
    assert (root / "a").read_bytes() == b"mine"
    assert len(list(root.iterdir())) == 1


def test_one_of_several_concurrent_sessions_publishes_a_name(root: Path) -> None:
    sessions = [IncomingFiles(Storage(root, overwrite=False, durable=False)) for _ in range(8)]
    contents = [b"%05d" % number for number in range(8)]
    for files, content in zip(sessions, contents, strict=True):
        files.offer([file_entry(b"a")], XXH3)
        files.write(0, 0, memoryview(content))
    start = threading.Barrier(8)
    outcomes: list[EntryOutcome] = []

    def run(files: IncomingFiles, content: bytes) -> None:
        start.wait()
        outcomes.append(commit(files, 0, content))

    threads = [threading.Thread(target=run, args=pair) for pair in zip(sessions, contents, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for files in sessions:
        files.close(complete=True)
    assert sorted(outcome.status for outcome in outcomes) == [EntryStatus.OK] + [EntryStatus.REFUSED] * 7
    assert (root / "a").read_bytes() in contents
    assert len(list(root.iterdir())) == 1


def test_a_file_system_without_hard_links_publishes_by_rename(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    assert deliver(files, 0, b"hello").status is EntryStatus.OK
    (root / "b").write_bytes(b"mine")
    assert deliver(files, 1, b"hello").status is EntryStatus.REFUSED
    assert (root / "a").read_bytes() == b"hello"
    assert (root / "b").read_bytes() == b"mine"
    assert len(list(root.iterdir())) == 2


def test_overwrite_replaces_a_file_only_by_a_verified_one(root: Path) -> None:
    (root / "a").write_bytes(b"old")
    files = IncomingFiles(Storage(root, overwrite=True, durable=True))
    try:
        files.offer([file_entry(b"a")], XXH3)
        files.write(0, 0, memoryview(b"hel"))
        assert (root / "a").read_bytes() == b"old"
        files.write(0, 3, memoryview(b"lo"))
        assert commit(files, 0, b"hello").status is EntryStatus.OK
    finally:
        files.close(complete=True)
    assert (root / "a").read_bytes() == b"hello"


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_regular_files_are_replaced(root: Path, overwrite: bool) -> None:
    (root / "directory").mkdir()
    os.mkfifo(root / "fifo")
    (root / "file").write_bytes(b"mine")
    files = IncomingFiles(Storage(root, overwrite, durable=False))
    try:
        outcomes = files.offer(
            [
                file_entry(b"directory"),
                file_entry(b"fifo"),
                directory_entry(b"file"),
                file_entry(b"file/below"),
                file_entry(b"nowhere/a"),
            ],
            XXH3,
        )
    finally:
        files.close(complete=True)
    assert {outcome.status for outcome in outcomes} == {EntryStatus.REFUSED}
    assert (root / "file").read_bytes() == b"mine"


# Space on the disk.


def test_an_offer_that_does_not_fit_on_the_disk_is_refused(files: IncomingFiles, root: Path) -> None:
    status = os.statvfs(root)
    free = status.f_bavail * status.f_frsize
    entries = [
        file_entry(b"too large", free + (1 << 30)),
        file_entry(b"sparse", free + (1 << 30), content=1000),
        file_entry(b"half", free * 2 // 3),
        file_entry(b"other half", free * 2 // 3),
        file_entry(b"above the limit", MAX_FILE_BYTES + 1, content=0),
    ]
    outcomes = files.offer(entries, XXH3)
    assert [outcome.status for outcome in outcomes] == [
        EntryStatus.REFUSED,
        EntryStatus.OK,
        EntryStatus.OK,
        EntryStatus.REFUSED,
        EntryStatus.REFUSED,
    ]
    assert "no space" in outcomes[0].reason


@pytest.mark.parametrize("failing", ["pwrite", "open"])
def test_a_disk_that_fills_up_ends_the_session_with_a_clear_error(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    files.offer([file_entry(b"a")], XXH3)
    if failing == "pwrite":
        files.write(0, 0, memoryview(b"h"))

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(TransferError, match="a: no space left"):
        files.write(0, 1, memoryview(b"ello"))
    monkeypatch.undo()
    files.close(complete=False)
    assert not list(root.iterdir())


# The end of a session.


def test_directories_get_their_mode_and_time_at_the_end(root: Path) -> None:
    files = IncomingFiles(Storage(root, overwrite=False, durable=False))
    (root / "existing").mkdir(mode=0o700)
    entries = [
        directory_entry(b"new", 0o555),
        directory_entry(b"new/below"),
        file_entry(b"new/a"),
        directory_entry(b"existing"),
    ]
    files.offer(entries, XXH3)
    assert deliver(files, 2, b"hello").status is EntryStatus.OK
    files.close(complete=True)
    assert (root / "new").stat().st_mode & 0o777 == 0o555
    assert (root / "new").stat().st_mtime_ns == MTIME_NS
    assert (root / "new" / "below").is_dir()
    assert (root / "existing").stat().st_mode & 0o777 == 0o700


def test_a_failed_session_keeps_verified_files_and_nothing_else(files: IncomingFiles, root: Path) -> None:
    (root / "existing").mkdir()
    entries = [
        directory_entry(b"d"),
        file_entry(b"d/a"),
        file_entry(b"d/b"),
        directory_entry(b"e"),
        directory_entry(b"e/f"),
        directory_entry(b"existing"),
    ]
    files.offer(entries, XXH3)
    deliver(files, 1, b"hello")
    files.write(2, 0, memoryview(b"hel"))
    files.close(complete=False)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["d", "d/a", "existing"]


def test_more_files_in_progress_than_descriptors(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 4)
    files.offer([file_entry(b"%d" % number, 2) for number in range(20)], XXH3)
    for offset in (1, 0):
        for number in range(20):
            files.write(number, offset, memoryview(b"xy"[offset : offset + 1]))
        assert len(OPEN_FILES) <= 4
    for number in range(20):
        assert commit(files, number, b"xy").status is EntryStatus.OK
    assert {path.read_bytes() for path in root.iterdir()} == {b"xy"}
