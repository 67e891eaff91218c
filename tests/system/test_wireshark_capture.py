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


Rows = list[dict[str, list[str]]]

NOTABLE = ["nettool.malformed", "nettool.expert.forged", "nettool.expert.contradiction"]
FIELDS = [
    *("nettool.type", "nettool.packet_number", "nettool.protection", "nettool.aead", "nettool.offset"),
    *("nettool.payload", "nettool.range", "nettool.range.first", "nettool.range.last"),
    *("nettool.session.type", "nettool.session.path", "udp.srcport", "udp.dstport", *NOTABLE),
]


def dissect(capture: Path, *preferences: str) -> Rows:
    """All fields that the tests look at, of all frames of UDP, from one run of tshark."""
    return read_fields(capture, FIELDS, "nettool", preferences)


def content_shown(done: Transfer, rows: Rows) -> bytes:
    """The content of the file, put together from the payload of DATA packets."""
    content = bytearray(len(done.content))
    for row in rows:
        if "0x10" not in row["nettool.type"]:
            continue
        for offset, payload in zip(row["nettool.offset"], row["nettool.payload"], strict=bool(row["nettool.payload"])):
            piece = bytes.fromhex(payload)
            content[int(offset) : int(offset) + len(piece)] = piece
    return bytes(content)


@pytest.fixture(scope="module")
def opened(sealed: Transfer) -> Rows:
    """What the key log opens of the encrypted transfer over UDP."""
    return dissect(sealed.capture, *with_keys(sealed.keys))


def test_the_key_log_opens_every_packet(sealed: Transfer, opened: Rows) -> None:
    states = [state for row in opened for state in row["nettool.protection"]]
    assert len(states) > len(sealed.content) / 9000
    assert set(states) == {"1"}
    assert content_shown(sealed, opened) == sealed.content
    assert not [row for row in opened for name in NOTABLE if row[name]]


def test_the_messages_of_the_session_are_readable_with_the_key_log(sealed: Transfer, opened: Rows) -> None:
    name = NAME.encode().hex()
    offers = [row for row in opened if name in "".join(row["nettool.payload"]) and "2" in row["nettool.session.type"]]
    assert [row["nettool.session.path"] for row in offers] == [[NAME]]
    summary = tshark(sealed.capture, *with_keys(sealed.keys))
    for message in ("BEGIN", "OFFER", "ACCEPT", "DIGESTS", "END", "RESULT", "DONE"):
        assert message in summary, message


def test_acknowledgements_are_readable_with_the_key_log(opened: Rows) -> None:
    """Each one names only packets of the other direction that were sent before it."""
    sent: dict[str, set[int]] = {}
    acknowledged = 0
    for row in opened:
        if not row["nettool.protection"]:
            continue
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
        rows = dissect(sealed.capture, *preferences)
        assert {state for row in rows for state in row["nettool.protection"]} == {"2"}
        assert not [row for row in rows if row["nettool.payload"] or row["nettool.range"]]
        assert content_shown(sealed, rows) == bytes(len(sealed.content))
        assert "secret" not in tshark(sealed.capture, *preferences, "-V", "-O", "nettool")


def test_plaintext_is_recognised_from_its_first_packet(tmp_path: Path) -> None:
    """Without any preference: nobody takes the end of a payload for a tag, or a protected packet for plaintext."""
    done = transfer(tmp_path, "udp", "--plaintext")
    assert not done.keys.exists()
    rows = dissect(done.capture)
    assert {state for row in rows for state in row["nettool.protection"]} == {"0"}
    assert content_shown(done, rows) == done.content
    assert not [row for row in rows for name in NOTABLE if row[name]]


@pytest.fixture(scope="module")
def sealed_tcp(tmp_path_factory: pytest.TempPathFactory) -> Transfer:
    """An encrypted transfer over TCP, with three connections."""
    return transfer(tmp_path_factory.mktemp("tcp"), "tcp", sending=("--streams", "3"))


NOTABLE_OF_TCP = ["nettool_tcp.malformed", "nettool_tcp.expert.forged"]
FIELDS_OF_TCP = [
    *("nettool_tcp.type", "nettool_tcp.protection", "nettool_tcp.frame.type", "nettool_tcp.frame.length"),
    *("nettool.session.type", "nettool.session.path", *NOTABLE_OF_TCP),
]


def dissect_tcp(capture: Path, *preferences: str) -> Rows:
    """All fields that the tests look at, of all frames of TCP, from one run of tshark."""
    return read_fields(capture, FIELDS_OF_TCP, "nettool_tcp", preferences)


def content_bytes_shown(rows: Rows) -> int:
    """How much content the frames announce, over TCP."""
    frames = [
        frame
        for row in rows
        for frame in zip(row["nettool_tcp.frame.type"], row["nettool_tcp.frame.length"], strict=True)
    ]
    return sum(int(length) for kind, length in frames if kind == "2")


def prefaces_shown(rows: Rows) -> list[str]:
    """The types of all prefaces, in order."""
    return sorted(kind for row in rows for kind in row["nettool_tcp.type"])


def paths_offered(rows: Rows) -> list[list[str]]:
    """The paths in each OFFER."""
    return [row["nettool.session.path"] for row in rows if "2" in row["nettool.session.type"]]


def test_the_key_log_opens_every_record_over_tcp(sealed_tcp: Transfer) -> None:
    """Those of the first connection too, which does not say in the clear which session it belongs to."""
    preferences = with_keys(sealed_tcp.keys)
    rows = dissect_tcp(sealed_tcp.capture, *preferences)
    assert {state for row in rows for state in row["nettool_tcp.protection"]} == {"1"}
    assert content_bytes_shown(rows) == len(sealed_tcp.content)
    assert paths_offered(rows) == [[NAME]]
    assert not [row for row in rows for name in NOTABLE_OF_TCP if row[name]]
    summary = tshark(sealed_tcp.capture, *preferences)
    for message in ("BEGIN", "OFFER", "ACCEPT", "DIGESTS", "END", "RESULT", "DONE"):
        assert message in summary, message


def test_without_the_key_log_tcp_shows_prefaces_and_nothing_else(sealed_tcp: Transfer) -> None:
    rows = dissect_tcp(sealed_tcp.capture)
    assert prefaces_shown(rows) == sorted("126" + "78" * 2)
    assert NAME.encode() not in sealed_tcp.capture.read_bytes()
    assert {state for row in rows for state in row["nettool_tcp.protection"]} == {"2"}
    assert not [row for row in rows if row["nettool_tcp.frame.type"]]


def test_plaintext_over_tcp_is_readable(tmp_path: Path) -> None:
    done = transfer(tmp_path, "tcp", "--plaintext")
    rows = dissect_tcp(done.capture)
    assert prefaces_shown(rows) == ["1", "2", "6"]
    assert content_bytes_shown(rows) == len(done.content)
    assert paths_offered(rows) == [[NAME]]
    assert not [row for row in rows if row["nettool_tcp.malformed"]]
