"""`nettool sim`: options become links, lists become rows of the table, and bad input becomes one line."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.cli.app import invoke
from toolkit.errors import NettoolError, UsageError
from toolkit.netmodel.profiles import PROFILES
from toolkit.netmodel.scenarios import SCENARIOS


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert invoke(["sim", "--json", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    answer = json.loads(lines[0])
    assert answer["kind"] == "simulation"
    return list(answer["rows"])


def test_every_combination_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(
        capsys, "--size", "20kB", "--cc", "bbr,cubic", "--rate", "10Mbit,1Gbit", "--rtt", "10ms", "--loss", "0%,1%"
    )
    keys = [(row["rate"], row["rtt"], row["loss"], row["cc"]) for row in rows]
    assert len(set(keys)) == 8
    assert keys[0] == ("10 Mbit/s", "10 ms", "0%", "bbr")
    assert all(row["finished"] for row in rows)


def test_the_table_agrees_with_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows_of(capsys, "--size", "1MiB", "--seed", "7")
    assert invoke(["sim", "--size", "1MiB", "--seed", "7"]) == 0
    table = capsys.readouterr().out
    assert f"{row['ideal_share']:.3f}" in table
    assert "seed 7" in table
    assert "1 flow of 1 MiB" in table


def test_a_fast_satellite_path(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows_of(capsys, "--rate", "10Gbit", "--rtt", "300ms", "--size", "64MiB")
    assert row["finished"]
    assert row["duration_ns"] > 900e6


def test_several_flows_have_a_jain_index(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows_of(
        capsys, "--rate", "5Mbit", "--flows", "3", "--duration", "5s", "--stagger", "100ms", "--queue", "2bdp"
    )
    assert 1 / 3 < row["jain_index"] <= 1
    assert [flow["start_ns"] for flow in row["flows"]] == [0, 100_000_000, 200_000_000]


def test_the_fixed_rate_controller_gets_the_rate_of_the_link(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows_of(capsys, "--cc", "rate", "--rate", "20Mbit", "--loss", "5%", "--size", "4MiB")
    assert row["ideal_share"] > 0.9


def test_address_validation_takes_a_round_trip(capsys: pytest.CaptureFixture[str]) -> None:
    (plain,) = rows_of(capsys, "--size", "1kB")
    (validated,) = rows_of(capsys, "--size", "1kB", "--validate")
    assert validated["duration_ns"] - plain["duration_ns"] == pytest.approx(40e6, rel=0.01)


def test_scenarios_and_links_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["scenario"] for row in rows_of(capsys, "--scenario", "all", "--size", "10kB")] == list(SCENARIOS)
    names = [name for name in PROFILES if name != "lan"]
    assert [row["link"] for row in rows_of(capsys, "--link", ",".join(names), "--size", "10kB")] == names
    assert invoke(["sim", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(one.name in listed and one.meaning in listed for one in SCENARIOS.values())


def test_options_modify_a_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(capsys, "--scenario", "clean", "--rtt", "40ms,80ms", "--size", "10kB")
    assert [(row["scenario"], row["rtt"]) for row in rows] == [("clean", "40 ms"), ("clean", "80 ms")]
    assert rows[0]["duration_ns"] < rows[1]["duration_ns"]


def test_impairments_reach_the_link(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows_of(
        capsys,
        *("--size", "4MiB", "--burst", "5%:2ms", "--jitter", "1ms", "--reorder", "1%", "--at", "200ms blackout 50ms"),
    )
    assert {"burst", "blackout"} <= set(row["flows"][0]["lost_packets"])
    assert row["finished"]


def test_a_trace_has_samples_of_every_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sheet = tmp_path / "course.csv"
    rows_of(capsys, "--size", "2MiB", "--cc", "bbr,cubic", "--trace", str(sheet))
    samples = list(csv.DictReader(sheet.read_text("ascii").splitlines()))
    assert {sample["row"] for sample in samples} == {"1", "2"}
    times = [int(sample["time_ns"]) for sample in samples if sample["row"] == "1"]
    assert times[1] - times[0] == 10_000_000
    assert {"startup", "slow_start"} <= {sample["phase"] for sample in samples}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cc", "nix"], "unknown congestion control"),
        (["--scenario", "nix"], "unknown scenario 'nix'"),
        (["--link", "nix"], "unknown link 'nix'"),
        (["--link", "lan"], "add --rate"),
        (["--link", "geo", "--scenario", "clean"], "use either"),
        (["--size", "0"], "at least one byte"),
        (["--rate", "fast"], "is not a rate"),
        (["--loss", "1%,"], "is not a share"),
        (["--queue", "0bdp"], "holds no packet"),
        (["--burst", "1%"], "not a burst"),
        (["--duration", "0"], "has no unit"),
        (["--duration", "0s"], "longer than zero"),
        (["--flows", "0"], "use 1 to 1000"),
        (["--seed", str(1 << 64)], "a seed must be"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        invoke(["sim", *arguments])
    assert "\n" not in str(caught.value)


def test_an_error_is_an_object_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NettoolError):
        invoke(["sim", "--json", "--size", "0"])
    assert json.loads(capsys.readouterr().out)["kind"] == "error"


def test_a_trace_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        invoke(["sim", "--size", "1kB", "--trace", str(tmp_path / "no" / "course.csv")])


def test_a_trace_does_not_replace_the_delivery_trace_of_a_link(tmp_path: Path) -> None:
    cell = tmp_path / "cell.trace"
    cell.write_text("1\n2\n3\n")
    with pytest.raises(UsageError, match="nettool did not write it"):
        invoke(["sim", "--size", "1kB", "--trace", str(cell)])
    assert cell.read_text() == "1\n2\n3\n"
