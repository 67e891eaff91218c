"""A real transfer, captured on the loopback interface: what a reader of the capture sees with the key log and without.

It needs the right to capture, which root has.
"""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import captures
from tests.support.background import PATIENCE_S
from tests.support.captures import ON_ANY_PORT, needs_tshark, with_keys
from tests.support.cli_process import nettool, receiver
from toolkit.security import keylog

DUMPCAP = shutil.which("dumpcap")
pytestmark = [needs_tshark, pytest.mark.skipif(DUMPCAP is None, reason="dumpcap is not installed")]

NAME = "a-secret-name.bin"
END_OF_CAPTURE = b"everything before this is captured"


class Transfer(NamedTuple):
    """A transfer of a file that was captured."""

    capture: Path
    keys: Path
    content: bytes


@contextmanager
def capturing(capture: Path, port: int) -> Iterator[None]:
    """Capture what is sent to or from a port of the loopback interface. Skips the test without the right to."""
    assert DUMPCAP is not None
    command = [DUMPCAP, "-q", "-i", "lo", "-f", f"port {port}", "-w", str(capture)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if line.startswith("File: "):
                    break
            else:
                pytest.skip(f"cannot capture: {''.join(said).strip()}")
            yield
            wait_for_the_end(capture, port)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()


def wait_for_the_end(capture: Path, port: int) -> None:
    """Wait until a datagram that is sent now is in the file, and with it everything before."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(END_OF_CAPTURE, ("127.0.0.1", port))
    deadline = time.monotonic() + PATIENCE_S
    while END_OF_CAPTURE not in capture.read_bytes():
        assert time.monotonic() < deadline, "the capture does not end"
        time.sleep(0.05)


def transfer(folder: Path, transport: str, *options: str, sending: tuple[str, ...] = ()) -> Transfer:
    """Send a file from one nettool to another, with a key log, and capture it. `sending` is for the sender alone."""
    incoming, file = folder / "incoming", folder / NAME
    done = Transfer(folder / "capture.pcapng", folder / "keys", bytes(range(256)) * 700)
    incoming.mkdir()
    file.write_bytes(done.content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(keylog.VARIABLE, str(done.keys))
        with (
            receiver(incoming, "--once", *options, command=f"{transport}-recv") as receiving,
            capturing(done.capture, receiving.port),
        ):
            sent = nettool(f"{transport}-send", *options, *sending, file, receiving.target)
            assert sent.code == 0, sent
            assert receiving.end().code == 0
    assert (incoming / NAME).read_bytes() == done.content
    return done


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Transfer:
    """An encrypted transfer over UDP."""
    return transfer(tmp_path_factory.mktemp("udp"), "udp")


def tshark(capture: Path, *arguments: str) -> str:
    """Return what tshark prints, whichever ports the transfer had."""
    return captures.tshark(capture, *ON_ANY_PORT, *arguments)


def read_fields(
    capture: Path, names: list[str], display_filter: str, preferences: tuple[str, ...]
) -> list[dict[str, list[str]]]:
    """Return all values of each field, for each frame that passes the filter, whichever ports the transfer had."""
    return captures.read_fields(capture, names, display_filter, (*ON_ANY_PORT, *preferences))


def content_shown(done: Transfer, *preferences: str) -> bytes:
    """The content of the file, put together from the payload of DATA packets."""
    rows = read_fields(done.capture, ["nettool.offset", "nettool.payload"], "nettool.type == 0x10", preferences)
    content = bytearray(len(done.content))
    for row in rows:
        for offset, payload in zip(row["nettool.offset"], row["nettool.payload"], strict=bool(row["nettool.payload"])):
            piece = bytes.fromhex(payload)
            content[int(offset) : int(offset) + len(piece)] = piece
    return bytes(content)


def test_the_key_log_opens_every_packet(sealed: Transfer) -> None:
    rows = read_fields(sealed.capture, ["nettool.protection", "nettool.aead"], "nettool", with_keys(sealed.keys))
    states = [state for row in rows for state in row["nettool.protection"]]
    assert len(states) > len(sealed.content) / 9000
    assert set(states) == {"1"}
    assert content_shown(sealed, *with_keys(sealed.keys)) == sealed.content
    notable = "nettool.malformed || nettool.expert.forged || nettool.expert.contradiction"
    assert tshark(sealed.capture, *with_keys(sealed.keys), "-Y", notable) == ""


def test_the_messages_of_the_session_are_readable_with_the_key_log(sealed: Transfer) -> None:
    offers = read_fields(
        sealed.capture,
        ["nettool.session.path", "nettool.payload"],
        'nettool.payload contains "secret-name" && nettool.session.type == 2',
        with_keys(sealed.keys),
    )
    assert [row["nettool.session.path"] for row in offers] == [[NAME]]
    assert NAME.encode().hex() in "".join(offers[0]["nettool.payload"])
    summary = tshark(sealed.capture, *with_keys(sealed.keys))
    for message in ("BEGIN", "OFFER", "ACCEPT", "DIGESTS", "END", "RESULT", "DONE"):
        assert message in summary, message


def test_acknowledgements_are_readable_with_the_key_log(sealed: Transfer) -> None:
    """Each one names only packets of the other direction that were sent before it."""
    names = ["nettool.type", "nettool.packet_number", "udp.srcport", "nettool.range.first", "nettool.range.last"]
    sent: dict[str, set[int]] = {}
    acknowledged = 0
    for row in read_fields(sealed.capture, [*names, "udp.dstport"], "nettool.protection", with_keys(sealed.keys)):
        [source], [target] = row["udp.srcport"], row["udp.dstport"]
        sent.setdefault(source, set()).update(map(int, row["nettool.packet_number"]))
        for first, last in zip(row["nettool.range.first"], row["nettool.range.last"], strict=True):
            assert {int(first), int(last)} <= sent[target]
            acknowledged += 1
    assert acknowledged > 0


def test_without_the_key_log_nothing_is_shown(sealed: Transfer, tmp_path: Path) -> None:
    """Not even the name of the file, anywhere in the capture."""
    assert NAME.encode() not in sealed.capture.read_bytes()
    empty = tmp_path / "empty"
    empty.touch()
    for preferences in ((), with_keys(empty)):
        rows = read_fields(
            sealed.capture, ["nettool.protection", "nettool.payload", "nettool.range"], "nettool", preferences
        )
        assert {state for row in rows for state in row["nettool.protection"]} == {"2"}
        assert not [row for row in rows if row["nettool.payload"] or row["nettool.range"]]
        assert content_shown(sealed, *preferences) == bytes(len(sealed.content))
        assert "secret" not in tshark(sealed.capture, *preferences, "-V", "-O", "nettool")


def test_plaintext_is_recognised_from_its_first_packet(tmp_path: Path) -> None:
    """Without any preference: nobody takes the end of a payload for a tag, or a protected packet for plaintext."""
    done = transfer(tmp_path, "udp", "--plaintext")
    assert not done.keys.exists()
    rows = read_fields(done.capture, ["nettool.protection"], "nettool", ())
    assert {state for row in rows for state in row["nettool.protection"]} == {"0"}
    assert content_shown(done) == done.content
    notable = "nettool.malformed || nettool.expert.forged || nettool.expert.contradiction"
    assert tshark(done.capture, "-Y", notable) == ""


@pytest.fixture(scope="module")
def sealed_tcp(tmp_path_factory: pytest.TempPathFactory) -> Transfer:
    """An encrypted transfer over TCP, with three connections."""
    return transfer(tmp_path_factory.mktemp("tcp"), "tcp", sending=("--streams", "3"))


def content_bytes_shown(done: Transfer, *preferences: str) -> int:
    """How much content the frames announce, over TCP."""
    names = ["nettool_tcp.frame.type", "nettool_tcp.frame.length"]
    rows = read_fields(done.capture, names, "nettool_tcp.frame.type == 2", preferences)
    frames = [frame for row in rows for frame in zip(*row.values(), strict=True)]
    return sum(int(length) for kind, length in frames if kind == "2")


def prefaces_shown(done: Transfer) -> list[str]:
    """The types of all prefaces, in order."""
    rows = read_fields(done.capture, ["nettool_tcp.type"], "nettool_tcp.type", ())
    return sorted(kind for row in rows for kind in row["nettool_tcp.type"])


def test_the_key_log_opens_every_record_over_tcp(sealed_tcp: Transfer) -> None:
    """Those of the first connection too, which does not say in the clear which session it belongs to."""
    preferences = with_keys(sealed_tcp.keys)
    rows = read_fields(sealed_tcp.capture, ["nettool_tcp.protection"], "nettool_tcp", preferences)
    assert {state for row in rows for state in row["nettool_tcp.protection"]} == {"1"}
    assert content_bytes_shown(sealed_tcp, *preferences) == len(sealed_tcp.content)
    offers = read_fields(sealed_tcp.capture, ["nettool.session.path"], "nettool.session.type == 2", preferences)
    assert offers == [{"nettool.session.path": [NAME]}]
    summary = tshark(sealed_tcp.capture, *preferences)
    for message in ("BEGIN", "OFFER", "ACCEPT", "DIGESTS", "END", "RESULT", "DONE"):
        assert message in summary, message
    assert tshark(sealed_tcp.capture, *preferences, "-Y", "nettool_tcp.malformed || nettool_tcp.expert.forged") == ""


def test_without_the_key_log_tcp_shows_prefaces_and_nothing_else(sealed_tcp: Transfer) -> None:
    assert prefaces_shown(sealed_tcp) == sorted("126" + "78" * 2)
    assert NAME.encode() not in sealed_tcp.capture.read_bytes()
    rows = read_fields(sealed_tcp.capture, ["nettool_tcp.protection", "nettool_tcp.frame.type"], "nettool_tcp", ())
    assert {state for row in rows for state in row["nettool_tcp.protection"]} == {"2"}
    assert not [row for row in rows if row["nettool_tcp.frame.type"]]


def test_plaintext_over_tcp_is_readable(tmp_path: Path) -> None:
    done = transfer(tmp_path, "tcp", "--plaintext")
    assert prefaces_shown(done) == ["1", "2", "6"]
    assert content_bytes_shown(done) == len(done.content)
    offers = read_fields(done.capture, ["nettool.session.path"], "nettool.session.type == 2", ())
    assert offers == [{"nettool.session.path": [NAME]}]
    assert tshark(done.capture, "-Y", "nettool_tcp.malformed") == ""
