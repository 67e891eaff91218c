"""How a check judges its figures; the expected arrivals are compared with the models that carry the packets."""

import math

import pytest

from toolkit.emulator.check import (
    FULL_CHECK,
    QUICK_CHECK,
    Finding,
    LinkCheck,
    expected_arrival_share,
    judge_loss,
    judge_rate,
    judge_round_trips,
)
from toolkit.netmodel.path import PathModel
from toolkit.netmodel.profiles import profile
from toolkit.netmodel.spec import LAN, BurstLoss, LinkChange, LinkSpec, PathSpec

MS = 1_000_000
PACKETS = 2000
STEADY = PathSpec(rate_bps=20e6, delay_ns=5 * MS)
UNSTEADY = [
    PathSpec(rate_bps=20e6, burst=BurstLoss(80, 20)),
    PathSpec(trace_ms=(1, 2)),
    PathSpec(rate_bps=20e6, changes=(LinkChange(MS, rate_bps=1e6),)),
]


@pytest.mark.parametrize(
    ("path", "share", "spread"),
    [
        (PathSpec(), 1.0, 0.0),
        (PathSpec(loss=1.0), 0.0, 0.0),
        (PathSpec(duplicate=1.0), 2.0, 0.0),
        (PathSpec(loss=0.5), 0.5, 3.29 * 0.5 / PACKETS**0.5),
        (PathSpec(loss=0.1, corrupt=0.1), 0.81, 3.29 * (0.81 * 0.19 / PACKETS) ** 0.5),
        (PathSpec(duplicate=0.5), 1.5, 3.29 * 0.5 / PACKETS**0.5),
        (PathSpec(burst=BurstLoss(80, 20)), 0.8, 3.29 * 0.4 / PACKETS**0.5),
    ],
)
def test_expected_arrivals_and_their_spread(path: PathSpec, share: float, spread: float) -> None:
    assert expected_arrival_share(path, PACKETS) == pytest.approx((share, spread))


@pytest.mark.parametrize("seed", range(20))
def test_the_models_stay_within_the_spread(seed: int) -> None:
    path = PathSpec(loss=0.05, corrupt=0.05, duplicate=0.1)
    model = PathModel(path, 0, seed)
    model.handle_packets(0, 1500, PACKETS)
    arrived = sum(fate.packets for fate in model.poll_fates(0) if not fate.drop and fate.corrupt_at is None)
    share, spread = expected_arrival_share(path, PACKETS)
    assert abs(arrived / PACKETS - share) <= spread


@pytest.mark.parametrize(
    ("loss", "is_met"), [(0.05, True), (0.066, True), (0.034, True), (0.068, False), (0.032, False)]
)
def test_loss_is_judged_by_its_binomial_interval(loss: float, is_met: bool) -> None:
    finding = judge_loss("near -> far", PathSpec(loss=0.05), loss, 2000)
    assert (finding.metric, finding.requested, finding.is_met) == ("loss, near -> far", "5%", is_met)
    assert finding.measured.endswith("of 2000 packets")


@pytest.mark.parametrize(("lost", "is_met"), [(2, True), (3, False)])
def test_a_lossless_path_may_lose_two_stray_packets(lost: int, is_met: bool) -> None:
    assert judge_loss("x", STEADY, lost / 1000, 1000).is_met is is_met


@pytest.mark.parametrize(
    ("path", "factor"),
    [(STEADY, 1.0), (PathSpec(rate_bps=20e6, loss=1.0), 0.0), (PathSpec(rate_bps=20e6, duplicate=1.0), 2.0)],
)
def test_the_rate_is_judged_by_the_share_that_arrives(path: PathSpec, factor: float) -> None:
    for relative, is_met in ((1.0, True), (1.019, True), (0.981, True), (1.021, not factor), (0.979, not factor)):
        finding = judge_rate("x", path, 20e6, 20e6 * factor * relative, 1500, FULL_CHECK)
        assert finding.is_met is is_met, finding
    assert judge_rate("x", STEADY, 20e6, 19.1e6, 1500, QUICK_CHECK).is_met
    assert not judge_rate("x", STEADY, 20e6, 18.9e6, 1500, QUICK_CHECK).is_met


@pytest.mark.parametrize("path", UNSTEADY)
def test_a_short_look_does_not_judge_what_varies_over_time(path: PathSpec) -> None:
    assert judge_loss("x", path, 0.9, 1000).is_met is None
    assert judge_rate("x", path, 20e6, 1.0, 1500, FULL_CHECK).is_met is None


def test_what_was_specified_of_a_link_with_changes_is_how_it_begins() -> None:
    changing = UNSTEADY[2]
    assert judge_loss("x", changing, 0.0, 1000).requested == "0% at first"
    assert judge_rate("x", changing, 20e6, 20e6, 1500, FULL_CHECK).requested == "20 Mbit/s at first"
    median, _ = judge_round_trips(LinkSpec(PathSpec(delay_ns=MS), changing), [MS] * 200, FULL_CHECK)
    assert median.requested.endswith(" ms at first")


def test_a_path_without_a_rate_has_no_rate_to_miss() -> None:
    assert judge_rate("x", PathSpec(), None, 1e9, 1500, FULL_CHECK) == Finding(
        "rate, x", "no limit", "1 Gbit/s", None, is_requested=False
    )


def test_round_trips_are_judged_by_median_and_tail() -> None:
    spec = LinkSpec(STEADY, STEADY)
    base_ns = 10 * MS + 2 * 84 * 8 * 50  # two transmissions of an echo at 20 Mbit/s
    tail = [base_ns + 2 * MS] * 3
    median, p99 = judge_round_trips(spec, [base_ns] * 197 + tail, FULL_CHECK)
    assert (median.is_met, p99.is_met) == (True, False)
    median, p99 = judge_round_trips(spec, [base_ns + 400_000] * 200, FULL_CHECK)
    assert (median.is_met, p99.is_met) == (False, True)
    median, p99 = judge_round_trips(spec, [base_ns - 400_000] * 200, FULL_CHECK)  # early
    assert (median.is_met, p99.is_met) == (False, False)
    (median,) = judge_round_trips(spec, [base_ns + 900_000] * 97 + tail, QUICK_CHECK)
    assert median.is_met


@pytest.mark.parametrize(
    "spec",
    [
        LinkSpec(kind=LAN),
        LinkSpec(PathSpec(jitter_ns=MS)),
        LinkSpec(PathSpec(), PathSpec(reorder=0.1)),
        *(LinkSpec(path) for path in UNSTEADY[1:]),
    ],
)
def test_round_trips_without_a_fixed_delay_are_not_judged(spec: LinkSpec) -> None:
    assert [finding.is_met for finding in judge_round_trips(spec, [MS] * 200, FULL_CHECK)] == [None, None]


def test_too_few_echoes_are_not_judged() -> None:
    (finding,) = judge_round_trips(LinkSpec(STEADY, STEADY), [10 * MS] * 9, FULL_CHECK)
    assert (finding.measured, finding.is_met) == ("9 of 200 echoes answered", None)


def test_the_verdict_names_what_is_missed() -> None:
    met, unjudged = Finding("RTT", "1 ms", "1 ms", True), Finding("rate, x", "no limit", "2 Gbit/s", None, False)
    missed = Finding("rate, x", "90 Gbit/s", "1 Gbit/s", False)
    assert LinkCheck((met, unjudged), (), ()).verdict == "this machine carries this link"
    check = LinkCheck((met, missed), (), ())
    assert not check.is_met
    assert check.verdict == "this machine cannot carry the requested link: rate, x 1 Gbit/s instead of 90 Gbit/s"


def test_nothing_is_claimed_of_a_link_whose_requested_figures_are_not_judged() -> None:
    rtt, loss = Finding("RTT", "1 ms", "9 ms", None), Finding("loss, x", "0% and bursts", "2%", None)
    cpu, missed = Finding("CPU, x", "under 90%", "20%", True), Finding("CPU, y", "under 90%", "99%", False)
    check = LinkCheck((rtt, loss, cpu), (), ())
    assert (check.is_met, check.not_judged) == (None, ["RTT", "loss, x"])
    assert check.verdict == "undecided: this check cannot judge RTT; loss, x"
    assert LinkCheck((rtt, missed), (), ()).is_met is False


def test_starlink_is_undecided_whatever_was_measured() -> None:
    spec = profile("starlink").spec
    findings = [
        *judge_round_trips(spec, [spec.rtt_ns] * 200, FULL_CHECK),
        judge_loss("x", spec.forward, 0.9, 1000),
        judge_rate("x", spec.forward, spec.forward.mean_rate_bps, 1e6, 1500, FULL_CHECK),
        Finding("CPU, x", "under 90%", "20%", True),
    ]
    assert LinkCheck(tuple(findings), (), ()).is_met is None


def test_a_finding_keeps_its_json_names() -> None:
    assert Finding("a", "b", "c", None).to_json() == {"what": "a", "asked": "b", "measured": "c", "is_met": None}


def test_confidence_intervals_shrink_with_the_packets() -> None:
    spreads = [expected_arrival_share(PathSpec(loss=0.1), packets)[1] for packets in (100, 10_000)]
    assert spreads[0] / spreads[1] == pytest.approx(math.sqrt(100))
