"""`nettool bench remote` and `nettool serve`, between two namespaces that share nothing but a wire."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.cli_process import LIMIT_S, NETTOOL, everything_below, nettool
from tests.support.repetitions import first_then_long
from toolkit.comparison.record_file import read
from toolkit.comparison.records import Results, Trial
from toolkit.emulator.link import Link
from toolkit.errors import NettoolError
from toolkit.netmodel.spec import LAN, LinkSpec
from toolkit.security.key_file import write_new_key

PORT = 9000

Process = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def wire(warm: None) -> Iterator[Link]:  # noqa: ARG001
    """Both machines. Each test ends the processes that it starts there."""
    link = Link(LinkSpec(kind=LAN))
    try:
        link.open()
    except NettoolError as error:
        pytest.skip(f"no namespaces here: {error}")
    try:
        yield link
    finally:
        link.close()


def serve(wire: Link, folder: Path, *options: str, access: Sequence[str] = ("--open",)) -> Process:
    """Start `nettool serve` at the far end, and return when it listens."""
    return started(wire, folder, rf"listening on \S+:{PORT} ", *access, *options)[0]


def started(wire: Link, folder: Path, until: str, *options: str) -> tuple[Process, re.Match[str]]:
    """Start `nettool serve` at the far end, and return it with the match when it has printed `until`."""
    folder.mkdir(exist_ok=True)
    process = wire.popen_far(
        [*NETTOOL, "serve", "--bind", "0.0.0.0", "--port", str(PORT), "--for", "3min", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        bufsize=0,
    )
    return process, wait_for(process, until)


def wait_for(process: Process, pattern: str) -> re.Match[str]:
    """Read the process's stderr until it matches, and return the match."""
    assert process.stderr is not None
    output, deadline_s = "", time.monotonic() + LIMIT_S
    while not (found := re.search(pattern, output)):
        ready, _, _ = select.select([process.stderr], [], [], max(0.0, deadline_s - time.monotonic()))
        piece = os.read(process.stderr.fileno(), 1 << 16) if ready else b""
        assert piece, f"no {pattern!r} in {output!r}"
        output += piece.decode()
    return found


def compare(wire: Link, output: Path, *options: str) -> Process:
    """Start `nettool bench remote` at the near end, with --open unless `options` hold a code or key."""
    command = [*NETTOOL, "bench", "remote", f"{wire.addresses.far}:{PORT}"]
    if not {"--code", "--key"} & {*options}:
        command.append("--open")
    files = ["--output", str(output), "--dir", str(output.parent)]
    return wire.popen_near(
        [*command, *files, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def end(process: Process, number: signal.Signals | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that ends by itself, or by a signal."""
    if number is not None:
        process.send_signal(number)
    try:
        output, errors = process.communicate(timeout=2 * LIMIT_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it says where it hangs, and must not disturb the next test
        output, errors = process.communicate()
        pytest.fail(f"not within {2 * LIMIT_S:g} s: {output.decode()}{errors.decode()}")
    return process.returncode, output.decode(), errors.decode()


def kill(*processes: Process) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_trials(output: Path, count: int) -> None:
    deadline_s = time.monotonic() + 2 * LIMIT_S
    while not output.exists() or output.read_text().count('"kind": "trial"') < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_campaign_against_a_server_that_keeps_nothing(wire: Link, tmp_path: Path) -> None:
    output = tmp_path / "near" / "remote.jsonl"
    output.parent.mkdir()
    server = serve(wire, tmp_path / "far", "--json")
    try:
        code, shown, errors = end(compare(wire, output, "--size", "64KiB,1MiB", "--repeat", "1", "--no-control"))
        assert code == 0, (shown, errors)
        results = read(output)
        assert results.campaign.name == "remote"
        assert [path.kind for path in results.campaign.paths.values()] == ["remote"]
        assert len(results.trials) == 2 + 2 * 2
        for trial in results.trials:
            assert trial.verified
            assert trial.sender.digest == trial.receiver.digest
            assert trial.receiver.size_bytes == trial.payload_bytes
            assert trial.receiver.cpu_seconds
        (probe,) = results.probes
        assert probe.rtt_ms is not None
        assert probe.rtt_ms.median > 0
        assert probe.rate_bps
        assert probe.loss is not None
        assert probe.loss_back is not None
        assert probe.rate_back_bps
        resumed(wire, output)
    finally:
        code, served, errors = end(server, signal.SIGINT)
    assert code == 130
    sessions = [json.loads(line) for line in served.splitlines()]
    assert [session for session in sessions if not session["verified"]] == []
    assert len(sessions) >= len(results.trials) + 4  # and what measured the path
    assert everything_below(tmp_path / "far") == []
    assert everything_below(output.parent) == ["remote.jsonl"]


def resumed(wire: Link, output: Path) -> None:
    """Cut the last trial from the records, and let the campaign continue."""
    whole = output.read_text()
    output.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    ended = end(compare(wire, output, "--resume", str(output)))
    completed(read(output), *ended)
    assert len(read(output).trials) == whole.count('"kind": "trial"')


def completed(results: Results, code: int, shown: str, errors: str) -> list[Trial]:
    """The trials without an error. On a very busy machine, a short time may be up before there is a connection."""
    found = {trial.error for trial in results.trials} - {None}
    is_timed = results.campaign.time_s is not None
    assert found <= ({"no content was sent before the time was up"} if is_timed else set()), (shown, errors)
    assert code == (4 if found else 0), (shown, errors)
    trials = [trial for trial in results.trials if trial.error is None]
    assert trials
    return trials


def test_timed_trials_count_all_content_until_it_is_verified(wire: Link, tmp_path: Path) -> None:
    output = tmp_path / "remote.jsonl"
    server = serve(wire, tmp_path / "far")
    try:
        ended = end(
            compare(
                wire, output, "--time", "2s", "--transports", "tcp=20Mbit,udp=20Mbit", "--repeat", "1", "--no-control"
            )
        )
        results = read(output)
        assert {trial.transport.partition("-")[0] for trial in results.trials} == {"tcp", "udp"}
        for trial in completed(results, *ended):
            assert trial.verified
            assert trial.sender.digest == trial.receiver.digest
            assert trial.seconds is not None
            assert trial.seconds >= 0.3
            assert trial.goodput_bps == pytest.approx(8 * (trial.sender.size_bytes or 0) / trial.seconds)
            assert trial.receiver.cut_bytes is None
    finally:
        kill(server)


@pytest.mark.parametrize("content", first_then_long([("--time", "1s"), ("--size", "64KiB")]), ids=" ".join)
def test_in_reverse_the_other_machine_sends(wire: Link, tmp_path: Path, content: tuple[str, str]) -> None:
    output = tmp_path / "remote.jsonl"
    server = serve(wire, tmp_path / "far")
    transports = ("--transports", "tcp-reno=40Mbit,udp-cubic=40Mbit", "--repeat", "1", "--no-control")
    try:
        code, shown, errors = end(compare(wire, output, "--reverse", *content, *transports))
        results, label = read(output), f"{wire.addresses.far}:{PORT}, reverse"
        assert label in shown
        assert {name: path.is_reverse for name, path in results.campaign.paths.items()} == {label: True}
        for trial in completed(results, code, shown, errors):
            assert trial.verified
            assert trial.sender.digest == trial.receiver.digest
            assert trial.sender.congestion_control == trial.transport.partition("-")[2].partition("=")[0]
            assert trial.sender.size_bytes == trial.receiver.size_bytes
            assert trial.seconds == trial.receiver.seconds
            assert trial.connect_s == trial.receiver.connect_s is not None
            assert trial.series is not None
            assert trial.goodput_bps is not None
            assert trial.goodput_bps < 50e6  # the rate has reached the machine that sends
        (probe,) = results.probes
        assert probe.path == label
        assert probe.rate_bps
        assert probe.rate_back_bps
        assert probe.loss is not None
        resumed(wire, output)
    finally:
        kill(server)
    assert everything_below(tmp_path / "far") == []


def test_the_server_may_start_later_and_be_killed_and_restarted(wire: Link, tmp_path: Path) -> None:
    output, key = tmp_path / "remote.jsonl", tmp_path / "lab.key"
    write_new_key(key)
    other_server = wire.socket_far(socket.AF_INET, socket.SOCK_STREAM)
    other_server.settimeout(LIMIT_S)
    other_server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other_server.bind(("", PORT))
    other_server.listen()
    bench = compare(
        wire, output, "--size", "256KiB", "--repeat", "3", "--no-control", "--wait", "60s", "--key", str(key)
    )
    servers: list[Process] = []
    try:
        with other_server, other_server.accept()[0]:
            pass  # the first question gets no answer
        servers.append(serve(wire, tmp_path / "far", access=("--key", str(key))))
        wait_for_trials(output, 3)
        end(servers[0], signal.SIGKILL)
        servers.append(serve(wire, tmp_path / "far", access=("--key", str(key))))
        code, shown, errors = end(bench)
    finally:
        kill(bench, *servers)
    results = read(output)
    assert len(results.trials) == 2 + 3 * 2
    failed = [trial for trial in results.trials if not trial.verified]
    assert len(failed) <= 2  # one was running when the server was killed, and one could not start
    assert code == (4 if failed else 0), (shown, errors)
    assert "Traceback" not in errors
    assert everything_below(tmp_path / "far") == []


@pytest.mark.parametrize(
    "names", first_then_long([("tcp-cubic+plaintext", "udp-bbr"), ("tcp-cubic", "udp-bbr+plaintext")]), ids=" and ".join
)
def test_a_code_admits_one_campaign(wire: Link, tmp_path: Path, names: tuple[str, str]) -> None:
    until = r"code: (\S+) \(for one session\)\n.*\n  nettool bench remote "
    server, found = started(wire, tmp_path / "far", until, "--plaintext")
    code = found[1]
    options = ("--transports", ",".join(names), "--size", "64KiB", "--repeat", "1", "--no-control")
    output, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    try:
        status, shown, errors = end(compare(wire, output, *options, "--code", code))
        assert status == 0, (shown, errors)
        results = read(output)
        assert code not in output.read_text()
        encrypted = {label: setting.is_encrypted for label, setting in results.campaign.transports.items()}
        assert encrypted == {name: not name.endswith("+plaintext") for name in names}
        assert len(results.trials) == 2 * len(names)
        for trial in results.trials:
            for side in (trial.sender, trial.receiver):
                assert side.authentication == "key"
                assert (side.encryption == "none") == trial.transport.endswith("+plaintext")
        status, _, errors = end(compare(wire, second, *options, "--code", code))
        assert (status, second.exists()) == (3, False)
        assert "this code has ended" in errors
        status, _, errors = end(compare(wire, second, *options))
        assert (status, second.exists()) == (3, False)
        assert "asks for a code" in errors
    finally:
        kill(server)


def test_without_a_server_the_error_says_what_to_run(wire: Link, tmp_path: Path) -> None:
    output = tmp_path / "remote.jsonl"
    code, _, errors = end(compare(wire, output, "--size", "64KiB", "--repeat", "1", "--wait", "0s"))
    assert code == 3
    assert "nettool serve" in errors
    assert errors.count("\n") == 1


def test_transfers_beyond_the_limits_are_refused(wire: Link, tmp_path: Path) -> None:
    server = serve(wire, tmp_path / "far", "--max-bytes", "128KiB", "--transfers", "2")
    output = tmp_path / "remote.jsonl"
    try:
        code, _, errors = end(compare(wire, output, "--size", "256KiB", "--repeat", "1", "--no-control"))
        assert (code, output.exists()) == (3, False)
        assert "accepts at most 128 KiB" in errors
        (tmp_path / "large").write_bytes(bytes(256 << 10))
        for _ in range(2):
            sent = [*NETTOOL, "tcp-send", str(tmp_path / "large"), f"{wire.addresses.far}:{PORT}", "--open"]
            code, _, errors = end(wire.popen_near(sent, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
            assert code
            assert "the receiver accepts 128 KiB in a session (its --max-bytes)" in errors
        assert server.wait(LIMIT_S) == 0  # it exits by itself after the transfers that --transfers allows
    finally:
        kill(server)


@pytest.mark.parametrize("arguments", [("--for", "0s"), ("--max-bytes", "much"), ("--max-time", "1")])
def test_invalid_limits(arguments: tuple[str, str]) -> None:
    ended = nettool("serve", "--port", "0", *arguments)
    assert ended.code == 2
    assert "for example" in ended.stderr or "write it like" in ended.stderr
