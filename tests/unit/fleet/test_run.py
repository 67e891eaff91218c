"""A run of a mesh over dask, with invented trials: complete, without collisions, and robust against missing hosts."""

import time
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.fleet import COLLISIONS, invented_fleet, mesh_of, run_mesh, workers_of
from toolkit.comparison.record_file import Record
from toolkit.comparison.summary import summarise
from toolkit.errors import UnreachableError, UsageError
from toolkit.fleet import roster, run
from toolkit.fleet.dask_client import distributed
from toolkit.fleet.run import FleetRun, check_resumed

TEXT = """
transports = ["tcp-cubic", "udp-bbr"]
control = false
time = "1s"
repeats = 2
retries = 1
wait = "10min"
[hosts]
a = "192.0.2.1"
b = "192.0.2.2"
c = "192.0.2.3"
d = "192.0.2.4"
"""
TRIALS = 12 * 2 * 2


def test_every_pair_is_measured_and_no_host_is_ever_in_two_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = mesh_of(tmp_path, TEXT)
    with invented_fleet(monkeypatch, {}), workers_of(mesh) as client:
        results = run_mesh(mesh, tmp_path / "run.jsonl", client)
    assert COLLISIONS == []
    assert not results.outages
    cells = Counter((trial.path, trial.transport, trial.block) for trial in results.trials)
    assert len(cells) == TRIALS
    assert set(cells.values()) == {1}
    assert set(results.campaign.hosts) == set("abcd")
    for one, other in combinations(results.trials, 2):
        shared = set(one.path.split(" to ")) & set(other.path.split(" to "))
        assert one.started_s is not None
        assert other.started_s is not None
        assert one.elapsed_s is not None
        assert other.elapsed_s is not None
        if shared:
            assert one.elapsed_s <= other.started_s + 0.001 or other.elapsed_s <= one.started_s + 0.001
    assert len(summarise(results).rows) == 12 * 2


def test_a_receiver_that_is_missing_is_tried_again_and_then_costs_its_pair_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = mesh_of(tmp_path, TEXT)
    answers = {("a", "b"): ["gone"], ("c", "d"): ["gone"] * 9}
    with invented_fleet(monkeypatch, answers), workers_of(mesh) as client:
        results = run_mesh(mesh, tmp_path / "run.jsonl", client)
    trials = Counter(trial.path for trial in results.trials)
    assert trials.pop("a to b") == 4
    assert "c to d" not in trials
    assert set(trials.values()) == {4}
    assert [(each.path, each.attempt, each.is_final) for each in results.outages if each.path == "c to d"] == [
        ("c to d", 1, False),
        ("c to d", 2, True),
    ]
    assert {(each.host, each.reason) for each in results.outages} == {("b", "gone"), ("d", "gone")}


def test_an_interrupted_run_goes_on_and_measures_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, path = mesh_of(tmp_path, TEXT), tmp_path / "run.jsonl"
    with invented_fleet(monkeypatch, {}), workers_of(mesh) as client:
        with pytest.raises(KeyboardInterrupt):
            run_mesh(mesh, path, client, stop_after=17)
        assert path.read_text().count('"kind": "trial"') == 17
        results = run_mesh(mesh, path, client)
    assert path.read_text().count('"kind": "trial"') == TRIALS == len(results.trials)
    assert path.read_text().count('"kind": "campaign"') == 1
    assert len({trial.position for trial in results.trials}) == TRIALS


def test_a_host_that_never_appears_is_named_and_the_others_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = mesh_of(tmp_path, TEXT)
    real, real_s, skipped_s = roster.Roster.refresh, time.monotonic, [0.0]

    def refresh(self: roster.Roster) -> None:
        real(self)
        if self.present == set("abc"):  # nobody waits for the fourth
            skipped_s[0] = 2 * mesh.wait_s

    clock = SimpleNamespace(monotonic=lambda: real_s() + skipped_s[0], sleep=time.sleep)
    monkeypatch.setattr(roster.Roster, "refresh", refresh)
    monkeypatch.setattr(roster, "time", clock)
    monkeypatch.setattr(run, "time", clock)
    with invented_fleet(monkeypatch, {}), workers_of(mesh, "d") as client:
        results = run_mesh(mesh, tmp_path / "run.jsonl", client)
    assert len(results.trials) == 6 * 2 * 2
    assert {(each.host, each.reason, each.is_final) for each in results.outages} == {("d", "it never appeared", True)}
    assert len(results.outages) == 6


def test_hosts_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = mesh_of(tmp_path, TEXT)
    monkeypatch.setattr(roster, "__version__", "9.9")
    with (
        invented_fleet(monkeypatch, {}),
        workers_of(mesh) as client,
        pytest.raises(UsageError, match=r"cannot take part: it has nettool .*, and this machine 9\.9"),
    ):
        run_mesh(mesh, tmp_path / "run.jsonl", client)
    assert not (tmp_path / "run.jsonl").exists()


def test_one_host_is_no_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = mesh_of(tmp_path, TEXT.replace('"10min"', '"100ms"'))
    with (
        invented_fleet(monkeypatch, {}),
        workers_of(mesh, "b", "c", "d") as client,
        pytest.raises(UnreachableError, match="fewer than two hosts are there"),
    ):
        run_mesh(mesh, tmp_path / "run.jsonl", client)


def test_records_of_another_mesh_are_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = mesh_of(
        tmp_path, TEXT.replace("repeats = 2", "repeats = 1").replace('c = "192.0.2.3"\nd = "192.0.2.4"\n', "")
    )
    with invented_fleet(monkeypatch, {}), workers_of(mesh) as client:
        results = run_mesh(mesh, tmp_path / "run.jsonl", client)
    check_resumed(mesh, results)
    with pytest.raises(UsageError, match="records are of another mesh"):
        check_resumed(mesh_of(tmp_path, TEXT), results)
    with pytest.raises(UsageError, match="or it has changed since"):
        check_resumed(replace(mesh, plan=replace(mesh.plan, repeats=2)), results)


def test_a_scheduler_that_is_lost_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = mesh_of(tmp_path, TEXT)
    records: list[Record] = []
    with invented_fleet(monkeypatch, {}), workers_of(mesh) as client:

        def write(record: Record) -> None:
            records.append(record)
            if len(records) == 3:  # a client that has lost its scheduler cancels all futures
                client.cancel([distributed().Future(key, client) for key in list(client.futures)], force=True)

        with pytest.raises(UnreachableError, match="connection to the dask scheduler is lost"):
            FleetRun(client, mesh, write).run()


def test_two_runs_do_not_share_a_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = mesh_of(tmp_path, TEXT)
    monkeypatch.setattr(run, "RUN_WAIT_S", 0.1)
    refused: list[str] = []
    with invented_fleet(monkeypatch, {}), workers_of(mesh) as client:

        def write(_record: Record) -> None:
            if not refused:
                with pytest.raises(UsageError) as caught:
                    FleetRun(client, mesh, lambda _: None).run()
                refused.append(str(caught.value))

        FleetRun(client, mesh, write).run()
        FleetRun(client, mesh, lambda _: None).run()
    assert "another 'nettool fleet run' uses this scheduler" in refused[0]


def test_the_wait_for_hosts_does_not_count_in_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, path = mesh_of(tmp_path, TEXT), tmp_path / "run.jsonl"
    with invented_fleet(monkeypatch, {}), workers_of(mesh) as client:
        with pytest.raises(KeyboardInterrupt):
            run_mesh(mesh, path, client, stop_after=3)
        await_hosts = FleetRun._await_hosts
        offset_s, real_s = [0.0], time.monotonic

        def late(self: FleetRun) -> None:
            await_hosts(self)
            offset_s[0] = 1000.0

        monkeypatch.setattr(FleetRun, "_await_hosts", late)
        monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: real_s() + offset_s[0], sleep=time.sleep))
        results = run_mesh(replace(mesh, budget_s=900.0), path, client)
    assert len(results.trials) == TRIALS
