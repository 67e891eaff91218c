"""The comparison as its user meets it: a table, records that give it again, and nothing left behind."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_process import LIMIT_S, NETTOOL, complaint, everything_below, nettool, nettool_here

from toolkit.bench.record import read
from toolkit.report.tables import comparison


def test_a_small_comparison_from_the_command_to_the_table(tmp_path: Path) -> None:
    output = tmp_path / "results" / "small.jsonl"
    ended = nettool(
        *("bench", "loopback", "--size", "2MiB", "--repeat", "2", "--seed", "9"),
        *("--output", output, "--dir", tmp_path),
    )
    assert ended.code == 0, ended
    assert ended.stderr == ""
    results = read(output)
    assert ended.stdout == f"{comparison(results)}\nRecords: {output}\n"
    assert f"2 MiB in {tmp_path} (" in ended.stdout
    assert "seed 9" in ended.stdout
    for label in ("tcp-cubic", "udp-bbr"):
        assert any(row.startswith(label) and row.endswith("2/2") for row in ended.stdout.splitlines())
    assert [trial.block for trial in results.trials] == [-1, -1, 0, 0, 1, 1]
    assert len({trial.sender["digest"] for trial in results.trials}) == 1
    assert {trial.sender["bytes"] for trial in results.trials} == {2 << 20}
    tcp = next(trial for trial in results.trials if trial.cell == "tcp-cubic")
    assert tcp.sender["congestion_control"] == "cubic"
    assert everything_below(tmp_path) == ["results", "results/small.jsonl"]


def test_as_json_it_is_one_object(tmp_path: Path) -> None:
    output = tmp_path / "records.jsonl"
    ended = nettool(
        *("bench", "loopback", "--size", "1MiB", "--repeat", "1", "--transports", "udp,udp-cubic", "--json"),
        *("--output", output),
    )
    assert ended.code == 0, ended
    told = ended.object
    assert (told["kind"], told["campaign"]["baseline"]) == ("comparison", "udp-bbr")
    assert len(told["trials"]) == 4
    assert [row["label"] for row in told["summary"]] == ["udp-bbr", "udp-cubic"]
    assert [json.loads(line)["kind"] for line in output.read_text().splitlines()] == ["campaign"] + ["trial"] * 4


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--size", "tiny"], 2, "write it like 256MiB"),
        (["--size", "1kB"], 2, "larger --size"),
        (["--size", "4000TiB", "--dir", "{tmp}"], 4, "no room"),
        (["--repeat", "0"], 2, "repeat"),
        (["--transports", "pigeon"], 2, "tcp or udp"),
        (["--dir", "{tmp}/missing"], 4, "--dir"),
        (["--output", "{tmp}/file/below.jsonl"], 4, "--output"),
    ],
)
def test_what_cannot_be_measured(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    filled = [word.format(tmp=tmp_path) for word in arguments]
    ended = nettool_here("bench", "loopback", "--size", "1MiB", "--repeat", "1", *filled, cwd=tmp_path)
    assert ended.code == code, ended
    assert says in complaint(ended)
    assert everything_below(tmp_path) == ["file"]


def test_a_transport_that_fails_is_shown_and_fails_the_command(tmp_path: Path) -> None:
    ended = nettool(
        *("bench", "loopback", "--size", "1MiB", "--repeat", "1", "--transports", "tcp,tcp-nosuch"),
        *("--output", tmp_path / "records.jsonl"),
    )
    assert ended.code == 4
    row = next(row for row in ended.stdout.splitlines() if row.startswith("tcp-nosuch"))
    assert row.split()[1] == "failed"
    assert row.split()[-1] == "0/1"
    assert "2 of 4 trials failed" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_its_records_and_nothing_else(number: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / "records.jsonl"
    command = [*NETTOOL, "bench", "loopback", "--size", "32MiB", "--repeat", "500"]
    with subprocess.Popen(
        [*command, "--dir", tmp_path, "--output", output], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + LIMIT_S
        while not output.exists() or output.read_text().count("\n") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert (stdout, stderr) == (b"", b"")
    assert everything_below(tmp_path) == ["records.jsonl"]
    assert len(read(output).trials) >= 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)
