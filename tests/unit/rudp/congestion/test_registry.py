"""Controllers by name, nettool's own and those of other distributions."""

import importlib.metadata
import subprocess
import sys

import pytest

from toolkit.errors import UsageError
from toolkit.rudp.congestion import registry
from toolkit.rudp.congestion.newreno import NewReno


@pytest.mark.parametrize("name", registry.NAMES)
def test_each_own_controller_starts_with_a_window_and_a_rate(name: str) -> None:
    control = registry.controller(name)(1200, 5e6, 7)
    assert control.name == name
    assert control.congestion_window_bytes >= 2 * 1200
    assert 0 < control.pacing_rate_bps <= 5e6
    assert isinstance(control.snapshot()["phase"], str)


def test_the_default_is_one_of_them() -> None:
    assert registry.DEFAULT in registry.NAMES


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as raised:
        registry.controller("vegas\x1b")
    assert "\x1b" not in str(raised.value)
    for name in registry.NAMES:
        assert name in str(raised.value)


def entry_points_of(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entry_point = importlib.metadata.EntryPoint(name, value, registry.ENTRY_POINT_GROUP)
    found = importlib.metadata.EntryPoints([entry_point])
    monkeypatch.setattr(registry, "entry_points", lambda group: found.select(group=group))


def test_another_distribution_can_add_one(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points_of(monkeypatch, "vegas", "toolkit.rudp.congestion.newreno:NewReno")
    assert registry.controller("vegas") is NewReno


def test_it_cannot_take_over_a_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points_of(monkeypatch, "bbr", "toolkit.rudp.congestion.newreno:NewReno")
    assert registry.controller("bbr") is not NewReno


@pytest.mark.parametrize("value", ["no_such_module_anywhere:Vegas", "toolkit.rudp.congestion.newreno:Vegas"])
def test_one_that_cannot_be_loaded_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    entry_points_of(monkeypatch, "vegas", value)
    with pytest.raises(UsageError, match="vegas"):
        registry.controller("vegas")


def test_none_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, toolkit.rudp.congestion.registry as r; "
        "assert 'toolkit.rudp.congestion.bbr' not in sys.modules; r.controller('bbr'); "
        "assert 'toolkit.rudp.congestion.bbr' in sys.modules and 'toolkit.rudp.congestion.cubic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_rate_without_a_rate_says_which_option_is_missing() -> None:
    with pytest.raises(UsageError, match="--rate"):
        registry.controller("rate")(1200, None, 0)
