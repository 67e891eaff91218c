"""Interrupted transfers, as users meet them: killed ends, cut connections, and what both ends say."""

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.background import Background
from tests.support.cli_process import LIMIT_S, Receiver, nettool, nettool_here, receiver
from tests.support.forked_cli import ForkedCli
from tests.support.man_in_the_middle import Hazard, TcpMiddle
from tests.support.repetitions import first_then_long
from toolkit.report.call_timeline import read_trace

SIZE_BYTES = 12_000_000
SEEDS = first_then_long(range(5))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "film"
    path.write_bytes(random.Random(1).randbytes(SIZE_BYTES))
    return path


def cut(sending: ForkedCli, receiving: Receiver, incoming: Path, losses: int = 1) -> None:
    """Stop a sender until its receiver has noticed that, and let it go on: as the end of an outage."""
    wait_until_arrived(incoming, arrived_bytes(incoming) + 1_500_000)
    sending.send_signal(signal.SIGSTOP)
    receiving.wait_for(r"kept [0-9.]+ MiB", losses)
    sending.send_signal(signal.SIGCONT)


def wait_for_stderr(process: ForkedCli, text: bytes) -> None:
    """Read what a process says until it has said this."""
    said = b""
    assert process.stderr is not None
    while text not in said:
        piece = os.read(process.stderr.fileno(), 1 << 16)
        assert piece, said
        said += piece


def arrived_bytes(directory: Path) -> int:
    """How long the unfinished file is."""
    return sum(path.stat().st_size for path in directory.glob(".nettool-*.part"))


def wait_until_arrived(directory: Path, size_bytes: int) -> None:
    """Wait until an unfinished file is so long."""
    deadline_s = time.monotonic() + LIMIT_S
    while arrived_bytes(directory) < size_bytes:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_after_a_killed_sender_the_next_one_goes_on(source: Path, incoming: Path, transport: str, seed: int) -> None:
    arrived_bytes = random.Random(seed).randrange(3_000_000, 9_000_000)
    with receiver(incoming, "--idle-timeout", "1s") as receiving:
        with ForkedCli([f"{transport}-send", "--rate", "100Mbit", str(source), receiving.target]) as sending:
            wait_until_arrived(incoming, arrived_bytes)
            sending.kill()
        assert not (incoming / "film").exists()
        sent = nettool(f"{transport}-send", "--json", source, receiving.target)
        assert sent.code == 0, sent.stderr
        assert (incoming / "film").read_bytes() == source.read_bytes()
        assert sent.object["resumed_bytes"] >= arrived_bytes - 2_000_000
        assert receiving.wait_for(r"[0-9.]+ MiB of 11\.4\d* MiB were there already")
        assert [path.name for path in incoming.iterdir()] == ["film"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_sender_reconnects_to_a_receiver_that_was_killed_and_started_again(
    source: Path, incoming: Path, transport: str, seed: int
) -> None:
    arrived_bytes = random.Random(seed).randrange(3_000_000, 9_000_000)
    options = ["--retry", "50s", "--idle-timeout", "1s", "--rate", "100Mbit", "--json"]
    with receiver(incoming) as first:
        sending = ForkedCli([f"{transport}-send", *options, str(source), first.target])
        wait_until_arrived(incoming, arrived_bytes)
        first.end(signal.SIGKILL)
        assert not (incoming / "film").exists()
    with receiver(incoming, "--port", str(first.port)):
        stdout, stderr = sending.communicate(timeout=LIMIT_S)
    assert sending.returncode == 0, stderr
    assert b"reconnecting" in stderr
    assert json.loads(stdout)["resumed_bytes"] >= arrived_bytes - 1_000_000
    assert (incoming / "film").read_bytes() == source.read_bytes()


def test_a_connection_that_is_cut_again_and_again_is_enough(source: Path, incoming: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls.jsonl"
    with (
        receiver(incoming) as receiving,
        TcpMiddle(receiving.port, Hazard.TRUNCATE, at=4_500_000) as middle,
    ):
        sent = nettool("tcp-send", "--retry", "30s", "--trace-file", calls, source, middle.target)
        assert sent.code == 0, sent.stderr
        assert sent.stderr.count("reconnecting") >= 2
        connections = [call for call in read_trace(calls).calls if call.name == "connect"]
        assert len(connections) == 1 + sent.stderr.count("reconnecting")
        assert re.search(r"[0-9.]+ MiB of 11\.4\d* MiB were there already", sent.stdout)
        assert receiving.wait_for(r"kept [0-9.]+ MiB of 11\.4\d* MiB of film; send it again to go on")
    assert (incoming / "film").read_bytes() == source.read_bytes()


def test_standard_input_and_a_time_of_zero_are_not_tried_again(source: Path, incoming: Path) -> None:
    with (
        receiver(incoming) as receiving,
        TcpMiddle(receiving.port, Hazard.TRUNCATE, at=2_000_000) as middle,
    ):
        content = source.read_bytes()
        for sent in (
            nettool("tcp-send", "--retry", "30s", "-", middle.target, stdin=content),
            nettool("tcp-send", "--retry", "0s", source, middle.target),
        ):
            assert sent.code == 4
            assert "reconnecting" not in sent.stderr


@pytest.mark.parametrize("transport", first_then_long(["udp", "tcp"]))
class TestSendersWithACode:
    """The first session uses the code up; after an outage its sender comes back nevertheless."""

    CODE = r"code: (\d+-[a-z]+-[a-z]+-[a-z]+)"
    QUICK = ("--idle-timeout", "1s", "--retry", "50s")

    def sender(self, transport: str, source: Path, receiving: Receiver, code: str, *options: str) -> ForkedCli:
        words = [f"{transport}-send", *self.QUICK, "--rate", "40Mbit", "--code", code, *options]
        return ForkedCli([*words, str(source), receiving.target])

    def test_it_comes_back_again_and_again_and_then_the_code_stays_used(
        self, source: Path, incoming: Path, transport: str
    ) -> None:
        with receiver(incoming, "--code-uses", "1", "--idle-timeout", "1s") as receiving:
            code = receiving.wait_for(self.CODE)[1]
            with self.sender(transport, source, receiving, code, "--json") as sending:
                cut(sending, receiving, incoming)
                cut(sending, receiving, incoming, losses=2)
                stdout, stderr = sending.communicate(timeout=LIMIT_S)
            assert sending.returncode == 0, stderr
            assert json.loads(stdout)["authentication"] == "reconnection"
            assert (incoming / "film").read_bytes() == source.read_bytes()
            again = nettool(f"{transport}-send", "--code", code, source, receiving.target)
            assert again.code == 3
            assert "this code has ended" in again.stderr

    def test_a_receiver_with_once_waits_for_it(self, source: Path, incoming: Path, transport: str) -> None:
        with receiver(incoming, "--code-uses", "1", "--once", *self.QUICK) as receiving:
            code = receiving.wait_for(self.CODE)[1]
            with self.sender(transport, source, receiving, code) as sending:
                cut(sending, receiving, incoming)
                _, stderr = sending.communicate(timeout=LIMIT_S)
            ended = receiving.end()
            assert sending.returncode == 0, (stderr, ended.stderr)
        assert ended.code == 0, ended.stderr
        assert "waiting 50 s for the sender to reconnect" in ended.stderr
        assert (incoming / "film").read_bytes() == source.read_bytes()

    def test_it_may_be_back_before_the_receiver_has_noticed(self, source: Path, incoming: Path, transport: str) -> None:
        with receiver(incoming, "--code-uses", "1", "--once", "--retry", "50s") as receiving:
            code = receiving.wait_for(self.CODE)[1]
            with self.sender(transport, source, receiving, code) as sending:
                wait_until_arrived(incoming, 3_000_000)
                receiving.process.send_signal(signal.SIGSTOP)
                wait_for_stderr(sending, b"reconnecting")
                receiving.process.send_signal(signal.SIGCONT)
                _, stderr = sending.communicate(timeout=LIMIT_S)
            ended = receiving.end()
            assert sending.returncode == 0, (stderr, ended.stderr)
        assert ended.code == 0, ended.stderr
        assert (incoming / "film").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_receiver_with_once_gives_up_if_its_sender_does_not_come_back(
    source: Path, incoming: Path, transport: str
) -> None:
    with receiver(incoming, "--once", "--retry", "1s", "--idle-timeout", "1s") as receiving:
        with ForkedCli([f"{transport}-send", "--rate", "60Mbit", str(source), receiving.target]) as sending:
            wait_until_arrived(incoming, 2_000_000)
            sending.kill()
        ended = receiving.end()
    assert ended.code == 4
    assert "waiting 1 s for the sender to reconnect" in ended.stderr


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_receiver_with_once_does_not_wait_for_a_sender_whose_user_has_interrupted_it(
    source: Path, incoming: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.cli.interrupts.ASKED_S", LIMIT_S)  # what the kernel has queued takes its time
    monkeypatch.setattr("toolkit.cli.send.raise_descriptor_limit", lambda: None)

    def interrupt() -> None:
        wait_until_arrived(incoming, 1_500_000)
        os.kill(os.getpid(), signal.SIGINT)

    with receiver(incoming, "--once", "--retry", "1h") as receiving:
        interrupting = Background(interrupt)
        sent = nettool_here(f"{transport}-send", "--rate", "60Mbit", source, receiving.target)
        interrupting.outcome()
        ended = receiving.end()
    assert (sent.code, sent.stderr) == (130, "interrupted: the same command goes on from here\n")
    assert ended.code == 4
    assert "the sender cancelled the transfer" in ended.stderr
    assert "reconnect" not in ended.stderr


def test_clean_leaves_a_file_that_a_receiver_is_writing(source: Path, incoming: Path) -> None:
    with (
        receiver(incoming) as receiving,
        ForkedCli(["tcp-send", "--rate", "20Mbit", str(source), receiving.target]),
    ):
        wait_until_arrived(incoming, 1_000_000)
        cleaned = nettool("clean", "--older-than", "0s", "--json", incoming)
    (path,) = cleaned.object["in_use"]
    assert (cleaned.code, cleaned.object["files"]) == (0, [])
    assert cleaned.stderr == f"left {path}: a receiver is writing it\n"
    assert Path(path).exists()


def test_a_receiver_with_once_does_not_wait_for_a_sender_that_does_not_try_again(source: Path, incoming: Path) -> None:
    with receiver(incoming, "--once", "--retry", "1h", "--idle-timeout", "1s") as receiving:
        words = ["tcp-send", "--rate", "60Mbit", "--retry", "0s", str(source), receiving.target]
        with ForkedCli(words) as sending:
            wait_until_arrived(incoming, 2_000_000)
            sending.kill()
        assert receiving.end().code == 4
