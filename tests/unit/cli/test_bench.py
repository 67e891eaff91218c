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


def test_the_time_left_is_that_of_trials_as_long_as_suits_the_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan of the command line supposes the shortest time; the first trials were expected to take that."""

    def measured(plan: Plan, write: Callable[[Record], None], _done: Results | None, _on_wait: object) -> Results:
        campaign = replace(plan.campaign("memory"), time_s=9.0)
        trial = Trial(
            block=WARM_UP,
            position=0,
            transport=plan.settings[0].label,
            path=plan.paths[0].label,
            payload_bytes=0,
            verified=True,
            seconds=9.0,
            goodput_bps=1e6,
            elapsed_s=10.0,
        )
        write(campaign)
        write(trial)
        return Results(campaign, [trial])

    monkeypatch.setattr("toolkit.api.comparing.run", measured)
    monkeypatch.setattr("toolkit.cli.bench.stderr_is_terminal", lambda: True)
    command = ["bench", "remote", "127.0.0.1", "--open", "--repeat", "9", "--output", "/dev/null"]
    assert invoke([*command, "--transports", "tcp,udp", "--no-control"]) == 0
    found = re.search(r"1/20, (.+) left", capsys.readouterr().err)
    assert found is not None
    assert parse_duration_ns(found[1].replace(" ", "")) / 1e9 == pytest.approx(19 * 10.0, rel=0.1)
