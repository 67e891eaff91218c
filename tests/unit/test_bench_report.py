"""Records to a file and back, and the table that is made from them: the same one each time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.bench.record import Campaign, Results, Trial, Writer, read
from toolkit.errors import TransferError, UsageError
from toolkit.report.summary import summarise
from toolkit.report.tables import comparison

HOST = {
    "nettool": "0.1.0",
    "python": "3.11.2",
    "system": "Linux",
    "kernel": "6.1",
    "cpu": "A Processor",
    "cores": 2,
}


def make_campaign(repeats: int) -> Campaign:
    return Campaign(
        name="loopback",
        started_unix_s=1_700_000_000.0,
        seed=1,
        payload_bytes=10**9,
        repeats=repeats,
        cells={"tcp-cubic": {"transport": "tcp"}, "udp-bbr": {"transport": "udp"}},
        baseline="tcp-cubic",
        storage="/dev/shm (memory)",
        host=HOST,
    )


def make_trial(block: int, cell: str, goodput_bps: float, verified: bool = True) -> Trial:
    end = {"bytes": 10**9, "cpu_seconds": 0.5}
    return Trial(
        block=block,
        position=0,
        cell=cell,
        verified=verified,
        sender={**end, "goodput_bps": goodput_bps, "packets_retransmitted": block} if verified else {},
        receiver={**end, "cpu_seconds": 0.75} if verified else {},
        error=None if verified else "exit code 4: the peer went away",
    )


def make_results(repeats: int) -> Results:
    trials = [make_trial(-1, "tcp-cubic", 1e6), make_trial(-1, "udp-bbr", 1e6)]
    for block in range(repeats):
        trials += [
            make_trial(block, "tcp-cubic", (20 + block) * 1e9),
            make_trial(block, "udp-bbr", (10 + block) * 1e9),
        ]
    return Results(make_campaign(repeats), trials)


def write(path: Path, results: Results) -> None:
    writer = Writer(path)
    writer.write(results.campaign)
    for trial in results.trials:
        writer.write(trial)
    writer.close()


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    results = make_results(5)
    write(path, results)
    assert read(path) == results
    assert comparison(read(path)) == comparison(results)


def test_a_later_minor_version_may_add_kinds_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = make_results(1)
    write(path, results)
    lines = [json.loads(text) | {"added_later": 1} for text in path.read_text().splitlines()]
    lines.append({"schema": 1, "kind": "ledger"})
    path.write_text("\n".join(json.dumps(entry) for entry in lines))
    assert read(path) == results


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json\n",
        b"[]\n",
        b'{"schema": 2, "kind": "campaign"}\n',
        b'{"schema": 1, "kind": "campaign"}\n',
        b'{"schema": 1, "kind": "trial", "block": 1}\n',
        b"\xff\xfe\n",
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"results\.jsonl"):
        read(path)


def test_a_file_that_is_not_there_and_one_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(TransferError, match="--output"):
        Writer(tmp_path / "file" / "results.jsonl").write(make_campaign(1))


def test_figures_are_of_verified_trials_after_the_warm_up() -> None:
    results = make_results(5)
    failed = [*results.trials, make_trial(5, "udp-bbr", 0, verified=False), make_trial(5, "tcp-cubic", 1e9)]
    tcp, udp = summarise(Results(results.campaign, failed))
    assert udp.goodput_bps is not None
    assert udp.goodput_bps.value == 12e9
    assert udp.deviation_bps == 1e9
    assert (udp.verified, udp.trials) == (5, 6)
    assert (tcp.verified, tcp.trials) == (6, 6)
    assert udp.ratio is not None
    assert udp.ratio.value == pytest.approx(12 / 22)
    assert udp.ratio.interval == pytest.approx((10 / 20, 14 / 24))
    assert tcp.ratio is None
    assert (udp.sender_cpu_s_per_gb, udp.receiver_cpu_s_per_gb) == (0.5, 0.75)
    assert udp.packets_retransmitted == 2


def test_the_table_names_every_figure() -> None:
    table = comparison(make_results(5))
    row = next(line for line in table.splitlines() if line.startswith("udp-bbr"))
    assert " ".join(row.split()) == "udp-bbr 12 Gbit/s ± 8.3% 0.55 0.50 to 0.58 0.50 0.75 2 5/5"
    assert "953.7 MiB in /dev/shm (memory)" in table
    assert "seed 1" in table
    assert "2023-11-14 22:13 UTC" in table


def test_a_busy_machine_is_told_of() -> None:
    results = make_results(5)
    busy = replace(results.campaign, host={**HOST, "load_1min": 1.5})
    assert "busy when this began (load 1.5)" in comparison(Results(busy, results.trials))
    idle = replace(results.campaign, host={**HOST, "load_1min": 0.5})
    assert "busy" not in comparison(Results(idle, results.trials))


def test_few_pairs_make_no_claim() -> None:
    table = comparison(make_results(3))
    assert " to " not in table.split("\n\n")[0]
    assert "--repeat 5" in table


def test_a_transport_that_never_arrived_is_shown_as_failed() -> None:
    trials = [make_trial(0, "tcp-cubic", 1e9), make_trial(0, "udp-bbr", 0, verified=False)]
    table = comparison(Results(make_campaign(1), trials))
    row = next(line for line in table.splitlines() if line.startswith("udp-bbr"))
    assert row.split() == ["udp-bbr", "failed", *["-"] * 6, "0/1"]


@pytest.mark.parametrize("table_format", ["github", "latex", "html"])
def test_other_formats_hold_the_same_figures(table_format: str) -> None:
    assert "0.50 to 0.58" in comparison(make_results(5), table_format)
