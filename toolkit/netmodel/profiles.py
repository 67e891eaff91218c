"""Named links and the sources of their figures.

Near is the subscriber, so the forward path is the upload. Figures that the sources do not give are marked as assumed,
here and in docs/link.md.
"""

from dataclasses import dataclass

from toolkit.errors import UsageError, printable
from toolkit.netmodel.spec import LAN, BurstLoss, LinkSpec, PathSpec, QueueSpec

_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Profile:
    """A named link: what it stands for, its specification, and the sources of its figures."""

    name: str
    stands_for: str
    spec: LinkSpec
    sources: tuple[str, ...]


def _both(path: PathSpec) -> LinkSpec:
    return LinkSpec(path, path)


_HANDOVERS = BurstLoss.from_share(0.005, 75 * _MS, loss_bad=0.5)

_ALL = (
    Profile(
        "lan",
        "two machines on one switch, as fast as this kernel",
        LinkSpec(kind=LAN),
        ("a veth pair, nothing emulated; --rate adds a bottleneck",),
    ),
    Profile(
        "wifi",
        "an 802.11n laptop in a busy building",
        LinkSpec(
            PathSpec(rate_bps=90e6, delay_ns=1 * _MS, jitter_ns=2 * _MS, queue=QueueSpec(limit_ns=100 * _MS)),
            PathSpec(rate_bps=90e6, delay_ns=1 * _MS, jitter_ns=2 * _MS, queue=QueueSpec(limit_ns=100 * _MS)),
        ),
        (
            "delay: Sui et al., Characterizing and Improving WiFi Latency, MobiSys 2016: median 3 ms, p90 20 ms",
            "rate: IEEE 802.11-2020, HT MCS 15 at 20 MHz is 144.4 Mbit/s; 60% remains after MAC overhead",
            "shape of the jitter, queue: assumed",
        ),
    ),
    Profile(
        "dsl",
        "a VDSL2 line, 40/10",
        LinkSpec(
            PathSpec(rate_bps=10e6, delay_ns=7_500_000, queue=QueueSpec(limit_ns=200 * _MS)),
            PathSpec(rate_bps=40e6, delay_ns=7_500_000, queue=QueueSpec(limit_ns=100 * _MS)),
        ),
        (
            "rate: the fibre-to-the-cabinet 40/10 product that Ofcom's UK Home Broadband Performance reports measure",
            "queue: Dischinger et al., Characterizing Residential Broadband Networks, IMC 2007: uplinks of 100s of ms",
            "delay of 15 ms to a server in the country: assumed",
        ),
    ),
    Profile(
        "lte",
        "a 4G phone in a city",
        LinkSpec(
            PathSpec(rate_bps=13.6e6, delay_ns=22_500_000, jitter_ns=4 * _MS, queue=QueueSpec(limit_ns=500 * _MS)),
            PathSpec(rate_bps=14.7e6, delay_ns=22_500_000, jitter_ns=4 * _MS, queue=QueueSpec(limit_ns=500 * _MS)),
        ),
        (
            "rate and RTT (53 ms on average): Ofcom, Measuring mobile broadband performance in the UK, April 2015",
            "jitter: HARQ retransmissions after 8 ms, 3GPP TS 36.321, which also hide loss",
            "queue: Jiang et al., Tackling Bufferbloat in 3G/4G Networks, IMC 2012: deep; the 500 ms are assumed",
        ),
    ),
    Profile(
        "starlink",
        "a terminal for satellites in low orbit",
        LinkSpec(
            PathSpec(rate_bps=17e6, delay_ns=21 * _MS, jitter_ns=4 * _MS, burst=_HANDOVERS),
            PathSpec(rate_bps=178e6, delay_ns=21 * _MS, jitter_ns=4 * _MS, burst=_HANDOVERS),
        ),
        (
            "rates and RTT (median 50 ms): Michel et al., A First Look at Starlink Performance, IMC 2022",
            "loss of up to half the packets at handovers: Kassem et al., A Browser-side View of Starlink, IMC 2022",
            "a handover every 15 s on average: Mohan et al., A Multifaceted Look at Starlink Performance, WWW 2024",
            "handovers of 75 ms, a queue of one bandwidth-delay product: assumed",
        ),
    ),
    Profile(
        "geo",
        "a geostationary satellite without a performance-enhancing proxy",
        LinkSpec(
            PathSpec(rate_bps=10e6, delay_ns=300 * _MS),
            PathSpec(rate_bps=100e6, delay_ns=300 * _MS),
        ),
        (
            "rates (100/10) and RTT (600 ms at least): the SatCom access in Michel et al., IMC 2022",
            "a queue of one bandwidth-delay product, no loss: assumed",
        ),
    ),
    Profile(
        "transatlantic",
        "a server in New York and one in London",
        _both(PathSpec(rate_bps=1e9, delay_ns=37_500_000, loss=1e-5)),
        (
            "RTT: between the 60 ms of the newest cables and the 90 ms of Verizon's service level agreement",
            "rate of a common server port, loss of 0.001%: assumed",
        ),
    ),
    Profile(
        "lossy-wan",
        "a long path with random loss",
        LinkSpec(
            PathSpec(rate_bps=100e6, delay_ns=50 * _MS, loss=0.01),
            PathSpec(rate_bps=100e6, delay_ns=50 * _MS),
        ),
        ("100 Mbit/s, 100 ms: Cardwell et al., BBR: Congestion-Based Congestion Control, CACM 2017, figure 8, at 1%",),
    ),
)

PROFILES = {profile.name: profile for profile in _ALL}


def profile(name: str) -> Profile:
    """The profile called `name`. Raises UsageError, which lists them all."""
    try:
        return PROFILES[name]
    except KeyError:
        raise UsageError(f"unknown link '{printable(name, 40)}': choose from {', '.join(PROFILES)}") from None
