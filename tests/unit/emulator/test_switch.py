"""A LAN with a rate: what it carries, what it installs and what it counts, with a fake of the kernel's netlink."""

from typing import Any

import pytest

from toolkit.emulator.accounting import EMULATOR, Bottleneck
from toolkit.emulator.switch import SwitchBackend, can_switch
from toolkit.netmodel.path import QUEUE
from toolkit.netmodel.spec import LAN, LinkSpec, PathSpec, QueueSpec

TICKS_PER_S = 15_625_000  # of the kernel's packet scheduler


class Message(dict[str, Any]):
    """An answer of the kernel: fields, and attributes by name."""

    def get_attr(self, name: str) -> Any:
        return self[name]


class FakeNetlink:
    """Devices with counters, and the token bucket filters that were added to them."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.devices = {name: dict.fromkeys(("rx_packets", "rx_bytes", "tx_dropped"), 0) for name in names}
        self.passed = {name: {"packets": 0, "bytes": 0} for name in names}
        self.state = {name: {"drops": 0, "qlen": 0} for name in names}
        self.filters: dict[str, dict[str, Any]] = {}

    def link_lookup(self, ifname: str) -> list[int]:
        return [self.names.index(ifname)]

    def get_links(self, index: int) -> list[Message]:
        return [Message(IFLA_STATS64=self.devices[self.names[index]])]

    def tc(self, command: str, kind: str, index: int, handle: str, **options: Any) -> None:
        assert (command, kind, handle) == ("add", "tbf", "1:")
        self.filters[self.names[index]] = options

    def get_qdiscs(self, index: int) -> list[Message]:
        name = self.names[index]
        options = self.filters[name]
        buffer = int(options["burst"] / options["rate"] * TICKS_PER_S)
        parameters = {"rate": options["rate"], "buffer": buffer, "limit": options["limit"]}
        statistics = Message(TCA_STATS_BASIC=self.passed[name], TCA_STATS_QUEUE=self.state[name])
        return [
            Message(parent=0xFFFFFFFF, TCA_OPTIONS=Message(TCA_TBF_PARMS=parameters), TCA_STATS2=statistics),
        ]


class Lan:
    """A backend on fake devices."""

    def __init__(self, path: PathSpec) -> None:
        self.switch = FakeNetlink("near", "far")
        self.near, self.far = FakeNetlink("link0"), FakeNetlink("link0")
        netlinks: list[Any] = [self.switch, self.near, self.far]
        self.spec = LinkSpec(path, path, kind=LAN)
        self.backend = SwitchBackend(self.spec, *netlinks)


GIGABIT = PathSpec(rate_bps=1e9)


@pytest.mark.parametrize(
    ("path", "is_carried"),
    [
        (GIGABIT, True),
        (PathSpec(rate_bps=1e9, queue=QueueSpec(limit_bytes=90_000)), True),
        (PathSpec(), False),
        (PathSpec(rate_bps=40e9), False),
        (PathSpec(rate_bps=1e9, delay_ns=1), False),
        (PathSpec(rate_bps=1e9, queue=QueueSpec(codel=True)), False),
        (PathSpec(rate_bps=1e9, queue=QueueSpec(limit_bytes=90_000, ecn_threshold_ns=10)), False),
    ],
)
def test_it_carries_a_rate_and_a_plain_queue(path: PathSpec, is_carried: bool) -> None:
    assert can_switch(LinkSpec(path, path, kind=LAN)) == is_carried
    assert not can_switch(LinkSpec(path, path))
    assert not can_switch(LinkSpec(path, PathSpec(), kind=LAN))


@pytest.mark.parametrize(
    ("path", "installed"),
    [
        (GIGABIT, Bottleneck(1e9, 15_000, 150_000)),
        (PathSpec(rate_bps=1e9, queue=QueueSpec(limit_bytes=90_000)), Bottleneck(1e9, 15_000, 90_000)),
        (PathSpec(rate_bps=1e9, queue=QueueSpec(limit_ns=4_000_000)), Bottleneck(1e9, 15_000, 500_000)),
        (PathSpec(rate_bps=1e7), Bottleneck(1e7, 3000, 150_000)),
        (PathSpec(rate_bps=1e7, queue=QueueSpec(limit_bytes=600)), Bottleneck(1e7, 3000, 1500)),
    ],
)
def test_the_bucket_is_small_and_the_queue_is_that_of_the_specification(path: PathSpec, installed: Bottleneck) -> None:
    lan = Lan(path)
    assert lan.backend.bottleneck() == installed
    assert {name: options["limit"] for name, options in lan.switch.filters.items()} == dict.fromkeys(
        ("near", "far"), installed.queue_bytes
    )


def test_it_counts_packets_of_ip_from_the_start_on() -> None:
    lan = Lan(GIGABIT)
    lan.switch.devices["near"] |= {"rx_packets": 10, "rx_bytes": 10 * 1514}
    lan.switch.passed["far"] |= {"packets": 6, "bytes": 6 * 1500}
    lan.switch.state["far"]["qlen"] = 4
    lan.backend.start(lan.spec)
    lan.switch.devices["near"] |= {"rx_packets": 110, "rx_bytes": 110 * 1514}
    lan.switch.devices["far"]["tx_dropped"] = 3
    lan.switch.passed["far"] |= {"packets": 80, "bytes": 80 * 1500}
    lan.switch.state["far"] |= {"drops": 20, "qlen": 10}
    lan.near.devices["link0"]["tx_dropped"] = 7
    forward = lan.backend.accounting().forward
    assert (forward.offered, forward.offered_bytes) == (104, 100 * 1500)  # four waited when the counters started
    assert (forward.delivered, forward.dropped) == (71, {QUEUE: 20, EMULATOR: 3})
    assert (forward.in_flight, forward.host_dropped, forward.imbalance) == (10, 7, 0)


def test_packets_that_vanish_inside_are_an_imbalance() -> None:
    lan = Lan(GIGABIT)
    lan.switch.devices["near"] |= {"rx_packets": 100, "rx_bytes": 100 * 1514}
    lan.switch.passed["far"] |= {"packets": 90, "bytes": 90 * 1500}
    accounting = lan.backend.accounting()
    assert (accounting.forward.imbalance, accounting.backward.imbalance) == (10, 0)
