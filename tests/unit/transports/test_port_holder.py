"""Who has a port."""

import os
import socket

import psutil
import pytest

from toolkit.transports.port_holder import port_holder


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_names_the_process(kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            held.listen()
        port = held.getsockname()[1]
        assert port_holder(kind, port).endswith(f" (process {os.getpid()})")
    assert port_holder(kind, port) == "another program"


def test_a_process_of_another_user_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        hidden = [one._replace(pid=None) for one in psutil.net_connections("udp")]
        monkeypatch.setattr("psutil.net_connections", lambda _: hidden)
        assert port_holder(socket.SOCK_DGRAM, port) == "a program of another user"


def test_a_system_that_does_not_tell_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: str) -> list[object]:
        raise psutil.AccessDenied

    monkeypatch.setattr("psutil.net_connections", denied)
    assert port_holder(socket.SOCK_STREAM, 9) == "another program"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/srv/x/.venv/bin/python3.11", "/srv/x/.venv/bin/nettool", "recv"], "nettool recv"),
        (["/usr/sbin/nginx", "-g", "daemon off;"], "nginx -g daemon off;"),
        (["python3", "-m", "http.server"], "python3 -m http.server"),
        ([], "a program"),
    ],
)
def test_a_command_is_named_as_its_user_typed_it(words: list[str], shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.Process.cmdline", lambda _: words)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        assert port_holder(socket.SOCK_DGRAM, held.getsockname()[1]) == f"{shown} (process {os.getpid()})"
