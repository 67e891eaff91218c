"""docs/congestion-control.md: its example controller works as printed, and its table is complete."""

import re
from pathlib import Path

import pytest

from tests.support.simulated_paths import (
    MS,
    SECOND,
    goodput_bps,
    install_controller,
    link_of,
    rtt_percentile_ms,
    simulate,
)
from toolkit.rudp.congestion.base import CONTROLLER_NAMES, ControllerFactory
from toolkit.simulator.simulator import FlowSpec

DOCUMENT = Path(__file__).parents[3] / "docs" / "congestion-control.md"
RATE = 20e6


def example_source() -> str:
    source = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert source is not None
    return source[1]


def example_controller() -> ControllerFactory:
    namespace: dict[str, ControllerFactory] = {}
    exec(compile(example_source(), DOCUMENT.name, "exec"), namespace)
    return namespace["Gentle"]


def test_the_example_controller_fills_a_path_and_keeps_the_queue_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document installs it as an entry point, and so does this test."""
    install_controller(monkeypatch, "gentle", example_controller())
    link = link_of(RATE, 20 * MS, buffer_bdp=4)
    result = simulate(link, [FlowSpec("gentle", duration_ns=6 * SECOND)])
    assert goodput_bps(result.flows[0], 3 * SECOND, 6 * SECOND) > 0.9 * RATE
    assert rtt_percentile_ms(result, 99, 3 * SECOND) < 1.3 * 20


def test_the_example_controller_has_at_most_40_lines() -> None:
    assert len([line for line in example_source().splitlines() if line.strip()]) <= 40


def test_the_table_of_the_document_names_every_controller() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in CONTROLLER_NAMES:
        assert f"| `{name}`" in text
