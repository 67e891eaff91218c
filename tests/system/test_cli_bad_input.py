"""Whatever goes wrong is one line that says what to do, the right exit code, and nothing left behind."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.cli_process import (
    Receiver,
    complaint,
    everything_below,
    nettool,
    nettool_here,
    receiver,
    without_override,
)
from toolkit.channel import Address, Channel, Extent, TransportOptions
from toolkit.errors import NettoolError
from toolkit.transfer.digest import ALGORITHMS
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import (
    Accept,
    AnyMessage,
    Begin,
    Digests,
    End,
    ErrorMessage,
    ErrorReason,
    FileDigest,
    Offer,
    Result,
    decode_untrusted,
)
from toolkit.transports.registry import transport as transport_named

TRANSPORTS = ("tcp", "udp")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(200_000))
    return path


# What is wrong at the sender, before anybody is asked: the target does not even exist.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing"], "no such file"),
        (["{tmp}"], "-r"),
        (["{file}", "{file}"], "two sources have"),
        (["-r", "/"], "no name"),
        (["--rate", "fast", "{file}"], "write it like 100Mbit"),
        (["--rate", "0", "{file}"], "out of range"),
        (["--idle-timeout", "30", "{file}"], "write it like 40ms"),
        (["--idle-timeout", "1ms", "{file}"], "the minimum is 1s"),
        (["--idle-timeout", "25h", "{file}"], "the maximum is 24h"),
        (["--digest", "md5", "{file}"], "blake3"),
        (["--cc", "no-such-thing", "{file}"], "no-such-thing"),
        (["--streams", "0", "{file}"], "streams"),
        (["--nonsense", "{file}"], "--nonsense"),
        ([], "HOST"),
    ],
)
def test_what_cannot_be_meant(transport: str, arguments: list[str], says: str, tmp_path: Path, file: Path) -> None:
    filled = [word.format(tmp=tmp_path, file=file) for word in arguments]
    ended = nettool_here(f"{transport}-send", *filled, "127.0.0.1:9")
    assert ended.code == 2
    assert says.lower() in complaint(ended).lower()
    assert ended.stdout == ""


@pytest.mark.parametrize("target", ["", "host:", "host:0", "host:99999", "[::1", "a b", "\x1b[0m", "x" * 5000])
def test_targets_that_are_none(transport: str, target: str, file: Path) -> None:
    ended = nettool_here(f"{transport}-send", file, target)
    assert ended.code in (2, 3)
    complaint(ended)


def test_a_forgotten_target(transport: str, file: Path) -> None:
    ended = nettool_here(f"{transport}-send", file, file)
    assert ended.code == 2
    assert "the receiver comes last" in complaint(ended)
    ended = nettool_here(f"{transport}-send", file)
    assert ended.code == 2
    complaint(ended)


def test_json_says_the_same_on_stdout(transport: str) -> None:
    ended = nettool_here(f"{transport}-send", "--json", "missing", "127.0.0.1:9")
    assert ended.code == 2
    assert ended.object["kind"] == "error"
    assert ended.object["exit_code"] == 2
    assert complaint(ended) == "nettool: " + ended.object["error"]


def test_a_file_without_permission(transport: str, file: Path) -> None:
    file.chmod(0)
    ended = nettool(f"{transport}-send", file, "127.0.0.1:9", before=without_override)
    assert ended.code == 2
    assert "permission denied" in complaint(ended).lower()


# Nobody there.


def test_a_name_that_does_not_resolve(transport: str, file: Path) -> None:
    ended = nettool(f"{transport}-send", file, "no-such-host.invalid")
    assert ended.code == 3
    assert "no-such-host.invalid" in complaint(ended)


def test_a_port_where_nobody_listens(transport: str, file: Path) -> None:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    started = time.monotonic()
    ended = nettool(f"{transport}-send", file, f"127.0.0.1:{port}")
    assert ended.code == 3
    assert "nettool recv" in complaint(ended)
    assert time.monotonic() - started < 5


def test_a_port_that_stays_silent(transport: str, file: Path) -> None:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as silent:
        silent.bind(("127.0.0.1", 0))
        if transport == "tcp":
            silent.listen()
        started = time.monotonic()
        ended = nettool(f"{transport}-send", file, f"127.0.0.1:{silent.getsockname()[1]}")
    assert ended.code == 3
    complaint(ended)
    assert time.monotonic() - started < 7  # five seconds, and the time that Python takes to start


# What is wrong at the receiver.


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--dir", "{file}"], 2),
        (["--dir", "{tmp}/no/such"], 2),
        (["--port", "70000"], 2),
        (["--port", "x"], 2),
        (["--bind", "no-such-host.invalid"], 3),
        (["--bind", "192.0.2.1"], 3),
        (["--bind", "\x1b[0m"], 3),
        (["--idle-timeout", "soon"], 2),
        (["surplus"], 2),
    ],
)
@pytest.mark.parametrize("command", ["recv", "tcp-recv", "udp-recv"])
def test_a_receiver_that_cannot_start(
    command: str, arguments: list[str], code: int, tmp_path: Path, file: Path
) -> None:
    filled = [word.format(tmp=tmp_path, file=file) for word in arguments]
    ended = nettool_here(command, "--port", "0", *filled, cwd=tmp_path)
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("warning: ")]
    assert ended.code == code, ended
    assert len(lines) == 1
    assert lines[0].startswith("nettool: ")
    assert lines[0].isprintable()
    assert everything_below(tmp_path) == ["file"]


@pytest.mark.parametrize("taken", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_is_taken(taken: socket.SocketKind, incoming: Path) -> None:
    with socket.socket(socket.AF_INET, taken) as holder:
        holder.bind(("127.0.0.1", 0))
        if taken == socket.SOCK_STREAM:
            holder.listen()
        ended = nettool("recv", "--dir", incoming, "--port", str(holder.getsockname()[1]))
    assert ended.code == 3
    complaint(ended)


def test_a_directory_that_cannot_be_written_to(incoming: Path) -> None:
    incoming.chmod(0o500)
    ended = nettool("recv", "--dir", incoming, "--port", "0", before=without_override)
    assert ended.code == 2
    assert "permission denied" in complaint(ended)


def test_an_existing_file_is_kept_unless_it_may_be_replaced(transport: str, file: Path, incoming: Path) -> None:
    (incoming / "file").write_text("older")
    with receiver(incoming, "--once") as receiving:
        ended = nettool(f"{transport}-send", file, receiving.target)
        assert receiving.end().code == 3
    assert ended.code == 3
    assert "--overwrite" in complaint(ended)
    assert (incoming / "file").read_text() == "older"
    assert everything_below(incoming) == ["file"]

    with receiver(incoming, "--once", "--overwrite") as receiving:
        assert nettool(f"{transport}-send", file, receiving.target).code == 0
        assert receiving.end().code == 0
    assert (incoming / "file").read_bytes() == file.read_bytes()


def test_what_is_refused_does_not_keep_back_the_rest(transport: str, tmp_path: Path, incoming: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c", "d")]
    for path in paths:
        path.write_text(path.name)
    (incoming / "b").write_text("older")
    (incoming / "d").mkdir()
    with receiver(incoming, "--once", "--json") as receiving:
        ended = nettool(f"{transport}-send", "--json", *paths, receiving.target)
        received = receiving.end()
    assert ended.code == received.code == 3
    complaint(ended)
    for told in (ended.object, received.object):
        assert (told["files"], told["bytes"]) == (2, 2)
        assert [(entry["name"], entry["status"]) for entry in told["failed"]] == [("b", "refused"), ("d", "refused")]
    assert received.object["verified"] is False
    assert [(incoming / name).read_text() for name in ("a", "b", "c")] == ["a", "older", "c"]


@pytest.mark.parametrize("option", ["--overwrite", "--fsync"])
def test_a_symbolic_link_in_the_way(transport: str, option: str, tmp_path: Path, file: Path, incoming: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (incoming / "file").symlink_to(victim)
    with receiver(incoming, "--once", option) as receiving:
        ended = nettool(f"{transport}-send", file, receiving.target)
        assert receiving.end().code == 3
    assert ended.code == 3
    assert "symbolic link" in complaint(ended)
    assert victim.read_text() == "precious"
    assert (incoming / "file").is_symlink()


def test_a_symbolic_link_as_a_directory_in_the_way(transport: str, tmp_path: Path, file: Path, incoming: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    file.rename(tree / "file")
    (incoming / "tree").symlink_to(outside)
    with receiver(incoming, "--once", "--overwrite") as receiving:
        ended = nettool(f"{transport}-send", "-r", tree, receiving.target)
        assert receiving.end().code == 3
    assert ended.code == 3
    complaint(ended)
    assert everything_below(outside) == []


@pytest.mark.parametrize("name", ["-rf", "a\nb", "\x1b[31mred", "tab\there", "c1\x9bcontrol"])
def test_names_that_a_receiver_does_not_take(transport: str, name: str, tmp_path: Path, incoming: Path) -> None:
    path = tmp_path / name
    path.write_text("x")
    with receiver(incoming, "--once") as receiving:
        ended = nettool(f"{transport}-send", path, receiving.target)
        received = receiving.end()
    assert ended.code == received.code == 3
    complaint(ended)
    assert all(line.isprintable() for line in received.stderr.splitlines())
    assert everything_below(incoming) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", "..", "-x", ""])
def test_names_for_standard_input_that_cannot_be(transport: str, name: str, tmp_path: Path, incoming: Path) -> None:
    with receiver(incoming, "--once") as receiving:
        ended = nettool(f"{transport}-send", "--name", name, "-", receiving.target, stdin=b"x")
        assert ended.code in (2, 3)
        complaint(ended)
    assert everything_below(tmp_path) == ["incoming"]


@contextmanager
def small_disk(size: str) -> Iterator[tuple[Sequence[str], Path]]:
    """A command prefix that sees a file system of that size, which is gone with the process, and where."""
    place = Path("/mnt")
    prefix = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        prefix += ["--user", "--map-root-user"]
    mount = ["sh", "-c", f'mount -t tmpfs -o size={size} none {place} && exec "$@"', "sh"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*prefix, *mount, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this machine lets nobody mount a small file system")
    yield [*prefix, *mount], place


@pytest.mark.parametrize("source", ["file", "-"])
def test_no_space(transport: str, source: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    path = tmp_path / "file"
    path.write_bytes(content)
    with small_disk("4m") as (wrapper, place), receiver(place, wrapper=wrapper) as receiving:
        ended = nettool(
            f"{transport}-send",
            "-" if source == "-" else path,
            receiving.target,
            stdin=content if source == "-" else None,
        )
        receiving.wait_for("no space")
        assert os.listdir(f"/proc/{receiving.process.pid}/root{place}") == []
    assert "no space" in complaint(ended)
    # A size that is known is refused before a byte is sent; a stream's shows on the way.
    assert ended.code == (4 if source == "-" else 3)


# A peer that is no nettool, or a hostile one.


@contextmanager
def connected(transport: str, receiving: Receiver) -> Iterator[Channel]:
    channel = transport_named(transport).connect(Address("127.0.0.1", receiving.port), TransportOptions())
    try:
        yield channel
    finally:
        channel.abort()


def answer(channel: Channel) -> AnyMessage | None:
    """What the receiver says next; None when it has gone."""
    try:
        data = channel.receive(timeout_s=10)
    except NettoolError:
        return None
    return decode_untrusted(data) if data is not None else None


def test_garbage_on_the_port_disturbs_nobody(transport: str, file: Path, incoming: Path) -> None:
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
        with socket.create_connection(address):  # connected, silent, and still there
            assert nettool(f"{transport}-send", file, receiving.target).code == 0
        ended = receiving.end(signal.SIGTERM)
    assert ended.code == 130
    assert "Traceback" not in ended.stderr
    assert "unexpected" not in ended.stderr
    assert all(line.isprintable() for line in ended.stderr.splitlines())
    assert everything_below(incoming) == ["file"]


def test_a_server_of_something_else(transport: str, file: Path) -> None:
    """Whoever answers a sender with noise is told apart from a nettool."""
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
            ended = nettool(f"{transport}-send", file, f"127.0.0.1:{other.getsockname()[1]}")
        finally:
            over.set()
            thread.join()
    assert ended.code in (3, 4)
    complaint(ended)


def test_a_sender_of_another_version(transport: str, incoming: Path) -> None:
    with receiver(incoming, "--once") as receiving:
        with connected(transport, receiving) as channel:
            channel.send_message(Begin(version=999).encode())
            said = answer(channel)
        ended = receiving.end()
    assert isinstance(said, ErrorMessage)
    assert "version" in said.text
    assert ended.code == 3
    assert "version" in ended.stderr


class Discarded:
    """A sink for content that is sent ahead, before the sender can know that nobody wants it."""

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        pass


def test_a_receiver_of_another_version(transport: str, file: Path) -> None:
    listener = transport_named(transport).listen(Address("127.0.0.1", 0), TransportOptions())

    def refuse() -> None:
        channel = listener.accept(20)
        assert channel is not None
        while channel.receive(Discarded(), 10) is None:
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
        b"ev\x00il",
        b"ev\x1b[31mil",
        b"ev\nil",
        b"a//b",
        b"x" * 256,
        b"d/" * 2000 + b"x",
    ],
)
def test_hostile_names_write_nothing(transport: str, path: bytes, tmp_path: Path, incoming: Path) -> None:
    entry = Entry(EntryKind.FILE, path, 0o644, 0, 4, 4)
    with receiver(incoming, "--once") as receiving, connected(transport, receiving) as channel:
        channel.send_message(Begin(total_files=1, total_bytes=4).encode())
        channel.send_message(Offer(0, (entry,)).encode())
        said = answer(channel)
        assert isinstance(said, Accept)
        assert said.outcomes[0].reason.isprintable()
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
        said = answer(channel)
        assert isinstance(said, Accept | ErrorMessage)
        channel.abort()
        assert receiving.end().code in (3, 4)
    assert everything_below(incoming) == []


def test_a_wrong_digest_is_found_and_nothing_kept(transport: str, incoming: Path) -> None:
    content = b"what was sent"
    entry = Entry(EntryKind.FILE, b"file", 0o644, 0, len(content), len(content))
    with receiver(incoming, "--once", "--json") as receiving, connected(transport, receiving) as channel:
        channel.send_message(Begin(total_files=1).encode())
        channel.send_message(Offer(0, (entry,)).encode())
        assert isinstance(answer(channel), Accept)
        channel.send_extent(Extent(0, 0, len(content)), _Bytes(content))
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


class _Bytes:
    """An ExtentSource of bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._spool = os.memfd_create("content")
        os.write(self._spool, content)

    def fileno(self) -> int:
        return self._spool

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self._content[offset : offset + len(buffer)]

    def on_sendfile(self, offset: int, length: int) -> None:
        pass

    def release(self, _extent: Extent) -> None:
        os.close(self._spool)
