"""The resume key: the same for the same user and receiver, and nothing that anybody else can guess."""

import stat
from pathlib import Path

import pytest

from toolkit.api.resume_key import resume_key
from toolkit.transfer.chunks import RESUME_KEY_BYTES


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_it_is_the_same_again_and_another_for_another_receiver() -> None:
    assert resume_key("one") == resume_key("one") != resume_key("two")
    assert len(resume_key("one")) == RESUME_KEY_BYTES


def test_it_depends_on_a_secret_that_only_the_user_reads(cache: Path) -> None:
    key = resume_key("one")
    (path,) = cache.rglob("resume.key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    path.unlink()
    assert resume_key("one") != key


def test_a_damaged_secret_is_replaced(cache: Path) -> None:
    resume_key("one")
    (path,) = cache.rglob("resume.key")
    path.write_bytes(b"short")
    assert resume_key("one") == resume_key("one")


def test_without_a_cache_directory_there_is_a_key_nevertheless(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    assert resume_key("one") != resume_key("one")
