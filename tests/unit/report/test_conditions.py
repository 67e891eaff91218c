"""The table of conditions: what differs, and what is said once."""

from dataclasses import replace

from tests.support.report_samples import HOSTILE, lossy
from toolkit.comparison.conditions import SocketSettings, TrialConditions
from toolkit.comparison.device import DeviceSettings
from toolkit.comparison.machine_load import MachineLoad
from toolkit.comparison.records import Results, Trial
from toolkit.comparison.summary import summarise
from toolkit.report.conditions import CONDITIONS
from toolkit.report.tables import tables

DEVICE = DeviceSettings("wire", "fq_codel", 1500, {"tcp-segmentation-offload": True, "scatter-gather": False})


def with_conditions(changed_mtu: str = "") -> Results:
    """A campaign whose trials recorded their conditions; the first block of `changed_mtu` had another MTU."""

    def conditions(trial: Trial) -> TrialConditions:
        is_udp = trial.transport.startswith("udp")
        buffer_bytes = 1 << (20 + max(0, trial.block))
        sender = SocketSettings(buffer_bytes, segment_bytes=1472 if is_udp else 1448, ecn=is_udp)
        is_changed = trial.transport == changed_mtu and trial.block == 0
        device = replace(DEVICE, mtu_bytes=1400) if is_changed else DEVICE
        load = MachineLoad(0.02 if trial.block else 0.5, 0.01)
        return TrialConditions(sender, SocketSettings(receive_buffer_bytes=1 << 21), device, "flushed", load)

    results = lossy(["loss 1%"])
    trials = [replace(trial, conditions=conditions(trial)) for trial in results.trials]
    host = replace(results.campaign.host, governors=["performance"])
    return replace(results, campaign=replace(results.campaign, host=host), trials=trials)


def rows_of(results: Results) -> dict[str, dict[str, str]]:
    """Transport -> title of the column -> text."""
    (table,) = [each for each in tables(summarise(results)) if each.name == CONDITIONS]
    titles = [column.title for column in table.columns]
    made = [dict(zip(titles, [cell.text for cell in row], strict=True)) for row in table.rows]
    return {row["transport"]: row for row in made} | {"note": {"": table.note}}


def test_what_differs_has_a_column_and_what_all_have_in_common_is_said_once() -> None:
    rows = rows_of(with_conditions())
    assert rows["tcp-cubic"]["segment"] == "1,448 bytes"
    assert (rows["udp-bbr"]["segment"], rows["udp-bbr"]["ECN"]) == ("1,472 bytes", "on")
    assert rows["tcp-cubic"]["send buffer"] == "1 MiB to 256 MiB"
    assert rows["tcp-cubic"]["receive buffer"] == "2 MiB"
    assert rows["tcp-cubic"]["other work"] == "2%, 50%"
    note = rows["note"][""]
    assert "queue of the device fq_codel; MTU 1,500 bytes; offloads of the device tcp-segmentation-offload" in note
    assert "CPU governor: performance." in note
    assert "MTU" not in rows["tcp-cubic"]
    assert summarise(with_conditions()).notes == summarise(lossy(["loss 1%"])).notes


def test_conditions_that_changed_between_trials_are_named() -> None:
    results = with_conditions("udp-bbr")
    assert rows_of(results)["udp-bbr"]["MTU"] == "differs: 1,500 bytes (8), 1,400 bytes (1)"
    assert rows_of(results)["tcp-cubic"]["MTU"] == "1,500 bytes"
    *_, note = summarise(results).notes
    assert note == (
        "udp-bbr, loss 1%: the trials had different conditions: MTU 1,500 bytes (8 of 9), 1,400 bytes (1 of 9)."
    )


def test_a_session_that_ended_before_it_knew_its_path_is_no_other_condition() -> None:
    results = with_conditions()
    trials = [
        replace(t, conditions=replace(t.conditions, sender=replace(t.conditions.sender, segment_bytes=1200)))
        if t.conditions is not None and t.conditions.sender is not None and t.block == 0 and t.transport == "udp-bbr"
        else t
        for t in results.trials
    ]
    changed = replace(results, trials=trials)
    assert rows_of(changed)["udp-bbr"]["segment"] == "1,472 bytes"
    assert summarise(changed).notes == summarise(results).notes


def test_records_without_conditions_have_no_such_table() -> None:
    assert not [each for each in tables(summarise(lossy())) if each.name == CONDITIONS]


def test_names_from_files_are_printable() -> None:
    results = with_conditions()
    device = replace(DEVICE, qdisc=HOSTILE)
    trials = [
        replace(t, conditions=replace(t.conditions, device=device)) if t.conditions is not None else t
        for t in results.trials
    ]
    assert "\x1b" not in rows_of(replace(results, trials=trials))["note"][""]
