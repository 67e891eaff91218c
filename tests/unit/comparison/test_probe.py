"""The record of a link's check, for checks with a known outcome."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolkit.comparison import probe as probe_module
from toolkit.comparison.paths import BenchPath, from_options
from toolkit.comparison.probe import probe
from toolkit.comparison.records import Probe, RoundTrips
from toolkit.emulator.check import DirectionFigures, Finding, LinkCheck

LINK = from_options("link", {"rate": "10Mbit"}, seed=1)
LAN = from_options("lan", {}, seed=1)
FORWARD = DirectionFigures(rate_bps=9.9e6, loss=0.0, cpu_share=0.1)


def outcome(is_met: bool | None) -> LinkCheck:
    return LinkCheck((Finding("rate", "10 Mbit/s", "9.9 Mbit/s", is_met),), (40_000_000, 41_000_000), (FORWARD,))


def probed(path: BenchPath, checks: list[LinkCheck], monkeypatch: pytest.MonkeyPatch) -> Probe:
    monkeypatch.setattr(probe_module, "check", lambda *_: checks.pop(0))
    link = SimpleNamespace(spec=path.spec, notice=None, bottleneck=lambda: None)
    return probe(path, cast(Any, link))


def test_a_link_that_meets_its_specification_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [outcome(True), outcome(False)]
    recorded = probed(LINK, checks, monkeypatch)
    assert len(checks) == 1
    assert (recorded.is_met, recorded.rate_bps, recorded.loss, recorded.emulator_cpu_share) == (True, 9.9e6, 0.0, 0.1)
    assert recorded.rtt_ms == RoundTrips(40.5, pytest.approx(40.99))
    assert recorded.text == "rate: 9.9 Mbit/s (requested: 10 Mbit/s)"


@pytest.mark.parametrize("second", [True, False])
def test_a_link_that_misses_it_is_checked_again(second: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = probed(LINK, [outcome(False), outcome(second)], monkeypatch)
    assert recorded.is_met is second
    assert ("NOT met" in recorded.text) is not second


def test_a_lan_with_a_rate_is_judged_like_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = from_options("lan", {"rate": "1Gbit"}, seed=1)
    assert probed(limited, [outcome(False), outcome(True)], monkeypatch).is_met is True
    assert probed(limited, [outcome(False), outcome(False)], monkeypatch).is_met is False


def test_nothing_is_judged_where_nothing_was_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probed(LAN, [outcome(True)], monkeypatch).is_met is None
    assert probed(LINK, [outcome(None)], monkeypatch).is_met is None


def test_the_processor_alone_does_not_show_that_a_link_is_as_specified(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Finding("CPU", "under 90% of a core", "20%", True)
    only_cpu = LinkCheck((*outcome(None).findings, cpu), (40_000_000,), (FORWARD,))
    recorded = probed(LINK, [only_cpu], monkeypatch)
    assert recorded.is_met is None
    assert "NOT met" not in recorded.text


def test_without_a_reply_the_round_trip_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = LinkCheck(outcome(True).findings, (), (FORWARD,))
    assert probed(LINK, [silent], monkeypatch).rtt_ms is None
