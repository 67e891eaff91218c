"""Sessions that are cut and sent again, over every transport: they go on, and only what is missing is sent."""

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.test_sessions import TREE, contents, transfer
from tests.support.background import together
from tests.support.conformance_network import Network
from tests.support.repetitions import first_then_long
from toolkit.channel import Channel, ExtentSink
from toolkit.errors import NettoolError
from toolkit.transfer import SendOptions, TransferResult, receive, send
from toolkit.transfer.chunks import CHUNK_BYTES
from toolkit.transfer.comparison import Comparison
from toolkit.transfer.incoming import OPTIMISTIC_BYTES
from toolkit.transfer.receiver import ReceiveOptions

SIZE_BYTES = 8_000_001
KEY = bytes(range(16))
RESUMING = SendOptions(recursive=True, resume_key=KEY)
UPDATING = replace(RESUMING, update=Comparison.TIME)


class CountingChannel:
    """Passes content on and counts it; when more than `limit_bytes` have come, it drops the rest and sets `is_over`."""

    def __init__(self, channel: Channel, limit_bytes: int | None = None) -> None:
        self._channel = channel
        self._limit_bytes = limit_bytes
        self.content_bytes = 0
        self.is_over = threading.Event()
        self.lock = threading.Lock()  # further connections deliver in threads of their own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        return self._channel.receive(None if sink is None else CountingSink(self, sink), timeout_s, wake)

    def count(self, length: int) -> None:
        self.content_bytes += length
        if self._limit_bytes is not None and self.content_bytes > self._limit_bytes:
            self.is_over.set()


class CountingSink:
    def __init__(self, counting: CountingChannel, sink: ExtentSink) -> None:
        self._counting = counting
        self._sink = sink

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        with self._counting.lock:
            if not self._counting.is_over.is_set():
                self._sink.write(file_id, offset, data)
                self._counting.count(len(data))


def cut(
    network: Network,
    sources: list[Path],
    directory: Path,
    after_bytes: int,
    options: SendOptions,
    **receive_options: Any,
) -> None:
    """Run a session that the receiver ends after so much content."""
    sender, receiver = network.pair()
    counting = CountingChannel(receiver, after_bytes)
    receiving = ReceiveOptions(**receive_options)

    def run(body: Callable[[], Any], end: Callable[[], None]) -> Any:
        try:
            return body()
        except NettoolError as error:
            return error
        finally:
            end()

    sent, received = together(
        lambda: run(lambda: send(sender, sources, options), sender.abort),
        lambda: run(lambda: receive(counting, directory, receiving, cancel=counting.is_over), receiver.close),
    )
    assert isinstance(sent, NettoolError)
    assert isinstance(received, NettoolError)


def send_again(
    network: Network, sources: list[Path], directory: Path, options: SendOptions, **receive_options: Any
) -> tuple[int, TransferResult]:
    """Run a session to its end; returns how much content came, and the sender's result."""
    sender, receiver = network.pair()
    counting = CountingChannel(receiver)
    sent, received = together(
        lambda: send(sender, sources, options),
        lambda: receive(counting, directory, ReceiveOptions(**receive_options)),
    )
    assert isinstance(sent, TransferResult)
    assert isinstance(received, TransferResult)
    assert sent.resumed_bytes == received.resumed_bytes
    sender.close()
    receiver.close()
    return counting.content_bytes, sent


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "film"
    path.write_bytes(random.Random(1).randbytes(SIZE_BYTES))
    return path


@pytest.mark.parametrize("after_bytes", first_then_long((5_000_000, 1_500_000, 6_500_000)))
def test_an_interrupted_file_goes_on(network: Network, source: Path, destination: Path, after_bytes: int) -> None:
    cut(network, [source], destination, after_bytes, RESUMING)
    (left,) = destination.iterdir()
    assert left.name.endswith(".part")
    sent_bytes, result = send_again(network, [source], destination, RESUMING)
    assert contents(destination) == {b"film": source.read_bytes()}
    assert result.resumed_bytes >= after_bytes - OPTIMISTIC_BYTES - 2 * CHUNK_BYTES
    assert sent_bytes == SIZE_BYTES - result.resumed_bytes


@pytest.mark.long
def test_another_sender_finds_nothing_and_disturbs_nothing(network: Network, source: Path, destination: Path) -> None:
    cut(network, [source], destination, 5_000_000, RESUMING)
    (left,) = destination.iterdir()
    before = left.read_bytes()
    for options in (TREE, SendOptions(resume_key=bytes(16))):
        sent_bytes, result = send_again(network, [source], destination, options, overwrite=True)
        assert (sent_bytes, result.resumed_bytes) == (SIZE_BYTES, 0)
    assert left.read_bytes() == before


@pytest.mark.long
def test_what_has_changed_in_a_file_is_sent_and_the_rest_kept(
    network: Network, source: Path, destination: Path
) -> None:
    cut(network, [source], destination, 7_000_000, RESUMING)
    content = bytearray(source.read_bytes())
    content[4_000_000] ^= 1
    source.write_bytes(content)
    sent_bytes, _ = send_again(network, [source], destination, RESUMING)
    assert contents(destination) == {b"film": bytes(content)}
    assert sent_bytes < SIZE_BYTES // 2


@pytest.mark.long
def test_a_damaged_unfinished_file_does_no_harm(network: Network, source: Path, destination: Path) -> None:
    cut(network, [source], destination, 7_000_000, RESUMING)
    (left,) = destination.iterdir()
    with left.open("r+b") as file:
        for offset in (0, 2_000_000, 5_000_000):
            file.seek(offset)
            file.write(random.Random(2).randbytes(300_000))
        file.truncate(20_000_000)
    send_again(network, [source], destination, RESUMING)
    assert contents(destination) == {b"film": source.read_bytes()}


@pytest.mark.long
def test_holes_replace_what_an_unfinished_file_has_there(network: Network, source: Path, destination: Path) -> None:
    cut(network, [source], destination, 7_000_000, RESUMING)
    content = source.read_bytes()
    with source.open("wb") as file:
        file.write(content[:1_000_000])
        file.truncate(6_000_000)
        file.seek(6_000_000)
        file.write(content[6_000_000:])
    send_again(network, [source], destination, RESUMING)
    assert contents(destination) == {b"film": content[:1_000_000] + bytes(5_000_000) + content[6_000_000:]}


def test_a_tree_goes_on(network: Network, tmp_path: Path, destination: Path) -> None:
    root = tmp_path / "tree"
    (root / "below").mkdir(parents=True)
    dice = random.Random(3)
    for name, size_bytes in (("a", 100), ("below/b", 4_000_000), ("below/c", 3_000_000), ("d", 10)):
        (root / name).write_bytes(dice.randbytes(size_bytes))
    cut(network, [root], destination, 5_500_000, RESUMING)
    sent_bytes, _ = send_again(network, [root], destination, UPDATING)
    assert contents(destination / "tree") == contents(root)
    assert sent_bytes < 4_000_000
    assert not list(destination.rglob(".nettool-*"))


@pytest.mark.long
def test_a_small_rest_is_not_kept(network: Network, source: Path, destination: Path) -> None:
    cut(network, [source], destination, 500_000, RESUMING)
    assert not list(destination.iterdir())
    assert transfer(network, [source], destination)[0]


def test_an_update_sends_only_what_has_changed_in_a_file(network: Network, source: Path, destination: Path) -> None:
    transfer(network, [source], destination)
    content = bytearray(source.read_bytes())
    for offset in (0, 4_000_000):
        content[offset] ^= 1
    content += bytes(100)
    source.write_bytes(content)
    sent_bytes, result = send_again(network, [source], destination, UPDATING, overwrite=True)
    assert contents(destination) == {b"film": bytes(content)}
    assert sent_bytes == len(content) - result.resumed_bytes
    assert sent_bytes <= 3 * CHUNK_BYTES


@pytest.mark.long
def test_an_insertion_at_the_front_sends_everything(network: Network, source: Path, destination: Path) -> None:
    transfer(network, [source], destination)
    source.write_bytes(b"x" + source.read_bytes())
    sent_bytes, _ = send_again(network, [source], destination, UPDATING, overwrite=True)
    assert contents(destination) == {b"film": source.read_bytes()}
    assert sent_bytes == SIZE_BYTES + 1


@pytest.mark.long
def test_an_interrupted_update_leaves_the_old_file_and_goes_on(
    network: Network, source: Path, destination: Path
) -> None:
    transfer(network, [source], destination)
    before = source.read_bytes()
    source.write_bytes(before[:3_000_000] + random.Random(4).randbytes(SIZE_BYTES - 3_000_000))
    cut(network, [source], destination, 3_000_000, UPDATING, overwrite=True)
    assert (destination / "film").read_bytes() == before
    sent_bytes, _ = send_again(network, [source], destination, UPDATING, overwrite=True)
    assert contents(destination) == {b"film": source.read_bytes()}
    assert sent_bytes <= SIZE_BYTES - 3_000_000 - 3_000_000 + 4 * CHUNK_BYTES + OPTIMISTIC_BYTES
