"""Transports by name: nettool's own, those of other Python packages, and unknown names."""

from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import pytest

from toolkit.errors import UsageError
from toolkit.transports import registry


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_nettools_own_transports_are_found(name: str) -> None:
    assert registry.transport(name).name == name
    assert name in registry.transport_names()


@pytest.mark.parametrize("name", ["", "TCP", "quic-over-pigeon", "\x1b[31m"])
def test_an_unknown_name_is_a_usage_error_with_the_known_names(name: str) -> None:
    with pytest.raises(UsageError, match=r"choose from tcp, udp") as caught:
        registry.transport(name)
    assert str(caught.value).isprintable()


def entry_point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, registry.ENTRY_POINT_GROUP)


def test_other_packages_add_transports(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [entry_point("pigeon", "types:SimpleNamespace"), entry_point("tcp", "types:SimpleNamespace")]
    monkeypatch.setattr("importlib.metadata.entry_points", EntryPoints(found).select)
    assert isinstance(registry.transport("pigeon"), SimpleNamespace)
    assert registry.transport_names() == ["tcp", "udp", "pigeon"]
    assert registry.transport("tcp").name == "tcp", "an entry point cannot replace one of nettool's own"


def test_a_broken_transport_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EntryPoints([entry_point("pigeon", "no_such_module:Pigeon")])
    monkeypatch.setattr("importlib.metadata.entry_points", found.select)
    with pytest.raises(UsageError, match=r"pigeon \(no_such_module:Pigeon\) cannot be loaded: No module named"):
        registry.transport("pigeon")
