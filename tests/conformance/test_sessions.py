"""Whole sessions over every transport: real files, from `send` to the verified file under its name."""

import errno
import itertools
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.background import PATIENCE_S, together
from tests.support.conformance_network import CASES, Network
from tests.support.repetitions import first_then_long
from toolkit.channel import Channel, Extent, ExtentSink, ExtentSource
from toolkit.errors import NettoolError, PeerClosedError, RefusedError, TransferError, VerificationError
from toolkit.transfer import Progress, SendOptions, TransferResult, receive, send
from toolkit.transfer.messages import EntryOutcome
from toolkit.transfer.open_files import OPEN_FILES
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.sources import StreamSlice, StreamSource
from toolkit.transfer.stored_file import StoredFile

TREE = SendOptions(recursive=True)


class CorruptingChannel:
    """Passes everything on to a channel, but changes the first byte of content that consists of x."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        return self._channel.receive(None if sink is None else CorruptingSink(sink), timeout_s, wake)


class WatchedChannel:
    """Passes everything on to a channel, and says after each extent how much content was handed over."""

    def __init__(self, channel: Channel, on_content: Callable[[int], None]) -> None:
        self._channel = channel
        self._on_content = on_content
        self._handed_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        self._channel.send_extent(extent, source)
        self._handed_bytes += extent.length
        self._on_content(self._handed_bytes)


class CorruptingSink:
    def __init__(self, sink: ExtentSink) -> None:
        self._sink = sink

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        if offset == 0 and data[:1] == b"x":
            data = memoryview(b"y" + data[1:])
        self._sink.write(file_id, offset, data)


def transfer(
    network: Network,
    sources: list[Path],
    directory: Path,
    send_options: SendOptions = TREE,
    receive_options: ReceiveOptions = ReceiveOptions(),  # noqa: B008 - frozen
    is_corrupted: bool = False,
    on_content: Callable[[int], None] = lambda _: None,
    **sender_arguments: Any,
) -> tuple[TransferResult | NettoolError, TransferResult | NettoolError]:
    """Run one session; returns the result or the error of each side."""
    sender, receiver = network.pair()
    sending: Any = WatchedChannel(sender, on_content)
    receiving: Any = CorruptingChannel(receiver) if is_corrupted else receiver

    def run(channel: Channel, body: Any) -> Any:
        try:
            return body()
        except NettoolError as error:
            return error
        finally:
            channel.close()

    sent, received = together(
        lambda: run(sender, lambda: send(sending, sources, send_options, **sender_arguments)),
        lambda: run(receiver, lambda: receive(receiving, directory, receive_options)),
    )
    return sent, received


def contents(directory: Path) -> dict[bytes, bytes | None]:
    """Return every path below a directory with its content; None for a directory."""
    found: dict[bytes, bytes | None] = {}
    root = os.fsencode(directory)
    for parent, directories, files in os.walk(root):
        for name in directories:
            found[os.path.relpath(os.path.join(parent, name), root)] = None
        for name in files:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = file.read()
    return found


class Tree(NamedTuple):
    """A tree that the tests only read, and what `contents` returns of it."""

    root: Path
    contents: dict[bytes, bytes | None]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """A tree with special names, sizes and content."""
    folder = tmp_path_factory.mktemp("sent")
    root = write_tree(folder / "tree")
    yield Tree(root, contents(root))
    shutil.rmtree(folder)


def write_tree(root: Path) -> Path:
    dice = random.Random(4)
    (root / "empty directory").mkdir(parents=True)
    (root / "κατάλογος" / "目录").mkdir(parents=True)
    files = {
        "empty": b"",
        "one byte": b"1",
        "κατάλογος/目录/ملف": dice.randbytes(1399),
        "not a multiple of anything": dice.randbytes(3_000_017),
        "z" * 255: b"a long name",
        " leading and trailing blanks ": b"blank",
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    with open(os.fsencode(root) + b"/not utf-8 \xff\xfe", "wb") as file:
        file.write(b"bytes")
    for number in range(200):
        (root / f"small-{number % 7}").mkdir(exist_ok=True)
        (root / f"small-{number % 7}" / f"{number}").write_bytes(dice.randbytes(number * 10))
    with open(root / "sparse", "wb") as file:
        file.seek(10_000_000)
        file.write(b"in the middle")
        file.truncate(30_000_001)
    os.chmod(root / "one byte", 0o640)
    os.chmod(root / "empty", 0o755)
    os.utime(root / "empty", ns=(1, 1_234_567_890_123_456_789))
    return root


@pytest.mark.parametrize("digest", first_then_long(["xxh3-128", "blake3"]))
def test_a_tree_arrives_unchanged(network: Network, tree: Tree, destination: Path, digest: str) -> None:
    options = SendOptions(recursive=True, digest=digest)
    sent, received = transfer(network, [tree.root], destination, options, ReceiveOptions(preserve_modes=True))
    assert isinstance(sent, TransferResult), sent
    assert isinstance(received, TransferResult), received
    assert contents(destination / "tree") == tree.contents
    assert (sent.files, sent.size_bytes, sent.digest) == (received.files, received.size_bytes, received.digest)
    assert sent.files == 208
    arrived = destination / "tree"
    assert (arrived / "one byte").stat().st_mode & 0o7777 == 0o640
    assert (arrived / "empty").stat().st_mode & 0o7777 == 0o755
    assert (arrived / "empty").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (arrived / "empty directory").stat().st_mtime_ns == (tree.root / "empty directory").stat().st_mtime_ns
    assert (arrived / "sparse").stat().st_blocks * 512 < 1_000_000


def test_several_groups_arrive(
    network: Network, tmp_path: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.scan.MAX_GROUP_ENTRIES", 64)
    root = tmp_path / "many"
    root.mkdir()
    for number in range(200):
        (root / f"{number}").write_bytes(b"%d" % number if number % 3 else b"")
    sent, received = transfer(network, [root], destination)
    assert isinstance(sent, TransferResult), sent
    assert isinstance(received, TransferResult), received
    assert sent.files == received.files == 200
    assert contents(destination / "many") == contents(root)


def test_a_large_file_arrives_and_progress_is_reported(network: Network, tmp_path: Path, destination: Path) -> None:
    content = random.Random(5).randbytes(10_000_001)
    (tmp_path / "large").write_bytes(content)
    seen: list[Progress] = []
    sent, _ = transfer(network, [tmp_path / "large"], destination, progress=seen.append)
    assert isinstance(sent, TransferResult), sent
    assert (destination / "large").read_bytes() == content
    assert [progress.size_bytes for progress in seen] == sorted(progress.size_bytes for progress in seen)
    assert all(before != after for before, after in itertools.pairwise(seen))
    assert seen[-1] == Progress("large", 1, len(content), 1, len(content), len(content), len(content), is_idle=True)


def test_a_stream_arrives(network: Network, destination: Path) -> None:
    content = random.Random(6).randbytes(5_000_001)
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    options = SendOptions(stream_name="from a pipe", stream_fd=reading)
    sent, _ = transfer(network, [Path("-")], destination, options)
    writer.join(PATIENCE_S)
    os.close(reading)
    assert isinstance(sent, TransferResult), sent
    assert sent.size_bytes == len(content)
    assert (destination / "from a pipe").read_bytes() == content
    assert abs((destination / "from a pipe").stat().st_mtime - time.time()) < 60


@pytest.mark.skipif(not Path("/sys/kernel/fscaps").exists(), reason="only Linux has it")
def test_a_file_whose_size_says_nothing_is_read_to_its_end(network: Network, destination: Path) -> None:
    """/proc says 0, and /sys a page."""
    sources = [Path("/proc/version"), Path("/proc/sys/kernel/random"), Path("/sys/kernel/fscaps")]
    sent, _ = transfer(network, sources, destination)
    assert isinstance(sent, TransferResult), sent
    (destination / "random").chmod(0o755)  # nobody may write to it in /proc, and only root could remove the copy
    for name, source in (
        ("version", "/proc/version"),
        ("random/poolsize", "/proc/sys/kernel/random/poolsize"),
        ("fscaps", "/sys/kernel/fscaps"),
    ):
        assert (destination / name).read_bytes() == Path(source).read_bytes() != b""


def test_a_stream_needs_no_room_for_temporary_files(
    network: Network, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(7).randbytes(3_000_001)
    monkeypatch.setattr("tempfile.tempdir", str(destination / "missing"))
    with tempfile.TemporaryFile(dir=destination.parent) as file:
        file.write(content)
        file.seek(0)
        sent, _ = transfer(network, [Path("-")], destination, SendOptions(stream_fd=file.fileno()))
    assert isinstance(sent, TransferResult), sent
    assert (destination / "stdin").read_bytes() == content


def test_a_read_error_of_a_stream_ends_both_sides_with_the_reason(
    network: Network, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_slice = StreamSource.next_slice

    def fail_at_last(self: StreamSource) -> StreamSlice | None:
        if self.size_bytes > 20_000_000:
            raise TransferError("the standard input cannot be read (it broke)")
        return next_slice(self)

    monkeypatch.setattr(StreamSource, "next_slice", fail_at_last)
    with open("/dev/zero", "rb") as zeros:
        sent, received = transfer(network, [Path("-")], destination, SendOptions(stream_fd=zeros.fileno()))
    assert isinstance(sent, TransferError)
    assert "it broke" in str(sent)
    assert isinstance(received, TransferError)
    assert "it broke" in str(received)
    assert not list(destination.iterdir())


def test_an_existing_file_is_kept_and_the_others_arrive(network: Network, tmp_path: Path, destination: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(random.Random(name).randbytes(300_000))
    (destination / "a").write_bytes(b"mine")
    sources = [tmp_path / "a", tmp_path / "b"]
    sent, received = transfer(network, sources, destination)
    assert isinstance(sent, RefusedError)
    assert "`overwrite`" in str(sent)
    assert isinstance(sent.result, TransferResult)
    assert [entry.status for entry in sent.result.undelivered] == ["refused"]
    assert sent.result.files == 1
    assert isinstance(received, TransferResult)
    assert received.files == 1
    assert (destination / "a").read_bytes() == b"mine"
    assert (destination / "b").read_bytes() == (tmp_path / "b").read_bytes()

    sent, _ = transfer(network, sources, destination, receive_options=ReceiveOptions(overwrite=True))
    assert isinstance(sent, TransferResult), sent
    assert contents(destination) == {name: (tmp_path / name.decode()).read_bytes() for name in (b"a", b"b")}


def test_a_file_that_shrinks_leaves_nothing(network: Network, tmp_path: Path, destination: Path) -> None:
    source = tmp_path / "log"
    source.write_bytes(bytes(8_000_000))

    def shrink(handed_bytes: int) -> None:
        if handed_bytes > 1_000_000:
            os.truncate(source, 500_000)

    sent, received = transfer(network, [source], destination, on_content=shrink)
    assert isinstance(sent, TransferError)
    assert "changed while it was sent" in str(sent)
    assert isinstance(received, TransferError)
    assert "changed while it was sent" in str(received)
    assert not list(destination.iterdir())


def test_a_file_that_grows_leaves_nothing(network: Network, tmp_path: Path, destination: Path) -> None:
    source = tmp_path / "log"
    source.write_bytes(bytes(3_000_000))

    def grow(handed_bytes: int) -> None:
        if handed_bytes > 1_000_000:
            with open(source, "ab") as file:
                file.write(b"one more line")

    sent, received = transfer(network, [source], destination, on_content=grow)
    assert isinstance(sent, TransferError)
    assert isinstance(received, TransferError)
    assert not list(destination.iterdir())


def test_the_rest_of_a_tree_arrives_if_some_of_its_files_change_or_vanish(
    network: Network, tmp_path: Path, destination: Path
) -> None:
    """They do so after they were offered: one before it is opened, one in the middle, one without a trace of it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    kept = {f"{number}": random.Random(number).randbytes(50_000) for number in range(20)}
    for name, content in kept.items():
        (tree / name).write_bytes(content)
    (tree / "0-shrinks").write_bytes(bytes(8_000_000))
    (tree / "5-vanishes").write_bytes(bytes(200_000))
    (tree / "6-becomes a FIFO").write_bytes(bytes(200_000))
    before = (tree / "0-shrinks").stat()

    def change(handed_bytes: int) -> None:
        if handed_bytes < 1_000_000 or not (tree / "5-vanishes").exists():
            return
        os.truncate(tree / "0-shrinks", 500_000)
        os.utime(tree / "0-shrinks", ns=(before.st_atime_ns, before.st_mtime_ns))
        (tree / "5-vanishes").unlink()
        (tree / "6-becomes a FIFO").unlink()
        os.mkfifo(tree / "6-becomes a FIFO")

    sent, received = transfer(network, [tree], destination, on_content=change)
    for end in (sent, received):
        assert isinstance(end, TransferError)
        assert isinstance(end.result, TransferResult)
        assert end.result.files == 20
        undelivered = {
            entry.name.removeprefix("tree/"): (entry.status, entry.reason) for entry in end.result.undelivered
        }
        assert set(undelivered) == {"0-shrinks", "5-vanishes", "6-becomes a FIFO"}
        assert {status for status, _ in undelivered.values()} == {"failed"}
        assert "changed" in undelivered["0-shrinks"][1]
        assert "no such file" in undelivered["5-vanishes"][1]
    assert {path.name: path.read_bytes() for path in (destination / "tree").iterdir()} == kept


def test_the_rest_of_a_tree_arrives_if_the_receiver_cannot_store_some_of_its_files(
    network: Network, tmp_path: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One directory is read-only, for this user too, and the sender need not send all of the file in it."""
    tree = tmp_path / "tree"
    for name, size_bytes in (("a", 50_000), ("locked/large", 30_000_000), ("locked/small", 10), ("z", 50_000)):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(bytes(size_bytes))
    (destination / "tree/locked").mkdir(parents=True)
    open_file = os.open

    def open_unless_locked(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT and dir_fd is not None and os.readlink(f"/proc/self/fd/{dir_fd}").endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_file(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_unless_locked)
    sent, received = transfer(network, [tree], destination)
    for end in (sent, received):
        assert isinstance(end, TransferError), end
        assert isinstance(end.result, TransferResult)
        assert end.result.files == 2
        assert [entry.name for entry in end.result.undelivered] == ["tree/locked/large", "tree/locked/small"]
        assert {entry.reason for entry in end.result.undelivered} == {"the receiver has no permission to write there"}
    assert {path.name for path in destination.rglob("*") if path.is_file()} == {"a", "z"}


def test_a_tree_that_contains_its_destination_is_not_sent_again_and_again(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offers are small, so that most of the tree is scanned while its files arrive; so is an earlier copy of it."""
    monkeypatch.setattr("toolkit.transfer.scan.MAX_GROUP_ENTRIES", 3)
    tree = tmp_path / "tree"
    for number in range(20):
        (tree / f"{number:02}").mkdir(parents=True)
        (tree / f"{number:02}/file").write_bytes(b"content")
    destination = tree / "z/in"
    (destination / "tree/z/in/tree").mkdir(parents=True)
    (tree / "z/.nettool-0123456789abcdef.part").write_bytes(b"what a killed receiver left")
    sent, _ = transfer(network, [tree], destination)
    assert isinstance(sent, TransferResult), sent
    assert sent.files == 20
    assert [entry.name for entry in sent.undelivered] == ["tree/z/.nettool-0123456789abcdef.part", "tree/z/in"]

    sent, received = transfer(network, [tree], tree)
    assert isinstance(sent, RefusedError)
    assert "start it with another `into`" in str(sent)
    assert isinstance(received, RefusedError)


def test_a_changed_byte_is_never_verified(network: Network, tmp_path: Path, destination: Path) -> None:
    """Sizes and times are right, and only the digest shows the change."""
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "bad").write_bytes(b"x" * 100_000)
    sent, received = transfer(network, [tmp_path / "good", tmp_path / "bad"], destination, is_corrupted=True)
    assert isinstance(sent, VerificationError)
    assert isinstance(received, VerificationError)
    assert contents(destination) == {b"good": b"good"}


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_either_side_may_stop(network: Network, tmp_path: Path, destination: Path, side: str) -> None:
    (tmp_path / "large").write_bytes(bytes(16_000_000))
    stop = threading.Event()
    sender, receiver = network.pair()

    def run_sender() -> None:
        with pytest.raises(TransferError, match="cancelled"):
            send(sending, [tmp_path / "large"], cancel=stop if side == "sender" else None)
        sender.close()

    def run_receiver() -> None:
        with pytest.raises(TransferError, match="cancelled"):
            receive(receiver, destination, cancel=stop if side == "receiver" else None)
        receiver.close()

    def seen(handed_bytes: int) -> None:
        if handed_bytes > 1_000_000:
            stop.set()

    sending: Any = WatchedChannel(sender, seen)
    together(run_sender, run_receiver)
    assert not list(destination.iterdir())


def test_a_peer_that_vanishes_leaves_nothing(network: Network, tmp_path: Path, destination: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(16_000_000))
    sender, receiver = network.pair()

    class Vanished(Exception):  # noqa: N818
        pass

    def vanish(handed_bytes: int) -> None:
        if handed_bytes > 1_000_000:
            raise Vanished

    sending: Any = WatchedChannel(sender, vanish)

    def run_sender() -> None:
        with pytest.raises(Vanished):
            send(sending, [tmp_path / "large"])
        sender.abort()

    def run_receiver() -> None:
        with pytest.raises(PeerClosedError):
            receive(receiver, destination)
        receiver.close()

    together(run_sender, run_receiver)
    assert not list(destination.iterdir())


def test_several_senders_at_once(network: Network, tmp_path: Path, destination: Path) -> None:
    names = [f"from-{number}" for number in range(4)]
    for name in names:
        (tmp_path / name).write_bytes(random.Random(name).randbytes(1_000_000))
    pairs = [network.pair() for _ in names]
    together(
        *(lambda pair=pair: receive(pair[1], destination) for pair in pairs),
        *(
            lambda pair=pair, name=name: send(pair[0], [tmp_path / name])
            for pair, name in zip(pairs, names, strict=True)
        ),
    )
    assert contents(destination) == {os.fsencode(name): (tmp_path / name).read_bytes() for name in names}


@pytest.mark.long
def test_sessions_leave_no_descriptors(network: Network, tmp_path: Path, destination: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    source = tmp_path / "file"
    source.write_bytes(bytes(100_000))

    def session(number: int) -> None:
        sender, receiver = network.pair()
        overwrite = ReceiveOptions(overwrite=bool(number % 2))  # every second session is refused

        def run_sender() -> None:
            try:
                send(sender, [source])
            except RefusedError:
                assert not number % 2
            sender.close()

        def run_receiver() -> None:
            receive(receiver, destination, overwrite)
            receiver.close()

        together(run_sender, run_receiver)

    session(1)
    before = descriptors()
    for number in range(30):
        session(number)
    assert descriptors() <= before
    assert len(OPEN_FILES) == 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["tcp", "tcp-three-streams", "udp"])
def test_a_commit_that_takes_longer_than_the_idle_timeout_costs_no_session(
    name: str, tmp_path: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the close of a file on a network file system may, or fsync."""
    case, commit, has_stalled = CASES[name], StoredFile.commit, threading.Event()
    network = Network(case._replace(options=replace(case.options, idle_timeout_s=3.0)))

    def commit_slowly(file: StoredFile) -> EntryOutcome:
        if not has_stalled.is_set():
            has_stalled.set()
            time.sleep(8)
        return commit(file)

    monkeypatch.setattr(StoredFile, "commit", commit_slowly)
    sources = [tmp_path / f"large{number}" for number in range(4)]
    for source in sources:
        source.write_bytes(os.urandom(16 << 20))
    sender, receiver = network.pair()
    try:
        together(lambda: send(sender, sources), lambda: receive(receiver, destination))
    finally:
        network.close()
    assert has_stalled.is_set()
    assert all((destination / source.name).read_bytes() == source.read_bytes() for source in sources)
