"""Which addresses a link gets that nobody has to know."""

import pytest

from toolkit.emulator import interfaces
from toolkit.emulator.interfaces import DEFAULT_NETWORK, Addresses, unused_network
from toolkit.errors import UsageError

OTHERS = ["198.19.255.252/30", "10.9.8.0/30"]


def occupy(monkeypatch: pytest.MonkeyPatch, networks: list[str]) -> None:
    """Let this machine use these networks."""

    def require_unused(addresses: Addresses) -> None:
        if str(addresses.network) in networks:
            raise UsageError(f"{addresses.network} is in use here")

    monkeypatch.setattr(interfaces, "require_unused", require_unused)


@pytest.mark.parametrize(
    ("used", "chosen"),
    [([], DEFAULT_NETWORK), ([DEFAULT_NETWORK], OTHERS[0]), ([DEFAULT_NETWORK, OTHERS[0]], OTHERS[1])],
)
def test_the_first_network_that_is_not_in_use_is_taken(
    monkeypatch: pytest.MonkeyPatch, used: list[str], chosen: str
) -> None:
    occupy(monkeypatch, used)
    assert unused_network() == chosen


def test_if_all_are_in_use_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    occupy(monkeypatch, [DEFAULT_NETWORK, *OTHERS])
    with pytest.raises(UsageError, match="in use here"):
        unused_network()
