"""`nettool bench remote` and `nettool serve`, between two namespaces that share nothing but a wire."""

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_process import LIMIT_S, NETTOOL, everything_below, nettool
from toolkit.compare.record_file import read
from toolkit.compare.records import Results
from toolkit.emulator.link import Link
from toolkit.errors import NettoolError
from toolkit.netmodel.spec import LAN, LinkSpec

Process = subprocess.Popen[bytes]


@pytest.fixture
def wire() -> Iterator[Link]:
    link = Link(LinkSpec(kind=LAN))
    try:
        link.open()
    except NettoolError as error:
        pytest.skip(f"no namespaces here: {error}")
    try:
        yield link
    finally:
        link.close()


def serving(wire: Link, folder: Path, *options: str) -> Process:
    """`nettool serve` at the far end, listening."""
    folder.mkdir(exist_ok=True)
    process = wire.popen_far(
        [*NETTOOL, "serve", "--bind", "0.0.0.0", "--port", "9000", "--for", "2min", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        bufsize=0,
    )
    wait_for(process, r"listening on \S+:9000 ")
    return process


def wait_for(process: Process, pattern: str) -> str:
    """What it says on stderr up to `pattern`."""
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + LIMIT_S
    while not re.search(pattern, said):
        ready, _, _ = select.select([process.stderr], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(process.stderr.fileno(), 1 << 16) if ready else b""
        assert piece, f"no {pattern!r} in {said!r}"
        said += piece.decode()
    return said


def comparing(wire: Link, output: Path, *options: str) -> Process:
    """`nettool bench remote` at the near end."""
    command = [
        *NETTOOL,
        "bench",
        "remote",
        str(wire.addresses.far),
        "--output",
        str(output),
        "--dir",
        str(output.parent),
    ]
    return wire.popen_near(
        [*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def end(process: Process, number: signal.Signals | None = None) -> tuple[int, str, str]:
    if number is not None:
        process.send_signal(number)
    output, said = process.communicate(timeout=2 * LIMIT_S)
    return process.returncode, output.decode(), said.decode()


def wait_for_trials(output: Path, count: int) -> None:
    deadline = time.monotonic() + 2 * LIMIT_S
    while not output.exists() or output.read_text().count('"kind": "trial"') < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def errors_of(results: Results) -> list[str]:
    return [trial.error for trial in results.trials if trial.error]


def test_serve_first_and_it_keeps_nothing(wire: Link, tmp_path: Path) -> None:
    output = tmp_path / "near" / "remote.jsonl"
    output.parent.mkdir()
    served = serving(wire, tmp_path / "far", "--json")
    try:
        code, shown, said = end(comparing(wire, output, "--size", "256KiB,2MiB", "--repeat", "1"))
        assert code == 0, (shown, said)
        results = read(output)
        assert results.campaign.name == "remote"
        assert [path.kind for path in results.campaign.paths.values()] == ["remote"]
        assert len(results.trials) == 3 + 2 * 3
        for trial in results.trials:
            assert trial.verified
            assert trial.sender.digest == trial.receiver.digest
            assert trial.receiver.size_bytes == trial.payload_bytes
            assert trial.receiver.cpu_seconds
        assert results.probes[0].rtt_ms is not None
        assert results.probes[0].rtt_ms.median > 0
    finally:
        code, told, said = end(served, signal.SIGINT)
    assert code == 130
    assert len([json.loads(line) for line in told.splitlines()]) == len(results.trials)
    assert everything_below(tmp_path / "far") == []
    assert everything_below(output.parent) == ["remote.jsonl"]


def test_serve_later_and_killed_in_the_middle(wire: Link, tmp_path: Path) -> None:
    output = tmp_path / "remote.jsonl"
    options = ("--size", "1MiB", "--repeat", "8", "--no-control", "--wait", "20s")
    bench = comparing(wire, output, *options)
    served: list[Process] = []
    try:
        time.sleep(1.0)  # nobody serves yet, and it is waited for
        assert bench.poll() is None
        served.append(serving(wire, tmp_path / "far"))
        wait_for_trials(output, 4)
        end(served[0], signal.SIGKILL)
        served.append(serving(wire, tmp_path / "far"))
        code, shown, said = end(bench)
    finally:
        for process in [bench, *served]:
            if process.poll() is None:
                process.kill()
            process.communicate()
    results = read(output)
    assert len(results.trials) == 2 + 8 * 2
    verified = [trial for trial in results.trials if trial.verified]
    assert len(verified) >= len(results.trials) - 2  # at the most one was under way, and one could not begin
    assert code == (4 if errors_of(results) else 0), (shown, said)
    assert "Traceback" not in said
    assert everything_below(tmp_path / "far") == []


def test_nobody_serves_and_something_else_listens(wire: Link, tmp_path: Path) -> None:
    output = tmp_path / "remote.jsonl"
    code, _, said = end(comparing(wire, output, "--size", "64KiB", "--repeat", "1", "--wait", "0s"))
    assert code == 3
    assert "nettool serve" in said
    assert said.count("\n") == 1


def test_what_is_beyond_its_limits_is_refused(wire: Link, tmp_path: Path) -> None:
    served = serving(wire, tmp_path / "far", "--max-bytes", "128KiB", "--transfers", "3")
    output = tmp_path / "remote.jsonl"
    try:
        code, _, said = end(comparing(wire, output, "--size", "256KiB", "--repeat", "1", "--no-control"))
        assert (code, output.exists()) == (3, False)
        assert "takes 128 KiB at the most" in said
        (tmp_path / "large").write_bytes(bytes(256 << 10))
        for _ in range(3):
            sent = [*NETTOOL, "tcp-send", str(tmp_path / "large"), f"{wire.addresses.far}:9000"]
            code, _, said = end(wire.popen_near(sent, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
            assert code
            assert "more than this receiver takes" in said
        assert served.wait(LIMIT_S) == 0  # by itself, when it has had its three
    finally:
        if served.poll() is None:
            served.kill()
        served.communicate()


@pytest.mark.parametrize("arguments", [("--for", "0s"), ("--max-bytes", "much"), ("--max-time", "1")])
def test_limits_that_make_no_sense(arguments: tuple[str, str]) -> None:
    ended = nettool("serve", "--port", "0", *arguments)
    assert ended.code == 2
    assert "write it like" in ended.stderr
