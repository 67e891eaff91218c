"""Sessions over the in-memory transport: round trips, liars at the other end, and what both users are told."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import xxhash

from tests.support.memory_transport import MemoryChannel, MemoryTransport
from toolkit.channel import MIN_IDLE_TIMEOUT_S, Address, Channel, Extent, TransportOptions
from toolkit.errors import (
    NettoolError,
    PeerClosedError,
    ProtocolError,
    RefusedError,
    TransferError,
    UsageError,
    printable,
)
from toolkit.transfer import ReceiveOptions, SendOptions, TransferResult, receive, send
from toolkit.transfer.incoming import OPTIMISTIC_BYTES
from toolkit.transfer.manifest import MAX_OPEN_GROUPS, Entry, EntryKind
from toolkit.transfer.messages import (
    Accept,
    Alive,
    Begin,
    Digests,
    Done,
    End,
    EntryOutcome,
    EntryStatus,
    ErrorMessage,
    ErrorReason,
    FileDigest,
    Hole,
    Offer,
    Result,
    decode_untrusted,
)
from toolkit.transfer.open_files import OPEN_FILES
from toolkit.transfer.storage import QUICK_COMMIT_BYTES

PATIENCE_S = 20.0
OK = EntryOutcome(EntryStatus.OK)
REFUSED = EntryOutcome(EntryStatus.REFUSED, "no\x1b[2J")


@pytest.fixture
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[MemoryChannel, MemoryChannel]]:
    """A sending and a receiving end; options by indirect parametrization."""
    options = getattr(request, "param", TransportOptions())
    transport = MemoryTransport()
    listener = transport.listen(Address("", 0), options)
    sender = transport.connect(listener.address, options)
    receiver = listener.accept(0)
    assert receiver is not None
    yield sender, receiver
    sender.abort()
    receiver.abort()
    listener.close()
    assert len(OPEN_FILES) == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def in_thread(body: Callable[[], Any]) -> Callable[[], Any]:
    """Start `body`; what is returned waits for its result or raises its error."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(body())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "hangs"
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    return result


class RecordingChannel:
    """Lets a session see nothing of its peer until it waits, and tells what it did before."""

    def __init__(self, channel: MemoryChannel) -> None:
        self._channel = channel
        self.done: list[str] = []
        self.waits = 0

    def send_message(self, message: bytes) -> None:
        self.done.append(decode_untrusted(message).TYPE.name)
        self._channel.send_message(message)

    def send_extent(self, extent: Extent, source: Any) -> None:
        self.done.append(f"{extent.length} bytes of {extent.file_id}")
        self._channel.send_extent(extent, source)

    def receive(self, sink: Any = None, timeout_s: float | None = None, wake: int | None = None) -> bytes | None:
        if timeout_s == 0:
            return None
        self.done.append("waits")
        return self._channel.receive(sink, timeout_s, wake)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


def calls_of(ends: tuple[MemoryChannel, MemoryChannel], sources: list[Path], root: Path) -> list[str]:
    recorder = RecordingChannel(ends[0])
    received = in_thread(lambda: receive(ends[1], root))
    send(recorder, sources, SendOptions(recursive=True))
    received()
    return recorder.done


def test_small_files_need_one_round_trip(ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(10_240))
    done = calls_of(ends, [tmp_path / "a", tmp_path / "b"], root)
    assert done[:6] == ["BEGIN", "OFFER", "10240 bytes of 0", "10240 bytes of 1", "DIGESTS", "END"]
    assert set(done[6:]) == {"waits"}


def test_of_a_large_file_a_first_flight_is_sent_before_the_answer(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path
) -> None:
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    done = calls_of(ends, [tmp_path / "a"], root)
    before = done[: done.index("waits")]
    assert before[:2] == ["BEGIN", "OFFER"]
    assert sum(int(call.removesuffix(" bytes of 0")) for call in before[2:]) == OPTIMISTIC_BYTES
    assert (root / "a").read_bytes() == bytes(3_000_000)


def test_a_group_is_offered_before_the_content_of_the_one_before(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.scan.MAX_GROUP_ENTRIES", 4)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(10):
        (tree / str(number)).write_bytes(b"x")
    done = calls_of(ends, [tree], root)
    assert done[:4] == ["BEGIN", "OFFER", "OFFER", "1 bytes of 1"]
    third = [index for index, call in enumerate(done) if call == "OFFER"][2]
    assert third < done.index("1 bytes of 4")
    assert len(list((root / "tree").iterdir())) == 10


def test_digests_are_those_that_other_tools_print(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path
) -> None:
    contents = {"a": b"first", "b": b"second"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    received = in_thread(lambda: receive(ends[1], root))
    report = send(ends[0], [tmp_path / "a", tmp_path / "b"])
    listing = "".join(f"{xxhash.xxh3_128(c).hexdigest()}  {name}\n" for name, c in contents.items())
    assert report.digest == received().digest == xxhash.xxh3_128(listing.encode()).hexdigest()


def test_links_are_reported_and_the_unreadable_is_an_error_after_the_rest(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    (tree / "secret").write_bytes(b"x")
    (tree / "link").symlink_to("file")
    # By a stand-in for access(2): whoever runs the tests may be allowed everything.
    monkeypatch.setattr("os.access", lambda path, _mode: not os.fsencode(path).endswith(b"secret"))
    received = in_thread(lambda: receive(ends[1], root))
    with pytest.raises(TransferError, match="tree/secret: permission denied") as caught:
        send(ends[0], [tree], SendOptions(recursive=True))
    report = caught.value.result
    assert isinstance(report, TransferResult)
    assert [(entry.name, entry.status) for entry in report.undelivered] == [
        ("tree/link", "skipped"),
        ("tree/secret", "failed"),
    ]
    assert received().files == 1


def test_a_report_lists_what_did_not_arrive_and_of_that_not_more_than_fits(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.result.MAX_LISTED", 2)
    sources = [tmp_path / f"{number}" for number in range(6)]
    for source in sources:
        source.write_bytes(b"x")
    for source in sources[1:]:
        (root / source.name).write_bytes(b"mine")
    received = in_thread(lambda: receive(ends[1], root))
    with pytest.raises(RefusedError, match=r"^1: already exists.* \(and 4 more refused\)$") as caught:
        send(ends[0], sources)
    for report in (caught.value.result, received()):
        assert isinstance(report, TransferResult)
        assert report.files == 1
        assert [(entry.name, entry.status) for entry in report.undelivered] == [("1", "refused"), ("2", "refused")]
        assert report.omitted == {"refused": 3}


def test_usage_errors_come_before_anything_is_sent(ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path) -> None:
    for sources, options in (
        ([tmp_path / "missing"], SendOptions()),
        ([tmp_path], SendOptions()),
        ([tmp_path], SendOptions(recursive=True, digest="md5")),
    ):
        with pytest.raises(UsageError):
            send(ends[0], sources, options)
    assert ends[1].receive(timeout_s=0) is None


def test_a_receiver_without_a_directory_does_not_tell_its_paths(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(UsageError, match="missing"):
        receive(ends[1], tmp_path / "missing")
    ends[1].close()
    with pytest.raises(TransferError) as caught:
        send(ends[0], [tmp_path / "a"])
    assert str(caught.value) == "the receiver failed: it was started with invalid arguments"


@pytest.mark.parametrize(("durable", "call", "size_bytes"), [(True, "fsync", 1), (False, "fchmod", QUICK_COMMIT_BYTES)])
def test_a_disk_that_takes_its_time_does_not_look_like_a_loss(
    ends: tuple[MemoryChannel, MemoryChannel],
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    durable: bool,
    call: str,
    size_bytes: int,
) -> None:
    heard_alive = threading.Event()
    in_time: list[bool] = []
    monkeypatch.setattr(os, call, lambda *_: in_time.append(heard_alive.wait(PATIENCE_S / 2)))

    class Listening(RecordingChannel):
        def receive(self, sink: Any = None, timeout_s: float | None = None, wake: int | None = None) -> bytes | None:
            message = self._channel.receive(sink, timeout_s, wake)
            if message == Alive().encode():
                heard_alive.set()
            return message

    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", size_bytes)
    received = in_thread(lambda: receive(ends[1], root, ReceiveOptions(durable=durable)))
    assert send(Listening(ends[0]), [tmp_path / "a"]).files == 1
    received()
    assert in_time
    assert all(in_time)


def test_many_files_on_a_slow_disk_do_not_look_like_a_loss(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.session.ALIVE_INTERVAL_S", 0.02)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x")
    recorder = RecordingChannel(ends[1])

    def take_time(*_: object) -> None:
        recorder.done.append("names a file")
        threading.Event().wait(0.03)

    monkeypatch.setattr(os, "fchmod", take_time)
    received = in_thread(lambda: receive(recorder, root))
    send(ends[0], [tmp_path / "a", tmp_path / "b"])
    received()
    first, second = (index for index, call in enumerate(recorder.done) if call == "names a file")
    assert "ALIVE" in recorder.done[first:second]


# A sender that lies.

FILE = Entry(EntryKind.FILE, b"a", 0o644, 0, 5, 5)
HELLO = xxhash.xxh3_128(b"hello").digest()
GOOD_DIGEST = Digests((FileDigest(0, 5, HELLO),))


def hears(channel: Channel) -> list[Any]:
    """Everything that the other end says until it closes."""
    messages = []
    with suppress(PeerClosedError):
        while (data := channel.receive(timeout_s=PATIENCE_S)) is not None:
            messages.append(decode_untrusted(data))
    return messages


@pytest.mark.parametrize(
    "script",
    [
        [Offer(0, (FILE,))],
        [Begin(), Begin()],
        [Begin(), Offer(1, (FILE,))],
        [Begin(), Offer(0, (FILE,)), Offer(0, (FILE,))],
        [Begin(), Offer(0, (FILE,)), End(1)],
        [Begin(), Offer(0, (FILE,)), GOOD_DIGEST, End(2)],
        [Begin(), GOOD_DIGEST],
        [Begin(), Offer(0, (FILE,)), GOOD_DIGEST, GOOD_DIGEST],
        [Begin(), Offer(0, (FILE,)), Hole(0, 0, 6)],
        [Begin(), Hole(0, 0, 6)],
        [Begin(), Accept(0, (OK,))],
        [Begin(), Result(0, (OK,))],
        [Begin(), Done(0, 0)],
        [Begin(), Offer(0, (FILE,)), GOOD_DIGEST, End(1), Offer(1, (FILE,))],
        [Begin(), *(Offer(number, (FILE,)) for number in range(MAX_OPEN_GROUPS + 1))],
    ],
)
def test_a_sender_that_breaks_the_protocol_is_told_so(
    ends: tuple[MemoryChannel, MemoryChannel], root: Path, script: list[Any]
) -> None:
    for message in script:
        ends[0].send_message(message.encode())
    with pytest.raises(ProtocolError):
        receive(ends[1], root)
    ends[1].close()
    last = hears(ends[0])[-1]
    assert isinstance(last, ErrorMessage)
    assert last.reason is ErrorReason.PROTOCOL
    assert not list(root.iterdir())


@pytest.mark.parametrize("garbage", [b"", b"\0", b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n"])
def test_garbage_is_one_error(ends: tuple[MemoryChannel, MemoryChannel], root: Path, garbage: bytes) -> None:
    ends[0].send_message(garbage)
    with pytest.raises(ProtocolError):
        receive(ends[1], root)


def test_another_version_is_refused_and_both_are_told(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setattr("toolkit.transfer.sender.Begin", lambda *_: Begin(version=2))
    sent = in_thread(lambda: send(ends[0], [tmp_path / "a"]))
    with pytest.raises(RefusedError, match="session version 2 at the sender, 1 at the receiver"):
        receive(ends[1], root)
    ends[1].close()
    with pytest.raises(RefusedError, match="incompatible version"):
        sent()


def test_a_content_digest_of_the_wrong_length_never_verifies(
    ends: tuple[MemoryChannel, MemoryChannel], root: Path
) -> None:
    """BLAKE3's length where xxh3-128 was announced."""
    script = [Begin(), Offer(0, (FILE,)), Digests((FileDigest(0, 5, bytes(32)),)), End(1)]
    for message in script:
        ends[0].send_message(message.encode())
    ends[0]._put((0, 0, b"hello"))
    with pytest.raises(NettoolError) as caught:
        receive(ends[1], root)
    assert caught.value.exit_code == 5
    assert not list(root.iterdir())


# A receiver that lies.


def answers(channel: MemoryChannel, script: list[Any]) -> None:
    """Say all that as soon as an offer has come, then keep still."""
    while not isinstance(decode_untrusted(channel.receive(_Sink(), PATIENCE_S) or Alive().encode()), Offer):
        pass
    for message in script:
        channel.send_message(message.encode())


class _Sink:
    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        """Content goes nowhere."""


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
)
def test_a_receiver_that_breaks_the_protocol_gets_no_success(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, script: list[Any]
) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    answered = in_thread(lambda: answers(ends[1], script))
    with pytest.raises(ProtocolError):
        send(ends[0], [tmp_path / "a"])
    answered()


def test_a_receiver_cannot_have_verified_what_it_was_not_sent(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(bytes(2_000_000))
    script = [Accept(0, (REFUSED,)), Result(0, (OK,)), Done(1, 2_000_000)]
    answered = in_thread(lambda: answers(ends[1], script))
    with pytest.raises(ProtocolError, match="was not sent"):
        send(ends[0], [tmp_path / "a"])
    answered()


def test_what_a_receiver_says_is_fit_for_a_terminal(ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    answered = in_thread(
        lambda: answers(
            ends[1],
            [Accept(0, (REFUSED,)), Result(0, (REFUSED,)), Alive(), ErrorMessage(ErrorReason.FAILED, "\x1b[2J")],
        )
    )
    with pytest.raises(TransferError) as caught:
        send(ends[0], [tmp_path / "a"])
    answered()
    report = caught.value.result
    assert isinstance(report, TransferResult)
    (entry,) = report.undelivered
    for text in (str(caught.value), str(entry), entry.reason):
        assert printable(text) == text
        assert "[2J" in text


def test_the_reason_is_better_than_the_fact(ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path) -> None:
    """A receiver that says why and goes: the sender, in the middle of content, still hears it."""
    (tmp_path / "a").write_bytes(bytes(8_000_000))

    def refuse() -> None:
        answers(ends[1], [Accept(0, (OK,)), ErrorMessage(ErrorReason.FAILED, "a: no space left")])
        ends[1].close()

    refused = in_thread(refuse)
    with pytest.raises(TransferError, match="the receiver failed: a: no space left"):
        send(ends[0], [tmp_path / "a"])
    refused()


@pytest.mark.parametrize(
    "ends",
    [TransportOptions(idle_timeout_s=MIN_IDLE_TIMEOUT_S)],
    ids=["least idle timeout"],
    indirect=True,
)
def test_a_stream_that_pauses_keeps_the_session_alive(ends: tuple[MemoryChannel, MemoryChannel], root: Path) -> None:
    """For longer than the other end would wait in silence, at the least that a user may ask for."""
    reading, writing = os.pipe()
    heard = threading.Event()
    begun = time.monotonic()

    class Listening(RecordingChannel):
        def receive(self, sink: Any = None, timeout_s: float | None = None, wake: int | None = None) -> bytes | None:
            message = self._channel.receive(sink, timeout_s, wake)
            if message == Alive().encode() and time.monotonic() - begun > 1.2 * MIN_IDLE_TIMEOUT_S:
                heard.set()
            return message

    received = in_thread(lambda: receive(Listening(ends[1]), root))
    sent = in_thread(lambda: send(ends[0], ["-"], SendOptions(stream_fd=reading)))
    assert heard.wait(PATIENCE_S)
    os.write(writing, b"late")
    os.close(writing)
    assert sent().size_bytes == 4
    assert isinstance(received(), TransferResult)
    os.close(reading)
    assert (root / "stdin").read_bytes() == b"late"


def test_a_stream_that_goes_on_ends_the_wait_for_it(
    ends: tuple[MemoryChannel, MemoryChannel], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.session.ALIVE_INTERVAL_S", 10 * PATIENCE_S)
    reading, writing = os.pipe()
    waits = threading.Event()

    class Waiting(RecordingChannel):
        def receive(self, sink: Any = None, timeout_s: float | None = None, wake: int | None = None) -> bytes | None:
            if wake is not None:
                waits.set()
            return self._channel.receive(sink, timeout_s, wake)

    received = in_thread(lambda: receive(ends[1], root))
    sent = in_thread(lambda: send(Waiting(ends[0]), ["-"], SendOptions(stream_fd=reading)))
    for _ in range(3):
        assert waits.wait(PATIENCE_S)
        waits.clear()
        os.write(writing, b"more")
    os.close(writing)
    assert sent().size_bytes == 12
    received()
    os.close(reading)


def test_a_wait_ends_soon_after_it_is_cancelled(ends: tuple[MemoryChannel, MemoryChannel], root: Path) -> None:
    cancel = threading.Event()
    received = in_thread(lambda: receive(ends[1], root, cancel=cancel))
    begun = time.monotonic()
    cancel.set()
    with pytest.raises(TransferError, match="cancelled"):
        received()
    assert time.monotonic() - begun < 5


class Interrupted(RecordingChannel):
    """Ctrl-C comes at the third wait."""

    def receive(self, sink: Any = None, timeout_s: float | None = None, wake: int | None = None) -> bytes | None:
        self.waits += 1
        if self.waits == 3:
            raise KeyboardInterrupt
        return self._channel.receive(sink, timeout_s, wake)


def test_an_interrupt_leaves_nothing(ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8_000_000))
    sent = in_thread(lambda: send(ends[0], [tmp_path / "a"]))
    with pytest.raises(KeyboardInterrupt):
        receive(Interrupted(ends[1]), root)
    ends[1].abort()
    with pytest.raises(PeerClosedError):
        sent()
    assert not list(root.iterdir())


def test_an_interrupted_sender_gives_everything_up(
    ends: tuple[MemoryChannel, MemoryChannel], tmp_path: Path, root: Path
) -> None:
    (tmp_path / "a").write_bytes(bytes(8_000_000))
    received = in_thread(lambda: receive(ends[1], root))
    with pytest.raises(KeyboardInterrupt):
        send(Interrupted(ends[0]), [tmp_path / "a"])
    ends[0].abort()
    with pytest.raises(PeerClosedError):
        received()
    assert not list(root.iterdir())
