"""The receiving end: senders that break the protocol, and commits that take long."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.content import BytesSource
from tests.support.sessions import Ends, ObservedChannel, directory_entry, file_entry, messages_until_close, xxh3
from toolkit.channel import Extent
from toolkit.errors import PeerClosedError, ProtocolError, RefusedError, TransferError, VerificationError
from toolkit.transfer import Progress, SendOptions, SessionLimits, TransferResult, receive, send
from toolkit.transfer.chunks import CHUNK_BYTES, RESUME_KEY_PARAMETER, Chunks
from toolkit.transfer.digest import ALGORITHMS
from toolkit.transfer.limits import MIN_PROGRESS_BYTES, LimitError
from toolkit.transfer.manifest import MAX_HOLE_BYTES, MAX_OPEN_GROUPS
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
    Hole,
    Offer,
    Result,
    Withdraw,
    decode_untrusted,
)
from toolkit.transfer.names import resumable_partial_name
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.stored_file import QUICK_COMMIT_BYTES

OK = EntryOutcome(EntryStatus.OK)
OFFER = Offer(0, (file_entry(b"a"),))
DIGESTS = Digests((FileDigest(0, 5, xxh3(b"hello")),))


@pytest.mark.parametrize(
    "script",
    [
        [OFFER],
        [Begin(), Begin()],
        [Begin(), Offer(1, OFFER.entries)],
        [Begin(), OFFER, OFFER],
        [Begin(), OFFER, End(1)],
        [Begin(), OFFER, DIGESTS, End(2)],
        [Begin(), DIGESTS],
        [Begin(), OFFER, DIGESTS, DIGESTS],
        [Begin(), OFFER, Hole(0, 0, 6)],
        [Begin(), Hole(0, 0, 6)],
        [Begin(), Withdraw(0, "")],
        [Begin(), OFFER, DIGESTS, Withdraw(0, "")],
        [Begin(), OFFER, Withdraw(0, ""), Withdraw(1, "")],
        [Begin(), Accept(0, (OK,))],
        [Begin(), Result(0, (OK,))],
        [Begin(), Done(0, 0)],
        [Begin(), OFFER, DIGESTS, End(1), Offer(1, OFFER.entries)],
        [Begin(), *(Offer(number, OFFER.entries) for number in range(MAX_OPEN_GROUPS + 1))],
    ],
    ids=lambda script: " ".join(message.TYPE.name for message in script[:5]),
)
def test_a_sender_that_breaks_the_protocol_gets_an_error(ends: Ends, root: Path, script: list[AnyMessage]) -> None:
    for message in script:
        ends[0].send_message(message.encode())
    with pytest.raises(ProtocolError):
        receive(ends[1], root)
    ends[1].close()
    last = messages_until_close(ends[0])[-1]
    assert isinstance(last, ErrorMessage)
    assert last.reason is ErrorReason.PROTOCOL
    assert not list(root.iterdir())


@pytest.mark.parametrize("garbage", [b"", b"\0", b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n"])
def test_garbage_is_a_protocol_error(ends: Ends, root: Path, garbage: bytes) -> None:
    ends[0].send_message(garbage)
    with pytest.raises(ProtocolError):
        receive(ends[1], root)


def test_a_digest_of_another_algorithm_never_verifies(ends: Ends, root: Path) -> None:
    """A digest of BLAKE3's length, in a session that announced xxh3-128."""
    for message in (Begin(), OFFER, Digests((FileDigest(0, 5, bytes(32)),)), End(1)):
        ends[0].send_message(message.encode())
    ends[0].send_extent(Extent(0, 0, 5), BytesSource(b"hello"))
    with pytest.raises(VerificationError):
        receive(ends[1], root)
    assert not list(root.iterdir())


# Limits.


def limited(ends: Ends, root: Path, limits: SessionLimits) -> Background[object]:
    """A receiver with these limits, in the background; its peer hears its last message."""

    def run() -> object:
        try:
            return receive(ends[1], root, ReceiveOptions(limits=limits))
        finally:
            ends[1].close()

    return Background(run)


def repeat_until_closed(action: Callable[[], object]) -> None:
    """Until the receiver has ended the session, however long that takes."""

    def repeat() -> None:
        while True:
            action()
            threading.Event().wait(0.001)

    with pytest.raises(PeerClosedError):
        repeat()


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (SessionLimits(stall_seconds=0.1), "no progress for 100 ms (the receiver's `stall_seconds`)"),
        (SessionLimits(max_seconds=0.1), "a session may last 100 ms (the receiver's `max_seconds`)"),
    ],
    ids=["stall", "time"],
)
def test_a_peer_that_only_says_that_it_is_alive_does_not_hold_a_session(
    ends: Ends, root: Path, limits: SessionLimits, text: str
) -> None:
    received = limited(ends, root, limits)
    ends[0].send_message(Begin().encode())
    repeat_until_closed(lambda: ends[0].send_message(Alive().encode()))
    with pytest.raises(LimitError) as caught:
        received.outcome()
    assert str(caught.value) == text
    assert messages_until_close(ends[0])[-1] == ErrorMessage(ErrorReason.REFUSED, text)


def test_a_byte_now_and_then_is_no_progress(ends: Ends, root: Path) -> None:
    received = limited(ends, root, SessionLimits(stall_seconds=0.1))
    size = 1 << 30
    for message in (Begin(), Offer(0, (file_entry(b"a", size),))):
        ends[0].send_message(message.encode())
    offsets = iter(range(MIN_PROGRESS_BYTES - 1))
    repeat_until_closed(lambda: ends[0].send_extent(Extent(0, next(offsets), 1), BytesSource(bytes(size >> 12))))
    with pytest.raises(LimitError, match="no progress"):
        received.outcome()
    assert not list(root.iterdir())


@pytest.mark.usefixtures("few_chunks")
def test_comparing_what_an_earlier_session_has_left_is_progress_though_all_of_it_differs(
    ends: Ends, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr("toolkit.transfer.receiver.PROGRESS_INTERVAL_NS", 0)
    monkeypatch.setattr("toolkit.transfer.receiver.SessionWatch.check", lambda *fields: steps.append(fields[-1]))
    (root / os.fsdecode(resumable_partial_name(bytes(16), b"a"))).write_bytes(bytes(4 * CHUNK_BYTES))
    offer = Offer(0, (file_entry(b"a", 4 * CHUNK_BYTES),))
    differing = [Chunks(0, first, (bytes(16),)) for first in range(4)]
    for message in (Begin(parameters={RESUME_KEY_PARAMETER: bytes(16)}), offer, *differing, End(2)):
        ends[0].send_message(message.encode())
    with pytest.raises(ProtocolError):
        receive(ends[1], root)
    assert steps == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("few_chunks")
def test_what_an_earlier_session_has_left_counts_as_arrived_in_the_progress_of_its_file(
    ends: Ends, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.receiver.PROGRESS_INTERVAL_NS", 0)
    content = os.urandom(4 * CHUNK_BYTES)
    (tmp_path / "film").write_bytes(content)
    (root / os.fsdecode(resumable_partial_name(bytes(16), b"film"))).write_bytes(content[: 2 * CHUNK_BYTES])
    seen: list[Progress] = []
    received = Background(lambda: receive(ends[1], root, progress=seen.append))
    send(ends[0], [tmp_path / "film"], SendOptions(resume_key=bytes(16), is_reconnected=True))
    received.outcome()
    assert all(now.file_bytes == now.size_bytes for now in seen if now.file_total_bytes is not None)
    assert max(now.size_bytes for now in seen) == len(content)


@pytest.mark.parametrize("is_announced", [True, False])
def test_more_files_than_allowed_are_refused_and_both_ends_learn_the_limit(
    ends: Ends, tmp_path: Path, root: Path, is_announced: bool
) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(6):
        (tmp_path / "tree" / f"{number}").write_bytes(b"x")
    received = limited(ends, root, SessionLimits(max_files=5))
    sources = sorted((tmp_path / "tree").iterdir()) if is_announced else [tmp_path / "tree"]
    with pytest.raises(RefusedError, match=r"refused the session: a session may bring 5 files .*`max_files`"):
        send(ends[0], sources, SendOptions(recursive=True))
    with pytest.raises(LimitError):
        received.outcome()


def test_holes_cost_no_hashing_before_the_peer_can_be_stopped(
    ends: Ends, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terabyte of zeros in 25 kB of messages, and then an end: little of it is hashed."""
    hashed_bytes = 0

    class CountingHasher:
        def update(self, data: memoryview | bytes, /) -> None:
            nonlocal hashed_bytes
            hashed_bytes += len(data)

        def digest(self) -> bytes:
            return bytes(16)

    monkeypatch.setattr(
        "toolkit.transfer.digest.ALGORITHMS", (ALGORITHMS[0]._replace(new=CountingHasher), ALGORITHMS[1])
    )
    steps = 1000
    ends[0].send_message(Begin().encode())
    ends[0].send_message(Offer(0, (file_entry(b"a", steps * MAX_HOLE_BYTES, content=0),)).encode())
    for number in range(steps):
        ends[0].send_message(Hole(0, number * MAX_HOLE_BYTES, MAX_HOLE_BYTES).encode())
    ends[0].send_message(ErrorMessage(ErrorReason.CANCELLED, "").encode())
    with pytest.raises(TransferError, match="cancelled"):
        receive(ends[1], root)
    assert hashed_bytes < steps * MAX_HOLE_BYTES / 50


def test_a_session_that_is_cancelled_counts_the_files_that_have_their_names(ends: Ends, root: Path) -> None:
    has_landed = threading.Event()
    options = ReceiveOptions(on_result=lambda _: has_landed.set())
    received = Background(lambda: receive(ends[1], root, options))
    for message in (Begin(), Offer(0, (file_entry(b"a", 5), file_entry(b"b", 5)))):
        ends[0].send_message(message.encode())
    ends[0].send_extent(Extent(0, 0, 5), BytesSource(b"hello"))
    ends[0].send_message(Digests((FileDigest(0, 5, xxh3(b"hello")),)).encode())
    assert has_landed.wait(PATIENCE_S)
    ends[0].send_message(ErrorMessage(ErrorReason.CANCELLED, "").encode())
    with pytest.raises(TransferError, match="cancelled") as caught:
        received.outcome()
    assert isinstance(caught.value.result, TransferResult)
    assert [file.name for file in caught.value.result.delivered] == ["a"]


# Signs of life.


@pytest.mark.parametrize(("durable", "call", "size_bytes"), [(True, "fsync", 1), (False, "fchmod", QUICK_COMMIT_BYTES)])
def test_the_receiver_sends_alive_during_a_slow_commit(
    ends: Ends,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    durable: bool,
    call: str,
    size_bytes: int,
) -> None:
    heard_alive = threading.Event()
    waits: list[bool] = []
    monkeypatch.setattr(os, call, lambda *_: waits.append(heard_alive.wait(PATIENCE_S / 2)))

    def on_message(message: AnyMessage) -> None:
        if isinstance(message, Alive):
            heard_alive.set()

    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", size_bytes)
    received = Background(lambda: receive(ends[1], root, ReceiveOptions(durable=durable)))
    assert send(ObservedChannel(ends[0], on_message), [tmp_path / "a"]).files == 1
    received.outcome()
    assert waits
    assert all(waits)


@pytest.mark.parametrize("call", ["mkdir", "rmdir"])
def test_the_receiver_sends_alive_while_it_makes_and_removes_directories(
    ends: Ends, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A disk that is slow when directories of an offer are made, or when those of a failed session are removed."""
    heard_alive = threading.Event()
    waits: list[bool] = []
    original = getattr(os, call)

    def slow(*arguments: object, **options: object) -> None:
        waits.append(heard_alive.wait(PATIENCE_S / 2))
        original(*arguments, **options)

    monkeypatch.setattr(os, call, slow)
    received = limited(ends, root, SessionLimits())
    for message in (Begin(), Offer(0, (directory_entry(b"d"),)), Offer(7, (directory_entry(b"e"),))):
        ends[0].send_message(message.encode())

    def on_message(message: AnyMessage) -> None:
        if isinstance(message, Alive):
            heard_alive.set()

    messages_until_close(ObservedChannel(ends[0], on_message))
    with pytest.raises(ProtocolError, match="wrong number"):
        received.outcome()
    assert waits == [True]


def test_a_peer_learns_of_a_failure_after_unfinished_files_are_gone(ends: Ends, root: Path) -> None:
    received = limited(ends, root, SessionLimits())
    for message in (Begin(), OFFER):
        ends[0].send_message(message.encode())
    ends[0].send_extent(Extent(0, 1, 3), BytesSource(b"hell"))  # out of order: it does not wait in memory
    while not list(root.iterdir()):
        threading.Event().wait(0.001)
    found: list[list[Path]] = []
    send_message = ends[1].send_message

    def watch(message: bytes, has_more: bool = False) -> None:
        if isinstance(decode_untrusted(message), ErrorMessage):
            found.append(list(root.iterdir()))
        send_message(message, has_more)

    ends[1].send_message = watch  # type: ignore[method-assign]
    ends[0].send_message(Offer(9, OFFER.entries).encode())
    with pytest.raises(ProtocolError):
        received.outcome()
    assert found == [[]]
