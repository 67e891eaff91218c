"""What docs/congestion-control.md tells a third party to write works as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import congestion_bench as bench_module
from toolkit.rudp.congestion import base

DOCUMENT = Path(__file__).parents[3] / "docs" / "congestion-control.md"


def documented_controller() -> Any:
    source = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert source is not None
    names: dict[str, Any] = {}
    exec(compile(source[1], DOCUMENT.name, "exec"), names)
    return names["Gentle"]


def test_the_documented_controller_fills_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Driven by the bench of the simulations: alone on a path, it is fast and keeps the queue as short as it says."""
    monkeypatch.setattr(bench_module, "controller_factory", lambda _name: documented_controller())
    bench = bench_module.Bench(bench_module.path(20e6, 20, 4))
    flow = bench.add("gentle")
    bench.run(10 * bench_module.SECOND)
    assert bench_module.goodput_bps(flow, 5 * bench_module.SECOND, 10 * bench_module.SECOND) > 0.9 * 20e6
    assert max(rtt for at, rtt in flow.record.rtts if at > 5 * bench_module.SECOND) < 1.3 * 20 * bench_module.MS


def test_it_is_no_longer_than_it_says() -> None:
    source = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert source is not None
    assert len([line for line in source[1].splitlines() if line.strip()]) <= 40


def test_the_documents_table_names_every_controller() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in base.CONTROLLER_NAMES:
        assert f"| `{name}`" in text
