"""The limits of a receiver as users meet them: the sender reads which option stopped it, and the receiver goes on."""

import os
from pathlib import Path

import pytest

from tests.support.cli_process import complaint, everything_below, nettool, receiver


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with three files of 1000 bytes."""
    path = tmp_path / "tree"
    path.mkdir()
    for name in ("a", "b", "c"):
        (path / name).write_bytes(os.urandom(1000))
    return path


@pytest.mark.parametrize(
    ("options", "limit", "arrived"),
    [
        (("--max-bytes", "2500"), "2.441 KiB in a session (its --max-bytes)", ["tree", "tree/a", "tree/b"]),
        (("--max-files", "3"), "a session may bring 3 files (the receiver's --max-files)", []),
    ],
    ids=["bytes", "files"],
)
def test_a_sender_reads_which_limit_stopped_it(
    transport: str, tree: Path, incoming: Path, options: tuple[str, ...], limit: str, arrived: list[str]
) -> None:
    with receiver(incoming, *options) as receiving:
        ended = nettool(f"{transport}-send", "-r", tree, receiving.target)
        assert ended.code == 3
        assert limit in complaint(ended, listed=bool(arrived))
        assert everything_below(incoming) == arrived
        (tree.parent / "small").write_bytes(b"x")
        assert nettool(f"{transport}-send", tree.parent / "small", receiving.target).code == 0


def test_more_connections_than_allowed_are_refused(tree: Path, incoming: Path) -> None:
    with receiver(incoming, "--max-streams", "2") as receiving:
        assert nettool("tcp-send", "--streams", "2", tree / "a", receiving.target).code == 0
        ended = nettool("tcp-send", "--streams", "3", tree / "b", receiving.target)
    assert ended.code == 3
    assert "--max-streams" in complaint(ended)


@pytest.mark.parametrize("option", ["--max-time", "--stall-timeout"])
def test_a_limit_of_no_time_is_refused(incoming: Path, option: str) -> None:
    ended = nettool("recv", "--dir", incoming, option, "0s")
    assert ended.code == 2
    assert f"{option} must be longer than zero" in complaint(ended)
