"""Ctrl-C at a terminal reaches a grid and its workers; the user sees one line, and nothing is left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.support.background import PATIENCE_S
from tests.support.fleet_files import grid_file

DASHBOARD_PORT = 8787
"""The usual one of dask; another grid has it here."""


def test_an_interrupted_grid_says_so_in_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    grid, output, scratch = grid_file(tmp_path, 'sizes = "1MiB"\nseeds = 5000\n'), tmp_path / "o.jsonl", tmp_path / "t"
    scratch.mkdir()
    words = ["sim", "--grid", str(grid), "--output", str(output), "--workers", "2"]
    with (
        socket.socket() as other,
        subprocess.Popen(
            [sys.executable, "-m", "toolkit.cli.main", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(scratch)},
            start_new_session=True,
        ) as process,
    ):
        with suppress(OSError):  # then another program has it
            other.bind(("", DASHBOARD_PORT))
            other.listen()
        deadline_s = time.monotonic() + PATIENCE_S
        while not (output.exists() and output.read_text().count("\n") > 1) and process.poll() is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("interrupted: ")
    assert err.endswith("of 5000 cells are done, and --resume continues\n")
    assert err.count("\n") == 1
    assert list(scratch.iterdir()) == []
