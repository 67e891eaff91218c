"""Peers that are not nettool, or that break the protocol: the command fails cleanly and leaves nothing behind."""

import json
import random
import re
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.cli_process import (
    LIMIT_S,
    Ended,
    Receiver,
    complaint,
    everything_below,
    nettool,
    receiver,
)
from tests.support.content import BytesSink, BytesSource
from toolkit.channel import Address, Channel, Extent, TransportOptions
from toolkit.errors import NettoolError
from toolkit.rudp.connection import Connection
from toolkit.transfer.digest import ALGORITHMS
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import (
    Accept,
    Alive,
    AnyMessage,
    Begin,
    Digests,
    Done,
    End,
    EntryOutcome,
    EntryStatus,
    ErrorMessage,
    ErrorReason,
    FileDigest,
    Offer,
    Result,
    decode_untrusted,
)
from toolkit.transports.registry import transport as transport_named
from toolkit.transports.tcp.wire import VERSION


@contextmanager
def connected(transport: str, receiving: Receiver) -> Iterator[Channel]:
    channel = transport_named(transport).connect(Address("127.0.0.1", receiving.port), TransportOptions())
    try:
        yield channel
    finally:
        channel.abort()


def answer(channel: Channel) -> AnyMessage | None:
    """Return the next message from the receiver, and none that it is alive; None if it has closed the connection."""
    try:
        while (data := channel.receive(timeout_s=LIMIT_S)) is not None:
            if not isinstance(message := decode_untrusted(data), Alive):  # a busy machine says so first
                return message
    except NettoolError:
        pass
    return None


def test_garbage_on_the_port_disturbs_no_session(transport: str, file: Path, incoming: Path) -> None:
    generator = random.Random(99)
    with receiver(incoming) as receiving:
        address = ("127.0.0.1", receiving.port)
        for size_bytes in (0, 1, 3, 16, 40, 300, 1200, 1472, 9000, 60_000):
            noise = generator.randbytes(size_bytes)
            if transport == "tcp":
                with socket.create_connection(address) as connection:
                    connection.sendall(noise)
            else:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(noise, address)
        for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x02\x00\x01"):
            with socket.create_connection(address) as connection:
                connection.sendall(greeting)
        with socket.create_connection(address):  # a connected client that stays silent
            assert nettool(f"{transport}-send", file, receiving.target).code == 0
        ended = receiving.end(signal.SIGTERM)
    assert ended.code == 130
    assert "Traceback" not in ended.stderr
    assert "unexpected" not in ended.stderr
    assert all(line.isprintable() for line in ended.stderr.splitlines())
    assert everything_below(incoming) == ["file"]


def test_a_server_of_another_protocol(transport: str, file: Path) -> None:
    """Over TCP, the sender recognises a peer that answers with noise. Over UDP it ignores what no peer has sent."""
    options = ["--connect-timeout", "1s"] if transport == "udp" else []
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    noise = random.Random(7).randbytes(1400)
    over = threading.Event()
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))

        def chatter() -> None:
            if transport == "tcp":
                connection, _ = other.accept()
                with connection:
                    connection.sendall(noise)
                    over.wait()
                return
            other.settimeout(0.1)
            while not over.is_set():
                with suppress(OSError):
                    _, sender = other.recvfrom(1 << 16)
                    other.sendto(noise, sender)

        if transport == "tcp":
            other.listen()
        thread = threading.Thread(target=chatter)
        thread.start()
        try:
            ended = nettool(f"{transport}-send", *options, file, f"127.0.0.1:{other.getsockname()[1]}")
        finally:
            over.set()
            thread.join()
    assert ended.code in (3, 4)
    complaint(ended)


def test_a_sender_of_another_version(transport: str, incoming: Path) -> None:
    with receiver(incoming, "--once") as receiving:
        with connected(transport, receiving) as channel:
            channel.send_message(Begin(version=999).encode())
            reply = answer(channel)
        ended = receiving.end()
    assert isinstance(reply, ErrorMessage)
    assert "version" in reply.text
    assert ended.code == 3
    assert "version" in ended.stderr


def test_a_receiver_of_another_version(transport: str, file: Path) -> None:
    listener = transport_named(transport).listen(Address("127.0.0.1", 0), TransportOptions())

    def refuse() -> None:
        channel = listener.accept(LIMIT_S)
        assert channel is not None
        while channel.receive(BytesSink(), LIMIT_S) is None:
            pass
        channel.send_message(ErrorMessage(ErrorReason.VERSION, "session version 999 here").encode())
        channel.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    try:
        ended = nettool(f"{transport}-send", file, str(listener.address))
        thread.join()
    finally:
        listener.close()
    assert ended.code == 3
    assert "version" in complaint(ended)


@pytest.mark.parametrize(
    "path",
    [
        b"../evil",
        b"/etc/evil",
        b"a/../../evil",
        b"..",
        b".",
        b"-evil",
        b".bashrc",
        b".ssh/authorized_keys",
        b"ev\x00il",
        b"ev\x1b[31mil",
        b"ev\nil",
        b"a//b",
        b"x" * 256,
        b"d/" * 2000 + b"x",
    ],
)
def test_hostile_names_create_no_file(transport: str, path: bytes, tmp_path: Path, incoming: Path) -> None:
    entry = Entry(EntryKind.FILE, path, 0o644, 0, 4, 4)
    with receiver(incoming, "--once") as receiving, connected(transport, receiving) as channel:
        channel.send_message(Begin(total_files=1, total_bytes=4).encode())
        channel.send_message(Offer(0, (entry,)).encode())
        reply = answer(channel)
        assert isinstance(reply, Accept)
        assert reply.outcomes[0].reason.isprintable()
        channel.abort()
        ended = receiving.end()
    assert ended.code in (3, 4)
    assert all(line.isprintable() for line in ended.stderr.splitlines())
    assert everything_below(tmp_path) == ["incoming"]


@pytest.mark.parametrize("size_bytes", [1 << 45, (1 << 63) - 1, 1 << 63, (1 << 64) - 2])
def test_absurd_sizes_are_refused(transport: str, size_bytes: int, incoming: Path) -> None:
    entry = Entry(EntryKind.FILE, b"huge", 0o644, 0, size_bytes, min(size_bytes, (1 << 63) - 1))
    with receiver(incoming, "--once") as receiving, connected(transport, receiving) as channel:
        channel.send_message(Begin(total_files=1).encode())
        channel.send_message(Offer(0, (entry,)).encode())
        reply = answer(channel)
        assert isinstance(reply, Accept | ErrorMessage)
        channel.abort()
        assert receiving.end().code in (3, 4)
    assert everything_below(incoming) == []


def test_a_wrong_digest_is_detected_and_the_file_removed(transport: str, incoming: Path) -> None:
    content = b"what was sent"
    entry = Entry(EntryKind.FILE, b"file", 0o644, 0, len(content), len(content))
    with receiver(incoming, "--once", "--json") as receiving, connected(transport, receiving) as channel:
        channel.send_message(Begin(total_files=1).encode())
        channel.send_message(Offer(0, (entry,)).encode())
        assert isinstance(answer(channel), Accept)
        channel.send_extent(Extent(0, 0, len(content)), BytesSource(content))
        wrong = bytes(ALGORITHMS[0].digest_bytes)
        channel.send_message(Digests((FileDigest(0, len(content), wrong),)).encode())
        assert isinstance(answer(channel), Result)
        channel.send_message(End(1).encode())
        ended = receiving.end()
    assert ended.code == 5
    assert ended.object["verified"] is False
    assert ended.object["exit_code"] == 5
    assert re.search(r"^nettool: .*file", ended.stderr, re.MULTILINE)
    assert everything_below(incoming) == []


# Text that would write to a terminal what its user does not expect.

HOSTILE = "\x1b[2J\x1b]0;title\x07\r\n\x9b31m\u202eevil\u2066\u2069\u200b"
HOSTILE_NAMES = (
    b"../" + HOSTILE.encode(),
    b"a\xff\x1b[31m",
    b"-\xed\xb3\xbf\xff",
    "\u202etxt.\u2066exe".encode() + b"\xfe",
)


def assert_fit_for_terminal(ended: Ended) -> None:
    """Check each line of stderr, and what a program that reads the JSON of stdout would show."""
    assert ended.stderr
    assert all(line.isprintable() for line in ended.stderr.splitlines()), ended

    def check(value: object) -> None:
        if isinstance(value, str):
            assert value.isprintable()
        elif isinstance(value, dict):
            for key, member in value.items():
                check(key)
                check(member)
        elif isinstance(value, list):
            for member in value:
                check(member)

    for line in ended.stdout.splitlines():
        assert line.isprintable()
        check(json.loads(line))


def test_names_and_errors_of_a_sender_are_made_printable(transport: str, incoming: Path) -> None:
    entries = tuple(Entry(EntryKind.FILE, name, 0o644, 0, 4, 4) for name in HOSTILE_NAMES)
    with receiver(incoming, "--json") as receiving:
        with connected(transport, receiving) as channel:
            channel.send_message(Begin().encode())
            channel.send_message(Offer(0, entries).encode())
            reply = answer(channel)
            assert isinstance(reply, Accept)
            accepted = [number for number, outcome in enumerate(reply.outcomes) if outcome.status is EntryStatus.OK]
            wrong = Digests(tuple(FileDigest(number, 4, bytes(16)) for number in accepted))
            for number in accepted:
                channel.send_extent(Extent(number, 0, 4), BytesSource(b"evil"))
            channel.send_message(wrong.encode())
            assert isinstance(answer(channel), Result)
            channel.send_message(End(len(entries)).encode())
            answer(channel)
            channel.close()
        with connected(transport, receiving) as channel:
            channel.send_message(ErrorMessage(ErrorReason.FAILED, HOSTILE).encode())
            channel.close()
            receiving.wait_for("the sender failed")
        assert_fit_for_terminal(receiving.end(signal.SIGTERM))


@pytest.mark.parametrize("message", ["ACCEPT", "RESULT", "FAILED", "VERSION", "REFUSED"])
def test_reasons_of_a_receiver_are_made_printable(transport: str, file: Path, message: str) -> None:
    listener = transport_named(transport).listen(Address("127.0.0.1", 0), TransportOptions())

    def serve() -> None:
        channel = listener.accept(LIMIT_S)
        assert channel is not None
        with suppress(NettoolError):
            while not isinstance(received := message_of(channel), Offer):
                pass
            refused = EntryOutcome(EntryStatus.REFUSED, HOSTILE)
            if message == "ACCEPT":
                for reply in (Accept(0, (refused,)), Result(0, (refused,))):
                    channel.send_message(reply.encode())
            elif message == "RESULT":
                channel.send_message(Accept(0, (EntryOutcome(EntryStatus.OK),)).encode())
                channel.send_message(Result(0, (EntryOutcome(EntryStatus.FAILED, HOSTILE),)).encode())
            else:
                channel.send_message(ErrorMessage(ErrorReason[message], HOSTILE).encode())
            while message in ("ACCEPT", "RESULT") and not isinstance(received, End):
                received = message_of(channel)
            channel.send_message(Done(0, 0).encode())
        channel.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ended = nettool(f"{transport}-send", "--json", file, str(listener.address))
        thread.join()
    finally:
        listener.close()
    assert ended.code in (3, 4)
    assert_fit_for_terminal(ended)


def message_of(channel: Channel) -> AnyMessage | None:
    """The next message of a sender; None if content has come instead."""
    data = channel.receive(BytesSink(), LIMIT_S)
    return None if data is None else decode_untrusted(data)


def test_the_reason_of_a_close_is_made_printable(incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(incoming, "--once", "--json") as receiving:
        close = Connection.close
        monkeypatch.setattr(Connection, "close", lambda connection, code, _reason: close(connection, code, HOSTILE))
        with connected("udp", receiving) as channel:
            channel.send_message(Begin().encode())
            channel.send_message(Offer(0, (Entry(EntryKind.FILE, b"file", 0o644, 0, 4, 4),)).encode())
            assert isinstance(answer(channel), Accept)
            channel.abort()
        ended = receiving.end()
    assert "evil" in ended.stderr
    assert_fit_for_terminal(ended)


@pytest.mark.parametrize("kind", [0, 2, 3, 4, 5, 6, 99])
def test_a_hostile_preface_is_made_printable(file: Path, kind: int) -> None:
    """Whatever a listener that speaks the TCP protocol puts into a refusal."""
    body = HOSTILE.encode()
    preface = struct.pack("!8sHBxH", b"\x8eNETTOOL", VERSION, kind, len(body)) + body
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(preface)
                with suppress(OSError):
                    connection.recv(1)

        thread = threading.Thread(target=refuse)
        thread.start()
        ended = nettool("tcp-send", "--json", file, f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert ended.code in (3, 4)
    assert_fit_for_terminal(ended)
