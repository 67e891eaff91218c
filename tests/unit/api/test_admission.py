"""Whom a receiver admits, and whether other machines reach it."""

import pytest

from toolkit.api.admission import AdmissionRule, is_loopback
from toolkit.errors import UsageError


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("no-such-host.invalid", False),
        ("a\0b", False),
    ],
)
def test_only_addresses_of_this_machine_alone_are_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


@pytest.mark.parametrize("rules", [{"key": b"k", "is_open": True}, {"is_open": True, "code_uses": 1}])
def test_a_receiver_has_one_rule(rules: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="one rule"):
        AdmissionRule("127.0.0.1", **rules)  # type: ignore[arg-type]
