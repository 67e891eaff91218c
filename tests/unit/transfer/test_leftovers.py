"""What killed receivers left: only that is found and removed, and a new session removes what is stale."""

import os
import time
from pathlib import Path

import pytest

from tests.support.sessions import XXH3, directory_entry
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.leftovers import STALE_AFTER_S, leftovers_below
from toolkit.transfer.names import new_partial_name


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
    found = {partial(tmp_path / "a"), partial(tmp_path / "a/b")}
    others = {partial(tmp_path / "elsewhere"), tmp_path / "a/film.part", tmp_path / "a/.nettool-1.part"}
    for path in others:
        path.touch()
    os.symlink("film.part", tmp_path / "a" / os.fsdecode(new_partial_name()))
    assert list(leftovers_below(tmp_path / "a", 100, remove=True)) == []
    age(monkeypatch, 200)
    assert {Path(one.path) for one in leftovers_below(tmp_path / "a", 100, remove=False)} == found
    assert {one.size_bytes for one in leftovers_below(tmp_path / "a", 100, remove=True)} == {3}
    assert not any(path.exists() for path in found)
    assert all(path.exists() for path in others)


def test_a_session_removes_what_is_stale_in_a_directory_that_it_receives_into(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "d").mkdir()
    stale = partial(root / "d")
    files.offer([directory_entry(b"d")], XXH3)
    assert stale.exists()
    age(monkeypatch, STALE_AFTER_S + 1)
    files.offer([directory_entry(b"d")], XXH3)
    assert not stale.exists()
