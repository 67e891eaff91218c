"""Parsing of links, named links, and the errors for bad input."""

import pytest

from toolkit.emulator.interfaces import Addresses
from toolkit.emulator.netem import netem_options
from toolkit.errors import UsageError
from toolkit.netmodel.notation import LinkText, link_spec, parse_burst, parse_queue
from toolkit.netmodel.profiles import PROFILES, Profile, profile
from toolkit.netmodel.spec import LAN, BurstLoss, LinkChange, LinkSpec, PathSpec, QueueSpec, queue_limit_bytes

MS = 1_000_000


def test_rate_and_rtt_apply_to_both_directions_and_loss_to_one() -> None:
    spec = link_spec(LinkText(rate="100Mbit", rtt="40ms", loss="1%", seed=7, mtu=1400))
    assert spec == LinkSpec(
        PathSpec(rate_bps=1e8, delay_ns=20 * MS, loss=0.01),
        PathSpec(rate_bps=1e8, delay_ns=20 * MS),
        mtu_bytes=1400,
        seed=7,
    )
    assert spec.rtt_ns == 40 * MS


def test_impairments_may_apply_to_both_directions() -> None:
    spec = link_spec(LinkText(loss="1%", jitter="2ms", duplicate="2%", corrupt="3%", reorder="4%", both_ways=True))
    assert spec.forward == spec.backward
    assert spec.backward == PathSpec(loss=0.01, jitter_ns=2 * MS, duplicate=0.02, corrupt=0.03, reorder=0.04)


def test_the_backward_path_may_have_its_own_rate_or_trace() -> None:
    assert link_spec(LinkText(rate="10Mbit", rate_back="50Mbit")).backward.rate_bps == 5e7
    mixed = link_spec(LinkText(trace=(1, 2), rate_back="5Mbit"))
    assert (mixed.forward.trace_ms, mixed.backward.rate_bps, mixed.backward.trace_ms) == ((1, 2), 5e6, None)
    assert link_spec(LinkText(trace=(1, 2))).backward.trace_ms == (1, 2)


def test_the_round_trip_may_be_divided_unevenly() -> None:
    spec = link_spec(LinkText(rtt="40ms", delay_back="5ms"))
    assert (spec.forward.delay_ns, spec.backward.delay_ns, spec.rtt_ns) == (35 * MS, 5 * MS, 40 * MS)
    with pytest.raises(UsageError, match="at most `rtt`"):
        link_spec(LinkText(rtt="40ms", delay_back="41ms"))


def test_options_modify_a_profile() -> None:
    starlink = profile("starlink").spec
    changed = link_spec(LinkText(rtt="60ms", queue="codel"), starlink)
    assert changed.forward.rate_bps == starlink.forward.rate_bps
    assert changed.forward.burst == starlink.forward.burst
    assert changed.rtt_ns == 60 * MS
    assert changed.backward.queue.codel
    assert link_spec(LinkText(), starlink) == starlink


def test_changes_are_sorted_by_time_and_loss_applies_to_one_direction() -> None:
    spec = link_spec(LinkText(rate="1Mbit", changes=("at 5s rate 2Mbit", "1s loss 3%", "at 2s rtt 10ms")))
    second = 1000 * MS
    assert spec.forward.changes == (
        LinkChange(second, loss=0.03),
        LinkChange(2 * second, delay_ns=5 * MS),
        LinkChange(5 * second, rate_bps=2e6),
    )
    assert spec.backward.changes[0] == LinkChange(second)


@pytest.mark.parametrize(
    ("text", "queue"),
    [
        ("500kB", QueueSpec(limit_bytes=500_000)),
        ("50ms", QueueSpec(limit_ns=50 * MS)),
        ("1.5s", QueueSpec(limit_ns=1500 * MS)),
        ("codel", QueueSpec(codel=True)),
        ("codel,1MB,ecn", QueueSpec(codel=True, limit_bytes=10**6, ecn=True)),
        ("200kB,ecn=5ms", QueueSpec(limit_bytes=200_000, ecn_threshold_ns=5 * MS)),
    ],
)
def test_queues(text: str, queue: QueueSpec) -> None:
    assert parse_queue(text) == queue


def test_bursts() -> None:
    burst = parse_burst("1%:20ms")
    assert burst == BurstLoss(1980 * MS, 20 * MS, 0.0, 1.0)
    assert parse_burst("1%:20ms:50%").mean_loss == pytest.approx(0.005)


def test_the_default_queue_is_one_bandwidth_delay_product_with_a_minimum() -> None:
    assert queue_limit_bytes(PathSpec(rate_bps=1e8), 40 * MS) == 500_000
    assert queue_limit_bytes(PathSpec(rate_bps=1e6), 10 * MS) == 150_000


@pytest.mark.parametrize(
    "text",
    [
        LinkText(rate="0"),
        LinkText(rate="5"),
        LinkText(rate="200Gbit"),
        LinkText(rate="fast"),
        LinkText(rtt="40"),
        LinkText(rtt="5min"),
        LinkText(loss="101%"),
        LinkText(loss="-1%"),
        LinkText(burst="1%"),
        LinkText(burst="100%:20ms"),
        LinkText(burst="0%:20ms"),
        LinkText(burst="1%:0ms"),
        LinkText(queue="codel"),
        LinkText(rate="1Mbit", queue="10"),
        LinkText(rate="1Mbit", queue="0ms"),
        LinkText(rate="1Mbit", queue="ecn"),
        LinkText(rate="1Mbit", queue="codel,ecn=5ms"),
        LinkText(queue="200kB,ecn=5ms"),
        LinkText(rate="1Mbit", queue="10ms,1MB"),
        LinkText(rate="1Mbit", trace=(1,)),
        LinkText(jitter_reorders=True),
        LinkText(changes=("at 5s rate 1Mbit",)),
        LinkText(rate="1Mbit", changes=("at 5s",)),
        LinkText(rate="1Mbit", changes=("at 5s colour red",)),
        LinkText(rate="1Mbit", changes=("at 5s blackout 0s",)),
        LinkText(mtu=100),
        LinkText(mtu=100_000),
        LinkText(seed=-1),
    ],
)
def test_an_error_is_one_line(text: LinkText) -> None:
    with pytest.raises(UsageError) as caught:
        link_spec(text)
    assert str(caught.value).isprintable()


def test_the_error_for_an_unknown_link_lists_all_links() -> None:
    with pytest.raises(UsageError, match="starlink"):
        profile("\x1bsatellite")


@pytest.mark.parametrize("known", PROFILES.values(), ids=PROFILES)
def test_every_named_link_has_sources(known: Profile) -> None:
    assert known.sources
    assert PROFILES[known.name] is known


def test_the_named_links() -> None:
    assert list(PROFILES) == ["lan", "wifi", "dsl", "lte", "starlink", "geo", "transatlantic", "lossy-wan"]
    assert profile("lan").spec.kind == LAN


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.0/31", "10.0.0.1/24", "fd00::/64", "x", "10.0.0.0/33"])
def test_bad_address_ranges_are_rejected(text: str) -> None:
    with pytest.raises(UsageError):
        Addresses.of_network(text)


def test_the_ends_get_the_first_two_addresses() -> None:
    ends = Addresses.of_network("10.9.8.0/24")
    assert (str(ends.near), str(ends.far), ends.prefix) == ("10.9.8.1", "10.9.8.2", 24)


def test_netem_options_have_the_units_of_netem() -> None:
    path = PathSpec(delay_ns=20 * MS, loss=0.01, jitter_ns=MS, duplicate=0.02, corrupt=0.03)
    assert netem_options(path) == {
        "delay": 20_000,
        "limit": 100_000,
        "loss": 1.0,
        "duplicate": 2.0,
        "prob_corrupt": 3.0,
        "jitter": 1000,
    }


@pytest.mark.parametrize(
    "path",
    [
        PathSpec(burst=BurstLoss(1, 1)),
        PathSpec(trace_ms=(1,)),
        PathSpec(changes=(LinkChange(1),)),
        PathSpec(rate_bps=1e6, queue=QueueSpec(codel=True)),
        PathSpec(rate_bps=1e6, queue=QueueSpec(ecn_threshold_ns=1)),
        PathSpec(reorder=0.1),
    ],
)
def test_unsupported_netem_options_are_rejected(path: PathSpec) -> None:
    with pytest.raises(UsageError, match="use nettool's own emulator"):
        netem_options(path)
