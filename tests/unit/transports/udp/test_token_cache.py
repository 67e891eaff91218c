"""The tokens of servers in the user's cache directory: used once, limited, private, and never a reason to fail."""

import json
import stat
import time
from pathlib import Path

import pytest

from toolkit.channel import Address
from toolkit.transports.udp.token_cache import LIFETIME_S, MAX_TOKENS, TokenCache, default_path

SERVER = Address("192.0.2.1", 9000)
OTHER = Address("2001:db8::1", 9000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tokens.json"


def test_a_token_is_used_once(file: Path) -> None:
    TokenCache(file).put(SERVER, b"token")
    assert TokenCache(file).take(OTHER) == b""
    assert TokenCache(file).take(SERVER) == b"token"
    assert TokenCache(file).take(SERVER) == b""


def test_a_newer_token_replaces_the_older(file: Path) -> None:
    for token in (b"old", b"new"):
        TokenCache(file).put(SERVER, token)
    assert TokenCache(file).take(SERVER) == b"new"


def test_the_file_is_private_and_no_other_is_left(file: Path) -> None:
    TokenCache(file).put(SERVER, b"token")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_the_oldest_make_room(file: Path) -> None:
    for port in range(MAX_TOKENS + 1):
        TokenCache(file).put(Address("192.0.2.1", port), b"token")
    assert TokenCache(file).take(Address("192.0.2.1", 0)) == b""
    assert TokenCache(file).take(Address("192.0.2.1", 1)) == b"token"


def test_a_token_that_the_server_no_longer_takes_is_not_used(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TokenCache(file).put(SERVER, b"token")
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + LIFETIME_S)
    assert TokenCache(file).take(SERVER) == b""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        json.dumps({str(SERVER): 1}).encode(),
        json.dumps({str(SERVER): ["zz", 1.0]}).encode(),
        json.dumps({str(SERVER): ["00", "yesterday"]}).encode(),
        json.dumps({str(SERVER): [["00"], 1.0]}).encode(),
        json.dumps({str(SERVER): ["00", 10**400]}).encode(),
        json.dumps({str(SERVER): ["00" * 70_000, time.time()]}).encode(),
    ],
)
def test_a_damaged_file_is_no_token(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    assert TokenCache(file).take(SERVER) == b""
    TokenCache(file).put(SERVER, b"token")
    assert TokenCache(file).take(SERVER) == b"token"


def test_a_directory_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = TokenCache(tmp_path / "file" / "tokens.json")
    cache.put(SERVER, b"token")
    assert cache.take(SERVER) == b""


def test_is_in_the_users_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "nettool" / "tokens.json"
