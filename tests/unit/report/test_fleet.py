"""The report of a fleet: planted truths are named, every pair has its figures, names from files are only text."""

import csv
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from tests.support.report_samples import one_path, save
from toolkit.cli.app import invoke
from toolkit.comparison.diff import compare
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.paths import between
from toolkit.comparison.plan import Plan, parse_transports
from toolkit.comparison.record_file import line
from toolkit.comparison.records import Outage, Results, Trial
from toolkit.comparison.rows import Row
from toolkit.comparison.stats import Estimate
from toolkit.comparison.summary import summarise
from toolkit.errors import ExitCode, UsageError
from toolkit.report.fleet import change_lines, fleet_page, fleet_text
from toolkit.report.matrix import pair_figures, stand_outs

HOSTS = ("a", "b", "c", "d", "e")
BLOCKS = 14  # as many as the difference between two runs needs, among so many
SLOW, LOSSY, BLOCKED, MISSING, ASYMMETRIC = "a", "b", ("c", "d"), ("c", "e"), ("d", "e")


def fleet(factor: float = 1.0) -> Results:
    """A mesh in which a is slow both ways, all that b sends loses 2%, c to d is blocked for UDP, c to e is missing, and
    d to e has a third of the rate of e to d. factor: of the goodput of UDP from e to d"""
    pairs = list(permutations(HOSTS, 2))
    plan = Plan(
        name="fleet",
        settings=parse_transports("tcp-cubic,udp-bbr"),
        paths=[between(*pair) for pair in pairs],
        sizes=[0],
        repeats=BLOCKS,
        seed=1,
        is_probed=False,
        time_s=1.0,
    )
    trials = []
    for block in range(BLOCKS):
        for pair in pairs:
            if pair == MISSING:
                continue
            rate_bps = 10e6 if SLOW in pair else 30e6 if pair == ASYMMETRIC else 90e6
            for setting in plan.all_settings:
                is_udp = setting.transport == "udp"
                goodput_bps = rate_bps * (1 + (block % 3) / 100) * (1.5 if is_udp and pair[0] == LOSSY else 1.0)
                goodput_bps *= factor if is_udp and pair == ("e", "d") else 1.0
                error = "no answer over UDP" if is_udp and pair == BLOCKED else None
                trials.append(
                    Trial(
                        block=block,
                        position=len(trials),
                        transport=setting.label,
                        path=between(*pair).label,
                        payload_bytes=0,
                        verified=error is None,
                        seconds=None if error else 1.0,
                        goodput_bps=None if error else goodput_bps,
                        error=error,
                        sender=EndpointResult(error=error, exit_code=ExitCode.UNREACHABLE)
                        if error
                        else EndpointResult(size_bytes=10**6, rtt_min_ms=12.0, packets_sent=1000),
                        retransmitted_packets=20 if pair[0] == LOSSY else 0,
                    )
                )
    lost = Outage("c to e", 0, "tcp-cubic", 0, "e", "it never appeared", 1, True, 0.0, 60.0)
    return Results(plan.campaign("memory"), trials, (), (lost,))


def written(results: Results, path: Path) -> Path:
    records = [results.campaign, *results.trials, *results.outages]
    path.write_text("".join(line(record) + "\n" for record in records))
    return path


def test_every_planted_truth_stands_out_and_nothing_else() -> None:
    slow = "is slow (a typical host's median is 90.9 Mbit/s)"
    assert stand_outs(pair_figures(summarise(fleet()))) == [
        f"a to every other host {slow}: 10.1 Mbit/s at best.",
        f"Every other host to a {slow}: 15.15 Mbit/s at best; 10.1 Mbit/s at best.",
        f"d to e {slow}: 30.3 Mbit/s at best.",
        "b to every other host loses packets: every transport sends 2% or more again.",
        "c to d never connects over udp-bbr, while others get through: no answer over UDP.",
        "c to e is incomplete: e was missing: it never appeared.",
        "d to e is slower than the way back: by a factor of 3.00.",
    ]


def test_slow_hosts_stand_out_although_most_pairs_are_theirs() -> None:
    """Three of eight hosts are in 36 of 56 pairs."""
    usual = next(pair for pair in pair_figures(summarise(fleet())) if (pair.sender, pair.receiver) == ("e", "d"))
    slow = replace(usual, rows={name: replace(row, goodput_bps=_tenth(row)) for name, row in usual.rows.items()})
    pairs = [
        replace(slow if {sender, receiver} & {*"abc"} else usual, sender=sender, receiver=receiver)
        for sender, receiver in permutations("abcdefgh", 2)
    ]
    rest = "is slow (a typical host's median is 90.9 Mbit/s): 9.09 Mbit/s at best."
    assert set(stand_outs(pairs)) == {
        *(f"{host} to every other host {rest}" for host in "abc"),
        *(f"Every other host to {host} {rest}" for host in "abc"),
    }


def test_sizes_are_not_measured_by_each_other() -> None:
    """A small file never reaches the goodput of a large one, and a host is no two hosts."""
    pairs = pair_figures(summarise(fleet()))
    rows = [{name: replace(row, goodput_bps=_tenth(row)) for name, row in pair.rows.items()} for pair in pairs]
    small = [
        replace(pair, payload_bytes=1000, content="1 kB", rows=of_pair, resent={})
        for pair, of_pair in zip(pairs, rows, strict=True)
    ]
    large = [replace(pair, payload_bytes=10**6, content="1 MB") for pair in pairs]
    slow = "(a typical host's median is {}): {} at best."
    assert stand_outs([*large, *small]) == [
        f"1 MB: a to every other host is slow {slow.format('90.9 Mbit/s', '10.1 Mbit/s')}",
        f"1 MB: Every other host to a is slow {slow.format('90.9 Mbit/s', '15.15 Mbit/s at best; 10.1 Mbit/s')}",
        f"1 MB: d to e is slow {slow.format('90.9 Mbit/s', '30.3 Mbit/s')}",
        "1 MB: b to every other host loses packets: every transport sends 2% or more again.",
        "c to d never connects over udp-bbr, while others get through: no answer over UDP.",
        "c to e is incomplete: e was missing: it never appeared.",
        "d to e is slower than the way back: by a factor of 3.00.",
        f"1 kB: a to every other host is slow {slow.format('9.09 Mbit/s', '1.01 Mbit/s')}",
        f"1 kB: Every other host to a is slow {slow.format('9.09 Mbit/s', '1.515 Mbit/s at best; 1.01 Mbit/s')}",
        f"1 kB: d to e is slow {slow.format('9.09 Mbit/s', '3.03 Mbit/s')}",
    ]


def test_a_transport_that_does_not_arrive_is_not_said_to_send_again() -> None:
    pair = next(pair for pair in pair_figures(summarise(fleet())) if (pair.sender, pair.receiver) == ("b", "c"))
    assert stand_outs([pair]) == ["b to c loses packets: every transport sends 2% or more again."]
    alone = replace(pair, resent={"tcp-cubic": 0.02})
    assert stand_outs([alone]) == ["b to c loses packets: tcp-cubic sends 2% or more again."]


def _tenth(row: Row) -> Estimate | None:
    return None if row.goodput_bps is None else Estimate(row.goodput_bps.value / 10, None)


def test_a_transport_that_connects_and_then_fails_is_not_said_to_be_blocked() -> None:
    results = fleet()
    once = next(place for place, trial in enumerate(results.trials) if trial.error)
    late = EndpointResult(error="no acknowledgement for 30 s", exit_code=ExitCode.FAILED)
    trials = [*results.trials]
    trials[once] = replace(trials[once], sender=late)
    assert "c to d completes no transfer over udp-bbr, while others get through: no answer over UDP." in stand_outs(
        pair_figures(summarise(replace(results, trials=trials)))
    )
    nothing = [
        replace(trial, verified=False, seconds=None, goodput_bps=None, error="gone", sender=late) for trial in trials
    ]
    assert "c to d completes no transfer: gone." in " ".join(
        stand_outs(
            pair_figures(
                summarise(
                    replace(
                        results,
                        trials=[
                            each if trial.path == "c to d" else trial
                            for each, trial in zip(nothing, trials, strict=True)
                        ],
                    )
                )
            )
        )
    )


def test_every_pair_has_its_figures_and_verdict() -> None:
    pairs = {(pair.sender, pair.receiver): pair for pair in pair_figures(summarise(fleet()))}
    assert set(pairs) == set(permutations(HOSTS, 2))
    assert pairs["b", "c"].rows["udp-bbr"].verdict == "faster"
    assert pairs["d", "b"].rows["udp-bbr"].verdict == "equivalent"
    assert pairs["c", "d"].rows["udp-bbr"].verdict == "no claim"
    assert pairs["b", "c"].resent == {"tcp-cubic": 0.02, "udp-bbr": 0.02}
    assert pairs["d", "b"].rtt_ms == 12.0
    assert pairs["c", "e"].goodput_bps is None


def test_the_page_has_maps_of_all_hosts_and_a_row_for_each_pair() -> None:
    page = fleet_page(summarise(fleet()))
    for title in ("udp-bbr: ratio and verdict", "tcp-cubic: goodput", "udp-bbr: packets sent again", "Round trip"):
        assert f"{title}, 1 s</h3>" in page
    assert page.count('title="b to c: ') == 6
    assert "▲ 1.50" in page
    assert "e was missing: it never appeared" in page


def test_names_from_files_are_text_on_the_page() -> None:
    results = fleet()
    paths = dict(results.campaign.paths)
    paths["a to b"] = replace(paths["a to b"], sender="<script>a")
    page = fleet_page(summarise(replace(results, campaign=replace(results.campaign, paths=paths))))
    assert "<script>a" not in page
    assert "&lt;script&gt;a" in page


@pytest.mark.parametrize("command", [["replay"], ["replay", "--trial", "1"], ["bench", "link", "--resume"]])
def test_a_fleet_is_not_run_again_on_one_machine(command: list[str], tmp_path: Path) -> None:
    """Its paths have no options: they became links without a limit, beside which any network looked slow."""
    records = written(fleet(), tmp_path / "run.jsonl")
    before = records.read_bytes()
    with pytest.raises(UsageError, match="only 'nettool fleet run MESH --resume FILE' continues it"):
        invoke([*command, str(records)])
    assert records.read_bytes() == before


def test_a_run_is_compared_with_an_earlier_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old, new = fleet(), fleet(factor=0.5)
    assert change_lines(compare(old, new)) == ["e to d, udp-bbr: slower than before, 0.50 [0.49, 0.51]."]
    files = [written(results, tmp_path / name) for results, name in ((old, "old.jsonl"), (new, "new.jsonl"))]
    assert invoke(["fleet", "report", str(files[1]), "--since", str(files[0])]) == 0
    assert "e to d, udp-bbr: slower than before" in capsys.readouterr().out
    assert "slower than before" in fleet_page(summarise(new), compare(old, new))


def test_figures_go_to_a_spreadsheet_and_to_prometheus(tmp_path: Path) -> None:
    records = written(fleet(), tmp_path / "run.jsonl")
    table, metrics = tmp_path / "run.csv", tmp_path / "nettool.prom"
    assert invoke(["fleet", "report", str(records), "--export", str(table), "--prometheus", str(metrics)]) == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 20 * 2
    (row,) = (each for each in rows if (each["sender"], each["receiver"], each["transport"]) == ("b", "c", "udp-bbr"))
    assert (float(row["ratio"]), float(row["resent_share"]), row["verdict"]) == (1.5, 0.02, "faster")
    text = metrics.read_text()
    labels = 'content="1 s",receiver="c",sender="b",transport="udp-bbr"'
    assert f"nettool_goodput_ratio{{{labels}}} 1.5\n" in text
    assert f'nettool_verdict{{{labels},verdict="faster"}} 1.0\n' in text
    assert 'nettool_pair_missing{content="1 s",receiver="e",sender="c"} 1.0\n' in text
    metrics.write_text("mine")
    with pytest.raises(UsageError, match="nettool did not write it"):
        invoke(["fleet", "report", str(records), "--prometheus", str(metrics)])


def test_other_records_are_not_of_a_fleet(tmp_path: Path) -> None:
    save(one_path(), tmp_path / "link.jsonl")
    with pytest.raises(UsageError, match="not of a fleet: 'nettool report' shows them"):
        invoke(["fleet", "report", str(tmp_path / "link.jsonl")])


def test_the_text_fits_a_terminal() -> None:
    lines = fleet_text(summarise(fleet()), None, 80).splitlines()
    assert max(map(len, lines)) <= 80
