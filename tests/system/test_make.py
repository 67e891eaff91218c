"""`make bench` can run again and again, and `make clean` removes what make created but no measurements of the user."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cli_process import LIMIT_S, everything_below

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --output) [ ! -s "$2" ] || exit 2; echo record > "$2" ;;
        --html) echo page > "$2" ;;
        --pictures) mkdir -p "$2"; echo picture > "$2/goodput.png" ;;
    esac
    shift
done
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the project that is set up, with a stand-in for nettool that only writes files."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    nettool = tmp_path / ".venv" / "bin" / "nettool"
    nettool.parent.mkdir(parents=True)
    nettool.write_text(STAND_IN)
    nettool.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def make(folder: Path, target: str) -> None:
    clear = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(["make", target], cwd=folder, env=clear, check=True, capture_output=True, timeout=LIMIT_S)


def test_bench_and_clean_keep_the_users_own_measurements(folder: Path) -> None:
    (folder / "results").mkdir()
    mine = folder / "results" / "link-20260102-030405.jsonl"
    mine.write_text("records")
    make(folder, "bench")
    make(folder, "bench")
    assert len(everything_below(folder / "results")) > 5
    make(folder, "clean")
    assert everything_below(folder / "results") == [mine.name]
    assert mine.read_text() == "records"


def test_clean_removes_everything_that_make_created(folder: Path) -> None:
    before = set(everything_below(folder)) - {".venv", ".venv/.installed", ".venv/bin", ".venv/bin/nettool"}
    make(folder, "bench")
    for made in (".hypothesis/examples", "toolkit/__pycache__", ".pytest_cache"):
        (folder / made).mkdir(parents=True)
    make(folder, "clean")
    assert set(everything_below(folder)) == {*before, "toolkit"}
