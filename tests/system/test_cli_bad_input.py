"""Wrong usage, unreachable peers and refused files: one line that says what to do, the exit code, nothing left behind.

tests/system/test_cli_hostile_peers.py has the peers that break the protocol.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cli_process import (
    complaint,
    everything_below,
    nettool,
    nettool_here,
    receiver,
    without_override,
)

# Mistakes at the sender that are found before it contacts the receiver, which does not even exist.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "no such file"),
        (["{tmp}"], "-r"),
        (["{file}", "{file}"], "two sources have"),
        (["-r", "/"], "no name"),
        (["--rate", "fast", "{file}"], "write it like 100Mbit"),
        (["--rate", "0", "{file}"], "out of range"),
        (["--rate", "1bit", "{file}"], "a rate of 1 bit/s is too low to send anything: choose 8 bit/s or more"),
        (["--idle-timeout", "30", "{file}"], "'30' has no unit: write it like 30s or 30ms"),
        (["--rate", "200", "{file}"], "'200' has no unit: write 200Mbit, 200kbit, 200bit (a second) or 200MB/s"),
        (["--idle-timeout", "1ms", "{file}"], "the minimum is 1s"),
        (["--idle-timeout", "25h", "{file}"], "the maximum is 24h"),
        (["--digest", "md5", "{file}"], "blake3"),
        (["--cc", "no-such-thing", "{file}"], "no-such-thing"),
        (["--streams", "0", "{file}"], "streams"),
        (["--nonsense", "{file}"], "--nonsense"),
        ([], "a file is missing"),
    ],
)
def test_wrong_usage_of_send(transport: str, arguments: list[str], message: str, tmp_path: Path, file: Path) -> None:
    filled = [word.format(tmp=tmp_path, file=file) for word in arguments]
    ended = nettool_here(f"{transport}-send", *filled, "127.0.0.1:9")
    assert ended.code == 2
    assert message.lower() in complaint(ended).lower()
    assert ended.stdout == ""


@pytest.mark.parametrize("target", ["", "host:", "host:0", "host:99999", "[::1", "a b", "\x1b[0m", "x" * 5000])
def test_invalid_targets(transport: str, target: str, file: Path) -> None:
    ended = nettool_here(f"{transport}-send", file, target)
    assert ended.code in (2, 3)
    complaint(ended)


def test_a_missing_target(transport: str, file: Path) -> None:
    ended = nettool_here(f"{transport}-send", file, file)
    assert ended.code == 2
    assert "the receiver comes last" in complaint(ended)
    ended = nettool_here(f"{transport}-send", file)
    assert ended.code == 2
    complaint(ended)


def test_json_reports_the_same_error_on_stdout(transport: str) -> None:
    ended = nettool_here(f"{transport}-send", "--json", "missing", "127.0.0.1:9")
    assert ended.code == 2
    assert ended.object["kind"] == "error"
    assert ended.object["exit_code"] == 2
    assert complaint(ended) == "nettool: " + ended.object["error"]


def test_a_file_without_read_permission(transport: str, file: Path) -> None:
    file.chmod(0)
    ended = nettool(f"{transport}-send", file, "127.0.0.1:9", before=without_override)
    assert ended.code == 2
    assert "permission denied" in complaint(ended).lower()


# Unreachable receivers.


def test_a_name_that_does_not_resolve(transport: str, file: Path) -> None:
    ended = nettool(f"{transport}-send", file, "no-such-host.invalid")
    assert ended.code == 3
    assert "no-such-host.invalid" in complaint(ended)


def test_a_port_without_a_listener(transport: str, file: Path) -> None:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    ended = nettool(f"{transport}-send", file, f"127.0.0.1:{port}")
    assert ended.code == 3
    assert "nettool recv" in complaint(ended)


def test_a_silent_port(transport: str, file: Path) -> None:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as silent:
        silent.bind(("127.0.0.1", 0))
        if transport == "tcp":
            silent.listen()
        ended = nettool(f"{transport}-send", "--connect-timeout", "1s", file, f"127.0.0.1:{silent.getsockname()[1]}")
    assert ended.code == 3
    complaint(ended)


# Mistakes at the receiver, and files that it refuses.


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--dir", "{file}"], 2),
        (["--dir", "{tmp}/no/such"], 2),
        (["--port", "70000"], 2),
        (["--port", "x"], 2),
        (["--bind", "no-such-host.invalid", "--dir", "."], 3),
        (["--bind", "192.0.2.1", "--dir", "."], 3),
        (["--bind", "\x1b[0m", "--dir", "."], 3),
        (["--bind", "\x1b[0m"], 2),
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


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1"])
@pytest.mark.parametrize("command", ["recv", "tcp-recv", "udp-recv"])
def test_a_receiver_beyond_loopback_needs_a_directory(command: str, bind: str, tmp_path: Path) -> None:
    ended = nettool_here(command, "--json", "--port", "0", "--bind", bind, cwd=tmp_path)
    assert ended.code == ended.object["exit_code"] == 2
    assert "name a directory with --dir" in complaint(ended)
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_in_use(kind: socket.SocketKind, incoming: Path) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        ended = nettool("recv", "--dir", incoming, "--port", str(holder.getsockname()[1]))
    assert ended.code == 3
    complaint(ended)


def test_a_directory_without_write_permission(incoming: Path) -> None:
    incoming.chmod(0o500)
    ended = nettool("recv", "--dir", incoming, "--port", "0", before=without_override)
    assert ended.code == 2
    assert "permission denied" in complaint(ended)


def test_an_existing_file_is_kept_without_overwrite(transport: str, file: Path, incoming: Path) -> None:
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


def test_a_refused_file_does_not_stop_the_others(transport: str, tmp_path: Path, incoming: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c", "d")]
    for path in paths:
        path.write_text(path.name)
    (incoming / "b").write_text("older")
    (incoming / "d").mkdir()
    with receiver(incoming, "--once", "--json") as receiving:
        ended = nettool(f"{transport}-send", "--json", *paths, receiving.target)
        received = receiving.end()
    assert ended.code == received.code == 3
    assert complaint(ended, listed=2).endswith("(and 1 more refused)")
    for printed in (ended.object, received.object):
        assert (printed["files"], printed["bytes"]) == (2, 2)
        assert [(entry["name"], entry["status"]) for entry in printed["failed"]] == [("b", "refused"), ("d", "refused")]
    assert received.object["verified"] is False
    assert [(incoming / name).read_text() for name in ("a", "b", "c")] == ["a", "older", "c"]


@pytest.mark.parametrize("option", ["--overwrite", "--fsync"])
def test_a_symbolic_link_in_place_of_the_file(
    transport: str, option: str, tmp_path: Path, file: Path, incoming: Path
) -> None:
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


def test_a_symbolic_link_in_place_of_a_directory(transport: str, tmp_path: Path, file: Path, incoming: Path) -> None:
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
    complaint(ended, listed=2)
    assert everything_below(outside) == []


@pytest.mark.parametrize("name", ["-rf", "a\nb", "\x1b[31mred", "tab\there", "c1\x9bcontrol"])
def test_names_that_a_receiver_refuses(transport: str, name: str, tmp_path: Path, incoming: Path) -> None:
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
@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_invalid_names_for_standard_input(transport: str, dry_run: list[str], name: str) -> None:
    ended = nettool_here(f"{transport}-send", *dry_run, "--name", name, "-", "127.0.0.1:9")
    assert ended.code == 2
    assert "--name is empty" in complaint(ended) or "choose another name for standard input" in complaint(ended)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-bytes", "0B"], "--max-bytes must be at least one byte"),
        (["--retry", "20s"], "--retry is how long --once waits"),
        (["--stdout", "--preserve", "modes"], "leave --preserve out"),
        (["--stdout", "--preserve-modes"], "leave --preserve-modes out"),
        (["--stdout", "--fsync"], "leave --fsync out"),
    ],
)
def test_options_of_a_receiver_without_effect(transport: str, options: list[str], message: str) -> None:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(type=kind) as taken:  # so that no receiver listens, whatever it accepts
        taken.bind(("127.0.0.1", 0))
        ended = nettool_here(f"{transport}-recv", "--port", str(taken.getsockname()[1]), *options)
    assert ended.code == 2
    assert message in complaint(ended)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recv", "--transport", "tcp", "--offload", "off"], "--offload is for UDP"),
        (["recv", "--transport", "udp", "--max-streams", "3"], "--max-streams is for TCP"),
        (["sim", "--stagger", "5s", "--trace", "missing/trace.csv"], "--stagger is the time between"),
        (["link", "--check", "--", "true"], "--check runs no programs"),
        (["link", "--check", "--far", "true"], "--check runs no programs"),
        (
            ["send", "--quiet", "--watch", "missing", "127.0.0.1"],
            "--quiet prints errors only, and --watch",
        ),
        (
            ["bench", "loopback", "--dry-run", "--cc", "bbr", "--transports", "udp"],
            "--cc is that of the transport tcp, which is not compared",
        ),
    ],
)
def test_options_that_cancel_each_other_out(words: list[str], message: str) -> None:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        stream.bind(("127.0.0.1", 0))
        datagrams.bind(stream.getsockname())
        port = ["--port", str(stream.getsockname()[1])] if words[0] == "recv" else []  # no receiver can listen there
        ended = nettool_here(*words[:1], *port, *words[1:])
    assert ended.code == 2
    assert message in complaint(ended)


def test_sizes_of_zero(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ended = nettool_here("serve", "--port", str(taken.getsockname()[1]), "--max-bytes", "0B")
    assert ended.code == 2
    assert "--max-bytes must be at least one byte" in complaint(ended)
    ended = nettool_here("sim", "--receive-window", "0B", "--trace", tmp_path / "missing" / "trace.csv")
    assert ended.code == 2
    assert "--receive-window must be at least one byte" in complaint(ended)


@contextmanager
def small_disk(size: str) -> Iterator[tuple[Sequence[str], Path]]:
    """Yield a command prefix that gives a process a small file system of its own, and where it is mounted."""
    mount_point = Path("/mnt")
    prefix = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        prefix += ["--user", "--map-root-user"]
    mount = ["sh", "-c", f'mount -t tmpfs -o size={size} none {mount_point} && exec "$@"', "sh"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*prefix, *mount, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this machine does not allow mounting a small file system")
    yield [*prefix, *mount], mount_point


@pytest.mark.parametrize("source", ["file", "-"])
def test_no_space(transport: str, source: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    path = tmp_path / "file"
    path.write_bytes(content)
    with small_disk("4m") as (wrapper, mount_point), receiver(mount_point, wrapper=wrapper) as receiving:
        ended = nettool(
            f"{transport}-send",
            "-" if source == "-" else path,
            receiving.target,
            stdin=content if source == "-" else None,
        )
        receiving.wait_for("no space")
        assert os.listdir(f"/proc/{receiving.process.pid}/root{mount_point}") == []
    assert "no space" in complaint(ended)
    # A file is refused before a byte is sent, because its size is known. A stream fails on the way.
    assert ended.code == (4 if source == "-" else 3)
