"""The sending end: what it sends before it waits, receivers that break the protocol, and streams."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.content import BytesSink
from tests.support.memory_transport import MemoryChannel
from tests.support.sessions import Ends, ObservedChannel, RecordingChannel
from toolkit.channel import Address
from toolkit.errors import ProtocolError, RefusedError, TransferError, UsageError, printable
from toolkit.transfer import SendOptions, TransferResult, receive, send
from toolkit.transfer.chunks import CHUNK_BYTES
from toolkit.transfer.incoming import OPTIMISTIC_BYTES
from toolkit.transfer.messages import (
    Accept,
    Alive,
    AnyMessage,
    Begin,
    Done,
    End,
    EntryOutcome,
    EntryStatus,
    ErrorMessage,
    ErrorReason,
    Offer,
    Result,
    decode_untrusted,
)
from toolkit.transfer.names import resumable_partial_name
from toolkit.transfer.result import DeliveryStatus
from toolkit.transfer.scan import SourceEntry, scan

OK = EntryOutcome(EntryStatus.OK)
MISMATCHED = EntryOutcome(EntryStatus.MISMATCHED, "its digest differs")
REFUSED = EntryOutcome(EntryStatus.REFUSED, "no\x1b[2J")


# What is sent before the sender waits.


def calls_of(ends: Ends, sources: list[Path], root: Path) -> list[str]:
    """What a sender calls on its channel; see RecordingChannel."""
    recorder = RecordingChannel(ends[0])
    received = Background(lambda: receive(ends[1], root))
    send(recorder, sources, SendOptions(recursive=True))
    received.outcome()
    return recorder.calls


def test_small_files_take_one_round_trip(ends: Ends, tmp_path: Path, root: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(10_240))
    calls = calls_of(ends, [tmp_path / "a", tmp_path / "b"], root)
    assert calls[:6] == ["BEGIN", "OFFER", "10240 bytes of 0", "10240 bytes of 1", "DIGESTS", "END"]
    assert set(calls[6:]) == {"wait"}


def test_files_of_a_megabyte_are_verified_long_before_the_last_is_sent(ends: Ends, tmp_path: Path, root: Path) -> None:
    """What has no digest when the sender is interrupted is not stored under its name."""
    names = [str(number) for number in range(6)]
    for name in names:
        (tmp_path / name).write_bytes(os.urandom(700_000))
    assert calls_of(ends, [tmp_path / name for name in names], root).count("DIGESTS") == 3


def test_optimistic_content_of_a_large_file_is_bounded(ends: Ends, tmp_path: Path, root: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    calls = calls_of(ends, [tmp_path / "a"], root)
    before = calls[: calls.index("wait")]
    assert before[:2] == ["BEGIN", "OFFER"]
    assert sum(int(call.removesuffix(" bytes of 0")) for call in before[2:]) == OPTIMISTIC_BYTES
    assert (root / "a").read_bytes() == bytes(3_000_000)


def test_a_group_is_offered_before_the_content_of_the_group_before_it(
    ends: Ends, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.scan.MAX_GROUP_ENTRIES", 4)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(10):
        (tree / str(number)).write_bytes(b"x")
    calls = calls_of(ends, [tree], root)
    assert calls[:4] == ["BEGIN", "OFFER", "OFFER", "1 bytes of 1"]
    third_offer = [index for index, call in enumerate(calls) if call == "OFFER"][2]
    assert third_offer < calls.index("1 bytes of 4")
    assert len(list((root / "tree").iterdir())) == 10


@pytest.mark.usefixtures("few_chunks")
def test_a_chunk_that_differs_is_sent_before_much_behind_it_is_compared(
    ends: Ends, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver hashes in order: what it has compared behind a chunk that it lacks, it reads a second time."""
    monkeypatch.setattr("toolkit.transfer.content.MAX_ASKED", 1)
    monkeypatch.setattr("toolkit.transfer.resumption.MAX_MESSAGE_CHUNKS", 1)
    key, content = bytes(16), os.urandom(4 * CHUNK_BYTES)
    (tmp_path / "film").write_bytes(content)
    (root / os.fsdecode(resumable_partial_name(key, b"film"))).write_bytes(bytes(CHUNK_BYTES) + content[CHUNK_BYTES:])
    recorder = RecordingChannel(ends[0])
    received = Background(lambda: receive(ends[1], root))
    send(recorder, [tmp_path / "film"], SendOptions(resume_key=key, is_reconnected=True))
    received.outcome()
    calls = [call for call in recorder.calls if call not in ("wait", "ALIVE")]
    assert calls[2:] == ["CHUNKS", f"{CHUNK_BYTES} bytes of 0", "CHUNKS", "CHUNKS", "CHUNKS", "DIGESTS", "END"]
    assert (root / "film").read_bytes() == content


def test_usage_errors_come_before_anything_is_sent(ends: Ends, tmp_path: Path) -> None:
    for sources, options in (
        ([tmp_path / "missing"], SendOptions()),
        ([tmp_path], SendOptions()),
        ([tmp_path], SendOptions(recursive=True, digest="md5")),
    ):
        with pytest.raises(UsageError):
            send(ends[0], sources, options)
    assert ends[1].receive(timeout_s=0) is None


# Receivers that break the protocol.


def answer(channel: MemoryChannel, script: list[AnyMessage]) -> None:
    """Send the messages as soon as an offer has arrived."""
    sink = BytesSink()
    while True:
        message = channel.receive(sink, PATIENCE_S)
        if message is not None and isinstance(decode_untrusted(message), Offer):
            break
    for reply in script:
        channel.send_message(reply.encode())


@pytest.mark.parametrize(
    "script",
    [
        [Begin()],
        [Accept(1, (OK,))],
        [Accept(0, (OK, OK))],
        [Accept(0, (OK,)), Accept(0, (OK,))],
        [Result(0, (OK,))],
        [Accept(0, (OK,)), Result(1, (OK,))],
        [Accept(0, (OK,)), Result(0, (OK, OK))],
        [Accept(0, (OK,)), Result(0, (OK,)), Result(0, (OK,))],
        [Accept(0, (OK,)), Result(0, (OK,)), Done(2, 5)],
        [Accept(0, (OK,)), Result(0, (OK,)), Done(1, 6)],
        [Accept(0, (OK,)), Done(1, 5)],
        [End(1)],
    ],
    ids=lambda script: " ".join(message.TYPE.name for message in script),
)
def test_a_receiver_that_breaks_the_protocol_is_an_error(ends: Ends, tmp_path: Path, script: list[AnyMessage]) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    answered = Background(lambda: answer(ends[1], script))
    with pytest.raises(ProtocolError):
        send(ends[0], [tmp_path / "a"])
    answered.outcome()


def test_a_receiver_cannot_verify_a_file_that_was_not_sent(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(2_000_000))
    script = [Accept(0, (REFUSED,)), Result(0, (OK,)), Done(1, 2_000_000)]
    answered = Background(lambda: answer(ends[1], script))
    with pytest.raises(ProtocolError, match="was not sent"):
        send(ends[0], [tmp_path / "a"])
    answered.outcome()


def test_texts_of_a_receiver_are_printable(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    error = ErrorMessage(ErrorReason.FAILED, "\x1b[2J")
    script = [Accept(0, (REFUSED,)), Result(0, (REFUSED,)), Alive(), error]
    answered = Background(lambda: answer(ends[1], script))
    with pytest.raises(TransferError) as caught:
        send(ends[0], [tmp_path / "a"])
    answered.outcome()
    result = caught.value.result
    assert isinstance(result, TransferResult)
    (entry,) = result.undelivered
    for text in (str(caught.value), str(entry), entry.reason):
        assert printable(text) == text
        assert "[2J" in text


def test_a_file_that_changes_between_its_digest_and_its_content_is_named_as_changed(ends: Ends, tmp_path: Path) -> None:
    """The receiver only sees that the two differ."""
    path = tmp_path / "a"
    path.write_bytes(b"hello")

    def run_receiver() -> None:
        answer(ends[1], [Accept(0, (OK,)), Result(0, (MISMATCHED,))])
        message: bytes | None = None
        while message is None or not isinstance(decode_untrusted(message), End):
            message = ends[1].receive(BytesSink(), PATIENCE_S)
        ends[1].send_message(Done(0, 0).encode())

    answered = Background(run_receiver)
    channel = ObservedChannel(ends[0], before_receive=lambda _: os.utime(path, ns=(0, 0)))  # the digest is sent
    with pytest.raises(TransferError, match="a: changed while it was sent") as caught:
        send(channel, [path])
    assert isinstance(caught.value.result, TransferResult)
    assert [entry.status for entry in caught.value.result.undelivered] == ["failed"]
    answered.outcome()


def test_the_receivers_reason_is_raised_rather_than_a_closed_channel(ends: Ends, tmp_path: Path) -> None:
    """The receiver sends ERROR and closes while the sender is in the middle of content."""
    (tmp_path / "a").write_bytes(bytes(8_000_000))

    def fail() -> None:
        answer(ends[1], [Accept(0, (OK,)), ErrorMessage(ErrorReason.FAILED, "a: no space left")])
        ends[1].close()

    failed = Background(fail)
    with pytest.raises(TransferError, match="the receiver failed: a: no space left"):
        send(ends[0], [tmp_path / "a"])
    failed.outcome()


def test_the_directory_that_the_receiver_writes_to_is_not_sent(ends: Ends, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("a/old", "b/new"):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_bytes(b"x")
    ends[0]._peer = Address("127.0.0.1", 1)
    received = Background(lambda: receive(ends[1], tree / "a"))
    result = send(ends[0], [tree], SendOptions(recursive=True))
    received.outcome()
    assert [(entry.name, entry.status) for entry in result.undelivered] == [("tree/a", DeliveryStatus.SKIPPED)]
    assert sorted(os.listdir(tree / "a/tree")) == ["b"]


def test_a_receiver_in_the_directory_that_is_sent_gets_nothing(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"x")
    ends[0]._peer = Address("::1", 1)
    received = Background(lambda: receive(ends[1], tmp_path))
    with pytest.raises(RefusedError, match="start it with another `into`"):
        send(ends[0], [tmp_path], SendOptions(recursive=True))
    with pytest.raises(RefusedError):
        received.outcome()
    assert os.listdir(tmp_path) == ["film"]


# Streams.


def test_new_data_in_a_stream_ends_the_wait_for_it(ends: Ends, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.transfer.session.ALIVE_INTERVAL_S", 10 * PATIENCE_S)
    reading, writing = os.pipe()
    waits = threading.Event()

    def before_receive(wake: int | None) -> None:
        if wake is not None:
            waits.set()

    received = Background(lambda: receive(ends[1], root))
    channel = ObservedChannel(ends[0], before_receive=before_receive)
    sent = Background(lambda: send(channel, ["-"], SendOptions(stream_fd=reading)))
    for _ in range(3):
        assert waits.wait(PATIENCE_S)
        waits.clear()
        os.write(writing, b"more")
    os.close(writing)
    assert sent.outcome().size_bytes == 12
    received.outcome()
    os.close(reading)


def test_the_sender_says_alive_while_it_reads_a_slow_directory(
    ends: Ends, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"x")
    heard_alive = threading.Event()
    waits: list[bool] = []

    def slow_scan(*arguments: Any) -> Iterator[SourceEntry]:
        waits.append(heard_alive.wait(PATIENCE_S / 2))
        yield from scan(*arguments)

    monkeypatch.setattr("toolkit.transfer.sender.scan", slow_scan)

    def on_message(message: AnyMessage) -> None:
        if isinstance(message, Alive):
            heard_alive.set()

    listener = ObservedChannel(ends[1], on_message)
    received = Background(lambda: receive(listener, root))
    assert send(ends[0], [tmp_path / "tree"], SendOptions(recursive=True)).files == 1
    received.outcome()
    assert waits == [True]
