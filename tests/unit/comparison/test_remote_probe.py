"""What is said of a path to another machine, and the time of trials that follows from it."""

from dataclasses import replace

import pytest

from toolkit.channel import Address
from toolkit.comparison.endpoint_result import EndpointResult, Samples
from toolkit.comparison.paths import remote
from toolkit.comparison.plan import Plan
from toolkit.comparison.records import Probe
from toolkit.comparison.remote_probe import Transfer, fitting_time_s, probe_remote
from toolkit.comparison.scenario import Scenario
from toolkit.errors import UnreachableError

FAR = remote("far")


def delivering(rate_bps: float) -> Samples:
    """What arrives at this rate, after a second of slow start."""
    t_s = [number / 10 for number in range(21)]
    delivered = [max(0.0, t - 0.9) * rate_bps / 8 for t in t_s]
    return Samples(t_s, delivered, *([0.0] * len(t_s) for _ in range(6)))


def way(rate_bps: float, sent: int, lost: int, dropped: int = 0) -> Transfer:
    """A direction that lets a transfer of any kind have these figures; `dropped` are among the lost, at the socket."""

    def transfer(asked_bps: float | None, _seconds: float) -> EndpointResult:
        counters = {"packets_lost": lost + 1, "packets_spuriously_lost": 1, "peer_socket_drops": dropped}
        return EndpointResult(
            series=delivering(asked_bps or rate_bps), rtt_min_ms=40.0, packets_sent=sent, counters=counters
        )

    return transfer


def test_each_direction_has_the_rate_and_the_loss_of_what_went_this_way() -> None:
    probe = probe_remote(FAR, 45.0, way(80e6, sent=2000, lost=10), way(20e6, sent=1000, lost=0))
    assert (probe.rate_bps, probe.loss) == (pytest.approx(80e6), 0.005)
    assert (probe.rate_back_bps, probe.loss_back) == (pytest.approx(20e6), 0.0)
    assert probe.rtt_ms is not None
    assert probe.rtt_ms.median == 40.0
    assert probe.text == (
        "80 Mbit/s from here, 20 Mbit/s to here; round trip 40 ms; "
        "loss 0.5% (0.2% to 0.9%) from here and 0% (0% to 0.4%) to here"
    )


def test_of_a_reverse_path_the_figures_are_those_of_the_way_to_here() -> None:
    path = remote("far", is_reverse=True)
    probe = probe_remote(path, 45.0, way(20e6, sent=1000, lost=0), way(80e6, sent=2000, lost=10))
    assert (probe.path, probe.rate_bps, probe.loss) == ("far, reverse", pytest.approx(20e6), 0.0)
    assert probe.text.startswith("80 Mbit/s from here, 20 Mbit/s to here; ")


def test_what_a_socket_dropped_is_not_lost_by_the_path() -> None:
    probe = probe_remote(FAR, 45.0, way(80e6, 2000, lost=10, dropped=10), way(80e6, 1000, lost=10, dropped=12))
    assert (probe.loss, probe.loss_back) == (0.0, 0.0)


@pytest.mark.parametrize("sent", [0, -5])
def test_a_count_that_cannot_be_is_no_loss(sent: int) -> None:
    """The other machine reports it, and may report anything."""
    probe = probe_remote(FAR, 45.0, way(80e6, 2000, lost=0), way(80e6, sent, lost=0))
    assert (probe.loss, probe.loss_back) == (0.0, None)
    assert probe.text.endswith("loss 0% (0% to 0.2%) from here")


def test_the_second_transfer_of_a_direction_fills_no_queue_and_both_last_many_round_trips() -> None:
    asked: list[tuple[float | None, float]] = []

    def transfer(rate_bps: float | None, seconds: float) -> EndpointResult:
        asked.append((rate_bps, seconds))
        return way(80e6, 100, 0)(rate_bps, seconds)

    probe_remote(FAR, 100.0, transfer, way(80e6, 100, 0))
    assert asked == [(None, 2.0), (pytest.approx(20e6), 2.0)]
    asked.clear()
    probe_remote(FAR, None, way(80e6, 100, 0), transfer)
    assert asked == [(None, 0.5), (pytest.approx(20e6), 0.5)]


def test_what_comes_after_the_time_of_a_transfer_does_not_lower_its_rate() -> None:
    def transfer(rate_bps: float | None, seconds: float) -> EndpointResult:
        series = Samples([0.0, 0.2, 0.4, 9.0], [0.0, 2e5, 4e5, 5e5], *([0.0] * 4 for _ in range(6)))
        return replace(way(80e6, 100, 0)(rate_bps, seconds), series=series)

    assert probe_remote(FAR, 1.0, transfer, transfer).rate_bps == pytest.approx(8e6)


def test_what_a_busy_machine_saw_after_the_time_is_a_rate_too() -> None:
    def transfer(rate_bps: float | None, seconds: float) -> EndpointResult:
        series = Samples([0.0, 0.9], [0.0, 9e5], *([0.0] * 2 for _ in range(6)))
        return replace(way(80e6, 100, 0)(rate_bps, seconds), series=series)

    probe = probe_remote(FAR, 1.0, transfer, transfer)
    assert (probe.rate_bps, probe.rate_back_bps) == (8e6, 8e6)


def test_a_machine_that_waits_in_the_second_half_is_no_slow_path() -> None:
    """The second transfer, at a quarter of the rate, would take minutes."""
    asked: list[float | None] = []

    def transfer(rate_bps: float | None, seconds: float) -> EndpointResult:
        asked.append(rate_bps)
        t_s, delivered = [0.0, 0.1, 0.2, 0.3, 0.5], [0.0, 2e5, 5e5, 5e5, 5e5 + 1_472]
        series = Samples(t_s, delivered, *([0.0] * len(t_s) for _ in range(6)))
        return replace(way(80e6, 100, 0)(rate_bps, seconds), series=series)

    probe = probe_remote(FAR, 1.0, transfer, way(80e6, 100, 0))
    assert probe.rate_bps == pytest.approx((5e5 + 1_472) * 8 / 0.5, rel=1e-3)
    assert asked == [None, pytest.approx(probe.rate_bps / 4)]


def unreachable(_rate_bps: float | None, _seconds: float) -> EndpointResult:
    raise UnreachableError("no answer over UDP")


def test_a_path_without_udp_is_said_to_be_one() -> None:
    probe = probe_remote(FAR, 45.0, unreachable, unreachable)
    assert probe.text == "round trip 45 ms; UDP could not be measured (no answer over UDP)"
    assert (probe.rate_bps, probe.rate_back_bps, probe.loss, probe.loss_back) == (None, None, None, None)


def test_a_direction_that_was_measured_stays_known_when_the_other_one_fails() -> None:
    probe = probe_remote(FAR, 45.0, way(80e6, 2000, lost=0), unreachable)
    assert (probe.rate_bps, probe.rate_back_bps) == (pytest.approx(80e6), None)
    assert probe.text.startswith(
        "80 Mbit/s from here; round trip 40 ms; loss 0% (0% to 0.2%) from here; the rest could not"
    )


def test_a_rate_stays_known_when_the_second_transfer_of_its_direction_fails() -> None:
    def transfer(rate_bps: float | None, seconds: float) -> EndpointResult:
        if rate_bps is not None:
            raise UnreachableError("no answer over UDP")
        return way(80e6, 2000, lost=0)(rate_bps, seconds)

    def never(_rate_bps: float | None, _seconds: float) -> EndpointResult:
        pytest.fail("the other direction would wait for its timeouts too")

    probe = probe_remote(FAR, 45.0, transfer, never)
    assert (probe.rate_bps, probe.rate_back_bps, probe.loss) == (pytest.approx(80e6), None, None)
    assert probe.text == "80 Mbit/s from here; round trip 45 ms; the rest could not be measured (no answer over UDP)"


def remote_plan(**options: object) -> Plan:
    return Scenario("remote", address=Address("192.0.2.1", 9000), **options).plan()  # type: ignore[arg-type]


def measured(rate_bps: float, rtt_ms: float) -> Probe:
    return probe_remote(FAR, rtt_ms, way(rate_bps, 1000, 0), way(1e6, 1000, 0))


@pytest.mark.parametrize(("rate_bps", "least_s", "most_s"), [(1e6, 1.0, 1.0), (100e6, 1.5, 3.0), (10e9, 3.0, 6.0)])
def test_a_trial_lasts_ten_times_as_long_as_slow_start(rate_bps: float, least_s: float, most_s: float) -> None:
    plan = remote_plan(repeats=8)
    assert plan.is_time_open
    assert least_s <= fitting_time_s(plan, measured(rate_bps, 40.0)) <= most_s


def test_the_budget_limits_the_time_of_a_trial() -> None:
    probe = measured(10e9, 40.0)
    long_s, short_s, none_s = (fitting_time_s(remote_plan(budget=budget), probe) for budget in ("10min", "2min", "1s"))
    assert long_s > short_s > none_s
    assert none_s == 1.0  # a pilot runs whole in any case
    plan = remote_plan(budget="2min")
    assert plan.trial_count * short_s < 120


@pytest.mark.parametrize("options", [{"sizes": ("1MiB",)}, {"time": "2s"}])
def test_a_size_or_a_time_that_is_given_stays(options: dict[str, object]) -> None:
    assert not remote_plan(**options).is_time_open
