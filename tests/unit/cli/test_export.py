"""Exported rows replace exported rows, and nothing else."""

from pathlib import Path

import pytest

from toolkit.cli.export import export
from toolkit.errors import UsageError

ROW = {"path": "lan", "payload_bytes": 1, "transport": "udp", "goodput_bps": 1.5}


@pytest.mark.parametrize("suffix", ["csv", "json"])
@pytest.mark.parametrize("rows", [[], [ROW]])
def test_rows_replace_rows_even_if_there_are_none(rows: list[dict[str, object]], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    export(path, rows)
    first = path.read_bytes()
    export(path, rows)
    assert path.read_bytes() == first


def test_rows_of_another_program_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "chart.json"
    path.write_text('{"chart": "bars", "kind": "rows", "data": []}')
    with pytest.raises(UsageError, match="nettool did not write it"):
        export(path, [ROW])
