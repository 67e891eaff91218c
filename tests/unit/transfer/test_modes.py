"""Modes: the umask of this process, and what a file system without modes and times does."""

import builtins
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.transfer.modes import apply_attributes, directory_mode, file_mode, process_umask


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("has_proc", [True, False])
def test_the_umask_is_read_and_not_changed(umask: int, has_proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    if not has_proc:
        monkeypatch.setattr(builtins, "open", missing)
    assert process_umask() == umask
    assert process_umask() == umask
    monkeypatch.undo()


@pytest.mark.parametrize("offered", range(0, 0o1000, 0o111))
def test_no_bit_comes_from_anywhere_but_the_offer(offered: int) -> None:
    assert file_mode(offered, 0, keeps_execute=True) == directory_mode(offered, 0) == offered
    assert file_mode(offered, 0, keeps_execute=False) == offered & 0o666
    assert file_mode(offered, 0o777, keeps_execute=True) == directory_mode(offered, 0o777) == 0


def test_a_files_own_special_bits_do_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o4755)
    with path.open() as file:
        apply_attributes(file.fileno(), 0o640, 10**18)
    assert path.stat().st_mode & 0o7777 == 0o640
    assert path.stat().st_mtime_ns == 10**18
