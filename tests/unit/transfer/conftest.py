"""What the tests of the transfer share: the ends of a channel, and a directory to receive into."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sessions import Ends, channel_pair
from toolkit.transfer import tree
from toolkit.transfer.chunks import CHUNK_BYTES
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.open_files import OPEN_FILES
from toolkit.transfer.storage import Storage


@pytest.fixture(autouse=True)
def no_open_files_remain() -> Iterator[None]:
    yield
    assert len(OPEN_FILES) == 0


@pytest.fixture
def no_cycle_collector() -> Iterator[None]:
    """Only what nothing refers to is freed: a command lets tens of thousands of cycles gather (cli/main.py)."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def few_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of four chunks is large enough to be kept unfinished, and to be compared with an earlier version."""
    for name in ("unfinished.MIN_UNFINISHED_BYTES", "stored_file.MIN_UNFINISHED_BYTES", "earlier_version.MIN_BYTES"):
        monkeypatch.setattr(f"toolkit.transfer.{name}", 4 * CHUNK_BYTES)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A sending and a receiving end."""
    with channel_pair() as pair:
        yield pair


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory that files are received into."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def files(root: Path) -> Iterator[IncomingFiles]:
    """The files of a session that stores them below `root`."""
    incoming = IncomingFiles(Storage(root, overwrite=False, durable=False))
    yield incoming
    incoming.close(complete=False)


@pytest.fixture
def written_files(root: Path) -> Iterator[IncomingFiles]:
    """As `files`, but small files are written when they arrive, as larger ones are."""
    incoming = IncomingFiles(Storage(root, overwrite=False, durable=False, holds_small_files=False))
    yield incoming
    incoming.close(complete=False)


@pytest.fixture
def splicing(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IncomingFiles]:
    """As `files`, on a file system that supports splicing and reserving blocks, whatever the real one is."""
    monkeypatch.setattr(tree, "maps_extents", lambda _: True)
    incoming = IncomingFiles(Storage(root, overwrite=False, durable=False, holds_small_files=False))
    yield incoming
    incoming.close(complete=False)
