"""Transports by name: our own, those of other packages, and names of none."""

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from toolkit.errors import UsageError
from toolkit.transports import registry


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_our_own_are_there(name: str) -> None:
    assert registry.transport(name).name == name
    assert name in registry.transport_names()


@pytest.mark.parametrize("name", ["", "TCP", "quic-over-pigeon", "\x1b[31m"])
def test_an_unknown_name_is_answered_by_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r"choose from tcp, udp") as caught:
        registry.transport(name)
    assert str(caught.value).isprintable()


def offered(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, registry.ENTRY_POINT_GROUP)


def test_other_packages_bring_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [offered("pigeon", "types:SimpleNamespace"), offered("tcp", "types:SimpleNamespace")]
    monkeypatch.setattr(registry, "entry_points", lambda group: found if group == registry.ENTRY_POINT_GROUP else [])
    assert isinstance(registry.transport("pigeon"), SimpleNamespace)
    assert registry.transport_names() == ["tcp", "udp", "pigeon"]
    assert registry.transport("tcp").name == "tcp", "nobody takes the place of ours"


def test_one_that_is_broken_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [offered("pigeon", "no_such_module:Pigeon")])  # noqa: ARG005
    with pytest.raises(UsageError, match=r"pigeon \(no_such_module:Pigeon\) cannot be loaded: No module named"):
        registry.transport("pigeon")
