"""Blocks reserved ahead of the content."""

import os
from pathlib import Path

import pytest

from toolkit.transfer import preallocate


def test_reserving_blocks_does_not_change_the_file_size(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        preallocate.reserve(file.fileno(), 0, 1 << 20)
        assert os.fstat(file.fileno()).st_size == 0
        assert os.fstat(file.fileno()).st_blocks * 512 >= 1 << 20


def test_an_error_of_the_system_is_raised() -> None:
    with pytest.raises(OSError, match="Bad file"):
        preallocate.reserve(-1, 0, 1)
