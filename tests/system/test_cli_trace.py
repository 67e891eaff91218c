"""`--trace-calls`, `--simple`, `--trace-file` and `nettool trace`: the calls of a transfer in a textbook's order."""

import random
import re
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.cli_process import nettool, nettool_here, receiver
from toolkit.report.call_timeline import EndTrace, read_trace
from toolkit.tracing.call import Call

pytestmark = pytest.mark.usefixtures("warm")
_ROUTE_CHECK = ["socket", "connect", "close"]
"""A UDP sender without answers looks for another route: on a busy machine, its peer may be silent for that long."""
MILLISECONDS = re.compile(r"^ *\d+\.\d\d  ")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(random.Random(7).randbytes(2_000_000))
    return path


def transfer(transport: str, photo: Path, folder: Path, *options: str) -> tuple[EndTrace, EndTrace]:
    """Send the photo; return the traces of the sender and of the receiver."""
    ours, theirs = folder / "sender.jsonl", folder / "receiver.jsonl"
    incoming = folder / "incoming"
    with receiver(incoming, "--once", "--trace-file", str(theirs), *options, command=f"{transport}-recv") as receiving:
        sent = nettool(f"{transport}-send", *options, "--trace-file", ours, photo, receiving.target)
        assert (sent.code, receiving.end().code) == (0, 0)
    assert (incoming / photo.name).read_bytes() == photo.read_bytes()
    return read_trace(ours), read_trace(theirs)


def lives(trace: EndTrace) -> list[list[str]]:
    """The names of the calls on each descriptor, from the call that makes it to its close, without repetitions."""
    alive: dict[int, list[Call]] = {}
    ended: list[list[Call]] = []
    for call in trace.calls:
        if call.name in ("socket", "open") and call.result.isdecimal():  # a failed one makes no descriptor
            alive[int(call.result)] = [call]
        elif call.name and call.fd >= 0:
            if call.name == "accept":
                alive[int(call.result.split(",")[0])] = []
            alive[call.fd].append(call)
            if call.name == "close":
                ended.append(alive.pop(call.fd))
    assert alive == {}
    named = [[name for name, _ in groupby(call.name for call in calls)] for calls in ended]
    return [names for names in named if names != _ROUTE_CHECK]


def without_data(names: list[str]) -> list[str]:
    """The calls of a socket, with one "data" for any exchange of data."""
    moved = [("data" if name in ("send", "recv", "sendto", "recvfrom") else name) for name in names]
    return [name for name, _ in groupby(moved)]


def test_the_calls_of_a_tcp_transfer_are_a_textbooks(photo: Path, tmp_path: Path) -> None:
    sender, receiving = transfer("tcp", photo, tmp_path, "--simple")
    file, connection = lives(sender)
    assert file == ["open", "read", "close"]
    assert without_data(connection) == ["socket", "connect", "data", "shutdown", "data", "close"]
    assert connection[2] == "send"  # the one who connects speaks first
    written, connection, listener = lives(receiving)
    assert without_data(written) == ["open", "write", "close"]
    assert without_data(connection) == ["data", "shutdown", "data", "close"]
    assert listener == ["socket", "bind", "listen", "accept", "close"]
    renames = [call for call in receiving.calls if call.name.startswith("rename")]
    named = [call for call in renames if call.meaning == "complete and verified: it gets its name"]
    assert [call.name for call in named] == ["renameat2"]
    assert named == renames[-1:]  # before that, it is hidden from later sessions of this sender
    [connect] = [call for call in sender.calls if call.name == "connect"]
    assert re.match(r"the kernel chose port \d+ for us; SYN, SYN-ACK, ACK took \d+\.\d ms", connect.meaning)


def test_the_calls_of_a_udp_transfer_are_a_textbooks(photo: Path, tmp_path: Path) -> None:
    sender, receiving = transfer("udp", photo, tmp_path, "--simple")
    file, socket = lives(sender)
    assert {"open", "read", "close"} <= set(file) <= {"open", "read", "lseek", "close"}
    assert without_data(socket) == ["socket", "connect", "data", "close"]
    assert socket[2] == "sendto"
    written, connection, listener = lives(receiving)
    assert {"open", "write", "close"} <= set(written) <= {"open", "write", "lseek", "close"}
    assert without_data(connection) == ["socket", "bind", "connect", "data", "close"]
    assert listener[:4] == ["socket", "bind", "recvfrom", "sendto"]
    assert without_data(listener) == ["socket", "bind", "data", "close"]
    datagrams = [call for call in sender.calls if call.name == "sendto"]
    assert {call.kind for call in datagrams} >= {"INITIAL", "FINISH", "DATA", "MESSAGE"}
    assert max(call.size_bytes or 0 for call in datagrams) < 10_000  # one datagram a call


def test_without_simple_the_calls_are_nettools_own(transport: str, photo: Path, tmp_path: Path) -> None:
    sender, receiving = transfer(transport, photo, tmp_path)
    names = {call.name for end in (sender, receiving) for call in end.calls}
    assert {"preadv", "pwrite"} <= names
    assert ({"recvmmsg", "sendmmsg"} <= names) == (transport == "udp")
    assert "sendto" not in names


def test_the_session_is_explained_before_its_calls(transport: str, photo: Path, tmp_path: Path) -> None:
    sender, receiving = transfer(transport, photo, tmp_path, "--simple")
    said = [call.meaning for call in sender.calls if not call.name]
    heard = [call.meaning for call in receiving.calls if not call.name]
    assert "sends name and size: photo.jpg, 2,000,000 bytes" in said
    assert "got name and size: photo.jpg, 2,000,000 bytes" in heard


def test_calls_are_printed_with_their_meaning_and_counted(transport: str, photo: Path, incoming: Path) -> None:
    with receiver(incoming, "--once", "--trace-calls", "--simple", command=f"{transport}-recv") as receiving:
        sent = nettool(f"{transport}-send", "--trace-calls", "--simple", photo, receiving.target)
        received = receiving.end()
    assert (sent.code, received.code) == (0, 0)
    assert all(len(line) <= 80 for line in sent.stderr.splitlines()), sent.stderr
    calls = [line for line in sent.stderr.splitlines() if MILLISECONDS.match(line)]
    assert MILLISECONDS.sub("", calls[0]).startswith("socket(AF_INET, SOCK_")
    assert re.search(r"\.\.\. \d+ more .*(send|sendto|read)\(\d+\) of [\d,]+", sent.stderr)
    assert "is ours: what is sent there comes to this socket" in received.stderr
    assert sent.stdout.startswith("sent 1 file")


def test_a_trace_of_a_directory_asks_for_a_file(tmp_path: Path) -> None:
    ended = nettool("trace", tmp_path)
    assert ended.code == 2
    assert ended.stderr.strip() == f"nettool: {tmp_path} is a directory: name one file"


def test_a_trace_of_standard_input_asks_for_a_file() -> None:
    ended = nettool_here("trace", "-")
    assert (ended.code, ended.stderr) == (2, "nettool: a trace sends a file, and - is standard input: name one file\n")


def test_a_trace_takes_neither_defaults_nor_a_code_for_the_commands_that_it_runs(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("[tcp-recv]\nno-such-option = true\n")
    monkeypatch.setenv("NETTOOL_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("NETTOOL_CODE", "7-ocean-brick-lunar")
    ended = nettool_here("trace", "--quiet", photo)
    assert (ended.code, ended.stderr) == (0, "")


def test_a_trace_shows_both_ends_in_80_columns_and_as_a_page(photo: Path, tmp_path: Path) -> None:
    page = tmp_path / "calls.html"
    ended = nettool("trace", "--udp", "--html", page, photo)
    assert (ended.code, ended.stderr) == (0, f"wrote {page}\n")
    lines = ended.stdout.splitlines()
    assert re.match(r" +ms  udp-send \(process \d+\) +udp-recv \(process \d+\)$", lines[0])
    assert all(len(line) <= 80 for line in lines)
    assert [line for line in lines if "  # sends name and size: photo.jpg," in line]
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "<code>bind(" in text
    assert "is ours: what is sent there comes to this socket" in text


def test_simple_alone_is_refused(photo: Path) -> None:
    ended = nettool("tcp-send", "--simple", photo, "127.0.0.1")
    assert (ended.code, ended.stderr) == (
        2,
        "nettool: --simple is for watching: add --trace-calls or --trace-file FILE\n",
    )


def test_a_file_of_something_else_is_not_replaced(photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    ended = nettool("tcp-send", "--trace-file", other, photo, "127.0.0.1:9")
    assert ended.code == 2
    assert other.read_text() == "mine"


def test_calls_are_not_written_over_the_file_that_is_sent(tmp_path: Path) -> None:
    earlier = tmp_path / "calls.jsonl"
    earlier.write_text('{"kind": "calls"}\n')
    ended = nettool("tcp-send", "--trace-file", earlier, earlier, "127.0.0.1:9")
    assert ended.code == 2
    assert "would overwrite a file that this command reads" in ended.stderr
    assert earlier.read_text() == '{"kind": "calls"}\n'
