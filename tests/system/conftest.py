"""Fixtures that the tests of the commands share."""

import random
from pathlib import Path

import pytest


@pytest.fixture(params=["tcp", "udp"])
def transport(request: pytest.FixtureRequest) -> str:
    """The transport that both ends use."""
    return str(request.param)


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """An empty directory to receive into."""
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to send."""
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(200_000))
    return path
