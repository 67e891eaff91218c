"""Which file systems make up their files as they are read."""

import os
from pathlib import Path

import pytest

from toolkit.transfer.file_system import is_synthetic, maps_extents


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="only Linux has it")
def test_proc_and_sys_are_synthetic_and_a_folder_of_files_is_not(tmp_path: Path) -> None:
    for path, expected in (("/proc", True), ("/sys", True), (tmp_path, False)):
        descriptor = os.open(path, os.O_RDONLY)
        assert is_synthetic(descriptor) is expected, path
        assert not (is_synthetic(descriptor) and maps_extents(descriptor))
        os.close(descriptor)


def test_a_descriptor_that_is_not_open_is_on_no_known_file_system() -> None:
    assert not is_synthetic(-1)
    assert not maps_extents(-1)
