"""The charts of --watch."""

import re

import pytest

from toolkit.channel import Statistic
from toolkit.cli.watch import INTERVAL_S, MIN_COLUMNS, MIN_LINES, PERIOD_S, History, charts


class Transfer:
    """A transfer at a steady rate, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.resent_packets = 0
        self.history = History(self.statistics, lambda: self.now_s)

    def statistics(self) -> dict[str, Statistic]:
        return {
            "rtt_ms": 40.0,
            "congestion_window_bytes": 500_000,
            "packets_retransmitted": self.resent_packets,
            "congestion_control": "bbr",
        }

    def run(self, seconds: float, bytes_per_s: int = 1_000_000, resent_per_s: int = 0) -> None:
        for _ in range(round(seconds / INTERVAL_S)):
            self.now_s += INTERVAL_S
            self.resent_packets += round(resent_per_s * INTERVAL_S)
            self.arrived_bytes = int(getattr(self, "arrived_bytes", 0) + bytes_per_s * INTERVAL_S)
            assert self.history.sample(self.arrived_bytes)


def test_rates_are_those_of_the_transfer() -> None:
    transfer = Transfer()
    transfer.run(10, bytes_per_s=1_000_000, resent_per_s=20)
    goodput, round_trip, window, resent = transfer.history.series()
    assert goodput.values == pytest.approx([8e6] * len(goodput.values))
    assert goodput.newest == "8 Mbit/s"
    assert round_trip.newest == "40 ms"
    assert window.values[-1] == 500_000
    assert resent.values == pytest.approx([20] * len(resent.values))


def test_an_outage_brings_the_goodput_to_zero() -> None:
    transfer = Transfer()
    transfer.run(5)
    transfer.run(5, bytes_per_s=0)
    goodput = transfer.history.series()[0]
    assert goodput.values[-1] == 0
    assert goodput.highest == "8 Mbit/s"


def test_a_sample_is_taken_once_an_interval() -> None:
    transfer = Transfer()
    transfer.run(1)
    transfer.now_s += INTERVAL_S / 2
    assert not transfer.history.sample(0)


def test_there_is_nothing_to_draw_before_two_samples() -> None:
    transfer = Transfer()
    transfer.run(INTERVAL_S)
    assert transfer.history.series() == []


def test_charts_reach_back_a_minute() -> None:
    transfer = Transfer()
    transfer.run(5 * PERIOD_S)
    times_s = transfer.history.series()[0].times_s
    assert times_s[-1] - times_s[0] == pytest.approx(PERIOD_S, abs=3 * INTERVAL_S)


@pytest.mark.parametrize(("columns", "lines"), [(80, 20), (120, 40), (60, 17)])
def test_a_drawing_has_the_size_of_its_place_and_names_every_chart(columns: int, lines: int) -> None:
    transfer = Transfer()
    transfer.run(30, resent_per_s=4)
    drawing = re.sub(r"\x1b\[[0-9;]*m", "", charts(transfer.history.series(), columns, lines)).rstrip("\n").split("\n")
    assert (len(drawing), max(map(len, drawing))) == (lines, columns)
    text = "\n".join(drawing)
    for title in ("goodput: 8 Mbit/s", "round trip: 40 ms", "congestion window: 488.3 KiB", "packets sent again: 4 /s"):
        assert title in text


def test_a_small_place_has_no_charts_and_a_drawing_lasts_until_the_next_sample() -> None:
    transfer = Transfer()
    transfer.run(5)
    transfer.now_s += INTERVAL_S
    assert transfer.history.drawing(5_000_000, MIN_COLUMNS, MIN_LINES - 1) == ""
    assert transfer.history.drawing(5_000_000, MIN_COLUMNS - 1, MIN_LINES) == ""
    drawing = transfer.history.drawing(5_000_000, MIN_COLUMNS, MIN_LINES)
    assert "goodput" in drawing
    assert transfer.history.drawing(9_000_000, MIN_COLUMNS, MIN_LINES) is drawing
