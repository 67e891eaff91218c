"""`nettool echo` and `nettool ping`: what comes back, over each transport, and what is bounded."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.background import together
from tests.support.cli_process import Receiver, nettool
from tests.support.forked_cli import ForkedCli
from toolkit.conversation.echo import MAX_CONNECTIONS_PER_HOST, MAX_DATAGRAM_BYTES

pytestmark = pytest.mark.usefixtures("warm")
WAIT_S = 20.0


@pytest.fixture
def server() -> Iterator[Receiver]:
    started = Receiver(ForkedCli(["echo", "--port", "0"]))
    try:
        started.port = int(started.wait_for(r"listening on \S+:([0-9]+) ")[1])
        yield started
        assert started.end(signal.SIGINT).code == 130
    finally:
        if started.process.poll() is None:
            started.process.kill()


@pytest.mark.parametrize("option", ["--tcp", "--udp", "--raw-udp"])
def test_every_probe_comes_back_on_a_path_without_loss(option: str, server: Receiver) -> None:
    ended = nettool("ping", option, "--count", "10", "--interval", "5ms", "--json", server.target)
    assert (ended.code, ended.stderr) == (0, "")
    fields = json.loads(ended.stdout)
    assert fields["transport"] == option.removeprefix("--")
    assert (fields["sent"], fields["answered"], fields["loss"], fields["duplicates"]) == (10, 10, 0, 0)
    assert 0 < fields["rtt_min_ms"] <= fields["rtt_p50_ms"] <= fields["rtt_p99_ms"] <= fields["rtt_max_ms"]
    assert ("path_rtt_p50_ms" in fields) == (option == "--udp")
    assert 0 < fields.get("path_rtt_min_ms", 0.1) <= fields.get("path_rtt_p50_ms", 0.1) < fields["rtt_p50_ms"] + 0.1


def test_the_summary_of_the_reliable_protocol_has_a_line_on_the_path(server: Receiver) -> None:
    ended = nettool("ping", "--udp", "--count", "10", "--interval", "2ms", server.target)
    lines = ended.stdout.splitlines()
    assert lines[1].startswith("round trip of the path in ms: min ")
    assert any(line.startswith("round trip of messages in ms: min ") for line in lines)


def test_the_summary_begins_with_what_was_answered(server: Receiver) -> None:
    ended = nettool("ping", "--count", "20", "--interval", "2ms", server.target)
    lines = ended.stdout.splitlines()
    assert re.match(r"20 of 20 probes to 127\.0\.0\.1:\d+ over UDP answered, none lost$", lines[0])


def test_what_was_measured_is_shown_though_the_connection_is_lost() -> None:
    def echo_three(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            for _ in range(3):
                connection.sendall(connection.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        ended, _ = together(lambda: nettool("ping", "--tcp", "--interval", "5ms", target), lambda: echo_three(server))
    assert ended.code == 4
    assert "round trip in ms: min" in ended.stdout
    assert "the other side closed the connection" in ended.stderr


def test_any_program_gets_back_what_it_sends(server: Receiver) -> None:
    content = bytes(range(256)) * 4000  # more than the server keeps
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as sock:
        returned = b""
        for start in range(0, len(content), 16384):
            sock.sendall(content[start : start + 16384])
            while len(returned) < start + 16384 and len(returned) < len(content):
                returned += sock.recv(1 << 16)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert returned == content
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(WAIT_S)
        sock.connect(("127.0.0.1", server.port))
        for datagram in (b"hello", b"x" * 1400):
            sock.send(datagram)
            assert sock.recv(2000) == datagram


def test_a_datagram_that_may_have_been_cut_off_gets_no_answer(server: Receiver) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(WAIT_S)
        sock.connect(("127.0.0.1", server.port))
        sock.send(bytes(MAX_DATAGRAM_BYTES + 1))
        sock.send(bytes(MAX_DATAGRAM_BYTES))
        assert sock.recv(1 << 16) == bytes(MAX_DATAGRAM_BYTES)


def test_a_slow_reader_and_too_many_connections_stop_nobody(server: Receiver) -> None:
    connections = [socket.create_connection(("127.0.0.1", server.port), WAIT_S)]
    try:
        connections[0].setblocking(False)
        with suppress(BlockingIOError):
            while connections[0].send(bytes(1 << 16)):  # and reads nothing
                pass
        connections += [
            socket.create_connection(("127.0.0.1", server.port), WAIT_S) for _ in range(MAX_CONNECTIONS_PER_HOST - 1)
        ]
        ended = nettool("ping", "--tcp", "--count", "1", server.target)
        assert ended.code == 4
        assert "it has too many" in ended.stderr
    finally:
        for connection in connections:
            connection.close()
    assert nettool("ping", "--count", "1", server.target).code == 0


@pytest.mark.parametrize("option", ["--tcp", "--udp", "--raw-udp"])
def test_where_nothing_listens_the_error_says_so(option: str) -> None:
    ended = nettool("ping", option, "--count", "2", "--wait", "1s", "127.0.0.1:1")
    assert ended.code == 3
    assert "nettool echo" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ping", "--tcp", "--udp", "127.0.0.1"], "one of --tcp, --udp and --raw-udp"),
        (["ping", "--interval", "1ms", "127.0.0.1"], "--interval must be 2ms or more"),
        (["ping", "--size", "3", "127.0.0.1"], "3 is out of range"),
        (["ping", "--udp", "127.0.0.1:65535"], "none after 65535"),
        (["echo", "--port", "65535"], "choose a lower one"),
    ],
)
def test_impossible_options_are_refused(arguments: list[str], message: str) -> None:
    ended = nettool(*arguments)
    assert ended.code == 2
    assert message in ended.stderr
