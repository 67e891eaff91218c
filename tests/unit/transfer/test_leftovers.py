"""What killed receivers left: only that is found and removed, and a new session removes what is stale."""

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from tests.support.sessions import XXH3, directory_entry
from toolkit.transfer.file_system import try_lock
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.leftovers import STALE_AFTER_S, leftovers_below, remove_stale_in
from toolkit.transfer.names import new_partial_name
from toolkit.transfer.storage import Storage


def partial(folder: Path) -> Path:
    path = folder / os.fsdecode(new_partial_name())
    path.write_bytes(b"hel")
    return path


def age(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let every file be older: its change time cannot be set."""
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + seconds)


def test_unfinished_files_of_some_age_are_found_in_the_whole_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a/link").symlink_to(tmp_path / "elsewhere")
    link = tmp_path / "a" / os.fsdecode(new_partial_name())
    link.symlink_to("film.part")
    found = {partial(tmp_path / "a"), partial(tmp_path / "a/b"), link}
    others = {partial(tmp_path / "elsewhere"), tmp_path / "a/film.part", tmp_path / "a/.nettool-1.part"}
    for path in others:
        path.touch()
    assert list(leftovers_below(tmp_path / "a", 100, remove=True)) == []
    age(monkeypatch, 200)
    assert {Path(one.path) for one in leftovers_below(tmp_path / "a", 100, remove=False)} == found
    assert {one.size_bytes for one in leftovers_below(tmp_path / "a", 100, remove=True)} == {3, len("film.part")}
    assert not any(os.path.lexists(path) for path in found)
    assert all(path.exists() for path in others)


def test_root_finds_what_was_given_to_its_owner_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = partial(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    assert list(leftovers_below(tmp_path, 0, remove=True)) == []
    if not left.stat().st_uid:
        os.chown(left, 12_345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert len(list(leftovers_below(tmp_path, 0, remove=True))) == 1
    assert not left.exists()


def test_the_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "incoming").symlink_to("disk")
    left = partial(tmp_path / "disk")
    (found,) = leftovers_below(tmp_path / "incoming", 0, remove=True)
    assert Path(found.path) == tmp_path / "incoming" / left.name
    assert not left.exists()


def test_a_file_that_cannot_be_removed_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone, other = sorted(partial(tmp_path) for _ in range(3))
    unlink = os.unlink

    def failing(path: bytes, dir_fd: int) -> None:
        if path == os.fsencode(kept.name):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, dir_fd=dir_fd)
        if path == os.fsencode(gone.name):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "unlink", failing)
    found = {Path(one.path): one.failure for one in leftovers_below(tmp_path, 0, remove=True)}
    assert found == {kept: "operation not permitted", other: None}
    assert kept.exists()
    assert not other.exists()


def test_a_file_that_a_session_has_locked_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = partial(tmp_path)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for remove in (False, True):
            (found,) = leftovers_below(tmp_path, 0, remove=remove)
            assert found.is_in_use
        age(monkeypatch, STALE_AFTER_S + 1)
        remove_stale_in(tmp_path)
        assert path.exists()
    (found,) = leftovers_below(tmp_path, 0, remove=True)
    assert not found.is_in_use
    assert not path.exists()


def test_a_file_that_another_session_has_made_in_its_place_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = partial(tmp_path)

    def made_anew_and_locked(descriptor: int) -> bool:
        path.unlink()
        path.write_bytes(b"new")
        return try_lock(descriptor)

    monkeypatch.setattr("toolkit.transfer.leftovers.try_lock", made_anew_and_locked)
    (found,) = leftovers_below(tmp_path, 0, remove=True)
    assert found.is_in_use
    assert path.read_bytes() == b"new"


def test_a_session_removes_what_is_stale_in_a_directory_that_it_receives_into(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "d").mkdir()
    stale = partial(root / "d")
    offer_directory(root)
    assert stale.exists()
    age(monkeypatch, STALE_AFTER_S + 1)
    offer_directory(root)
    assert not stale.exists()


def test_a_directory_that_is_offered_again_is_not_listed_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "d").mkdir()
    listed: list[int] = []
    monkeypatch.setattr("toolkit.transfer.tree.remove_stale", listed.append)
    offer_directory(root, times=3)
    assert len(listed) == 1


def offer_directory(root: Path, times: int = 1) -> None:
    """Offer the directory `d` to a receiver."""
    files = IncomingFiles(Storage(root, overwrite=False, durable=False))
    for _ in range(times):
        files.offer([directory_entry(b"d")], XXH3)
    files.close(complete=True)
