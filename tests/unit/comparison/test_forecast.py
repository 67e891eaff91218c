"""Estimated times against simulated transfers, and against a campaign as it proceeds."""

from collections.abc import Iterator
from typing import Any

import pytest

from toolkit.comparison.forecast import USUAL_START_S, Forecast, transfer_seconds
from toolkit.comparison.paths import LINK, from_options
from toolkit.comparison.plan import Plan, schedule
from toolkit.comparison.records import Trial
from toolkit.comparison.scenario import Scenario
from toolkit.simulator.simulator import Experiment, FlowSpec, run

ANY_BPS = 1e12


def link_plan(loss: str = "0%", **options: object) -> Plan:
    given = {"transports": "tcp-cubic,udp-bbr", "control": False, "repeats": 4, "sizes": ("1MiB", "4MiB")} | options
    return Scenario("link", link={"loss": [loss]}, **given).plan()  # type: ignore[arg-type]


def trials_of(plan: Plan, seconds_each: float, opening_s: float = 0.0) -> Iterator[Trial]:
    """The campaign's pilot, each trial of which takes the same time; a path is opened first."""
    now_s, position = 0.0, 0
    for path in plan.paths:
        now_s += opening_s
        for spec in schedule(plan.all_settings, plan.sizes, plan.repeats, plan.seed):
            now_s += seconds_each
            kept = spec.setting.label, path.label, spec.payload_bytes
            yield Trial(spec.block, position, *kept, True, 1.0, 1e6, elapsed_s=now_s)
            position += 1


@pytest.mark.parametrize("control", ["cubic", "bbr"])
@pytest.mark.parametrize(
    ("rtt", "loss", "size_bytes"), [("10ms", "0%", 1 << 20), ("10ms", "2%", 1 << 20), ("80ms", "2%", 1 << 20)]
)
def test_a_simulated_transfer_takes_what_was_estimated(control: str, rtt: str, loss: str, size_bytes: int) -> None:
    path = from_options(LINK, {"rate": "10Mbit", "rtt": rtt, "loss": loss}, seed=1)
    assert path.spec is not None
    flow = run(Experiment(path.spec, [FlowSpec(control, size_bytes=size_bytes)])).flows[0]
    took_s = (flow.end_ns - flow.start_ns) / 1e9
    assert transfer_seconds(control, path, size_bytes, ANY_BPS) == pytest.approx(took_s, rel=0.3)


def test_loss_costs_time_with_cubic_and_hardly_any_with_bbr() -> None:
    def seconds(transport: str, loss: str) -> float:
        return Forecast(link_plan(loss, transports=transport, sizes=("16MiB",))).left_s()

    assert seconds("tcp-cubic", "5%") > 5 * seconds("tcp-cubic", "0%")
    assert seconds("udp-bbr", "5%") < 1.2 * seconds("udp-bbr", "0%")


@pytest.mark.parametrize("name", ["udp-rate", "tcp-reno", "udp-rate+plaintext"])
def test_a_transport_keeps_to_its_own_rate(name: str) -> None:
    def seconds_each(rate: str, **options: Any) -> float:
        plan = link_plan(**{"transports": f"{name}={rate}", "sizes": ("1MiB",), **options})
        return Forecast(plan).left_s() / plan.trial_count

    wire_s = 8 * (1 << 20) / 1e6
    assert seconds_each("1Mbit") - seconds_each("1Gbit") == pytest.approx(wire_s, rel=0.1)
    timed: dict[str, Any] = {"sizes": (), "time": "3s"}
    assert seconds_each("1Mbit", **timed) < seconds_each("1Gbit", **timed) + 2
    loopback = Scenario("loopback", transports=f"{name}=1Mbit", sizes=("1MiB",), repeats=4, control=False).plan()
    assert Forecast(loopback).left_s() > loopback.trial_count * wire_s


def test_a_machine_that_starts_processes_slowly_needs_longer() -> None:
    plan = Scenario("loopback", transports="tcp,udp", repeats=4).plan()
    usual_s, busy_s = (Forecast(plan, start_s).left_s() for start_s in (USUAL_START_S, 4 * USUAL_START_S))
    assert busy_s == pytest.approx(4 * usual_s)
    link_s, busy_link_s = (Forecast(link_plan(), start_s).left_s() for start_s in (USUAL_START_S, 4 * USUAL_START_S))
    assert link_s < busy_link_s < 4 * link_s  # the link does not become slower


def test_a_timed_trial_takes_its_time_and_its_start() -> None:
    plan = link_plan(sizes=(), time="3s")
    assert 3 * plan.trial_count < Forecast(plan).left_s() < 4 * plan.trial_count + 10


def test_what_was_measured_replaces_what_was_estimated() -> None:
    """Trials take 20 s each, a hundred times as long as estimated; the opening of the path is no part of that."""
    plan = link_plan()
    trials = list(trials_of(plan, seconds_each=20.0, opening_s=40.0))
    assert len(trials) == plan.trial_count
    for count in range(2, plan.trial_count + 1):
        left_s = 20.0 * (plan.trial_count - count)
        assert Forecast(plan).left_s(trials[:count]) == pytest.approx(left_s, rel=0.3), count
    assert Forecast(plan).left_s(trials) == 0


def test_a_path_that_was_not_reached_yet_is_opened_later() -> None:
    plan = Scenario("link", transports="tcp-cubic", control=False, repeats=4, link={"rtt": ["1ms", "2ms"]}).plan()
    first = [trial for trial in trials_of(plan, 1.0) if trial.path == plan.paths[0].label]
    one = Scenario("link", transports="tcp-cubic", control=False, repeats=4, link={"rtt": ["2ms"]}).plan()
    factor = Forecast(one).left_s([]) / Forecast(plan).left_s(first)
    assert 0.5 < factor < 2
