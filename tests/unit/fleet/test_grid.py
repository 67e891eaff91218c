"""A grid file becomes cells in a fixed order, and whatever is wrong with it is one line."""

import json
from pathlib import Path

import pytest

from tests.support.fleet_files import grid_file
from toolkit.errors import UsageError
from toolkit.fleet.grid import read_grid
from toolkit.netmodel.scenarios import scenario

EXAMPLE = Path(__file__).parents[3] / "bench" / "fleet" / "simulated.toml"
SMALL = """
cc = ["bbr", "cubic"]
sizes = ["20kB", "40kB"]
seeds = 2
[link]
rate = ["5Mbit", "20Mbit"]
loss = "1%"
"""


def test_every_combination_is_a_cell_in_the_order_of_the_file(tmp_path: Path) -> None:
    grid = read_grid(grid_file(tmp_path, SMALL))
    cells = list(grid.cells())
    assert grid.size == len(cells) == 2 * 2 * 2 * 2
    assert [cell.number for cell in cells] == list(range(16))
    assert dict(cells[0].names) == {
        "rate": "5 Mbit/s",
        "rtt": "40 ms",
        "loss": "1%",
        "size": "20kB",
        "cc": "bbr",
        "seed": "1",
    }
    assert [cell.link.seed for cell in cells[:2]] == [1, 2]
    assert len({tuple(cell.names.items()) for cell in cells}) == 16


def test_impairments_apply_in_both_directions_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    both = next(read_grid(grid_file(tmp_path, SMALL)).cells()).link
    one = next(read_grid(grid_file(tmp_path, SMALL + "both-ways = false\n")).cells()).link
    assert both.backward.loss == both.forward.loss == one.forward.loss == 0.01
    assert one.backward.loss == 0


def test_a_cell_gives_the_same_line_every_time(tmp_path: Path) -> None:
    cell = next(read_grid(grid_file(tmp_path, SMALL)).cells())
    line = cell.line()
    assert line == cell.line()
    fields = json.loads(line)
    assert (fields["kind"], fields["cell"], fields["rate"], fields["finished"]) == ("cell", 0, "5 Mbit/s", True)


def test_several_flows_start_one_after_the_other(tmp_path: Path) -> None:
    text = 'time = "1s"\nflows = 3\nstagger = "100ms"\ncc = "rate"\n[link]\nscenario = ["clean", "jitter"]\n'
    first, second = read_grid(grid_file(tmp_path, text)).cells()
    assert [flow.start_ns for flow in first.flows] == [0, 100_000_000, 200_000_000]
    assert second.names["scenario"] == "jitter"
    assert second.link.forward == scenario("jitter").link.forward


def test_several_tables_follow_each_other(tmp_path: Path) -> None:
    text = 'sizes = "10kB"\n[[link]]\nlink = ["lte", "geo"]\n[[link]]\nrate = "1Mbit"\nqueue = ["1bdp", "2bdp"]\n'
    names = [cell.names for cell in read_grid(grid_file(tmp_path, text)).cells()]
    assert [each.get("link") or each["queue"] for each in names] == ["lte", "geo", "1bdp", "2bdp"]


def test_the_example_has_400_cells() -> None:
    assert read_grid(EXAMPLE).size == 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "give 'sizes' or 'time'"),
        ('sizes = "1MiB"\ntime = "1s"', "give 'sizes' or 'time'"),
        ('sizes = "0"', "nothing to send"),
        ('sizes = "1MiB"\nseed = -1', "'seed' must be from 0"),
        ('sizes = "1MiB"\nseeds = 0', "'seeds' at least 1"),
        ('sizes = "1MiB"\nflows = 0', "'flows' must be from 1"),
        ('sizes = ["1MiB", "1MiB"]', "'sizes' has a value twice"),
        ('sizes = "1MiB"\ncc = "bbbr"', "bbbr"),
        ("sizes = 5", "'sizes' must be text"),
        ('size = "1MiB"', "unknown key 'size': did you mean 'sizes'?"),
        ('sizes = "1MiB"\n[link]\nrat = "1Mbit"', "[link]: unknown key 'rat': did you mean 'rate'?"),
        ('sizes = "1MiB"\n[link]\nrate = []', "'rate' is an empty list"),
        ('sizes = "1MiB"\n[link]\nloss = "200%"', "200%"),
        ('sizes = "1MiB"\n[link]\nlink = "lte"\nscenario = "clean"', "give 'link' or 'scenario'"),
        ('sizes = "1MiB"\n[link', "is not a grid"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_grid(grid_file(tmp_path, text))
    assert message in str(caught.value)
    assert "grid.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
