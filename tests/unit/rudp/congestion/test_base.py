"""The controller registry: the built-in controllers and those of other Python packages."""

import importlib.metadata
import subprocess
import sys

import pytest

from toolkit.errors import UsageError
from toolkit.rudp.congestion import base
from toolkit.rudp.congestion.newreno import NewReno


@pytest.mark.parametrize("name", base.CONTROLLER_NAMES)
def test_every_built_in_controller_starts_with_a_window_and_a_rate(name: str) -> None:
    control = base.controller_factory(name)(1200, 5e6, 7)
    assert control.name == name
    assert control.congestion_window_bytes >= 2 * 1200
    assert 0 < control.pacing_rate_bps <= 5e6
    assert isinstance(control.snapshot()["phase"], str)


def test_the_default_controller_is_built_in() -> None:
    assert base.DEFAULT_CONTROLLER in base.CONTROLLER_NAMES


def test_the_error_for_an_unknown_name_lists_the_known_names() -> None:
    with pytest.raises(UsageError) as raised:
        base.controller_factory("vegas\x1b")
    assert "\x1b" not in str(raised.value)
    for name in base.CONTROLLER_NAMES:
        assert name in str(raised.value)


def install_entry_point(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entry_point = importlib.metadata.EntryPoint(name, value, base.ENTRY_POINT_GROUP)
    found = importlib.metadata.EntryPoints([entry_point])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found.select(group=group))


def test_an_entry_point_adds_a_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    install_entry_point(monkeypatch, "vegas", "toolkit.rudp.congestion.newreno:NewReno")
    assert base.controller_factory("vegas") is NewReno


def test_an_entry_point_does_not_replace_a_built_in_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    install_entry_point(monkeypatch, "bbr", "toolkit.rudp.congestion.newreno:NewReno")
    assert base.controller_factory("bbr") is not NewReno


@pytest.mark.parametrize("value", ["no_such_module_anywhere:Vegas", "toolkit.rudp.congestion.newreno:Vegas"])
def test_an_entry_point_that_cannot_be_loaded_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    install_entry_point(monkeypatch, "vegas", value)
    with pytest.raises(UsageError, match="vegas"):
        base.controller_factory("vegas")


def test_a_controller_is_imported_only_when_it_is_requested() -> None:
    code = (
        "import sys, toolkit.rudp.congestion.base as b; "
        "assert 'toolkit.rudp.congestion.bbr' not in sys.modules; b.controller_factory('bbr'); "
        "assert 'toolkit.rudp.congestion.bbr' in sys.modules and 'toolkit.rudp.congestion.cubic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_error_for_rate_without_a_rate_names_the_missing_option() -> None:
    with pytest.raises(UsageError, match="`rate_bps`"):
        base.controller_factory("rate")(1200, None, 0)
