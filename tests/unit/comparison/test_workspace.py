"""The folder for the files of a campaign, and its removal."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from toolkit.comparison.workspace import workspace
from toolkit.errors import TransferError


def test_the_seed_decides_the_payload(tmp_path: Path) -> None:
    contents = []
    for seed in (1, 1, 2):
        with workspace([3_000_001, 10], seed, tmp_path) as files:
            assert files.payload(10).stat().st_size == 10
            contents.append(files.payload(3_000_001).read_bytes())
    assert [len(content) for content in contents] == [3_000_001] * 3
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize("end", [KeyboardInterrupt, TransferError, None])
def test_it_is_removed_however_the_campaign_ends(end: type[BaseException] | None, tmp_path: Path) -> None:
    def use() -> None:
        with workspace([1000], 1, tmp_path) as files:
            (files.received / "payload").touch()
            if end:
                raise end

    if end:
        with pytest.raises(end):
            use()
    else:
        use()
    assert list(tmp_path.iterdir()) == []


OWNER = """
import sys
from pathlib import Path
from toolkit.comparison.workspace import workspace

with workspace([1000], 1, Path(sys.argv[1])) as files:
    print(files.folder, flush=True)
    sys.stdin.read()
"""


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdin=pipe, stdout=pipe, text=True) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        with workspace([10], 1, tmp_path):
            assert (left / "payload-1000").exists()  # its owner lives
        assert list(tmp_path.iterdir()) == [left]
        owner.kill()
        owner.wait()
        assert left.exists()
    with workspace([10], 1, tmp_path) as files:
        assert list(tmp_path.iterdir()) == [files.folder]


def test_only_what_is_surely_an_abandoned_folder_of_this_user_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, elsewhere = tmp_path / "parent", tmp_path / "elsewhere"
    abandoned, without_lock = parent / "nettool-bench-1", parent / "nettool-bench-2"
    for folder in (abandoned, without_lock, elsewhere):
        folder.mkdir(parents=True)
    (abandoned / "lock").touch()
    (elsewhere / "lock").touch()
    (parent / "nettool-bench-3").symlink_to(elsewhere)
    (parent / "nettool-bench-4").touch()
    (parent / "other").mkdir()
    with monkeypatch.context() as patch:
        user = os.geteuid()
        patch.setattr(os, "geteuid", lambda: user + 1)
        with workspace([10], 1, parent):
            assert abandoned.exists()
    with workspace([10], 1, parent):
        assert not abandoned.exists()
    assert sorted(path.name for path in parent.iterdir()) == [*(f"nettool-bench-{n}" for n in (2, 3, 4)), "other"]
    assert (elsewhere / "lock").exists()


def test_a_chosen_folder_takes_the_place_of_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", no_folder)
    with workspace([10], 1, tmp_path) as files:
        assert files.folder.parent == tmp_path


def test_received_files_reuse_storage_without_its_content(tmp_path: Path) -> None:
    with workspace([3_000_001, 10], 1, tmp_path) as files:
        files.prefault(3_000_001)
        place = files.received / files.payload(3_000_001).name
        assert place.read_bytes() == bytes(3_000_001)
        number = place.stat().st_ino
        place.write_bytes(files.payload(3_000_001).read_bytes())
        files.prefault(3_000_001)
        assert (place.stat().st_ino, place.read_bytes()) == (number, bytes(3_000_001))
        files.prefault(10)
        assert [file.name for file in files.received.iterdir()] == [files.payload(10).name]
        assert files.payload(3_000_001).exists()
        files.received.joinpath(files.payload(10).name).unlink()
        files.received.joinpath(files.payload(10).name).mkdir()
        with pytest.raises(TransferError, match="cannot use"):
            files.prefault(10)


def test_too_little_space_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"no room .* `folder`"), workspace([1 << 60], 1, tmp_path):
        pass
    with pytest.raises(TransferError, match="`folder`"), workspace([1 << 20], 1, tmp_path / "missing"):
        pass


def test_errors_of_the_campaign_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), workspace([1000], 1, tmp_path):
        (tmp_path / "missing").read_text()
