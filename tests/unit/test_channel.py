"""Addresses: what limits for each host count by, and which are loopback."""

import pytest

from toolkit.channel import Address


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("one.example", "other.example", False),
    ],
)
def test_the_addresses_of_an_ipv6_site_count_as_one_host(one: str, other: str, is_same: bool) -> None:
    assert (Address(one, 1).network == Address(other, 2).network) == is_same


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::1%lo"])
def test_loopback_addresses(host: str) -> None:
    assert Address(host, 9000).is_loopback


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.7", "::ffff:192.0.2.7", "fe80::1%lo", "localhost"])
def test_other_addresses(host: str) -> None:
    assert not Address(host, 9000).is_loopback
