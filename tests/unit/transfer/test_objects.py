"""Bytes and file objects as sources, and as destinations."""

import errno
import gzip
import io
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.sessions import XXH3, Ends, ObservedChannel, channel_pair, commit, file_entry
from toolkit.errors import NettoolError, RefusedError, TransferError, UsageError, VerificationError
from toolkit.transfer import SendOptions, TransferResult, handed_over, objects, open_files, receive, send
from toolkit.transfer.comparison import Comparison
from toolkit.transfer.handed_over import QUICK_BYTES, HandedOverDestination, SingleFile
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.limits import ByteBudget, LimitError
from toolkit.transfer.messages import Alive, AnyMessage, EntryStatus, Hole
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.result import EntryResult
from toolkit.transfer.scan import NamedSource
from toolkit.transfer.small_files import SMALL_BYTES

SENDING = SendOptions()
LARGE = bytes(range(256)) * (QUICK_BYTES // 128)


class Received:
    """Takes what a destination hands over."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self._failure = failure

    def __call__(self, name: str, file: BinaryIO) -> None:
        if self._failure is not None:
            raise self._failure
        self.files[name] = file.read()


def transfer_into(
    ends: Ends, received: Received, sources: list[Any], options: SendOptions = SENDING, **destination: Any
) -> tuple[TransferResult, TransferResult]:
    receiving = Background(lambda: receive(ends[1], lambda: HandedOverDestination(received, **destination)))
    try:
        sent = send(ends[0], sources, options)
    except NettoolError:
        ends[0].close()
        with suppress(NettoolError):
            receiving.outcome()
        raise
    ends[0].close()
    return sent, receiving.outcome()


@pytest.mark.parametrize("content", [b"", b"hello", bytearray(b"hello"), memoryview(LARGE)], ids=len)
@pytest.mark.parametrize("in_memory", [True, False])
def test_bytes_arrive_as_bytes(ends: Ends, content: Any, in_memory: bool) -> None:
    received = Received()
    single = None if in_memory else SingleFile()
    sent, result = transfer_into(ends, received, [NamedSource("a.bin", content)], single=single)
    assert received.files == {"a.bin": bytes(content)}
    assert (sent.files, sent.size_bytes, sent.digest) == (1, len(content), result.digest)


def test_bytes_arrive_in_a_directory(ends: Ends, root: Path) -> None:
    receiving = Background(lambda: receive(ends[1], root))
    send(ends[0], [NamedSource("a", b"one"), NamedSource("b", b"two")])
    receiving.outcome()
    assert {path.name: path.read_bytes() for path in root.iterdir()} == {"a": b"one", "b": b"two"}


def test_bytes_for_which_there_is_no_memory_cost_themselves_only(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))]

    def anonymous_file() -> int:
        if failures:
            raise failures.pop()
        return open_files.anonymous_file()

    monkeypatch.setattr(objects, "anonymous_file", anonymous_file)
    received = Received()
    with pytest.raises(TransferError, match=r"a: cannot be read .*memory"):
        transfer_into(ends, received, [NamedSource("a", b"one"), NamedSource("b", b"two")])
    assert received.files == {"b": b"two"}


def test_a_path_is_sent_under_another_name(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"x")
    received = Received()
    transfer_into(ends, received, [NamedSource("new", tmp_path / "old")])
    assert received.files == {"new": b"x"}


class TestFileObjects:
    def test_it_is_read_from_where_it_stands_to_its_end(self, ends: Ends) -> None:
        file = io.BytesIO(b"head" + LARGE)
        file.seek(4)
        received = Received()
        sent, _ = transfer_into(ends, received, [NamedSource("a", file), NamedSource("b", io.BytesIO(b"second"))])
        assert received.files == {"a": LARGE, "b": b"second"}
        assert sent.size_bytes == len(LARGE) + 6
        assert not file.closed

    def test_the_descriptor_of_a_file_object_is_not_mistaken_for_its_content(self, ends: Ends, tmp_path: Path) -> None:
        with gzip.open(tmp_path / "a.gz", "wb") as packed:
            packed.write(b"unpacked")
        received = Received()
        with gzip.open(tmp_path / "a.gz", "rb") as file:
            transfer_into(ends, received, [NamedSource("a", file)])
        assert received.files == {"a": b"unpacked"}

    @pytest.mark.parametrize(
        ("reads", "message"),
        [
            (OSError("the drive is gone"), "a cannot be read .*the drive is gone"),
            (BrokenPipeError(32, "the program that wrote it is gone"), "a cannot be read .*is gone"),
            (SystemExit("enough"), "a cannot be read .*enough"),
            ("text", "a cannot be read .*bytes-like object"),
            (None, "a cannot be read .*does not block"),
        ],
    )
    def test_a_file_that_fails_is_not_taken_for_a_short_one(self, ends: Ends, reads: Any, message: str) -> None:
        results = [b"beginning", reads]

        class Failing:
            def read(self, _size: int) -> Any:
                following = results.pop(0)
                if isinstance(following, BaseException):
                    raise following
                return following

        received = Received()
        with pytest.raises(TransferError, match=message):
            transfer_into(ends, received, [NamedSource("a", Failing())])
        assert received.files == {}

    def test_where_no_thread_is_left_it_fails_and_no_descriptor_stays_open(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        before = os.listdir("/proc/self/fd")
        with pytest.raises(TransferError, match=r"a cannot be read .*thread"):
            objects.ReaderStream(io.BytesIO(b"x"), "a", XXH3)
        assert os.listdir("/proc/self/fd") == before

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a", io.StringIO("text"), "a: give a path, bytes, or a file object in binary mode, not StringIO"),
            ("a", 5, "not int"),
            ("", b"x", "an empty name: not a file name"),
            ("a/b", b"x", "a/b: not a file name"),
            ("a\ud800", b"x", r"a\\ud800: a file name cannot contain lone surrogates"),
        ],
    )
    def test_what_cannot_be_sent_is_refused_at_once(self, ends: Ends, name: str, content: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            send(ends[0], [NamedSource(name, content)])


class TestHandingOver:
    def test_nothing_is_handed_over_unverified(self, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("toolkit.transfer.sources.FileSource.finish", lambda _: bytes(16))
        received = Received()
        with pytest.raises(VerificationError):
            transfer_into(ends, received, [NamedSource("a", LARGE)])
        assert received.files == {}

    def test_an_error_of_the_taker_is_a_failed_file(self, ends: Ends) -> None:
        with pytest.raises(TransferError, match="a: no space left"):
            transfer_into(ends, Received(OSError(28, "the disk is full")), [NamedSource("a", b"content")])

    def test_no_more_files_than_it_takes(self, ends: Ends) -> None:
        received = Received()
        with pytest.raises(RefusedError, match="b: this receiver takes one file"):
            transfer_into(ends, received, [NamedSource("a", b"1"), NamedSource("b", b"2")], single=SingleFile())
        assert received.files == {"a": b"1"}

    def test_names_take_a_limited_amount_of_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handed_over, "MAX_NAMES_BYTES", 10_000)
        destination = HandedOverDestination(Received())
        entries = [file_entry(b"/".join([b"%0224d" % number] * 4), 0) for number in range(12)]
        budget = ByteBudget(None)
        outcomes = [*destination.accept(entries[:6], budget), *destination.accept(entries[6:], budget)]
        assert [outcome.status for outcome in outcomes] == [EntryStatus.OK] * 10 + [EntryStatus.REFUSED] * 2
        assert "too many files in one session, after 10" in outcomes[-1].reason

    @pytest.mark.parametrize("content", [b"content", LARGE], ids=len)
    def test_a_single_file_is_handed_over_once_if_its_sender_comes_back(self, content: bytes) -> None:
        single, received, source = SingleFile(), Received(), NamedSource("a", content)
        for update, unchanged in ((None, 0), (Comparison.TIME, 1)):
            with channel_pair() as ends:
                options = SendOptions(update=update)
                sent, _ = transfer_into(ends, received, [source], options, single=single)
            assert sent.unchanged == unchanged
            assert received.files.pop("a", None) == (None if unchanged else content)

    @pytest.mark.parametrize("content", [b"content", bytes(SMALL_BYTES + 1)], ids=len)
    def test_a_file_object_that_blocks_does_not_silence_the_receiver(self, ends: Ends, content: bytes) -> None:
        is_alive, waits = threading.Event(), []

        def hand_over(*_: object) -> None:
            is_alive.clear()
            waits.append(is_alive.wait(PATIENCE_S))

        def on_message(message: AnyMessage) -> None:
            if isinstance(message, Alive):
                is_alive.set()

        def open_destination() -> HandedOverDestination:
            return HandedOverDestination(hand_over, single=SingleFile())

        receiving = Background(lambda: receive(ends[1], open_destination))
        send(ObservedChannel(ends[0], on_message), [NamedSource("a", content)])
        receiving.outcome()
        assert waits == [True]

    @pytest.mark.parametrize("update", [None, Comparison.TIME])
    def test_no_other_file_follows_a_single_one(self, update: Comparison | None) -> None:
        single, received = SingleFile(), Received()
        with channel_pair() as ends:
            transfer_into(ends, received, [NamedSource("a", b"1")], single=single)
        with channel_pair() as ends, pytest.raises(RefusedError, match="which an earlier session has brought"):
            transfer_into(ends, received, [NamedSource("a", b"2")], SendOptions(update=update), single=single)
        assert received.files == {"a": b"1"}

    def test_a_single_file_of_which_a_part_may_be_handed_over_is_not_begun_again(self) -> None:
        single, source = SingleFile(), NamedSource("a", b"content")
        with channel_pair() as ends, pytest.raises(TransferError, match="no space left"):
            transfer_into(ends, Received(OSError(28, "the disk is full")), [source], single=single)
        with channel_pair() as ends, pytest.raises(RefusedError, match="which an earlier session has brought"):
            transfer_into(ends, Received(), [source], SendOptions(update=Comparison.TIME), single=single)

    def test_the_files_of_a_tree_have_its_paths_as_names(self, ends: Ends, tmp_path: Path) -> None:
        (tmp_path / "tree" / "d").mkdir(parents=True)
        (tmp_path / "tree" / "d" / "a").write_bytes(b"x")
        received = Received()
        transfer_into(ends, received, [tmp_path / "tree"], SendOptions(recursive=True))
        assert received.files == {"tree/d/a": b"x"}

    @pytest.mark.parametrize("name", [".bashrc", "-rf"])
    def test_names_are_checked(self, ends: Ends, name: str) -> None:
        with pytest.raises(RefusedError):
            transfer_into(ends, Received(), [NamedSource(name, b"x")])


@pytest.mark.parametrize("is_sender", [True, False])
def test_each_result_is_told(ends: Ends, root: Path, is_sender: bool) -> None:
    (root / "taken").write_bytes(b"old")
    results: list[EntryResult] = []
    hook: Callable[[EntryResult], None] = results.append
    receiving = Background(
        lambda: receive(ends[1], root, ReceiveOptions() if is_sender else ReceiveOptions(on_result=hook))
    )
    options = SendOptions(on_result=hook) if is_sender else SENDING
    with pytest.raises(RefusedError):
        send(ends[0], [NamedSource("new", b"x"), NamedSource("taken", b"y")], options)
    receiving.outcome()
    assert {result.entry.name: result.outcome.status.name for result in results} == {"new": "OK", "taken": "REFUSED"}


@pytest.mark.parametrize(("size_bytes", "is_in_order"), [(5, True), (5, False), (None, False), (SMALL_BYTES + 1, True)])
def test_files_that_wait_for_their_digests_keep_no_descriptors(size_bytes: int | None, is_in_order: bool) -> None:
    received = Received()
    files = IncomingFiles(HandedOverDestination(received))
    content = bytes(number % 251 for number in range(size_bytes or 7))
    files.offer([file_entry(b"%d" % number, size_bytes) for number in range(100)], XXH3)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        for offset in (0, 2) if is_in_order else (2, 0):
            files.write(number, offset, memoryview(content)[offset:] if offset else memoryview(content)[:2])
    assert len(os.listdir("/proc/self/fd")) < before + 10
    assert {commit(files, number, content).status for number in range(100)} == {EntryStatus.OK}
    assert received.files == {str(number): content for number in range(100)}
    files.close(complete=True)


def test_a_hole_of_a_file_that_is_handed_over_is_zeros() -> None:
    received = Received()
    files = IncomingFiles(HandedOverDestination(received))
    files.offer([file_entry(b"a", 12, content=4)], XXH3)
    files.write(0, 4, memoryview(b"data"))
    files.write_hole(Hole(0, 0, 4))
    files.write_hole(Hole(0, 8, 4))
    assert commit(files, 0, content := bytes(4) + b"data" + bytes(4)).status is EntryStatus.OK
    assert received.files == {"a": content}


def test_the_gaps_of_streams_count_as_content() -> None:
    files = IncomingFiles(HandedOverDestination(Received()), limit_bytes=1000)
    files.offer([file_entry(b"a", None), file_entry(b"b", None)], XXH3)
    files.write(0, 599, memoryview(b"x"))
    files.write(0, 0, memoryview(b"x"))  # has been counted
    with pytest.raises(LimitError, match="accepts 1000 B in a session"):
        files.write(1, 599, memoryview(b"x"))


def test_content_for_which_there_is_no_memory_costs_its_file_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullMemory(io.BytesIO):
        def write(self, data: Any, /) -> int:
            if len(data) == 1:
                raise MemoryError
            return super().write(data)

    monkeypatch.setattr(io, "BytesIO", FullMemory)
    files = IncomingFiles(HandedOverDestination(received := Received()))
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    files.write(0, 3, memoryview(b"l"))
    files.write(1, 3, memoryview(b"lo"))
    files.write(1, 0, memoryview(b"hel"))
    assert [file.failure for _, file in files.complete_files()] == [
        "the receiver cannot store it (Cannot allocate memory)"
    ]
    assert commit(files, 1, b"hello").status is EntryStatus.OK
    assert received.files == {"b": b"hello"}


def test_bytes_that_have_arrived_are_unchanged_when_their_sender_comes_back(root: Path) -> None:
    source = NamedSource("a", b"content")
    for update, unchanged in ((None, 0), (Comparison.TIME, 1)):
        with channel_pair() as (sender, receiver):
            receiving = Background(lambda channel=receiver: receive(channel, root))
            assert send(sender, [source], SendOptions(update=update)).unchanged == unchanged
            receiving.outcome()
    assert (root / "a").read_bytes() == b"content"
