"""Tables of a campaign: their cells, what they leave out, and how they word figures and failures."""

from dataclasses import replace

import pytest

from tests.support.report_samples import LOSSES, lossy, one_path, troubled
from toolkit.comparison.records import (
    BUSY_MACHINE,
    CPU_BOUND,
    EMULATOR_LATE,
    MARKS,
    PROBE_OFF,
    Results,
    Trial,
    TrialCost,
)
from toolkit.comparison.stats import Interval
from toolkit.comparison.summary import summarise
from toolkit.report import labels
from toolkit.report.cells import Table
from toolkit.report.tables import ACCOUNTING, COST, OTHER_TRAFFIC, PROBES, REASON, SPEED, TROUBLE, tables
from toolkit.units import format_ratio


def by_name(results: Results) -> dict[str, Table]:
    return {table.name: table for table in tables(summarise(results))}


def column(table: Table, title: str) -> list[str]:
    position = [c.title for c in table.columns].index(title)
    return [row[position].text for row in table.rows]


def test_the_speed_table_has_the_rows_and_figures_of_the_summary() -> None:
    results = lossy()
    speed = tables(summarise(results))[0]
    assert speed.name == SPEED
    assert column(speed, "path") == [path for path in LOSSES for _ in range(3)]
    assert column(speed, "transport") == ["tcp-cubic", "udp-bbr", "tcp-cubic#2"] * 4
    ratios = [row.ratio for row in summarise(results).rows]
    assert column(speed, "x tcp-cubic") == [format_ratio(r.value) if r else labels.NOTHING for r in ratios]
    assert column(speed, "verified") == ["9/9"] * 12
    assert column(speed, "verdict")[7] == "faster"
    assert column(speed, "verdict")[0] == "baseline"
    assert column(speed, "verdict")[2] == "equivalent (A/A control)"
    assert all(" to " in text for text in column(speed, "95% interval of goodput"))


def test_empty_columns_and_tables_are_left_out() -> None:
    made = by_name(lossy())
    titles = [c.title for c in made[SPEED].columns]
    assert "marks" not in titles
    assert "size" not in titles
    assert TROUBLE not in made
    assert {REASON, COST, OTHER_TRAFFIC, ACCOUNTING, PROBES} < set(made)
    bare = one_path()
    stripped = [replace(t, ledger=None, delay=None, time_split=None, cost=TrialCost()) for t in bare.trials]
    assert ACCOUNTING not in (left := by_name(Results(bare.campaign, stripped)))
    assert not {REASON, OTHER_TRAFFIC, PROBES} & set(left)


def test_several_sizes_have_a_size_column() -> None:
    results = one_path()
    doubled = [replace(trial, payload_bytes=2 * trial.payload_bytes) for trial in results.trials]
    size = results.campaign.sizes[0]
    both = Results(replace(results.campaign, sizes=[size, 2 * size]), [*results.trials, *doubled])
    assert column(by_name(both)[SPEED], "size") == ["95.37 MiB"] * 3 + ["190.7 MiB"] * 3


def test_failures_and_marks_are_explained() -> None:
    made = by_name(troubled())
    speed = made[SPEED]
    verdicts, goodputs = column(speed, "verdict"), column(speed, "goodput")
    assert verdicts[4] == "no claim: 9 of 9 trials marked cpu-bound, emulator-late"
    assert verdicts[7] == "no claim: no transfer was verified"
    assert goodputs[7] == "failed"
    assert column(speed, "verified")[7] == "0/9"
    assert "cpu-bound: a processor, not the path, was the limit" in speed.note
    trouble = made[TROUBLE]
    assert len(trouble.rows) == 2 * 10
    assert "warm-up" in column(trouble, "block")
    assert any("exit 4" in text for text in column(trouble, "error"))


def test_every_mark_has_an_explanation() -> None:
    assert set(labels.MARKS) == set(MARKS)
    assert "another version" in labels.mark_meaning("new-mark")


def test_packet_accounting_shows_the_worst_balance() -> None:
    balances = column(by_name(troubled())[ACCOUNTING], "balance")
    assert balances == ["0", "12", "0"] * 3


def test_shares_of_time_add_up_to_one() -> None:
    table = by_name(lossy())[REASON]
    start = next(n for n, c in enumerate(table.columns) if c.title == "handshake")
    end = next(n for n, c in enumerate(table.columns) if c.title == "regime")
    for row in table.rows:
        shares = [cell.value for cell in row[start:end] if isinstance(cell.value, float)]
        assert sum(shares) == pytest.approx(1)


def test_cells_are_printable_for_any_label() -> None:
    for table in tables(summarise(troubled())):
        for row in table.rows:
            assert all(cell.text.isprintable() for cell in row)
        assert table.note.isprintable()


def test_intervals_show_a_shared_unit_once() -> None:
    assert labels.rate_interval(Interval(93.8e6, 94.5e6)) == "93.8 to 94.5 Mbit/s"
    assert labels.rate_interval(Interval(900e3, 1.1e6)) == "900 kbit/s to 1.1 Mbit/s"
    assert labels.seconds_interval(Interval(0.5, 2)) == "500 ms to 2 s"
    assert labels.rate_interval(None) == labels.NOTHING


def test_trials_that_are_only_marked_busy_are_listed_too() -> None:
    results = lossy(["loss 1%"])
    marks = {0: [BUSY_MACHINE], 1: [BUSY_MACHINE, CPU_BOUND]}
    trials = [replace(trial, marks=marks.get(trial.block, [])) for trial in results.trials]
    made = tables(summarise(replace(results, trials=trials)))
    (trouble,) = [table for table in made if table.name == TROUBLE]
    marked = sorted(row[-1].text for row in trouble.rows)
    count = len(results.campaign.transports)
    assert marked == ["busy-machine"] * count + ["busy-machine, cpu-bound"] * count


def test_a_mark_that_all_trials_on_a_path_have_is_said_once() -> None:
    results = lossy(LOSSES[:2])

    def changed(trial: Trial) -> Trial:
        marks = [PROBE_OFF] if trial.path == LOSSES[1] else []
        is_late = trial.transport == "udp-bbr" and trial.block == 3
        return replace(trial, marks=[*marks, EMULATOR_LATE] if is_late else marks)

    trouble = by_name(replace(results, trials=[changed(trial) for trial in results.trials]))[TROUBLE]
    assert column(trouble, "path") == list(LOSSES[:2])
    assert column(trouble, "marks") == [EMULATOR_LATE, EMULATOR_LATE]
    assert trouble.note.endswith(f" All trials on {LOSSES[1]} are marked probe-off.")
    everywhere = [replace(trial, marks=[PROBE_OFF]) for trial in results.trials]
    assert TROUBLE not in by_name(replace(results, trials=everywhere))


def test_what_forbids_a_claim_is_no_mark_of_a_busy_machine() -> None:
    results = lossy(["loss 1%"])

    def note(*marks: str) -> str:
        trials = [replace(trial, marks=list(marks)) for trial in results.trials]
        return tables(summarise(replace(results, trials=trials)))[0].note

    assert "nothing is claimed" not in note(BUSY_MACHINE)
    assert "have a mark other than busy-machine, nothing is claimed" in note(BUSY_MACHINE, CPU_BOUND)
    assert "are marked, nothing is claimed" in note(CPU_BOUND)


def test_goodput_of_timed_trials_is_explained_as_what_it_is() -> None:
    results = lossy(["loss 1%"])
    trials = [replace(trial, payload_bytes=0) for trial in results.trials]
    timed = replace(results, trials=trials, campaign=replace(results.campaign, sizes=[0], time_s=1.0))
    assert "what had arrived when the time was up" in tables(summarise(timed))[0].note
    assert "verified digest" in tables(summarise(results))[0].note
