"""What `nettool bench` says while a campaign runs."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from toolkit.cli.app import invoke
from toolkit.comparison.plan import WARM_UP, Plan
from toolkit.comparison.record_file import Record
from toolkit.comparison.records import Results, Trial
from toolkit.units import parse_duration_ns

Measured = Callable[[Plan, Callable[[Record], None], Results | None, object], Results]


def timed_trial(plan: Plan, block: int, position: int) -> Trial:
    """A trial of the first transport that took 10 s, 9 s of which were measured."""
    return Trial(
        block=block,
        position=position,
        transport=plan.settings[0].label,
        path=plan.paths[0].label,
        payload_bytes=0,
        verified=True,
        seconds=9.0,
        goodput_bps=1e6,
        elapsed_s=10.0,
    )


@pytest.fixture
def show_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Measured], str]:
    """What a campaign over a remote path, which is measured so, shows on a terminal while it runs."""

    def shown(measured: Measured) -> str:
        monkeypatch.setattr("toolkit.api.comparing.run", measured)
        monkeypatch.setattr("toolkit.cli.bench.stderr_is_terminal", lambda: True)
        command = ["bench", "remote", "127.0.0.1", "--open", "--repeat", "9", "--output", "/dev/null"]
        assert invoke([*command, "--transports", "tcp,udp", "--no-control"]) == 0
        return capsys.readouterr().err

    return shown


def test_the_time_left_is_that_of_trials_as_long_as_suits_the_path(show_progress: Callable[[Measured], str]) -> None:
    """The plan of the command line supposes the shortest time; the first trials were expected to take that."""

    def measured(plan: Plan, write: Callable[[Record], None], _done: Results | None, _on_wait: object) -> Results:
        campaign, trial = replace(plan.campaign("memory"), time_s=9.0), timed_trial(plan, WARM_UP, 0)
        write(campaign)
        write(trial)
        return Results(campaign, [trial])

    found = re.search(r"1/20, (.+) left", show_progress(measured))
    assert found is not None
    assert parse_duration_ns(found[1].replace(" ", "")) / 1e9 == pytest.approx(19 * 10.0, rel=0.1)


def test_an_attempt_that_is_repeated_is_told_and_does_not_count(show_progress: Callable[[Measured], str]) -> None:
    def measured(plan: Plan, write: Callable[[Record], None], _done: Results | None, _on_wait: object) -> Results:
        campaign = replace(plan.campaign("memory"), time_s=9.0)
        attempt, trial = replace(timed_trial(plan, 0, 0), is_repeated=True), timed_trial(plan, 0, 1)
        for record in (campaign, attempt, trial):
            write(record)
        return Results(campaign, [trial], repeated=[attempt])

    lines = show_progress(measured).splitlines()
    (told,) = [line for line in lines if "repeated" in line]
    assert told.endswith(": repeated, because the hypervisor took processors")
    assert [line.partition(",")[0] for line in lines if " left " in line] == ["1/20"]
