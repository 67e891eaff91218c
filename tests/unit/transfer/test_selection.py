"""What of a tree is sent: excluded names, and links that are followed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.transfer.scan import SkippedEntry, check_sources, scan
from toolkit.transfer.selection import EVERYTHING, LinkChoice, Selection, exclude
from toolkit.transfer.source_tree import SourceDirectories


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A tree with build products, and with links."""
    tree = tmp_path / "tree"
    for name in ("a.c", "a.o", "keep.o", "build/x", "sub/build/y", "sub/b.c", "sub/c.o"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"x")
    yield tree
    for folder, directories, files in os.walk(tree):
        for path in (Path(folder, name) for name in directories + files):
            if not path.is_symlink():
                path.chmod(0o700)


def scanned(tree: Path, selection: Selection) -> tuple[set[str], list[SkippedEntry]]:
    """The paths that are sent, below the tree, and what is skipped."""
    skipped: list[SkippedEntry] = []
    directories = SourceDirectories(follows_links=selection.links is LinkChoice.FOLLOW)
    roots = check_sources([tree], recursive=True, stream_name="")
    found = {source.entry.name for source in scan(roots, directories, skipped.append, selection)}
    directories.close()
    return {name.removeprefix("tree/") for name in found} - {"tree"}, skipped


@pytest.mark.parametrize(
    ("patterns", "left_out"),
    [
        (["*.o"], {"a.o", "keep.o", "sub/c.o"}),
        (["*.o", "!keep.o"], {"a.o", "sub/c.o"}),
        (["build/"], {"build", "build/x", "sub/build", "sub/build/y"}),
        (["/build"], {"build", "build/x"}),
        (["a.c/"], set()),
        (["tree"], set()),  # the source that the user names is always sent
    ],
)
def test_patterns_are_those_of_a_gitignore_file(tree: Path, patterns: list[str], left_out: set[str]) -> None:
    everything, _ = scanned(tree, EVERYTHING)
    kept, skipped = scanned(tree, Selection(exclude(patterns)))
    assert everything - kept == left_out
    assert skipped == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_is_excluded_is_not_even_read(tree: Path) -> None:
    for name in ("a.o", "build"):
        (tree / name).chmod(0)
    assert scanned(tree, Selection(exclude(["*.o", "build/"])))[1] == []


def test_a_bad_pattern_is_named() -> None:
    with pytest.raises(UsageError, match=r"`exclude` !: not a pattern"):
        exclude(["*.o", "!"])


def test_links_are_followed_on_request_and_end_where_they_lead_back(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/file").write_bytes(b"far")
    for name, target in (("far", "../far"), ("file", "../far/file"), ("up", "."), ("sub/top", ".."), ("none", "gone")):
        (tree / name).symlink_to(target)
    sent, skipped = scanned(tree, EVERYTHING)
    assert not sent & {"far", "file", "up", "sub/top", "none"}
    assert {(one.reason, one.is_failure) for one in skipped} == {("symbolic link", False)}
    followed, failed = scanned(tree, Selection(links=LinkChoice.FOLLOW))
    assert followed - sent == {"far", "far/file", "file"}
    assert {(one.path, one.reason) for one in failed} == {
        (b"tree/none", "a symbolic link that leads nowhere"),
        (b"tree/sub/top", "a symbolic link to a directory that it is in"),
        (b"tree/up", "a symbolic link to a directory that it is in"),
    }
    assert all(one.is_failure for one in failed)


def test_a_link_that_cannot_be_followed_leaves_the_rest_of_its_directory(tree: Path) -> None:
    sent, _ = scanned(tree, EVERYTHING)
    (tree / "loop").symlink_to("loop")
    (tree / "sub/long").symlink_to("n" * 300)
    followed, failed = scanned(tree, Selection(links=LinkChoice.FOLLOW))
    assert followed == sent
    assert {(one.path, one.reason) for one in failed} == {
        (b"tree/loop", "a symbolic link that leads nowhere"),
        (b"tree/sub/long", "file name too long"),
    }
    excluding = Selection(exclude(["loop", "long"]), links=LinkChoice.FOLLOW)
    assert scanned(tree, excluding) == (sent, [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_link_into_a_forbidden_directory_leaves_the_rest_of_its_directory(tree: Path, tmp_path: Path) -> None:
    sent, _ = scanned(tree, EVERYTHING)
    closed = tmp_path / "closed"
    (closed / "in").mkdir(parents=True)
    closed.chmod(0)
    try:
        (tree / "link").symlink_to(closed / "in")
        followed, failed = scanned(tree, Selection(links=LinkChoice.FOLLOW))
    finally:
        closed.chmod(0o700)
    assert followed == sent
    assert [(one.path, one.reason) for one in failed] == [(b"tree/link", "permission denied")]
