"""`nettool bench`, `replay` and `diff` as commands: tables, reproducible records, and nothing else left behind."""

import json
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.background import running, wait_until
from tests.support.cli_process import LIMIT_S, NETTOOL, Ended, complaint, everything_below, nettool, nettool_here
from tests.support.repetitions import long
from tests.support.report_samples import one_path, save
from tests.support.tcp_controls import default_control
from tests.support.terminal import at_terminal
from toolkit.comparison.record_file import read
from toolkit.comparison.records import Results
from toolkit.comparison.summary import summarise
from toolkit.report.text import report_text

CONTROL = default_control()
TCP = f"tcp-{CONTROL}"
NAMES = [TCP, "udp-bbr", f"{TCP}#2"]


@dataclass
class Whole:
    """A campaign that has run to its end, with the records that it wrote into an empty folder."""

    ended: Ended
    output: Path
    left: list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    output = folder / "results" / "small.jsonl"
    ended = nettool(
        *("bench", "loopback", "--size", "1MiB", "--repeat", "1", "--seed", "9"),
        *("--output", output, "--dir", folder, "--transports", "tcp,udp"),
    )
    assert ended.code == 0, ended
    return Whole(ended, output, everything_below(folder))


def test_a_small_campaign_from_the_command_to_the_table(whole: Whole) -> None:
    ended, output = whole.ended, whole.output
    assert ended.stderr == ""
    results = read(output)
    assert ended.stdout == f"{report_text([summarise(results)])}\nRecords: {output}\n"
    assert "seed 9" in ended.stdout
    assert list(results.campaign.transports) == NAMES
    assert [trial.block for trial in results.trials] == [-1] * 3 + [0] * 3
    for trial in results.trials:
        assert trial.verified
        assert trial.sender.digest == trial.receiver.digest
        assert trial.seconds is not None
        assert trial.goodput_bps == pytest.approx(8 * trial.payload_bytes / trial.seconds)
        if trial.time_split is not None:  # else there are too few samples
            assert sum(trial.time_split.by_kind().values()) == pytest.approx(trial.seconds, abs=1e-5)
            assert trial.why or not trial.is_counted
        assert trial.sender.connect_s is not None
        assert trial.sender.accepted_s is not None
        assert 0 < trial.sender.connect_s < trial.sender.accepted_s < trial.seconds
        assert trial.cost.cpu_seconds_sender
        assert trial.cost.peak_memory_bytes_receiver
        assert trial.series is not None
        assert trial.series.delivered_bytes[-1] == trial.payload_bytes
    assert len({trial.sender.digest for trial in results.trials}) == 1
    tcp = next(trial for trial in results.trials if trial.transport == TCP)
    assert tcp.sender.congestion_control == CONTROL
    assert results.campaign.command[1:3] == ["bench", "loopback"]
    assert whole.left == ["results", "results/small.jsonl"]


def test_tcp_is_compared_with_itself_without_encryption(tmp_path: Path) -> None:
    output, names = tmp_path / "records.jsonl", [TCP, f"{TCP}+plaintext"]
    arguments = ("--size", "64KiB", "--repeat", "1", "--no-control", "--transports", ",".join(names))
    ended = nettool("bench", "loopback", *arguments, "--output", output, "--dir", tmp_path)
    assert ended.code == 0, ended
    assert names[1] in ended.stdout
    assert_one_is_not_encrypted(read(output), *names)


def test_timed_trials_measure_what_arrives_in_the_time(tmp_path: Path) -> None:
    output = tmp_path / "records.jsonl"
    arguments = ("--time", "300ms", "--repeat", "1", "--no-control", "--transports", "tcp,udp")
    ended = nettool("bench", "loopback", *arguments, "--output", output, "--dir", tmp_path)
    assert "Content for 300 ms" in ended.stdout
    trials = read(output).trials
    assert len(trials) == 4
    assert ended.code == (0 if all(trial.verified for trial in trials) else 4), ended
    for trial in trials:
        assert trial.error in (None, "nothing had arrived when the time was up")  # the latter on a very busy machine
        if trial.verified:
            assert trial.seconds is not None
            assert trial.seconds > 0  # the time runs from the command to start, and a busy machine starts later
            assert trial.receiver.cut_bytes is not None
            assert trial.goodput_bps == pytest.approx(8 * trial.receiver.cut_bytes / trial.seconds)
            assert 0 < trial.receiver.cut_bytes <= trial.content_bytes == trial.receiver.size_bytes


def assert_one_is_not_encrypted(results: Results, encrypted: str, plaintext: str) -> None:
    settings = results.campaign.transports
    assert {label: each.is_encrypted for label, each in settings.items()} == {encrypted: True, plaintext: False}
    for trial in results.trials:
        for side in (trial.sender, trial.receiver):
            assert side.authentication == "none"
            assert (side.encryption == "none") == (trial.transport == plaintext)


def test_watch_draws_each_trial_and_leaves_the_table(tmp_path: Path) -> None:
    command = ("bench", "loopback", "--watch", "--time", "2s", "--repeat", "1", "--no-control", "--transports", TCP)
    with at_terminal(*command, "--output", tmp_path / "watched.jsonl", cwd=tmp_path, lines=40) as comparing:
        comparing.wait_for(f"{TCP}: goodput: ")
        comparing.wait_for("packets sent again: ")
        code, output, _ = comparing.end()
    assert code == 0
    assert "Records: " in output
    assert "┤" not in output


def test_with_json_it_prints_one_object_also_of_udp_without_encryption(tmp_path: Path) -> None:
    output, names = tmp_path / "records.jsonl", ["udp-bbr", "udp-bbr+plaintext"]
    arguments = ("--size", "64KiB,1MiB", "--repeat", "1", "--no-control", "--transports", "udp,udp+plaintext")
    ended = nettool("bench", "loopback", *arguments, "--json", "--output", output)
    assert ended.code == 0, ended
    printed = ended.object
    assert (printed["kind"], printed["campaign"]["baseline"]) == ("comparison", names[0])
    assert len(printed["trials"]) == 6
    assert [row["transport"] for row in printed["summary"]] == names * 2
    assert len(printed["headline"]) == 2
    assert [json.loads(line)["kind"] for line in output.read_text().splitlines()] == ["campaign"] + ["trial"] * 6
    results = read(output)
    assert_one_is_not_encrypted(results, *names)
    payloads = {(trial.payload_bytes, trial.sender.digest) for trial in results.trials}
    assert len(payloads) == 2  # the same bytes for each size
    assert nettool("bench", "loopback", "--resume", output, "--json").object["summary"] == printed["summary"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--size", "tiny"], 2, "write it like 256MiB"),
        (["--size", "1B"], 2, "larger one with --size"),
        (["--size", "4000TiB", "--dir", "{tmp}"], 4, "no room"),
        (["--repeat", "0"], 2, "repeat"),
        (["--transports", "pigeon"], 2, "tcp or udp"),
        (["--limit", "soon"], 2, "write it like"),
        (["--limit", "0s"], 2, "--limit must be more than 0"),
        (["--dir", "{tmp}/missing"], 4, "--dir"),
        (["--output", "{tmp}/file/below.jsonl"], 4, "--output"),
        (["--scenario", "{tmp}/missing.toml"], 2, "cannot read"),
        (["--resume", "{tmp}/file"], 2, "no campaign"),
    ],
)
def test_campaigns_that_cannot_run(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    filled = [word.format(tmp=tmp_path) for word in arguments]
    ended = nettool("bench", "loopback", "--size", "1MiB", "--repeat", "1", *filled, cwd=tmp_path)
    assert ended.code == code, ended
    assert message in complaint(ended)
    assert everything_below(tmp_path) == ["file"]


def test_a_failing_transport_is_listed_and_fails_the_command(tmp_path: Path) -> None:
    output = tmp_path / "records.jsonl"
    arguments = ("--size", "64KiB", "--repeat", "1", "--no-control", "--limit", "2s")
    ended = nettool("bench", "loopback", *arguments, "--transports", "tcp,udp-rate=1kbit", "--output", output)
    assert ended.code == 4
    assert "failed" in next(row for row in ended.stdout.splitlines() if " udp-rate=1kbit " in row)
    assert "2 of 4 trials failed" in ended.stderr
    assert "Traceback" not in ended.stderr
    errors = [trial.error for trial in read(output).trials if trial.transport == "udp-rate=1kbit"]
    assert all(error and "not done after 2 s" in error for error in errors)
    before = output.read_bytes()
    assert nettool("bench", "loopback", "--resume", output).code == 4
    assert output.read_bytes() == before  # a failure is an outcome: --resume does not repeat it


def test_a_dry_run_prints_the_plan_and_does_nothing(tmp_path: Path) -> None:
    arguments = ("bench", "link", "--loss", "0%,1%,5%", "--repeat", "3", "--dry-run")
    ended = nettool_here(*arguments, cwd=tmp_path)
    assert ended.code == 0
    assert "60 trials in 3 blocks" in ended.stdout
    assert "comparisons: 9, which takes 9 blocks or more" in ended.stdout
    budgeted = nettool_here("bench", "link", "--dry-run", "--budget", "4min", cwd=tmp_path)
    assert "45 trials in 8 blocks" in budgeted.stdout
    assert "narrower than 5%" in budgeted.stdout
    assert "4 min have passed" in budgeted.stdout
    assert "about " in ended.stdout
    printed = nettool_here(*arguments, "--json", cwd=tmp_path).object
    assert (printed["trials"], len(printed["paths"])) == (60, 3)
    assert 60 < printed["seconds"] < 1800
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, long(signal.SIGTERM)])
def test_an_interrupted_campaign_keeps_its_records_and_nothing_else(number: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / "records.jsonl"
    command = [*NETTOOL, "bench", "loopback", "--size", "32MiB", "--repeat", "500"]
    command += ["--dir", str(tmp_path), "--output", str(output)]
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: output.exists() and output.read_text().count("\n") >= 2, "a trial is recorded")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert (stdout, stderr) == (b"", b"")
    assert everything_below(tmp_path) == ["records.jsonl"]
    assert read(output).trials
    assert not [child for child in children if is_running(child)]


RESUMED_ANEW = [
    ("--repeat", "9"),
    ("--budget", "1min"),
    ("--size", "1MiB"),
    ("--time", "1s"),
    ("--transports", "tcp"),
    ("--cc", "reno"),
    ("--seed", "2"),
    ("--limit", "1min"),
    ("--margin", "1%"),
    ("--patience", "1s"),
    ("--no-control",),
    ("--scenario", "bench/encryption.toml"),
]


def test_an_interrupted_campaign_can_be_resumed(whole: Whole, tmp_path: Path) -> None:
    output = tmp_path / "records.jsonl"
    lines = whole.output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[:5]) + lines[5][:50])  # the warm-up and the first trial of the block
    left = nettool_here("bench", "loopback", "--resume", output, "--dry-run")
    assert left.stdout.splitlines()[-1].startswith("2 trials")
    resumed = nettool("bench", "loopback", "--resume", output)
    assert resumed.code == 0, resumed
    results = read(output)
    cells = [(trial.block, trial.transport) for trial in results.trials]
    assert sorted(cells) == [(block, name) for block in (-1, 0) for name in sorted(NAMES)]
    assert [trial.position for trial in results.trials] == list(range(6))
    before = output.read_bytes()
    assert nettool("bench", "loopback", "--resume", output).code == 0
    assert output.read_bytes() == before
    assert "resume them with" in complaint(nettool_here("bench", "link", "--resume", output))
    for option, *value in RESUMED_ANEW:
        refused = nettool_here("bench", "loopback", "--resume", output, option, *value)
        assert (refused.code, output.read_bytes()) == (2, before), option
        settings = "nettool: --resume goes on with the settings of its records: leave"
        assert complaint(refused) == f"{settings} {option} out"
    elsewhere = nettool_here("bench", "loopback", "--resume", output, "--output", tmp_path / "other.jsonl")
    assert complaint(elsewhere) == "nettool: --resume FILE adds its records to FILE: leave --output out"


def test_a_remote_campaign_is_resumed_by_its_own_command(tmp_path: Path) -> None:
    records = one_path()
    path = save(replace(records, campaign=replace(records.campaign, name="remote")), tmp_path / "remote.jsonl")
    assert "resume them with 'nettool bench remote'" in complaint(nettool_here("bench", "link", "--resume", path))


def test_replay_and_diff(whole: Whole, tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    one = nettool("replay", whole.output, "--trial", "3", "--json")
    assert one.code == 0, one
    before, after = one.object["before"], one.object["after"]
    assert (after["transport"], after["payload_bytes"]) == (before["transport"], before["payload_bytes"])
    assert after["sender"]["digest"] == before["sender"]["digest"]
    assert "now" in nettool("replay", whole.output, "--trial", "4").stdout
    every = nettool("replay", whole.output, "--output", again)
    assert every.code == 0, every
    first, second = read(whole.output), read(again)
    order = [(trial.block, trial.transport) for trial in first.trials]
    assert [(trial.block, trial.transport) for trial in second.trials] == order
    assert {t.sender.digest for t in first.trials} == {t.sender.digest for t in second.trials}
    compared = nettool_here("diff", whole.output, again)
    assert compared.code == 0
    assert TCP in compared.stdout
    assert "fewer than 7 trials" in compared.stdout
    changes = nettool_here("diff", whole.output, again, "--json").object["changes"]
    assert [change["verdict"] for change in changes] == ["no claim"] * 3
    assert "no trial 99" in complaint(nettool_here("replay", whole.output, "--trial", "99"))
    assert "cannot read" in complaint(nettool_here("diff", whole.output, tmp_path / "missing"))


def is_running(process_id: str) -> bool:
    """Return whether the process has not ended; one that its new parent has not reaped yet has ended."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
