"""A destination that reuses storage verifies and names files like any other."""

import os
from pathlib import Path

import pytest

from tests.support.sessions import deliver, file_entry
from toolkit.comparison.reused_storage import reusing_storage
from toolkit.transfer.digest import algorithm_by_name
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.messages import EntryStatus

CONTENT = os.urandom(5)


def receive(folder: Path, content: bytes = CONTENT) -> EntryStatus:
    files = IncomingFiles(reusing_storage(folder))
    files.offer([file_entry(b"a")], algorithm_by_name("xxh3-128"))
    outcome = deliver(files, 0, content)
    files.close(complete=True)
    return outcome.status


@pytest.mark.parametrize("is_there", [True, False])
def test_the_file_that_is_replaced_becomes_the_new_one(is_there: bool, tmp_path: Path) -> None:
    place = tmp_path / "a"
    if is_there:
        place.write_bytes(bytes(5))
    number = place.stat().st_ino if is_there else None
    assert receive(tmp_path) is EntryStatus.OK
    assert place.read_bytes() == CONTENT
    assert number in (None, place.stat().st_ino)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_more_storage_than_the_file_needs_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(6))
    assert receive(tmp_path) is EntryStatus.OK
    assert (tmp_path / "a").read_bytes() == CONTENT
