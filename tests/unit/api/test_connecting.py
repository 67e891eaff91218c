"""Which transport a sender takes."""

from typing import Any

import pytest

from toolkit.api.connecting import AUTO, connect
from toolkit.channel import Address, TransportOptions
from toolkit.errors import IncompleteHandshakeError, NettoolError, RefusedError, UnreachableError

HERE = Address("192.0.2.7", 9000)


class Network:
    """Transports that connect, or fail with an error; keeps the options that each was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **outcomes: Any) -> None:
        self.outcomes = outcomes
        self.options: dict[str, TransportOptions] = {}
        monkeypatch.setattr("toolkit.api.connecting.transport", lambda name: Way(self, name))

    def connect(self, name: str, options: TransportOptions = TransportOptions()) -> tuple[str, Any]:  # noqa: B008
        return connect(name, HERE, options)


class Way:
    def __init__(self, network: Network, name: str) -> None:
        self.network, self.name = network, name

    def connect(self, _address: Address, options: TransportOptions) -> Any:
        self.network.options[self.name] = options
        outcome = self.network.outcomes[self.name]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_udp_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, udp="a channel")
    assert network.connect(AUTO) == ("udp", "a channel")


def test_tcp_follows_where_udp_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, udp=UnreachableError("silence"), tcp="a channel")
    assert network.connect(AUTO, TransportOptions(connect_timeout_s=20)) == ("tcp", "a channel")
    assert (network.options["udp"].silence_timeout_s, network.options["udp"].connect_timeout_s) == (5, 20)
    assert 5 <= network.options["tcp"].connect_timeout_s <= 20


@pytest.mark.parametrize("error", [RefusedError("wrong code"), IncompleteHandshakeError("a guess, then silence")])
def test_whoever_answers_over_udp_gets_no_second_guess(error: NettoolError, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, udp=error, tcp="a channel")
    with pytest.raises(type(error), match=str(error)):
        network.connect(AUTO)
    assert "tcp" not in network.options


def test_both_are_named_if_neither_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, udp=UnreachableError("silence"), tcp=UnreachableError("no TCP either"))
    with pytest.raises(UnreachableError, match=r"^no TCP either .UDP was tried first.$"):
        network.connect(AUTO)


def test_what_concerns_both_names_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, udp=UnreachableError("no such host"), tcp=UnreachableError("no such host"))
    with pytest.raises(UnreachableError, match=r"^no such host$"):
        network.connect(AUTO)


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_a_transport_that_the_user_names_is_the_only_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, **{name: UnreachableError("silence")})
    with pytest.raises(UnreachableError, match="silence"):
        network.connect(name)
