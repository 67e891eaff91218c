"""Every cell once a block, in an order that the seed decides; what users may name as a cell."""

from itertools import groupby
from pathlib import Path

import pytest

from toolkit.bench.campaign import Plan, parse_cells
from toolkit.bench.matrix import WARM_UP, Cell, schedule
from toolkit.errors import UsageError

CELLS = [Cell(label, "tcp", label) for label in ("a", "b", "c")]


def test_a_block_holds_every_cell_once_and_the_warm_up_comes_first() -> None:
    turns = list(schedule(CELLS, repeats=4, seed=3))
    assert [block for block, _ in groupby(turn.block for turn in turns)] == [WARM_UP, 0, 1, 2, 3]
    for _, block in groupby(turns, key=lambda turn: turn.block):
        assert sorted(turn.cell.label for turn in block) == ["a", "b", "c"]


def test_the_seed_decides_the_order() -> None:
    orders = {seed: tuple(turn.cell.label for turn in schedule(CELLS, 20, seed)) for seed in range(5)}
    assert orders[0] == tuple(turn.cell.label for turn in schedule(CELLS, 20, 0))
    assert len(set(orders.values())) == 5


def test_the_order_within_blocks_changes() -> None:
    blocks = {
        tuple(turn.cell.label for turn in block) for _, block in groupby(schedule(CELLS, 30, 1), lambda t: t.block)
    }
    assert len(blocks) == 6


def test_cells_are_named_by_transport_and_congestion_control() -> None:
    cells = parse_cells("tcp, udp,udp-cubic,tcp-bbr", "cubic")
    assert [cell.label for cell in cells] == ["tcp-cubic", "udp-bbr", "udp-cubic", "tcp-bbr"]
    assert cells[3] == Cell("tcp-bbr", "tcp", "bbr")


@pytest.mark.parametrize("text", ["", "sctp", "tcp,,udp", "tcp,tcp-cubic", "TCP", "\x1b[0m"])
def test_cells_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_cells(text, "cubic")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "baseline"), [("udp,tcp", "tcp-cubic"), ("udp,udp-cubic", "udp-bbr"), ("tcp-bbr,tcp", "tcp-bbr")]
)
def test_the_baseline_is_tcp_where_there_is_one(text: str, baseline: str) -> None:
    assert Plan(parse_cells(text, "cubic"), 1 << 20, 1, 1, None).baseline == baseline


@pytest.mark.parametrize(("payload_bytes", "repeats"), [(1000, 1), (1 << 20, 0), (1 << 20, 10**6)])
def test_plans_that_make_no_sense(payload_bytes: int, repeats: int) -> None:
    with pytest.raises(UsageError):
        Plan(CELLS, payload_bytes, repeats, 1, Path())
