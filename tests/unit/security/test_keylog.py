"""The key log."""

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolkit.security import keylog
from toolkit.security.keys import AeadName, TrafficKeys

KEYS = TrafficKeys(AeadName.AES_256_GCM, bytes(32))


@pytest.fixture(autouse=True)
def fresh_warnings() -> Iterator[None]:
    keylog.warn_once.cache_clear()
    yield
    keylog.warn_once.cache_clear()


def test_nothing_is_written_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(keylog.VARIABLE, raising=False)
    keylog.log_keys("udp", b"\1", KEYS)
    monkeypatch.setenv(keylog.VARIABLE, "")
    keylog.log_keys("udp", b"\1", KEYS)
    assert list(tmp_path.iterdir()) == []
    assert caplog.records == []


def test_each_generation_is_a_line_in_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    monkeypatch.setenv(keylog.VARIABLE, str(path))
    updated = KEYS.next()
    with caplog.at_level(logging.WARNING):
        keylog.log_keys("udp", bytes(range(8)), KEYS)
        keylog.log_keys("udp", bytes(range(8)), updated)
        keylog.log_keys("tcp", b"\xff" * 16, KEYS)
    assert path.read_text().splitlines() == [
        f"NETTOOL udp 0001020304050607 0 aes-256-gcm {KEYS.key.hex()} {KEYS.iv.hex()}",
        f"NETTOOL udp 0001020304050607 1 aes-256-gcm {updated.key.hex()} {updated.iv.hex()}",
        f"NETTOOL tcp {'ff' * 16} 0 aes-256-gcm {KEYS.key.hex()} {KEYS.iv.hex()}",
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ["can decrypt" in record.message for record in caplog.records] == [True]  # once a process


def test_later_generations_are_logged_as_they_are_derived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    monkeypatch.setenv(keylog.VARIABLE, str(path))
    third = keylog.with_key_log("udp", b"\1", KEYS).next().next()
    assert third.key == KEYS.next().next().key
    assert [line.split()[3:6] for line in path.read_text().splitlines()] == [
        ["0", "aes-256-gcm", KEYS.key.hex()],
        ["1", "aes-256-gcm", KEYS.next().key.hex()],
        ["2", "aes-256-gcm", third.key.hex()],
    ]
    monkeypatch.delenv(keylog.VARIABLE)
    assert keylog.with_key_log("udp", b"\1", KEYS) is KEYS


def test_an_existing_log_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_text("# earlier\n")
    path.chmod(0o600)
    monkeypatch.setenv(keylog.VARIABLE, str(path))
    keylog.log_keys("udp", b"\1", KEYS)
    assert path.read_text().startswith("# earlier\nNETTOOL udp 01 0 ")


def test_a_log_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(keylog.VARIABLE, str(tmp_path / "missing" / "keys"))
    with caplog.at_level(logging.WARNING):
        keylog.log_keys("udp", b"\1", KEYS)
        keylog.log_keys("udp", b"\1", KEYS)
    assert ["no such file" in record.message for record in caplog.records] == [True]


def shared_file(path: Path) -> None:
    path.touch()
    path.chmod(0o644)


def link(path: Path) -> None:
    target = path.with_name("target")
    target.touch(0o600)
    path.symlink_to(target)


def fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def file_of_another_user(path: Path) -> None:
    path.touch(0o600)
    os.chown(path, 12345, -1)


@pytest.mark.parametrize(
    "make",
    [
        shared_file,
        link,
        fifo,
        pytest.param(file_of_another_user, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can make it")),
    ],
)
def test_keys_reach_no_file_that_others_can_use(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    make(path)
    monkeypatch.setenv(keylog.VARIABLE, str(path))
    with caplog.at_level(logging.WARNING):
        keylog.log_keys("udp", b"\1", KEYS)
    assert ["the keys are not logged" in record.message for record in caplog.records] == [True]
    assert all(file.stat().st_size == 0 for file in tmp_path.iterdir())


def test_keys_are_not_appended_to_a_file_that_is_no_key_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lab.key"
    path.write_text("nettool key 1\n")
    path.chmod(0o600)
    monkeypatch.setenv(keylog.VARIABLE, str(path))
    with caplog.at_level(logging.WARNING):
        keylog.log_keys("udp", b"\1", KEYS)
    assert "nettool did not write it" in caplog.text
    assert path.read_text() == "nettool key 1\n"


def test_lines_of_several_threads_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    monkeypatch.setenv(keylog.VARIABLE, str(path))
    threads = [
        threading.Thread(target=lambda: [keylog.log_keys("udp", b"\1", KEYS) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(path.read_text().splitlines())) == 1
    assert len(path.read_text().splitlines()) == 200
