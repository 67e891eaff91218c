"""The charts of `nettool bench --watch`."""

import io
import re
from dataclasses import replace

import pytest

from toolkit.cli.trial_charts import TrialCharts, trial_charts
from toolkit.comparison.records import Trial, TrialSeries

T_S = [number / 50 for number in range(51)]
TRIAL = Trial(
    block=0,
    position=3,
    transport="udp-bbr",
    path="100 Mbit/s, 40 ms, 1% loss",
    payload_bytes=0,
    verified=True,
    seconds=1.0,
    goodput_bps=9e6,
    retransmitted_packets=7,
    elapsed_s=12.5,
    series=TrialSeries(
        T_S, [t_s * 1e6 for t_s in T_S], [None, *(5e5 for _ in T_S[1:])], [None, None, *(40.0 for _ in T_S[2:])]
    ),
)


def test_a_trial_is_shown_with_its_course_and_goodput() -> None:
    goodput, round_trip, window, resent = TrialCharts().add(TRIAL)
    assert (goodput.name, goodput.newest) == ("udp-bbr: goodput", "9 Mbit/s")
    assert goodput.values == pytest.approx([8e6] * (len(T_S) - 1))
    assert (round_trip.newest, round_trip.times_s[0], round_trip.to_s) == ("40 ms", T_S[2], 1.0)
    assert (window.newest, window.times_s[0]) == ("488.3 KiB", T_S[1])
    assert (resent.newest, resent.values) == ("7", [7.0])


def test_what_was_sent_again_is_that_of_all_trials_of_the_same_kind() -> None:
    shown = TrialCharts()
    later = replace(TRIAL, retransmitted_packets=9, elapsed_s=20.0)
    found = [shown.add(trial)[3] for trial in (TRIAL, replace(TRIAL, transport="tcp-cubic"), later)]
    assert [list(series.values) for series in found] == [[7.0], [7.0], [7.0, 9.0]]
    assert found[2].times_s == [12.5, 20.0]


@pytest.mark.parametrize("series", [None, TrialSeries([0.0], [0.0], [None], [None])])
def test_a_trial_without_a_course_has_no_charts(series: TrialSeries | None) -> None:
    assert TrialCharts().add(replace(TRIAL, series=series)) == []


def test_a_course_of_which_nothing_is_known_but_the_time_is_drawn() -> None:
    unknown = TrialSeries([0.0, 1.0], [None, None], [None, None], [None, None])
    assert [series.values for series in TrialCharts().add(replace(TRIAL, series=unknown))[:3]] == [[0.0]] * 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("is_watched", "lines", "is_drawn"), [(True, 30, True), (True, 12, False), (False, 30, False)])
def test_charts_are_drawn_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, is_watched: bool, lines: int, is_drawn: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    for name, value in (("COLUMNS", "80"), ("LINES", str(lines)), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    with trial_charts(is_watched) as draw:
        draw(TRIAL)
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert ("udp-bbr: goodput: 9 Mbit/s" in shown) == is_drawn
    assert ("packets sent again: 7" in shown) == is_drawn
