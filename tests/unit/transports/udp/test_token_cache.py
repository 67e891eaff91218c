"""The tokens of servers in the user's cache directory: used once, limited, private, and never a reason to fail."""

import stat
import time
from pathlib import Path

import pytest

from toolkit.channel import Address
from toolkit.rudp.handshake_packets import MAX_TOKEN_BYTES
from toolkit.transports.udp.cache_folder import LIFETIME_S, MAX_ENTRIES, CacheFolder
from toolkit.transports.udp.token_cache import TokenCache

SERVER = Address("192.0.2.1", 9000)
OTHER = Address("fe80::1%eth0", 9000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tokens"


@pytest.mark.parametrize(("server", "other"), [(SERVER, OTHER), (OTHER, SERVER)])
def test_a_token_is_used_once(folder: Path, server: Address, other: Address) -> None:
    TokenCache(folder).put(server, b"token")
    assert TokenCache(folder).take(other) == b""
    assert TokenCache(folder).take(server) == b"token"
    assert TokenCache(folder).take(server) == b""


def test_a_newer_token_replaces_the_older(folder: Path) -> None:
    for token in (b"old", b"new"):
        TokenCache(folder).put(SERVER, token)
    assert TokenCache(folder).take(SERVER) == b"new"


def test_its_file_is_private_and_no_other_is_left(folder: Path) -> None:
    TokenCache(folder).put(SERVER, b"token")
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_oldest_make_room(folder: Path) -> None:
    for port in range(MAX_ENTRIES + 1):
        TokenCache(folder).put(Address("192.0.2.1", port), b"token")
    assert len(list(folder.iterdir())) <= MAX_ENTRIES
    assert TokenCache(folder).take(Address("192.0.2.1", 0)) == b""
    assert TokenCache(folder).take(Address("192.0.2.1", MAX_ENTRIES)) == b"token"


@pytest.mark.parametrize("age_s", [LIFETIME_S, -2 * LIFETIME_S])
def test_an_entry_expires_also_if_the_clock_was_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, age_s: int
) -> None:
    TokenCache(folder).put(SERVER, b"token")
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + age_s)
    assert TokenCache(folder).take(SERVER) == b""


def test_a_name_leads_nowhere_else(folder: Path) -> None:
    TokenCache(folder).put(Address("../../x", 9000), b"token")
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", bytes(MAX_TOKEN_BYTES + 1)])
def test_a_damaged_file_is_no_token(folder: Path, content: bytes) -> None:
    TokenCache(folder).put(SERVER, b"token")
    (file,) = folder.iterdir()
    file.write_bytes(content)
    assert TokenCache(folder).take(SERVER) == b""
    TokenCache(folder).put(SERVER, b"token")
    assert TokenCache(folder).take(SERVER) == b"token"


def test_a_directory_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = TokenCache(tmp_path / "file" / "tokens")
    cache.put(SERVER, b"token")
    assert cache.take(SERVER) == b""


def test_is_in_the_users_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert CacheFolder("tokens").path == tmp_path / "nettool" / "tokens"
