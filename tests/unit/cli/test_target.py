"""A command line that ends with the receiver, and what its user meant by any other."""

from pathlib import Path

import pytest

from toolkit.channel import Address
from toolkit.cli.target import split_target
from toolkit.errors import UsageError


class TestSplitTarget:
    """What a user meant by a command line without a receiver at its end."""

    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("film.mkv", "notes.txt"):
            (tmp_path / name).touch()

    def test_the_receiver_comes_last(self) -> None:
        assert split_target(["film.mkv", "192.0.2.7"], "nettool tcp-send") == (["film.mkv"], Address("192.0.2.7", 9000))

    @pytest.mark.parametrize(
        ("items", "message"),
        [
            (["film.mkv"], "the receiver is missing: nettool tcp-send film.mkv HOST[:PORT]"),
            (["192.0.2.7"], "a file is missing: nettool tcp-send FILE... 192.0.2.7"),
            (["film.mkv", "notes.txt"], "notes.txt is a file: the receiver comes last, and is missing"),
            (["192.0.2.7", "film.mkv"], "the receiver comes last: nettool tcp-send film.mkv 192.0.2.7"),
            (["film.mkv", "192.0.2.7", "9800"], "write 192.0.2.7:9800, not 192.0.2.7 9800"),
            (["film.mkv", "far:/srv/films"], "the receiver chooses where files go, with `into`; write far"),
            (["film.mkv", "-"], "- is standard input: the receiver comes last, and is missing"),
            (["-", "film.mkv"], "film.mkv is a file: the receiver comes last, and is missing"),
            (["film.mkv", "far:~"], "the receiver chooses where files go, with `into`; write far"),
            (["film.mkv", "far:../films"], "the receiver chooses where files go, with `into`; write far"),
            (["film.mkv", "far:~/films"], "the receiver chooses where files go, with `into`; write far"),
            (["film.mkv", "me@far"], "there is no user to log in as; write far"),
            (["film.mkv", "me.and-you@far:9001"], "there is no user to log in as; write far:9001"),
            (["film.mkv", "me@far:/srv"], "and the receiver chooses where files go, with `into`; write far"),
        ],
    )
    def test_says_what_was_meant(self, items: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("socket.getaddrinfo", no_such_host)
        with pytest.raises(UsageError) as caught:
            split_target(items, "nettool tcp-send")
        assert message in str(caught.value)

    def test_a_file_may_be_called_like_a_port(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "9800").touch()
        monkeypatch.setattr("socket.getaddrinfo", no_such_host)
        with pytest.raises(UsageError, match="9800 is a file: the receiver comes last"):
            split_target(["film.mkv", "notes.txt", "9800"], "nettool tcp-send")

    def test_a_machine_may_be_called_like_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: ["an address"])
        assert split_target(["film.mkv", "notes.txt"], "nettool tcp-send")[1] == Address("notes.txt", 9000)


def no_such_host(*_: object, **__: object) -> list[str]:
    raise OSError
