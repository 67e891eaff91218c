"""The receiving end: senders that break the protocol, and commits that take long."""

import os
import threading
from pathlib import Path

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.content import BytesSource
from tests.support.sessions import Ends, ObservedChannel, file_entry, messages_until_close, xxh3
from toolkit.channel import Extent
from toolkit.errors import ProtocolError, VerificationError
from toolkit.transfer import ReceiveOptions, receive, send
from toolkit.transfer.manifest import MAX_OPEN_GROUPS
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
)
from toolkit.transfer.storage import QUICK_COMMIT_BYTES

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
