"""What a user sees while a campaign waits for quiet processors."""

import pytest

from toolkit.cli import wait_status
from toolkit.cli.wait_status import WaitStatus


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_a_long_wait_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    monkeypatch.setattr(wait_status, "stderr_is_terminal", lambda: is_terminal)
    now_s = 100.0
    status = WaitStatus(lambda: now_s)
    for count, left_s in ((2, 60.0), (20, 59.0), (20, 40.0)):  # three waits with a trial in between
        for number in range(count):
            status(left_s - number / 2)
            now_s += 0.5
        now_s += 5.0
    lines = capsys.readouterr().err.splitlines()
    shown = ["waiting for quiet processors, at most 56 s", "waiting for quiet processors, at most 37 s"]
    assert lines == (shown if is_terminal else [])
