"""What a receiver says about where it can be reached."""

import socket
from types import SimpleNamespace

import pytest

from toolkit.channel import Address
from toolkit.cli.reachability import addresses_here, listening_lines, reachable_address

INTERFACES = {
    "lo": [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")],
    "eth0": [(socket.AF_INET6, "2001:db8::7"), (socket.AF_INET6, "fe80::7%eth0"), (socket.AF_INET, "192.0.2.7")],
    "usb0": [(socket.AF_INET, "169.254.3.7")],
    "wlan0": [(socket.AF_INET, "198.51.100.7"), (-1, "02:00:00:00:00:07")],
}


@pytest.fixture(autouse=True)
def _interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        name: [SimpleNamespace(family=family, address=address) for family, address in addresses]
        for name, addresses in INTERFACES.items()
    }
    monkeypatch.setattr("psutil.net_if_addrs", lambda: found)
    monkeypatch.setattr("toolkit.cli.reachability.outgoing_address", lambda _: "198.51.100.7")


def test_lists_what_others_can_reach_and_the_way_out_first() -> None:
    assert addresses_here("0.0.0.0") == ["198.51.100.7", "192.0.2.7"]
    assert addresses_here("::") == ["198.51.100.7", "192.0.2.7", "2001:db8::7"]


def test_without_a_route_the_first_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.cli.reachability.outgoing_address", lambda _: None)
    assert reachable_address("0.0.0.0") == "192.0.2.7"
    assert reachable_address("192.0.2.9") == "192.0.2.9"


def test_on_loopback_says_how_others_could_reach_it() -> None:
    lines = listening_lines(Address("127.0.0.1", 9000), ("tcp", "udp"), is_loopback=True)
    assert lines[0] == "listening on 127.0.0.1:9000 (tcp, udp): this machine only"
    assert lines[1].endswith("--bind 0.0.0.0 --dir DIR")
    lines = listening_lines(Address("127.0.0.1", 9000), ("tcp",), is_loopback=True, needs_directory=False)
    assert lines[1].endswith("--bind 0.0.0.0")


def test_on_every_interface_lists_the_addresses() -> None:
    lines = listening_lines(Address("0.0.0.0", 9000), ("tcp",), is_loopback=False)
    assert lines == ["listening on 0.0.0.0:9000 (tcp)", "reachable at 198.51.100.7, 192.0.2.7"]


def test_on_one_address_says_no_more() -> None:
    lines = listening_lines(Address("192.0.2.7", 9000), ("tcp",), is_loopback=False)
    assert lines == ["listening on 192.0.2.7:9000 (tcp)"]


def test_many_addresses_fit_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    network = "2001:db8:1111:2222:3333:4444:5555"
    many = [SimpleNamespace(family=socket.AF_INET6, address=f"{network}:{number}") for number in range(99)]
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"eth0": many})
    lines = listening_lines(Address("::", 9000), ("tcp", "udp"), is_loopback=False)
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].endswith("and 93 more")


def test_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.net_if_addrs", dict)
    assert "no address" in listening_lines(Address("::", 9000), ("tcp",), is_loopback=False)[1]
