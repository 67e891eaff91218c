"""Files from one process to another: what arrives, what both ends print, and what an interrupt leaves behind."""

import os
import random
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.background import Background, wait_until
from tests.support.cli_process import (
    LIMIT_S,
    NETTOOL,
    Receiver,
    complaint,
    everything_below,
    nettool,
    nettool_here,
    receiver,
)
from tests.support.forked_cli import ForkedCli
from tests.support.tcp_controls import default_control
from tests.support.terminal import at_terminal
from tests.support.warm_starts import FRESH

pytestmark = pytest.mark.usefixtures("warm")
TRANSPORTS = ("tcp", "udp")
SLOW = "1Mbit"  # a transfer of 30 MB takes four minutes: it is still running when a test interrupts it


def make_file(path: Path, size_bytes: int, seed: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(seed).randbytes(size_bytes))
    return path


@pytest.mark.parametrize("size_bytes", [0, 1, 1_000_003, 20_000_000])
def test_a_file_arrives_and_both_ends_print_the_same_result(
    transport: str, size_bytes: int, tmp_path: Path, incoming: Path
) -> None:
    path = make_file(tmp_path / "файл 1.bin", size_bytes)
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    path.chmod(0o640)
    with receiver(incoming, "--once", "--json") as receiving:
        sent = nettool(f"{transport}-send", "--json", path, receiving.target)
        received = receiving.end()
    assert (sent.code, sent.stderr) == (0, "")
    assert received.code == 0
    arrived = incoming / path.name
    assert arrived.read_bytes() == path.read_bytes()
    assert arrived.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert stat.S_IMODE(arrived.stat().st_mode) == 0o640
    assert everything_below(incoming) == [path.name]

    ours, theirs = sent.object, received.object
    assert (ours["schema"], ours["kind"], theirs["kind"]) == (1, "send", "receive")
    for end in (ours, theirs):
        assert (end["transport"], end["files"], end["bytes"]) == (transport, 1, size_bytes)
        assert end["goodput_bps"] == pytest.approx(8 * size_bytes / end["seconds"])
        assert end["cpu_seconds"] >= 0
    assert ours["digest"] == theirs["digest"] != ""
    assert theirs["verified"] is True
    assert ours["packets_sent"] >= 1
    assert ours["packets_retransmitted"] >= 0
    assert ours["rtt_ms"] > 0
    assert ours["skipped"] == []


def test_a_tree_arrives_and_skipped_links_are_named(transport: str, tmp_path: Path, incoming: Path) -> None:
    tree = tmp_path / "tree"
    for index in range(300):
        make_file(tree / f"{index % 7}" / f"{index}.txt", index * 13, index)
    (tree / "empty").mkdir()
    (tree / "link").symlink_to("0")
    with receiver(incoming, "--once") as receiving:
        sent = nettool(f"{transport}-send", "-r", tree, receiving.target)
        assert receiving.end().code == 0
    assert sent.code == 7
    assert "300 files" in sent.stdout
    assert sent.stderr.splitlines() == ["skipped tree/link: symbolic link"]
    (tree / "link").unlink()
    assert subprocess.run(["diff", "-r", tree, incoming / "tree"], check=False).returncode == 0


def test_skipped_links_are_named_even_if_the_transfer_fails(tmp_path: Path, incoming: Path) -> None:
    make_file(tmp_path / "tree" / "file", 100)
    (tmp_path / "tree" / "link").symlink_to("file")
    make_file(incoming / "tree" / "file", 50)
    with receiver(incoming, "--once") as receiving:
        sent = nettool("tcp-send", "-r", tmp_path / "tree", receiving.target)
        assert receiving.end().code == 3
    assert sent.code == 3
    skipped, complaint = sent.stderr.splitlines()
    assert skipped == "skipped tree/link: symbolic link"
    assert complaint.startswith("nettool: tree/file: already exists")


def test_what_was_sent_is_told_even_if_other_files_are_refused(tmp_path: Path, incoming: Path) -> None:
    for name in ("a", "b", "c"):
        make_file(tmp_path / "tree" / name, 100)
    for name in ("a", "b"):
        make_file(incoming / "tree" / name, 50)
    with receiver(incoming, "--once") as receiving:
        sent = nettool("tcp-send", "-r", tmp_path / "tree", receiving.target)
        assert receiving.end().code == 3
    first, second, arrived, complaint = sent.stderr.splitlines()
    assert first.startswith("refused tree/a: already exists; ")
    assert second == "refused tree/b: already exists"
    assert arrived.startswith("sent 1 file, 100 B in ")
    assert complaint.startswith("nettool: tree/a: already exists")


def test_hidden_names_and_execute_bits_need_the_receivers_consent(
    transport: str, tmp_path: Path, incoming: Path
) -> None:
    program = make_file(tmp_path / "program", 100)
    program.chmod(0o755)
    keys = make_file(tmp_path / ".ssh" / "authorized_keys", 100)
    arguments = (f"{transport}-send", "-r", program, keys.parent)
    with receiver(incoming, "--once") as receiving:
        sent = nettool(*arguments, receiving.target)
        received = receiving.end()
    assert (sent.code, received.code) == (3, 3)
    reason = "the name begins with a dot"
    for line in (
        f"refused .ssh: {reason}; the receiver accepts it only with --dotfiles\n",
        f"refused .ssh/authorized_keys: {reason}\n",
    ):
        assert line in sent.stderr
        assert line in received.stderr
    assert everything_below(incoming) == ["program"]
    assert (incoming / "program").stat().st_mode & 0o111 == 0

    options = ("--once", "--dotfiles", "--preserve-modes", "--overwrite")
    with receiver(incoming, *options, before=lambda: os.umask(0o027)) as receiving:
        assert nettool(*arguments, receiving.target).code == 0
        assert receiving.end().code == 0
    assert everything_below(incoming) == [".ssh", ".ssh/authorized_keys", "program"]
    assert stat.S_IMODE((incoming / "program").stat().st_mode) == 0o750
    assert stat.S_IMODE((incoming / ".ssh" / "authorized_keys").stat().st_mode) == 0o640


def test_standard_input_arrives_under_the_given_name(transport: str, incoming: Path) -> None:
    content = random.Random(5).randbytes(3_000_000)
    with receiver(incoming, "--once") as receiving:
        sent = nettool(f"{transport}-send", "--name", "piped.bin", "-", receiving.target, stdin=content)
        assert receiving.end().code == 0
    assert sent.code == 0
    assert (incoming / "piped.bin").read_bytes() == content
    assert everything_below(incoming) == ["piped.bin"]


@pytest.mark.parametrize("target", ["[::1]:{}", "localhost:{}"])
def test_a_target_may_be_an_ipv6_address_or_a_host_name(
    transport: str, target: str, tmp_path: Path, incoming: Path
) -> None:
    path = make_file(tmp_path / "a", 100_000)
    bind = "::1" if "::1" in target else "127.0.0.1"
    with receiver(incoming, "--once", "--bind", bind) as receiving:
        sent = nettool(f"{transport}-send", path, target.format(receiving.port))
        assert receiving.end().code == 0
    assert sent.code == 0, sent
    assert (incoming / "a").read_bytes() == path.read_bytes()


def test_one_port_serves_both_transports_and_several_senders(tmp_path: Path, incoming: Path) -> None:
    paths = [make_file(tmp_path / f"{index}", 3_000_000, index) for index in range(6)]
    with receiver(incoming) as receiving:
        assert "(tcp, udp)" in receiving.said
        senders = [
            ForkedCli([f"{transport}-send", "-q", str(path), receiving.target])
            for transport, path in zip(TRANSPORTS * 3, paths, strict=True)
        ]
        assert [sender.communicate(LIMIT_S) for sender in senders] == [(b"", b"")] * 6
        assert [sender.returncode for sender in senders] == [0] * 6
        receiving.wait_for("received 1 file", count=6)
        ended = receiving.end(signal.SIGTERM)
    assert ended.code == 130
    for path in paths:
        assert (incoming / path.name).read_bytes() == path.read_bytes()


def test_every_session_prints_a_line_of_json(tmp_path: Path, incoming: Path) -> None:
    path = make_file(tmp_path / "a", 1000)
    with receiver(incoming, "--json") as receiving:
        assert nettool("tcp-send", path, receiving.target).code == 0
        refused = nettool("udp-send", "--json", path, receiving.target)
        receiving.wait_for("refused")
        ended = receiving.end(signal.SIGINT)
    assert refused.code == 3
    assert refused.object["exit_code"] == 3
    assert ended.stdout.count("\n") == 2
    assert '"verified": true' in ended.stdout.splitlines()[0]
    assert '"verified": false' in ended.stdout.splitlines()[1]


@pytest.mark.parametrize("command", ["tcp-recv", "udp-recv"])
def test_receivers_for_one_transport_and_their_options(command: str, tmp_path: Path, incoming: Path) -> None:
    path = make_file(tmp_path / "a", 500_000)
    sender = command.replace("recv", "send")
    with receiver(incoming, "--once", "--fsync", "--idle-timeout", "10s", command=command) as receiving:
        sent = nettool(sender, "--digest", "blake3", "--rate", "400Mbit", "--json", path, receiving.target)
        assert receiving.end().code == 0
    assert sent.object["algorithm"] == "blake3"
    assert len(sent.object["digest"]) == 64
    assert sent.object["goodput_bps"] <= 440e6
    control = default_control() if sender == "tcp-send" else "cubic"
    with receiver(incoming, "--once", "--overwrite", command=command) as receiving:
        assert nettool(sender, "--cc", control, path, receiving.target).code == 0


def test_udp_without_offload(tmp_path: Path, incoming: Path) -> None:
    path = make_file(tmp_path / "a", 2_000_000)
    with receiver(incoming, "--once", "--offload", "off") as receiving:
        sent = nettool("udp-send", "--offload", "off", "--json", path, receiving.target)
        assert receiving.end().code == 0
    assert sent.code == 0
    assert (incoming / "a").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_either_end_leaves_no_file(
    transport: str, number: signal.Signals, tmp_path: Path, incoming: Path
) -> None:
    path = make_file(tmp_path / "large", 30_000_000)
    command = [f"{transport}-send", "--rate", SLOW, str(path)]
    with receiver(incoming) as receiving:
        with ForkedCli([*command, receiving.target]) as sending:
            wait_until(lambda: everything_below(incoming) != [], "content arrives")
            sending.send_signal(number)
            sending.send_signal(number)
            assert sending.wait(LIMIT_S) == 130
            assert sending.stderr.read() == b"interrupted: the same command goes on from here\n"
        receiving.wait_for(rf"nettool: \S+ \({transport}\): ")
        assert everything_below(incoming) == []

        with ForkedCli([*command, receiving.target]) as sending:
            wait_until(lambda: everything_below(incoming) != [], "content arrives")
            receiving.process.send_signal(number)
            ended = receiving.end(number)
            assert sending.wait(LIMIT_S) == 4
            assert sending.stderr.read().count(b"\n") == 1
    assert ended.code == 130
    assert "Traceback" not in ended.stderr
    assert everything_below(incoming) == []


def test_ctrl_c_on_a_tree_names_the_option_that_goes_on(tmp_path: Path, incoming: Path) -> None:
    make_file(tmp_path / "tree" / "large", 30_000_000)
    with receiver(incoming) as receiving:
        command = ["tcp-send", "--rate", SLOW, "-r", str(tmp_path / "tree"), receiving.target]
        with ForkedCli(command) as sending:
            wait_until(lambda: any(incoming.rglob(".nettool-*")), "content arrives")
            sending.send_signal(signal.SIGINT)
            assert sending.wait(LIMIT_S) == 130
            assert sending.stderr.read() == b"interrupted: the same command with --update goes on from here\n"


@contextmanager
def receiver_to_stdout(command: str) -> Iterator[Receiver]:
    with ForkedCli([command, "--stdout", "--port", "0"]) as process:
        started = Receiver(process)
        started.port = int(started.wait_for(r"listening on \S+:([0-9]+) ")[1])
        yield started


def test_stdout_gets_a_verified_file_and_nothing_else(transport: str, tmp_path: Path) -> None:
    path = make_file(tmp_path / "a", 1_000_003)
    with receiver_to_stdout(f"{transport}-recv") as receiving:
        sending = Background(lambda: nettool(f"{transport}-send", path, receiving.target))
        content, _ = receiving.process.communicate(timeout=LIMIT_S)
        assert (receiving.process.wait(), sending.outcome().code) == (0, 0)
    assert content == path.read_bytes()


def test_stdout_takes_one_file_and_refuses_the_others(tmp_path: Path) -> None:
    paths = [make_file(tmp_path / name, 1000, seed) for seed, name in enumerate("ab")]
    with receiver_to_stdout("recv") as receiving:
        ended = nettool("tcp-send", *paths, receiving.target)
        content, _ = receiving.process.communicate(timeout=LIMIT_S)
        assert receiving.process.wait() == 3
    assert content == paths[0].read_bytes()
    assert (ended.code, "b: this receiver takes one file" in ended.stderr) == (3, True)


@pytest.mark.parametrize("option", ["--dir=incoming", "--overwrite", "--json"])
def test_stdout_excludes_what_concerns_a_directory(option: str) -> None:
    ended = nettool_here("recv", "--stdout", option)
    assert (ended.code, ended.stderr.count("\n")) == (2, 1)
    assert f"leave {option.partition('=')[0]} out" in ended.stderr


def test_watch_draws_charts_above_the_bar(transport: str, tmp_path: Path, incoming: Path) -> None:
    path = make_file(tmp_path / "large", 30_000_000)
    with receiver(incoming) as receiving:
        command = [f"{transport}-send", "--watch", "--rate", "4Mbit", path, receiving.target]
        with at_terminal(*command) as sending:
            for title in ("goodput: ", "round trip: ", "congestion window: ", "packets sent again: ", "large"):
                sending.wait_for(title)


def test_several_signals_end_a_receiver_as_one_does(incoming: Path) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with receiver(incoming) as receiving:
        announced = receiving.wait_for(r"(?s).*nettool send FILE \S+\n")[0]
        receiving.process.send_signal(signal.SIGSTOP)
        for number in numbers:
            receiving.process.send_signal(number)
        receiving.process.send_signal(signal.SIGCONT)  # which delivers the others at once
        while receiving.process.poll() is None:
            for number in numbers:
                receiving.process.send_signal(number)
        ended = receiving.end()
    # A signal ends the process by itself once it has cleaned up.
    assert ended.code == 130 or -ended.code in numbers
    assert ended.stderr == announced


def test_a_signal_that_the_parent_process_ignores_stays_ignored(tmp_path: Path, incoming: Path) -> None:
    path = make_file(tmp_path / "a", 1000)
    with receiver(incoming, "--once", before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as receiving:
        receiving.process.send_signal(signal.SIGHUP)
        assert nettool("tcp-send", path, receiving.target).code == 0
        assert receiving.end().code == 0


def test_a_closed_stdout_is_no_error(tmp_path: Path, incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FRESH, "toolkit")  # Python's own end of the process must be silent too
    path = make_file(tmp_path / "a", 1000)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with receiver(incoming, "--once") as receiving:
            sent = subprocess.run(
                [*NETTOOL, "tcp-send", "--json", path, receiving.target],
                stdout=writing,
                stderr=subprocess.PIPE,
                check=False,
            )
            assert receiving.end().code == 0
    finally:
        os.close(writing)
    assert (sent.returncode, sent.stderr) == (0, b"")


def test_a_second_sender_is_refused_by_a_receiver_started_with_once(tmp_path: Path, incoming: Path) -> None:
    path = make_file(tmp_path / "large", 30_000_000)
    other = make_file(tmp_path / "other", 10)
    with receiver(incoming, "--once") as receiving:
        with ForkedCli(["udp-send", "--rate", SLOW, str(path), receiving.target]) as sending:
            wait_until(lambda: everything_below(incoming) != [], "content arrives")
            refused = nettool("tcp-send", other, receiving.target)
            sending.send_signal(signal.SIGINT)
            sending.wait(LIMIT_S)
        assert refused.code == 3
        assert "no more sessions; start it again" in complaint(refused)
        ended = receiving.end()
    assert ended.code == 4
    assert "reconnect" not in ended.stderr


def test_a_dry_run_lists_what_is_sent_and_does_not_connect(tmp_path: Path) -> None:
    make_file(tmp_path / "tree" / "file", 100)
    make_file(tmp_path / "tree" / "file.o", 100)
    listed = nettool("tcp-send", "-r", "--dry-run", "--exclude", "*.o", tmp_path / "tree", "192.0.2.1")
    assert listed.code == 0
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["tree/"],
        ["100", "B", "tree/file"],
        ["would", "send", "1", "file,", "100", "B"],
    ]
    (tmp_path / "tree" / "link").symlink_to("file")
    listed = nettool("tcp-send", "-r", "-n", "--json", tmp_path / "tree", "192.0.2.1")
    assert listed.code == 7
    assert listed.stderr == "skipped tree/link: symbolic link\n"
    plan = listed.object
    assert (plan["kind"], plan["files"], plan["bytes"], plan["skipped"]) == ("dry-run", 2, 200, ["tree/link"])


@pytest.mark.parametrize(("accepted", "used"), [("both", "udp"), ("tcp", "tcp")])
def test_send_takes_udp_or_else_tcp_and_says_which(accepted: str, used: str, tmp_path: Path, incoming: Path) -> None:
    path = make_file(tmp_path / "a", 100_000)
    with receiver(incoming, "--once", "--transport", accepted) as receiving:
        sent = nettool("send", path, receiving.target)
        assert receiving.end().code == 0
    assert sent.code == 0
    assert f", over {used.upper()}\n  a\n" in sent.stdout
    assert ("sending over TCP" in sent.stderr) == (used == "tcp")
    assert (incoming / "a").read_bytes() == path.read_bytes()
