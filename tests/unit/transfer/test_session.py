"""What both ends of a session share: errors that reach the peer, cancellation, and signs of life."""

import os
import threading
from pathlib import Path

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.memory_transport import MemoryChannel
from tests.support.sessions import Ends, ObservedChannel, RecordingChannel
from toolkit.channel import MIN_IDLE_TIMEOUT_S
from toolkit.errors import PeerClosedError, RefusedError, TransferError, UsageError
from toolkit.parameters import is_grease
from toolkit.transfer import SendOptions, receive, send
from toolkit.transfer.messages import Accept, Alive, AnyMessage, Begin, Offer
from toolkit.transfer.session import ALIVE_INTERVAL_S
from toolkit.transfer.storage import Storage


def test_another_version_is_refused_and_both_ends_learn_it(
    ends: Ends, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setattr("toolkit.transfer.sender.Begin", lambda *_, **__: Begin(version=1))
    sent = Background(lambda: send(ends[0], [tmp_path / "a"]))
    with pytest.raises(RefusedError, match="session version 1 at the sender, 2 at the receiver"):
        receive(ends[1], root)
    ends[1].close()
    with pytest.raises(RefusedError, match="the receiver has an incompatible version"):
        sent.outcome()


def test_both_ends_send_a_parameter_that_no_peer_knows(ends: Ends, tmp_path: Path, root: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    seen: dict[str, bool] = {}

    def listen(channel: MemoryChannel) -> ObservedChannel:
        def on_message(message: AnyMessage) -> None:
            if isinstance(message, Begin | Offer | Accept):
                seen[message.TYPE.name] = any(is_grease(identifier) for identifier in message.parameters)

        return ObservedChannel(channel, on_message)

    received = Background(lambda: receive(listen(ends[1]), root))
    send(listen(ends[0]), [tmp_path / "a"])
    received.outcome()
    assert seen == {"BEGIN": True, "OFFER": True, "ACCEPT": True}


def test_a_usage_error_does_not_tell_the_peer_local_paths(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(UsageError, match="missing"):
        receive(ends[1], tmp_path / "missing")
    ends[1].close()
    with pytest.raises(TransferError) as caught:
        send(ends[0], [tmp_path / "a"])
    assert str(caught.value) == "the receiver failed: its arguments or its directory are at fault"


def test_an_error_of_the_system_is_reported_to_the_peer(
    ends: Ends, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"x")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    sent = Background(lambda: send(ends[0], [tmp_path / "a"]))
    monkeypatch.setattr(Storage, "accept", fail)
    with pytest.raises(TransferError, match="operating system error: Input/output error"):
        receive(ends[1], root)
    ends[1].close()
    with pytest.raises(TransferError, match="the receiver failed: operating system error: Input/output error"):
        sent.outcome()


@pytest.mark.parametrize("role", ["sender", "receiver"])
def test_cancelling_a_session_ends_both_sides(ends: Ends, root: Path, role: str) -> None:
    cancel = threading.Event()
    reading, writing = os.pipe()
    options = SendOptions(stream_fd=reading)
    sent = Background(lambda: send(ends[0], ["-"], options, cancel=cancel if role == "sender" else None))
    received = Background(lambda: receive(ends[1], root, cancel=cancel if role == "receiver" else None))
    cancel.set()
    cancelled, other = (sent, received) if role == "sender" else (received, sent)
    with pytest.raises(TransferError, match="the transfer was cancelled"):
        cancelled.outcome()
    with pytest.raises(TransferError, match=f"the {role} cancelled the transfer"):
        other.outcome()
    os.close(reading)
    os.close(writing)


def test_a_cancelled_sender_sends_no_more_content(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    cancel = threading.Event()
    cancel.set()
    recorder = RecordingChannel(ends[0])
    with pytest.raises(TransferError, match="cancelled"):
        send(recorder, [tmp_path / "a"], cancel=cancel)
    assert recorder.calls == ["BEGIN", "OFFER", "ERROR"]


def interrupting(channel: object) -> ObservedChannel:
    """A channel at which Ctrl-C arrives when it receives for the third time."""
    receives = iter(range(3))

    def interrupt(_wake: int | None) -> None:
        if next(receives) == 2:
            raise KeyboardInterrupt

    return ObservedChannel(channel, before_receive=interrupt)


def test_an_interrupted_receiver_leaves_nothing(ends: Ends, tmp_path: Path, root: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8_000_000))
    sent = Background(lambda: send(ends[0], [tmp_path / "a"]))
    with pytest.raises(KeyboardInterrupt):
        receive(interrupting(ends[1]), root)
    ends[1].abort()
    with pytest.raises(PeerClosedError):
        sent.outcome()
    assert not list(root.iterdir())


def test_an_interrupted_sender_leaves_nothing(ends: Ends, tmp_path: Path, root: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8_000_000))
    received = Background(lambda: receive(ends[1], root))
    with pytest.raises(KeyboardInterrupt):
        send(interrupting(ends[0]), [tmp_path / "a"])
    ends[0].abort()
    with pytest.raises(PeerClosedError):
        received.outcome()
    assert not list(root.iterdir())


def test_both_ends_send_alive_while_a_stream_pauses(ends: Ends, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.transfer.session.ALIVE_INTERVAL_S", 0.01)
    reading, writing = os.pipe()
    heard = {name: threading.Semaphore(0) for name in ("sender", "receiver")}

    def listen(name: str) -> ObservedChannel:
        def on_message(message: AnyMessage) -> None:
            if isinstance(message, Alive):
                heard[name].release()

        return ObservedChannel(ends[0] if name == "sender" else ends[1], on_message)

    received = Background(lambda: receive(listen("receiver"), root))
    sent = Background(lambda: send(listen("sender"), ["-"], SendOptions(stream_fd=reading)))
    for semaphore in heard.values():
        for _ in range(5):
            assert semaphore.acquire(timeout=PATIENCE_S)
    os.write(writing, b"late")
    os.close(writing)
    assert sent.outcome().size_bytes == 4
    received.outcome()
    os.close(reading)
    assert (root / "stdin").read_bytes() == b"late"


def test_alive_is_sent_several_times_within_the_shortest_idle_timeout() -> None:
    assert 3 * ALIVE_INTERVAL_S < MIN_IDLE_TIMEOUT_S


def test_many_files_on_a_slow_disk_do_not_silence_the_receiver(
    ends: Ends, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.session.ALIVE_INTERVAL_S", 0.02)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x")
    events: list[str] = []
    utime = os.utime

    def slow_utime(descriptor: int, ns: tuple[int, int]) -> None:
        events.append("commit")
        threading.Event().wait(0.03)  # longer than the interval, on any machine
        utime(descriptor, ns=ns)

    monkeypatch.setattr(os, "utime", slow_utime)
    send_message = ends[1].send_message

    def record(message: bytes, has_more: bool = False) -> None:
        if message == Alive().encode():
            events.append("alive")
        send_message(message, has_more)

    monkeypatch.setattr(ends[1], "send_message", record)
    received = Background(lambda: receive(ends[1], root))
    send(ends[0], [tmp_path / "a", tmp_path / "b"])
    received.outcome()
    first, second = (index for index, event in enumerate(events) if event == "commit")
    assert "alive" in events[first:second]
