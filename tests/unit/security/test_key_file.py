"""Key files: made once, readable by their owner alone."""

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from toolkit.errors import TransferError, UsageError
from toolkit.security.key_file import KEY_BYTES, read_key, write_new_key

LINES = "nettool key 1\n" + "0f" * KEY_BYTES + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The name of a key file that does not exist yet."""
    return tmp_path / "lab.key"


def put(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def test_a_new_key_is_random_text_that_only_its_owner_can_read(path: Path) -> None:
    umask = os.umask(0)
    try:
        write_new_key(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"nettool key 1\n[0-9a-f]{64}\n", path.read_text("ascii"))
    other = path.with_name("other.key")
    write_new_key(other)
    assert len(read_key(path)) == KEY_BYTES
    assert read_key(path) != read_key(other)


def test_what_exists_is_never_replaced_or_followed(path: Path) -> None:
    path.write_text("precious")
    link = path.with_name("link.key")
    link.symlink_to(path.with_name("missing.key"))
    for name in (path, link):
        with pytest.raises(UsageError, match="exists and will not be overwritten"):
            write_new_key(name)
    assert path.read_text() == "precious"
    assert not path.with_name("missing.key").exists()


@pytest.mark.parametrize("name", ["missing/lab.key", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_created_is_a_usage_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot create"):
        write_new_key(tmp_path / name)


@pytest.mark.parametrize("content", [LINES, LINES.rstrip("\n"), LINES.replace("\n", "\r\n"), LINES.replace("f", "F")])
def test_a_key_file_is_read_whatever_its_line_ends(content: str, path: Path) -> None:
    put(path, content.encode())
    assert read_key(path) == bytes([0x0F] * KEY_BYTES)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601, 0o777])
def test_a_file_that_others_can_use_is_refused(mode: int, path: Path) -> None:
    put(path, LINES.encode(), mode)
    with pytest.raises(UsageError, match=re.escape(f"run 'chmod 600 {path}'")):
        read_key(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nettool key 1\n",
        b"nettool key 2\n" + b"0f" * KEY_BYTES,
        LINES.encode()[:-3],
        LINES.encode() + b"0f",
        b"0f" * KEY_BYTES + b"\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        b"\xff" * 100,
        LINES.encode() + b"\n" * 10_000,
    ],
)
def test_a_file_that_holds_no_key_is_refused(content: bytes, path: Path) -> None:
    put(path, content)
    with pytest.raises(UsageError, match="is not a key file: make one with 'nettool keygen FILE'"):
        read_key(path)


@pytest.mark.parametrize(("name", "reason"), [("missing", "no such file"), (".", "is a directory"), ("a\0b", "null")])
def test_a_file_that_cannot_be_read_is_a_usage_error(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot read the key file .*{reason}"):
        read_key(tmp_path / name)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("can_remove", [True, False])
def test_a_key_that_cannot_be_written_leaves_no_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, can_remove: bool
) -> None:
    def fail(_: int) -> None:
        raise failure

    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", fail)
    if not can_remove:
        monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(TransferError if isinstance(failure, OSError) else KeyboardInterrupt):
        write_new_key(path)
    assert path.exists() != can_remove
