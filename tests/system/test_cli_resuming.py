"""Interrupted transfers, as users meet them: killed ends, cut connections, and what both ends say."""

import json
import random
import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.cli_process import LIMIT_S, nettool, receiver
from tests.support.forked_cli import ForkedCli
from tests.support.man_in_the_middle import Hazard, TcpMiddle
from tests.support.repetitions import first_then_long

SIZE_BYTES = 12_000_000
SEEDS = first_then_long(range(5))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "film"
    path.write_bytes(random.Random(1).randbytes(SIZE_BYTES))
    return path


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    path = tmp_path / "received"
    path.mkdir()
    return path


def wait_until_arrived(directory: Path, size_bytes: int) -> None:
    """Wait until an unfinished file is so long."""
    deadline_s = time.monotonic() + LIMIT_S
    while sum(path.stat().st_size for path in directory.glob(".nettool-*.part")) < size_bytes:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_after_a_killed_sender_the_next_one_goes_on(source: Path, destination: Path, transport: str, seed: int) -> None:
    arrived_bytes = random.Random(seed).randrange(3_000_000, 9_000_000)
    with receiver(destination, "--idle-timeout", "1s") as receiving:
        with ForkedCli([f"{transport}-send", "--rate", "100Mbit", str(source), receiving.target]) as sending:
            wait_until_arrived(destination, arrived_bytes)
            sending.kill()
        assert not (destination / "film").exists()
        sent = nettool(f"{transport}-send", "--json", source, receiving.target)
        assert sent.code == 0, sent.stderr
        assert (destination / "film").read_bytes() == source.read_bytes()
        assert sent.object["resumed_bytes"] >= arrived_bytes - 2_000_000
        assert receiving.wait_for(r"resumed at [0-9.]+ MiB of 11\.4\d* MiB")
        assert [path.name for path in destination.iterdir()] == ["film"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_sender_reconnects_to_a_receiver_that_was_killed_and_started_again(
    source: Path, destination: Path, transport: str, seed: int
) -> None:
    arrived_bytes = random.Random(seed).randrange(3_000_000, 9_000_000)
    options = ["--retry", "50s", "--idle-timeout", "1s", "--rate", "100Mbit", "--json"]
    with receiver(destination) as first:
        sending = ForkedCli([f"{transport}-send", *options, str(source), first.target])
        wait_until_arrived(destination, arrived_bytes)
        first.end(signal.SIGKILL)
        assert not (destination / "film").exists()
    with receiver(destination, "--port", str(first.port)):
        stdout, stderr = sending.communicate(timeout=LIMIT_S)
    assert sending.returncode == 0, stderr
    assert b"reconnecting" in stderr
    assert json.loads(stdout)["resumed_bytes"] >= arrived_bytes - 1_000_000
    assert (destination / "film").read_bytes() == source.read_bytes()


def test_a_connection_that_is_cut_again_and_again_is_enough(source: Path, destination: Path) -> None:
    with (
        receiver(destination) as receiving,
        TcpMiddle(receiving.port, Hazard.TRUNCATE, at=4_500_000) as middle,
    ):
        sent = nettool("tcp-send", "--retry", "30s", source, middle.target)
        assert sent.code == 0, sent.stderr
        assert sent.stderr.count("reconnecting") >= 2
        assert re.search(r"resumed at [0-9.]+ MiB of 11\.4\d* MiB", sent.stdout)
        assert receiving.wait_for(r"kept [0-9.]+ MiB of 11\.4\d* MiB of film; send it again to go on")
    assert (destination / "film").read_bytes() == source.read_bytes()


def test_standard_input_and_a_time_of_zero_are_not_tried_again(source: Path, destination: Path) -> None:
    with (
        receiver(destination) as receiving,
        TcpMiddle(receiving.port, Hazard.TRUNCATE, at=2_000_000) as middle,
    ):
        content = source.read_bytes()
        for sent in (
            nettool("tcp-send", "--retry", "30s", "-", middle.target, stdin=content),
            nettool("tcp-send", "--retry", "0s", source, middle.target),
        ):
            assert sent.code == 4
            assert "reconnecting" not in sent.stderr
